"""Spaces of dense cells: NAS-Bench-201's notation, sizes, disconnected cells, reference network."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ghnas.architectures.architecture import Architecture, Choices
from ghnas.architectures.network import Network, kaiming, load_parameters
from ghnas.engine.constraints import Limits, require_feasible
from ghnas.executors.grouped import GroupedExecutor
from ghnas.ghn.config import GHNConfig
from ghnas.ghn.model import GHN
from ghnas.reports.drawing import as_svg, as_text, draw
from ghnas.scoring.evaluation import evaluate
from ghnas.spaces import load_space
from ghnas.utils.errors import UserError

SPACE = load_space("nasbench201")
SHAPE = (3, 8, 8)
SMALL = SPACE.with_skeleton(channels=4, cells=1).for_images(SHAPE, 10)
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ("0-1", "0-2", "1-2", "0-3", "1-3", "2-3")
any_choices = st.tuples(*[st.sampled_from(OPERATIONS)] * 6).map(
    lambda operations: dict(zip(EDGES, operations, strict=True))
)


def uniform(operation: str, **edges: str) -> Architecture:
    """One operation on every edge, but for those that are given, as `e01` for 0-1."""
    others = {f"{name[1]}-{name[2]}": value for name, value in edges.items()}
    return SMALL.architecture(dict.fromkeys(EDGES, operation) | others)


@given(any_choices)
@settings(max_examples=50, deadline=None)
def test_every_architecture_has_a_notation_and_a_graph(choices: Choices) -> None:
    architecture = SMALL.architecture(choices)
    assert SMALL.parse(str(architecture)) == architecture
    assert architecture.graph.nodes[-1].shape == (10,)
    assert architecture.hash == SMALL.parse(str(architecture)).hash
    (drawing,) = draw(architecture)
    connected = [name for name in choices.values() if name != "none"]
    assert as_text(drawing).count("nor_conv_3x3") == connected.count("nor_conv_3x3")
    assert as_svg([drawing]).endswith("</svg>\n")


def test_the_notation_is_the_benchmarks() -> None:
    text = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
    assert SPACE.parse(text).choices == {
        "0-1": "nor_conv_3x3",
        "0-2": "none",
        "1-2": "nor_conv_1x1",
        "0-3": "skip_connect",
        "1-3": "none",
        "2-3": "avg_pool_3x3",
    }
    assert SPACE.size == 15625


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("none", "not an architecture"),
        ("|none~0|+|none~0|none~1|", "not an architecture"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|", "node 3"),
        ("|none~0|+|none~1|none~0|+|none~0|none~1|none~2|", "node 2"),
        ("|warp~0|+|none~0|none~1|+|none~0|none~1|none~2|", "warp"),
    ],
)
def test_other_texts_are_explained(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        SPACE.parse(text)


@pytest.mark.parametrize(
    ("operation", "parameters", "mega_multiply_adds"),
    [("nor_conv_3x3", 1_531_546, 220.11968), ("none", 73_306, 7.78304)],
)
def test_sizes_are_the_published_ones(
    operation: str, parameters: int, mega_multiply_adds: float
) -> None:
    """The largest and the smallest networks of the benchmark's own files, for CIFAR-10."""
    architecture = SPACE.architecture(dict.fromkeys(EDGES, operation))
    assert architecture.parameters == parameters
    assert architecture.flops == pytest.approx(2e6 * mega_multiply_adds)


