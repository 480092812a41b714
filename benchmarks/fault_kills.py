"""Commands whose processes are ended at random moments, and what must hold afterwards.

Going on gives what a command gives that was not ended, and no process is left behind.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_inputs import Inputs

from ghnas.engine.runs import find_run
from ghnas.ghn.checkpoint import load_ghn
from ghnas.utils.tensor_files import read_tensors

PATIENCE = 300
"""Seconds that a whole command may take on a busy machine."""
HOW = ("kill", "kill worker", "kill group", "interrupt", "terminate")


@dataclass(frozen=True)
class Command:
    """A command that can go on.

    Args:
        first: Its arguments, for a working folder.
        again: What goes on after it was ended.
        outcome: What must not depend on whether it was ended.
    """

    first: Callable[[Inputs, Path], list[str]]
    again: Callable[[Inputs, Path], list[str]]
    outcome: Callable[[Path], Any]


def _search(sampler: str) -> Command:
    def first(inputs: Inputs, work: Path) -> list[str]:
        return [
            "search", "--budget", "400", "--sampler", sampler, "--ghn", str(inputs.ghn),
            "--score-images", "64", "--device", "cpu", "--results", str(work),
        ]  # fmt: skip

    def again(inputs: Inputs, work: Path) -> list[str]:
        began = (work / "runs").is_dir() and any((work / "runs").glob("*/manifest.json"))
        return ["search", "--resume", "--results", str(work)] if began else first(inputs, work)

    def outcome(work: Path) -> list[tuple[Any, ...]]:
        trials = find_run(work).read()
        return [(item.number, item.hash, item.values, item.duplicate_of) for item in trials]

    return Command(first, again, outcome)


def _train(inputs: Inputs, work: Path) -> list[str]:
    return [
        "train", "--cells", "2", "--channels", "4", "--hid", "8", "--steps", "8", "--meta-batch",
        "2", "--evaluate-every", "2", "--workers", "2", "--output", str(work / "ghn.safetensors"),
    ]  # fmt: skip


def _generate(inputs: Inputs, work: Path) -> list[str]:
    return ["generate", "--space", "darts", "--count", "9000", "-o", str(work / "many")]


def _predict(inputs: Inputs, work: Path) -> list[str]:
    output = str(work / "x.safetensors")
    return ["predict", "resnet18", "--ghn", str(inputs.ghn), "-o", output]


def _files(work: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(work.rglob("*.npy"))}


COMMANDS = {
    "search": _search("random"),
    "evolution": _search("evolution"),
    "train": Command(
        _train,
        _train,
        lambda work: [
            value.tolist() for value in load_ghn(work / "ghn.safetensors").state_dict().values()
        ],
    ),
    "generate": Command(_generate, _generate, _files),
    "predict": Command(
        _predict,
        _predict,
        lambda work: {
            name: float(value.double().sum())
            for name, value in read_tensors(work / "x.safetensors")[0].items()
        },
    ),
}

_whole: dict[str, tuple[Any, float]] = {}
"""Of each command the outcome without an end, and its seconds."""


def interrupted(name: str, inputs: Inputs, rng: random.Random) -> str | None:
    """End a command at a random moment, go on, and compare; returns what is wrong."""
    command, work = COMMANDS[name], inputs.folder / "work"
    if name not in _whole:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        began = time.monotonic()
        if problem := _run(command.first(inputs, work)):
            return f"not ended: {problem}"
        _whole[name] = command.outcome(work), time.monotonic() - began
    outcome, seconds = _whole[name]
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    how, moment = rng.choice(HOW), rng.uniform(0, 1.1 * seconds)
    told = f"{how} after {moment:.2f} s"
    if problem := _end(command.first(inputs, work), how, moment):
        return f"{told}: {problem}"
    if problem := _run(command.again(inputs, work)):
        return f"{told}, then: {problem}"
    if command.outcome(work) != outcome:
        return f"{told}: another result"
    hidden = [path for path in work.rglob(".*") if how in ("interrupt",)]
    return f"{told}: left {hidden}" if hidden else None


def _start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ghnas", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def _run(arguments: list[str]) -> str | None:
    """A command that must succeed."""
    process = _start(arguments)
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return "does not end"
    return f"exit code {process.returncode}: {said[-2000:]}" if process.returncode else None


def _end(arguments: list[str], how: str, moment: float) -> str | None:
    """Begin a command and end it, or one of its processes, after some seconds."""
    process = _start(arguments)
    time.sleep(moment)
    workers = _below(process.pid)
    if process.poll() is None:
        if how == "kill worker" and workers:
            os.kill(workers[-1], signal.SIGKILL)
        elif how == "kill group":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            signals = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
            process.send_signal(signals.get(how, signal.SIGKILL))
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return "does not end"
    deadline = time.monotonic() + 10
    while (left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.1)
    if left:
        return f"processes are left: {left}"
    # a worker that was ended makes the command say so
    if "Traceback" in said:
        return said[-2000:]
    return None


def _below(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in children] + [
        i for child in children for i in _below(int(child))
    ]
