"""Wall time and peak memory of the main command, and of `ghnas --help`."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import write_table

GHNAS = str(Path(sys.executable).with_name("ghnas"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--log", type=Path, default=None, help="file for the search's output")
    parser.add_argument("--results", default=None, help="where to keep the run")
    options = parser.parse_args()
    helps = sorted(_timed([GHNAS, "--help"])[0] for _ in range(5))
    command = [GHNAS, "search", "--space", "darts", "--budget", str(options.budget)]
    with tempfile.TemporaryDirectory() as folder:
        seconds, output, memory = _timed([*command, "--results", options.results or folder])
    if options.log:
        options.log.write_text(output)
    best = re.findall(r"best (\d+\.\d %)", output)
    rows = [
        ("`ghnas --help`, median of 5", f"{helps[2]:.2f} s"),
        (f"`ghnas search --space darts --budget {options.budget}`", f"{seconds:.0f} s"),
        ("candidates a minute", f"{60 * options.budget / seconds:,.0f}"),
        ("peak memory of all its processes (proportional set size)", f"{memory / 2**20:.2f} GiB"),
        ("best zero-shot accuracy (512 validation images)", best[-1] if best else "?"),
    ]
    write_table("search_speed", "The main command on a CPU", ("what", "measured"), rows)


def _timed(command: list[str]) -> tuple[float, str, int]:
    """Seconds, output, and the largest memory in KiB that was seen each second."""
    began, peak = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output)
        while process.poll() is None:
            peak = max(peak, _memory(process.pid))
            try:
                process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                continue
        seconds = time.monotonic() - began
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed")
        output.seek(0)
        return seconds, output.read(), peak


def _memory(process: int) -> int:
    """Proportional set size of a process and all below it, in KiB."""
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has ended
        return 0
    found = re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)
    return int(found[1] if found else 0) + sum(_memory(int(child)) for child in children)


if __name__ == "__main__":
    main()
