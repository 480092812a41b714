"""A mixture of random search spaces of every family, which a general hypernetwork is trained on.

Each architecture comes from another space: one of the catalogue with a random skeleton, or one with
random operations too, as a user could have written it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph
from ghnas.ghn.config import GENERAL
from ghnas.spaces.base import Space
from ghnas.spaces.registry import FAMILIES, load_space
from ghnas.utils.errors import UserError

IMAGE, CLASSES = (3, 16, 16), 10
"""What the size of a network is counted for, and the smallest images that all are built for."""
TYPICAL_FLOPS, TYPICAL_NODES = 2_500_000, 150
"""A network with more is kept with the probability of these by its own, so that large networks, and
deep ones, do not take most of the time."""
MOST_FLOPS, MOST_PARAMETERS, MOST_NODES = 40_000_000, 3_000_000, 500
"""No network of the mixture has more."""
MIXED_CLIP = 0.5
"""`TrainSettings.network_clip` for the mixture: its networks' gradients are from 0.3 to 14 long."""
WIDTHS = (8, 12, 16, 20, 24, 32, 40, 48, 56, 64, 80, 96)
ACTIVATIONS = ("relu", "relu", "relu", "relu6", "hardswish", "silu", "gelu")


class Mixture:
    """Architectures of random spaces, for the training of a hypernetwork.

    Args:
        shares: The relative frequency of each kind of space, by its name in `KINDS`.

    Attributes:
        name: What the hypernetwork remembers as its space.
        skeleton: Empty: each space has its own.

    Example:
        >>> from ghnas.training.hypernetwork.mixture import Mixture
        >>> Mixture().sample(seed=0).graph.nodes[-1].shape
        (10,)
    """

    name = GENERAL
    skeleton: Mapping[str, Any] = {}

    def __init__(self, shares: Mapping[str, float] | None = None) -> None:
        chosen = {name: share for name, (share, _) in KINDS.items()} if shares is None else shares
        self.kinds, self.shares = tuple(chosen), tuple(chosen.values())

    def sample(self, seed: int | random.Random | None = None) -> Architecture:
        """A random architecture of a random space, within the limits of this module.

        Args:
            seed: As of `Space.sample`.
        """
        rng = seed if isinstance(seed, random.Random) else random.Random(seed)
        draw = KINDS[rng.choices(self.kinds, self.shares)[0]][1]
        while True:
            try:
                architecture = draw(rng).for_images(IMAGE, CLASSES).sample(rng)
                graph = architecture.graph
            except UserError:  # such as operations that do not connect the image to the output
                continue
            if _fits(graph) and rng.random() < _kept_share(graph):
                return architecture


def _kept_share(graph: Graph) -> float:
    by_flops = TYPICAL_FLOPS / max(graph.flops, TYPICAL_FLOPS)
    return by_flops * TYPICAL_NODES / max(len(graph.nodes), TYPICAL_NODES)


def _fits(graph: Graph) -> bool:
    return (
        graph.flops <= MOST_FLOPS
        and graph.parameter_count <= MOST_PARAMETERS
        and len(graph.nodes) <= MOST_NODES
    )


_known = cache(load_space)


def _space(family: str, **content: Any) -> Space:
    """A space as from a file with this content."""
    file, cls = FAMILIES[family]
    return cls(file.model_validate({"name": family, "family": family} | content))


def _kernel(rng: random.Random, most: int = 7) -> int:
    return rng.choice([kernel for kernel in (3, 3, 3, 5, 5, 7) if kernel <= most])


def _convolution(rng: random.Random) -> dict[str, Any]:
    """A block with weights that takes any number of channels to any other."""
    name = rng.choice(tuple(_CONVOLUTIONS))
    return {"block": name} | _CONVOLUTIONS[name](rng)


_CONVOLUTIONS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "sep_conv": lambda rng: {"kernel": _kernel(rng)},
    "dil_conv": lambda rng: {"kernel": _kernel(rng, 5), "dilation": rng.choice((2, 2, 3))},
    "relu_conv_bn": lambda rng: {"kernel": rng.choice((1, 3, 3, 5))},
    "relu_line_conv_bn": lambda rng: {"kernel": _kernel(rng)},
    "conv_bn_act": lambda rng: {
        "kernel": rng.choice((1, 3, 3, 5)),
        "activation": rng.choice(ACTIVATIONS),
    },
    "inverted_residual": lambda rng: {
        "kernel": _kernel(rng),
        "expansion": rng.choice((1, 2, 3, 4, 6)),
        "activation": rng.choice(ACTIVATIONS),
    },
    "residual": lambda rng: {
        "kernel": _kernel(rng, 5),
        "activation": rng.choice(ACTIVATIONS),
    },
    "relu_residual": lambda rng: {"kernel": _kernel(rng, 5)},
}

_OTHERS: tuple[dict[str, Any], ...] = (
    {"block": "skip"},
    {"block": "skip"},
    {"block": "zeros"},
    {"block": "max_pool", "kernel": 3},
    {"block": "avg_pool", "kernel": 3},
)
_RARE: tuple[dict[str, Any], ...] = ({"block": "squeeze_excitation"}, {"block": "transformer"})
"""Blocks that leave the number of channels as it is; the second ones take long on a CPU."""
RARE_SHARE = 0.2


