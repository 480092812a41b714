"""One network that trains and is evaluated with fused kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ghnas.architectures.network import Network
from ghnas.executors.fused.differentiation import lower_training
from ghnas.executors.fused.kernels import Integers
from ghnas.executors.fused.lowering import lower
from ghnas.executors.fused.machine import Memory, compile_kernels, loss_and_logits, pixels_of
from ghnas.executors.fused.program import DENSE, MOMENTS, NORMALISE, Program
from ghnas.executors.fused.steps import EPSILON

MOMENTUM = 0.1
"""Weight of a batch in the running statistics, as in PyTorch's batch normalisation."""


class FusedNetwork:
    """Trains and evaluates a network in place: its tensors become views of a few long ones.

    Args:
        network: On the CPU, in float32.

    Raises:
        Unsupported: If it has an operation without a kernel.
    """

    def __init__(self, network: Network) -> None:
        self._training = lower_training(network.graph)
        self._evaluation = _with_running_statistics(lower(network.graph))
        compile_kernels()
        self._memory = Memory()
        named = dict(network.named_parameters())
        owned = [named[name] for name in self._training.forward.parameters]
        self._flat = _joined(owned).requires_grad_()
        norms, buffers = self._training.norms, dict(network.named_buffers())
        self._mean = _joined([buffers[f"{norm.name}.running_mean"] for norm in norms])
        self._variance = _joined([buffers[f"{norm.name}.running_var"] for norm in norms])
        channels = [np.arange(norm.channels) for norm in norms]
        self._statistics = _places([norm.statistics for norm in norms], channels)
        self._affine = _places([norm.affine for norm in norms], channels)
        self._scale = _places([norm.weight for norm in norms], channels)
        self._shift = _places([norm.weight + norm.channels for norm in norms], channels)
        self._positions = np.repeat(
            [norm.positions for norm in norms], [norm.channels for norm in norms]
        )

    @property
    def parameters(self) -> list[Tensor]:
        """What to train: one vector."""
        return [self._flat]

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy in nats, with batch statistics; running ones take their share.

        Args:
            images: (B, C, H, W), normalised.
            labels: (B,).
        """
        loss, _ = loss_and_logits(
            self._flat, self._memory, self._training, pixels_of(images), labels
        )
        number = self._positions * len(images)
        sums, squares = self._memory.statistics[:, self._statistics]
        mean = sums / number
        variance = (
            np.maximum(squares / number - mean * mean, 0) * number / np.maximum(number - 1, 1)
        )
        self._mean.lerp_(torch.from_numpy(mean).float(), MOMENTUM)
        self._variance.lerp_(torch.from_numpy(variance).float(), MOMENTUM)
        return loss

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, classes) with running statistics, without gradients."""
        weights = self._flat.detach().numpy()
        affine = np.zeros((2, self._evaluation.channels), np.float32)
        scale = weights[self._scale] / np.sqrt(self._variance.numpy() + EPSILON)
        affine[0, self._affine] = scale
        affine[1, self._affine] = weights[self._shift] - self._mean.numpy() * scale
        return self._memory.run(self._evaluation, weights, pixels_of(images), len(images), affine)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """One vector of all values, of which the tensors become views."""
    flat = torch.cat([item.detach().reshape(-1) for item in tensors] or [torch.zeros(0)])
    start = 0
    for item in tensors:
        end = start + math.prod(item.shape)
        item.data = flat[start:end].view(item.shape)
        start = end
    return flat


def _places(starts: Sequence[int], channels: Sequence[Integers]) -> Integers:
    """Indices of all channels that begin at the given places."""
    parts = [start + own for start, own in zip(starts, channels, strict=True)]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _with_running_statistics(program: Program) -> Program:
    """The program with scales and shifts of batch normalisations that are given."""
    codes = program.steps["code"]
    steps = program.steps[~np.isin(codes, (NORMALISE, MOMENTS))].copy()
    steps["statistics"][steps["code"] == DENSE] = -1
    return replace(program, steps=steps)
