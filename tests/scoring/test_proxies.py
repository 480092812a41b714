"""Training-free proxies against values worked out by hand or in numpy."""

from __future__ import annotations

import math
import random

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from ghnas.architectures.graph import Graph, GraphBuilder
from ghnas.architectures.network import Network, initialised, load_parameters
from ghnas.architectures.ops import (
    Activation,
    BatchNorm,
    Conv,
    GlobalAveragePool,
    Input,
    Linear,
    Sum,
    Zeros,
)
from ghnas.scoring.proxies import (
    LOWEST,
    PROXIES,
    rank_vote,
    reaches_output,
    score_graph,
)
from ghnas.spaces import load_space

Array = npt.NDArray[np.float64]

W1 = np.array([[1.0, -2.0], [0.5, 1.5], [-1.0, 0.25]])  # 2 channels -> 3 hidden
W2 = np.array([[0.5, -1.0, 2.0], [1.0, 0.75, -0.5]])  # 3 hidden -> 2 classes
X = np.array([[1.0, 0.4], [-0.5, 1.0], [2.0, -1.0], [0.3, 0.8]])
Y = np.array([0, 1, 1, 0])
PARAMETERS = {"a.weight": torch.tensor(W1).float().view(3, 2, 1, 1), "b.weight": torch.tensor(W2)}


def two_layers(readers: int = 1, norm: bool = False) -> Graph:
    """Two linear maps with a rectifier between them, on images of one pixel."""
    graph = GraphBuilder()
    image = graph.add(Input(2, 1, 1), name="input")
    x = graph.add(Conv(3, 1), image, name="a")
    if norm:
        x = graph.add(BatchNorm(), x, name="bn")
    x = graph.add(Activation(), x)
    if readers > 1:
        convolved = [graph.add(Conv(3, 1), x, name=f"c{i}") for i in range(readers)]
        x = graph.add(Sum(), *convolved)
    x = graph.add(GlobalAveragePool(), x)
    graph.add(Linear(2), x, name="b")
    return graph.build()


def with_weights(graph: Graph) -> Network:
    network = initialised(graph, seed=0)
    own = dict(network.named_parameters())
    load_parameters(network, own | {k: v for k, v in PARAMETERS.items() if k in own})
    return network


def images() -> tuple[Tensor, Tensor]:
    return torch.tensor(X).float().view(4, 2, 1, 1), torch.tensor(Y)


def score(name: str, graph: Graph | None = None) -> float:
    return PROXIES[name].function(with_weights(graph or two_layers()), *images())


def gradients(first: Array, second: Array) -> dict[str, Array]:
    """By the chain rule: gradients of the mean cross-entropy of softmax(relu(x A') B')."""
    hidden = X @ first.T
    active = np.maximum(hidden, 0)
    logits = active @ second.T
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    by_logits = (shares - np.eye(2)[Y]) / len(X)
    by_hidden = (by_logits @ second) * (hidden > 0)
    return {
        "hidden": hidden,
        "logits": logits,
        "by_hidden": by_hidden,
        "by_logits": by_logits,
        "first": by_hidden.T @ X,
        "second": by_logits.T @ active,
    }


def test_synflow_by_hand() -> None:
    # |W1| sums the ones to 3, 2, 1.25; through |W2|: 1.5 + 2 + 2.5 and 3 + 1.5 + 0.625 = 11.125;
    # the sum of weight x gradient is that of each of the two layers
    assert score("synflow") == pytest.approx(2 * 11.125)


def test_synflow_does_not_see_batch_norm() -> None:
    assert score("synflow", two_layers(norm=True)) == pytest.approx(2 * 11.125)


def test_naswot_by_hand() -> None:
    # hidden units of the first three images: (+, +, -), (-, +, +), (+, -, -); they agree in
    # 1, 2 and 0 units, and each with itself in 3
    network, (x, y) = with_weights(two_layers()), images()
    determinant = 3 * (3 * 3 - 0 * 0) - 1 * (1 * 3 - 0 * 2) + 2 * (1 * 0 - 3 * 2)
    assert PROXIES["naswot"].function(network, x[:3], y[:3]) == pytest.approx(math.log(determinant))
    twice = [0, 1, 1]  # two images with one code: the determinant is zero
    assert PROXIES["naswot"].function(network, x[twice], y[twice]) == -math.inf


