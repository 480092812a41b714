"""Spaces as files: round trips, validity, and errors that name file, key and expectation."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from searching import DARTS_V2

from ghnas.architectures.genotypes import format_genotype, parse_genotype
from ghnas.architectures.network import Network
from ghnas.spaces import list_spaces, load_space, parse_space, read_space_file
from ghnas.spaces.archive import Architectures, generate
from ghnas.utils.errors import UserError

SHAPE = (3, 16, 16)


@pytest.mark.parametrize("name", list_spaces())
@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_candidates_round_trip_and_build(name: str, seed: int) -> None:
    space, rng = load_space(name), random.Random(seed)
    candidate = space.sample(rng)
    assert space.parse(str(candidate)) == candidate
    assert space.architecture(candidate.choices) == candidate
    mutant = space.mutate(candidate, rng)
    old, new = candidate.choices, mutant.choices
    assert sum(new[key] != old[key] for key in old) == 1
    child = space.crossover(candidate, mutant, rng)
    assert all(child.choices[key] in (old[key], new[key]) for key in old)
    for item in (candidate, mutant, child):
        assert item.for_images(SHAPE, 10).graph.nodes[-1].shape == (10,)


@pytest.mark.parametrize("name", list_spaces())
def test_other_processes_are_sent_no_graph(name: str) -> None:
    candidate = load_space(name).sample(random.Random(0)).for_images(SHAPE, 10)
    key = candidate.hash
    sent = pickle.loads(pickle.dumps(candidate))
    assert sent == candidate
    assert "graph" not in vars(sent)
    assert vars(sent)["hash"] == key == sent.graph.hash


@pytest.mark.parametrize("name", list_spaces())
def test_networks_run(name: str) -> None:
    space = load_space(name)
    graph = space.sample(random.Random(3)).for_images(SHAPE, 7).graph
    network = Network(graph)
    assert network(torch.randn(4, *SHAPE)).shape == (4, 7)
    assert sum(p.numel() for p in network.parameters()) == graph.parameter_count


@pytest.mark.parametrize("name", list_spaces())
def test_archives_hold_what_was_sampled(tmp_path: Path, name: str) -> None:
    space = load_space(name)
    generate(tmp_path, space, read_space_file(name), count=6, seed=0, workers=1)
    kept = Architectures(tmp_path)
    for architecture, parameters in zip(kept, kept.column("parameters"), strict=True):
        assert architecture.parameters == parameters
        assert space.parse(str(architecture)) == architecture


def test_sampling_repeats_by_seed() -> None:
    space = load_space("darts")
    again = [space.sample(random.Random(5)) for _ in range(2)]
    assert again[0] == again[1]


def test_darts_v2_has_the_published_size() -> None:
    """3.3 M parameters without the auxiliary head (Liu, Simonyan and Yang, 2019, table 1)."""
    space = load_space("darts").with_skeleton(cells=20, channels=36)
    graph = space.parse(DARTS_V2).for_images((3, 32, 32), 10).graph
    assert graph.parameter_count == pytest.approx(3.35e6, rel=0.02)


def test_genotypes_are_parsed_not_evaluated() -> None:
    genotype = parse_genotype(DARTS_V2)
    assert parse_genotype(format_genotype(genotype)) == genotype
    for text in ("__import__('os')", "Genotype(normal=open('x'))", "Genotype(", "[]"):
        with pytest.raises(UserError, match="not a genotype"):
            parse_genotype(text)


def test_genotypes_are_read_with_other_quotes_brackets_and_spaces() -> None:
    other = DARTS_V2.replace("'", '"').replace("[", "(").replace("]", ")").replace(", ", " ,\n ")
    assert parse_genotype(other) == parse_genotype(DARTS_V2)
    listed = DARTS_V2.replace("range(2, 6)", "[2, 3, 4, 5]")
    assert parse_genotype(listed) == parse_genotype(DARTS_V2)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("range(2, 6)", "range(0,1000000000)"),
        ("range(2, 6)", "range(2, 6, 1)"),
        ("range(2, 6)", "[2, 3]"),
        (", 0)", ", 1e400)"),
        (", 0)", ", " + "9" * 5000 + ")"),
        (", 0)", ", " + "-" * 100_000 + "1)"),
        (", 0)", ", -1)"),
        (", 0)", ", \uff10)"),
        ("normal=", "reduce="),
        ("normal=", "normal=" + "[" * 5000),
        ("normal=", "x" * 5000 + "="),
        ("normal=", "**"),
        ("('sep_conv_3x3', 0)", "'sep_conv_3x3', 0"),
        ("'sep_conv_3x3'", "'sep' 'conv'"),
        ("'sep_conv_3x3'", "'" + "x" * 10**6 + "'"),
        ("'sep_conv_3x3'", "'\\x1b'"),
    ],
)
def test_texts_that_are_no_genotype(old: str, new: str) -> None:
    with pytest.raises(UserError) as caught:
        load_space("darts").parse(DARTS_V2.replace(old, new, 1))
    assert len(str(caught.value)) < 1000


def test_every_candidate_is_connected() -> None:
    space, rng = load_space("darts"), random.Random(0)
    nothing = {
        item.name: "none" if "none" in item.options else item.options[0] for item in space.choices
    }
    assert not space.is_connected(nothing)
    assert all(space.is_connected(dict(space.sample(rng).choices)) for _ in range(200))


def test_a_new_space_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "resnets.yaml"
    path.write_text(
        """
