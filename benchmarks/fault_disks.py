"""Commands whose disk is full, or whose memory is used up, and what must hold afterwards.

A command ends with exit code 0 or with 2 and one sentence; with room again it goes on, to what it
gives without a fault. The full disk is a small `tmpfs`, which takes the rights to mount one.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fault_commands import COMMANDS, Command, whole
from fault_inputs import Inputs
from fault_processes import difference, run, said, start

ROOM = 256 * 2**20
"""Bytes that no command needs."""
PAGE = 4096
LEAST, MOST = 2**20, 192 * 2**20
"""Bytes of memory that a program may still take, where it is little."""


_needed: dict[str, int] = {}


def can_mount() -> bool:
    """Whether this user may mount a `tmpfs`."""
    return os.name == "posix" and os.geteuid() == 0


def disk_full(name: str, inputs: Inputs, rng: random.Random) -> tuple[bool, str | None]:
    """Run a command on a disk that is too small, then with room; returns whether it was refused,
    and what is wrong."""
    command = COMMANDS[name]
    with _disk(inputs.folder / "disk") as disk:
        outcome, _ = whole(name, inputs, inputs.folder / "work")
        needed = _needs(name, inputs, disk)
        command.prepare(inputs, disk)
        room = _used(disk) + int(needed * rng.uniform(0, 1.05)) // PAGE * PAGE
        _mount(disk, f"remount,size={max(room, PAGE)}")
        refused, problem = _answer(command.first(inputs, disk))
        _mount(disk, f"remount,size={ROOM}")
        told = f"{room:,} bytes"
        return refused, f"{told}: {problem}" if problem else _goes_on(
            command, inputs, disk, outcome, told
        )


def memory_full(name: str, inputs: Inputs, rng: random.Random) -> tuple[bool, str | None]:
    """Take a command's memory at a random moment, then run it with enough; returns whether it was
    refused, and what is wrong."""
    command, work = COMMANDS[name], inputs.folder / "work"
    outcome, seconds = whole(name, inputs, work)
    command.prepare(inputs, work)
    # not while Python loads its modules: that is not the program's to answer
    moment, more = rng.uniform(0.4, 1) * seconds, rng.randrange(LEAST, MOST)
    refused, problem = _answer(command.first(inputs, work), moment, more)
    told = f"{more >> 20} MiB after {moment:.2f} s"
    return refused, f"{told}: {problem}" if problem else _goes_on(
        command, inputs, work, outcome, told
    )


def _needs(name: str, inputs: Inputs, disk: Path) -> int:
    """Bytes that a command leaves on a disk."""
    if name not in _needed:
        command = COMMANDS[name]
        command.prepare(inputs, disk)
        before = _used(disk)
        if problem := run(command.first(inputs, disk)):
            raise RuntimeError(f"{name}: {problem}")
        _needed[name] = _used(disk) - before
    return _needed[name]


def _goes_on(
    command: Command, inputs: Inputs, work: Path, outcome: object, told: str
) -> str | None:
    hidden = [path for path in work.rglob(".*") if path.is_file()]
    if hidden:
        return f"{told}: left {hidden}"
    if problem := run(command.again(inputs, work)):
        return f"{told}, then: {problem}"
    problem = difference(outcome, command.outcome(work))
    return f"{told}: {problem}" if problem else None


def _answer(
    arguments: list[str], moment: float | None = None, more: int = 0
) -> tuple[bool, str | None]:
    """Run a command, and perhaps limit its memory; returns whether it was refused, and what is
    wrong with its answer."""
    process = start(arguments)
    if moment is not None:
        time.sleep(moment)
        _limit_memory(process.pid, more)
    told = said(process)
    if told is None:
        return False, "does not end"
    sentences = [line for line in told.splitlines() if line.startswith("ghnas: ")]
    if process.returncode not in (0, 2):
        return False, f"exit code {process.returncode}: {told[-2000:]}"
    if len(sentences) != (process.returncode == 2) or "Traceback" in told:
        return False, f"exit code {process.returncode}, {len(sentences)} sentences: {told[-2000:]}"
    if len("".join(sentences)) > 300:
        return False, f"a long sentence: {sentences}"
    return process.returncode == 2, None


def _limit_memory(process: int, more: int) -> None:
    """A limit on what a process may have, `more` bytes above what it has."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more
        resource.prlimit(process, resource.RLIMIT_AS, (limit, limit))
    except (OSError, IndexError):  # it has ended
        pass


@contextmanager
def _disk(folder: Path) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    _mount(folder, f"size={ROOM}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def _used(folder: Path) -> int:
    """Bytes in use on a disk."""
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
