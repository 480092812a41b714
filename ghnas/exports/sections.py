"""A graph cut into the parts of a Python file: a class for each cell, layers in a row as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from ghnas.architectures.graph import Graph, Node
from ghnas.architectures.ops import Op
from ghnas.exports.layers import Layer, layer


@dataclass
class Step:
    """What computes one value: layers in a row, or one expression.

    Args:
        inputs: Nodes that it reads.
        layers: What it does, in order.
        names: The prefix of each layer's parameters in the graph.
        name: The attribute that holds the layers; empty for an expression.
        output: The node whose value it computes.
    """

    inputs: tuple[int, ...]
    layers: list[Layer]
    names: list[str]
    output: int
    name: str = ""

    @property
    def prefixes(self) -> list[str]:
        """Of each layer's parameters below the attribute."""
        if len(self.layers) == 1:
            return [self.name]
        return [f"{self.name}.{index}" for index in range(len(self.layers))]


@dataclass
class Section:
    """A cell, as a class of the file.

    Args:
        steps: What it computes, in order.
        inputs: Nodes of earlier sections that it reads, and the image.
        outputs: Its nodes that later sections read, and the network's output.
    """

    steps: list[Step]
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)


def sections(graph: Graph) -> list[Section]:
    """Cut a graph at the borders of its cells."""
    plain = [_layer(node) for node in graph.nodes]
    readers = [len(item) for item in graph.consumers]
    result = []
    numbered = range(1, len(graph.nodes))
    for _, indices in groupby(numbered, key=lambda index: graph.nodes[index].cell):
        result.append(Section(list(_steps(graph, list(indices), plain, readers))))
    _connect(result, len(graph.nodes) - 1)
    for section in result:
        _give_names(section)
    return result


def _layer(node: Node) -> Layer:
    if not node.inputs:
        return Layer("input")
    assert isinstance(node.op, Op)
    return layer(node.op, node.spec.input_shapes, node.shape)


def _steps(
    graph: Graph, indices: Sequence[int], plain: Sequence[Layer], readers: Sequence[int]
) -> Iterator[Step]:
    """Layers with one reader become part of what reads them."""
    pending: dict[int, Step] = {}
    for index in indices:
        node, own = graph.nodes[index], plain[index]
        step = pending.pop(node.inputs[0], None) if own.module and len(node.inputs) == 1 else None
        if step is None:
            step = Step(node.inputs, [own], [node.name], index)
        elif own.kind == "bias" and step.layers[-1].takes_bias and step.names[-1] == node.name:
            step.layers[-1] = step.layers[-1].with_bias()
        else:
            step.layers.append(own)
            step.names.append(node.name)
        step.output = index
        inside = graph.consumers[index] and graph.consumers[index][0] <= indices[-1]
        if own.module and readers[index] == 1 and inside and _joins(graph, index, plain):
            pending[index] = step
        else:
            yield step


def _joins(graph: Graph, index: int, plain: Sequence[Layer]) -> bool:
    (reader,) = graph.consumers[index]
    return bool(plain[reader].module) and len(graph.nodes[reader].inputs) == 1


def _connect(parts: Sequence[Section], last: int) -> None:
    """Work out what sections read of each other."""
    home = {step.output: part for part in parts for step in part.steps}
    for part in parts:
        for source in dict.fromkeys(item for step in part.steps for item in step.inputs):
            if home.get(source) is not part:
                part.inputs.append(source)
                if source in home and source not in home[source].outputs:
                    home[source].outputs.append(source)
    home[last].outputs.append(last)


def _give_names(section: Section) -> None:
    """Attributes named by their first layer with weights, numbered where there are several."""
    kinds = {}
    for step in section.steps:
        if step.layers[0].module and (len(step.layers) > 1 or not step.layers[0].expression):
            weighted = (
                item.kind for item in step.layers if item.takes_bias or "bias=" in item.module
            )
            kinds[step.output] = next(weighted, step.layers[0].kind)
    counts, seen = Counter(kinds.values()), Counter[str]()
    for step in section.steps:
        kind = kinds.get(step.output)
        if kind is not None:
            seen[kind] += 1
            step.name = f"{kind}_{seen[kind]}" if counts[kind] > 1 else kind
