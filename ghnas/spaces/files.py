"""What the YAML files of all families share, and errors that name the key and what was expected."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ghnas.architectures.blocks import BLOCKS, Settings, block_settings
from ghnas.utils.errors import UserError


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
            changed = self.model_copy(update={"skeleton": skeleton})
            return type(self).model_validate(changed.model_dump())  # other parts may depend on it
        except ValidationError as error:
            raise UserError(f"space {self.name!r}: {explain(error)}") from error


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