def test_naswot_counts_a_rectifier_for_each_reader() -> None:
    one, two = (
        PROXIES["naswot"].function(with_weights(two_layers(n)), *(x[:3] for x in images()))
        for n in (1, 2)
    )
    assert two - one == pytest.approx(3 * math.log(2))  # all entries of a 3 x 3 kernel doubled


def test_jacov_of_unrelated_and_of_equal_gradients() -> None:
    graph = GraphBuilder()
    image = graph.add(Input(4, 1, 1), name="input")
    x = graph.add(Activation(), graph.add(Conv(2, 1), image, name="a"))
    graph.add(Linear(1), graph.add(GlobalAveragePool(), x), name="b")
    network = initialised(graph.build(), seed=0)
    rows = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    load_parameters(network, {"a.weight": rows.view(2, 4, 1, 1), "b.weight": torch.ones(1, 2)})
    labels = torch.tensor([0, 0])
    # each image activates one unit, so that its gradient is that unit's row
    apart, same = rows.view(2, 4, 1, 1), rows[[0, 0]].view(2, 4, 1, 1)
    e = 1e-5
    value = PROXIES["jacov"].function(network, apart, labels)
    assert value == pytest.approx(-2 * (math.log(1 + e) + 1 / (1 + e)))
    expected = -(math.log(2 + e) + 1 / (2 + e) + math.log(e) + 1 / e)  # eigenvalues 2 and 0
    assert PROXIES["jacov"].function(network, same, labels) == pytest.approx(expected, rel=1e-6)


def test_snip_against_numpy() -> None:
    g = gradients(W1, W2)
    expected = np.abs(W1 * g["first"]).sum() + np.abs(W2 * g["second"]).sum()
    assert score("snip") == pytest.approx(expected, rel=1e-5)


def test_grad_norm_against_numpy() -> None:
    g = gradients(W1, W2)
    expected = np.linalg.norm(g["first"]) + np.linalg.norm(g["second"])
    assert score("grad-norm") == pytest.approx(expected, rel=1e-5)


def test_grasp_against_differences() -> None:
    g, step = gradients(W1, W2), 1e-5
    ahead = gradients(W1 + step * g["first"], W2 + step * g["second"])
    behind = gradients(W1 - step * g["first"], W2 - step * g["second"])
    product = {key: (ahead[key] - behind[key]) / (2 * step) for key in ("first", "second")}
    expected = -((W1 * product["first"]).sum() + (W2 * product["second"]).sum())
    assert score("grasp") == pytest.approx(expected, rel=1e-4)


def test_fisher_against_numpy() -> None:
    g = gradients(W1, W2)
    first = (g["hidden"] * g["by_hidden"]) ** 2
    second = (g["logits"] * g["by_logits"]) ** 2
    expected = (first.mean(0).sum() + second.mean(0).sum()) / 2
    assert score("fisher") == pytest.approx(expected, rel=1e-5)


def test_fisher_sums_over_positions_first() -> None:
    graph = GraphBuilder()
    image = graph.add(Input(1, 1, 2), name="input")
    x = graph.add(GlobalAveragePool(), graph.add(Conv(1, 1), image, name="a"))
    graph.add(Linear(2), x, name="b")
    network = initialised(graph.build(), seed=0)
    b = torch.tensor([[1.0], [-1.0]])
    load_parameters(network, {"a.weight": torch.ones(1, 1, 1, 1), "b.weight": b})
    picture, label = torch.tensor([3.0, -1.0]).view(1, 1, 1, 2), torch.tensor([0])
    # mean 1: logits 1 and -1; the loss's gradient by the mean is -2 p, p = 1 / (1 + e^2)
    p = 1 / (1 + math.exp(2))
    of_conv = ((3 - 1) * -p) ** 2  # each of the two positions has half of the gradient
    of_linear = (1 * -p) ** 2 + (-1 * p) ** 2
    value = PROXIES["fisher"].function(network, picture, label)
    assert value == pytest.approx((of_conv + of_linear) / 2, rel=1e-5)


