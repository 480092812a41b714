"""A graph as an `nn.Module`, for fine-tuning and export."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ghnas.architectures.graph import Graph
from ghnas.architectures.ops import Op


class Network(nn.Module):
    """Runs a graph; parameters and buffers are named as in the graph, as in plain PyTorch code.

    In training mode batch-norm uses and tracks batch statistics, in evaluation mode the running
    ones. New networks are initialised as PyTorch's own layers are (Kaiming, fan-in).

    Args:
        graph: The architecture.
    """

    def __init__(self, graph: Graph) -> None:
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
        values: list[Tensor] = []
        for node in self.graph.nodes:
            if not node.inputs:
                values.append(images)
                continue
            assert isinstance(node.op, Op)
            owner = self.get_submodule(node.name) if node.name else self
            buffers = node.op.buffer_shapes(*node.spec.input_shapes)
            values.append(
                node.op.forward_tracked(
                    [values[i] for i in node.inputs],
                    [getattr(owner, key) for key, _ in node.spec.parameter_shapes],
                    [getattr(owner, key) for key in buffers],
                    self.training,
                )
            )
        return values[-1]


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
