"""Spaces of matrix cells: NAS-Bench-101's notation, sizes, pruning, reference network."""

from __future__ import annotations

import csv
import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ghnas.architectures.network import Network, load_parameters
from ghnas.reports.drawing import as_svg, as_text, draw
from ghnas.spaces import load_space
from ghnas.utils.errors import UserError

SPACE = load_space("nasbench101")
FULL = SPACE.with_skeleton(channels=128, cells=3)
SHAPE = (3, 8, 8)
TABLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "nasbench101" / "accuracies.csv"
CONV3, CONV1, POOL = "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"


def notation(edges: str, *operations: str) -> str:
    """A cell of edges such as `01 12`."""
    count = len(operations) + 2
    pairs = {(int(a), int(b)) for a, b in edges.split()}
    matrix = [[int((a, b) in pairs) for b in range(count)] for a in range(count)]
    content = {"adjacency": matrix, "ops": ["input", *operations, "output"]}
    return json.dumps(content, separators=(",", ":"))


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        # stem 3,712; projections of 128, 256 and 512 channels 49,920, 165,376 and 658,432;
        # classifier 5,130
        (notation("01"), 882_570),
        (notation("01 12", POOL), 882_570),
        # and nine convolutions: 443,136, 1,771,008 and 7,080,960
        (notation("01 12", CONV3), 10_177_674),
        # the example of the benchmark's own page
        (
            notation("01 02 03 05 16 26 34 46 56", CONV1, CONV3, CONV3, CONV3, POOL),
            2_694_282,
        ),
    ],
)
def test_sizes_are_the_published_ones(text: str, parameters: int) -> None:
    assert FULL.parse(text).parameters == parameters


def test_a_table_of_published_sizes() -> None:
    if not TABLE.is_file():
        pytest.skip("needs NAS-Bench-101's table in shared/data")
    with TABLE.open() as file:
        for row in islice(csv.DictReader(file), 300):
            architecture = FULL.parse(row["architecture"])
            assert architecture.parameters == int(row["parameters"])
            assert str(architecture) == row["architecture"]


def test_channels_are_divided_among_what_the_output_reads() -> None:
    """Vertices 1, 2 and 4 are concatenated; 3 is as wide as 4, which reads it."""
    text = notation("01 02 03 15 25 34 45", *[CONV1] * 4)
    cell = SPACE.cell(dict(SPACE.parse(text).choices))
    assert cell.widths(128) == [43, 43, 42, 42]
    assert cell.widths(15) == [5, 5, 5, 5]


def reference(text: str, parameters: dict[str, Tensor], images: Tensor) -> Tensor:
    """The network of one cell a stage, as the paper describes it, on named parameters."""
    content: dict[str, Any] = json.loads(text)
    matrix, operations = content["adjacency"], content["ops"]
    last = len(operations) - 1

    def conv(x: Tensor, name: str) -> Tensor:
        weight = parameters[f"{name}.0.weight"]
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        scale, shift = (parameters[f"{name}.1.{key}"] for key in ("weight", "bias"))
        return F.batch_norm(x, None, None, scale, shift, training=True).relu()

    def cell(x: Tensor, name: str, channels: int) -> Tensor:
        ends = [v for v in range(1, last) if matrix[v][last]]
        widths = dict.fromkeys(range(last), 0)
        for number, vertex in enumerate(ends):
            widths[vertex] = channels // len(ends) + (number < channels % len(ends))
        for v in reversed(range(1, last)):
            if v not in ends:
                widths[v] = max(widths[t] for t in range(v + 1, last) if matrix[v][t])
        outputs = {0: x}
        for v in range(1, last):
            total: Tensor | float = 0.0
            for s in range(1, v):
                if matrix[s][v]:
                    total = total + outputs[s][:, : widths[v]]
            if matrix[0][v]:
                total = total + conv(x, f"{name}.input{v}")
            assert isinstance(total, Tensor)
            pooled = operations[v] == POOL
            outputs[v] = (
                F.max_pool2d(total, 3, 1, 1) if pooled else conv(total, f"{name}.vertex{v}")
            )
            assert outputs[v].shape[1] == widths[v]
        joined = torch.cat([outputs[v] for v in ends], 1) if ends else torch.zeros(())
        return joined + conv(x, f"{name}.output") if matrix[0][last] else joined

    x = conv(images, "stem")
    for index in range(3):
        x = F.max_pool2d(x, 2, 2) if index else x
        x = cell(x, f"cells.{index}", 10 * 2**index)
    return x.mean((2, 3)) @ parameters["classifier.weight"].T + parameters["classifier.bias"]


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_networks_are_those_of_the_paper(seed: int) -> None:
    space = SPACE.with_skeleton(channels=10)  # not a multiple of the 3 or 4 that are concatenated
    cell = space.cell(dict(space.sample(seed).choices))
    pairs = [f"{s}{t}" for t, sources in enumerate(cell.sources, 1) for s in sources]
    text = notation(" ".join(pairs), *cell.operations)
    graph = space.parse(text).for_images(SHAPE, 10).graph
    generator = torch.Generator().manual_seed(seed)
    parameters = {
        name: torch.randn(shape, generator=generator) / (shape[-1] * shape[0] ** 0.5)
        for name, shape in graph.parameters.items()
    }
    network = Network(graph)
    load_parameters(network, parameters)
    images = torch.randn(6, *SHAPE, generator=generator)
    expected = reference(text, parameters, images)
    torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-4)


