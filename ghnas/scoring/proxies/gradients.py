"""Proxies that add up what the gradient says of every weight.

All follow the definitions of Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-Cost Proxies for
Lightweight NAS" (ICLR 2021, arXiv 2101.08134, section 3.2), which took them from pruning: a
saliency for each weight of the convolutions and linear layers, summed over the network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures.network import Network
from ghnas.scoring.proxies.running import (
    linear_part,
    node_outputs,
    parameters_of,
    weight_names,
    weighted_nodes,
)


def grad_norm(network: Network, images: Tensor, labels: Tensor) -> float:
    """Sum over layers of the Euclidean norm of the loss's gradient (Abdelfattah et al., 2021)."""
    return sum(float(g.norm()) for _, g in _weights_and_gradients(network, images, labels))


def snip(network: Network, images: Tensor, labels: Tensor) -> float:
    """Sum of |weight x gradient| (Lee, Ajanthan and Torr, ICLR 2019, arXiv 1810.02340, eq. 6)."""
    pairs = _weights_and_gradients(network, images, labels)
    return sum(float((w * g).abs().sum()) for w, g in pairs)


def grasp(network: Network, images: Tensor, labels: Tensor) -> float:
    """Sum of -(Hessian x gradient) x weight (Wang, Zhang and Grosse, ICLR 2020, arXiv 2002.07376,
    eq. 8, temperature 1)."""
    weights, loss = _loss(network, images, labels)
    gradients = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    product = sum((g.detach() * g).sum() for g in gradients if g is not None)
    assert isinstance(product, Tensor)
    curved = torch.autograd.grad(product, weights, allow_unused=True)
    return -sum(float((w * h).sum()) for w, h in zip(weights, curved, strict=True) if h is not None)


def fisher(network: Network, images: Tensor, labels: Tensor) -> float:
    """Sum over channels of the mean of (sum over positions of activation x gradient)^2 / 2.

    Activations are the outputs of convolutions and linear layers (Turner et al., "BlockSwap",
    ICLR 2020, arXiv 1906.04113, section 3.2, after Theis et al., 2018).
    """
    values = node_outputs(network.graph, parameters_of(network), images)
    activations = [values[index] for index in weighted_nodes(network.graph)]
    loss = F.cross_entropy(values[-1], labels)
    total = 0.0
    gradients = torch.autograd.grad(loss, activations, allow_unused=True)
    for a, g in zip(activations, gradients, strict=True):
        if g is None:  # read for its size alone
            continue
        by_channel = (a * g).flatten(2).sum(2) if a.dim() > 2 else a * g
        total += float(by_channel.square().mean(0).sum() / 2)
    return total


def synflow(network: Network, images: Tensor, labels: Tensor) -> float:
    """Sum of weight x gradient of the summed output, for one image of ones and absolute weights
    (Tanaka, Kunin, Yamins and Ganguli, NeurIPS 2020, arXiv 2006.05467, eq. 2).

    As in Abdelfattah et al. (2021) batch normalisation is left out, and numbers are of double
    precision, for they grow with every layer. Images and labels are read for their shape alone.
    """
    absolute = {
        name: value.detach().double().abs().requires_grad_()
        for name, value in network.named_parameters()
    }
    ones = torch.ones(1, *images.shape[1:], dtype=torch.float64, device=images.device)
    output = node_outputs(network.graph, absolute, ones, linear_part)[-1].sum()
    weights = [absolute[name] for name in weight_names(network.graph)]
    gradients = torch.autograd.grad(output, weights, allow_unused=True)
    return sum(
        float((w * g).sum()) for w, g in zip(weights, gradients, strict=True) if g is not None
    )


def _loss(network: Network, images: Tensor, labels: Tensor) -> tuple[list[Tensor], Tensor]:
    """The weights, and the mean cross-entropy on the batch."""
    parameters = parameters_of(network)
    logits = node_outputs(network.graph, parameters, images)[-1]
    weights = [parameters[name] for name in weight_names(network.graph)]
    return weights, F.cross_entropy(logits, labels)


def _weights_and_gradients(
    network: Network, images: Tensor, labels: Tensor
) -> list[tuple[Tensor, Tensor]]:
    weights, loss = _loss(network, images, labels)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    pairs = zip(weights, gradients, strict=True)
    return [(weight.detach(), gradient) for weight, gradient in pairs if gradient is not None]
