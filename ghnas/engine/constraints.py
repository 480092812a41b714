"""Limits on parameters and FLOPs, and finding architectures that meet them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ghnas.architectures.architecture import Architecture
from ghnas.spaces import Space
from ghnas.utils.errors import UserError

STARTS = 4
"""Descents from different candidates before a limit counts as out of reach."""


@dataclass(frozen=True)
class Limits:
    """What an architecture may have at most; None: no limit.

    Args:
        params: Number of parameters.
        flops: Multiply-adds x 2, for one image.
    """

    params: int | None = None
    flops: int | None = None

    def __bool__(self) -> bool:
        return self.params is not None or self.flops is not None

    def excess(self, architecture: Architecture) -> float:
        """The largest ratio of a quantity to its limit: at most 1 if all limits are met."""
        ratios = [0.0]
        if self.params is not None:
            ratios.append(architecture.parameters / self.params)
        if self.flops is not None:
            ratios.append(architecture.flops / self.flops)
        return max(ratios)

    def met(self, architecture: Architecture) -> bool:
        """Whether the architecture keeps within the limits."""
        return self.excess(architecture) <= 1.0


def descend(
    space: Space, limits: Limits, architecture: Architecture, rng: random.Random
) -> Architecture:
    """Change one choice at a time for the better until the limits are met or no change helps.

    Args:
        space: The search space.
        limits: To be met.
        architecture: Where to start.
        rng: The order in which choices and options are tried.
    """
    excess = limits.excess(architecture)
    improved = True
    while improved and excess > 1.0:
        improved = False
        for choice in rng.sample(space.choices, len(space.choices)):
            for option in rng.sample(choice.options, len(choice.options)):
                if option == architecture.choices[choice.name]:
                    continue
                changed = {**architecture.choices, choice.name: option}
                if not space.is_connected(changed):
                    continue
                other = space.architecture(changed)
                if limits.excess(other) < excess:
                    architecture, excess = other, limits.excess(other)
                    improved = True
                    if excess <= 1.0:
                        return architecture
    return architecture


def require_feasible(space: Space, limits: Limits, rng: random.Random) -> Architecture:
    """An architecture within the limits.

    Raises:
        UserError: If none is found, with the smallest that was.
    """
    for each in (Limits(params=limits.params), Limits(flops=limits.flops), limits):
        ends = []
        for _ in range(STARTS):
            architecture = descend(space, each, space.sample(rng), rng)
            if each.met(architecture):
                break
            ends.append(architecture)
        else:
            raise UserError(_unmeetable(space, each, min(ends, key=each.excess)))
    return architecture


def _unmeetable(space: Space, limits: Limits, smallest: Architecture) -> str:
    params, flops = f"{smallest.parameters:,} parameters", f"{smallest.flops:,} FLOPs"
    start = f"no architecture of space {space.name!r} has at most"
    if limits.flops is None:
        return (
            f"{start} {limits.params:,} parameters: the smallest found has {params}; raise "
            "--max-params"
        )
    if limits.params is None:
        return f"{start} {limits.flops:,} FLOPs: the smallest found has {flops}; raise --max-flops"
    return (
        f"{start} {limits.params:,} parameters and {limits.flops:,} FLOPs: the closest found has "
        f"{params} and {flops}; raise --max-params or --max-flops"
    )