class ReferenceNetwork(nn.Module):
    """The benchmark's network, one cell a stage, in plain PyTorch on named parameters."""

    def __init__(self, choices: Choices, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.choices, self.parameters_ = choices, parameters

    def norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = (self.parameters_[f"{name}.{key}"] for key in ("weight", "bias"))
        return F.batch_norm(x, None, None, weight, bias, training=True)

    def relu_conv_norm(self, x: Tensor, name: str, kernel: int, stride: int = 1) -> Tensor:
        weight = self.parameters_[f"{name}.op.1.weight"]
        x = F.conv2d(x.relu(), weight, stride=stride, padding=kernel // 2)
        return self.norm(x, f"{name}.op.2")

    def edge(self, x: Tensor, operation: str, name: str) -> Tensor:
        if operation == "none":
            return x * 0
        if operation == "skip_connect":
            return x
        if operation == "avg_pool_3x3":
            return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return self.relu_conv_norm(x, name, 3 if operation == "nor_conv_3x3" else 1)

    def cell(self, x: Tensor, name: str) -> Tensor:
        nodes, number = [x], 0
        for target in (1, 2, 3):
            total = torch.zeros_like(x)
            for source in range(target):
                operation = str(self.choices[f"{source}-{target}"])
                total = total + self.edge(nodes[source], operation, f"{name}.layers.{number}")
                number += 1
            nodes.append(total)
        return nodes[-1]

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.conv2d(x, self.parameters_["stem.0.weight"], padding=1), "stem.1")
        for index in range(5):
            name = f"cells.{index}"
            if index % 2 == 0:
                x = self.cell(x, name)
                continue
            deep = self.relu_conv_norm(x, f"{name}.conv_a", 3, stride=2)
            deep = self.relu_conv_norm(deep, f"{name}.conv_b", 3)
            shortcut = self.parameters_[f"{name}.downsample.1.weight"]
            x = deep + F.conv2d(F.avg_pool2d(x, 2, 2), shortcut)
        x = self.norm(x, "lastact.0").relu().mean(dim=(2, 3))
        return x @ self.parameters_["classifier.weight"].T + self.parameters_["classifier.bias"]


@given(any_choices, st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_networks_equal_the_benchmarks(choices: Choices, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    graph = SMALL.build(choices, SHAPE, 10)
    parameters = {
        name: torch.randn(shape, generator=generator) / (shape[-1] * shape[0] ** 0.5)
        for name, shape in graph.parameters.items()
    }
    network = Network(graph)
    load_parameters(network, parameters)
    images = torch.randn(6, *SHAPE, generator=generator)
    # edges that lead nowhere have parameters in the benchmark alone; none of them is read
    missing = {
        f"cells.{cell}.layers.{edge}.op.{part}": torch.ones(1)
        for cell in (0, 2, 4)
        for edge in range(6)
        for part in ("1.weight", "2.weight", "2.bias")
        if f"cells.{cell}.layers.{edge}.op.{part}" not in parameters
    }
    dead = _leads_nowhere(choices)
    pruned = {key: "none" if key in dead else value for key, value in choices.items()}
    expected = ReferenceNetwork(pruned, parameters | missing)(images)
    torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-4)


def _leads_nowhere(choices: Choices) -> set[str]:
    """The edges into nodes that the output does not read."""
    read = {3}
    for source in (2, 1):
        targets = [t for t in range(source + 1, 4) if choices[f"{source}-{t}"] != "none"]
        if any(target in read for target in targets):
            read.add(source)
    return {edge for edge in choices if int(edge[-1]) not in read}


def test_sampling_leaves_out_what_the_image_does_not_reach() -> None:
    rng = random.Random(0)
    assert not SMALL.is_connected(dict(uniform("none").choices))
    around = uniform("none", e01="nor_conv_3x3", e13="skip_connect")
    assert SMALL.is_connected(dict(around.choices))
    for _ in range(100):
        sample = SMALL.sample(rng)
        mutant = SMALL.mutate(around, rng)
        child = SMALL.crossover(sample, around, rng)
        for architecture in (sample, mutant, child):
            assert SMALL.is_connected(dict(architecture.choices))


def test_disconnected_architectures_are_scored() -> None:
    """The classifier's bias alone decides: every image gets the same logits."""
    graphs = [uniform(op).graph for op in ("none", "nor_conv_3x3")]
    images = torch.randn(8, *SHAPE)
    parameters = [kaiming(graph) for graph in graphs]
    logits = GroupedExecutor().run(graphs, parameters, images)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits[0], logits[0, :1].expand(8, -1))
    predicted = GHN(GHNConfig(hid=8)).predict_graphs(graphs)
    assert [set(item) for item in predicted] == [set(graph.parameters) for graph in graphs]
    scores = evaluate(GroupedExecutor(), graphs, predicted, [(images, torch.arange(8))])
    assert all(0 <= score.accuracy <= 1 for score in scores)


def test_equal_networks_have_equal_hashes() -> None:
    """A node that only repeats another one is no node: 0-1 skipped, read as node 0 would be."""
    first = uniform("none", e01="skip_connect", e13="nor_conv_3x3")
    second = uniform("none", e02="skip_connect", e23="nor_conv_3x3")
    third = uniform("none", e03="nor_conv_3x3")
    other = uniform("none", e03="nor_conv_1x1")
    hashes = [item.hash for item in (first, second, third, other)]
    assert len(set(hashes[:3])) == 1
    assert hashes[3] != hashes[0]


def test_limits_and_skeletons() -> None:
    rng = random.Random(0)
    found = require_feasible(SMALL, Limits(params=6000), rng)
    assert found.parameters <= 6000
    deeper = SMALL.with_skeleton(cells=2, stages=2)
    graph = deeper.architecture(uniform("avg_pool_3x3").choices).graph
    assert max(node.cell for node in graph.nodes) >= 4
    with pytest.raises(UserError, match="too small"):
        _ = uniform("none").for_images((3, 4, 4), 10).graph
    with pytest.raises(UserError, match="stages"):
        SPACE.with_skeleton(stages=0)
