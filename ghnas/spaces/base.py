"""Search spaces: choices, sampling, mutation, crossover, and from choices to a graph.

A space is one YAML file. Its `family` says how the rest is read: `cells` (`ghnas.spaces.cells`),
`dense_cells` (`ghnas.spaces.dense_cells`), `stages` (`ghnas.spaces.stages`) or `deepnets`
(`ghnas.spaces.deepnets`).
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ghnas.architectures.blocks import BLOCKS, Settings, block_settings
from ghnas.architectures.graph import Graph, Shape
from ghnas.utils.errors import UserError

Value = str | int
Candidate = dict[str, Value]
"""A value for every choice of a space."""


@dataclass(frozen=True)
class Choice:
    """One decision: its name and what can be chosen."""

    name: str
    options: tuple[Value, ...]


class StrictModel(BaseModel):
    """A part of a space file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BlockSettings(BaseModel):
    """A block with its settings; `extra` keys are checked against the block's signature."""

    model_config = ConfigDict(extra="allow", frozen=True)

    block: str

    @property
    def settings(self) -> dict[str, Any]:
        """The block's own settings, as written."""
        return dict(self.model_extra or {})

    @cached_property
    def pairs(self) -> Settings:
        """The same as pairs."""
        return tuple(self.settings.items())

    @model_validator(mode="after")
    def _known(self) -> BlockSettings:
        if self.block not in BLOCKS:
            raise ValueError(f"unknown operation {self.block!r}; known are {', '.join(BLOCKS)}")
        known = block_settings(self.block)
        for key, value in self.settings.items():
            if key not in known:
                takes = ", ".join(known) or "no settings"
                raise ValueError(f"{self.block!r} has no setting {key!r}; it takes {takes}")
            for option in value if isinstance(value, list) else [value]:
                _check_setting(key, option)
        missing = [
            key
            for key, item in known.items()
            if item.default is item.empty and key not in self.settings
        ]
        if missing:
            raise ValueError(f"{self.block!r} needs the setting {missing[0]!r}")
        return self


def _check_setting(key: str, value: Any) -> None:
    if key == "activation":
        if not isinstance(value, str):
            raise ValueError(f"{key} must be the name of an activation, not {value!r}")
    elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} must be a whole number of 1 or more, not {value!r}")
    elif key == "kernel" and value % 2 == 0:
        raise ValueError(f"kernel must be odd, not {value}")


class SpaceFile(StrictModel):
    """What the space files of all families have.

    Args:
        name: What hypernetworks remember of the space.
        description: In one line.
        family: How the rest of the file is read.
        objective: What a search of the space ranks by, unless it is told otherwise: zero-shot
            accuracy, or the sum of scores of `ghnas.scoring.composite`.
        skeleton: The fixed macro part.
    """

    name: str = Field(min_length=1)
    description: str = ""
    family: str
    objective: Literal["accuracy", "consensus"] = "accuracy"
    skeleton: StrictModel

    def with_skeleton(self, changes: dict[str, Any]) -> Self:
        """The same file with other skeleton settings.

        Raises:
            UserError: If there is no such setting or a value does not fit.
        """
        try:
            skeleton = type(self.skeleton).model_validate(self.skeleton.model_dump() | changes)
        except ValidationError as error:
            raise UserError(f"space {self.name!r}: {explain(error)}") from error
        return self.model_copy(update={"skeleton": skeleton})


