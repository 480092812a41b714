"""The Zen-score: how much a network's features change with its input."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import Network
from ghnas.scoring.proxies.running import node_outputs, parameters_of

REPEATS, PERTURBATION = 4, 0.01


@torch.no_grad()
def zen(network: Network, images: Tensor, labels: Tensor) -> float:
    """Zen-score (Lin et al., "Zen-NAS", ICCV 2021, arXiv 2102.01063, algorithm 1).

    Weights, images and perturbations are drawn from N(0, 1); the score is the logarithm of the
    mean change of the features before global pooling, and for each batch normalisation the
    logarithm of the standard deviation that it divided by. Averaged over 4 draws of as many
    images as are given; they are read for their shape alone. Sums in the graph are kept, where
    the paper takes residual links out of networks that have no other.
    """
    generator = torch.Generator().manual_seed(0)
    scores = [_one_draw(network, images.shape, generator) for _ in range(REPEATS)]
    return sum(scores) / REPEATS


def _one_draw(network: Network, shape: torch.Size, generator: torch.Generator) -> float:
    graph = network.graph
    parameters = {
        name: torch.randn(value.shape, generator=generator) if value.dim() > 1 else value.detach()
        for name, value in parameters_of(network).items()
    }
    place = _before_pooling(graph)
    images, noise = torch.randn(2, *shape, generator=generator).unbind()
    values = node_outputs(graph, parameters, images)
    moved = node_outputs(graph, parameters, images + PERTURBATION * noise)
    change = float((values[place] - moved[place]).flatten(1).norm(dim=1).mean())
    score = _log(change)
    for node in graph.nodes:
        if node.op.primitive == "bn":
            source = values[node.inputs[0]].transpose(0, 1).flatten(1)
            score += 0.5 * _log(float(source.var(dim=1, correction=0).mean()))
    return score


def _before_pooling(graph: Graph) -> int:
    """The node that the last global pooling reads; the output if there is none."""
    for node in reversed(graph.nodes):
        if node.op.primitive == "glob_avg":
            return node.inputs[0]
    return len(graph.nodes) - 1


def _log(value: float) -> float:
    return math.log(value) if value > 0 else float("-inf")
