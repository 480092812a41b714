"""`ghnas search --join`: several processes fill one study of a database."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from searching import save_untrained

from ghnas.data import load_data
from ghnas.spaces import load_space

Ghnas = Callable[..., tuple[int, str, str]]


def test_the_second_process_takes_everything_from_the_study(
    ghnas: Ghnas, tiny_ghn: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/search.db"
    join = ["search", "--storage", url, "--join", "ours", "--device", "cpu"]
    first = ["--budget", 12, "--ghn", tiny_ghn, "--score-images", 64, "--results"]
    code, _, err = ghnas(*join, *first, tmp_path / "a")
    assert code == 0, err
    code, out, err = ghnas(*join, "--ghn", tiny_ghn, "--results", tmp_path / "b", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert len(found["best"]) == 10
    assert found["manifest"]["study_name"] == "ours"
    code, out, err = ghnas("show", "top-1", "--results", tmp_path / "b")
    assert code == 0, err
    (run,) = (tmp_path / "b" / "runs").iterdir()
    assert run.name.endswith("-ours")

    def fails(*arguments: object) -> str:
        code, _, err = ghnas(*join, *arguments, "--results", tmp_path / "c")
        assert code == 2
        (sentence,) = err.splitlines()
        return sentence

    assert "study ours was started with --budget 12, not 13" in fails("--budget", 13)
    assert "started with --space darts, not nasbench201" in fails("--space", "nasbench201")
    other = save_untrained(tmp_path / "o.safetensors", load_space("darts"), load_data("embedded"))
    assert "was started with another GHN" in fails("--ghn", other)
    assert "do not train candidates" in fails("--train", 3)


def test_join_without_a_database(ghnas: Ghnas, tmp_path: Path) -> None:
    code, _, err = ghnas("search", "--join", "ours", "--results", tmp_path)
    assert code == 2
    assert "say which one with --storage" in err


def test_wrong_password(
    ghnas: Ghnas, tmp_path: Path, postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(parse_qs(urlsplit(postgresql).query)["host"][0])
    access = folder / "pg_hba.conf"
    access.write_text(f"local all guest scram-sha-256\n{access.read_text()}")
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(postgresql.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'r1ght'")
    wrong = postgresql.replace("postgres:@", "guest:S3cret@")
    arguments = ["search", "--join", "ours", "--results", tmp_path, "--storage"]
    code, out, err = ghnas(*arguments, wrong)
    assert code == 2
    (sentence,) = err.splitlines()
    assert "password authentication failed" in sentence
    assert "S3cret" not in out + err
    monkeypatch.setenv("PGPASSWORD", "0ther")
    code, out, err = ghnas(*arguments, postgresql.replace("postgres:@", "guest@"))
    assert code == 2
    assert "set PGPASSWORD or write ~/.pgpass" in err
    assert "0ther" not in out + err


def test_missing_extra(ghnas: Ghnas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    url = "postgresql+psycopg://ann:S3cret@localhost/nas"
    code, _, err = ghnas("search", "--storage", url, "--join", "ours", "--results", tmp_path)
    assert code == 2
    assert "pip install 'ghnas[postgresql]'" in err
    assert "S3cret" not in err
