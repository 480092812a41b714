"""The commands that faults are tried on, and what must not depend on the fault."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_inputs import Inputs
from fault_processes import run

from ghnas.engine.runs import find_run
from ghnas.utils.tensor_files import read_tensors

Arguments = Callable[[Inputs, Path], list[str]]


@dataclass(frozen=True)
class Command:
    """A command that can go on.

    Args:
        first: Its arguments, for a working folder.
        again: What goes on after it was ended.
        outcome: What must not depend on whether it was ended.
        searched: Whether the working folder has a finished search first.
    """

    first: Arguments
    again: Arguments
    outcome: Callable[[Path], Any]
    searched: bool = False

    def prepare(self, inputs: Inputs, work: Path) -> None:
        """Empty the working folder, but for what the command needs.

        Raises:
            RuntimeError: If a search does not succeed.
        """
        for path in work.iterdir() if work.exists() else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        work.mkdir(exist_ok=True)
        if not self.searched:
            return
        kept = inputs.folder / "searched"
        if not kept.exists():
            kept.mkdir()
            if problem := run(_search_arguments(inputs, kept, "--budget", "40")):
                raise RuntimeError(problem)
        shutil.copytree(kept, work, dirs_exist_ok=True)


def _search_arguments(inputs: Inputs, work: Path, *more: str) -> list[str]:
    return [
        "search", "--ghn", str(inputs.ghn), "--score-images", "64", "--device", "cpu",
        "--results", str(work), *more,
    ]  # fmt: skip


def _search(*options: str) -> Command:
    def first(inputs: Inputs, work: Path) -> list[str]:
        return _search_arguments(inputs, work, *options)

    def again(inputs: Inputs, work: Path) -> list[str]:
        began = (work / "runs").is_dir() and any((work / "runs").glob("*/manifest.json"))
        return ["search", "--resume", "--results", str(work)] if began else first(inputs, work)

    def outcome(work: Path) -> list[Any]:
        run = find_run(work)
        trials = [(item.number, item.hash, item.values, item.duplicate_of) for item in run.read()]
        trainings = sorted((t.trial, t.steps, t.repeat, t.outcome) for t in run.trainings())
        return [trials, trainings]

    return Command(first, again, outcome)


def _same(arguments: Arguments, outcome: Callable[[Path], Any], searched: bool = False) -> Command:
    """A command that goes on when it is run again."""
    return Command(arguments, arguments, outcome, searched)


def _sums(work: Path) -> dict[str, dict[str, float]]:
    """Of every tensor in the files of a folder."""
    return {
        path.relative_to(work).as_posix(): {
            name: float(value.double().sum()) for name, value in read_tensors(path)[0].items()
        }
        for path in sorted(work.rglob("*.safetensors"))
    }


def _rows(work: Path) -> list[list[str]]:
    """Of a table of trainings, without their seconds."""
    with (work / "truth.csv").open() as file:
        return sorted(row[:-1] for row in csv.reader(file))


COMMANDS = {
    "search": _search("--budget", "256"),
    "evolution": _search("--budget", "256", "--sampler", "evolution"),
    "short trainings": _search(
        "--budget", "40", "--train", "6", "--train-steps", "2,4", "--train-from", "kaiming"
    ),
    "train": _same(
        lambda inputs, work: [
            "train", "--cells", "2", "--channels", "4", "--hid", "8", "--steps", "8",
            "--meta-batch", "2", "--evaluate-every", "2", "--workers", "2",
            "--output", str(work / "ghn.safetensors"),
        ],
        _sums,
    ),
    "generate": _same(
        lambda inputs, work: [
            "generate", "--space", "darts", "--count", "2500", "-o", str(work / "many")
        ],
        lambda work: {path.name: path.read_bytes() for path in sorted(work.rglob("*.npy"))},
    ),
    "predict": _same(
        lambda inputs, work: [
            "predict", "resnet18", "--ghn", str(inputs.ghn), "-o", str(work / "x.safetensors")
        ],
        _sums,
    ),
    "finetune": _same(
        lambda inputs, work: [
            "finetune", "top-2", "--shots", "8", "--batch-size", "16", "--epochs", "2",
            "--results", str(work),
        ],
        _sums,
        searched=True,
    ),
    "truth": _same(
        lambda inputs, work: [
            "truth", "--cells", "2", "--channels", "4", "--count", "3", "--seeds", "1",
            "--steps", "4", "--workers", "2", "--output", str(work / "truth.csv"),
        ],
        _rows,
    ),
}  # fmt: skip

_whole: dict[str, tuple[Any, float]] = {}
"""Of each command the outcome without a fault, and its seconds."""


def whole(name: str, inputs: Inputs, work: Path) -> tuple[Any, float]:
    """The outcome of a command without a fault, and its seconds.

    Raises:
        RuntimeError: If it does not succeed.
    """
    command = COMMANDS[name]
    if name not in _whole:
        command.prepare(inputs, work)
        began = time.monotonic()
        if problem := run(command.first(inputs, work)):
            raise RuntimeError(f"{name}: {problem}")
        _whole[name] = command.outcome(work), time.monotonic() - began
    return _whole[name]
