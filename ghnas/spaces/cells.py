"""The `cells` family: networks stacked from one normal and one reduction cell (DARTS)."""

from __future__ import annotations

from functools import cached_property
from itertools import combinations
from typing import Literal

from pydantic import Field

from ghnas.architectures.architecture import Choices
from ghnas.architectures.blocks import Place, add_block, classifier, conv_bn
from ghnas.architectures.genotypes import Edge, Genotype, format_genotype, parse_genotype
from ghnas.architectures.graph import Graph, GraphBuilder, Shape
from ghnas.architectures.ops import Concat, Input, Sum, Zeros
from ghnas.spaces.base import Choice, Space
from ghnas.spaces.files import MOST, CellSettings, SpaceFile, StrictModel
from ghnas.spaces.registry import family
from ghnas.utils.errors import UserError

CELLS = ("normal", "reduce")


class CellSkeleton(StrictModel):
    """The macro part: channels of the first cell, number of cells, width of the stem."""

    channels: int = Field(ge=1, le=MOST)
    cells: int = Field(ge=1, le=200)
    stem_multiplier: int = Field(default=3, ge=1, le=64)

    @property
    def reductions(self) -> tuple[int, ...]:
        """The cells that halve the size: at one and at two thirds of the depth, as in DARTS."""
        return tuple(sorted({self.cells // 3, 2 * self.cells // 3} - {0} if self.cells > 2 else ()))


class CellSpaceFile(SpaceFile):
    """A space file of the `cells` family."""

    family: Literal["cells"]
    skeleton: CellSkeleton
    cell: CellSettings


@family("cells", CellSpaceFile)
class CellSpace(Space):
    """Every node of a cell sums two operations on two different earlier nodes.

    Choices of each node (numbered from 2, after the outputs of the two previous cells): which
    two earlier nodes (`inputs`, as `0+1`) and which operation on each (`first`, `second`).
    """

    file: CellSpaceFile

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        operations = tuple(self.file.cell.operations)
        result = []
        for cell in CELLS:
            for node in range(2, 2 + self.file.cell.nodes):
                pairs = tuple(f"{a}+{b}" for a, b in combinations(range(node), 2))
                if len(pairs) > 1:  # the first node has no choice of inputs
                    result.append(Choice(f"{cell}.{node}.inputs", pairs))
                result.append(Choice(f"{cell}.{node}.first", operations))
                result.append(Choice(f"{cell}.{node}.second", operations))
        return tuple(result)

    def edges(self, choices: Choices, cell: str) -> list[list[tuple[str, int]]]:
        """For each intermediate node of a cell its two (operation, source) pairs."""
        result = []
        for node in range(2, 2 + self.file.cell.nodes):
            prefix = f"{cell}.{node}"
            inputs = str(choices.get(f"{prefix}.inputs", "0+1")).split("+")
            operations = (str(choices[f"{prefix}.first"]), str(choices[f"{prefix}.second"]))
            result.append([(op, int(i)) for op, i in zip(operations, inputs, strict=True)])
        return result

    def is_connected(self, choices: Choices) -> bool:
        return all(self._reaches(choices, cell) for cell in CELLS)

    def _reaches(self, choices: Choices, cell: str) -> bool:
        alive = [True, True]
        for pairs in self.edges(choices, cell):
            alive.append(any(alive[i] and not self._is_none(op) for op, i in pairs))
        return any(alive[2:])

    def _is_none(self, operation: str) -> bool:
        return self.file.cell.operations[operation].block == "zeros"

    def genotype(self, choices: Choices) -> Genotype:
        """The choices in the DARTS notation."""
        concat = tuple(range(2, 2 + self.file.cell.nodes))
        normal, reduce = (
            tuple(pair for pairs in self.edges(choices, cell) for pair in pairs) for cell in CELLS
        )
        return Genotype(normal, concat, reduce, concat)

    def format(self, choices: Choices) -> str:
        return format_genotype(self.genotype(choices))

    def read(self, text: str) -> Choices:
        genotype = parse_genotype(text)
        choices: Choices = {}
        for cell, edges in zip(CELLS, (genotype.normal, genotype.reduce), strict=True):
            if len(edges) != 2 * self.file.cell.nodes:
                raise UserError(
                    f"genotype: {cell} has {len(edges)} edges, space {self.name!r} has "
                    f"{2 * self.file.cell.nodes}"
                )
            for node in range(self.file.cell.nodes):
                (first, a), (second, b) = sorted(
                    edges[2 * node : 2 * node + 2], key=lambda edge: edge[1]
                )
                prefix = f"{cell}.{node + 2}"
                if node > 0:
                    choices[f"{prefix}.inputs"] = f"{a}+{b}"
                elif (a, b) != (0, 1):
                    raise UserError(f"genotype: the first node of {cell} must read 0 and 1")
                choices[f"{prefix}.first"] = first
                choices[f"{prefix}.second"] = second
        return self.check(choices)

    def build(self, choices: Choices, image_shape: Shape, classes: int) -> Graph:
        return self.genotype_graph(self.genotype(self.check(choices)), image_shape, classes)

    def genotype_graph(self, genotype: Genotype, image_shape: Shape, classes: int) -> Graph:
        """The architecture of a genotype, its parameters named in the order of its edges.

        Raises:
            UserError: If the images are too small for the number of reductions.
        """
        skeleton = self.file.skeleton
        if min(image_shape[1:]) < 2 ** (len(skeleton.reductions) + 1):
            raise UserError(
                f"images of {image_shape[1]}x{image_shape[2]} are too small for space "
                f"{self.name!r} with {skeleton.cells} cells"
            )
        graph = GraphBuilder()
        image = graph.add(Input(*image_shape), name="input")
        width = skeleton.stem_multiplier * skeleton.channels
        stem = Place(image, width, 1, "stem")
        before = last = conv_bn(graph, stem, kernel=3, conv_name="0", bn_name="1")
        channels, reduced_before = skeleton.channels, False
        for index in range(skeleton.cells):
            graph.cell = index
            reduces = index in skeleton.reductions
            channels *= 2 if reduces else 1
            edges = genotype.reduce if reduces else genotype.normal
            before, last = (
                last,
                self._cell(
                    graph, edges, (before, last), channels, 2 if reduces else 1, reduced_before
                ),
            )
            reduced_before = reduces
        classifier(graph, last, classes, "classifier.0")
        return graph.build()

    def _cell(
        self,
        graph: GraphBuilder,
        edges: tuple[Edge, ...],
        previous: tuple[int, int],
        channels: int,
        stride: int,
        reduced_before: bool,
    ) -> int:
        """Add one cell; `previous` are the outputs of the cell before the last and the last."""
        name = f"cells.{graph.cell}"
        first = Place(previous[0], channels, 1, f"{name}.preprocess0")
        second = Place(previous[1], channels, 1, f"{name}.preprocess1")
        preprocess = "factorized_reduce" if reduced_before else "relu_conv_bn"
        states = [
            add_block(graph, preprocess, first),
            add_block(graph, "relu_conv_bn", second),
        ]
        for node in range(0, len(edges), 2):
            connected = []
            for number, (operation, source) in enumerate(edges[node : node + 2], node):
                if self._is_none(operation):
                    continue
                stride_here = stride if source < 2 else 1
                place = Place(states[source], channels, stride_here, f"{name}._ops.{number}")
                settings = self.file.cell.operations[operation]
                connected.append(add_block(graph, settings.block, place, settings.pairs))
            states.append(self._combine(graph, connected, states[0], channels, stride))
        return graph.add(Concat(), *states[2:])

    def _combine(
        self, graph: GraphBuilder, connected: list[int], state: int, channels: int, stride: int
    ) -> int:
        if not connected:
            return graph.add(Zeros(channels, stride), state)
        return graph.add(Sum(), *connected)
