"""A CSV file that grows by a row at a time, and goes on after its writer was killed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from ghnas.utils.errors import UserError
from ghnas.utils.files import cut_torn_line, locked, read_json, write_atomically

Row = dict[str, str]


class RowFile:
    """Rows under a fixed header, and beside them, as JSON, the settings that they were made with.

    Use it with `with`: the file is made where it is not there, and no other process can write to
    it meanwhile.

    Args:
        path: The CSV file; `truth.csv` keeps its settings in `truth.csv.json`.
        columns: The header.
        settings: What must be the same for rows to stand in one file; plain data.

    Raises:
        UserError: If the file is there and is not such a file, was made with other settings,
            or another process writes to it.
    """

    def __init__(self, path: Path, columns: Sequence[str], settings: Mapping[str, Any]) -> None:
        self.path, self.columns = path, tuple(columns)
        self.rows: list[Row] = []
        self._settings = json.loads(json.dumps(settings))
        if path.exists():
            self._check(read_settings(path))

    def __enter__(self) -> Self:
        beside = settings_path(self.path)
        beside.parent.mkdir(parents=True, exist_ok=True)
        self._lock = locked(
            beside, f"another process writes to {self.path}: wait until it has ended"
        )
        self._lock.__enter__()
        try:
            if self.path.exists():
                self._check(read_settings(self.path))
                cut_torn_line(self.path)
            else:  # in place: a file put in its place would not be the one that is locked
                beside.write_text(json.dumps(self._settings, indent=1))
                write_atomically(self.path, ",".join(self.columns) + "\n")
            self.rows = read_rows(self.path, self.columns)
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__(None, None, None)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows behind those there, all in one piece.

        Raises:
            OSError: If the disk is full.
        """
        new = [{key: str(row[key]) for key in self.columns} for row in rows]
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(self._text(new))
        self.rows += new

    def sort(self, key: Callable[[Row], Any]) -> None:
        """Put the rows in order, which must not depend on what was finished first."""
        ordered = sorted(self.rows, key=key)
        if ordered != self.rows:
            write_atomically(self.path, ",".join(self.columns) + "\n" + self._text(ordered))
            self.rows = ordered

    def _text(self, rows: Iterable[Row]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(rows)
        return text.getvalue()

    def _check(self, found: Mapping[str, Any] | None) -> None:
        wanted = self._settings
        if found is None:
            raise UserError(
                f"{self.path} is there without its {settings_path(self.path).name}: "
                "choose another file to write to"
            )
        for key in {**wanted, **found}:
            if found.get(key) != wanted.get(key):
                raise UserError(
                    f"{self.path} was made with {key} {found.get(key)}, not {wanted.get(key)}: "
                    "give the same settings to go on, or another file to start anew"
                )


def settings_path(path: Path) -> Path:
    """Where the settings of a file of rows are kept."""
    return path.with_name(path.name + ".json")


def read_settings(path: Path) -> dict[str, Any] | None:
    """The settings that a file of rows was made with; None if it has none."""
    try:
        content = read_json(settings_path(path))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_rows(path: Path, needed: Sequence[str] = ()) -> list[Row]:
    """The rows of any CSV file with a header.

    Raises:
        UserError: If it cannot be read, or lacks one of the columns `needed`.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            columns = reader.fieldnames or []
            rows = [{key: row[key] or "" for key in columns} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    missing = [name for name in needed if name not in columns]
    if missing:
        listed = ", ".join(columns) or "nothing"
        raise UserError(f"{path} has no column {missing[0]!r}; its columns are {listed}")
    return rows
