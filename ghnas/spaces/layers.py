"""The `layers` family: stages of layers, each of which is one of a few blocks (NAS-Bench-Macro)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from ghnas.architectures.architecture import Choices
from ghnas.architectures.blocks import Place, add_block, classifier
from ghnas.architectures.graph import Graph, GraphBuilder, Shape
from ghnas.architectures.labelled_dag import DagKind, LabelledDag
from ghnas.architectures.ops import Input
from ghnas.spaces.base import Choice, Space
from ghnas.spaces.files import MOST, Operations, SpaceFile, StrictModel, dag_kind
from ghnas.spaces.registry import family
from ghnas.utils.errors import UserError


class LayerSkeleton(StrictModel):
    """The fixed part.

    Args:
        channels: Of the stem; doubled at every stage.
        head: Channels of the 1x1 convolution before the classifier.
    """

    channels: int = Field(ge=1, le=MOST)
    head: int = Field(ge=1, le=MOST)


class LayerSpaceFile(SpaceFile):
    """A space file of the `layers` family.

    Args:
        stages: The number of layers of each; the first of them halves the size.
        operations: What a layer can be; the notation numbers them from 0.
    """

    family: Literal["layers"]
    skeleton: LayerSkeleton
    stages: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(min_length=1, max_length=8)]
    operations: Annotated[Operations, Field(max_length=10)]


@family("layers", LayerSpaceFile)
class LayerSpace(Space):
    """Choices: the operation of each layer, named as `layer.0`. Notation: a digit for each.

    Source: Su et al., Prioritized Architecture Sampling with Monte-Carlo Tree Search (CVPR 2021),
    section 4 and appendix: NAS-Bench-Macro.
    """

    file: LayerSpaceFile

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        operations = tuple(self.file.operations)
        return tuple(Choice(f"layer.{i}", operations) for i in range(sum(self.file.stages)))

    @cached_property
    def dag_kinds(self) -> Mapping[str, DagKind]:
        stages = enumerate(self.file.stages)
        return {f"stage{i}": dag_kind(self.file.operations, 1, 1 + many) for i, many in stages}

    def dags(self, choices: Choices) -> Mapping[str, LabelledDag]:
        names = iter(choices.values())
        chains = [tuple((str(next(names)), k, k + 1) for k in range(i)) for i in self.file.stages]
        return {f"stage{i}": LabelledDag(chain, len(chain)) for i, chain in enumerate(chains)}

    @cached_property
    def for_features(self) -> Space:
        return self.with_skeleton(channels=32)

    @property
    def feature_parts(self) -> tuple[str, ...]:
        return tuple(self.dag_kinds)

    def is_connected(self, choices: Choices) -> bool:
        operations = self.file.operations
        return all(operations[str(name)].block != "zeros" for name in choices.values())

    def format(self, choices: Choices) -> str:
        """As the benchmark writes it, such as `02022111`."""
        names = list(self.file.operations)
        return "".join(str(names.index(str(name))) for name in choices.values())

    def read(self, text: str) -> Choices:
        names, digits = list(self.file.operations), text.strip()
        allowed = "0123456789"[: len(names)]
        if len(digits) != len(self.choices) or not set(digits) <= set(allowed):
            raise UserError(
                f"not an architecture of space {self.name!r}, which is {len(self.choices)} digits "
                f"from 0 to {allowed[-1]}: {text[:80]!r}"
            )
        return {
            choice.name: names[int(digit)]
            for choice, digit in zip(self.choices, digits, strict=True)
        }

    def build(self, choices: Choices, image_shape: Shape, classes: int) -> Graph:
        operations = iter(self.check(choices).values())
        graph, skeleton = GraphBuilder(), self.file.skeleton
        x = graph.add(Input(*image_shape), name="input")
        channels, position = skeleton.channels, 1
        x = add_block(graph, "conv_bn_act", Place(x, channels, 1, "features.0"), (("kernel", 3),))
        for stage, layers in enumerate(self.file.stages):
            graph.cell = stage
            channels *= 2
            for layer in range(layers):
                place = Place(x, channels, 1 if layer else 2, f"features.{position}")
                x = self.file.operations[str(next(operations))].add(graph, place)
                position += 1
        place = Place(x, skeleton.head, 1, f"features.{position}")
        x = add_block(graph, "conv_bn_act", place, (("kernel", 1),))
        classifier(graph, x, classes, "classifier")
        return graph.build()
