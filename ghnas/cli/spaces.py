"""`ghnas spaces` and `ghnas generate`: search spaces, and files of many architectures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal

from ghnas.cli import options
from ghnas.cli.options import number, text
from ghnas.cli.terminal import console, meter, print_json, say

if TYPE_CHECKING:
    from ghnas.architectures.architecture import Architecture
    from ghnas.spaces import Space

SPACES_EXAMPLE = "Example: ghnas spaces darts"
GENERATE_EXAMPLE = (
    "Example: ghnas generate --space deepnets1m --split train --count 1000000 -o deepnets1m"
)


def spaces(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME|FILE", help="The space to show.", show_default="list all"),
    ] = None,
    cells: options.Cells = None,
    channels: options.Channels = None,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """List the search spaces, or show one: choices, size, an example with its cost."""
    from ghnas.spaces import list_spaces, load_space

    if name is not None:
        _show_space(options.load_skeleton(name, cells=cells, channels=channels), seed, json)
        return
    listed = [load_space(item) for item in list_spaces()]
    if json:
        print_json([_describe_space(space) for space in listed])
        return
    from ghnas.reports.tables import Column, table

    rows = [(s.name, str(len(s.choices)), f"{s.size:.1e}", s.description) for s in listed]
    columns = ("space", "choices", "size", Column("description", wrap=True))
    console().print(table("Search spaces", columns, rows))


def _describe_space(space: Space) -> dict[str, Any]:
    return {
        "name": space.name,
        "description": space.description,
        "objective": space.objective,
        "size": space.size,
        "skeleton": dict(space.skeleton),
        "choices": {choice.name: list(choice.options) for choice in space.choices},
    }


def _show_space(space: Space, seed: int, json: bool) -> None:
    from ghnas.reports.numbers import FLOPS_NOTE, format_count
    from ghnas.reports.tables import choices_table, describe_skeleton

    architecture = space.sample(seed)
    graph = architecture.graph
    if json:
        example = {
            "genotype": str(architecture),
            "parameters": graph.parameter_count,
            "flops": graph.flops,
            "nodes": len(graph.nodes),
        }
        print_json(_describe_space(space) | {"example": example})
        return
    out = console()
    say(out, f"{space.name}: {space.description}")
    say(out, f"skeleton: {describe_skeleton(space.skeleton)}")
    say(out, f"candidates: {space.size:.2e} (isomorphic ones counted apart)")
    say(out, f"ranked by: {space.objective}\n")
    out.print(choices_table(space))
    say(out, f"\nan example (seed {seed}):\n{architecture}")
    say(
        out,
        f"{format_count(graph.parameter_count)} parameters, {format_count(graph.flops)} FLOPs, "
        f"{len(graph.nodes)} nodes, for images 3x32x32 and 10 classes\n({FLOPS_NOTE})\n",
    )
    print_drawings(out, architecture)


def print_drawings(out: Console, architecture: Architecture) -> None:
    """Draw an architecture's cells in characters."""
    from ghnas.reports.drawing import as_text, draw

    for drawing in draw(architecture):
        say(out, as_text(drawing) + "\n")


def generate(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write.")],
    space: options.SpaceName = "deepnets1m",
    split: Annotated[
        str | None, text("--split", "NAME", "A split of the space.", "the space's own")
    ] = None,
    count: Annotated[int, number("--count", "Architectures.")] = 1000,
    channels: options.Channels = None,
    workers: options.Workers = None,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Generate architectures of a space and write them in few bytes each.

    The same command goes on after an interruption; the same seed gives the same files,
    whatever the number of workers.
    """
    from ghnas.spaces import read_space_file
    from ghnas.spaces.archive import Architectures
    from ghnas.spaces.archive import generate as run
    from ghnas.utils.devices import cores

    out = console(json)
    chosen = options.load_skeleton(space, split=split, channels=channels)
    written, many = read_space_file(space), workers or cores()
    say(out, f"{count:,} architectures of {chosen.name}, {many} processes, into {output}")
    began = time.monotonic()
    with meter(out, "architectures") as shown:
        run(output, chosen, written, count, seed, many, shown.update)
    found = Architectures(output)
    size = sum(path.stat().st_size for path in output.iterdir())
    seconds = time.monotonic() - began
    say(out, f"{len(found):,} architectures in {decimal(size)}, {seconds:,.0f} s")
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
