"""How far an architecture is from those that a hypernetwork was trained on.

Nothing is stored for it: training architectures are drawn again from the space that the
hypernetwork names, and embedded by it, which takes about a second.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph, Shape
from ghnas.ghn.checkpoint import trained_skeleton
from ghnas.ghn.config import GENERAL, GHNInfo
from ghnas.ghn.model import GHN, read_graphs
from ghnas.spaces import Space, list_spaces, load_space
from ghnas.training.hypernetwork.meta_batches import Source, sample_graphs
from ghnas.training.hypernetwork.mixture import Mixture
from ghnas.utils.errors import UserError

DRAWN = 256
"""Training architectures that are drawn."""
NEIGHBOURS = 5
FAR = 0.95
"""Architectures farther than this share of the training architectures count as far."""
_PUBLISHED = "deepnets1m", (3, 32, 32)
"""What the published checkpoints, which do not say so, were trained on."""


@dataclass(frozen=True)
class Distance:
    """Of an architecture to those that a hypernetwork was trained on.

    Args:
        value: Mean distance to the five nearest of them, of mean node states in units of their
            standard deviation.
        ratio: The same in units of the median such distance of training architectures.
        farther_than: The share of training architectures that are nearer to their own neighbours.
    """

    value: float
    ratio: float
    farther_than: float

    @property
    def far(self) -> bool:
        """Whether it is farther than 95 % of the training architectures."""
        return self.farther_than >= FAR


def training_distances(
    ghn: GHN, architectures: Sequence[Architecture | Graph], space: Space | None = None
) -> list[Distance]:
    """How far architectures are from those that a hypernetwork was trained on.

    Of each the mean of the encoder's node states is compared with those of 256 architectures drawn
    as in the training; how well that tells which ones lose accuracy is in
    `results/trust_of_candidates.md`.

    Args:
        ghn: The hypernetwork. One that does not say what it was trained for, such as a published
            checkpoint, is taken as one for DeepNets-1M.
        architectures: Of any space, or graphs.
        space: What the hypernetwork was trained for, where that space does not ship.

    Raises:
        UserError: If it was trained for a space that neither ships nor is given.

    Example:
        >>> import ghnas
        >>> ghn, darts = ghnas.load_ghn("darts-embedded"), ghnas.load_space("darts")
        >>> wide = darts.with_skeleton(channels=16)
        >>> architectures = [darts.sample(seed=0), wide.sample(seed=0)]
        >>> [distance.far for distance in ghnas.training_distances(ghn, architectures)]
        [False, True]
    """
    shape, classes = _images(ghn.info), ghn.config.num_classes
    graphs = [
        item if isinstance(item, Graph) else item.for_images(shape, classes).graph
        for item in architectures
    ]
    given = "" if space is None else space.text + json.dumps(dict(space.skeleton))
    return _neighbourhood(_Asked(ghn.info.sha256 or str(id(ghn)), given, ghn, space)).of(graphs)


@dataclass(frozen=True)
class _Asked:
    """A hypernetwork and a space, equal to others of the same content."""

    sha256: str
    text: str
    ghn: GHN = field(compare=False)
    space: Space | None = field(compare=False)


class _Neighbourhood:
    """Embeddings of training architectures."""

    def __init__(self, ghn: GHN, graphs: Sequence[Graph]) -> None:
        self.ghn, self.scaler = ghn, StandardScaler()
        known = self.scaler.fit_transform(embed(ghn, graphs))
        self.nearest = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(known)
        self.usual = np.sort(self.nearest.kneighbors()[0].mean(axis=1))  # each without itself

    def of(self, graphs: Sequence[Graph]) -> list[Distance]:
        points = self.scaler.transform(embed(self.ghn, graphs))
        values = self.nearest.kneighbors(points)[0].mean(axis=1)
        shares = np.searchsorted(self.usual, values) / len(self.usual)
        middle = float(np.median(self.usual)) or 1.0  # all alike
        return [
            Distance(float(value), float(value) / middle, float(share))
            for value, share in zip(values, shares, strict=True)
        ]


@lru_cache(maxsize=4)
def _neighbourhood(asked: _Asked) -> _Neighbourhood:
    info, classes = asked.ghn.info, asked.ghn.config.num_classes
    source, rng = _source(info, asked.space), random.Random("training architectures")
    return _Neighbourhood(
        asked.ghn, sample_graphs(source, tuple(_images(info)), classes, DRAWN, rng)
    )


def _images(info: GHNInfo) -> Shape:
    return tuple(info.image_shape) or _PUBLISHED[1]


def _source(info: GHNInfo, space: Space | None) -> Source:
    """What the training drew architectures from."""
    if info.space == GENERAL:
        return Mixture()
    name = info.space or _PUBLISHED[0]
    if space is None or space.name != name:
        if name not in list_spaces():
            raise UserError(
                f"the hypernetwork was trained for space {name!r}, which does not ship: give the "
                "space, or how far an architecture is from it cannot be told"
            )
        space = load_space(name)
    return trained_skeleton(info, space)


@torch.no_grad()
def embed(ghn: GHN, graphs: Sequence[Graph]) -> np.ndarray:
    """The mean of the node states of each graph, (graphs, hid)."""
    device, found = ghn.embed.weight.device, []
    for start in range(0, len(graphs), 16):
        part = graphs[start : start + 16]
        batch = read_graphs(part, ghn.config).to(device)
        found.append(_means(ghn.embeddings(batch), batch.graph, len(part)).cpu())
    return torch.cat(found).double().numpy()


def _means(states: torch.Tensor, graph: torch.Tensor, count: int) -> torch.Tensor:
    """Mean of each graph's nodes: (N, width) states and (N,) numbers of graphs -> (count, width).

    torch_geometric's `global_mean_pool` does it too, after a second of imports.
    """
    sums = states.new_zeros(count, states.shape[1]).index_add_(0, graph, states)
    return sums / graph.bincount(minlength=count)[:, None]
