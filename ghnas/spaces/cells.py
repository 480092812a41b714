"""The `cells` family: networks stacked from one normal and one reduction cell (DARTS)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from itertools import chain, combinations
from typing import Literal

from pydantic import Field

from ghnas.architectures.architecture import Choices
from ghnas.architectures.blocks import Place, add_block, classifier, conv_bn
from ghnas.architectures.genotypes import Edge, Genotype, format_genotype, parse_genotype
from ghnas.architectures.graph import Graph, GraphBuilder, Shape
from ghnas.architectures.labelled_dag import DagKind, LabelledDag
from ghnas.architectures.ops import Concat, Input, Sum, Zeros
from ghnas.spaces.base import Choice, Space
from ghnas.spaces.files import MOST, CellSettings, SpaceFile, StrictModel
from ghnas.spaces.registry import family
from ghnas.utils.errors import UserError

CELLS = ("normal", "reduce")


class CellSkeleton(StrictModel):
    """The fixed macro architecture.

    Args:
        channels: Of the first cell; doubled at every reduction.
        cells: Of the network.
        stem_multiplier: The stem makes this many times the channels.
    """

    channels: int = Field(ge=1, le=MOST)
    cells: int = Field(ge=1, le=200)
    stem_multiplier: int = Field(default=3, ge=1, le=64)

    @property
    def reductions(self) -> tuple[int, ...]:
        """The cells that halve the size: at one and at two thirds of the depth, as in DARTS."""
        return reductions(self.cells) if self.cells > 2 else ()


class CellSpaceFile(SpaceFile):
    """A space file of the `cells` family."""

    family: Literal["cells"]
    skeleton: CellSkeleton
    cell: CellSettings


def reductions(cells: int) -> tuple[int, ...]:
    """The cells that halve the size: at one and at two thirds of the depth."""
    return tuple(sorted({cells // 3, 2 * cells // 3} - {0}))


@cache
def input_pairs(node: int) -> tuple[str, ...]:
    """The pairs of earlier nodes that a node can read, as `0+1`."""
    return tuple(f"{a}+{b}" for a, b in combinations(range(node), 2))


def cell_choices(nodes: int, operations: tuple[str, ...]) -> tuple[Choice, ...]:
    """What is chosen for the nodes of both cells.

    Args:
        nodes: Of a cell, its two inputs not counted.
        operations: What an edge can be.
    """
    result = []
    for cell in CELLS:
        for node in range(2, 2 + nodes):
            if node > 2:  # the first node has no choice of inputs
                result.append(Choice(f"{cell}.{node}.inputs", input_pairs(node)))
            result.append(Choice(f"{cell}.{node}.first", operations))
            result.append(Choice(f"{cell}.{node}.second", operations))
    return tuple(result)


def cell_edges(choices: Choices, cell: str, nodes: int) -> list[list[tuple[str, int]]]:
    """For each node of a cell its two (operation, source) pairs.

    Args:
        choices: Of an architecture.
        cell: `normal` or `reduce`.
        nodes: How many of the cell's nodes there are.
    """
    result = []
    for node in range(2, 2 + nodes):
        prefix = f"{cell}.{node}"
        first, second = str(choices.get(f"{prefix}.inputs", "0+1")).split("+")
        pair = (str(choices[f"{prefix}.first"]), int(first))
        result.append([pair, (str(choices[f"{prefix}.second"]), int(second))])
    return result


def cell_dag(
    edges: list[list[tuple[str, int]]], outputs: Sequence[int], is_none: Callable[[str], bool]
) -> LabelledDag:
    """A cell of two inputs whose output is one more node behind its `outputs`.

    Args:
        edges: As of `cell_edges`.
        outputs: The nodes that are concatenated.
        is_none: Whether an operation is no connection.
    """
    last = 2 + len(edges)
    connected = tuple(
        (operation, source, target)
        for target, pairs in enumerate(edges, start=2)
        for operation, source in pairs
        if not is_none(operation)
    )
    return LabelledDag((*connected, *((None, node, last) for node in outputs)), last)


def lives(edges: list[list[int]], outputs: Sequence[int], inputs: Sequence[bool]) -> bool:
    """Whether an output of a cell depends on its living inputs.

    Args:
        edges: For each node after the inputs the sources that it is connected to.
        outputs: Which of the inputs and nodes, numbered together, are the cell's outputs.
        inputs: Which inputs live.
    """
    alive = list(inputs)
    for sources in edges:
        alive.append(any(alive[i] for i in sources))
    return any(alive[i] for i in outputs)


@family("cells", CellSpaceFile)
class CellSpace(Space):
    """Every node of a cell sums two operations on two different earlier nodes.

    Nodes 0 and 1 of a cell are the outputs of the two previous cells. For each further node,
    numbered from 2, it is chosen which two earlier nodes it reads (`normal.3.inputs`, as `0+1`)
    and which operation is applied to each (`normal.3.first` and `normal.3.second`). The notation
    is the DARTS genotype.

    Source: Liu, Simonyan and Yang, DARTS (ICLR 2019), section 2.1.
    """

    file: CellSpaceFile

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return cell_choices(self.file.cell.nodes, tuple(self.file.cell.operations))

    def edges(self, choices: Choices, cell: str) -> list[list[tuple[str, int]]]:
        """For each intermediate node of a cell its two (operation, source) pairs."""
        return cell_edges(choices, cell, self.file.cell.nodes)

    def is_connected(self, choices: Choices) -> bool:
        outputs = range(2, 2 + self.file.cell.nodes)
        cells = (self.file.cell.connected(self.edges(choices, cell)) for cell in CELLS)
        return all(lives(edges, outputs, (True, True)) for edges in cells)

    @cached_property
    def dag_kinds(self) -> Mapping[str, DagKind]:
        cell = self.file.cell
        return dict.fromkeys(CELLS, cell.dag_kind(inputs=2, nodes=3 + cell.nodes))

    def dags(self, choices: Choices) -> Mapping[str, LabelledDag]:
        outputs = range(2, 2 + self.file.cell.nodes)
        return {
            cell: cell_dag(self.edges(choices, cell), outputs, self.file.cell.is_none)
            for cell in CELLS
        }

    @cached_property
    def for_features(self) -> Space:
        return self.with_skeleton(cells=3, channels=8)

    @property
    def feature_parts(self) -> tuple[str, ...]:
        return ("normal", "reduce", "reduce")

    def genotype(self, choices: Choices) -> Genotype:
        """The choices in the DARTS notation."""
        return Genotype(*(tuple(chain(*self.edges(choices, cell))) for cell in CELLS))

    def format(self, choices: Choices) -> str:
        return format_genotype(self.genotype(choices))

    def read(self, text: str) -> Choices:
        genotype = parse_genotype(text)
        choices: Choices = {}
        for cell, edges in genotype._asdict().items():
            if len(edges) != 2 * self.file.cell.nodes:
                raise UserError(
                    f"genotype: {cell} has {len(edges)} edges, space {self.name!r} has "
                    f"{2 * self.file.cell.nodes}"
                )
            for node in range(self.file.cell.nodes):
                pair = edges[2 * node : 2 * node + 2]
                (first, a), (second, b) = sorted(pair, key=lambda edge: edge[1])
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
        least = 2 ** (len(skeleton.reductions) + 1)
        self._require_size(image_shape, least, f"{skeleton.cells} cells")
        graph = GraphBuilder()
        image = graph.add(Input(*image_shape), name="input")
        width = skeleton.stem_multiplier * skeleton.channels
        stem = Place(image, width, 1, "stem")
        before = last = conv_bn(graph, stem, kernel=3, conv_name="0", bn_name="1")
        channels, reduced_before = skeleton.channels, False
        for index in range(skeleton.cells):
            graph.cell = index
            reduces = index in skeleton.reductions
            stride = 2 if reduces else 1
            channels *= stride
            edges, states = genotype.reduce if reduces else genotype.normal, (before, last)
            before = last
            last = self._cell(graph, edges, states, channels, stride, reduced_before)
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
        """Add one cell.

        Args:
            graph: Where to.
            edges: Of the cell, two for each node.
            previous: The outputs of the cell before the last one, and of the last one.
            channels: Of each node.
            stride: 2 in a cell that halves the size.
            reduced_before: Whether the last cell halved the size.
        """
        name = f"cells.{graph.cell}"
        blocks = ("factorized_reduce" if reduced_before else "relu_conv_bn", "relu_conv_bn")
        states = [
            add_block(graph, block, Place(source, channels, 1, f"{name}.preprocess{number}"))
            for number, (block, source) in enumerate(zip(blocks, previous, strict=True))
        ]
        operations, is_none = self.file.cell.operations, self.file.cell.is_none
        for node in range(0, len(edges), 2):
            connected = []
            for number, (operation, source) in enumerate(edges[node : node + 2], node):
                if not is_none(operation):
                    step = stride if source < 2 else 1
                    place = Place(states[source], channels, step, f"{name}._ops.{number}")
                    connected.append(operations[operation].add(graph, place))
            if connected:
                states.append(graph.add(Sum(), *connected))
            else:
                states.append(graph.add(Zeros(channels, stride), states[0]))
        return graph.add(Concat(), *states[2:])
