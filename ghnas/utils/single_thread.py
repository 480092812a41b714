"""How workers compute: one torch thread, denormal numbers flushed, rare looks for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

RARELY = 70_000
"""Objects that are made between two looks for cycles among them."""


def use_one_torch_thread() -> None:
    """Compute from now on as all workers do."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # products with them take a hundred times as long
    collect_garbage_rarely()


def collect_garbage_rarely() -> None:
    """Look for cycles a hundred times less often, and not among what is there already: a graph is
    hundreds of small objects, and looking through them takes as long as making them."""
    gc.freeze()
    gc.set_threshold(RARELY)


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Look for cycles as rarely as workers do, and restore at the end what was before."""
    before, *older = gc.get_threshold()
    gc.set_threshold(before and max(before, RARELY), *older)  # 0: never
    try:
        yield
    finally:
        gc.set_threshold(before, *older)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Compute as worker processes do, with one torch thread for each operation, and restore at the
    end what was before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
