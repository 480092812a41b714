"""Runs in a results folder: making one, finding one, listing all, choosing from one."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ghnas.engine.manifest import (
    FORMAT_VERSION,
    Manifest,
    new_manifest,
    parse_objectives,
    read_manifest,
)
from ghnas.engine.record import Ranked, Record
from ghnas.engine.run import JOURNAL, MANIFEST, PROGRESS, Run
from ghnas.engine.storage import create_study, open_storage, writing
from ghnas.spaces import parse_space
from ghnas.utils.errors import UserError
from ghnas.utils.files import write_atomically

__all__ = [
    "FORMAT_VERSION",
    "Manifest",
    "Ranked",
    "Record",
    "Run",
    "RunSummary",
    "create_run",
    "find_run",
    "latest_run",
    "list_runs",
    "new_manifest",
    "open_run",
    "parse_objectives",
    "select",
]


def create_run(root: Path, manifest: Manifest) -> Run:
    """Make a run's folder with its manifest and its study.

    Args:
        root: The results folder.
        manifest: From `new_manifest`; the study gets the folder's name.

    Raises:
        UserError: If the folder cannot be written or the storage cannot be opened.
    """
    space = parse_space(manifest.space_text, manifest.space)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    with writing(root):
        path = _new_folder(root / "runs", f"{stamp}-{space.name}-{manifest.strategy}")
    manifest = manifest.model_copy(update={"study_name": path.name})
    try:
        with writing(path):
            storage = open_storage(path / JOURNAL, manifest.storage)
            objectives = dict(zip(manifest.objectives, manifest.directions, strict=True))
            create_study(storage, path.name, objectives, manifest.summary())
            # last: a folder with a manifest is a whole run
            write_atomically(path / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    except UserError:
        for file in (path / JOURNAL, path):
            with contextlib.suppress(OSError):
                file.rmdir() if file.is_dir() else file.unlink()
        raise
    return Run(path, manifest)


def _new_folder(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def open_run(path: Path) -> Run:
    """Open a run's folder.

    Raises:
        UserError: If it is none, is damaged, or was written by a newer version.
    """
    return Run(path, read_manifest(path / MANIFEST))


def find_run(root: Path, name: str | None = None) -> Run:
    """A run by its name in the results folder, or by its path; the latest by default.

    Raises:
        UserError: If there is none.
    """
    if name is None or name == "latest":
        return latest_run(root)
    for path in (root / "runs" / name, Path(name)):
        if (path / MANIFEST).is_file():
            return open_run(path)
    known = [path.name for path in _run_folders(root)]
    hint = f"the latest is {known[-1]}" if known else "run `ghnas search` first"
    raise UserError(f"no run {name!r} in {root}; {hint}")


def latest_run(root: Path) -> Run:
    """The run that was started last.

    Raises:
        UserError: If there is none.
    """
    folders = _run_folders(root)
    if not folders:
        raise UserError(f"no run found in {root}; run `ghnas search` first")
    return open_run(folders[-1])


def _run_folders(root: Path) -> list[Path]:
    """Folders of runs, oldest first."""
    found = [path.parent for path in (root / "runs").glob(f"*/{MANIFEST}")]
    return sorted(found, key=lambda path: _order(path.name))


def _order(name: str) -> tuple[str, int, str]:
    """By time, then by the number that tells runs of one second apart."""
    stamp, number = name[:15], name.rpartition("-")[2]
    return stamp, int(number) if number.isdigit() else 1, name


@dataclass(frozen=True)
class RunSummary:
    """A line of the list of runs.

    Args:
        created: Time in UTC.
        done: Candidates recorded; a search that was killed may have recorded a few more.
        problem: What is wrong with the run, if it cannot be read; the rest is then empty.
    """

    name: str
    path: Path
    created: datetime | None = None
    space: str = ""
    data: str = ""
    strategy: str = ""
    budget: int = 0
    done: int = 0
    best_accuracy: float | None = None
    problem: str | None = None


def list_runs(root: Path) -> list[RunSummary]:
    """The runs in a results folder, oldest first."""
    return [_summarise(path) for path in _run_folders(root)]


def _summarise(path: Path) -> RunSummary:
    try:
        manifest = open_run(path).manifest
    except UserError as error:
        return RunSummary(path.name, path, problem=str(error))
    progress = {}
    with contextlib.suppress(OSError, ValueError):  # no batch is recorded yet
        progress = json.loads((path / PROGRESS).read_text())
    return RunSummary(
        name=path.name,
        path=path,
        created=datetime.fromisoformat(manifest.created).astimezone(UTC),
        space=manifest.space,
        data=manifest.data,
        strategy=manifest.strategy,
        budget=manifest.budget,
        done=progress.get("done", 0),
        best_accuracy=progress.get("best_accuracy"),
    )


def select(run: Run, selection: str) -> list[Ranked]:
    """Architectures of a run by rank or trial number.

    Args:
        run: The run.
        selection: `top-5`, `best`, `front` (the Pareto front) or a trial's number, as `#123`.

    Raises:
        UserError: If the selection cannot be read or there is no such architecture.
    """
    kind, _, count = selection.partition("-")
    if kind == "top" and count.isdigit() and int(count) > 0:
        chosen = run.ranked(int(count))
    elif selection == "best":
        chosen = run.ranked(1)
    elif selection == "front":
        chosen = [item for item in run.ranked() if item.front]
    elif selection.removeprefix("#").isdigit():
        chosen = _by_number(run, int(selection.removeprefix("#")))
    else:
        raise UserError(
            f"cannot read {selection!r}: expected top-5 (or another number from 1), best, front, "
            "or the number of a trial, as #123"
        )
    if not chosen:
        raise UserError(f"run {run.name} has no scored candidate yet; run `ghnas search --resume`")
    return chosen


def _by_number(run: Run, number: int) -> list[Ranked]:
    records = run.recorded()
    if number >= len(records):
        raise UserError(f"run {run.name} has no trial {number}: it has {len(records)} trials")
    same_as = records[number].duplicate_of
    original = number if same_as is None else same_as
    return [item for item in run.ranked() if item.record.number == original]
