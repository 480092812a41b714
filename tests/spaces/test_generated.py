"""Space files of every family at their limits: used, or refused in one sentence; never a hang."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ghnas.architectures.blocks import BLOCKS, block_settings
from ghnas.spaces import Space, parse_space
from ghnas.utils.errors import UserError

IMAGES = ((3, 32, 32), (1, 16, 16), (3, 8, 8), (3, 2, 2), (3, 1, 1), (3, 17, 9))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "kernel": st.sampled_from([1, 3, 5, 7, 31]),
    "activation": st.sampled_from(["relu", "relu6", "hardswish", "silu", "gelu", "tanh"]),
}
NUMBER = st.sampled_from([1, 2, 3, 8, 24])


@st.composite
def blocks(draw: st.DrawFn, choices: bool = False) -> dict[str, Any]:
    """A block with all settings that it needs and some of the others."""
    name = draw(st.sampled_from(sorted(BLOCKS)))
    content: dict[str, Any] = {"block": name}
    for key, item in block_settings(name).items():
        if item.default is item.empty or draw(st.booleans()):
            value = VALUES.get(key, NUMBER)
            several = st.lists(value, min_size=1, max_size=3)
            content[key] = draw(several if choices and draw(st.booleans()) else value)
    return content


operations = st.dictionaries(st.sampled_from("abcdefgh"), blocks(), min_size=1, max_size=5)
channels = st.sampled_from([1, 2, 8, 12, 4096])
cells = st.fixed_dictionaries(
    {
        "family": st.just("cells"),
        "skeleton": st.fixed_dictionaries(
            {"channels": channels, "cells": st.integers(1, 7)},
            optional={"stem_multiplier": st.integers(1, 4)},
        ),
        "cell": st.fixed_dictionaries({"nodes": st.integers(1, 5), "operations": operations}),
    }
)
dense_cells = st.fixed_dictionaries(
    {
        "family": st.just("dense_cells"),
        "skeleton": st.fixed_dictionaries(
            {"channels": channels, "cells": st.integers(1, 3), "stages": st.integers(1, 5)}
        ),
        "cell": st.fixed_dictionaries({"nodes": st.integers(2, 6), "operations": operations}),
    }
)
matrix_cells = st.fixed_dictionaries(
    {
        "family": st.just("matrix_cells"),
        "skeleton": st.fixed_dictionaries(
            {"channels": channels, "cells": st.integers(1, 3), "stages": st.integers(1, 5)}
        ),
        "cell": st.fixed_dictionaries(
            {"nodes": st.integers(2, 8), "edges": st.integers(1, 28), "operations": operations}
        ),
    }
)
layers = st.fixed_dictionaries(
    {
        "family": st.just("layers"),
        "skeleton": st.fixed_dictionaries({"channels": channels, "head": channels}),
        "stages": st.lists(st.integers(1, 4), min_size=1, max_size=4),
        "operations": operations,
    }
)
options = NUMBER | st.lists(NUMBER, min_size=1, max_size=3)
stage = st.tuples(
    blocks(choices=True),
    st.fixed_dictionaries({"depth": options, "width": options}, optional={"stride": NUMBER}),
).map(lambda parts: parts[0] | parts[1])
stem = st.tuples(
    blocks(), st.fixed_dictionaries({"width": NUMBER}, optional={"stride": NUMBER})
).map(lambda parts: parts[0] | parts[1])
stages = st.fixed_dictionaries(
    {
        "family": st.just("stages"),
        "skeleton": st.fixed_dictionaries({"stem": stem}),
        "stages": st.lists(stage, min_size=1, max_size=4),
    }
)
bounds = st.tuples(st.integers(1, 6), st.integers(1, 6)).map(sorted) | st.just([3, 2])
nodes = st.sampled_from([([1, 1], 1), ([1, 4], 2), ([2, 6], 6), ([5, 5], 5), ([2, 4], 1)]).map(
    lambda pair: {"nodes": pair[0], "deep_nodes": pair[1]}
)
split = st.tuples(
    st.fixed_dictionaries(
        {"cells": bounds, "deep_from": bounds},
        optional={"norm": st.sampled_from([["bn"], ["none"], ["bn", "none"]])},
    ),
    nodes,
).map(lambda parts: parts[0] | parts[1])
deepnets = st.fixed_dictionaries(
    {
        "family": st.just("deepnets"),
        "skeleton": st.fixed_dictionaries(
            {"channels": st.sampled_from([8, 16, 4096]), "split": st.just("train")}
        ),
        "operations": operations.map(
            lambda known: {"x": {"block": "dil_conv", "kernel": 3}} | known
        )
        | operations,
        "splits": st.fixed_dictionaries({"train": split}),
    }
)
FAMILIES = {
    "cells": cells,
    "dense_cells": dense_cells,
    "matrix_cells": matrix_cells,
    "stages": stages,
    "layers": layers,
    "deepnets": deepnets,
}


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data(), seed=st.integers(0, 2**32), image=st.sampled_from(IMAGES))
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_a_file_is_used_or_refused(
    family: str, data: st.DataObject, seed: int, image: tuple[int, ...]
) -> None:
    content = {"name": "mine"} | data.draw(FAMILIES[family])
    try:
        space = parse_space(yaml.safe_dump(content), "mine.yaml").for_images(image, 10)
        use(space, random.Random(seed))
    except UserError as error:
        sentence = str(error)
    else:
        return
    assert "\n" not in sentence
    assert len(sentence) < 300


def use(space: Space, rng: random.Random) -> None:
    first, second = space.sample(rng), space.sample(rng)
    for item in (first, space.mutate(first, rng), space.crossover(first, second, rng)):
        assert space.parse(str(item)) == item
        assert item.graph.nodes[-1].shape == (10,)
        assert all(size > 0 for node in item.graph.nodes for size in node.shape)
        assert len(item.hash) == 32
    if first.flops < 1e8:
        images = torch.randn(2, *first.image_shape)
        assert first.build(seed=0)(images).shape == (2, 10)
