"""The table of proxies, and what holds for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import Network, initialised
from ghnas.scoring.proxies.gradients import fisher, grad_norm, grasp, snip, synflow
from ghnas.scoring.proxies.separation import jacov, naswot
from ghnas.scoring.proxies.zen import zen

LOWEST = float("-inf")
"""The score of a network whose output does not depend on the image, or that is not finite."""


@dataclass(frozen=True)
class Proxy:
    """A training-free score.

    Args:
        name: As the command line has it.
        function: (network, images (B, C, H, W), labels (B,)) -> score; higher is better.
    """

    name: str
    function: Callable[[Network, Tensor, Tensor], float]


def parameters(network: Network, images: Tensor, labels: Tensor) -> float:
    """Number of trainable parameters."""
    return float(network.graph.parameter_count)


def flops(network: Network, images: Tensor, labels: Tensor) -> float:
    """Floating-point operations for one image: multiply-adds x 2."""
    return float(network.graph.flops)


PROXIES = {
    proxy.name: proxy
    for proxy in (
        Proxy("params", parameters),
        Proxy("flops", flops),
        Proxy("synflow", synflow),
        Proxy("naswot", naswot),
        Proxy("jacov", jacov),
        Proxy("snip", snip),
        Proxy("grasp", grasp),
        Proxy("grad-norm", grad_norm),
        Proxy("fisher", fisher),
        Proxy("zen", zen),
    )
}
"""Every proxy by its name."""

VOTERS = ("synflow", "jacov", "snip")
"""Who votes in `rank_vote`: the three of Abdelfattah et al. (2021), section 4.2."""


def score_graph(proxy: Proxy, graph: Graph, images: Tensor, labels: Tensor, seed: int) -> float:
    """A proxy's score of an architecture.

    Args:
        proxy: Which score.
        graph: The architecture.
        images: Normalised training images (B, C, H, W).
        labels: Their labels (B,).
        seed: Of the initialisation.

    Returns:
        The score; `LOWEST` if the image does not reach the output or the score is not finite.
    """
    if not reaches_output(graph):
        return LOWEST
    value = proxy.function(initialised(graph, seed), images, labels)
    return value if math.isfinite(value) else LOWEST


def reaches_output(graph: Graph) -> bool:
    """Whether the output depends on the image."""
    reached = [True]
    for node in graph.nodes[1:]:
        reached.append(not node.op.sizes_only and any(reached[i] for i in node.inputs))
    return reached[-1]


def rank_vote(scores: Mapping[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """The mean rank of every architecture under several scores, from 1 for the lowest.

    Args:
        scores: Of each voter, (N,); equal scores share the mean of their ranks.
    """
    ranks: npt.NDArray[np.float64] = np.mean([rankdata(v) for v in scores.values()], axis=0)
    return ranks
