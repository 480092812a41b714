"""Runs programs: one compiled loop over the steps of a network, in memory that is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.executors.base import FlatParameters, Parameters
from ghnas.executors.fused.differentiation import lower_training
from ghnas.executors.fused.gradient_steps import differentiate
from ghnas.executors.fused.kernels import Floats, are_compiled, can_be_kept
from ghnas.executors.fused.lowering import Unsupported, lower
from ghnas.executors.fused.program import GRADIENT_STEP, STEP, Program, TrainingProgram
from ghnas.executors.fused.steps import execute
from ghnas.executors.module import ModuleExecutor


class FusedExecutor(threading.local):  # each thread has programs and memory of its own
    """Runs one network after the other as a program of compiled kernels, on a CPU in float32.

    A graph with an operation that has no kernel runs with PyTorch's operations. The first executor
    on a machine takes 20 seconds to compile its kernels, the first gradient as long again.
    """

    def __init__(self) -> None:
        compile_kernels()
        self._programs: dict[int, tuple[Graph, Program | None]] = {}
        """By the identity of the graph, which is kept with its program."""
        self._training: dict[int, tuple[Graph, TrainingProgram | None]] = {}
        self._memory = Memory()
        self._plain = ModuleExecutor()

    def __reduce__(self) -> tuple[Callable[..., FusedExecutor], tuple[()]]:
        """Without its memory when sent to another process."""
        return FusedExecutor, ()

    @torch.no_grad()
    def run(
        self,
        graphs: Sequence[Graph],
        weights: Sequence[Parameters],
        images: Tensor,
        batches: int = 1,
    ) -> Tensor:
        """See `ghnas.executors.base.Executor`; no gradients are kept."""
        if batches > 1:
            parts = images.chunk(batches)
            return torch.cat([self.run(graphs, weights, part) for part in parts], dim=1)
        self._programs = _prepared(graphs, self._programs, lower)
        pixels, logits = pixels_of(images), []
        for graph, own in zip(graphs, weights, strict=True):
            _, program = self._programs[id(graph)]
            logits.append(
                self._plain.run([graph], [own], images)[0]
                if program is None
                else self._memory.run(program, _flat(own, program).numpy(), pixels, len(images))
            )
        return torch.stack(logits)

    def losses(
        self,
        graphs: Sequence[Graph],
        weights: Sequence[Parameters],
        images: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See `ghnas.executors.base.Executor`; gradients are computed at once."""
        self._training = _prepared(graphs, self._training, lower_training)
        pixels, results = pixels_of(images), []
        for graph, own in zip(graphs, weights, strict=True):
            _, program = self._training[id(graph)]
            if program is None:
                loss, logits = self._plain.losses([graph], [own], images, labels)
                results.append((loss[0], logits[0]))
            else:
                flat = _flat(own, program.forward)
                results.append(loss_and_logits(flat, self._memory, program, pixels, labels))
        losses, outputs = zip(*results, strict=True)
        return torch.stack(losses), torch.stack(outputs)


class _Loss(torch.autograd.Function):
    """Cross-entropy and logits of one network; its gradient is there when it is."""

    @staticmethod
    def forward(
        ctx: Any,
        flat: Tensor,
        memory: Memory,
        program: TrainingProgram,
        pixels: Floats,
        labels: Tensor,
    ) -> tuple[Tensor, Tensor]:
        weights = flat.detach().numpy()
        logits = memory.run(program.forward, weights, pixels, len(labels))
        loss, slope = cross_entropy(logits, labels)
        ctx.mark_non_differentiable(logits)
        if ctx.needs_input_grad[0]:
            slopes = memory.differentiate(program, weights, slope.numpy())
            ctx.save_for_backward(torch.from_numpy(slopes))
        return loss, logits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * gradients[0], None, None, None, None


