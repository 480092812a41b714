"""The commands that faults are tried on, and what must not depend on the fault."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fault_inputs import Inputs
from fault_processes import difference, run

from ghnas.engine.runs import find_run
from ghnas.ghn.library import cached
from ghnas.utils.files import cache_folder
from ghnas.utils.tensor_files import read_tensors

CACHE = cache_folder()
"""Of the user."""
Arguments = Callable[[Inputs, Path], list[str]]


@dataclass(frozen=True)
class Command:
    """A command that can go on.

    Args:
        first: Its arguments, for a working folder.
        again: What goes on after it was ended.
        outcome: What must not depend on whether it was ended.
        earlier: Names of the commands that have filled the working folder before.
        empty_cache: Whether the user's cache is an empty one (but for compiled
            kernels), in the working folder.
    """

    first: Arguments
    again: Arguments
    outcome: Callable[[Path], Any]
    earlier: Sequence[str] = ()
    empty_cache: bool = False

    def prepare(self, inputs: Inputs, work: Path) -> None:
        """Empty the working folder, but for what the command needs.

        Raises:
            RuntimeError: If an earlier command does not succeed.
        """
        for path in work.iterdir() if work.exists() else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        work.mkdir(exist_ok=True)
        if self.earlier:
            shutil.copytree(_filled(self.earlier, inputs), work, dirs_exist_ok=True)
        cache = work / "cache" if self.empty_cache else CACHE
        os.environ["GHNAS_CACHE"] = str(cache)
        if self.empty_cache:
            cache.mkdir()
            for kernels in CACHE.glob("kernels-*"):
                (cache / kernels.name).symlink_to(kernels)


def _filled(names: Sequence[str], inputs: Inputs) -> Path:
    """A folder in which commands have run."""
    kept = inputs.folder / "-".join(["after", *names])
    if not kept.exists():
        *before, last = names
        work = kept.with_name("filling")
        replace(COMMANDS[last], earlier=before).prepare(inputs, work)
        if problem := run(COMMANDS[last].first(inputs, work)):
            raise RuntimeError(f"{last}: {problem}")
        work.rename(kept)
    return kept


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

    return Command(first, again, _searched)


def _same(arguments: Arguments, outcome: Callable[[Path], Any], *earlier: str) -> Command:
    """A command that goes on when it is run again."""
    return Command(arguments, arguments, outcome, earlier)


def _searched(work: Path) -> list[Any]:
    """The trials of a run, and its trainings."""
    run = find_run(work)
    trials = [(item.number, item.hash, item.values, item.duplicate_of) for item in run.read()]
    trainings = sorted((t.trial, t.steps, t.repeat, t.outcome) for t in run.trainings())
    return [trials, trainings]


def _sums(work: Path) -> dict[str, dict[str, float]]:
    """Of every tensor in the files of a folder."""
    return {
        path.relative_to(work).as_posix(): {
            name: float(value.double().sum()) for name, value in read_tensors(path)[0].items()
        }
        for path in sorted(work.rglob("*.safetensors"))
    }


def _scores(folder: Path) -> list[list[str]]:
    """Of a table of scores, without their seconds."""
    with (folder / "scores.csv").open() as file:
        head, *rows = csv.reader(file)
    kept = [i for i, name in enumerate(head) if "seconds" not in name]
    return sorted([row[i] for i in kept] for row in rows)


def _regrets(folder: Path) -> Any:
    """How far each sampler's best is from the best."""
    return json.loads((folder / "bench.json").read_text())["methods"]


def _page(path: Path) -> tuple[int, bool]:
    """How many drawings a page has, and whether it is whole."""
    text = path.read_text()
    return text.count("<svg"), text.rstrip().endswith("</html>")


def _rows(work: Path) -> list[list[str]]:
    """Of a table of trainings, without their seconds."""
    with (work / "truth.csv").open() as file:
        return sorted(row[:-1] for row in csv.reader(file))


COMMANDS = {
    "search": _search("--budget", "256"),
    "few": _search("--budget", "40"),
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
        "few",
    ),
    "truth": _same(
        lambda inputs, work: [
            "truth", "--cells", "2", "--channels", "4", "--count", "3", "--seeds", "1",
            "--steps", "4", "--workers", "2", "--output", str(work / "truth.csv"),
        ],
        _rows,
    ),
    "join": _same(
        lambda inputs, work: _search_arguments(
            inputs, work, "--budget", "256", "--storage", f"sqlite:///{work}/study.db",
            "--join", "ours",
        ),
        _searched,
    ),
    # how far adapting comes in its time differs, and so do the scores
    "adapt": replace(
        _same(
            lambda inputs, work: [
                "search", "--space", str(inputs.own / "mine.yaml"), "--adapt", "4s",
                "--data", str(inputs.own / "pets"), "--budget", "16", "--results", str(work),
            ],
            lambda work: [sorted(item.number for item in find_run(work).read()), len(cached())],
        ),
        empty_cache=True,
    ),
    "rank": _same(
        lambda inputs, work: [
            "rank", "--truth", str(work / "truth.csv"), "--ghn", str(inputs.ghn),
            "--cells", "2", "--channels", "4", "--score-images", "64", "--proxy-images", "8",
            "--workers", "2", "--methods", "ghn-accuracy,params,flops,naswot,synflow,steps-2",
            "--output", str(work / "rank"),
        ],
        lambda work: _scores(work / "rank"),
        "truth",
    ),
    "bench": _same(
        lambda inputs, work: [
            "bench", str(inputs.accuracies), "--space", "nasbench201", "--seeds", "2",
            "--trainings", "2,4", "--workers", "2", "--output", str(work / "bench"),
        ],
        lambda work: _regrets(work / "bench"),
    ),
    "export": _same(
        lambda inputs, work: ["export", "top-1", "--results", str(work), "-o", f"{work}/x.py"],
        lambda work: (work / "x.py").read_text(),
        "few", "finetune",
    ),
    "report": _same(
        lambda inputs, work: ["report", "--results", str(work), "-o", str(work / "x.html")],
        lambda work: _page(work / "x.html"),
        "few", "finetune",
    ),
    "convert": _same(
        lambda inputs, work: [
            "convert", str(inputs.ghn), str(work / "x.safetensors"), "--half",
        ],
        _sums,
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


def left(work: Path) -> str | None:
    """What a command has begun to write in its folder and neither finished nor removed."""
    hidden = list(work.rglob(".*"))
    return f"left {hidden}" if hidden else None


def goes_on(command: Command, inputs: Inputs, work: Path, outcome: Any) -> str | None:
    """Go on with a command that a fault has befallen; returns what is wrong with its outcome."""
    if problem := run(command.again(inputs, work)):
        return f"then: {problem}"
    return difference(outcome, command.outcome(work))