def test_zen_against_numpy() -> None:
    graph = GraphBuilder()
    image = graph.add(Input(2, 1, 1), name="input")
    x = graph.add(BatchNorm(), graph.add(Conv(3, 1), image, name="a"), name="bn")
    graph.add(Linear(2), graph.add(GlobalAveragePool(), x), name="b")
    network = initialised(graph.build(), seed=3)
    generator, scores = torch.Generator().manual_seed(0), []
    for _ in range(4):
        weight = torch.randn(3, 2, 1, 1, generator=generator).double().numpy()[:, :, 0, 0]
        torch.randn(2, 3, generator=generator)  # of the linear layer, which has no say
        drawn = torch.randn(2, 4, 2, 1, 1, generator=generator).double().numpy()[:, :, :, 0, 0]
        plain, moved = drawn[0] @ weight.T, (drawn[0] + 0.01 * drawn[1]) @ weight.T
        plain_std, moved_std = (np.sqrt(h.var(0) + 1e-5) for h in (plain, moved))
        change = (plain - plain.mean(0)) / plain_std - (moved - moved.mean(0)) / moved_std
        scale = np.sqrt(plain.var(0).mean())
        scores.append(math.log(np.linalg.norm(change, axis=1).mean()) + math.log(scale))
    value = PROXIES["zen"].function(network, torch.zeros(4, 2, 1, 1), torch.zeros(4))
    assert value == pytest.approx(float(np.mean(scores)), rel=1e-4)


def test_counts() -> None:
    assert score("params") == 6 + 6
    assert score("flops") == 2 * (6 + 6)


def test_rank_vote_by_hand() -> None:
    votes = {"a": np.array([1.0, 5.0, 5.0]), "b": np.array([-math.inf, 2.0, 1.0])}
    assert rank_vote(votes).tolist() == [1.0, (2.5 + 3) / 2, (2.5 + 2) / 2]


def test_the_lowest_score_where_the_image_does_not_arrive() -> None:
    space = load_space("nasbench201").with_skeleton(cells=1, channels=4)
    nothing = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    graph = space.parse(nothing).for_images((3, 8, 8), 10).graph
    assert not reaches_output(graph)
    batch = torch.randn(4, 3, 8, 8), torch.arange(4)
    assert {score_graph(p, graph, *batch, seed=0) for p in PROXIES.values()} == {LOWEST}


def test_zeros_beside_a_connection_do_not_cut_it() -> None:
    graph = GraphBuilder()
    image = graph.add(Input(3, 4, 4), name="input")
    graph.add(Sum(), graph.add(Zeros(3), image), image)
    assert reaches_output(graph.build())


@pytest.mark.parametrize("name", PROXIES)
def test_weights_that_nothing_depends_on(name: str) -> None:
    """A convolution that is read for the size of its result alone."""
    graph = GraphBuilder()
    image = graph.add(Input(3, 4, 4), name="input")
    x = graph.add(Activation(), graph.add(BatchNorm(), image, name="bn"))
    idle = graph.add(Zeros(3), graph.add(Conv(3, 3), image, name="idle"))
    x = graph.add(Sum(), graph.add(Conv(3, 3), x, name="a"), idle)
    graph.add(Linear(2), graph.add(GlobalAveragePool(), x), name="b")
    batch = torch.randn(4, 3, 4, 4), torch.arange(4) % 2
    assert math.isfinite(score_graph(PROXIES[name], graph.build(), *batch, seed=0))


SKELETONS: dict[str, dict[str, int]] = {
    "darts": {"cells": 2, "channels": 4},
    "nasbench201": {"cells": 2, "channels": 4},
    "nasbench101": {"channels": 8},
    "nasbench_macro": {"channels": 4, "head": 32},
    "mobile": {},
}


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("space_name", SKELETONS)
def test_proxies_are_pure_finite_and_repeatable(name: str, space_name: str) -> None:
    space = load_space(space_name).with_skeleton(**SKELETONS[space_name])
    graph = space.sample(random.Random(1)).for_images((3, 16, 16), 5).graph
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(6, 3, 16, 16, generator=generator), torch.arange(6) % 5
    network = initialised(graph, seed=1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    value = PROXIES[name].function(network, *batch)
    assert math.isfinite(value)
    assert all(torch.equal(before[key], item) for key, item in network.state_dict().items())
    assert all(item.grad is None for item in network.parameters())
    assert score_graph(PROXIES[name], graph, *batch, seed=1) == pytest.approx(value, rel=1e-5)
