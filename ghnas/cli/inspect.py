"""`ghnas spaces`, `ghnas show` and `ghnas runs`: search spaces, architectures and past runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ghnas.cli import options
from ghnas.cli.terminal import console, print_json, say

if TYPE_CHECKING:
    from rich.console import Console

    from ghnas.architectures.architecture import Architecture
    from ghnas.engine.trials import Trial
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
    from ghnas.engine.runs import find_run, select
    from ghnas.reports.drawing import as_svg, draw
    from ghnas.utils.files import write_atomically

    found = find_run(results, run)
    out = console(json)
    shown = []
    for item in select(found, which):
        architecture = item.architecture
        path = (output or found.path / "drawings") / f"{item.name}.svg"
        write_atomically(path, as_svg(draw(architecture)))
        shown.append(item.as_dict(found.manifest.objectives) | {"drawing": str(path)})
        if not json:
            _show_one(out, item, found.manifest.objectives, nodes)
            say(out, f"drawing: {path}\n")
    if json:
        print_json(shown)


def _show_one(out: Console, item: Trial, objectives: Sequence[str], nodes: bool) -> None:
    from ghnas.reports.tables import cells_table, describe_values, format_count, nodes_table

    graph = item.architecture.graph
    say(
        out,
        f"{item.name}: {describe_values(item, objectives)}, "
        f"{format_count(item.parameters)} parameters, {format_count(item.flops)} FLOPs",
    )
    say(out, f"{item.architecture}\n")
    _draw(out, item.architecture)
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
