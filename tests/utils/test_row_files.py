"""Files of rows: one writer at a time, also while they are made."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ghnas.utils.errors import UserError
from ghnas.utils.tables import RowFile, read_rows

COLUMNS, SETTINGS = ("name",), {"steps": 3}
WRITERS = 8


@pytest.mark.parametrize("number", range(10))
def test_one_writer_makes_a_file_and_the_others_wait(tmp_path: Path, number: int) -> None:
    path = tmp_path / "new" / "rows.csv"
    start, end = (threading.Barrier(WRITERS, timeout=30) for _ in range(2))

    def write(writer: int) -> str:
        start.wait()
        try:
            with RowFile(path, COLUMNS, SETTINGS) as file:
                file.append([{"name": writer}])
                end.wait()
        except UserError as error:
            end.wait()
            return str(error)
        return "wrote"

    with ThreadPoolExecutor(WRITERS) as threads:
        outcomes = list(threads.map(write, range(WRITERS)))
    refused = f"another process writes to {path}: wait until it has ended"
    assert sorted(outcomes) == [refused] * (WRITERS - 1) + ["wrote"]
    assert read_rows(path) == [{"name": str(outcomes.index("wrote"))}]


def test_settings_are_compared_once_the_file_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    late = RowFile(path, COLUMNS, {"steps": 4})
    with RowFile(path, COLUMNS, SETTINGS) as file:
        file.append([{"name": "a"}])
    with pytest.raises(UserError, match="made with steps 3, not 4"), late:
        pass
    assert read_rows(path) == [{"name": "a"}]


def test_a_process_killed_while_it_made_the_file_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    (tmp_path / "rows.csv.json").write_text('{"steps"')
    with RowFile(path, COLUMNS, SETTINGS) as file:
        file.append([{"name": "a"}])
    with RowFile(path, COLUMNS, SETTINGS) as file:
        assert file.rows == [{"name": "a"}]
