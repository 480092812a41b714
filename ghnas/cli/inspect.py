"""`ghnas spaces`, `ghnas show` and `ghnas runs`: what there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ghnas.cli import options
from ghnas.cli.terminal import console, print_json, say

if TYPE_CHECKING:
    from rich.console import Console

    from ghnas.architectures.architecture import Architecture
    from ghnas.engine.runs import Ranked
    from ghnas.spaces import Space

SPACES_EXAMPLE = "Example: ghnas spaces darts"
SHOW_EXAMPLE = "Example: ghnas show top-5"
RUNS_EXAMPLE = "Example: ghnas runs"


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
    from ghnas.cli.loading import load_skeleton
    from ghnas.spaces import list_spaces

    if name is not None:
        _show_space(load_skeleton(name, cells, channels), seed, json)
        return
    listed = [load_skeleton(item, cells=None, channels=None) for item in list_spaces()]
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
    from ghnas.reports.tables import FLOPS_NOTE, choices_table, describe_skeleton, format_count

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
    _draw(out, architecture)


def _draw(out: Console, architecture: Architecture) -> None:
    from ghnas.reports.drawing import as_text, draw

    for drawing in draw(architecture):
        say(out, as_text(drawing) + "\n")


def show(
    which: Annotated[
        str, typer.Argument(metavar="WHICH", help="top-N, trial-N or a genotype in quotes.")
    ] = "top-1",
    run: options.RunName = None,
    nodes: Annotated[bool, typer.Option("--nodes", help="Every node with its shape.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="DIR",
            help="Where to write the drawings (SVG).",
            show_default="the run's folder drawings",
        ),
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
    json: options.Json = False,
) -> None:
    """Show architectures of a run: genotype, shapes, a drawing of the cell."""
    from ghnas.cli.selection import ranked_as_dict, select
    from ghnas.engine.record import trial_name
    from ghnas.engine.runs import find_run
    from ghnas.reports.drawing import as_svg, draw
    from ghnas.utils.files import write_atomically

    found = find_run(results, run)
    out = console(json)
    shown = []
    for item in select(found, which):
        architecture = item.record.architecture
        path = (output or found.path / "drawings") / f"{trial_name(item)}.svg"
        write_atomically(path, as_svg(draw(architecture)))
        shown.append(ranked_as_dict(item) | {"drawing": str(path)})
        if not json:
            _show_one(out, item, nodes)
            say(out, f"drawing: {path}\n")
    if json:
        print_json(shown)


def _show_one(out: Console, item: Ranked, nodes: bool) -> None:
    from ghnas.engine.record import trial_name
    from ghnas.reports.tables import cells_table, format_count, format_percent, nodes_table

    record, graph = item.record, item.record.architecture.graph
    consensus = "" if record.consensus is None else f"consensus {record.consensus:.2f}, "
    say(
        out,
        f"{trial_name(item)}: {consensus}zero-shot {format_percent(record.accuracy)}, "
        f"{format_count(record.params)} parameters, {format_count(record.flops)} FLOPs",
    )
    say(out, f"{record.architecture}\n")
    _draw(out, record.architecture)
    out.print(nodes_table(graph) if nodes else cells_table(graph))


def runs(results: options.Results = options.DEFAULT_RESULTS, json: options.Json = False) -> None:
    """List the runs, the latest last."""
    from dataclasses import asdict

    from ghnas.engine.runs import list_runs

    found = list_runs(results)
    if json:
        print_json([asdict(item) for item in found])
        return
    if not found:
        say(console(), f"no runs in {results}: start one with ghnas search")
        return
    from ghnas.reports.tables import runs_table

    console().print(runs_table(found))
