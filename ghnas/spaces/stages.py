"""The `stages` family: a stem, stages of equal blocks, a head (MobileNet, ResNet)."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from ghnas.architectures.architecture import Choices
from ghnas.architectures.blocks import Place, add_block, classifier
from ghnas.architectures.graph import Graph, GraphBuilder, Shape
from ghnas.architectures.ops import Input
from ghnas.spaces.base import Choice, Space
from ghnas.spaces.files import MOST, BlockSettings, FixedBlock, SpaceFile, StrictModel
from ghnas.spaces.registry import family
from ghnas.utils.errors import UserError


def _options(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _different(values: list[int]) -> list[int]:
    if len(set(values)) < len(values):
        raise ValueError(f"expected different values, not {values}")
    return values


Width = Annotated[int, Field(ge=1, le=MOST)]
Stride = Annotated[int, Field(ge=1, le=MOST)]
Depth = Annotated[int, Field(ge=1, le=100)]
_Option = TypeVar("_Option")
Options = Annotated[
    list[_Option], BeforeValidator(_options), AfterValidator(_different), Field(min_length=1)
]
"""One value, or a list of values to choose from."""


class Stem(FixedBlock):
    """The first block."""

    width: Width
    stride: Stride = 1


class Stage(BlockSettings):
    """`depth` equal blocks of `width` channels; the first has the stride."""

    depth: Options[Depth]
    width: Options[Width]
    stride: Stride = 1

    @cached_property
    def options(self) -> dict[str, list[Any]]:
        """The values of depth, width and every setting of the block; the first is the default."""
        settings = {key: _options(value) for key, value in self.settings.items()}
        return {"depth": self.depth, "width": self.width} | settings


class StageSkeleton(StrictModel):
    """The fixed part."""

    stem: Stem


class StageSpaceFile(SpaceFile):
    """A space file of the `stages` family."""

    family: Literal["stages"]
    skeleton: StageSkeleton
    stages: list[Stage] = Field(min_length=1, max_length=64)


@family("stages", StageSpaceFile)
class StageSpace(Space):
    """Choices of each stage: `s0.depth`, `s0.width` and every block setting that is a list."""

    file: StageSpaceFile

    def with_skeleton(self, **changes: Any) -> Self:
        if "cells" in changes or "channels" in changes:
            raise UserError(f"space {self.name!r} has no cells: its widths and depths are choices")
        return super().with_skeleton(**changes)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return tuple(
            Choice(f"s{number}.{key}", tuple(values))
            for number, stage in enumerate(self.file.stages)
            for key, values in stage.options.items()
            if len(values) > 1
        )

    @property
    def feature_parts(self) -> tuple[str, ...]:
        return tuple(f"s{number}" for number in range(len(self.file.stages)))

    def build(self, choices: Choices, image_shape: Shape, classes: int) -> Graph:
        choices = self.check(choices)
        graph = GraphBuilder()
        x = graph.add(Input(*image_shape), name="input")
        stem = self.file.skeleton.stem
        x = stem.add(graph, Place(x, stem.width, stem.stride, "features.0"))
        position = 1
        for number, stage in enumerate(self.file.stages):
            graph.cell = number
            chosen = {
                key: choices.get(f"s{number}.{key}", values[0])
                for key, values in stage.options.items()
            }
            depth, width = int(chosen.pop("depth")), int(chosen.pop("width"))
            for repeat in range(depth):
                stride = stage.stride if repeat == 0 else 1
                place = Place(x, width, stride, f"features.{position}")
                x = add_block(graph, stage.block, place, tuple(chosen.items()))
                position += 1
        classifier(graph, x, classes, "classifier")
        return graph.build()
