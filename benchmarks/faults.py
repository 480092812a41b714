"""Damages whatever the program reads, ends its processes at random, and lets disk and memory run
out: is anything lost, does anything hang, is there a traceback?

    python benchmarks/faults.py --minutes 3
    python benchmarks/faults.py --minutes 60 --seed 7 --total all.json --write

Every failure is kept in `--keep` as a file that shows it again: `python benchmarks/faults.py
--again FILE`. The counts of several runs are added up in `--total`. The table stands in
`results/faults.md` where `--write` is given.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import io
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from fault_calls import allocation_fails, killed_at_a_call, system_fails
from fault_commands import COMMANDS
from fault_disks import can_mount, disk_full, disk_read_only, files_full, files_open, memory_full
from fault_inputs import READ, Inputs, Kind, make_inputs
from fault_kept import KEPT, add_kept
from fault_kills import interrupted, slowed

from ghnas.cli.interrupts import INTERRUPTED

KINDS = READ | KEPT
LONGEST = 20
"""Seconds that an input may take."""
LARGEST = 8 * 2**30
"""Bytes of address space that reading may add to what the program has."""
MOST_CHARACTERS, MOST_LINES = 300, 4


Fault = Callable[[str, Inputs, random.Random], tuple[bool, str | None]]
"""Befalls a command; returns whether it was refused, and what is wrong."""


def _never_refused(fault: Callable[[str, Inputs, random.Random], str | None]) -> Fault:
    return lambda name, inputs, rng: (False, fault(name, inputs, rng))


FAULTS = {
    "kill": _never_refused(interrupted),
    "kill at a call": _never_refused(killed_at_a_call),
    "pause": _never_refused(slowed),
    "disk": disk_full,
    "read-only": disk_read_only,
    "files": files_full,
    "open files": files_open,
    "memory": memory_full,
    "call": system_fails,
    "allocation": allocation_fails,
}
NEED_A_DISK = ("disk", "read-only")
GROUPS = {
    **dict.fromkeys(("kill", "kill at a call"), "kills"),
    "pause": "pauses",
    **dict.fromkeys(
        ("disk", "read-only", "files", "open files", "memory", "call", "allocation"),
        "disks, files, memory",
    ),
}
"""What faults are counted together; all that befalls no command is a damaged input."""


class HangError(BaseException):
    """An input took too long."""


@dataclass
class Tally:
    """What came of the attempts of one kind."""

    tried: int = 0
    refused: int = 0
    wrong: int = 0


@dataclass
class Campaign:
    """What came of one run of this program, or of several."""

    seeds: list[int]
    minutes: float
    tallies: dict[str, Tally]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_AsWritten)
    today = int(datetime.date.today().strftime("%Y%m%d"))
    parser.add_argument("--seed", type=int, default=today, help="default: today's date")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--kinds", default=",".join([*KINDS, *COMMANDS]))
    parser.add_argument("--kills", type=float, default=0.3, help="share of the time for commands")
    parser.add_argument("--faults", default=",".join(FAULTS), help="what befalls commands")
    parser.add_argument("--keep", type=Path, default=Path("faults"), help="where failures go")
    parser.add_argument("--again", type=Path, help="a failure that was kept")
    parser.add_argument("--total", type=Path, help="a file to which the counts are added")
    parser.add_argument("--write", action="store_true", help="write results/faults.md")
    arguments = parser.parse_args()
    _watch()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        inputs = make_inputs(Path(folder))
        if arguments.again or set(KEPT) & set(arguments.kinds.split(",")):
            add_kept(inputs)
        if arguments.again:
            kind = KINDS[arguments.again.name.partition("-")[0]]
            sys.exit(attempt(kind, inputs, arguments.again.read_bytes())[1] or "nothing is wrong")
        print(f"seed {arguments.seed}", flush=True)
        tallies: dict[str, Tally] = {}
        began = time.monotonic()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was counted is kept
        with contextlib.suppress(KeyboardInterrupt):
            campaign(arguments, inputs, tallies)
    ran = Campaign([arguments.seed], (time.monotonic() - began) / 60, tallies)
    if arguments.total:
        ran = _add(ran, arguments.total)
    if arguments.write:
        _write(ran)
    for name, tally in tallies.items():
        print(f"{name:<12} {tally.tried:>7,} tried {tally.refused:>7,} refused {tally.wrong} wrong")
    sys.exit(any(tally.wrong for tally in tallies.values()))


class _AsWritten(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


def campaign(arguments: argparse.Namespace, inputs: Inputs, tallies: dict[str, Tally]) -> None:
    """Attempts until the time is over, each kind in turn."""
    wanted = arguments.kinds.split(",")
    seconds = 60 * arguments.minutes
    kinds = [KINDS[name] for name in wanted if name in KINDS]
    commands = [name for name in wanted if name in COMMANDS]
    kills = seconds * (arguments.kills if kinds else 1) if commands else 0
    if kinds:
        _mutations(kinds, inputs, arguments, time.monotonic() + seconds - kills, tallies)
    rng, end = random.Random(f"kills:{arguments.seed}"), time.monotonic() + kills
    faults = [
        name for name in arguments.faults.split(",") if name not in NEED_A_DISK or can_mount()
    ]
    while commands and time.monotonic() < end:
        name, fault = rng.choice(commands), rng.choice(faults)
        tally = tallies.setdefault(f"{fault}: {name}", Tally())
        tally.tried += 1
        try:
            refused, problem = FAULTS[fault](name, inputs, rng)
        except RuntimeError as error:  # the command without a fault
            refused, problem = False, str(error)
        tally.refused += refused
        if problem:
            tally.wrong += 1
            label = f"{fault}-{name}-{arguments.seed}-{tally.tried}".replace(" ", "-")
            _keep(arguments.keep, label, b"", problem)


def _mutations(
    kinds: Sequence[Kind],
    inputs: Inputs,
    arguments: argparse.Namespace,
    end: float,
    tallies: dict[str, Tally],
) -> None:
    """Damaged inputs, the kinds in turn and each for the same time."""
    spent: Counter[str] = Counter()
    rngs = {kind.name: random.Random(f"{kind.name}:{arguments.seed}") for kind in kinds}
    while (now := time.monotonic()) < end:
        kind = min(kinds, key=lambda item: spent[item.name])
        tally = tallies.setdefault(kind.name, Tally())
        content = kind.damaged(inputs, rngs[kind.name])
        code, problem = attempt(kind, inputs, content)
        tally.tried += 1
        tally.refused += code == 2
        if problem:
            tally.wrong += 1
            _keep(arguments.keep, f"{kind.name}-{arguments.seed}-{tally.tried}", content, problem)
        spent[kind.name] += time.monotonic() - now


def attempt(kind: Kind, inputs: Inputs, content: bytes) -> tuple[int | None, str | None]:
    """Give the program an input; returns the exit code, and what is wrong with the answer."""
    out, err = io.StringIO(), io.StringIO()
    code: int | None = None
    _executed.clear()
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            _limits(),
        ):
            code = kind.read(inputs, content)
    except HangError:
        return None, f"took more than {LONGEST} s"
    except KeyboardInterrupt:  # it was this program that was to end
        raise
    except BaseException:
        return None, traceback.format_exc()
    if code == INTERRUPTED:  # likewise
        raise KeyboardInterrupt
    said = err.getvalue()
    if _executed:
        return code, f"executed {_executed}"
    if code not in (0, 2):
        return code, f"exit code {code}: {said}"
    sentences = [line for line in said.splitlines() if line.startswith("ghnas: ")]
    if len(sentences) != (code == 2):
        return code, f"{len(sentences)} sentences with exit code {code}: {said}"
    if len("".join(sentences)) > MOST_CHARACTERS or len(said.splitlines()) > MOST_LINES:
        return code, f"a long answer: {said}"
    if any(not line.isprintable() for line in said.splitlines()) or "\x1b" in out.getvalue():
        return code, f"control characters: {said!r}"
    return code, None


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """A limit on time and on memory."""

    def stop(*_: object) -> None:
        raise HangError

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + LARGEST, before[1]))
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)


_executed: list[str] = []


def _watch() -> None:
    """Note whatever is executed from here on, but for what matplotlib asks the system's fonts once
    on each machine."""
    import matplotlib.font_manager  # noqa: F401

    events = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in events:
            _executed.append(f"{event} {arguments}"[:200])

    sys.addaudithook(hook)


def _keep(folder: Path, name: str, content: bytes, problem: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    (folder / f"{name}.txt").write_text(problem)
    print(f"{folder / name}: {problem.strip().splitlines()[-1][:300]}", flush=True)


def _add(ran: Campaign, path: Path) -> Campaign:
    """Add a run to those in a file, which other runs may be changing."""
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = json.loads(path.read_text()) if path.exists() else asdict(Campaign([], 0.0, {}))
        tallies = {name: Tally(**counts) for name, counts in found["tallies"].items()}
        for name, tally in ran.tallies.items():
            so_far = tallies.setdefault(name, Tally())
            so_far.tried += tally.tried
            so_far.refused += tally.refused
            so_far.wrong += tally.wrong
        total = Campaign(found["seeds"] + ran.seeds, found["minutes"] + ran.minutes, tallies)
        path.write_text(json.dumps(asdict(total), indent=1))
    return total


def _write(ran: Campaign) -> None:
    from common import write_table

    head = ("what", "tried", "refused in a sentence", "wrong")
    groups: dict[str, list[Tally]] = {}
    rows = []
    for name, tally in sorted(ran.tallies.items()):
        group = GROUPS.get(name.partition(":")[0], "damaged inputs")
        groups.setdefault(group, []).append(tally)
        rows.append(_row(name, [tally]))
    rows += [_row(f"**{name}**", tallies) for name, tallies in groups.items()]
    notes = [
        f"Seeds {', '.join(map(str, ran.seeds))}; {ran.minutes:.0f} minutes of one process, beside "
        "other work. Wrong is a traceback, an exit code other than 0 and 2, more than one sentence "
        f"or {MOST_CHARACTERS} characters, more than {LONGEST} s or {LARGEST >> 30} GiB, control "
        "characters, anything executed; after what befalls a command (it, or one of its processes, "
        "is killed, at a random moment or at one of its calls; one of its processes stands still "
        "for up to 2 s, three times; its disk, a small tmpfs, is full or read-only; its files may "
        "not grow; few more may be open; its memory or that of one of its processes is used up; "
        "one of its calls, to the operating system or for memory, fails) also a result that "
        "differs from the one without, and what is left of it. One command in ten is started as a "
        "user would, the others are forked from a process that has imported what they need.",
    ]
    write_table("faults", "Damaged inputs and killed processes", head, rows, notes)


def _row(name: str, tallies: Sequence[Tally]) -> tuple[str, str, str, int]:
    refused = f"{sum(tally.refused for tally in tallies):,}"
    never = name.strip("*").startswith(("kill", "pause"))
    tried = f"{sum(tally.tried for tally in tallies):,}"
    return name, tried, "-" if never else refused, sum(tally.wrong for tally in tallies)


if __name__ == "__main__":
    main()
