"""Proxies that ask how well an untrained network tells images apart."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import Network
from ghnas.architectures.ops import Activation
from ghnas.scoring.proxies.running import node_outputs, parameters_of

JACOBIAN_EPSILON = 1e-5


def naswot(network: Network, images: Tensor, labels: Tensor) -> float:
    """Log-determinant of the Hamming kernel of ReLU codes; see `code_separability`."""
    return code_separability(network.graph, dict(network.named_parameters()), images)


@torch.no_grad()
def code_separability(graph: Graph, parameters: Mapping[str, Tensor], images: Tensor) -> float:
    """Log-determinant of the Hamming kernel of ReLU codes (Mellor, Turner, Storkey and Crowley,
    "Neural Architecture Search without Training", ICML 2021, arXiv 2006.04647v3, section 3).

    The code of an image says which rectified units are active; entry (i, j) of the kernel is the
    number of units in which the codes of images i and j agree. A rectifier that several
    operations read counts once for each, as where each operation has its own.

    Args:
        graph: The architecture.
        parameters: A tensor for each of its parameters.
        images: (B, C, H, W).

    Returns:
        Minus infinity if two images have the same code.
    """
    values = node_outputs(graph, parameters, images)
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)
    for index, node in enumerate(graph.nodes):
        if isinstance(node.op, Activation):
            code = (values[index].flatten(1) > 0).float()
            agreeing = code @ code.T + (1 - code) @ (1 - code).T
            kernel += len(graph.consumers[index]) * agreeing.double().cpu()
    sign, logarithm = torch.linalg.slogdet(kernel)
    return float(logarithm) if sign > 0 else float("-inf")


def jacov(network: Network, images: Tensor, labels: Tensor) -> float:
    """How far from correlated the images' input gradients are (Mellor et al., "Neural
    Architecture Search without Training", first version, 2020, arXiv 2006.04647v1, section 3).

    With v the eigenvalues of the correlation matrix of the gradients of the summed logits, the
    score is -sum(log(v + e) + 1 / (v + e)), e = 1e-5.
    """
    inputs = images.detach().clone().requires_grad_()
    logits = node_outputs(network.graph, parameters_of(network), inputs)[-1]
    (jacobian,) = torch.autograd.grad(logits.sum(), inputs)
    correlation = torch.corrcoef(jacobian.flatten(1).double())
    if not torch.isfinite(correlation).all():
        return float("-inf")
    values = torch.linalg.eigvalsh(correlation) + JACOBIAN_EPSILON
    return -float((values.log() + 1 / values).sum())