def loss_and_logits(
    flat: Tensor, memory: Memory, program: TrainingProgram, pixels: Floats, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy of a network in nats, with gradients, and logits (B, classes).

    Args:
        flat: Its parameters.
        memory: Where to compute.
        program: The network's.
        pixels: From `pixels_of`.
        labels: (B,).
    """
    pair: tuple[Tensor, Tensor] = _Loss.apply(flat, memory, program, pixels, labels)
    return pair


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy in nats, and its gradient with respect to the logits (B, classes)."""
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        loss = F.cross_entropy(leaf, labels)
        (slope,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), slope


class Memory:
    """Room for the tensors of one network at a time, kept from one to the next."""

    def __init__(self) -> None:
        self._arena = self._scratch = self._gradients = np.empty(0, np.float32)
        self._affine = np.empty((2, 0), np.float32)
        self.statistics = np.empty((2, 0), np.float64)
        """Sums and sums of squares of the channels that the last run normalised."""

    def run(
        self,
        program: Program,
        weights: Floats,
        pixels: Floats,
        count: int,
        affine: Floats | None = None,
    ) -> Tensor:
        """Logits (count, classes) of one network.

        Args:
            program: The network's.
            weights: Its parameters, flat.
            pixels: From `pixels_of`.
            count: How many images these are.
            affine: (2, channels): scales and shifts that the program does not compute.
        """
        self._arena = _at_least(self._arena, program.arena * count)
        self._scratch = _at_least(self._scratch, program.scratch * count + program.extra)
        rows = (2, program.channels)
        self._affine = np.empty(rows, np.float32) if affine is None else affine
        self.statistics = np.zeros(rows, np.float64)
        execute(
            program.steps, weights, pixels, count, self._arena, self._scratch, self._affine,
            self.statistics,
        )  # fmt: skip
        start, classes = program.output * count, program.classes
        logits = self._arena[start : start + classes * count].reshape(classes, count)
        return torch.from_numpy(logits.T.copy())

    def differentiate(self, program: TrainingProgram, weights: Floats, slope: Floats) -> Floats:
        """Gradients of all parameters, flat, after `run` of the program's forward pass.

        Args:
            program: The network's.
            weights: As in `run`.
            slope: Of the logits, (count, classes).
        """
        compile_gradients()
        count = len(slope)
        self._gradients = _at_least(self._gradients, program.arena * count)
        self._scratch = _at_least(self._scratch, program.scratch * count + program.extra)
        start = program.output * count
        self._gradients[start : start + slope.size] = slope.T.ravel()
        slopes = np.zeros(len(weights), np.float32)
        differentiate(
            program.steps, weights, count, self._arena, self._gradients, self._scratch,
            self._affine, self.statistics, np.empty((3, program.lines), np.float32), slopes,
        )  # fmt: skip
        return slopes


@cache
def compile_kernels() -> None:
    """Have the kernels ready; processes that are forked later have them too."""
    _compile("execute")


@cache
def compile_gradients() -> None:
    """The same, and those of the backward pass."""
    compile_kernels()
    _compile("differentiate")


def _compile(name: str) -> None:
    """Compile a loop over steps, or read what was compiled before.

    Where it is not on disk yet, another process compiles it first. One that compiles runs other
    copies of the kernels than one that reads them: its results would differ by rounding.
    """
    if can_be_kept(_LOOPS[name][0]) and not are_compiled(name):
        call = f"from {__name__} import run_nothing; run_nothing({name!r})"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", call], env=environment, check=False)
    run_nothing(name)


def run_nothing(name: str) -> None:
    """A program without steps: numba compiles the kernels or reads them."""
    loop, dtype = _LOOPS[name]
    none, room = np.zeros(0, dtype), np.zeros(0, np.float32)
    rows, doubles = np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float64)
    if name == "execute":
        loop(none, room, room, 1, room, room, rows, doubles)
    else:
        loop(none, room, 1, room, room, room, rows, doubles, np.zeros((3, 1), np.float32), room)


_LOOPS: dict[str, tuple[Callable[..., None], np.dtype[np.void]]] = {
    "execute": (execute, STEP),
    "differentiate": (differentiate, GRADIENT_STEP),
}


_Program = TypeVar("_Program")


def _prepared(
    graphs: Sequence[Graph],
    known: dict[int, tuple[Graph, _Program | None]],
    lower: Callable[[Graph], _Program],
) -> dict[int, tuple[Graph, _Program | None]]:
    """Programs of graphs, those that are known already and others; None: PyTorch's operations."""

    def prepare(graph: Graph) -> _Program | None:
        try:
            return lower(graph)
        except Unsupported:
            return None

    return {id(graph): known.get(id(graph)) or (graph, prepare(graph)) for graph in graphs}


def pixels_of(images: Tensor) -> Floats:
    """Images (B, C, H, W) as programs read them: (C, H, W, B), flat."""
    return cast(Floats, images.permute(1, 2, 3, 0).contiguous().numpy().ravel())


def _flat(weights: Parameters, program: Program) -> Tensor:
    """A network's parameters as one vector, in the program's order."""
    if isinstance(weights, FlatParameters):
        return weights.flat
    tensors = [weights[name].reshape(-1) for name in program.parameters]
    return torch.cat(tensors) if tensors else torch.zeros(1)


def _at_least(room: Floats, size: int) -> Floats:
    return room if len(room) >= size else cast(Floats, torch.empty(size).numpy())  # aligned
