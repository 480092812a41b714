"""A search space: its choices, sampling, mutation, crossover, and from choices to a graph.

A space is one YAML file. Its `family` says how the rest is read; each family is a subclass of
`Space` with a module of its own, entered into `ghnas.spaces.registry.FAMILIES`.
"""

from __future__ import annotations

import copy
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from ghnas.architectures.architecture import Architecture, Choices, Value
from ghnas.architectures.graph import Graph, Shape
from ghnas.architectures.labelled_dag import DagKind, LabelledDag
from ghnas.spaces.files import SpaceFile
from ghnas.utils.errors import UserError

ATTEMPTS = 10_000
"""Draws in a row without a connected architecture after which a space is said to have none."""
MUTATIONS = 100
"""Random changes in a row that connect nothing after which all of them are listed."""


@dataclass(frozen=True)
class Choice:
    """One decision of a search space.

    Args:
        name: Unique in the space, as `normal.2.first`; also the parameter's name in a study.
        options: What can be chosen.
    """

    name: str
    options: tuple[Value, ...]


class Space(ABC):
    """A search space; `ghnas.load_space` makes one.

    An architecture is a value for each of `choices`. The choices are independent of each other,
    so that sampling, mutation, crossover and Optuna's samplers need nothing else. Graphs are
    built with the skeleton (the macro architecture: stem, number of cells, channels) and for
    images of `image_shape`.

    A family defines `choices` and `build`, and where the defaults do not fit `is_connected`,
    `draw`, `format` and `read`; a family of cells also `dag_kinds` and `dags`, from which graph
    features are made (`ghnas.spaces.features`).

    Example:
        >>> import random
        >>> import ghnas
        >>> space = ghnas.load_space("nasbench201")
        >>> space.size
        15625
        >>> architecture = space.parse(
        ...     "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|"
        ... )
        >>> architecture.choices["0-1"]
        'nor_conv_3x3'
        >>> mutant = space.mutate(architecture, random.Random(0))
        >>> sum(mutant.choices[name] != value for name, value in architecture.choices.items())
        1

    Args:
        file: The YAML file's content.

    Attributes:
        name: Of the space; hypernetworks remember it.
        text: The YAML file's text.
        one_process: Whether its networks cannot be sent to another process.
        image_shape: (C, H, W) of the images that architectures are built for.
        classes: Number of logits.
    """

    text = ""
    one_process = False
    image_shape: Shape = (3, 32, 32)
    classes = 10

    def __init__(self, file: SpaceFile) -> None:
        self.file = file
        self.name = file.name
        self.description = file.description
        self.objective = file.objective
        self.composite = file.composite

    @cached_property
    @abstractmethod
    def choices(self) -> tuple[Choice, ...]:
        """Every decision, in a fixed order.

        No option stands twice in a choice, and every combination of options can be built, or
        `is_connected` says that it cannot.
        """

    @abstractmethod
    def build(self, choices: Choices, image_shape: Shape, classes: int) -> Graph:
        """The graph of an architecture.

        Args:
            choices: A value for each of `choices`.
            image_shape: (C, H, W).
            classes: Number of logits.

        Raises:
            UserError: If the choices are not of this space, or the images are too small.
        """

    @property
    def skeleton(self) -> Mapping[str, Any]:
        """The macro architecture as plain data."""
        return self.file.skeleton.model_dump()

    def with_skeleton(self, **changes: Any) -> Self:
        """The same space with other skeleton settings.

        Args:
            changes: New values by name, such as `cells=8`; what is not named stays.

        Raises:
            UserError: If the family has no such setting or the value does not fit.
        """
        space = type(self)(self.file.with_skeleton(changes))
        space.text, space.image_shape, space.classes = self.text, self.image_shape, self.classes
        return space

    def for_images(self, image_shape: Shape, classes: int) -> Self:
        """The same space with architectures for other images (C, H, W) and classes."""
        space = copy.copy(self)
        space.image_shape, space.classes = tuple(image_shape), classes
        return space

    def is_connected(self, choices: Choices) -> bool:
        """Whether the image reaches the output, so that the architecture is worth sampling."""
        return True

    def draw(self, rng: random.Random) -> Choices:
        """Random choices, connected or not: uniform over each."""
        return {item.name: rng.choice(item.options) for item in self.choices}

    def format(self, choices: Choices) -> str:
        """The choices in the notation of the family; here `name=value,name=value`."""
        return ",".join(f"{key}={value}" for key, value in choices.items())

    def read(self, text: str) -> Choices:
        """The inverse of `format`; the text is parsed, never evaluated.

        Args:
            text: As `format` gives it.

        Returns:
            The choices, checked.

        Raises:
            UserError: If the text is not an architecture of this space.
        """
        pairs = dict(part.partition("=")[::2] for part in text.split(","))
        return self.check(
            {
                item.name: next((o for o in item.options if str(o) == pairs.get(item.name)), "")
                for item in self.choices
            }
        )

    @cached_property
    def dag_kinds(self) -> Mapping[str, DagKind]:
        """The kinds of cells by name; empty where there are none."""
        return {}

    def dags(self, choices: Choices) -> Mapping[str, LabelledDag]:
        """For each of `dag_kinds` the architecture's cell."""
        return {}

    @property
    def feature_choices(self) -> tuple[str, ...]:
        """Choices that are features by themselves: those whose options are numbers."""
        numbers = (i for i in self.choices if all(isinstance(o, int) for o in i.options))
        return tuple(item.name for item in numbers)

    @cached_property
    def for_features(self) -> Space:
        """The space with the skeleton that parameters and FLOPs are counted in as features."""
        return self

    @property
    def feature_parts(self) -> tuple[str, ...]:
        """For each cell or stage of a graph of `for_features` what it is; empty where that
        differs between architectures."""
        return ()

    @cached_property
    def size(self) -> int:
        """Number of architectures, isomorphic ones counted apart."""
        return math.prod(len(choice.options) for choice in self.choices)

    def sample(self, seed: int | random.Random | None = None) -> Architecture:
        """A random architecture that connects image and output.

        Args:
            seed: Equal seeds give equal architectures; a generator is used and advanced; None
                takes a new one each time.

        Raises:
            UserError: If no connected architecture is found.
        """
        rng = seed if isinstance(seed, random.Random) else random.Random(seed)
        for _ in range(ATTEMPTS):
            choices = self.draw(rng)
            if self.is_connected(choices):
                return self._of(choices)
        raise UserError(
            f"space {self.name!r}: of {ATTEMPTS:,} random architectures none connects the image to "
            "the output by the rules of its family; add operations"
        )

    def mutate(self, architecture: Architecture, rng: random.Random) -> Architecture:
        """The architecture with one choice changed.

        Args:
            architecture: Of this space.
            rng: Decides which choice is changed, and to what.

        Returns:
            A connected neighbour; the architecture itself if it has none.
        """
        changeable = [item for item in self.choices if len(item.options) > 1]
        choices = dict(architecture.choices)
        for _ in range(MUTATIONS if changeable else 0):
            choice = rng.choice(changeable)
            others = [option for option in choice.options if option != choices[choice.name]]
            mutant = choices | {choice.name: rng.choice(others)}
            if self.is_connected(mutant):
                return self._of(mutant)
        return rng.choice(self.neighbours(architecture) or [self._of(choices)])

    def neighbours(self, architecture: Architecture) -> list[Architecture]:
        """All connected architectures that differ in one choice, in the order of the choices.

        Args:
            architecture: Of this space.
        """
        choices = dict(architecture.choices)
        every = [choices | {item.name: option} for item in self.choices for option in item.options]
        return [
            self._of(mutant) for mutant in every if mutant != choices and self.is_connected(mutant)
        ]

    def crossover(
        self, first: Architecture, second: Architecture, rng: random.Random
    ) -> Architecture:
        """A child that has each choice from one of two parents, at random.

        Args:
            first: Of this space.
            second: Of this space.
            rng: Decides which parent each choice comes from.

        Returns:
            The child; the first parent if the child is not connected.
        """
        child = {
            name: rng.choice((value, second.choices[name])) for name, value in first.choices.items()
        }
        return self._of(child if self.is_connected(child) else dict(first.choices))

    def parse(self, text: str) -> Architecture:
        """The architecture that a text in the space's notation names.

        Args:
            text: Such as a DARTS genotype; what `str(architecture)` gives.

        Raises:
            UserError: If the text is not an architecture of this space.
        """
        return self._of(self.read(text))

    def architecture(self, choices: Mapping[str, Any]) -> Architecture:
        """The architecture of given choices, such as an Optuna trial's parameters.

        Args:
            choices: A value for each of `choices`.

        Raises:
            UserError: Naming the choice that is missing or has no such option.
        """
        return self._of(self.check(choices))

    def check(self, choices: Mapping[str, Any]) -> Choices:
        """The choices in the space's order, if they are of this space.

        Args:
            choices: A value for each of `choices`, in any order.

        Raises:
            UserError: Naming the choice that is missing or has no such option.
        """
        for choice in self.choices:
            value = choices.get(choice.name)
            if value not in choice.options:
                allowed = ", ".join(map(str, choice.options))
                raise UserError(
                    f"{choice.name} = {value!r} is not in space {self.name!r}; "
                    f"it can be one of {allowed}"
                )
        return {choice.name: choices[choice.name] for choice in self.choices}

    def _require_size(self, image_shape: Shape, least: int, reason: str) -> None:
        if min(image_shape[1:]) < least:
            raise UserError(
                f"images of {image_shape[1]}x{image_shape[2]} are too small for space "
                f"{self.name!r} with {reason}"
            )

    def _of(self, choices: Choices) -> Architecture:
        return Architecture(self, choices, self.image_shape, self.classes)
