"""The training of one network: stochastic gradient descent, a step at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LinearLR

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import initialised
from ghnas.data import ImageData, LabelledImages, each_once, random_batches
from ghnas.data.batches import Batch
from ghnas.executors.trainable import TrainableNetwork, trainable

EVALUATION_BATCH = 100
"""Images that are evaluated together; with running statistics nothing depends on it."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Images (B, C, H, W) and labels (B,) -> a mean loss in nats, with gradients."""


@dataclass(frozen=True)
class SGDSettings:
    """SGD with momentum, clipped gradients, and a learning rate that warms up and falls to zero.

    Args:
        learning_rate: The highest: at the first step, or after the warm-up.
        weight_decay: On all parameters.
        momentum: Nesterov's.
        warm_up: Steps over which the rate rises linearly.
        gradient_clip: Largest norm of the gradient.
    """

    learning_rate: float = 0.1
    weight_decay: float = 3e-4
    momentum: float = 0.9
    warm_up: int = 0
    gradient_clip: float = 5.0


class SGDTraining:
    """The state of a training: parameters, momentum and learning rate.

    The rate is a half cosine over all steps (Loshchilov and Hutter, "SGDR", ICLR 2017, without
    restarts), times a linear warm-up.

    Args:
        parameters: What to train.
        steps: Updates in all.
        settings: How.
    """

    def __init__(self, parameters: Iterable[Tensor], steps: int, settings: SGDSettings) -> None:
        self.parameters = list(parameters)
        self.gradient_clip = settings.gradient_clip
        self.optimizer = torch.optim.SGD(
            self.parameters,
            settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
            weight_decay=settings.weight_decay,
        )
        warm_up = max(settings.warm_up, 1)
        self.schedule = ChainedScheduler(
            [
                LinearLR(self.optimizer, 1 / warm_up, total_iters=warm_up - 1),
                CosineAnnealingLR(self.optimizer, steps),
            ],
            optimizer=self.optimizer,
        )

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, loss: Loss, images: Tensor, labels: Tensor, parts: int = 1) -> float:
        """One update; a loss that is not finite changes nothing.

        Args:
            loss: Of the parameters that are trained, on images and labels, in nats.
            images: (B, C, H, W), normalised.
            labels: (B,).
            parts: In which the images are run one after the other, for less memory.

        Returns:
            The loss before the update.
        """
        self.optimizer.zero_grad()
        value = 0.0
        for part, own in zip(images.chunk(parts), labels.chunk(parts), strict=True):
            found = loss(part, own) * (len(own) / len(labels))
            value += float(found.detach())
            if not math.isfinite(value):
                return value
            found.backward()
        self.follow()
        return value

    def follow(self) -> None:
        """One update along the gradients that the parameters have, clipped."""
        nn.utils.clip_grad_norm_(self.parameters, self.gradient_clip)
        self.update()

    def update(self) -> None:
        """One update along the gradients as they are."""
        self.optimizer.step()
        self.schedule.step()

    def steps(self, loss: Loss, batches: Iterable[Batch]) -> Iterator[float]:
        """A step for each batch; yields the losses."""
        for images, labels in batches:
            yield self.step(loss, images, labels)

    def state_dict(self) -> dict[str, Any]:
        """What a training needs to go on, beside the parameters.

        The momentum is one vector, so that a network goes on with other kernels or elsewhere.
        """
        kept = [self.optimizer.state[item].get("momentum_buffer") for item in self.parameters]
        known = [item.reshape(-1) for item in kept if item is not None]
        return {
            "momentum": torch.cat(known) if known else None,
            "learning_rate": self.learning_rate,
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called."""
        self.schedule.load_state_dict(state["schedule"])
        self.optimizer.param_groups[0]["lr"] = state["learning_rate"]
        if state["momentum"] is None:
            return
        parts = state["momentum"].split([item.numel() for item in self.parameters])
        for item, part in zip(self.parameters, parts, strict=True):
            self.optimizer.state[item]["momentum_buffer"] = part.reshape(item.shape).to(
                item.device, copy=True
            )


def train_from_scratch(
    graph: Graph,
    data: ImageData,
    steps: int,
    seed: int,
    batch_size: int = 64,
    shift: int = 1,
    settings: SGDSettings = SGDSettings(),
) -> TrainableNetwork:
    """A network trained on a CPU from Kaiming initialisation.

    Args:
        graph: The architecture.
        data: Its training images are read.
        steps: Updates in all.
        seed: Of initialisation, of the images' order and of their shifts.
        batch_size: Images in a step.
        shift: Most pixels by which an image is moved each way.
        settings: How to train.

    Returns:
        The network.
    """
    network = trainable(initialised(graph, seed))
    batches = random_batches(
        data.train, batch_size, seed=seed, device="cpu", mean=data.mean, std=data.std,
        mirror=data.mirror, shift=shift,
    )  # fmt: skip
    training = SGDTraining(network.parameters, steps, settings)
    for _, (images, labels) in zip(range(steps), batches, strict=False):
        training.step(network.loss, images, labels)
    return network


def measure_accuracy(
    network: TrainableNetwork,
    split: LabelledImages,
    data: ImageData,
    device: torch.device | str = "cpu",
) -> float:
    """Accuracy with running statistics: how the network will be used.

    Args:
        network: On the device.
        split: The images.
        data: Its mean and std normalise them.
        device: Where to compute.

    Returns:
        In [0, 1].
    """
    return measure_accuracies(lambda images: network.logits(images)[None], split, data, device)[0]


def measure_accuracies(
    logits: Callable[[Tensor], Tensor],
    split: LabelledImages,
    data: ImageData,
    device: torch.device | str = "cpu",
) -> list[float]:
    """Accuracy of several networks, each in [0, 1].

    Args:
        logits: Images (B, C, H, W) -> logits (networks, B, classes).
        split: The images.
        data: Its mean and std normalise them.
        device: Where to compute.
    """
    batches = each_once(split, EVALUATION_BATCH, device=device, mean=data.mean, std=data.std)
    right = [(logits(images).argmax(2) == labels).sum(1) for images, labels in batches]
    found: list[float] = (torch.stack(right).sum(0).double() / len(split)).tolist()
    return found


def measure_top5(
    network: TrainableNetwork,
    split: LabelledImages,
    data: ImageData,
    device: torch.device | str = "cpu",
) -> tuple[float, float]:
    """As `measure_accuracy`, and the share of images whose class is among the five likeliest."""
    right = torch.zeros(2, dtype=torch.int64, device=device)
    for images, labels in each_once(
        split, EVALUATION_BATCH, device=device, mean=data.mean, std=data.std
    ):
        logits = network.logits(images)
        five = logits.topk(5).indices == labels[:, None]
        right += torch.stack([(logits.argmax(1) == labels).sum(), five.sum()])
    first, fifth = (right.double() / len(split)).tolist()
    return first, fifth
