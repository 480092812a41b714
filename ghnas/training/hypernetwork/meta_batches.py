"""The architectures of every training step, with what the hypernetwork reads of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph
from ghnas.executors.base import losses_of
from ghnas.executors.grouped import Plan, plan
from ghnas.executors.trainable import executor_for
from ghnas.ghn.config import GHNConfig
from ghnas.ghn.features import FeatureBatch
from ghnas.ghn.model import read_graphs


class Source(Protocol):
    """Where architectures are drawn from: a search space, or a mixture of spaces."""

    @property
    def name(self) -> str:
        """What the hypernetwork remembers as its space."""

    @property
    def skeleton(self) -> Mapping[str, Any]:
        """The macro architecture as plain data."""

    def sample(self, seed: int | random.Random | None = None) -> Architecture:
        """A random architecture."""


@dataclass(frozen=True)
class MetaBatch:
    """Architectures of one step.

    Args:
        graphs: The architectures.
        features: What the hypernetwork reads of them.
        plan: How to run them as one population; None: they run one by one.
    """

    graphs: tuple[Graph, ...]
    features: FeatureBatch
    plan: Plan | None

    def losses(
        self, stacks: Sequence[Tensor], images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of each network in nats, with gradients, and logits.

        Args:
            stacks: What the hypernetwork predicts of `features`.
            images: (B, C, H, W), the same for all.
            labels: (B,).

        Returns:
            (networks,) and (networks, B, classes).
        """
        if self.plan is None:
            weights = self.features.by_graph(stacks, len(self.graphs))
            return executor_for("cpu").losses(self.graphs, weights, images, labels)
        return losses_of(self.plan.run(stacks, images), labels)

    def clipped(self, gradients: Sequence[Tensor], largest: float) -> list[Tensor]:
        """Gradients with respect to predicted weights, those of each network made shorter.

        Args:
            gradients: For each of the stacks that the hypernetwork predicts of `features`.
            largest: The norm that the gradient of one network, over all its weights, may have;
                one that is not finite becomes zero.
        """
        groups = [[index for index, _ in group.members] for group in self.features.groups]
        owners = [torch.tensor(group, device=gradients[0].device) for group in groups]
        squares = gradients[0].new_zeros(len(self.graphs))
        for owner, gradient in zip(owners, gradients, strict=True):
            squares.index_add_(0, owner, gradient.flatten(1).square().sum(1))
        finite, factors = squares.isfinite(), largest / squares.sqrt().clamp(min=largest)
        result = []
        for owner, gradient in zip(owners, gradients, strict=True):
            shape = (-1, *[1] * (gradient.dim() - 1))
            scaled = gradient * factors[owner].view(shape)
            result.append(scaled.where(finite[owner].view(shape), 0.0))
        return result


@dataclass
class MetaBatches(Dataset[MetaBatch]):
    """The architectures of every step; each is a function of seed, step and index alone.

    Args:
        image_shape: (C, H, W).
        config: Of the hypernetwork; its classes are the networks'.
        seed: Of the training.
        members: Indices of the meta-batch to prepare.
        together: Whether they run as one population (GPU) or one by one (CPU).
        draw: Draws an architecture of the space.
    """

    image_shape: tuple[int, ...]
    config: GHNConfig
    seed: int
    members: Sequence[int]
    together: bool
    draw: Callable[[random.Random], Architecture]

    def __getitem__(self, step: int) -> MetaBatch:
        graphs = []
        for index in self.members:
            rng = random.Random(f"{self.seed}:{step}:{index}")
            candidate = self.draw(rng)
            graphs.append(candidate.for_images(self.image_shape, self.config.num_classes).graph)
        features = read_graphs(graphs, self.config)
        made = plan(graphs, features.rows, range(len(graphs))) if self.together else None
        return MetaBatch(tuple(graphs), features, made)


def sample_graphs(
    space: Source, image_shape: tuple[int, ...], classes: int, count: int, rng: random.Random
) -> list[Graph]:
    """Random architectures of a space."""
    return [space.sample(rng).for_images(image_shape, classes).graph for _ in range(count)]
