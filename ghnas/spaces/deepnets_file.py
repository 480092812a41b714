"""What a space file of the `deepnets` family holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from ghnas.spaces.files import BlockSettings, SpaceFile, StrictModel

Range = tuple[PositiveInt, PositiveInt]


class Split(StrictModel):
    """What a split allows."""

    cells: Range
    deep_from: Range
    nodes: Range
    deep_nodes: PositiveInt
    norm: tuple[Literal["bn", "none"], ...] = Field(default=("bn", "none"), min_length=1)
    widen: PositiveInt = 1
    max_parameters: PositiveInt = 10_000_000

    @model_validator(mode="after")
    def _ordered(self) -> Split:
        for key in ("cells", "deep_from", "nodes"):
            least, most = getattr(self, key)
            if least > most:
                raise ValueError(f"{key} must be the least and the most, not {least} and {most}")
        return self


class DeepNetsSkeleton(StrictModel):
    """What is not drawn."""

    channels: int = Field(ge=8, le=4096, multiple_of=8)
    fc_width: PositiveInt = 256
    split: str = "train"


class DeepNetsFile(SpaceFile):
    """A space file of the `deepnets` family."""

    family: Literal["deepnets"]
    skeleton: DeepNetsSkeleton
    operations: dict[str, BlockSettings] = Field(min_length=1)
    splits: dict[str, Split] = Field(min_length=1)

    @model_validator(mode="after")
    def _known_split(self) -> DeepNetsFile:
        if self.skeleton.split not in self.splits:
            raise ValueError(f"split {self.skeleton.split!r}: use {', '.join(self.splits)}")
        return self
