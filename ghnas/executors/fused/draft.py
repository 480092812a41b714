"""The steps of a network before its tensors have places, and how they get them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ghnas.executors.fused.program import STEP, Program, Step


@dataclass(frozen=True)
class Draft:
    """The steps of a network, before its tensors have a place.

    Args:
        steps: With numbers of tensors for places.
        shifts: For each step how far behind its target's beginning it writes, for one image.
        sizes: Of each tensor, for one image.
        channels, scratch, extra: As in `Program`.
        offsets: Where each parameter begins.
        logits: The tensor of the output.
        classes: Number of logits.
    """

    steps: list[Step]
    shifts: list[int]
    sizes: list[int]
    channels: int
    scratch: int
    extra: int
    offsets: dict[str, int]
    logits: int
    classes: int

    def lifetimes(self) -> list[tuple[int, int]]:
        """The first and the last step of each tensor; the images are there from the beginning."""
        first, last = [len(self.steps)] * len(self.sizes), [-1] * len(self.sizes)
        used = [(step.source, step.second, step.target) for step in self.steps]
        for number, tensors in enumerate(used):
            for tensor in tensors:
                last[tensor] = number
        for number, tensors in zip(range(len(used) - 1, -1, -1), reversed(used), strict=True):
            for tensor in tensors:
                first[tensor] = number
        first[0], last[self.logits] = 0, len(self.steps)
        return list(zip(first, last, strict=True))

    def program(self, places: Sequence[int], arena: int) -> Program:
        """The program with a place for each tensor in an arena."""
        steps = np.array(self.steps, np.int64)
        table = steps.view(STEP).ravel()
        addresses = np.array(places, np.int64)
        for name in ("source", "second", "target"):
            table[name] = addresses[table[name]]
        table["target"] += self.shifts
        return Program(
            steps=table,
            parameters=tuple(self.offsets),
            arena=arena,
            scratch=self.scratch,
            extra=self.extra,
            channels=max(self.channels, 1),
            output=places[self.logits],
            classes=self.classes,
        )


def place(
    sizes: Sequence[int], lifetimes: Sequence[tuple[int, int]], steps: int
) -> tuple[list[int], int]:
    """An address for each tensor, and the end of all; those that are done make room for others.

    Args:
        sizes: Of the tensors.
        lifetimes: The first and the last step of each.
        steps: How many there are.
    """
    born, dead = defaultdict(list), defaultdict(list)
    for tensor, (first, last) in enumerate(lifetimes):
        born[first].append(tensor)
        dead[last].append(tensor)
    places, end = [0] * len(sizes), 0
    free: defaultdict[int, list[int]] = defaultdict(list)
    for number in range(steps):
        for tensor in born[number]:
            size = sizes[tensor]
            if free[size]:
                places[tensor] = free[size].pop()
            else:
                places[tensor] = end
                end += size
        for tensor in dead[number]:
            free[sizes[tensor]].append(places[tensor])
    return places, end
