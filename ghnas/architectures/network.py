"""The interpreter of graphs with PyTorch's operations, and a graph as an `nn.Module`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ghnas.architectures.graph import Graph, Node
from ghnas.architectures.ops import Op
from ghnas.architectures.tracing.module_graph import ModuleGraph
from ghnas.utils.errors import UserError


class Network(nn.Module):
    """Runs a graph; parameters and buffers are named as in the graph, as in plain PyTorch code.

    In training mode batch-norm uses and tracks batch statistics, in evaluation mode the running
    ones. New networks are initialised as PyTorch's own layers are (Kaiming, fan-in).

    Args:
        graph: The architecture.
    """

    def __init__(self, graph: Graph) -> None:
        if isinstance(graph, ModuleGraph):
            raise UserError(
                "a network of a ModuleSpace is a module: space.module(architecture) makes it"
            )
        super().__init__()
        self.graph = graph
        for name, shape in graph.parameters.items():
            _register(self, name).register_parameter(
                name.rpartition(".")[2], nn.Parameter(torch.empty(shape))
            )
        for node in graph.nodes:
            assert isinstance(node.op, Op)
            for key, (shape, value) in node.op.buffer_shapes(*node.spec.input_shapes).items():
                name = f"{node.name}.{key}"
                _register(self, name).register_buffer(key, torch.full(shape, value))
        self.load_state_dict(kaiming(graph), strict=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) for images (B, C, H, W)."""
        return traverse(self.graph, images, self.apply_node)

    def apply_node(self, node: Node, inputs: Sequence[Tensor]) -> Tensor:
        """The value of one node, with this network's parameters and buffers.

        Args:
            node: Of the graph, not the input.
            inputs: Values of its inputs.
        """
        assert isinstance(node.op, Op)
        owner = self.get_submodule(node.name) if node.name else self
        buffers = node.op.buffer_shapes(*node.spec.input_shapes)
        return node.op.forward_tracked(
            inputs,
            [getattr(owner, key) for key, _ in node.spec.parameter_shapes],
            [getattr(owner, key) for key in buffers],
            self.training,
        )


def traverse(
    graph: Graph, images: Tensor, apply: Callable[[Node, Sequence[Tensor]], Tensor]
) -> Tensor:
    """Run a graph node by node, keeping each value until its last reader has read it.

    Args:
        graph: The architecture.
        images: (B, C, H, W), the value of the input node.
        apply: (node, values of its inputs) -> its value; called for every node but the input.

    Returns:
        The value of the last node: logits (B, classes).
    """
    values = {0: images}
    readers = [len(item) for item in graph.consumers]
    for index, node in enumerate(graph.nodes):
        if not node.inputs:
            continue
        values[index] = apply(node, [values[i] for i in node.inputs])
        for source in node.inputs:
            readers[source] -= 1
            if readers[source] == 0:
                del values[source]
    return values[len(graph.nodes) - 1]


def forward(graph: Graph, parameters: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Logits of a network with given weights; batch-norm uses the statistics of the batch.

    Args:
        graph: The architecture.
        parameters: A tensor for each of its parameters, by name.
        images: (B, C, H, W).

    Returns:
        (B, classes).
    """

    if isinstance(graph, ModuleGraph):
        return graph.run(parameters, images)

    def apply(node: Node, inputs: Sequence[Tensor]) -> Tensor:
        assert isinstance(node.op, Op)
        return node.op.forward(inputs, [parameters[name] for name, _ in node.parameters])

    return traverse(graph, images, apply)


def initialised(graph: Graph, seed: int) -> Network:
    """A network with Kaiming initialisation, for a CPU; equal seeds give equal weights."""
    network = Network(graph).to(memory_format=torch.channels_last)
    load_parameters(network, kaiming(graph, torch.Generator().manual_seed(seed)))
    return network


def kaiming(graph: Graph, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Random parameters: Kaiming-normal weights (He et al., 2015; fan-in), norms at one, biases
    at zero.

    Args:
        graph: The architecture.
        generator: Source of randomness on the CPU.

    Returns:
        A tensor for each of the graph's parameters.
    """
    result = {}
    for name, shape in graph.parameters.items():
        if len(shape) > 1:
            scale = math.sqrt(2.0 / math.prod(shape[1:]))
            result[name] = torch.randn(shape, generator=generator) * scale
        else:
            result[name] = torch.full(shape, 1.0 if name.endswith("weight") else 0.0)
    return result


def load_parameters(network: Network, parameters: Mapping[str, Tensor]) -> None:
    """Copy predicted parameters into a network.

    Raises:
        KeyError: If a parameter of the network is missing.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(parameters[name])


def _register(module: nn.Module, name: str) -> nn.Module:
    """The submodule that owns `name`, made if need be."""
    for part in name.split(".")[:-1]:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module._modules[part]  # type: ignore[assignment]
    return module
