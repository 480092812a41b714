"""Which device to compute on."""

from __future__ import annotations

import os
import re

import torch

from ghnas.utils.errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is a GPU where there is one.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: If the name is unknown or the machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    match = re.fullmatch(r"cpu|cuda(?::([0-9]{1,4}))?", name)
    if not match:
        raise UserError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N")
    if name != "cpu" and int(match[1] or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name!r} is not there: this machine's torch sees no such GPU")
    return torch.device(name)


def total_memory() -> int | None:
    """Bytes of memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


_given: int | None = None
"""What `use_cores` said last."""


def use_cores(count: float) -> None:
    """Let this process use no more than so many cores, one at least: a cluster gave it those."""
    global _given
    _given = max(int(count), 1)


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        there = len(os.sched_getaffinity(0))
    else:
        there = os.cpu_count() or 1
    return min(there, _given or there)
