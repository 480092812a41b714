"""The graph of an `nn.Module` together with the module, so that it can be run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from ghnas.architectures.graph import Graph, Shape
from ghnas.architectures.tracing.trace import trace
from ghnas.utils.errors import UserError, first_line


@dataclass(frozen=True)
class ModuleGraph(Graph):
    """What `ghnas.architectures.tracing.trace.trace` reads of a module, and the module.

    Args:
        module: In evaluation mode, but for batch normalisation: its running statistics are not
            predicted, so that it takes those of the batch.
        label: What tells it from other modules with the same nodes: a trace knows no strides and
            no activations.
        counted: Multiply-adds x 2 of matrix products and convolutions, for one image.
    """

    module: nn.Module = field(repr=False, compare=False)
    label: str = ""
    counted: int = 0

    def __reduce__(self) -> NoReturn:
        raise UserError("networks of a ModuleSpace cannot go to another process: give workers=1")

    @cached_property
    def flops(self) -> int:
        """Floating-point operations for one image: multiply-adds x 2."""
        return self.counted

    @cached_property
    def hash(self) -> str:
        """Equal for modules with equal labels and isomorphic traces."""
        return blake2b(f"{super().hash}|{self.label}".encode(), digest_size=16).hexdigest()

    def run(self, parameters: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Logits (B, classes) with given weights; batch-norm uses the statistics of the batch.

        Args:
            parameters: By name; those that are missing are the module's own.
            images: (B, C, H, W).
        """
        module = self.module.to(images.device)
        return _logits(functional_call(module, dict(parameters), (images,)))


def module_graph(
    module: nn.Module, image_shape: Shape, classes: int, label: str = ""
) -> ModuleGraph:
    """Trace a module, and run it once on an image of zeros.

    Args:
        module: A classifier; left in the mode of `ModuleGraph`.
        image_shape: (C, H, W).
        classes: Number of logits that it must have.
        label: As in `ModuleGraph`.

    Raises:
        UserError: If it cannot be traced, cannot take such images, or has another output.
    """
    name = type(module).__name__
    graph = trace(module, image_shape)
    module.eval()
    counter = FlopCounterMode(display=False)
    size = "x".join(map(str, image_shape))
    try:
        with torch.no_grad(), counter, warnings.catch_warnings(action="ignore"):
            output = tuple(_logits(module(torch.zeros(1, *image_shape))).shape)
    except Exception as error:  # whatever a forward does
        raise UserError(f"{name} fails on images of {size}: {first_line(error)}") from error
    if output != (1, classes):
        made = "x".join(map(str, output[1:])) or "no"
        raise UserError(
            f"{name} makes {made} logits of an image of {size}, not {classes}: give the number of "
            "classes where the module is made"
        )
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.train()
    return ModuleGraph(graph.nodes, module, label, counter.get_total_flops())


def _logits(output: Any) -> Tensor:
    """The first of several outputs counts."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    return output
