"""Limits on parameters and FLOPs, and finding architectures that meet them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from ghnas.architectures.graph import Graph
from ghnas.spaces.base import Candidate, Space
from ghnas.utils.errors import UserError

STARTS = 4
"""Descents from different candidates before a limit counts as out of reach."""

Build = Callable[[Candidate], Graph]


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

    def excess(self, graph: Graph) -> float:
        """The largest ratio of a quantity to its limit: at most 1 if all limits are met."""
        ratios = [0.0]
        if self.params is not None:
            ratios.append(graph.parameter_count / self.params)
        if self.flops is not None:
            ratios.append(graph.flops / self.flops)
        return max(ratios)

    def met(self, graph: Graph) -> bool:
        """Whether the architecture keeps within the limits."""
        return self.excess(graph) <= 1.0


def descend(
    space: Space, build: Build, limits: Limits, candidate: Candidate, rng: random.Random
) -> tuple[Candidate, Graph]:
    """Change one choice at a time for the better until the limits are met or no change helps.

    Args:
        candidate: Where to start.
        rng: Decides in which order choices and options are tried, and so where the way ends.
    """
    graph = build(candidate)
    excess = limits.excess(graph)
    improved = True
    while improved and excess > 1.0:
        improved = False
        for choice in rng.sample(space.choices, len(space.choices)):
            for option in rng.sample(choice.options, len(choice.options)):
                other = candidate | {choice.name: option}
                if option == candidate[choice.name] or not space.is_connected(other):
                    continue
                other_graph = build(other)
                if limits.excess(other_graph) < excess:
                    candidate, graph, excess = other, other_graph, limits.excess(other_graph)
                    improved = True
                    if excess <= 1.0:
                        return candidate, graph
    return candidate, graph


def require_feasible(space: Space, build: Build, limits: Limits, rng: random.Random) -> Candidate:
    """An architecture within the limits.

    Raises:
        UserError: If none is found, with the smallest that was.
    """
    for each in (Limits(params=limits.params), Limits(flops=limits.flops), limits):
        ends = []
        for _ in range(STARTS):
            candidate, graph = descend(space, build, each, space.sample(rng), rng)
            if each.met(graph):
                break
            ends.append(graph)
        else:
            raise UserError(_unmeetable(space, each, min(ends, key=each.excess)))
    return candidate


def _unmeetable(space: Space, limits: Limits, smallest: Graph) -> str:
    params, flops = f"{smallest.parameter_count:,} parameters", f"{smallest.flops:,} FLOPs"
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
