"""Commands of the program as processes that can be ended at any moment."""

from __future__ import annotations

import faulthandler
import fcntl
import itertools
import multiprocessing.util
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ghnas.cli import main

PATIENCE = 300
"""Seconds that a whole command may take on a busy machine."""
MOST_SAID = 2**20
"""Bytes that a command may say."""


class Process:
    """A command in a session of its own, which was forked from this program: a quarter of the time
    of one that imports everything anew, so that more moments of its work are tried.

    Args:
        arguments: Of the command line.
        before: Called in the process first.
    """

    def __init__(self, arguments: list[str], before: Callable[[], None] = lambda: None) -> None:
        self.returncode: int | None = None
        # a file would be limited as the command's are
        self._said, stream = os.pipe()
        fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, MOST_SAID)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._said)
            _become(arguments, stream, before)
        os.close(stream)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float) -> tuple[str, None]:
        """Wait for the end; what was said on both streams.

        Raises:
            subprocess.TimeoutExpired: If it does not end.
        """
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("ghnas", timeout)
            time.sleep(0.02)
        os.set_blocking(self._said, False)  # a process that is left may have it still
        with os.fdopen(self._said, "rb", 0) as told:
            return (told.read(MOST_SAID) or b"").decode(errors="replace"), None


def _become(arguments: list[str], stream: int, before: Callable[[], None]) -> NoReturn:
    """Be `python -m ghnas` from here on."""
    code = 70
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(
                number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            )
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        faulthandler.enable()
        sys.argv = ["ghnas", *arguments]
        before()
        runpy.run_module("ghnas", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:  # before the program could catch it
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        try:  # what Python does at the end of a program
            threading._shutdown()
            multiprocessing.util._exit_function()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def when_begun(do: Callable[[], None]) -> None:
    """Do something in this process when the program begins: a file of it that Python cannot load
    is not the program's to answer."""

    def hook(frame: FrameType, event: str, _: Any) -> None:
        if frame.f_code is main.__code__:
            sys.setprofile(None)
            do()

    sys.setprofile(hook)


Started = subprocess.Popen[str] | Process


def start(arguments: list[str]) -> Started:
    """A command in a session of its own, what it says in one stream; one in ten is started as a
    user would."""
    started = next(_started)
    if started % 10:
        return Process(arguments)
    return subprocess.Popen(
        [sys.executable, "-m", "ghnas", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"PYTHONFAULTHANDLER": "1"},
    )  # fmt: skip


_started = itertools.count(1)


def said(process: Started) -> str | None:
    """What a command has said at its end; None if it does not end, and then it is printed where
    its processes stood."""
    try:
        return process.communicate(timeout=PATIENCE)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)
        with suppress(subprocess.TimeoutExpired):
            print(process.communicate(timeout=10)[0], flush=True)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return None


def cut_off(process: Started) -> str | None:
    """Wait for a command of which a process is ended; returns what is wrong with its end."""
    told = said(process)
    if told is None:
        return "does not end"
    deadline = time.monotonic() + 10
    while (left := _in_session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        return f"processes are left: {left}"
    # a worker that was ended makes the command say so
    return told[-2500:] if "Traceback" in told else None


def _in_session(leader: int) -> list[int]:
    """The processes of a session, but for those that have ended."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            state, _, _, session = place.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(place.parent.name))
    return found


def run(arguments: list[str]) -> str | None:
    """Run a command that must succeed; returns what is wrong."""
    return finish(start(arguments))


def finish(process: Started) -> str | None:
    """Wait for a command that must succeed; returns what is wrong."""
    told = said(process)
    if told is None:
        return "does not end"
    return f"exit code {process.returncode}: {told[-2000:]}" if process.returncode else None


def answer(process: Started) -> tuple[bool, str | None]:
    """Wait for a command that may refuse in one sentence; returns whether it did, and what is wrong
    with its answer."""
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


def below(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in children] + [i for child in children for i in below(int(child))]


def difference(expected: Any, found: Any) -> str | None:
    """Where an outcome first differs from what it should be."""
    if expected == found:
        return None
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        parts = [(expected[name], found[name]) for name in expected]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        parts = list(zip(expected, found, strict=True))
    else:
        return f"another result: {str(found)[:500]}, not {str(expected)[:500]}"
    return next(told for a, b in parts if (told := difference(a, b)))
