"""Numbers and drawings for people."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree

import pytest

from ghnas.engine.order import Noise, Order
from ghnas.reports.drawing import as_svg, as_text, draw
from ghnas.reports.numbers import format_count, format_latency, format_percent, format_seconds
from ghnas.reports.tables import describe_order, summarise
from ghnas.spaces import load_space
from ghnas.utils.statistics import Estimate

IMAGE = (3, 16, 16)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (789, "789"),
        (999, "999"),
        (1000, "1.00k"),
        (45_600, "45.6k"),
        (999_999, "1.00M"),
        (1_230_000, "1.23M"),
        (123_400_000, "123M"),
        (9_999_999, "10.0M"),
        (2.5e9, "2.50G"),
    ],
)
def test_counts_have_three_digits(value: float, text: str) -> None:
    assert format_count(value) == text


def test_shares_and_times() -> None:
    assert format_percent(0.6321) == "63.2 %"
    assert format_percent(None) == format_percent(float("nan")) == "-"
    assert [format_seconds(s) for s in (0.85, 12.34, 245, 7380)] == [
        "850 ms",
        "12.3 s",
        "4 min 05 s",
        "2 h 03 min",
    ]


def test_latencies_have_as_many_digits_in_a_column() -> None:
    assert [format_latency(s) for s in (0.004, 0.00373, 0.0123, 1.2345)] == [
        "4.00 ms",
        "3.73 ms",
        "12.3 ms",
        "1,234 ms",
    ]


@pytest.mark.parametrize("name", ["darts", "mobile", "nasbench101", "nasbench_macro"])
def test_every_candidate_can_be_drawn(name: str) -> None:
    space = load_space(name)
    rng = random.Random(0)
    for _ in range(20):
        architecture = space.sample(rng)
        drawings = draw(architecture.for_images(IMAGE, 10))
        ElementTree.fromstring(as_svg(drawings))
        for drawing in drawings:
            lines = as_text(drawing).splitlines()
            assert max(map(len, lines)) <= 80
            for part in drawing.parts:
                assert all(wire.source < drawing.parts.index(part) for wire in part.wires)


def test_a_cell_is_drawn_as_its_genotype() -> None:
    space = load_space("darts")
    edges = [("sep_conv_3x3", 0), ("none", 1), ("none", 0), ("none", 2)]
    edges += [("skip_connect", 1), ("max_pool_3x3", 2), ("dil_conv_5x5", 3), ("none", 4)]
    text = f"Genotype(normal={edges}, reduce={edges})"
    architecture = space.parse(text)
    normal, reduce = draw(architecture.for_images(IMAGE, 10))
    assert [[(w.label, w.source) for w in part.wires] for part in normal.parts[2:6]] == [
        [("sep_conv_3x3", 0)],
        [],
        [("skip_connect", 1), ("max_pool_3x3", 2)],
        [("dil_conv_5x5", 3)],
    ]
    assert normal.parts == reduce.parts
    drawn = as_text(normal)
    assert "0 ── sep_conv_3x3 ───> 2" in drawn
    assert "2 ── max_pool_3x3 ─┴─> 4" in drawn
    assert "nothing ─> 3" in drawn
    assert "none" not in drawn


def test_long_labels_are_cut_short() -> None:
    """The blocks of DeepNets-1M are a dozen operations in a row."""
    drawings = draw(load_space("deepnets1m").sample(seed=3).for_images(IMAGE, 10))
    longest = max(
        wire.label.count(",") + 1 for item in drawings for part in item.parts for wire in part.wires
    )
    assert longest > 5
    assert f">and {longest - 4} more<" in as_svg(drawings)


def test_a_shortcut_is_a_wire_of_its_own() -> None:
    space = load_space("mobile")
    rng = random.Random(3)
    labels: set[str] = set()
    for _ in range(10):
        architecture = space.sample(rng)
        (drawing,) = draw(architecture.for_images(IMAGE, 10))
        assert drawing.parts[-1].name == "classifier"
        labels |= {wire.label for part in drawing.parts for wire in part.wires}
    assert "skip" in labels


def test_summaries_are_short() -> None:
    darts, mobile = load_space("darts"), load_space("mobile")
    summary = summarise(darts.sample(random.Random(0)))
    assert sum(map(int, summary.split()[::2])) == 16
    assert set(summary.split()[1::2]) <= {"sep", "dil", "max", "avg", "skip", "none"}
    assert summarise(mobile.sample(random.Random(0))).startswith("s0.depth=")


def test_the_line_of_trust() -> None:
    """What a predictor reaches, and what the noise of a training allows."""
    agreement = Estimate(0.45, 0.2, 0.6)
    plain = describe_order(Order({}, 32, agreement))
    assert plain.endswith("of the 32 trained, a predictor orders those that it has not seen at "
                          "Spearman 0.45 (0.20 to 0.60)")  # fmt: skip
    noise = Noise(Estimate(0.0102, 0.005, 0.04), 0.03, Estimate(0.94, 0.7, 0.99), 3)
    whole = describe_order(Order({}, 32, agreement, noise))
    assert whole == (
        f"{plain}; 3 were trained twice: the loss of a candidate varies by 0.01 (0.005 to 0.04) "
        "between trainings, by 0.03 between candidates, which allows any order at most "
        "0.94 (0.70 to 0.99)"
    )
