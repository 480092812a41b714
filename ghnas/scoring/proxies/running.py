"""Runs a network node by node, so that what happens inside can be seen and replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures.graph import Graph, Node
from ghnas.architectures.network import Network, traverse
from ghnas.architectures.ops import Conv, Op

Forward = Callable[[Node, Sequence[Tensor], Sequence[Tensor]], Tensor]
"""(node, its inputs, its parameters) -> its output."""


def plain(node: Node, inputs: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """The node's own operation; batch-norm uses the statistics of the batch."""
    assert isinstance(node.op, Op)
    return node.op.forward(inputs, parameters)


def linear_part(node: Node, inputs: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """The node's operation without normalisation, in any precision."""
    if node.op.primitive in ("bn", "ln"):
        return inputs[0]
    op = node.op
    if isinstance(op, Conv):  # the fast forms are for float32
        groups = len(parameters[0]) if op.depthwise else 1
        return F.conv2d(inputs[0], parameters[0], None, op.stride, op.padding, op.dilation, groups)
    return plain(node, inputs, parameters)


def node_outputs(
    graph: Graph, parameters: Mapping[str, Tensor], images: Tensor, forward: Forward = plain
) -> list[Tensor]:
    """The output of every node of a graph.

    Args:
        graph: The architecture.
        parameters: A tensor for each of its parameters.
        images: (B, C, H, W).
        forward: Runs a node.

    Returns:
        A tensor (B, ...) for each node; the last holds the logits (B, classes).
    """
    values = [images]

    def keep(node: Node, inputs: Sequence[Tensor]) -> Tensor:
        values.append(forward(node, inputs, [parameters[name] for name, _ in node.parameters]))
        return values[-1]

    traverse(graph, images, keep)
    return values


def parameters_of(network: Network) -> dict[str, Tensor]:
    """The parameters by name, as leaves that gradients can be taken of."""
    return {name: value.detach().requires_grad_() for name, value in network.named_parameters()}


def weight_names(graph: Graph) -> list[str]:
    """The weights of convolutions and linear layers: parameters of two or more dimensions."""
    return [name for name, shape in graph.parameters.items() if len(shape) > 1]


def weighted_nodes(graph: Graph) -> list[int]:
    """The nodes that such a weight belongs to."""
    return [
        index
        for index, node in enumerate(graph.nodes)
        if any(len(shape) > 1 for _, shape in node.parameters)
    ]
