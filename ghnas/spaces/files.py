"""What the YAML files of all families share, and errors that name the key and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ghnas.architectures.blocks import BLOCKS, Place, Settings, add_block, block_settings
from ghnas.architectures.graph import GraphBuilder
from ghnas.architectures.labelled_dag import DagKind
from ghnas.architectures.ops import ACTIVATIONS
from ghnas.utils.errors import UserError, first_line

MOST = 4096
"""The most channels, and the largest value of a block's setting."""

LARGEST_KERNEL = 63

WEIGHTLESS = frozenset({"zeros", "skip", "identity", "max_pool", "avg_pool"})
"""Blocks that learn nothing (a skip only where it halves the size)."""

Component = Literal["fit", "separability", "size"]
"""What the composite score can add; see `ghnas.scoring.composite`."""
COMPONENTS: tuple[Component, ...] = get_args(Component)

EARLIER_NAMES = {"consensus": "composite"}
"""What an objective and a method of ranking were called before; these go on working."""


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
    def _pairs(self) -> Settings:
        return tuple(self.settings.items())

    def add(self, graph: GraphBuilder, place: Place) -> int:
        """Add the block to a graph; returns the index of its output."""
        return add_block(graph, self.block, place, self._pairs)

    @model_validator(mode="after")
    def _known(self) -> BlockSettings:
        if self.block not in BLOCKS:
            near = ", ".join(difflib.get_close_matches(self.block[:80], BLOCKS, 4, 0))
            raise ValueError(f"unknown operation {self.block!r}; the nearest of them are {near}")
        known = block_settings(self.block)
        for key, value in self.settings.items():
            if key not in known:
                takes = ", ".join(known) or "no settings"
                raise ValueError(f"{self.block!r} has no setting {key!r}; it takes {takes}")
            if value == []:
                raise ValueError(f"{key} is an empty list: there is nothing to choose from")
            for option in value if isinstance(value, list) else [value]:
                _check_setting(key, option)
            if isinstance(value, list) and len(set(value)) < len(value):
                raise ValueError(f"{key} must be a list of different values, not {value}")
        missing = [
            key
            for key, item in known.items()
            if item.default is item.empty and key not in self.settings
        ]
        if missing:
            raise ValueError(f"{self.block!r} needs the setting {missing[0]!r}")
        return self


class FixedBlock(BlockSettings):
    """A block without choices: each of its settings is a single value."""

    @model_validator(mode="after")
    def _fixed(self) -> Self:
        for key, value in self.settings.items():
            if isinstance(value, list):
                raise ValueError(f"{key} must be a single value here, not a list")
        return self


Name = Annotated[str, Field(pattern=r"^\w[\w .+-]*$", max_length=80)]
"""Of a space: a part of file names, so that it must not lead elsewhere."""

OperationName = Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=80)]
"""Notations set operations apart by other characters."""
Operations = Annotated[dict[OperationName, FixedBlock], Field(min_length=1, max_length=1000)]
"""The operations that an edge can have, by name."""


class CellSettings(StrictModel):
    """What a cell is made of: the number of its nodes, and the operations of an edge."""

    nodes: int = Field(ge=1, le=16)
    operations: Operations

    @model_validator(mode="after")
    def _connects(self) -> Self:
        if len(self._none) == len(self.operations):
            raise ValueError("operations must have one besides 'zeros', which connects nothing")
        return self

    def is_none(self, operation: str) -> bool:
        """Whether an operation is no connection."""
        return operation in self._none

    def dag_kind(self, inputs: int, nodes: int) -> DagKind:
        """The kind of a cell with these operations; see `DagKind`."""
        return dag_kind(self.operations, inputs, nodes)

    @cached_property
    def _none(self) -> frozenset[str]:
        return frozenset(name for name, item in self.operations.items() if item.block == "zeros")

    def connected(self, edges: Iterable[Iterable[tuple[str, int]]]) -> list[list[int]]:
        """For each node the sources that it is connected to, from its (operation, source) pairs."""
        return [[i for op, i in pairs if op not in self._none] for pairs in edges]


def dag_kind(operations: Mapping[str, FixedBlock], inputs: int, nodes: int) -> DagKind:
    """The kind of the cells whose edges have these operations; see `DagKind`."""
    used = tuple(name for name, item in operations.items() if item.block != "zeros")
    weighted = frozenset(name for name in used if operations[name].block not in WEIGHTLESS)
    return DagKind(used, weighted, inputs, nodes)


class StagedCellSkeleton(StrictModel):
    """The macro part of networks whose cells stand in stages, each at half the size.

    Args:
        channels: Of the first stage; doubled at every further one.
        cells: Of each stage.
        stages: How many there are.
    """

    channels: int = Field(ge=1, le=MOST)
    cells: int = Field(ge=1, le=200)
    stages: int = Field(default=3, ge=1, le=8)


def _check_setting(key: str, value: Any) -> None:
    if key == "activation":
        if value not in ACTIVATIONS:
            raise ValueError(f"{key} must be one of {', '.join(ACTIVATIONS)}, not {value!r}")
    elif isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise ValueError(f"{key} must be a whole number from 1 to {MOST}, not {value!r}")
    elif key == "kernel" and value > LARGEST_KERNEL:
        raise ValueError(f"kernel must be {LARGEST_KERNEL} or less, not {value}")
    elif key == "kernel" and value % 2 == 0:
        raise ValueError(f"kernel must be odd, not {value}")


class SpaceFile(StrictModel):
    """What the space files of all families have.

    Args:
        name: What hypernetworks remember of the space; it is a part of file names.
        description: In one line.
        family: How the rest of the file is read.
        objective: What a search of the space ranks by, unless it is told otherwise: zero-shot
            accuracy or loss, or the composite score (`ghnas.scoring.composite`).
        composite: What the composite score adds: `fit` (minus the loss), `separability`, `size`.
        skeleton: The fixed macro part.
    """

    name: Name
    description: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=500)] = ""
    family: str
    objective: Literal["accuracy", "loss", "composite"] = "accuracy"
    composite: Annotated[tuple[Component, ...], Field(min_length=1, max_length=3)] = COMPONENTS
    skeleton: StrictModel

    @field_validator("objective", mode="before")
    @classmethod
    def _renamed(cls, value: Any) -> Any:
        return EARLIER_NAMES.get(value, value) if isinstance(value, str) else value

    def with_skeleton(self, changes: dict[str, Any]) -> Self:
        """The same file with other skeleton settings.

        Raises:
            UserError: If there is no such setting or a value does not fit.
        """
        try:
            skeleton = type(self.skeleton).model_validate(self.skeleton.model_dump() | changes)
            changed = self.model_copy(update={"skeleton": skeleton})
            return type(self).model_validate(changed.model_dump())  # other parts may depend on it
        except ValidationError as error:
            raise UserError(f"space {self.name!r}: {explain(error)}") from error


_MISSPELT = ("extra_forbidden", "unexpected_keyword_argument")


def explain(error: Exception) -> str:
    """An error in one line; of pydantic the first problem: the key and what was expected."""
    if not isinstance(error, ValidationError):
        return first_line(error)
    errors = error.errors()
    # a misspelt key also makes the right one missing: the misspelt one is the mistake
    first = next((item for item in errors if item["type"] in _MISSPELT), errors[0])
    key = ".".join(map(str, first["loc"])) or "top level"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in _MISSPELT:
        message = "unknown key"
    return f"key '{key}': {message[0].lower()}{message[1:]}"
