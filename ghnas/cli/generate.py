"""`ghnas generate`: files of many architectures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ghnas.cli import options
from ghnas.cli.terminal import console, meter, print_json, say

EXAMPLE = "Example: ghnas generate --space deepnets1m --split train --count 1000000 -o deepnets1m"


def generate(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write.")],
    space: options.Space = "deepnets1m",
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="NAME", help="A split of the space.", show_default="the space's own"
        ),
    ] = None,
    count: Annotated[int, options.number_option("--count", "Architectures.")] = 1000,
    channels: options.Channels = None,
    workers: Annotated[
        int | None,
        options.number_option("--workers", "Processes.", show_default="one for each core"),
    ] = None,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Generate architectures of a space and write them in few bytes each.

    The same command goes on after an interruption; the same seed gives the same files,
    whatever the number of workers.
    """
    from ghnas.spaces import load_space, read_space_file
    from ghnas.spaces.archive import Architectures
    from ghnas.spaces.archive import generate as run
    from ghnas.utils.devices import cores

    out = console(json)
    chosen = load_space(space)
    changes = {"split": split, "channels": channels}
    given = {key: value for key, value in changes.items() if value is not None}
    if given:
        chosen = chosen.with_skeleton(**given)
    text, many = read_space_file(space), workers or cores()
    say(out, f"{count:,} architectures of {chosen.name}, {many} processes, into {output}")
    began, first = time.monotonic(), -1
    with meter(out, "architectures") as shown:

        def report(done: int, total: int) -> None:
            nonlocal first
            first = done if first < 0 else first
            spent = time.monotonic() - began
            rate = (done - first) / spent if spent else None
            shown.update(done, total, rate=rate or None)

        run(output, chosen, text, count, seed, many, report)
    found = Architectures(output)
    size = sum(path.stat().st_size for path in output.iterdir())
    seconds = time.monotonic() - began
    say(out, f"{len(found):,} architectures in {size / 2**20:,.1f} MiB, {seconds:,.0f} s")
    if json:
        print_json(
            {
                "output": str(output),
                "count": len(found),
                "bytes": size,
                "seconds": seconds,
                "nodes": float(found.column("nodes").mean()),
                "parameters": float(found.column("parameters").mean()),
            }
        )
