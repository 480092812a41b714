"""Runs programs: one compiled loop over the steps of a network, in memory that is kept."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ghnas.executors.fused.kernels import Floats
from ghnas.executors.fused.program import STEP, Program
from ghnas.executors.fused.steps import execute


class Machine:
    """Runs networks on batches of images.

    Args:
        batches: Images (B, C, H, W), float32 on the CPU.
    """

    def __init__(self, batches: list[Tensor]) -> None:
        self.images = [batch.permute(1, 2, 3, 0).contiguous().numpy().ravel() for batch in batches]
        self.counts = [len(batch) for batch in batches]
        self._arena = np.empty(0, np.float32)
        self._scratch = np.empty(0, np.float32)

    def run(self, program: Program, parameters: Mapping[str, Tensor], batch: int) -> Tensor:
        """Logits of a network on a batch, batch-norm with the statistics of the batch.

        Args:
            program: From `ghnas.executors.fused.lower`.
            parameters: The network's parameters by name.
            batch: Which of the batches.

        Returns:
            (B, classes).
        """
        count = self.counts[batch]
        tensors = [parameters[name].reshape(-1) for name in program.parameters]
        weights = torch.cat(tensors) if tensors else torch.zeros(1)
        self._arena = _at_least(self._arena, program.arena * count)
        self._scratch = _at_least(self._scratch, program.scratch * count + program.extra)
        execute(
            program.steps,
            weights.numpy(),
            self.images[batch],
            count,
            self._arena,
            self._scratch,
            np.empty((2, program.channels), np.float32),
            np.zeros((2, program.channels), np.float64),
        )
        start, classes = program.output * count, program.classes
        logits = self._arena[start : start + classes * count].reshape(classes, count)
        return torch.from_numpy(logits.T.copy())


def compile_kernels() -> None:
    """Compile, or read from disk what was compiled before; processes forked later have it too."""
    none = np.zeros(0, STEP)
    room, doubles = np.zeros(0, np.float32), np.zeros((2, 1), np.float64)
    execute(none, room, room, 1, room, room, np.zeros((2, 1), np.float32), doubles)


def _at_least(room: Floats, size: int) -> Floats:
    return room if len(room) >= size else np.empty(size, np.float32)
