"""How a hypernetwork is built, and what it was trained for."""

from __future__ import annotations

from dataclasses import asdict, field
from typing import Any, Literal

from pydantic import ValidationError
from pydantic.dataclasses import dataclass

from ghnas.spaces.files import explain

GENERAL = "general"
"""The space of a hypernetwork that was trained on a mixture of spaces: it fits any."""


@dataclass(frozen=True, config={"extra": "forbid"})
class GHNConfig:
    """What a hypernetwork is built from.

    Args:
        num_classes: Classes of the networks that it predicts for.
        max_shape: Largest (out, in, height, width) that is decoded; larger ones are tiled.
        hid: Width of the node states; a multiple of 4.
        hypernet: `gatedgnn`, or `mlp` for the baseline that does not see the graph.
        decoder: `conv` or `mlp`.
        weight_norm: Normalise the predicted parameters.
        ve: Virtual edges.
        layernorm: LayerNorm on the final node states.
    """

    num_classes: int = 10
    max_shape: tuple[int, int, int, int] = (64, 64, 7, 7)
    hid: int = 32
    hypernet: Literal["gatedgnn", "mlp"] = "gatedgnn"
    decoder: Literal["conv", "mlp"] = "conv"
    weight_norm: bool = True
    ve: bool = True
    layernorm: bool = True

    def as_dict(self) -> dict[str, object]:
        """As plain data."""
        return asdict(self) | {"max_shape": list(self.max_shape)}


PRESETS: dict[str, dict[str, object]] = {
    "ghn2": {},
    "ghn1": {"ve": False, "weight_norm": False, "layernorm": False},
    "mlp": {"hypernet": "mlp"},
}
"""Settings that differ from GHN-2, by the paper's names."""


@dataclass(frozen=True, config={"extra": "forbid"})
class GHNInfo:
    """What a hypernetwork was trained for.

    A published checkpoint does not say so: `space` and all that follows is empty, and it fits
    any space and any data set with its number of classes.

    Args:
        space: Name of the search space; `GENERAL` of one for every space.
        skeleton: The space's skeleton.
        data: Name of the data set.
        fingerprint: The data set's fingerprint.
        classes: Class names.
        image_shape: (C, H, W).
        mean: Of the training images, a value for each channel.
        std: The same for the standard deviation.
        training: Settings and results of the training, for people.
        sha256: Of the file, empty before it is saved.
        path: The file, empty before it is saved.
    """

    space: str = ""
    skeleton: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    fingerprint: str = ""
    classes: tuple[str, ...] = ()
    image_shape: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    path: str = ""


def why(error: Exception) -> str:
    """Why a file does not hold a hypernetwork, in one line."""
    return explain(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
