"""Which operations of a population run together: in lockstep by cell, level and operation.

Nodes of different networks that apply the same operation to inputs of the same shape can run as
one operation on a stacked tensor. The fewer steps there are, the fewer kernels a GPU has to launch.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from ghnas.architectures.graph import Graph, Specification

Member = tuple[int, int]
"""(index of the network, index of the node in its graph)."""
Run = tuple[int, int, int]
"""(step, start, length): neighbours among the members of an earlier step."""


@dataclass(frozen=True)
class Step:
    """One operation for several members at once.

    Args:
        spec: The operation and its shapes.
        members: The nodes, in the order of the stacked tensor.
        inputs: For each input of the operation the runs of members of earlier steps to join.
        releases: Steps whose result is not needed after this one.
    """

    spec: Specification
    members: tuple[Member, ...]
    inputs: tuple[tuple[Run, ...], ...]
    releases: tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """The steps of a population; depends on the graphs alone.

    Args:
        steps: In order; the first is the images.
        outputs: For each network the (step, position) of its logits.
        largest: Most values that are kept at a time, for one image.
    """

    steps: tuple[Step, ...]
    outputs: tuple[tuple[int, int], ...]
    largest: int


def schedule(graphs: Sequence[Graph]) -> Schedule:
    """Schedule a population, cell after cell.

    In a cell that operation goes first of which the largest share is ready: the others wait for
    those of their kind that come later in the cell (an agenda as in Neubig, Goldberg and Dyer,
    "On-the-fly Operation Batching in Dynamic Computation Graphs", NeurIPS 2017, section 3, with
    shares in place of average depths).

    Args:
        graphs: Architectures for images of one shape.
    """
    kinds = [[(node.cell, id(node.spec)) for node in graph.nodes] for graph in graphs]
    left = Counter(chain.from_iterable(kinds))
    missing = [[len(node.inputs) for node in graph.nodes] for graph in graphs]
    ready: dict[tuple[int, int], list[Member]] = defaultdict(list)
    for index, own in enumerate(kinds):
        ready[own[0]].append((index, 0))
    order: list[list[Member]] = []
    while ready:
        cell = min(ready)[0]
        _, _, kind = max(
            (len(members) / left[key], len(members), key)
            for key, members in ready.items()
            if key[0] == cell
        )
        members = ready.pop(kind)
        left[kind] -= len(members)
        for g, n in members:
            waiting, own = missing[g], kinds[g]
            for reader in graphs[g].consumers[n]:
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    ready[own[reader]].append((g, reader))
        order.append(members)
    return _linked(graphs, order)


def _linked(graphs: Sequence[Graph], order: Sequence[Sequence[Member]]) -> Schedule:
    """Find what each step reads, and when what it leaves is not needed any more."""
    where = [[(0, 0)] * len(graph.nodes) for graph in graphs]
    last_use = list(range(len(order)))
    inputs = []
    for number, members in enumerate(order):
        sources = []
        for position, (g, n) in enumerate(members):
            places = where[g]
            places[n] = number, position
            sources.append([places[i] for i in graphs[g].nodes[n].inputs])
        slots = tuple(tuple(_runs(slot)) for slot in zip(*sources, strict=True))
        inputs.append(slots)
        for step, _, _ in chain.from_iterable(slots):
            last_use[step] = number
    outputs = tuple(places[-1] for places in where)
    for step, _ in outputs:
        last_use[step] = len(order)
    releases: list[list[int]] = [[] for _ in range(len(order) + 1)]
    for step, user in enumerate(last_use):
        releases[user].append(step)
    steps = tuple(
        Step(graphs[members[0][0]].nodes[members[0][1]].spec, tuple(members), slots, tuple(freed))
        for members, slots, freed in zip(order, inputs, releases, strict=False)
    )
    return Schedule(steps, outputs, _largest(steps))


def _runs(places: Sequence[tuple[int, int]]) -> list[Run]:
    """Join neighbours."""
    runs: list[Run] = []
    last, start, end = -1, 0, 0
    for step, position in places:
        if step == last and position == end:
            end += 1
            continue
        if last >= 0:
            runs.append((last, start, end - start))
        last, start, end = step, position, position + 1
    runs.append((last, start, end - start))
    return runs


def _largest(steps: Sequence[Step]) -> int:
    """Most values at a time: results that are still needed, and the inputs that a step joins."""
    sizes = [len(step.members) * math.prod(step.spec.output_shape) for step in steps]
    kept = most = 0
    for size, step in zip(sizes, steps, strict=True):
        joined = sum(
            len(step.members) * math.prod(shape)
            for shape, runs in zip(step.spec.input_shapes, step.inputs, strict=True)
            if len(runs) > 1
        )
        kept += size
        most = max(most, kept + joined)
        kept -= sum(sizes[freed] for freed in step.releases)
    return most
