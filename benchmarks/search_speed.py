"""Wall time and peak memory of the main command, and of `ghnas --help`."""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time

from common import write_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--log", default=None, help="file for the search's output")
    parser.add_argument("--results", default=None, help="where to keep the run")
    options = parser.parse_args()
    ghnas = [sys.executable, "-m", "ghnas.cli"]
    helps = sorted(_timed([*ghnas, "--help"])[0] for _ in range(5))
    with tempfile.TemporaryDirectory() as folder:
        command = [*ghnas, "search", "--space", "darts", "--budget", str(options.budget)]
        seconds, output = _timed([*command, "--results", options.results or folder])
    if options.log:
        with open(options.log, "w") as file:
            file.write(output)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    best = re.findall(r"best (\d+\.\d %)", output)
    rows = [
        ("`ghnas --help`, median of 5", f"{helps[2]:.2f} s"),
        (f"`ghnas search --space darts --budget {options.budget}`", f"{seconds:.0f} s"),
        ("candidates a minute", f"{60 * options.budget / seconds:,.0f}"),
        ("peak memory of the largest process", f"{memory:.2f} GiB"),
        ("best zero-shot accuracy (512 validation images)", best[-1] if best else "?"),
    ]
    write_table("search_speed", "The main command on a CPU", ("what", "measured"), rows)


def _timed(command: list[str]) -> tuple[float, str]:
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.monotonic() - began, done.stdout


if __name__ == "__main__":
    main()