name: resnets
family: stages
skeleton:
  stem: {block: conv_bn_act, width: 8}
stages:
  - {block: residual, depth: [1, 2], width: 8, kernel: [3, 5]}
  - {block: residual, depth: [1, 2, 3], width: [16, 32], stride: 2}
"""
    )
    space = load_space(str(path))
    assert space.size == 2 * 2 * 3 * 2
    graph = space.sample(random.Random(0)).for_images(SHAPE, 10).graph
    assert Network(graph)(torch.randn(2, *SHAPE)).shape == (2, 10)


def edited(tmp_path: Path, name: str, *keys: str | int, value: object) -> str:
    """A copy of a space file with one value changed."""
    content = yaml.safe_load(list_spaces()[name].read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize(
    ("name", "keys", "value", "words"),
    [
        ("darts", ("colour",), 1, ("colour", "unknown key")),
        ("darts", ("skeleton", "cells"), "many", ("skeleton.cells", "integer")),
        ("darts", ("skeleton", "cells"), 0, ("skeleton.cells", "1")),
        ("darts", ("family",), "trees", ("family", "cells", "stages")),
        ("darts", ("cell", "operations", "none"), {"block": "warp"}, ("warp", "nearest")),
        ("darts", ("cell", "operations"), {}, ("operations", "at least 1")),
        ("darts", ("cell", "operations", "x"), {"block": "sep_conv"}, ("kernel",)),
        ("darts", ("cell", "operations", "x"), {"block": "skip", "kernel": 3}, ("kernel",)),
        ("darts", ("cell", "operations", "x"), {"block": "max_pool", "kernel": 4}, ("odd",)),
        ("darts", ("cell", "operations"), {"none": {"block": "zeros"}}, ("besides 'zeros'",)),
        ("nasbench201", ("cell", "operations"), {"a": {"block": "zeros"}}, ("besides 'zeros'",)),
        (
            "darts",
            ("cell", "operations", "x"),
            {"block": "max_pool", "kernel": [3, 5]},
            ("single",),
        ),
        ("darts", ("cell", "operations", "a|b"), {"block": "skip"}, ("operations.a|b",)),
        ("darts", ("family",), ["cells"], ("family", "cells", "stages")),
        ("darts", ("name",), "a/b", ("name",)),
        ("mobile", ("stages", 0, "activation"), ["relu", "reel"], ("activation", "reel")),
        ("mobile", ("stages", 0, "depth"), [2, 2], ("depth", "different")),
        ("mobile", ("stages", 0, "depth"), 10**9, ("depth", "100")),
        ("mobile", ("stages", 1, "kernel"), [3, 3], ("kernel", "different")),
        ("deepnets1m", ("operations",), {"a": {"block": "max_pool"}}, ("a convolution",)),
        ("deepnets1m", ("splits", "train", "deep_nodes"), 5, ("deep_nodes", "within nodes")),
        ("deepnets1m", ("splits", "train", "cells"), [1, 10**9], ("splits.train.cells", "200")),
        ("mobile", ("stages", 0, "depth"), [], ("stages.0", "depth")),
        ("mobile", ("stages", 1, "kernel"), [], ("kernel", "empty")),
        ("mobile", ("stages", 1, "width"), [0], ("width", "0")),
        ("mobile", ("stages", 1, "kernel"), 4095, ("kernel", "63")),
        (
            "mobile",
            ("stages",),
            [{"block": "skip", "depth": 1, "width": i} for i in range(1, 66)],
            ("64",),
        ),
        ("mobile", ("stages", 0, "depth"), list(range(1, 101)) * 2, ("depth", "different")),
        ("darts", ("name",), "../zzz", ("name",)),
        ("darts", ("name",), "a\nb", ("name",)),
        ("darts", ("name",), "a\x1b[31m", ("name",)),
        ("darts", ("name",), "x" * 300, ("name", "80")),
        ("darts", ("name",), "", ("name",)),
        ("darts", ("description",), "\x1b[31mred", ("description",)),
        ("darts", ("cell", "operations", "\x1b"), {"block": "skip"}, ("operations",)),
        ("deepnets1m", ("splits", "../x"), None, ("splits",)),
    ],
)
def test_broken_files_are_explained(
    tmp_path: Path, name: str, keys: tuple[str | int, ...], value: object, words: tuple[str, ...]
) -> None:
    path = edited(tmp_path, name, *keys, value=value)
    with pytest.raises(UserError) as caught:
        load_space(path)
    assert str(caught.value).startswith(path)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: x\nfamily: [cells\n")
    with pytest.raises(UserError, match=r"broken\.yaml: line \d"):
        load_space(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "name: 2026-13-45",
        "a: " + "[" * 10_000,
        "- name",
        "",
        "9" * 5000,
        "a: &a [1]\nb: *a",
        "a0: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(30)),
        "a: &a {b: *a}",
        "[" * 60 + "]" * 60,
        "- " * 5000 + "x",
        "# " + "x" * 10**6,
        "!!python/object/apply:os.system [true]",
        "? [a]\n: b",
        "a: 1e400\nfamily: .nan",
    ],
)
def test_other_broken_texts(text: str) -> None:
    with pytest.raises(UserError, match=r"^mine\.yaml: "):
        parse_space(text, "mine.yaml")


ONE_ARCHITECTURE = """
name: one
family: stages
skeleton: {stem: {block: conv_bn_act, width: 4}}
stages: [{block: residual, depth: 1, width: 4}]
"""
ONE_CONNECTED = """
name: one
family: dense_cells
skeleton: {channels: 4, cells: 1, stages: 1}
cell: {nodes: 2, operations: {none: {block: zeros}, conv: {block: relu_conv_bn}}}
"""


@pytest.mark.parametrize("text", [ONE_ARCHITECTURE, ONE_CONNECTED])
def test_an_architecture_without_others_is_its_own_mutant(text: str) -> None:
    space, rng = parse_space(text, "one.yaml"), random.Random(0)
    only = space.sample(rng)
    assert space.mutate(only, rng) == only
    assert space.crossover(only, only, rng) == only
    assert space.parse(str(only)) == only


def test_a_change_that_connects_is_found_however_rare() -> None:
    operations = {f"none{i}": {"block": "zeros"} for i in range(500)}
    operations |= {f"conv{i}": {"block": "relu_conv_bn"} for i in range(2)}
    content = yaml.safe_load(ONE_CONNECTED)
    content["cell"]["operations"] = operations
    space, rng = parse_space(yaml.safe_dump(content), "mine.yaml"), random.Random(0)
    first = space.architecture({"0-1": "conv0"})
    assert {str(space.mutate(first, rng)) for _ in range(10)} == {"|conv1~0|"}


def test_a_space_whose_rules_nothing_meets_says_so() -> None:
    content = yaml.safe_load(read_space_file("deepnets1m"))
    content["operations"] = {"large": {"block": "relu_conv_bn", "kernel": 7}}
    space = parse_space(yaml.safe_dump(content), "mine.yaml")
    with pytest.raises(UserError, match="of 10,000 random architectures none connects"):
        space.sample(0)


def test_images_that_are_too_small() -> None:
    space = load_space("darts")
    with pytest.raises(UserError, match="too small"):
        _ = space.sample(random.Random(0)).for_images((3, 4, 4), 10).graph
