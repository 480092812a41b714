"""The one description of an architecture: a directed acyclic graph of operations.

Everything reads this graph: the hypernetwork to predict weights, the network to run, the cost
model to count, the hash to find duplicates, the report to draw. It knows nothing of torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol, cast

from ghnas.utils.errors import UserError

Shape = tuple[int, ...]


def format_shape(shape: Shape) -> str:
    """As `16x8x8`."""
    return "x".join(map(str, shape))


class Operation(Hashable, Protocol):
    """What a graph asks of an operation (the table of operations is `ghnas.architectures.ops`)."""

    @property
    def primitive(self) -> str | None:
        """The hypernetwork's node type, or None if the node is contracted away."""

    @property
    def sizes_only(self) -> bool:
        """Whether it reads its inputs for their sizes alone: the hypernetwork sees no edge."""

    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape of the output for one image, from the shapes of the inputs for one image."""

    def parameter_shapes(self, *inputs: Shape) -> dict[str, Shape]:
        """Parameter names (such as `weight`) and shapes."""

    def feature_shape(self, *inputs: Shape) -> Shape | None:
        """The shape that the hypernetwork's shape embedding sees, None if there is none."""

    def flops(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        """Floating-point operations for one image: multiply-adds x 2."""


@dataclass(frozen=True)
class Specification:
    """An operation applied to inputs of known shapes; shared by all nodes that agree in both."""

    op: Operation
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    parameter_shapes: tuple[tuple[str, Shape], ...]
    feature_shape: Shape | None
    flops: int
    primitive: str | None
    sizes_only: bool

    @cached_property
    def padded_feature_shape(self) -> tuple[int, int, int, int]:
        """The feature shape as (out, in, height, width): ones where it has fewer dimensions,
        zeros where there is none; of a 3-d kernel the depth is left out."""
        shape = self.feature_shape
        if shape is None:
            return (0, 0, 0, 0)
        if len(shape) > 4:
            shape = (*shape[:2], *shape[-2:])
        out, fan_in, height, width = (*shape, *(1, 1, 1, 1)[len(shape) :])
        return (out, fan_in, height, width)

    @cached_property
    def parameter_count(self) -> int:
        """Number of trainable parameters."""
        return sum(math.prod(shape) for _, shape in self.parameter_shapes)

    @cached_property
    def digest(self) -> bytes:
        """A stable digest of the operation and its shapes."""
        text = f"{self.op!r}|{self.input_shapes!r}"
        return blake2b(text.encode(), digest_size=16).digest()

    def __reduce__(self) -> tuple[Callable[..., Specification], tuple[Any, ...]]:
        """Small when sent to another process, and shared there as here."""
        return specify, (self.op, self.input_shapes)


@lru_cache(maxsize=100_000)
def specify(op: Operation, input_shapes: tuple[Shape, ...]) -> Specification:
    """Apply an operation to input shapes (cached: nodes of many graphs share the result).

    Raises:
        UserError: If the shapes do not fit the operation, or nothing would be left of them.
    """
    output = op.output_shape(*input_shapes)
    if min(output, default=1) < 1:
        raise UserError(
            f"{type(op).__name__} makes {format_shape(output)} of "
            f"{' and '.join(map(format_shape, input_shapes))}: the images are too small, or there "
            "are too few channels"
        )
    return Specification(
        op=op,
        input_shapes=input_shapes,
        output_shape=output,
        parameter_shapes=tuple(op.parameter_shapes(*input_shapes).items()),
        feature_shape=op.feature_shape(*input_shapes),
        flops=op.flops(input_shapes, output),
        primitive=op.primitive,
        sizes_only=op.sizes_only,
    )


class Node(NamedTuple):
    """One operation of an architecture.

    Args:
        spec: The operation with its shapes.
        inputs: Indices of the nodes that it reads, in order; all smaller than its own index.
        name: The prefix of its parameters' names, as in a PyTorch state dict.
        cell: The index of the cell (or stage) that the node belongs to.
    """

    spec: Specification
    inputs: tuple[int, ...]
    name: str = ""
    cell: int = 0

    @property
    def op(self) -> Operation:
        """The node's operation."""
        return self.spec.op

    @property
    def shape(self) -> Shape:
        """Output shape for one image."""
        return self.spec.output_shape

    @property
    def parameters(self) -> list[tuple[str, Shape]]:
        """Full parameter names and their shapes."""
        prefix = f"{self.name}." if self.name else ""
        return [(prefix + key, shape) for key, shape in self.spec.parameter_shapes]


@dataclass(frozen=True)
class PrimitiveGraph:
    """A graph as the hypernetwork sees it: only nodes with a primitive type.

    Args:
        nodes: Index in the full graph of each kept node.
        edges: Pairs (from, to) of positions in `nodes`, from < to, in the order of `to`.
    """

    nodes: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Graph:
    """An architecture: nodes in topological order; the first is the input, the last the output."""

    nodes: tuple[Node, ...]

    def __reduce__(self) -> tuple[Callable[..., Graph], tuple[Any, ...]]:
        """Without what is worked out on demand."""
        return _restore, tuple(zip(*self.nodes, strict=True))

    @cached_property
    def parameters(self) -> dict[str, Shape]:
        """Parameter names and shapes, in the order of the nodes."""
        return {
            f"{name}.{key}" if name else key: shape
            for spec, _, name, _ in self.nodes
            for key, shape in spec.parameter_shapes
        }

    @cached_property
    def parameter_count(self) -> int:
        """Number of trainable parameters."""
        return sum([node.spec.parameter_count for node in self.nodes])

    @cached_property
    def flops(self) -> int:
        """Floating-point operations for one image: multiply-adds x 2."""
        return sum(node.spec.flops for node in self.nodes)

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For each node the nodes that read it."""
        readers: list[list[int]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for source in node.inputs:
                readers[source].append(index)
        return tuple(map(tuple, readers))

    @cached_property
    def hash(self) -> str:
        """Canonical hash: equal for isomorphic architectures.

        Two rounds of label refinement (Weisfeiler and Leman, 1968), each once along and once
        against the edges. Inputs are compared as multisets, for a sum does not depend on their
        order and a concatenation only up to the order of channels.
        """
        labels = [node.spec.digest for node in self.nodes]
        forward = [(index, node.inputs) for index, node in enumerate(self.nodes)]
        backward = list(enumerate(self.consumers))[::-1]
        fresh = _EMPTY.copy  # cheaper than a new one
        for order in (forward, backward, forward, backward):
            for index, others in order:  # hundreds of thousands of times in a search
                digest = fresh()
                if len(others) == 1:
                    digest.update(labels[index] + labels[others[0]])
                else:
                    digest.update(labels[index] + b"".join(sorted([labels[i] for i in others])))
                labels[index] = digest.digest()
        return blake2b(b"".join(sorted(labels)), digest_size=16).hexdigest()

    @cached_property
    def primitives(self) -> PrimitiveGraph:
        """Contract nodes without a primitive type: their readers read what they read."""
        kept: list[int] = []
        sources: list[tuple[int, ...]] = []  # positions in `kept` that each node stands for
        edges: list[tuple[int, int]] = []
        for index, (spec, inputs, _, _) in enumerate(self.nodes):
            if len(inputs) == 1:
                above = sources[inputs[0]]
            else:
                above = tuple(dict.fromkeys([p for i in inputs for p in sources[i]]))
            if spec.primitive is None:
                sources.append(above)
                continue
            position = len(kept)
            kept.append(index)
            if not spec.sizes_only:
                for source in above:
                    edges.append((source, position))
            sources.append((position,))
        return PrimitiveGraph(tuple(kept), tuple(edges))


def _restore(
    specs: Sequence[Specification],
    inputs: Sequence[tuple[int, ...]],
    names: Sequence[str],
    cells: Sequence[int],
) -> Graph:
    return Graph(tuple(map(Node, specs, inputs, names, cells)))


_EMPTY = blake2b(digest_size=16)


_new: Callable[[type[Node], tuple[Specification, tuple[int, ...], str, int]], Node]
_new = tuple.__new__  # several times faster than the named tuple's own


@dataclass(frozen=True)
class Template:
    """Nodes that can be appended anywhere, behind one node.

    Args:
        nodes: Inputs count from 0, the node that is read; names are suffixes.
        output: The node that is the result, counted in the same way.
    """

    nodes: tuple[Node, ...]
    output: int

    @cached_property
    def steps(self) -> tuple[tuple[Specification, int, tuple[int, ...], str], ...]:
        """For each node what it is, its only input or -1, its inputs and its name's suffix."""
        return tuple(
            (spec, inputs[0] if len(inputs) == 1 else -1, inputs, suffix)
            for spec, inputs, suffix, _ in self.nodes
        )


def record(shape: Shape, build: Callable[[GraphBuilder, int], int]) -> Template:
    """What `build` appends behind a node of a shape, as a template.

    Args:
        shape: Output shape of the node that is read.
        build: Appends nodes behind the given one and returns its result.
    """
    graph = GraphBuilder()
    anything = cast(Operation, None)  # only its shape is read
    graph._nodes.append(Node(Specification(anything, (), shape, (), None, 0, None, False), ()))
    output = build(graph, 0)
    return Template(tuple(graph._nodes[1:]), output)


@dataclass
class GraphBuilder:
    """Builds a graph node by node.

    Args:
        cell: Marks the nodes that are added from then on.
        left_out: A primitive type whose operations are not added, such as `bn` for networks
            without batch normalisation: their readers read what they read.
    """

    cell: int = 0
    left_out: str = ""
    _nodes: list[Node] = field(default_factory=list)
    _shared: dict[tuple[int, tuple[int, ...]], int] = field(default_factory=dict)

    def add(self, op: Operation, *inputs: int, name: str = "") -> int:
        """Append a node and return its index.

        Nodes that are contracted away (activations and the like) have no parameters; equal ones
        on equal inputs are the same node, so that nothing is computed twice.
        """
        nodes = self._nodes
        spec = specify(op, tuple([nodes[i].spec.output_shape for i in inputs]))
        if spec.primitive == self.left_out:
            return inputs[0]
        if spec.primitive is None:
            known = self._shared.setdefault((id(spec), inputs), len(nodes))
            if known < len(nodes):
                return known
        nodes.append(Node(spec, inputs, name, self.cell))
        return len(nodes) - 1

    def replay(self, template: Template, source: int, name: str) -> int:
        """Append a template's nodes; returns the index of their output.

        Args:
            template: What to append.
            source: The node that it reads.
            name: The prefix of its parameters' names.
        """
        indices, nodes, cell, shared = [source], self._nodes, self.cell, self._shared
        for spec, first, inputs, suffix in template.steps:
            above = (indices[first],) if first >= 0 else tuple([indices[i] for i in inputs])
            if spec.primitive is None:
                index = shared.setdefault((id(spec), above), len(nodes))
                if index < len(nodes):
                    indices.append(index)
                    continue
            elif spec.primitive == self.left_out:
                indices.append(above[0])
                continue
            indices.append(len(nodes))
            nodes.append(_new(Node, (spec, above, name + suffix if suffix else "", cell)))
        return indices[template.output]

    def shape(self, index: int) -> Shape:
        """Output shape of a node for one image."""
        return self._nodes[index].spec.output_shape

    def build(self) -> Graph:
        """The finished graph: the nodes that lead to the one added last, its output."""
        nodes = self._nodes
        needed = bytearray(len(nodes))
        needed[0] = needed[-1] = 1
        for index in range(len(nodes) - 1, -1, -1):
            if needed[index]:
                for source in nodes[index].inputs:
                    needed[source] = 1
        if all(needed):
            return Graph(tuple(nodes))
        position, kept = [0] * len(nodes), 0
        for index, keep in enumerate(needed):
            position[index] = kept
            kept += keep
        reached = [
            _new(Node, (spec, tuple([position[i] for i in inputs]), name, cell))
            for keep, (spec, inputs, name, cell) in zip(needed, nodes, strict=True)
            if keep
        ]
        return Graph(tuple(reached))
