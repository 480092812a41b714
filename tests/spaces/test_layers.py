"""Spaces of layers: NAS-Bench-Macro's notation and sizes."""

from __future__ import annotations

import csv
from itertools import islice, product
from pathlib import Path

import pytest

from ghnas.spaces import load_space
from ghnas.utils.errors import UserError

SPACE = load_space("nasbench_macro")
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TABLE = DATA / "nasbench_macro" / "accuracies.csv"


@pytest.mark.parametrize(
    ("text", "parameters", "multiply_adds"),
    [
        # stem, three 1x1 convolutions of stride 2, head, classifier
        (
            "00000000",
            928 + (2_176 + 8_448 + 33_280) + 330_240 + 12_810,
            884_736 + 3 * 524_288 + 5_242_880 + 12_800,
        ),
        # the first of the stages' second layers expands 64 channels to 192
        (
            "01000000",
            387_882 + (12_672 + 2_112 + 12_416),
            7_713_280 + (3_145_728 + 442_368 + 3_145_728),
        ),
    ],
)
def test_sizes_by_hand(text: str, parameters: int, multiply_adds: int) -> None:
    architecture = SPACE.parse(text)
    assert architecture.parameters == parameters
    assert architecture.flops == 2 * multiply_adds


def test_a_table_of_published_sizes() -> None:
    if not TABLE.is_file():
        pytest.skip("needs NAS-Bench-Macro's table in shared/data")
    with TABLE.open() as file:
        for row in islice(csv.DictReader(file), 300):
            architecture = SPACE.parse(row["architecture"])
            assert architecture.parameters == int(row["parameters"])
            assert architecture.flops == 2 * int(row["flops"])
            assert str(architecture) == row["architecture"]


def test_the_notation_numbers_the_operations() -> None:
    architecture = SPACE.parse("01200000")
    first = [architecture.choices[f"layer.{number}"] for number in range(3)]
    assert first == ["identity", "k3_e3", "k5_e6"]
    assert SPACE.size == 3**8


def test_an_identity_can_stand_anywhere_in_a_stage() -> None:
    """3 first layers, and 7 different rows of up to two blocks: 9 x 21 x 21 = 3,969 networks."""
    stages = ("".join(digits) for digits in product("012", repeat=3))
    assert len({SPACE.parse("00000" + stage).hash for stage in stages}) == 21
    assert SPACE.parse("00000010").hash == SPACE.parse("00000001").hash
    assert SPACE.parse("00000100").hash != SPACE.parse("00000010").hash


@pytest.mark.parametrize("text", ["", "0000000", "000000000", "00000003", "0000000x", "0000000²"])
def test_other_texts_are_explained(text: str) -> None:
    with pytest.raises(UserError, match="8 digits from 0 to 2"):
        SPACE.parse(text)


def test_skeletons() -> None:
    small = SPACE.with_skeleton(channels=4, head=32).for_images((3, 5, 7), 3)
    assert small.sample(0).graph.nodes[-1].shape == (3,)
    with pytest.raises(UserError, match="cells"):
        SPACE.with_skeleton(cells=3)
