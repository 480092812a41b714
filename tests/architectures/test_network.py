"""Networks as modules, and the interpreter of graphs that they share with the executors."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from ghnas.architectures.blocks import Place, factorized_reduce
from ghnas.architectures.graph import Graph, GraphBuilder
from ghnas.architectures.network import Network, forward
from ghnas.architectures.ops import Activation, Input, Op, Sum
from ghnas.spaces import load_space

SHAPE = (3, 16, 16)


def test_predictions_do_not_depend_on_other_batches() -> None:
    """Evaluation mode uses running statistics: one image alone gives what it gives in a batch."""
    space = load_space("darts")
    network = Network(space.sample(random.Random(0)).for_images(SHAPE, 10).graph)
    images = torch.randn(16, *SHAPE)
    network.train()
    network(images)
    network.eval()
    torch.testing.assert_close(network(images)[:1], network(images[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [30, 31, 33, 50])
def test_a_shortcut_is_there_at_any_size(size: int) -> None:
    """Of NAS-Bench-201's reduction blocks, which halve 15 pixels to 8 in every branch."""
    space = load_space("nasbench201").with_skeleton(cells=1)
    architecture = space.parse(
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|"
    )

    def joins(size: int) -> int:
        nodes = architecture.for_images((3, size, size), 10).graph.nodes
        return sum(isinstance(node.op, Sum) for node in nodes)

    assert joins(size) == joins(32) == 2


def test_halving_an_odd_size_by_hand() -> None:
    """Both 1x1 convolutions see 3 of 5 positions: the even ones, and the odd ones and the last."""
    graph = GraphBuilder()
    image = graph.add(Input(1, 5, 5))
    factorized_reduce(graph, Place(image, 2, 2, "reduce"))
    nodes = graph.build().nodes[:-1]  # without the norm
    weights = {name: torch.ones(1, 1, 1, 1) for node in nodes for name, _ in node.parameters}
    halves = forward(Graph(nodes), weights, torch.arange(25.0).view(1, 1, 5, 5))
    rows = torch.tensor([[0, 2, 4], [1, 3, 4]])
    expected = torch.stack([5 * part[:, None] + part[None] for part in rows]).float()
    assert torch.equal(halves[0], expected)


@dataclass(frozen=True)
class Counted(Op):
    """Adds its step; notes how many values of earlier steps are alive while it runs."""

    step: int
    values: ClassVar[list[weakref.ref[Tensor]]] = []
    alive: ClassVar[list[int]] = []

    @property
    def primitive(self) -> str:
        return "conv"

    def forward(
        self, inputs: Sequence[Tensor], parameters: Sequence[Tensor], groups: int = 1
    ) -> Tensor:
        self.alive.append(sum(value() is not None for value in self.values))
        result = inputs[0] + self.step
        self.values.append(weakref.ref(result))
        return result


def shortcuts(blocks: int) -> Graph:
    """Blocks of three steps in a row and a shortcut around them."""
    graph = GraphBuilder()
    x = graph.add(Input(*SHAPE))
    for block in range(blocks):
        shortcut = x
        for step in range(3):
            x = graph.add(Counted(3 * block + step), x)
        x = graph.add(Sum(), graph.add(Activation(), x), shortcut)
    return graph.build()


@pytest.mark.parametrize(
    "run",
    [
        lambda graph, images: Network(graph)(images),
        lambda graph, images: forward(graph, {}, images),
    ],
    ids=["module", "function"],
)
def test_a_value_is_freed_when_its_last_reader_has_read_it(
    run: Callable[[Graph, Tensor], Tensor],
) -> None:
    Counted.values.clear()
    Counted.alive.clear()
    with torch.no_grad():
        output = run(shortcuts(5), torch.zeros(2, *SHAPE))
    assert float(output.flatten()[0]) == 327  # x -> 2x + 3 (3 block + 1), five times
    assert Counted.alive == [0, 1, 1] * 5