class Space(ABC):
    """A search space; see `load_space`.

    A candidate is a value for each of `choices`; the choices are independent of each other, so
    that sampling, mutation, crossover and Optuna's samplers need nothing else.

    Args:
        file: The YAML file's content.
    """

    def __init__(self, file: SpaceFile) -> None:
        self.name = file.name
        self.description = file.description
        self.objective = file.objective

    @cached_property
    @abstractmethod
    def choices(self) -> tuple[Choice, ...]:
        """Every decision, in a fixed order."""

    @property
    @abstractmethod
    def skeleton(self) -> Mapping[str, Any]:
        """The fixed macro part as plain data."""

    @abstractmethod
    def with_skeleton(self, **changes: Any) -> Space:
        """The same space with other skeleton settings.

        Raises:
            UserError: If the family has no such setting or the value does not fit.
        """

    @abstractmethod
    def graph(self, candidate: Candidate, image_shape: Shape, classes: int) -> Graph:
        """The candidate's architecture for images of shape (C, H, W).

        Raises:
            UserError: If the candidate is not one of this space's, or the images are too small.
        """

    def is_connected(self, candidate: Candidate) -> bool:
        """Whether the image reaches the output."""
        return True

    @cached_property
    def record_choices(self) -> tuple[Choice, ...]:
        """The parameters that a study records, and what each can be."""
        return self.choices

    def to_record(self, candidate: Candidate) -> dict[str, Value]:
        """The candidate in few and readable parameters, of `record_choices`."""
        return dict(candidate)

    def from_record(self, parameters: Mapping[str, Any]) -> Candidate:
        """The inverse of `to_record`.

        Raises:
            UserError: If the parameters are not those of a candidate of this space.
        """
        return self.check(parameters)

    def encode(self, candidate: Candidate) -> str:
        """The candidate in the notation of its family."""
        return ",".join(f"{key}={value}" for key, value in candidate.items())

    def decode(self, text: str) -> Candidate:
        """The inverse of `encode`; the text is parsed, never evaluated.

        Raises:
            UserError: If the text is not a candidate of this space.
        """
        pairs = dict(part.partition("=")[::2] for part in text.split(","))
        return self.check(
            {
                item.name: next((o for o in item.options if str(o) == pairs.get(item.name)), "")
                for item in self.choices
            }
        )

    @cached_property
    def size(self) -> int:
        """Number of candidates, isomorphic ones counted apart."""
        result = 1
        for choice in self.choices:
            result *= len(choice.options)
        return result

    def sample(self, rng: random.Random) -> Candidate:
        """A candidate, uniform over each choice, that connects image and output."""
        while True:
            candidate = {item.name: rng.choice(item.options) for item in self.choices}
            if self.is_connected(candidate):
                return candidate

    def mutate(self, candidate: Candidate, rng: random.Random) -> Candidate:
        """The candidate with one choice changed."""
        changeable = [item for item in self.choices if len(item.options) > 1]
        while True:
            choice = rng.choice(changeable)
            others = [option for option in choice.options if option != candidate[choice.name]]
            mutant = candidate | {choice.name: rng.choice(others)}
            if self.is_connected(mutant):
                return mutant

    def crossover(self, first: Candidate, second: Candidate, rng: random.Random) -> Candidate:
        """Each choice from one of two parents, at random; the first parent if that fails."""
        child = {name: rng.choice((first[name], second[name])) for name in first}
        return child if self.is_connected(child) else dict(first)

    def check(self, candidate: Mapping[str, Any]) -> Candidate:
        """The candidate, if it is one of this space's.

        Raises:
            UserError: Naming the choice that is missing or has no such option.
        """
        for choice in self.choices:
            value = candidate.get(choice.name)
            if value not in choice.options:
                allowed = ", ".join(map(str, choice.options))
                raise UserError(
                    f"{choice.name} = {value!r} is not in space {self.name!r}; "
                    f"it can be one of {allowed}"
                )
        return {choice.name: candidate[choice.name] for choice in self.choices}


def _folders() -> list[Path]:
    here = Path(__file__).resolve().parent.parent
    return [here / "search_spaces", here.parent / "search_spaces"]  # a wheel, a checkout


def list_spaces() -> dict[str, Path]:
    """The spaces that ship with the package, by name."""
    found = {path.stem: path for folder in _folders() for path in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def load_space(name_or_path: str) -> Space:
    """Load a space that ships with the package, by name, or one's own file, by path.

    Raises:
        UserError: Naming the file, the key and what was expected.
    """
    path = list_spaces().get(name_or_path, name_or_path)
    return parse_space(read_space_file(name_or_path), str(path))


def read_space_file(name_or_path: str) -> str:
    """The text of the file that `load_space` reads.

    Raises:
        UserError: If there is no such file or it cannot be read.
    """
    known = list_spaces()
    path = known.get(name_or_path) or Path(name_or_path)
    if not path.is_file():
        raise UserError(
            f"unknown space {name_or_path!r}: use {', '.join(known)}, or the path of a YAML file"
        )
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def parse_space(text: str, path: str) -> Space:
    """The space that a YAML text describes; errors name `path`.

    Raises:
        UserError: Naming the key and what was expected.
    """
    from ghnas.spaces.cells import CellSpace, CellSpaceFile
    from ghnas.spaces.deepnets import DeepNetsSpace
    from ghnas.spaces.deepnets_file import DeepNetsFile
    from ghnas.spaces.dense_cells import DenseCellSpace, DenseCellSpaceFile
    from ghnas.spaces.stages import StageSpace, StageSpaceFile

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or "not a YAML file"
        raise UserError(f"{path}:{where} {problem}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys such as name, family and skeleton")
    family = content.get("family")
    try:
        if family == "cells":
            return CellSpace(CellSpaceFile.model_validate(content))
        if family == "dense_cells":
            return DenseCellSpace(DenseCellSpaceFile.model_validate(content))
        if family == "stages":
            return StageSpace(StageSpaceFile.model_validate(content))
        if family == "deepnets":
            return DeepNetsSpace(DeepNetsFile.model_validate(content))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    raise UserError(
        f"{path}: key 'family': expected 'cells', 'dense_cells', 'stages' or 'deepnets', "
        f"found {family!r}"
    )


def explain(error: ValidationError) -> str:
    """The first problem of a pydantic error in one sentence: the key and what was expected."""
    errors = error.errors()
    # a misspelt key also makes the right one missing: the misspelt one is the mistake
    first = next((item for item in errors if item["type"] == "extra_forbidden"), errors[0])
    key = ".".join(map(str, first["loc"])) or "top level"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key"
    return f"key '{key}': {message[0].lower()}{message[1:]}"
