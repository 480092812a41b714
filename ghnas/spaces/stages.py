"""The `stages` family: a stem, stages of equal blocks, a head (MobileNet, ResNet)."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, field_validator

from ghnas.architectures.architecture import Choices
from ghnas.architectures.blocks import Place, add_block, classifier
from ghnas.architectures.graph import Graph, GraphBuilder, Shape
from ghnas.architectures.ops import Input
from ghnas.spaces.base import Choice, Space
from ghnas.spaces.files import BlockSettings, SpaceFile, StrictModel
from ghnas.spaces.registry import family
from ghnas.utils.errors import UserError


def _options(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Options = Annotated[list[PositiveInt], BeforeValidator(_options), Field(min_length=1)]
"""One value, or a list of values to choose from."""


class Stem(BlockSettings):
    """The first block."""

    width: PositiveInt
    stride: PositiveInt = 1


class Stage(BlockSettings):
    """`depth` equal blocks of `width` channels; the first has the stride."""

    depth: Options
    width: Options
    stride: PositiveInt = 1


class StageSkeleton(StrictModel):
    """The fixed part."""

    stem: Stem

    @field_validator("stem")
    @classmethod
    def _fixed(cls, stem: Stem) -> Stem:
        for key, value in stem.settings.items():
            if isinstance(value, list):
                raise ValueError(f"{key} of the stem must be a single value")
        return stem


class StageSpaceFile(SpaceFile):
    """A space file of the `stages` family."""

    family: Literal["stages"]
    skeleton: StageSkeleton
    stages: list[Stage] = Field(min_length=1)

    @field_validator("stages")
    @classmethod
    def _not_empty(cls, stages: list[Stage]) -> list[Stage]:
        for number, stage in enumerate(stages):
            for key, value in stage.settings.items():
                if value == []:
                    raise ValueError(f"stage {number}: {key} is an empty choice")
        return stages


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
        result = []
        for number, stage in enumerate(self.file.stages):
            options = {"depth": stage.depth, "width": stage.width} | {
                key: value for key, value in stage.settings.items() if isinstance(value, list)
            }
            result += [
                Choice(f"s{number}.{key}", tuple(values))
                for key, values in options.items()
                if len(values) > 1
            ]
        return tuple(result)

    def build(self, choices: Choices, image_shape: Shape, classes: int) -> Graph:
        choices = self.check(choices)
        graph = GraphBuilder()
        x = graph.add(Input(*image_shape), name="input")
        stem = self.file.skeleton.stem
        place = Place(x, stem.width, stem.stride, "features.0")
        x = add_block(graph, stem.block, place, stem.pairs)
        position = 1
        for number, stage in enumerate(self.file.stages):
            graph.cell = number
            chosen = {
                key: choices.get(f"s{number}.{key}", values[0])
                for key, values in {"depth": stage.depth, "width": stage.width}.items()
            }
            settings = {
                key: choices.get(f"s{number}.{key}", value[0]) if isinstance(value, list) else value
                for key, value in stage.settings.items()
            }
            for repeat in range(int(chosen["depth"])):
                stride = stage.stride if repeat == 0 else 1
                place = Place(x, int(chosen["width"]), stride, f"features.{position}")
                x = add_block(graph, stage.block, place, tuple(settings.items()))
                position += 1
            if min(graph.shape(x)[1:]) < 1:
                raise UserError(
                    f"images of {image_shape[1]}x{image_shape[2]} are too small for space "
                    f"{self.name!r}"
                )
        classifier(graph, x, classes, "classifier")
        return graph.build()
