"""Runs that `ghnas search` goes on with, and studies that it joins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ghnas.cli import options
from ghnas.cli.ghns import NO_GHN, Given
from ghnas.cli.terminal import meter
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    import torch

    from ghnas.engine.manifest import Manifest
    from ghnas.engine.objectives import ImageObjective
    from ghnas.engine.run import Run
    from ghnas.utils.processes import Pool


def joined_study(asked: Given) -> Manifest | None:
    """What the study of --join was started with; None if it is not there yet.

    Raises:
        UserError: If there is no --storage, or it cannot be opened.
    """
    from ghnas.engine.joining import check_study_name, joined_manifest

    check_study_name(asked["join"])
    if "storage" not in asked:
        raise UserError("--join names a study in a database: say which one with --storage")
    return joined_manifest(asked["storage"], asked["join"])


def join_study(
    out: Console,
    results: Path,
    study: Manifest,
    asked: Given,
    device: torch.device,
    pool: Pool,
) -> tuple[Run, ImageObjective]:
    """A run of this process on a study that is there, with images and hypernetwork of this machine.

    Raises:
        UserError: If an option says something else than the study, or those are others.
    """
    from ghnas.engine.joining import join_run, joined_folder

    read, here = _readers(study), [key for key in ("data", "ghn") if key in asked]
    sources = study.sources.model_copy(update={key: str(read[key](asked[key])) for key in here})
    own = study.model_copy(update={"sources": sources})
    _check_same(f"study {asked['join']}", own, asked)
    return _load(out, join_run(joined_folder(results, study), own, asked["storage"]), device, pool)


def continue_run(
    out: Console,
    results: Path,
    name: str | None,
    asked: Given,
    device: torch.device,
    pool: Pool,
) -> tuple[Run, ImageObjective]:
    """An earlier run with its objective, both as it was started.

    Raises:
        UserError: If there is none, or an option says something else.
    """
    from ghnas.engine.run import Run
    from ghnas.engine.runs import find_run

    run = find_run(results, name)
    _check_same(f"run {run.name}", run.manifest, asked)
    return _load(out, Run(run.path, run.manifest, asked.get("storage")), device, pool)


def _load(out: Console, run: Run, device: torch.device, pool: Pool) -> tuple[Run, ImageObjective]:
    """A run with its objective, whose images and hypernetwork are found again."""
    from ghnas.engine.stages.inputs import load_inputs, objective_of

    with meter(out, "images") as shown:
        ghn, data = load_inputs(run, shown.update)
    return run, objective_of(run, ghn, data, device, pool=pool)


def _check_same(what: str, manifest: Manifest, asked: Given) -> None:
    """Options given beside --resume or --join must be those of the run or study."""
    from ghnas.reports.commands import search_options

    meant = _readers(manifest)
    for key, value in search_options(manifest).items():
        wanted = meant.get(key, lambda same: same)(asked[key]) if key in asked else value
        if wanted != value:
            option = "--" + key.replace("_", "-")
            raise UserError(
                f"{what} was started with {option} {value}, not {wanted}: leave {option} out to go "
                f"on, or start a new {what.split()[0]}"
            )


def _readers(manifest: Manifest) -> dict[str, Callable[[Any], Any]]:
    """How some options are read before they are compared with a manifest."""
    from ghnas.engine.objectives import check_objectives, check_proxies
    from ghnas.ghn.checkpoint import list_ghns

    check = check_objectives if manifest.uses_ghn else check_proxies
    return {
        "data": options.data_source,
        "ghn": lambda path: path if path == NO_GHN else list_ghns().get(str(path), path).resolve(),
        "objective": lambda text: ",".join(check(text.split(","))),
        "storage": _bare,
    }


def _bare(url: str) -> str:
    from ghnas.engine.databases.connection import without_password

    return without_password(url)
