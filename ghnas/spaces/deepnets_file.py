"""What a space file of the `deepnets` family holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from ghnas.spaces.files import MOST, Name, Operations, SpaceFile, StrictModel

Count = Annotated[int, Field(ge=1, le=200)]
Nodes = Annotated[int, Field(ge=1, le=16)]


class Split(StrictModel):
    """What a split allows: the least and the most of each.

    Args:
        cells: Of a network.
        deep_from: A network of more cells is deep; drawn for each network.
        nodes: Of a cell.
        deep_nodes: The most nodes in a cell of a deep network.
        norm: Batch normalisation, none, or a choice of both.
        widen: What the skeleton's channels are multiplied by.
        max_parameters: At 32x32 and at 224x224 pixels.
    """

    cells: tuple[Count, Count]
    deep_from: tuple[Count, Count]
    nodes: tuple[Nodes, Nodes]
    deep_nodes: Nodes
    norm: tuple[Literal["bn", "none"], ...] = Field(default=("bn", "none"), min_length=1)
    widen: Annotated[int, Field(ge=1, le=64)] = 1
    max_parameters: PositiveInt = 10_000_000

    @model_validator(mode="after")
    def _ordered(self) -> Split:
        for key in ("cells", "deep_from", "nodes"):
            least, most = getattr(self, key)
            if least > most:
                raise ValueError(f"{key} must be the least and the most, not {least} and {most}")
        if not self.nodes[0] <= self.deep_nodes <= self.nodes[1]:
            raise ValueError(f"deep_nodes must be within nodes, not {self.deep_nodes}")
        if len(set(self.norm)) < len(self.norm):
            raise ValueError("norm must be 'bn', 'none' or both")
        return self


def is_convolution(block: str) -> bool:
    """Whether the block of an operation has a convolution."""
    return "conv" in block or "residual" in block


def has_weights(block: str) -> bool:
    """Whether a network can learn with this block alone."""
    return is_convolution(block) or block == "transformer"


class DeepNetsSkeleton(StrictModel):
    """What is not drawn."""

    channels: int = Field(ge=8, le=MOST, multiple_of=8)
    fc_width: int = Field(default=256, ge=1, le=MOST)
    split: str = "train"


class DeepNetsFile(SpaceFile):
    """A space file of the `deepnets` family."""

    family: Literal["deepnets"]
    skeleton: DeepNetsSkeleton
    operations: Operations
    splits: dict[Name, Split] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _can_learn(self) -> DeepNetsFile:
        if not any(has_weights(item.block) for item in self.operations.values()):
            raise ValueError("operations must have a convolution or a 'transformer'")
        return self

    @model_validator(mode="after")
    def _known_split(self) -> DeepNetsFile:
        if self.skeleton.split not in self.splits:
            raise ValueError(f"split {self.skeleton.split!r}: use {', '.join(self.splits)}")
        return self
