"""How a hypernetwork is built, and what it was trained for."""

from __future__ import annotations

from dataclasses import asdict, field
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from ghnas.spaces.files import Name

_Yes = Annotated[bool, Field(strict=True)]
_Size = Annotated[int, Field(strict=True, ge=1, le=2**20)]
_Text = Annotated[str, Field(max_length=255)]
_Colour = Annotated[float, Field(strict=True, ge=0, le=1)]
_Spread = Annotated[float, Field(strict=True, gt=0, le=1)]

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

    num_classes: _Size = 10
    max_shape: tuple[_Size, _Size, _Size, _Size] = (64, 64, 7, 7)
    hid: Annotated[_Size, Field(multiple_of=4)] = 32
    hypernet: Literal["gatedgnn", "mlp"] = "gatedgnn"
    decoder: Literal["conv", "mlp"] = "conv"
    weight_norm: _Yes = True
    ve: _Yes = True
    layernorm: _Yes = True

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

    space: Name | Literal[""] = ""
    skeleton: dict[str, Any] = field(default_factory=dict)
    data: _Text = ""
    fingerprint: _Text = ""
    classes: tuple[_Text, ...] = ()
    image_shape: Annotated[tuple[_Size, ...], Field(max_length=3)] = ()
    mean: tuple[_Colour, ...] = ()
    std: tuple[_Spread, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    path: str = ""

    @model_validator(mode="after")
    def _channels(self) -> GHNInfo:
        if len(self.image_shape) not in (0, 3):
            raise ValueError("image_shape must be channels, height and width")
        if self.image_shape and {len(self.mean), len(self.std)} - {0, self.image_shape[0]}:
            raise ValueError("mean and std must be a number for each channel of image_shape")
        return self
