"""Proxies that ask how well an untrained network tells images apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import Network
from ghnas.architectures.ops import Activation
from ghnas.executors.base import Executor, Parameters
from ghnas.executors.grouped import GroupedExecutor
from ghnas.executors.grouped.schedule import Step
from ghnas.executors.module import ModuleExecutor
from ghnas.scoring.proxies.running import node_outputs, parameters_of

JACOBIAN_EPSILON = 1e-5


def naswot(network: Network, images: Tensor, labels: Tensor) -> float:
    """Log-determinant of the Hamming kernel of ReLU codes; see `code_separability`."""
    weights = dict(network.named_parameters())
    return code_separability(ModuleExecutor(), [network.graph], [weights], images)[0]


@torch.no_grad()
def code_separability(
    executor: Executor, graphs: Sequence[Graph], weights: Sequence[Parameters], images: Tensor
) -> list[float]:
    """Log-determinant of the Hamming kernel of ReLU codes (Mellor, Turner, Storkey and Crowley,
    "Neural Architecture Search without Training", ICML 2021, arXiv 2006.04647v3, section 3).

    The code of an image says which rectified units are active; entry (i, j) of the kernel is the
    number of units in which the codes of images i and j agree. A rectifier that several
    operations read counts once for each, as where each operation has its own.

    Args:
        executor: A `GroupedExecutor` runs all networks as one population; otherwise they run one
            by one, with PyTorch's operations.
        graphs: The architectures.
        weights: The parameters of each.
        images: (B, C, H, W).

    Returns:
        For each network; minus infinity if two images have the same code.
    """
    count = len(images)
    kernels = images.new_zeros(len(graphs), count, count, dtype=torch.float64)
    if isinstance(executor, GroupedExecutor):

        def observe(step: Step, value: Tensor) -> None:
            if isinstance(step.spec.op, Activation):
                codes = value.unflatten(1, (len(step.members), -1)).transpose(0, 1).flatten(2)
                places = torch.tensor([g for g, _ in step.members], device=images.device)
                readers = [len(graphs[g].consumers[n]) for g, n in step.members]
                kernels.index_add_(0, places, _agreement(codes, readers))

        executor.observed(graphs, weights, images, 1, observe)
    else:
        for kernel, graph, own in zip(kernels, graphs, weights, strict=True):
            values = node_outputs(graph, own, images)
            for index, node in enumerate(graph.nodes):
                if isinstance(node.op, Activation):
                    codes = values[index].flatten(1)[None]
                    kernel += _agreement(codes, [len(graph.consumers[index])])[0]
    signs, logarithms = torch.linalg.slogdet(kernels.cpu())
    return torch.where(signs > 0, logarithms, float("-inf")).tolist()


def _agreement(values: Tensor, readers: Sequence[int]) -> Tensor:
    """(networks, B, units) -> (networks, B, B): units in which images agree, times readers.

    With signs for codes, agreement is (product + units) / 2: whole numbers, so that their sums do
    not depend on the order.
    """
    signs = torch.where(values > 0, 1.0, -1.0)
    agreeing = (signs @ signs.transpose(1, 2) + signs.shape[2]).double() / 2
    return agreeing * torch.tensor(readers, device=values.device)[:, None, None]


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
