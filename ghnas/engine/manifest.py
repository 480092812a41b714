"""A run's manifest: what was searched, with what, and how; enough to repeat the run."""

from __future__ import annotations

import json
import platform
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from ghnas.engine.trials import Direction
from ghnas.scoring.latency import LatencyTable, read_table
from ghnas.spaces.files import explain
from ghnas.utils.errors import UserError
from ghnas.utils.files import read_json
from ghnas.utils.versions import installed_version

FORMAT_VERSION = 2
"""Of the run folder; raised when an older ghnas could not read it."""

SHORT_TRAINING_EPOCHS = (1,)
"""Passes over the training images of each candidate of a short list."""

MAY_CHANGE = ("created", "versions", "device", "study_name", "sources", "short_list")
"""Entries in which a run may differ from a search that goes on with it."""


Count = Annotated[int, Field(strict=True, ge=1, le=10**8)]
Limit = Annotated[int, Field(strict=True, ge=1, le=10**18)]
Size = Annotated[int, Field(strict=True, ge=1, le=2**16)]
Seed = Annotated[int, Field(strict=True, ge=-(2**127), le=2**127)]


class Sources(BaseModel):
    """Where the images of a search, and its hypernetwork, came from.

    Args:
        data: What `ghnas.load_data` was given; None if the images were not loaded by it.
        ghn: The hypernetwork's file, None if it has none or the search uses none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str | None = None
    ghn: str | None = None


def _several(value: Any) -> Any:
    """One length of trainings as a sequence, as earlier versions wrote it."""
    return (value,) if isinstance(value, int) else value


Lengths = Annotated[tuple[Count, ...], BeforeValidator(_several)]
"""Of trainings, ascending; all but the first for the best alone."""


class ShortList(BaseModel):
    """How many candidates have a short training after the search, and which.

    Args:
        count: How many; see `ghnas.engine.stages.short_list`. None: as many as fit in `seconds`.
        seconds: That the trainings may take.
        steps: SGD steps of each; None: so many epochs.
        epochs: Passes over the training images.
        cells: Of the networks that are trained; None: as many as in the space's file.
        start: `ghn` or `kaiming`; see `ghnas.engine.stages.training_jobs.training_job`.
        mutate: Whether mutations of the best join the candidates before each batch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: Count | None = None
    seconds: Annotated[float, Field(gt=0, le=1e9)] | None = None
    steps: Lengths | None = None
    epochs: Lengths = SHORT_TRAINING_EPOCHS
    cells: Annotated[Count, Field(le=200)] | None = None
    start: Literal["ghn", "kaiming"] | None = None
    mutate: bool = False


