"""The `dense_cells` family: one cell in which every pair of nodes is an edge (NAS-Bench-201)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from itertools import combinations
from typing import Literal

from pydantic import Field

from ghnas.architectures.architecture import Choices
from ghnas.architectures.blocks import Place, add_block, classifier, conv_bn
from ghnas.architectures.graph import Graph, GraphBuilder, Shape
from ghnas.architectures.labelled_dag import DagKind, LabelledDag
from ghnas.architectures.ops import Activation, BatchNorm, Input, Sum, Zeros
from ghnas.spaces.base import Choice, Space
from ghnas.spaces.cells import lives
from ghnas.spaces.files import CellSettings, SpaceFile, StagedCellSkeleton
from ghnas.spaces.registry import family
from ghnas.utils.errors import UserError

_NODE = re.compile(r"\|(?:[^|~]+~\d+\|)+")
_EDGE = re.compile(r"([^|~]+)~(\d+)\|")


class DenseCellSettings(CellSettings):
    """What a cell is made of: its nodes, the input counted, and the operations of an edge."""

    nodes: int = Field(ge=2, le=16)


class DenseCellSpaceFile(SpaceFile):
    """A space file of the `dense_cells` family."""

    family: Literal["dense_cells"]
    skeleton: StagedCellSkeleton
    cell: DenseCellSettings


@family("dense_cells", DenseCellSpaceFile)
class DenseCellSpace(Space):
    """Every node of a cell sums an operation on each earlier node; the last is the output.

    Choices: the operation of each edge, named as `0-1` (from node 0, the cell's input, to node
    1). The operation that is no connection adds nothing; a node that nothing is connected to is
    zero. An architecture whose output does not depend on the image can be read, built and scored,
    but sampling, mutation and crossover leave it out.

    Source: Dong and Yang, NAS-Bench-201 (ICLR 2020), section 2.1.
    """

    file: DenseCellSpaceFile

    @cached_property
    def _edges(self) -> tuple[tuple[int, int], ...]:
        """(source, target) of every edge, by target: the order of the notation."""
        pairs = combinations(range(self.file.cell.nodes), 2)
        return tuple(sorted(pairs, key=lambda pair: pair[::-1]))

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        operations = tuple(self.file.cell.operations)
        return tuple(Choice(f"{source}-{target}", operations) for source, target in self._edges)

    def edges(self, choices: Choices) -> list[list[tuple[str, int]]]:
        """For each node after the first its (operation, source) pairs."""
        return [
            [(str(choices[f"{source}-{target}"]), source) for source in range(target)]
            for target in range(1, self.file.cell.nodes)
        ]

    def is_connected(self, choices: Choices) -> bool:
        edges = self.file.cell.connected(self.edges(choices))
        return lives(edges, [len(edges)], [True])

    @cached_property
    def dag_kinds(self) -> Mapping[str, DagKind]:
        cell = self.file.cell
        return {"cell": cell.dag_kind(inputs=1, nodes=cell.nodes)}

    def dags(self, choices: Choices) -> Mapping[str, LabelledDag]:
        edges = tuple(
            (operation, source, target)
            for target, pairs in enumerate(self.edges(choices), start=1)
            for operation, source in pairs
            if not self.file.cell.is_none(operation)
        )
        return {"cell": LabelledDag(edges, self.file.cell.nodes - 1)}

    @cached_property
    def for_features(self) -> Space:
        return self.with_skeleton(cells=1, channels=16, stages=1)

    def format(self, choices: Choices) -> str:
        """As the benchmark writes it: `|nor_conv_3x3~0|+|none~0|skip_connect~1|+...`."""
        nodes = ("|".join(f"{op}~{i}" for op, i in pairs) for pairs in self.edges(choices))
        return "+".join(f"|{node}|" for node in nodes)

    def read(self, text: str) -> Choices:
        nodes = text.strip().split("+")
        first = {choice.name: choice.options[0] for choice in self.choices}
        if len(nodes) != self.file.cell.nodes - 1 or not all(map(_NODE.fullmatch, nodes)):
            raise UserError(
                f"not an architecture of space {self.name!r}, such as "
                f"{self.format(first)!r}: {text[:80]!r}"
            )
        choices: Choices = {}
        for target, node in enumerate(nodes, start=1):
            edges = _EDGE.findall(node)
            if [int(source) for _, source in edges] != list(range(target)):
                raise UserError(
                    f"{node!r}: node {target} must have one operation for each of the nodes 0 to "
                    f"{target - 1}, in their order"
                )
            choices |= {f"{source}-{target}": operation for operation, source in edges}
        return self.check(choices)

    def build(self, choices: Choices, image_shape: Shape, classes: int) -> Graph:
        choices = self.check(choices)
        skeleton = self.file.skeleton
        self._require_size(image_shape, 2**skeleton.stages, f"{skeleton.stages} stages")
        edges = self.edges(choices)
        graph = GraphBuilder()
        x = graph.add(Input(*image_shape), name="input")
        channels = skeleton.channels
        x = conv_bn(graph, Place(x, channels, 1, "stem"), kernel=3, conv_name="0", bn_name="1")
        for stage in range(skeleton.stages):
            if stage:
                channels *= 2
                x = add_block(graph, "relu_residual", Place(x, channels, 2, f"cells.{graph.cell}"))
                graph.cell += 1
            for _ in range(skeleton.cells):
                x = self._cell(graph, edges, x, channels)
                graph.cell += 1
        x = graph.add(BatchNorm(), x, name="lastact.0")
        classifier(graph, graph.add(Activation(), x), classes, "classifier")
        return graph.build()

    def _cell(
        self, graph: GraphBuilder, edges: list[list[tuple[str, int]]], source: int, channels: int
    ) -> int:
        """Add one cell; its edges are numbered as in the benchmark's own networks."""
        states, number, cell = [source], 0, self.file.cell
        for pairs in edges:
            connected = []
            for operation, index in pairs:
                if not cell.is_none(operation):
                    name = f"cells.{graph.cell}.layers.{number}"
                    place = Place(states[index], channels, 1, name)
                    connected.append(cell.operations[operation].add(graph, place))
                number += 1
            if not connected:
                connected = [graph.add(Zeros(channels), source)]
            states.append(connected[0] if len(connected) == 1 else graph.add(Sum(), *connected))
        return states[-1]
