"""Training-free proxies: scores of a network at initialisation, from one batch of images.

Each is a function (network, images, labels) -> score, higher is better, that changes nothing.
Images are normalised training images (B, C, H, W), labels (B,).
"""

from ghnas.scoring.proxies.table import (
    LOWEST,
    PROXIES,
    VOTERS,
    Proxy,
    rank_vote,
    reaches_output,
    score_graph,
)

__all__ = [
    "LOWEST",
    "PROXIES",
    "VOTERS",
    "Proxy",
    "rank_vote",
    "reaches_output",
    "score_graph",
]
