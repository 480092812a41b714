"""Limits on parameters, FLOPs and latency, and finding architectures that meet them."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from ghnas.architectures.architecture import Architecture
from ghnas.engine.manifest import Manifest
from ghnas.scoring.latency import LatencyTable
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
        latency: Seconds for a batch, as predicted.
        table: What predicts them.
    """

    params: int | None = None
    flops: int | None = None
    latency: float | None = None
    table: LatencyTable | None = None

    def __bool__(self) -> bool:
        return any(item is not None for item in (self.params, self.flops, self.latency))

    def excess(self, architecture: Architecture) -> float:
        """The largest ratio of a quantity to its limit: at most 1 if all limits are met."""
        ratios = [0.0]
        if self.params is not None:
            ratios.append(architecture.parameters / self.params)
        if self.flops is not None:
            ratios.append(architecture.flops / self.flops)
        if self.latency is not None and self.table is not None:
            ratios.append(self.table.predict(architecture.graph) / self.latency)
        return max(ratios)

    def met(self, architecture: Architecture) -> bool:
        """Whether the architecture keeps within the limits."""
        return self.excess(architecture) <= 1.0


def limits_of(manifest: Manifest) -> Limits:
    """The limits of a search."""
    return Limits(
        manifest.max_parameters, manifest.max_flops, manifest.max_latency, manifest.latency
    )


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
    none = replace(limits, params=None, flops=None, latency=None)
    alone = [
        replace(none, params=limits.params),
        replace(none, flops=limits.flops),
        replace(none, latency=limits.latency),
    ]
    for each in (*alone, limits):
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
    wanted, found, options = [], [], []
    if limits.params is not None:
        wanted.append(f"{limits.params:,} parameters")
        found.append(f"{smallest.parameters:,} parameters")
        options.append("--max-params")
    if limits.flops is not None:
        wanted.append(f"{limits.flops:,} FLOPs")
        found.append(f"{smallest.flops:,} FLOPs")
        options.append("--max-flops")
    if limits.latency is not None and limits.table is not None:
        wanted.append(f"{1000 * limits.latency:.4g} ms of latency")
        found.append(f"{1000 * limits.table.predict(smallest.graph):.4g} ms")
        options.append("--max-latency")
    return (
        f"no architecture of space {space.name!r} has at most {' and '.join(wanted)}: the "
        f"{'smallest' if len(wanted) == 1 else 'closest'} found has {' and '.join(found)}; raise "
        f"{' or '.join(options)}"
    )
