"""Architectures whose trained accuracy is known, from a CSV file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ghnas.training.ground_truth import accuracies_by_seed
from ghnas.utils.errors import UserError
from ghnas.utils.statistics import Values, part_of
from ghnas.utils.tables import read_rows

PARTS = ("all", "tune", "test")


@dataclass(frozen=True)
class Truth:
    """Architectures whose trained accuracy is known.

    Args:
        architectures: In the space's notation.
        by_seed: Accuracies in [0, 1] (seeds, architectures).
        column: Where they stand in the file.
    """

    architectures: tuple[str, ...]
    by_seed: Values
    column: str

    @property
    def mean(self) -> Values:
        """Accuracy averaged over seeds, (architectures,)."""
        return np.asarray(self.by_seed.mean(axis=0))


def read_truth(path: Path, column: str | None = None) -> Truth:
    """Architectures and accuracies of a CSV file.

    Args:
        path: A file with a column `architecture`; several rows of one architecture are told
            apart by a column `seed`. Accuracies are shares of 1, or percent if any is above 1.
        column: Of the accuracy; default: `test_accuracy` if it is filled in, else the first
            whose name has `accuracy` in it.

    Raises:
        UserError: If the file cannot be read or lacks such a column, or holds what is no number.
    """
    rows = read_rows(path, ("architecture", *([column] if column else [])))
    if not rows:
        raise UserError(f"{path} has no rows")
    column = column or _accuracy_column(path, rows)
    architectures, by_seed = accuracies_by_seed(rows, column)
    if not architectures:
        raise UserError(f"no architecture in {path} was trained from every seed")
    if not np.isfinite(by_seed).all():
        raise UserError(f"{path} has an accuracy in {column!r} that is no finite number")
    if np.max(by_seed) > 1:
        by_seed = by_seed / 100
    return Truth(tuple(architectures), by_seed, column)


def _accuracy_column(path: Path, rows: Sequence[Mapping[str, str]]) -> str:
    columns = list(rows[0])
    filled = [c for c in columns if "accuracy" in c and all(row[c] for row in rows)]
    if not filled:
        raise UserError(
            f"{path} has no filled column with accuracy in its name; name one with --column: "
            f"{', '.join(columns)}"
        )
    return "test_accuracy" if "test_accuracy" in filled else filled[0]


def subset(truth: Truth, part: str = "all", count: int | None = None, seed: int = 0) -> Truth:
    """A part of the architectures, and by chance so many of them.

    The order is decided by a digest of the seed and the architecture's text, so that it tells
    nothing of the accuracies, and a larger count gives the same ones first.

    Args:
        truth: All.
        part: `all`, or `tune` or `test` as `ghnas.utils.statistics.part_of` says.
        count: How many; None: all of the part.
        seed: Of the choice.

    Raises:
        UserError: If the part has fewer than three architectures, or fewer than `count`.
    """
    if part not in PARTS:
        raise UserError(f"unknown part {part!r}: use {', '.join(PARTS)}")
    places = [
        i for i, name in enumerate(truth.architectures) if part == "all" or part_of(name) == part
    ]
    if len(places) < max(count or 0, 3):
        raise UserError(
            f"there are {len(places)} architectures to compare, fewer than {max(count or 0, 3)}"
        )

    def draw(place: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{truth.architectures[place]}".encode()).digest()

    chosen = sorted(places, key=draw)[:count]
    names = tuple(truth.architectures[i] for i in chosen)
    return Truth(names, truth.by_seed[:, chosen], truth.column)


def read_scores(
    path: Path, columns: Sequence[str], architectures: Sequence[str]
) -> dict[str, Values]:
    """Scores of architectures, such as zero-shot ones.

    Args:
        path: A CSV file with a column `architecture`.
        columns: Which scores.
        architectures: Whose, in the file's notation.

    Returns:
        For each column (architectures,).

    Raises:
        UserError: If the file lacks a column or an architecture, or holds what is no number.
    """
    if not columns:
        return {}
    rows = {row["architecture"].strip(): row for row in read_rows(path, ("architecture", *columns))}
    missing = [name for name in architectures if name not in rows]
    if missing:
        raise UserError(f"{path} has no scores of {len(missing):,} architectures: {missing[0]}")
    try:
        return {c: np.array([float(rows[name][c]) for name in architectures]) for c in columns}
    except ValueError as error:
        raise UserError(f"{path} has a score that is no number: {error}") from error
