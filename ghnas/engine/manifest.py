"""A run's manifest: what was searched, with what, and how; enough to repeat the run."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ghnas.spaces import Space, read_space_file
from ghnas.spaces.files import explain
from ghnas.utils.errors import UserError

FORMAT_VERSION = 1
"""Of the run folder; raised when an older ghnas could not read it."""

BATCH = 128
"""Candidates that are proposed together."""
SCORE_BATCH = 64
"""Images that batch-norm sees at a time: as many as in a hypernetwork's training."""
REFINE_STEPS = 100
"""SGD steps of each candidate of a short list."""

Direction = Literal["maximize", "minimize"]

OBJECTIVES: dict[str, Direction] = {
    "accuracy": "maximize",
    "consensus": "maximize",
    "params": "minimize",
    "flops": "minimize",
}
"""What can be optimised, and in which direction; `consensus` as in `ghnas.scoring.composite`."""
QUALITIES = ("accuracy", "consensus")
"""Those that say how good an architecture is; one of them must be among a search's."""


class Manifest(BaseModel):
    """What a run was started with; it never changes.

    Args:
        created: Time in UTC, ISO 8601.
        space: As the user named it; `space_text` is the file itself, for the file may change.
        skeleton: The fixed macro part.
        data: As the user named it; `data_fingerprint` is the SHA-256 of its images.
        image_shape: Channels, height and width.
        ghn: Path of the hypernetwork; `ghn_sha256` is the SHA-256 of the file.
        budget: Number of candidates.
        batch_size: Candidates that are proposed together.
        score_images: Validation images that a candidate is scored on.
        score_batch: Of these, images that batch-norm sees at a time.
        keep: The best that racing means to keep (see `ghnas.scoring.racing`); None: all
            candidates are scored on all images.
        refine: The best so many are trained for `refine_steps` SGD steps after the search, and
            ordered by that (see `ghnas.engine.short_list`), with `refine_cells` cells; None: none
            are, and as many cells as in the space's file.
        storage: URL of Optuna's database, None for a journal in the run's folder.
        versions: Of the packages that the result depends on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    created: str
    space: str
    space_text: str
    skeleton: dict[str, Any]
    data: str
    data_fingerprint: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    ghn: str
    ghn_sha256: str
    strategy: str
    objectives: tuple[str, ...] = ("accuracy",)
    seed: int = 0
    budget: int
    batch_size: int
    score_images: int
    score_batch: int = 128
    keep: int | None = None
    max_params: int | None = None
    max_flops: int | None = None
    refine: int | None = None
    refine_steps: int = REFINE_STEPS
    refine_cells: int | None = None
    storage: str | None = None
    study_name: str = ""
    versions: dict[str, str]
    device: str

    @property
    def directions(self) -> tuple[Direction, ...]:
        """`maximize` or `minimize` for each objective."""
        return tuple(OBJECTIVES[name] for name in self.objectives)

    def summary(self) -> dict[str, str | int]:
        """The main entries, as a study's user attributes."""
        entries = self.model_dump(
            include={
                "space", "data", "ghn", "strategy", "seed", "budget", "batch_size",
                "score_images", "score_batch", "keep", "max_params", "max_flops", "device",
            },
            exclude_none=True,
        )  # fmt: skip
        sums = {"ghn_sha256": self.ghn_sha256[:12], "data_fingerprint": self.data_fingerprint[:12]}
        return entries | sums | {f"version_{key}": value for key, value in self.versions.items()}


def new_manifest(
    *,
    space: Space,
    space_name: str,
    data: str,
    data_fingerprint: str,
    image_shape: tuple[int, int, int],
    classes: Sequence[str],
    ghn: str,
    ghn_sha256: str,
    budget: int,
    score_images: int,
    strategy: str = "random",
    objectives: Sequence[str] = ("accuracy",),
    seed: int = 0,
    batch_size: int = BATCH,
    score_batch: int = SCORE_BATCH,
    keep: int | None = None,
    max_params: int | None = None,
    max_flops: int | None = None,
    refine: int | None = None,
    refine_steps: int = REFINE_STEPS,
    refine_cells: int | None = None,
    storage: str | None = None,
    device: str = "cpu",
) -> Manifest:
    """A manifest for a new run, after everything that a user can get wrong was checked.

    Args:
        space: The space with its skeleton.
        space_name: What `load_space` was given; its file is copied into the manifest.

    Others as in `Manifest`.

    Raises:
        UserError: For an unknown strategy or objective, a number out of range, or a short list
            of several objectives.
    """
    from ghnas.engine.samplers import check_strategy

    check_strategy(strategy)
    if refine is not None:
        check_refinable(objectives)
    limits = {"max-params": max_params, "max-flops": max_flops}
    numbers = {"budget": budget, "batch size": batch_size, "number of images": score_images}
    for name, value in (numbers | limits).items():
        if value is not None and value < 1:
            raise UserError(f"the {name} must be 1 or more, not {value}")
    return Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        space=space_name,
        space_text=read_space_file(space_name),
        skeleton=dict(space.skeleton),
        data=data,
        data_fingerprint=data_fingerprint,
        image_shape=image_shape,
        classes=tuple(classes),
        ghn=ghn,
        ghn_sha256=ghn_sha256,
        strategy=strategy,
        objectives=check_objectives(objectives),
        seed=seed,
        budget=budget,
        batch_size=batch_size,
        score_images=score_images,
        score_batch=score_batch,
        keep=keep,
        max_params=max_params,
        max_flops=max_flops,
        refine=refine,
        refine_steps=refine_steps,
        refine_cells=refine_cells,
        storage=storage,
        versions=installed_versions(),
        device=device,
    )


def parse_objectives(text: str) -> tuple[str, ...]:
    """The objectives of a comma-separated list.

    Raises:
        UserError: As `check_objectives`.
    """
    return check_objectives([part.strip() for part in text.split(",")])


def check_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """The objectives, if they are known, different, and one is a quality.

    Raises:
        UserError: Naming the objective that is wrong, and the known ones.
    """
    known = ", ".join(OBJECTIVES)
    for name in names:
        if name not in OBJECTIVES:
            raise UserError(f"unknown objective {name!r}; known are {known}")
        if list(names).count(name) > 1:
            raise UserError(f"objective {name!r} is named twice")
    if not set(QUALITIES) & set(names):
        raise UserError(
            "the objectives must include accuracy or consensus, for example accuracy,params "
            "(the smallest architecture is not worth a search)"
        )
    return tuple(names)


def check_refinable(objectives: Sequence[str]) -> None:
    """Make sure that a short list can be ordered by one figure.

    Raises:
        UserError: If there are several objectives.
    """
    if len(objectives) > 1:
        raise UserError(
            f"--refine orders by one figure, and {','.join(objectives)} are several: search for "
            "one objective, or leave --refine out"
        )


def installed_versions() -> dict[str, str]:
    """Versions of what a run's result depends on, found without importing it."""
    found = {"python": platform.python_version()}
    for package in ("ghnas", "torch", "optuna"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # ghnas, run from a checkout
            found[package] = "unknown"
    return found


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        UserError: If the file is missing, damaged, or from a newer version; the file is named.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path.parent} is not a run: it has no {path.name}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: damaged, it is not JSON ({error})") from error
    found = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise UserError(
            f"{path.parent}: written by a newer ghnas (run format {found}, this one reads up to "
            f"{FORMAT_VERSION}); update ghnas"
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: damaged, {explain(error)}") from error
    try:
        check_objectives(manifest.objectives)
    except UserError as error:
        raise UserError(f"{path}: damaged, {error}") from error
    return manifest