class Joined(BaseModel):
    """How several processes share a search out; see `ghnas.engine.databases.claims`.

    Args:
        piece: Candidates that a process claims at a time.
        ahead: Batches that are scored before an earlier one is recorded. What a race learns from
            lies so many batches back, so that a score does not depend on who was faster.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    piece: Count
    ahead: Count


class _Described(BaseModel):
    """What objectives say of themselves, so far as a run is gone on with by it."""

    images: Count | None = None
    batch_size: Count | None = None
    keep: Count | None = None
    proxy_seed: Seed | None = None
    latency: LatencyTable | None = None


class Manifest(BaseModel):
    """What a run was started with; it never changes.

    Args:
        created: Time in UTC, ISO 8601.
        space: The space's name, or the file that the user named.
        space_text: The YAML file itself, for the file may change.
        skeleton: The macro architecture.
        image_shape: Channels, height and width.
        classes: Names of the classes.
        objective: What the objective says of itself: the SHA-256 of its images, how candidates are
            scored, and of a zero-shot one the SHA-256 of its hypernetwork.
        objectives: Names of the values.
        directions: `maximize` or `minimize` for each.
        sampler: Its name.
        budget: Number of candidates.
        batch_size: Candidates that are asked for together.
        max_parameters: Most parameters of a candidate, None: no limit.
        max_flops: Most multiply-adds x 2, for one image.
        max_latency: Most seconds for a batch, as the objective's table predicts them.
        sources: Where images and hypernetwork are found again.
        short_list: Which candidates have a short training afterwards.
        storage: URL of Optuna's database without its password, None for a journal in the run's
            folder.
        joined: How several processes share the search out, None if one does all.
        versions: Of the packages that the result depends on.
        device: Where candidates were evaluated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    created: str
    space: str
    space_text: str
    skeleton: dict[str, Any]
    image_shape: Annotated[tuple[Size, ...], Field(min_length=3, max_length=3)]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    objective: dict[str, Any]
    objectives: Annotated[tuple[str, ...], Field(min_length=1)]
    directions: tuple[Direction, ...]
    sampler: str
    seed: Seed = 0
    budget: Count
    batch_size: Count
    max_parameters: Limit | None = None
    max_flops: Limit | None = None
    max_latency: Annotated[float, Field(gt=0, le=1e9)] | None = None
    sources: Sources = Sources()
    short_list: ShortList | None = None
    storage: str | None = None
    joined: Joined | None = None
    study_name: str = ""
    versions: dict[str, str] = {}
    device: str = "cpu"

    @field_validator("created")
    @classmethod
    def _is_time(cls, value: str) -> str:
        datetime.fromisoformat(value)
        return value

    @field_validator("objective")
    @classmethod
    def _can_be_gone_on_with(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            _Described.model_validate(value)
        except ValidationError as error:
            raise ValueError(explain(error)) from error
        return value

    @field_validator("directions")
    @classmethod
    def _one_for_each(cls, value: tuple[Direction, ...], info: ValidationInfo) -> Any:
        if len(value) != len(info.data.get("objectives", value)):
            raise ValueError("directions must be one for each of the objectives")
        return value

    @property
    def uses_ghn(self) -> bool:
        """Whether candidates are scored with the weights that a hypernetwork predicts."""
        return "ghn_sha256" in self.objective

    @property
    def latency(self) -> LatencyTable | None:
        """What predicts latencies, if the search goes by them."""
        described = self.objective.get("latency")
        return read_table(described, "the manifest") if described else None

    def summary(self) -> dict[str, str | int]:
        """The main entries, as a study's user attributes."""
        names = ("space", "sampler", "seed", "budget", "batch_size", "max_parameters",
                 "max_flops", "max_latency", "device")  # fmt: skip
        entries = {name: getattr(self, name) for name in names}
        entries |= {"data": self.sources.data, "ghn": self.sources.ghn} | {
            key: value[:12] if isinstance(value, str) and len(value) == 64 else value
            for key, value in self.objective.items()
            if not isinstance(value, dict)  # the table of latencies
        }
        entries |= {f"version_{key}": value for key, value in self.versions.items()}
        return {key: value for key, value in entries.items() if value is not None}

    def difference(self, other: Manifest) -> str | None:
        """The first entry in which a search cannot go on with this run, in words."""
        ours, theirs = _flat(self), _flat(other)
        for key in ours | theirs:
            if ours.get(key) != theirs.get(key):
                return f"{key} {_short(ours.get(key))}, not {_short(theirs.get(key))}"
        return None


def _flat(manifest: Manifest) -> dict[str, Any]:
    """What may not differ, each entry of the objective by itself."""
    entries: dict[str, Any] = json.loads(manifest.model_dump_json(exclude=set(MAY_CHANGE)))
    return entries | {f"objective {key}": value for key, value in entries.pop("objective").items()}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def installed_versions() -> dict[str, str]:
    """Versions of what a run's result depends on, found without importing it."""
    packages = ("ghnas", "torch", "optuna")
    found = {package: installed_version(package) or "unknown" for package in packages}
    return {"python": platform.python_version(), **found}


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        UserError: If the file is missing, damaged, or from another version; the file is named.
    """
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise UserError(f"{path.parent} is not a run: it has no {path.name}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: damaged, it is not JSON ({error})") from error
    return parse_manifest(content, str(path.parent), str(path))


def parse_manifest(content: Any, owner: str, place: str | None = None) -> Manifest:
    """Read what a manifest's file holds.

    Args:
        content: Of JSON.
        owner: What was started with it, for messages.
        place: Where it stands, for messages; default: the owner.

    Raises:
        UserError: If it is damaged, or from another version.
    """
    found = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(found, int) and found != FORMAT_VERSION:
        age, advice = (
            ("a newer", "update ghnas")
            if found > FORMAT_VERSION
            else ("an older", "start a new search, or read it with the ghnas that wrote it")
        )
        raise UserError(
            f"{owner}: written by {age} ghnas (run format {found}, this one reads "
            f"{FORMAT_VERSION}); {advice}"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{place or owner}: damaged, {explain(error)}") from error
