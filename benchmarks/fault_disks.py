"""Commands that cannot write, or whose memory is used up, and what must hold afterwards.

A command ends with exit code 0 or with 2 and one sentence; with room again it goes on, to what it
gives without a fault. The disk that is full or read-only is a small `tmpfs`, which takes the rights
to mount one; that files may not grow any more is a limit of the process.
"""

from __future__ import annotations

import itertools
import os
import random
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from fault_commands import COMMANDS, goes_on, left, whole
from fault_inputs import Inputs
from fault_processes import Process, Started, answer, below, run, start, when_begun

ROOM = 256 * 2**20
"""Bytes that no command needs."""
PAGE = 4096
LEAST, MOST = 2**20, 192 * 2**20
"""Bytes of memory that a program may still take, where it is little."""
FILES = 64
"""Files that it may still open, where those are few, are fewer than these."""
Begin = Callable[[list[str]], Started]
"""How a command is started."""


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
        refused, problem = answer(start(command.first(inputs, disk)))
        _mount(disk, f"remount,size={ROOM}")
        told = f"{room:,} bytes"
        problem = problem or left(disk) or goes_on(command, inputs, disk, outcome)
        return refused, f"{told}: {problem}" if problem else None


def disk_read_only(name: str, inputs: Inputs, rng: random.Random) -> tuple[bool, str | None]:
    """Run a command on a disk that may not be written to, then on one that may; returns whether it
    was refused, and what is wrong."""
    command = COMMANDS[name]
    with _disk(inputs.folder / "disk") as disk:
        outcome, _ = whole(name, inputs, inputs.folder / "work")
        command.prepare(inputs, disk)
        _mount(disk, "remount,ro")
        refused, problem = answer(start(command.first(inputs, disk)))
        _mount(disk, f"remount,rw,size={ROOM}")
        problem = problem or left(disk) or goes_on(command, inputs, disk, outcome)
        return refused, f"read-only: {problem}" if problem else None


def files_full(name: str, inputs: Inputs, rng: random.Random) -> tuple[bool, str | None]:
    """Let a command's files grow to some bytes and no further, from a random moment on, then run it
    without a limit; returns whether it was refused, and what is wrong."""
    most = int(2 ** rng.uniform(0, 20))

    def limit(process: int) -> None:
        for each in (process, *below(process)):
            resource.prlimit(each, resource.RLIMIT_FSIZE, (most, most))

    return _limited(name, inputs, limit, rng.uniform(0, 1), f"files of {most:,} bytes")


def files_open(name: str, inputs: Inputs, rng: random.Random) -> tuple[bool, str | None]:
    """Let a command open a few files more than it begins with and no others, then run it without a
    limit; returns whether it was refused, and what is wrong."""
    more = rng.randrange(FILES)

    def begin(arguments: list[str]) -> Started:
        return Process(arguments, lambda: when_begun(partial(_limit_files, more)))

    return _befallen(name, inputs, begin, f"{more} more open files")


def _limit_files(more: int) -> None:
    """Let this process open so many more files."""
    listed = os.listdir("/proc/self/fd")  # one of them is the folder itself, closed by now
    used = {int(number) for number in listed if os.path.lexists(f"/proc/self/fd/{number}")}
    free = (number for number in itertools.count() if number not in used)
    most = next(itertools.islice(free, more, None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def memory_full(name: str, inputs: Inputs, rng: random.Random) -> tuple[bool, str | None]:
    """Take the memory of a command or of one of its processes at a random moment, then run it with
    enough; returns whether it was refused, and what is wrong."""
    more, which = rng.randrange(LEAST, MOST), rng.random()

    def limit(process: int) -> None:
        everyone = (process, *below(process))
        one = everyone[int(which * len(everyone))]
        pages = int(Path(f"/proc/{one}/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + more
        resource.prlimit(one, resource.RLIMIT_AS, (most, most))

    # not while Python loads torch: that is not the program's to answer
    begin, share = Process, rng.uniform(0.4, 1)
    return _limited(name, inputs, limit, share, f"{more >> 20} MiB more", begin)


def _limited(
    name: str,
    inputs: Inputs,
    limit: Callable[[int], None],
    share: float,
    told: str,
    begin: Begin = start,
) -> tuple[bool, str | None]:
    """Limit a command's process after a share of its time, then run it without a limit."""
    _, seconds = whole(name, inputs, inputs.folder / "work")
    moment = share * seconds

    def begin_limited(arguments: list[str]) -> Started:
        process = begin(arguments)
        time.sleep(moment)
        with suppress(OSError, IndexError):  # it has ended
            limit(process.pid)
        return process

    return _befallen(name, inputs, begin_limited, f"{told} after {moment:.2f} s")


def _befallen(name: str, inputs: Inputs, begin: Begin, told: str) -> tuple[bool, str | None]:
    """Run a command that something befalls, then again without; returns whether it was refused, and
    what is wrong."""
    command, work = COMMANDS[name], inputs.folder / "work"
    outcome, _ = whole(name, inputs, work)
    command.prepare(inputs, work)
    refused, problem = answer(begin(command.first(inputs, work)))
    problem = problem or left(work) or goes_on(command, inputs, work, outcome)
    return refused, f"{told}: {problem}" if problem else None


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
