"""Trains many networks side by side with SGD, each as if it were alone.

Parameters of one shape are stacked over all networks; the loss is a sum over networks, so that
no gradient crosses from one to another. For ground truth over many architectures on a GPU.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.graph import Graph, Shape
from ghnas.population import Parameters, plan, plan_one, run_stacked, stacked_plan


@dataclass(frozen=True)
class SGDSettings:
    """SGD with momentum and a cosine rate (Loshchilov and Hutter, 2017).

    Args:
        steps: Updates.
        learning_rates: A rate for each network at the first step.
        momentum: Nesterov momentum.
        weight_decay: On weights of two dimensions and more.
        gradient_clip: Largest norm of each network's gradient.
    """

    steps: int
    learning_rates: Sequence[float]
    momentum: float = 0.9
    weight_decay: float = 3e-4
    gradient_clip: float = 5.0


class PopulationSGD:
    """A population in training.

    Args:
        graphs: The architectures.
        parameters: Where each starts from.
        settings: How to train.
        device: Where.
    """

    def __init__(
        self,
        graphs: Sequence[Graph],
        parameters: Sequence[Parameters],
        settings: SGDSettings,
        device: torch.device,
    ) -> None:
        members: dict[Shape, list[tuple[int, str]]] = defaultdict(list)
        for index, graph in enumerate(graphs):
            for name, shape in graph.parameters.items():
                members[shape].append((index, name))
        self.settings = settings
        self.count = len(graphs)
        self.members = list(members.values())
        self.schedule = stacked_plan(
            plan(graphs) if len(graphs) > 1 else plan_one(graphs[0]), self.members
        )
        self.stacks = [
            torch.stack([parameters[i][name] for i, name in rows]).to(device).requires_grad_()
            for rows in self.members
        ]
        self.owners = [torch.tensor([i for i, _ in rows], device=device) for rows in self.members]
        self.rates = torch.tensor(list(settings.learning_rates), device=device)
        self.velocity = [torch.zeros_like(stack) for stack in self.stacks]
        self.step = 0

    def update(self, images: Tensor, labels: Tensor) -> None:
        """One step of every network on the same images."""
        logits = run_stacked(self.schedule, self.stacks, images)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat(self.count)) * self.count
        # a part that nothing reads has no gradient
        gradients = torch.autograd.grad(
            loss, self.stacks, allow_unused=True, materialize_grads=True
        )
        with torch.no_grad():
            self._apply(list(gradients))
        self.step += 1

    def _apply(self, gradients: list[Tensor]) -> None:
        settings = self.settings
        squares = self.rates.new_zeros(self.count)
        for gradient, owner in zip(gradients, self.owners, strict=True):
            squares = squares.index_add(0, owner, gradient.square().flatten(1).sum(1))
        scale = (settings.gradient_clip / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / settings.steps))
        for stack, gradient, velocity, owner in zip(
            self.stacks, gradients, self.velocity, self.owners, strict=True
        ):
            wide = (-1, *[1] * (stack.dim() - 1))
            gradient = gradient * scale[owner].view(wide)
            if stack.dim() > 2:  # stacked: a vector has two dimensions
                gradient = gradient + settings.weight_decay * stack
            velocity.mul_(settings.momentum).add_(gradient)
            rate = cosine * self.rates[owner].view(wide)
            stack.sub_(rate * (gradient + settings.momentum * velocity))

    @torch.no_grad()
    def accuracy(self, batches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Accuracy of each network (networks,), batch-norm with each batch's statistics."""
        correct = self.rates.new_zeros(self.count)
        for images, labels in batches:
            logits = run_stacked(self.schedule, self.stacks, images)
            correct += (logits.argmax(dim=2) == labels).sum(dim=1)
        return correct / sum(len(labels) for _, labels in batches)


def train_population(
    population: PopulationSGD,
    images: Iterator[tuple[Tensor, Tensor]],
    report: Callable[[int], None] = lambda step: None,
) -> None:
    """Train to the last step; `report` is called with the number of steps done."""
    while population.step < population.settings.steps:
        population.update(*next(images))
        report(population.step)
