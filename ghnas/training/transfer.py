"""Weights of a trained network in a larger one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor

_NUMBERED = re.compile(r"(\D*)(\d+)(.*)")
_Role = tuple[str, str, tuple[int, ...]]
"""What stands before and after the first number of a parameter's name, and its shape."""


def transferred(
    trained: Mapping[str, Tensor], fresh: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], float]:
    """The first weights of a network, from those of a trained one where they fit.

    A network with more cells, stages or layers repeats those of the smaller one: each parameter
    takes the trained one of the same name but for the number of its cell, of the same shape, and
    nearest in depth, that is in the share of the cells that lie before it. So each cell of a DARTS
    network comes from one of the same width.

    Args:
        trained: By name; what no parameter takes, such as running statistics, is left out.
        fresh: The network's parameters by name, for those that find none.

    Returns:
        The parameters, in the order of `fresh`, and the share of their values that was taken.

    Example:
        >>> import torch
        >>> small = {"cells.0.weight": torch.zeros(2), "cells.1.weight": torch.ones(3)}
        >>> large = {f"cells.{i}.weight": torch.full((2 + i // 2,), 7.0) for i in range(4)}
        >>> weights, share = transferred(small, large)
        >>> [weights[name].tolist() for name in large], share
        ([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], 1.0)
    """
    depths, new_depths = _depths(trained), _depths(fresh)
    known: dict[_Role, list[str]] = defaultdict(list)
    for name, value in trained.items():
        known[_role(name, value)].append(name)
    result, taken = dict(fresh), 0
    for name, value in fresh.items():
        if alike := known.get(_role(name, value)):
            nearest = min(alike, key=lambda other: abs(depths[other] - new_depths[name]))
            result[name] = trained[nearest].detach().clone()
            taken += value.numel()
    return result, taken / max(sum(value.numel() for value in fresh.values()), 1)


def _split(name: str) -> tuple[str, int, str]:
    found = _NUMBERED.fullmatch(name)
    return (found[1], int(found[2]), found[3]) if found else (name, 0, "")


def _role(name: str, value: Tensor) -> _Role:
    before, _, after = _split(name)
    return before, after, tuple(value.shape)


def _depths(names: Iterable[str]) -> dict[str, float]:
    """Where in its row of cells each parameter stands, from 0 to 1."""
    split = {name: _split(name) for name in names}
    counts: dict[str, int] = defaultdict(int)
    for before, number, _ in split.values():
        counts[before] = max(counts[before], number + 1)
    return {name: (number + 0.5) / counts[before] for name, (before, number, _) in split.items()}
