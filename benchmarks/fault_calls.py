"""Commands in which one call of the process fails: one to the operating system, as on a disk that
is full, broken or read-only by now, or one that finds no memory; or at which a process is killed.

A first run notes which calls there are, by the function that makes them; each of them is as likely
to be the one, however often it is made. So what happens once and takes no time is tried as often as
what takes all of it, which no limit of a disk or of memory and no moment of a clock does.
"""

from __future__ import annotations

import errno
import json
import multiprocessing.util
import os
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from fault_commands import COMMANDS, goes_on, left, whole
from fault_inputs import Inputs
from fault_processes import Process, answer, below, cut_off, said

SYSTEM = frozenset({
    "open", "write", "writelines", "flush", "close", "fsync", "replace", "rename", "mkdir",
    "unlink", "remove", "rmdir", "scandir", "listdir", "truncate", "ftruncate", "read", "readline",
    "readlines", "readinto", "flock", "lockf", "symlink", "link", "mmap", "stat", "lstat", "utime",
    "chmod", "statvfs",
})  # fmt: skip
"""Functions of Python that call the operating system about files."""
FILES = frozenset({
    "", "BufferedRandom", "BufferedReader", "BufferedWriter", "FileIO", "TextIOWrapper", "mmap",
})  # fmt: skip
"""Classes that have some of them as methods; a list or a string has methods of such names too."""
REMOVING = frozenset({"unlink", "remove", "rmdir"})
"""Of these, what removes files; after one that fails, it is the next command that removes them."""
DATABASE = frozenset({"execute", "executemany", "commit", "fetchall", "fetchone"})
"""Methods of sqlite3."""
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS)
ALLOCATING = ("ghnas", "optuna", "sqlalchemy", "safetensors", "json", "numpy")
"""Packages whose calls find no memory; what only waits or imports is left out."""
RUNNING = ("/ghnas/", "/concurrent/", "/multiprocessing/", "/threading.py", "/optuna/")
"""Parts of paths at whose calls processes are killed."""
OURS = ("fault_", "runpy", "importlib", "multiprocessing/util")
"""Parts of paths whose calls are not the command's."""
PIPES = ("multiprocessing/connection", "multiprocessing/popen")
"""Those whose files are pipes, which no disk fills or breaks."""
AROUND = ("main", "exit_code", "_fail", "use_plain_characters", "one_sentence")
"""Functions of the program that are what says that there is no memory."""

Site = tuple[str, str, str, str]
"""A file, a function in it, the kind of event, and the C function that it calls, a method with its
class."""
Act = Callable[[Site], None]
"""What happens at a call; an error that it raises is the call's."""


def system_fails(name: str, inputs: Inputs, rng: random.Random) -> tuple[bool, str | None]:
    """Let one call to the operating system fail, then run the command again; returns whether it was
    refused, and what is wrong."""
    number = rng.choice(ERRORS)

    def fail(site: Site) -> None:
        if _is_of_a_database(site):
            raise sqlite3.OperationalError("disk I/O error")
        raise OSError(number, os.strerror(number), "a file")

    return _failing(name, inputs, rng, _of_the_system, fail, errno.errorcode[number])


def allocation_fails(name: str, inputs: Inputs, rng: random.Random) -> tuple[bool, str | None]:
    """Let one call find no memory, then run the command again; returns whether it was refused, and
    what is wrong."""

    def fail(_: Site) -> None:
        raise MemoryError

    return _failing(name, inputs, rng, _allocates, fail, "no memory")


def killed_at_a_call(name: str, inputs: Inputs, rng: random.Random) -> str | None:
    """Kill a command, or one of its processes, at one of its calls, go on, and compare; returns
    what is wrong."""
    command, work = COMMANDS[name], inputs.folder / "work"
    outcome, _ = whole(name, inputs, work)
    site, nth, told = _one_call(name, inputs, rng, lambda site: any(x in site[0] for x in RUNNING))
    which = rng.choice((_kill_this, _kill_another))
    command.prepare(inputs, work)
    process = Process(command.first(inputs, work), partial(_strike, site, nth, which))
    problem = cut_off(process) or goes_on(command, inputs, work, outcome) or left(work)
    return f"{which.__name__}, {told}: {problem}" if problem else None


