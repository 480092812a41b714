"""The `matrix_cells` family: a cell is any small graph with operations on its vertices
(NAS-Bench-101)."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from functools import cached_property
from itertools import combinations
from typing import Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from ghnas.architectures.architecture import Choices
from ghnas.architectures.blocks import Place, add_block, classifier, halving_max_pool
from ghnas.architectures.graph import Graph, GraphBuilder, Shape
from ghnas.architectures.labelled_dag import (
    DagKind,
    LabelledDag,
    with_operations_on_vertices,
)
from ghnas.architectures.ops import Concat, Input, Sum, Truncate
from ghnas.spaces.base import Choice, Space
from ghnas.spaces.files import CellSettings, SpaceFile, StagedCellSkeleton, StrictModel, explain
from ghnas.spaces.registry import family
from ghnas.utils.errors import UserError


class MatrixCellSettings(CellSettings):
    """What a cell is made of.

    Args:
        nodes: The most vertices, the input and the output counted.
        edges: The most edges.
        operations: Of the vertices between input and output; `zeros` makes a vertex none.
    """

    nodes: int = Field(ge=2, le=8)
    edges: int = Field(ge=1)


class MatrixCellSpaceFile(SpaceFile):
    """A space file of the `matrix_cells` family."""

    family: Literal["matrix_cells"]
    skeleton: StagedCellSkeleton
    cell: MatrixCellSettings

    @model_validator(mode="after")
    def _wide_enough(self) -> MatrixCellSpaceFile:
        inner = self.cell.nodes - 2
        if self.skeleton.channels < inner:
            raise ValueError(
                f"skeleton.channels must be at least {inner}, one for each vertex between input "
                f"and output, not {self.skeleton.channels}"
            )
        return self


class Cell(NamedTuple):
    """A cell without the vertices that lie on no path from its input to its output.

    Args:
        operations: Of the vertices between input and output, numbered from 1.
        sources: For each of them, and last for the output, the vertices that it reads.
    """

    operations: tuple[str, ...]
    sources: tuple[tuple[int, ...], ...]

    @property
    def edges(self) -> int:
        """How many edges there are."""
        return sum(map(len, self.sources))

    def widths(self, channels: int) -> list[int]:
        """Channels of the vertices between input and output.

        The output's are divided among the vertices that it reads, what is left over to the first
        of them; any other vertex is as wide as the widest that reads it (Ying et al., section 2).

        Args:
            channels: Of the cell's output.
        """
        *inner, output = self.sources
        ends = [vertex for vertex in output if vertex]
        result = [0] * (len(inner) + 1)
        for position, vertex in enumerate(ends):
            result[vertex] = channels // len(ends) + (position < channels % len(ends))
        for vertex in range(len(inner), 0, -1):
            if vertex not in ends:
                readers = [t for t, sources in enumerate(inner, 1) if vertex in sources]
                result[vertex] = max(result[t] for t in readers)
        return result[1:]


DRAWS = 1000
"""Draws in a row with edges that lead nowhere after which one of them is taken."""


class _Matrix(StrictModel):
    """The notation of the benchmark."""

    adjacency: list[list[Literal[0, 1]]]
    ops: list[str]


@family("matrix_cells", MatrixCellSpaceFile)
class MatrixCellSpace(Space):
    """Every vertex of a cell applies an operation to the sum of what it reads.

    Choices: for each edge of the matrix whether it is there, 0 or 1, named as `0-1` (from vertex 0,
    the cell's input, to vertex 1), and the operation of each inner vertex, as `1.operation`.
    Vertices on no path from input to output are pruned, as in the benchmark, so that different
    choices can be one network; what is left may have no more edges than the file allows. Another
    order of the vertices is the same network where the output's channels divide evenly. Edges
    from the input are 1x1 convolutions with norm and ReLU; the output concatenates the inner
    vertices that it reads and adds the input if it reads that too. The notation is the benchmark's
    JSON of adjacency matrix and operations.

    Source: Ying et al., NAS-Bench-101 (ICML 2019), section 2 and its reference implementation.
    """

    file: MatrixCellSpaceFile

    @cached_property
    def _edges(self) -> list[tuple[int, int]]:
        """(source, target) of every edge that there can be."""
        return list(combinations(range(self.file.cell.nodes), 2))

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        nodes, operations = self.file.cell.nodes, tuple(self.file.cell.operations)
        edges = [Choice(f"{a}-{b}", (0, 1)) for a, b in self._edges]
        inner = [Choice(f"{vertex}.operation", operations) for vertex in range(1, nodes - 1)]
        return (*edges, *inner)

    def draw(self, rng: random.Random) -> Choices:
        """Random operations, and a matrix of few enough edges, all of which lie on paths from input
        to output: each such matrix is as likely as any other.

        A matrix drawn edge by edge would lose most of its vertices to pruning.
        """
        count, last = len(self._edges), self.file.cell.nodes - 1
        sizes = range(1, min(self.file.cell.edges, count) + 1)
        weights = [math.comb(count, size) for size in sizes]
        for _ in range(DRAWS):
            edges = rng.sample(self._edges, rng.choices(sizes, weights)[0])
            if {a for a, _ in edges} - {0} == {b for _, b in edges} - {last}:
                break
        chosen = {f"{a}-{b}" for a, b in edges}
        return {
            item.name: int(item.name in chosen)
            if item.options == (0, 1)
            else rng.choice(item.options)
            for item in self.choices
        }

    def _sources(self, choices: Choices) -> list[list[int]]:
        """For each vertex after the input those that it reads, pruned or not."""
        nodes = range(1, self.file.cell.nodes)
        return [[s for s in range(t) if choices[f"{s}-{t}"]] for t in nodes]

    def _pruned(self, choices: Choices) -> Cell:
        """The cell; the output reads nothing if no path leads to it."""
        last, is_none = self.file.cell.nodes - 1, self.file.cell.is_none
        operations = ["", *(str(choices[f"{v}.operation"]) for v in range(1, last)), ""]
        sources = [[], *self._sources(choices)]
        reached = {0}
        for vertex in range(1, last + 1):
            if not is_none(operations[vertex]) and not reached.isdisjoint(sources[vertex]):
                reached.add(vertex)
        read = {last}
        for vertex in range(last, 0, -1):
            if vertex in read & reached:
                read.update(sources[vertex])
        kept = sorted(reached & read | {last})
        number = {vertex: position for position, vertex in enumerate(kept)}
        return Cell(
            tuple(operations[vertex] for vertex in kept if 0 < vertex < last),
            tuple(
                tuple(number[s] for s in sources[vertex] if s in number)
                for vertex in kept
                if vertex
            ),
        )

    @cached_property
    def dag_kinds(self) -> Mapping[str, DagKind]:
        cell = self.file.cell
        return {"cell": cell.dag_kind(inputs=1, nodes=2 * cell.nodes - 2)}

    def dags(self, choices: Choices) -> Mapping[str, LabelledDag]:
        cell = self._pruned(choices)
        edges = [(s, t) for t, sources in enumerate(cell.sources, 1) for s in sources]
        return {"cell": with_operations_on_vertices(cell.operations, edges)}

    @property
    def feature_choices(self) -> tuple[str, ...]:
        return ()  # the matrix is read as a cell

    @cached_property
    def for_features(self) -> Space:
        return self.with_skeleton(channels=16, cells=1, stages=3)

    def is_connected(self, choices: Choices) -> bool:
        return 1 <= self._pruned(choices).edges <= self.file.cell.edges

    def cell(self, choices: Choices) -> Cell:
        """The cell that is left when vertices on no path from input to output are pruned.

        Raises:
            UserError: If no path leads from input to output, or there are too many edges.
        """
        cell = self._pruned(choices)
        if not cell.edges:
            raise UserError(f"a cell of space {self.name!r} needs a path from input to output")
        if cell.edges > self.file.cell.edges:
            raise UserError(
                f"a cell of space {self.name!r} has at most {self.file.cell.edges} edges, not "
                f"{cell.edges}"
            )
        return cell

    def format(self, choices: Choices) -> str:
        """As the benchmark's files write it: `{"adjacency":[[0,1],[0,0]],"ops":["input",...]}`.

        The last inner vertices are left out where they have no edges and the first operation.
        """
        last, first = self.file.cell.nodes - 1, next(iter(self.file.cell.operations))
        sources = [[], *self._sources(choices)]
        used = {s for row in sources for s in row} | {v for v, row in enumerate(sources) if row}
        used |= {v for v in range(1, last) if choices[f"{v}.operation"] != first}
        end = max((v for v in used if v < last), default=0)
        vertices = [*range(end + 1), last]
        adjacency = [[int(s in sources[t]) for t in vertices] for s in vertices]
        operations = [choices[f"{vertex}.operation"] for vertex in vertices[1:-1]]
        content = {"adjacency": adjacency, "ops": ["input", *operations, "output"]}
        return json.dumps(content, separators=(",", ":"))

    def read(self, text: str) -> Choices:
        try:
            matrix = _Matrix.model_validate_json(text)
        except ValidationError as error:
            raise UserError(
                f"not an architecture of space {self.name!r}, such as "
                f'{{"adjacency":[[0,1],[0,0]],"ops":["input","output"]}} ({explain(error)}): '
                f"{text[:80]!r}"
            ) from error
        rows, count, nodes = matrix.adjacency, len(matrix.ops), self.file.cell.nodes
        if not 2 <= count <= nodes or [len(row) for row in rows] != [count] * count:
            raise UserError(
                f"adjacency must have a row and a column for each of the ops, from 2 to {nodes}"
            )
        if (matrix.ops[0], matrix.ops[-1]) != ("input", "output"):
            raise UserError("ops must begin with 'input' and end with 'output'")
        if any(rows[a][b] for b in range(count) for a in range(b, count)):
            raise UserError("adjacency must be upper triangular: edges lead to later vertices")
        choices: Choices = {choice.name: choice.options[0] for choice in self.choices}
        place = [*range(count - 1), nodes - 1]
        for a, b in combinations(range(count), 2):
            choices[f"{place[a]}-{place[b]}"] = rows[a][b]
        for vertex, operation in enumerate(matrix.ops[1:-1], 1):
            choices[f"{vertex}.operation"] = operation
        choices = self.check(choices)
        self.cell(choices)
        return choices

    def build(self, choices: Choices, image_shape: Shape, classes: int) -> Graph:
        cell, skeleton = self.cell(self.check(choices)), self.file.skeleton
        self._require_size(image_shape, 2 ** (skeleton.stages - 1), f"{skeleton.stages} stages")
        graph = GraphBuilder()
        x = graph.add(Input(*image_shape), name="input")
        channels = skeleton.channels
        x = add_block(graph, "conv_bn_act", Place(x, channels, 1, "stem"), (("kernel", 3),))
        for stage in range(skeleton.stages):
            if stage:
                channels *= 2
                x = halving_max_pool(graph, x)
            for _ in range(skeleton.cells):
                x = self._cell(graph, cell, x, channels)
                graph.cell += 1
        classifier(graph, x, classes, "classifier")
        return graph.build()

    def _cell(self, graph: GraphBuilder, cell: Cell, source: int, channels: int) -> int:
        """Add one cell."""
        name, states = f"cells.{graph.cell}", [source]
        *inner, output = cell.sources
        parts = zip(cell.operations, inner, cell.widths(channels), strict=True)
        for vertex, (operation, sources, width) in enumerate(parts, 1):
            read = [_truncated(graph, states[s], width) for s in sources if s]
            if 0 in sources:
                read.append(_projected(graph, Place(source, width, 1, f"{name}.input{vertex}")))
            place = Place(_sum(graph, read), width, 1, f"{name}.vertex{vertex}")
            states.append(self.file.cell.operations[operation].add(graph, place))
        ends = [states[s] for s in output if s]
        result = [ends[0] if len(ends) == 1 else graph.add(Concat(), *ends)] if ends else []
        if 0 in output:
            result.append(_projected(graph, Place(source, channels, 1, f"{name}.output")))
        return _sum(graph, result)


def _sum(graph: GraphBuilder, states: list[int]) -> int:
    return states[0] if len(states) == 1 else graph.add(Sum(), *states)


def _truncated(graph: GraphBuilder, x: int, channels: int) -> int:
    return x if graph.shape(x)[0] == channels else graph.add(Truncate(channels), x)


def _projected(graph: GraphBuilder, place: Place) -> int:
    return add_block(graph, "conv_bn_act", place, (("kernel", 1),))