def _operations(rng: random.Random) -> dict[str, dict[str, Any]]:
    """Random operations of an edge, at least half of them with weights."""
    count = rng.randint(2, 4)
    blocks = [_convolution(rng) for _ in range(count)]
    blocks += rng.sample(_OTHERS, rng.randint(1, count))
    if rng.random() < RARE_SHARE:
        blocks.append(rng.choice(_RARE))
    return {f"operation{number}": item for number, item in enumerate(blocks)}


def _darts(rng: random.Random) -> Space:
    channels = rng.choice((4, 6, 8, 10, 12, 12, 16, 16))
    return _known("darts").with_skeleton(channels=channels, cells=rng.randint(3, 14))


def _cells(rng: random.Random) -> Space:
    skeleton = {
        "channels": rng.choice((4, 6, 8, 10, 12, 16, 20, 24)),
        "cells": rng.randint(2, 12),
        "stem_multiplier": rng.randint(1, 3),
    }
    cell = {"nodes": rng.randint(2, 5), "operations": _operations(rng)}
    return _space("cells", skeleton=skeleton, cell=cell)


def _staged(rng: random.Random) -> dict[str, int]:
    """A skeleton of cells in stages."""
    return {
        "channels": rng.choice((8, 12, 16, 16, 20, 24, 32)),
        "cells": rng.randint(1, 5),
        "stages": rng.choice((2, 3, 3, 3)),
    }


def _nasbench201(rng: random.Random) -> Space:
    return _known("nasbench201").with_skeleton(**_staged(rng))


def _dense_cells(rng: random.Random) -> Space:
    cell = {"nodes": rng.randint(3, 5), "operations": _operations(rng)}
    return _space("dense_cells", skeleton=_staged(rng), cell=cell)


def _nasbench101(rng: random.Random) -> Space:
    return _known("nasbench101").with_skeleton(**_staged(rng))


def _matrix_cells(rng: random.Random) -> Space:
    nodes = rng.randint(4, 7)
    cell = {"nodes": nodes, "edges": rng.randint(nodes, 10), "operations": _operations(rng)}
    return _space("matrix_cells", skeleton=_staged(rng), cell=cell)


def _deepnets(rng: random.Random) -> Space:
    return _known("deepnets1m").with_skeleton(
        channels=rng.choice((8, 8, 16, 24)),
        fc_width=rng.choice((32, 64, 128, 256)),
        split=rng.choice(("train", "train", "train", "train", "deep", "dense", "bnfree")),
    )


def _mobile(rng: random.Random) -> Space:
    return _known("mobile")


def _stages(rng: random.Random) -> Space:
    """Stages of one block with other settings in each, or of another block in each."""
    widths = sorted(rng.choices(WIDTHS, k=rng.randint(2, 5)))
    stem = {
        "block": "conv_bn_act",
        "kernel": _kernel(rng),
        "activation": rng.choice(ACTIVATIONS),
        "width": rng.choice(WIDTHS[:7]),
        "stride": rng.choice((1, 1, 1, 2)),
    }
    same = rng.choice((True, False))
    block, stages = _convolution(rng), []
    for width in widths:
        settings = {"depth": rng.randint(1, 4), "width": width, "stride": rng.choice((1, 2))}
        stages.append(block | settings)
        if rng.random() < 0.15:
            stages.append(rng.choice(_OTHERS[3:] + _RARE) | {"depth": 1, "width": width})
        block = block | _CONVOLUTIONS[block["block"]](rng) if same else _convolution(rng)
    return _space("stages", skeleton={"stem": stem}, stages=stages)


def _layers(rng: random.Random) -> Space:
    skeleton = {
        "channels": rng.choice((8, 12, 16, 24, 32)),
        "head": rng.choice((64, 128, 256, 512, 1280)),
    }
    if rng.random() < 0.5:
        return _known("nasbench_macro").with_skeleton(**skeleton)
    operations = {"identity": {"block": "identity"}} | {
        f"operation{number}": _convolution(rng) for number in range(rng.randint(1, 4))
    }
    stages = [rng.randint(1, 3) for _ in range(rng.randint(2, 3))]
    return _space("layers", skeleton=skeleton, stages=stages, operations=operations)


KINDS: dict[str, tuple[float, Callable[[random.Random], Space]]] = {
    "darts": (0.30, _darts),
    "cells": (0.12, _cells),
    "nasbench201": (0.16, _nasbench201),
    "dense_cells": (0.07, _dense_cells),
    "nasbench101": (0.08, _nasbench101),
    "matrix_cells": (0.03, _matrix_cells),
    "deepnets1m": (0.12, _deepnets),
    "mobile": (0.05, _mobile),
    "stages": (0.05, _stages),
    "layers": (0.02, _layers),
}
"""For each kind of space its share of the mixture, and how one is drawn."""
