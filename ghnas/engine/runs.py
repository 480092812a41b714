"""The runs of a results folder: starting, finding and listing them, and choosing from one."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from ghnas.engine.run import MANIFEST, PROGRESS, Run, open_run
from ghnas.engine.storage import writing
from ghnas.engine.trials import UNSCORED, Trial
from ghnas.utils.errors import UserError
from ghnas.utils.files import read_json


def new_run_folder(root: Path, space: str, sampler: str) -> Path:
    """An empty folder for a new run, named by the time, the space and the sampler.

    Raises:
        UserError: If the results folder cannot be written.
    """
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{space}-{sampler}"
    number = 1
    with writing(root):
        (root / "runs").mkdir(parents=True, exist_ok=True)
        while True:
            path = root / "runs" / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
            else:
                return path


def find_run(root: Path, name: str | None = None) -> Run:
    """A run by its name in the results folder, or by its path; the latest by default.

    Raises:
        UserError: If there is none.
    """
    folders = _run_folders(root)
    if name is None or name == "latest":
        if not folders:
            raise UserError(f"no run found in {root}; run `ghnas search` first")
        return open_run(folders[-1])
    for path in (root / "runs" / name, Path(name)):
        if (path / MANIFEST).is_file():
            return open_run(path)
    hint = f"the latest is {folders[-1].name}" if folders else "run `ghnas search` first"
    raise UserError(f"no run {name!r} in {root}; {hint}")


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
        best: Accuracy of the best candidate, or its first value if there is no accuracy.
        is_accuracy: Whether `best` is an accuracy in [0, 1].
        done: Candidates recorded; a search that was killed may have recorded a few more.
        problem: What is wrong with the run, if it cannot be read; the rest is then empty.
    """

    name: str
    path: Path
    created: datetime | None = None
    space: str = ""
    data: str = ""
    sampler: str = ""
    budget: int = 0
    done: int = 0
    best: float | None = None
    is_accuracy: bool = True
    problem: str | None = None


class _Progress(BaseModel):
    """What `Run.note_progress` keeps."""

    done: Annotated[int, Field(ge=0)] = 0
    best: float | None = None


def list_runs(root: Path) -> list[RunSummary]:
    """The runs in a results folder, oldest first."""
    return [summarise_run(path) for path in _run_folders(root)]


def summarise_run(path: Path) -> RunSummary:
    """What `list_runs` says of a run's folder."""
    try:
        manifest = open_run(path).manifest
    except UserError as error:
        return RunSummary(path.name, path, problem=str(error))
    progress = _Progress()
    with contextlib.suppress(OSError, ValueError):  # no batch is recorded yet
        progress = _Progress.model_validate(read_json(path / PROGRESS))
    return RunSummary(
        name=path.name,
        path=path,
        created=datetime.fromisoformat(manifest.created).astimezone(UTC),
        space=manifest.space,
        data=manifest.sources.data or manifest.objective.get("data", ""),
        sampler=manifest.sampler,
        budget=manifest.budget,
        done=progress.done,
        best=progress.best,
        is_accuracy=manifest.uses_ghn,
    )


_TOP = re.compile(r"top-?(.*)", re.IGNORECASE)
_TRIAL = re.compile(r"(?:trial-?|#)?(.*)", re.IGNORECASE)


def select(run: Run, selection: str) -> list[Trial]:
    """Architectures of a run.

    Args:
        run: The run that they are from.
        selection: `top-N` (the best N), `best`, `front` (the Pareto front), `trial-N` (by number)
            or an architecture in the notation of the run's space.

    Raises:
        UserError: If the selection cannot be read or names nothing.
    """
    text = selection.strip()
    if any(mark in text for mark in "(=|"):
        return [_from_notation(run, text)]
    if (match := _TOP.fullmatch(text)) is not None:
        chosen = run.ranked(_number(match[1], text, least=1))
    elif text == "best":
        chosen = run.ranked(1)
    elif text == "front":
        chosen = [trial for trial in run.ranked() if trial.front]
    elif text and (text[0] in "#0123456789" or text.lower().startswith("trial")):
        match = _TRIAL.fullmatch(text)
        chosen = _by_number(run, _number(match[1] if match else "", text, least=0))
    else:
        raise UserError(f"unknown selection {text!r}: use top-N, front, trial-N or a genotype")
    if not chosen:
        raise UserError(f"run {run.name} has no scored candidate yet; run `ghnas search --resume`")
    return chosen


def _number(digits: str, text: str, least: int) -> int:
    if not re.fullmatch("[0-9]{1,12}", digits) or int(digits) < least:
        raise UserError(f"{text!r} needs a whole number of {least} or more, as in top-5 or trial-7")
    return int(digits)


def _by_number(run: Run, number: int) -> list[Trial]:
    trials = run.read()
    if number >= len(trials):
        raise UserError(f"run {run.name} has no trial {number}: it has {len(trials)} trials")
    if trials[number].error is not None:
        raise UserError(f"trial {number} of run {run.name} failed: {trials[number].error}")
    same_as = trials[number].duplicate_of
    original = number if same_as is None else same_as
    return [item for item in run.ranked() if item.number == original]


def _from_notation(run: Run, text: str) -> Trial:
    """The run's own trial of that architecture, or one that was never scored."""
    architecture = run.space.parse(text)
    for trial in run.ranked():
        if architecture.hash.startswith(trial.hash):
            return trial
    return Trial(
        number=UNSCORED,
        architecture=architecture,
        values=(),
        parameters=architecture.parameters,
        flops=architecture.flops,
        hash=architecture.hash,
        rank=1,
    )