def _kill_this(_: Site) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_another(site: Site) -> None:
    """One that this process has started, if there is one."""
    if others := below(os.getpid()):
        os.kill(others[-1], signal.SIGKILL)
    else:
        _kill_this(site)


def _of_the_system(site: Site) -> bool:
    of, _, name = site[3].rpartition(".")
    is_of_files = of in FILES and name in SYSTEM and not any(part in site[0] for part in PIPES)
    return site[2] == "c_call" and (is_of_files or _is_of_a_database(site))


def _is_of_a_database(site: Site) -> bool:
    of, _, name = site[3].rpartition(".")
    return of in ("Cursor", "Connection") and name in DATABASE


def _allocates(site: Site) -> bool:
    return (
        site[2] in ("call", "c_call")
        and any(f"/{package}/" in site[0] for package in ALLOCATING)
        and site[1] not in AROUND
    )


def _failing(
    name: str,
    inputs: Inputs,
    rng: random.Random,
    is_wanted: Callable[[Site], bool],
    fail: Act,
    error: str,
) -> tuple[bool, str | None]:
    command, work = COMMANDS[name], inputs.folder / "work"
    outcome, _ = whole(name, inputs, work)
    site, nth, told = _one_call(name, inputs, rng, is_wanted)
    command.prepare(inputs, work)
    process = Process(command.first(inputs, work), partial(_strike, site, nth, fail))
    refused, problem = answer(process)
    if site[3] not in REMOVING:
        problem = problem or left(work)
    problem = problem or goes_on(command, inputs, work, outcome) or left(work)
    return refused, f"{error}, {told}: {problem}" if problem else None


def _one_call(
    name: str, inputs: Inputs, rng: random.Random, is_wanted: Callable[[Site], bool]
) -> tuple[Site, int, str]:
    """One of a command's calls: where it is made, which of them it is, and how that is told."""
    counts = _calls(name, inputs, inputs.folder / "work")
    site = rng.choice([site for site in counts if is_wanted(site)])
    nth = rng.randint(1, counts[site])
    return site, nth, f"call {nth:,} of {counts[site]:,} at {':'.join(site)}"


_counted: dict[str, dict[Site, int]] = {}


def _calls(name: str, inputs: Inputs, work: Path) -> dict[Site, int]:
    """How often a command makes each of its calls.

    Raises:
        RuntimeError: If it does not succeed.
    """
    if name not in _counted:
        command, kept = COMMANDS[name], inputs.folder / "calls.json"
        command.prepare(inputs, work)
        process = Process(command.first(inputs, work), lambda: _count(kept))
        told = said(process)
        if process.returncode:
            raise RuntimeError(f"{name}: {told}")
        _counted[name] = {tuple(site): count for site, count in json.loads(kept.read_text())}
    return _counted[name]


def _count(kept: Path) -> None:
    """Count this process's calls from here on; they are in a file when it ends."""
    counts: Counter[Site] = Counter()

    def hook(frame: FrameType, event: str, called: Any) -> None:
        counts[_site(frame, event, called)] += 1

    def save() -> None:
        sys.setprofile(None)
        own = [each for each in counts.items() if not any(part in each[0][0] for part in OURS)]
        kept.write_text(json.dumps(own))

    multiprocessing.util.Finalize(None, save, exitpriority=0)
    sys.setprofile(hook)


def _strike(site: Site, nth: int, act: Act) -> None:
    """Let something happen at a call of this process."""
    _, function, wanted, _ = site
    to_come = nth

    def hook(frame: FrameType, event: str, called: Any) -> None:
        nonlocal to_come
        if event != wanted or frame.f_code.co_qualname != function:
            return
        if _site(frame, event, called) == site:
            to_come -= 1
            if to_come == 0:
                sys.setprofile(None)
                act(site)

    sys.setprofile(hook)


def _site(frame: FrameType, event: str, called: Any) -> Site:
    code = frame.f_code
    name = getattr(called, "__qualname__", "?") if event.startswith("c_") else ""
    return code.co_filename, code.co_qualname, event, name
