"""Runs programs: one compiled loop over the steps of a network, in memory that is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import forward
from ghnas.executors.base import Parameters
from ghnas.executors.fused.kernels import Floats, are_compiled
from ghnas.executors.fused.lowering import Unsupported, lower
from ghnas.executors.fused.program import STEP, Program
from ghnas.executors.fused.steps import execute


class FusedExecutor(threading.local):  # each thread has programs and memory of its own
    """Runs one network after the other as a program of compiled kernels, on a CPU in float32.

    A graph with an operation that has no kernel runs with PyTorch's operations. Gradients are
    not computed. The first one on a machine takes 20 seconds to compile its kernels.
    """

    def __init__(self) -> None:
        compile_kernels()
        self._programs: dict[int, tuple[Graph, Program | None]] = {}
        """By the identity of the graph, which is kept with its program."""
        self._arena = np.empty(0, np.float32)
        self._scratch = np.empty(0, np.float32)

    def __reduce__(self) -> tuple[Callable[..., FusedExecutor], tuple[()]]:
        """Without its memory when sent to another process."""
        return FusedExecutor, ()

    @torch.no_grad()
    def run(self, graphs: Sequence[Graph], weights: Sequence[Parameters], images: Tensor) -> Tensor:
        """See `ghnas.executors.base.Executor`."""
        known = self._programs
        self._programs = {
            id(graph): known.get(id(graph)) or (graph, _program(graph)) for graph in graphs
        }
        pixels = images.permute(1, 2, 3, 0).contiguous().numpy().ravel()
        logits = []
        for graph, own in zip(graphs, weights, strict=True):
            _, program = self._programs[id(graph)]
            logits.append(
                forward(graph, own, images)
                if program is None
                else self._execute(program, own, pixels, len(images))
            )
        return torch.stack(logits)

    def _execute(self, program: Program, weights: Parameters, pixels: Floats, count: int) -> Tensor:
        """Logits (count, classes) for images that stand as (C, H, W, count), flat."""
        tensors = [weights[name].reshape(-1) for name in program.parameters]
        flat = torch.cat(tensors) if tensors else torch.zeros(1)
        self._arena = _at_least(self._arena, program.arena * count)
        self._scratch = _at_least(self._scratch, program.scratch * count + program.extra)
        execute(
            program.steps,
            flat.numpy(),
            pixels,
            count,
            self._arena,
            self._scratch,
            np.empty((2, program.channels), np.float32),
            np.zeros((2, program.channels), np.float64),
        )
        start, classes = program.output * count, program.classes
        logits = self._arena[start : start + classes * count].reshape(classes, count)
        return torch.from_numpy(logits.T.copy())


@cache
def compile_kernels() -> None:
    """Have the kernels ready; processes that are forked later have them too.

    Where they are not on disk yet, another process compiles them first. One that compiles runs
    other copies of them than one that reads them: its results would differ by rounding.
    """
    if execute.stats.cache_path is not None and not are_compiled():  # type: ignore[attr-defined]
        call = f"from {__name__} import run_nothing; run_nothing()"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", call], env=environment, check=False)
    run_nothing()


def run_nothing() -> None:
    """A program without steps: numba compiles the kernels or reads them."""
    none = np.zeros(0, STEP)
    room, doubles = np.zeros(0, np.float32), np.zeros((2, 1), np.float64)
    execute(none, room, room, 1, room, room, np.zeros((2, 1), np.float32), doubles)


def _program(graph: Graph) -> Program | None:
    try:
        return lower(graph)
    except Unsupported:
        return None


def _at_least(room: Floats, size: int) -> Floats:
    return room if len(room) >= size else np.empty(size, np.float32)