edge = st.sampled_from([0, 0, 1])
any_choices = st.fixed_dictionaries(
    {
        choice.name: edge if choice.options == (0, 1) else st.sampled_from(choice.options)
        for choice in SPACE.choices
    }
)


@given(any_choices)
@settings(max_examples=150, deadline=None)
def test_what_is_connected_can_be_built_and_nothing_else(choices: dict[str, Any]) -> None:
    architecture = SPACE.architecture(choices)
    if not SPACE.is_connected(choices):
        with pytest.raises(UserError, match=r"a path from input|at most 9 edges"):
            _ = architecture.graph
        return
    assert SPACE.parse(str(architecture)) == architecture
    assert architecture.graph.nodes[-1].shape == (10,)
    (drawing,) = draw(architecture)
    cell = SPACE.cell(choices)
    assert as_text(drawing).count("3x3") == sum("3x3" in name for name in cell.operations)
    assert as_svg([drawing]).endswith("</svg>\n")


def test_every_draw_is_a_cell_of_which_nothing_is_pruned() -> None:
    rng, sizes = random.Random(0), []
    for _ in range(300):
        choices = SPACE.draw(rng)
        assert SPACE.is_connected(choices)
        edges = sum(value for value in choices.values() if isinstance(value, int))
        assert SPACE.cell(choices).edges == edges <= 9
        sizes.append(len(SPACE.cell(choices).operations))
    assert set(sizes) >= {3, 4, 5}


def test_equal_networks_have_equal_hashes() -> None:
    """Vertices on no path, and another order of the vertices."""
    first = SPACE.parse(notation("01 12 02 23", CONV3, POOL))
    hanging = notation("01 02 12 13 24 45 06", CONV3, CONV1, CONV1, POOL, POOL)
    assert SPACE.parse(hanging).hash == SPACE.parse(notation("01")).hash
    padded = SPACE.parse(notation("02 24 04 46 01 56", CONV1, CONV3, CONV1, POOL, CONV3))
    assert padded.hash == first.hash
    assert padded.graph.parameters == first.graph.parameters
    swapped = [notation("01 02 13 23", *names) for names in ((CONV3, CONV1), (CONV1, CONV3))]
    assert SPACE.parse(swapped[0]).hash == SPACE.parse(swapped[1]).hash != first.hash


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("none", "not an architecture"),
        ('{"adjacency":[[0,2],[0,0]],"ops":["input","output"]}', "adjacency"),
        ('{"adjacency":[[0,1]],"ops":["input","output"]}', "a row and a column"),
        (notation("01", *[CONV1] * 6), "from 2 to 7"),
        ('{"adjacency":[[0,1],[0,0]],"ops":["output","input"]}', "begin with 'input'"),
        ('{"adjacency":[[0,1],[1,0]],"ops":["input","output"]}', "upper triangular"),
        (notation("01 12", "conv7x7"), "conv7x7"),
        (notation("01", CONV3), "a path from input to output"),
        (notation("01 02 03 04 12 23 34 45 05 15", *[CONV3] * 4), "at most 9 edges, not 10"),
    ],
)
def test_other_texts_are_explained(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        SPACE.parse(text)


def test_skeletons_that_do_not_fit() -> None:
    with pytest.raises(UserError, match=r"skeleton\.channels must be at least 5"):
        SPACE.with_skeleton(channels=4)
    with pytest.raises(UserError, match="too small"):
        _ = SPACE.sample(0).for_images((3, 3, 3), 10).graph
