"""Nodes of a traced module, made one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from ghnas.architectures.graph import Graph, Node, Shape, Specification

Sources = tuple[int, ...]
"""The nodes that a value was computed from, in order; a value may be just the input."""


@dataclass(frozen=True)
class Traced:
    """An operation of a traced module: its type and parameters, without a forward of its own.

    Args:
        kind: What the module calls it.
        primitive: The hypernetwork's node type.
        parameters: Names (without the node's name) and shapes.
        feature: The shape that the shape embedding sees.
    """

    kind: str
    primitive: str
    parameters: tuple[tuple[str, Shape], ...] = ()
    feature: Shape | None = None
    sizes_only: ClassVar[bool] = False

    def output_shape(self, *inputs: Shape) -> Shape:
        """Not known, since a trace computes no sizes."""
        return ()

    def parameter_shapes(self, *inputs: Shape) -> dict[str, Shape]:
        """The parameters' shapes; they do not depend on the inputs."""
        return dict(self.parameters)

    def feature_shape(self, *inputs: Shape) -> Shape | None:
        """The shape that the trace found."""
        return self.feature

    def flops(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        """Not known, since a trace computes no sizes."""
        return 0


@dataclass(frozen=True)
class Value:
    """What is known of a value while reading.

    Args:
        sources: The nodes that it comes from.
        parameter: Its name, if it is a parameter or a reshaped one.
    """

    sources: Sources = ()
    parameter: str | None = None


NOTHING = Value()


class Building:
    """The nodes of a module's graph so far.

    Args:
        module: The module that is traced.
    """

    def __init__(self, module: nn.Module) -> None:
        self.nodes: list[Node] = []
        self.used: set[str] = set()
        self.shapes: dict[str, Shape] = {}
        self.names: dict[str, str] = {}
        """Of each parameter the name under which it is predicted: tied ones have several."""
        first: dict[int, str] = {}
        for name, value in module.named_parameters(remove_duplicate=False):
            if value.is_floating_point():
                self.shapes[name] = tuple(value.shape)
                self.names[name] = first.setdefault(id(value), name)

    def unused(self) -> list[str]:
        """Parameters without a node."""
        return [name for name, own in self.names.items() if name == own and name not in self.used]

    def graph(self, output: Value) -> Graph:
        """All nodes, the output's last, as a graph has it."""
        order = list(range(len(self.nodes)))
        last = output.sources[-1] if output.sources else order[-1]
        if not any(last in node.inputs for node in self.nodes):
            order.remove(last)
            order.append(last)
        position = {index: n for n, index in enumerate(order)}
        nodes = (self.nodes[index] for index in order)
        return Graph(tuple(n._replace(inputs=tuple(position[i] for i in n.inputs)) for n in nodes))

    def add(
        self,
        kind: str,
        primitive: str,
        sources: Sources,
        name: str = "",
        parameters: Iterable[tuple[str, Shape]] = (),
        feature: Shape | None = None,
    ) -> Sources:
        """Append a node that reads the sources, and return it as the source of its readers."""
        op = Traced(kind, primitive, tuple(parameters), feature)
        shapes = tuple(self.nodes[i].shape for i in sources)
        spec = Specification(op, shapes, (), op.parameters, feature, 0, primitive, False)
        self.nodes.append(Node(spec, sources, name))
        return (len(self.nodes) - 1,)

    def parameters(self, kind: str, primitive: str, names: Sequence[str], sources: Sources,
                   feature: Shape | None = None) -> Sources:  # fmt: skip
        """A node of parameters of one owner; those that have a node already are left out."""
        fresh = [name for name in names if name not in self.used]
        self.used.update(fresh)
        owner = names[0].rpartition(".")[0]
        keyed = [(name.rpartition(".")[2], self.shapes[name]) for name in fresh]
        return self.add(kind, primitive, sources, owner, keyed, feature or self.shapes[names[0]])

    def matrix(self, kind: str, primitive: str, weight: str | None, bias: str | None,
               sources: Sources) -> Sources:  # fmt: skip
        """A weight and its bias: two nodes, one after the other."""
        if weight:
            sources = self.parameters(kind, primitive, [weight], sources)
        if bias:
            sources = self.parameters(kind, "bias", [bias], sources)
        return sources

    def norm(self, kind: str, primitive: str, names: Sequence[str], sources: Sources) -> Sources:
        """A norm's scale and shift: one node."""
        return self.parameters(kind, primitive, names, sources) if names else sources

    def source(self, name: str) -> Sources:
        """A parameter that reads nothing, such as a position encoding or a class token."""
        shape = self.shapes[name]
        if is_vector(shape):
            return self.parameters("parameter", "bias", [name], ())
        grid = shape
        if len(shape) == 3 and shape[0] == 1:  # (1, tokens, channels) as a square grid
            side = math.isqrt(shape[1])
            grid = (1, shape[2], side, side)
        return self.parameters("parameter", "pos_enc", [name], (), grid)

    def settled(self, value: Value) -> Value:
        """The value, as a node if it was a parameter that has none yet."""
        return Value(self.source(value.parameter)) if value.parameter else value

    def joined(self, kind: str, primitive: str, inputs: Iterable[Value]) -> Sources:
        """A sum or a concatenation; of a single node's values it is nothing."""
        sources = union(self.settled(item) for item in inputs)
        return self.add(kind, primitive, sources) if len(sources) > 1 else sources

    def pool(self, kind: str, primitive: str, kernel: Any, sources: Sources) -> Sources:
        """A pooling window."""
        size = kernel if isinstance(kernel, (tuple, list)) else (kernel, kernel)
        return self.add(kind, primitive, sources, feature=(1, 1, size[0], size[-1]))

    def mean(self, sources: Sources) -> Sources:
        """The mean over all positions."""
        return self.add("mean", "glob_avg", sources)


def is_vector(shape: Shape) -> bool:
    """Whether at most one dimension is larger than one."""
    return math.prod(shape) == max(shape, default=1)


def union(values: Iterable[Value]) -> Sources:
    """The sources of all values, each once."""
    return tuple(dict.fromkeys(index for value in values for index in value.sources))
