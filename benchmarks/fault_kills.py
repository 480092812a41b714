"""Commands whose processes are ended, or stand still, at random moments, and what must hold
afterwards.

Going on gives what a command gives that was not ended, and no process is left behind; a command
that is only slow gives it too.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from fault_commands import COMMANDS, goes_on, left, whole
from fault_inputs import Inputs
from fault_processes import Process, answer, below, cut_off, difference, finish, start

HOW = ("kill", "kill worker", "kill group", "interrupt", "terminate")
PAUSES, LONGEST = 3, 2.0
"""How often a command stands still, and for how many seconds at most."""
SEEN = "seen.py"
READING = (
    ["show", "top-3"], ["show", "top-1", "--json"], ["runs"], ["runs", "--json"], ["report"],
    ["export", "top-1", "-o", SEEN],
)  # fmt: skip
"""Commands that read what others are writing."""


def interrupted(name: str, inputs: Inputs, rng: random.Random) -> str | None:
    """End a command at a random moment, go on, and compare; returns what is wrong."""
    command, work = COMMANDS[name], inputs.folder / "work"
    outcome, seconds = whole(name, inputs, work)
    command.prepare(inputs, work)
    how, moment = rng.choice(HOW), rng.uniform(0, 1.1 * seconds)
    told = f"{how} after {moment:.2f} s"
    if problem := _end(command.first(inputs, work), how, moment):
        return f"{told}: {problem}"
    # what a process that was killed has left, the next removes
    problem = goes_on(command, inputs, work, outcome) or left(work)
    return f"{told}: {problem}" if problem else None


def slowed(name: str, inputs: Inputs, rng: random.Random) -> str | None:
    """Let a command, or one of its processes, stand still at random moments, as a disk or a machine
    does that has too much to do, read its folder meanwhile, and compare; returns what is wrong."""
    command, work = COMMANDS[name], inputs.folder / "work"
    outcome, seconds = whole(name, inputs, work)
    command.prepare(inputs, work)
    process, told = start(command.first(inputs, work)), []
    problem = None
    for _ in range(PAUSES):
        moment, share, pause = rng.uniform(0, seconds / 2), rng.random(), rng.uniform(0, LONGEST)
        time.sleep(moment)
        everyone = (process.pid, *below(process.pid))
        which = int(share * len(everyone))
        told.append(f"process {which} stands still for {pause:.2f} s after {moment:.2f} s")
        with suppress(ProcessLookupError):  # it has ended
            os.kill(everyone[which], signal.SIGSTOP)
            until = time.monotonic() + pause
            problem = problem or _look(work, rng)
            time.sleep(max(until - time.monotonic(), 0))
            os.kill(everyone[which], signal.SIGCONT)
    end = finish(process)
    problem = problem or end or difference(outcome, command.outcome(work)) or left(work)
    return f"{', '.join(told)}: {problem}" if problem else None


def _look(work: Path, rng: random.Random) -> str | None:
    """Read the run in a folder, if there is one; returns what is wrong with the answer."""
    look = [str(work.parent / part) if part == SEEN else part for part in rng.choice(READING)]
    if not (work / "runs").exists():
        return None
    _, problem = answer(Process([*look, "--results", str(work)]))
    return f"{look} meanwhile: {problem}" if problem else None


def _end(arguments: list[str], how: str, moment: float) -> str | None:
    """Begin a command and end it, or one of its processes, after some seconds."""
    process = start(arguments)
    time.sleep(moment)
    workers = below(process.pid)
    if process.poll() is None:
        if how == "kill worker" and workers:
            os.kill(workers[-1], signal.SIGKILL)
        elif how == "kill group":
            with suppress(ProcessLookupError):  # it has no group of its own yet
                os.killpg(process.pid, signal.SIGKILL)
        else:
            signals = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
            process.send_signal(signals.get(how, signal.SIGKILL))
    return cut_off(process)
