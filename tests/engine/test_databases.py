"""Databases: rows as Optuna writes them, and passwords that are kept and printed nowhere."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import optuna
import pytest
from searching import FakeObjective, finished, make_manifest
from sqlalchemy.exc import OperationalError

from ghnas import UserError
from ghnas.engine.databases.connection import database_errors, open_database, without_password
from ghnas.engine.databases.rows import add_from
from ghnas.engine.joining import join_run
from ghnas.engine.run import create_run, open_run
from ghnas.engine.search import search_run


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/search.db"


# ---------------------------------------------------------------- rows


def test_rows_are_those_that_optuna_writes(tmp_path: Path, postgresql: str) -> None:
    run = finished(tmp_path, objectives=("accuracy", "params"))
    trials = [run.form.frozen(trial) for trial in run.read()]
    trials[1].values = (float("inf"), float("-inf"))
    storage = open_database(postgresql)
    directions = ["maximize", "minimize"]
    theirs = optuna.create_study(storage=storage, study_name="theirs", directions=directions)
    theirs.add_trials(trials)
    ours = optuna.create_study(storage=storage, study_name="rows", directions=directions)
    add_from(storage, ours._study_id, 0, trials[:12])
    add_from(storage, ours._study_id, 8, trials[8:])  # a part is there already
    add_from(storage, ours._study_id, 0, trials)

    def plain(study: optuna.Study) -> list[dict[str, Any]]:
        rows = [vars(trial) for trial in study.trials]
        return [{key: row[key] for key in row if key != "_trial_id"} for row in rows]

    assert plain(ours) == plain(theirs)
    with pytest.raises(UserError, match="has lost trials"):
        add_from(storage, ours._study_id, 30, trials[:1])
    optuna.delete_study(study_name="rows", storage=storage)
    with pytest.raises(UserError, match="was deleted"):
        add_from(storage, ours._study_id, 20, trials[:1])


INTERRUPTED = """
import itertools
import signal
import sys

from ghnas.engine.databases.connection import open_database

storage = open_database(sys.argv[1])
(study,) = storage.get_all_studies()


def interrupt(frame, event, argument):
    if event == "c_return" and argument.__name__ == "fetchall" and next(calls) == wanted:
        sys.setprofile(None)
        signal.raise_signal(signal.SIGINT)


for wanted in itertools.count():
    calls = itertools.count()
    try:
        sys.setprofile(interrupt)
        trials = storage.get_all_trials(study._study_id)
        sys.setprofile(None)
        break
    except KeyboardInterrupt:
        continue
print(f"{wanted > 0}, {len(trials)}")
"""


def test_reads_that_are_interrupted_log_no_traceback(sqlite: str) -> None:
    study = optuna.create_study(storage=open_database(sqlite), study_name="one")
    study.add_trials([optuna.trial.create_trial(value=0.5) for _ in range(2)])
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, sqlite], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True, 2\n", "")


def test_optuna_says_nothing_of_studies_that_it_makes(sqlite: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    open_database(sqlite)
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING


# ---------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run and its database."""
    folder = tmp_path_factory.mktemp("sound")
    run = create_run(folder / "run", make_manifest(storage=f"sqlite:///{folder}/search.db"))
    search_run(run, FakeObjective(), None)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE trials RENAME COLUMN state TO gone",
        "UPDATE studies SET study_name = 'other'",
        "DELETE FROM study_directions",
        "UPDATE study_directions SET direction = 'MINIMIZE'",
        "UPDATE study_directions SET direction = 'MAXIMIZX'",
        "DELETE FROM trials WHERE trial_id = 1",
        "DELETE FROM trials WHERE trial_id = 3",
        "UPDATE trials SET number = NULL WHERE trial_id = 3",
        "UPDATE trials SET state = 'COMPLETX' WHERE trial_id = 3",
        "UPDATE trial_values SET value = NULL WHERE trial_id = 3",
        "UPDATE trial_values SET objective = 5 WHERE trial_id = 3",
        "UPDATE trial_params SET param_value = 99 WHERE trial_id = 3",
        "UPDATE trial_params SET param_value = 9e999 WHERE trial_id = 3",
        "UPDATE trial_params SET distribution_json = '{' WHERE trial_id = 3",
        "UPDATE trial_params SET distribution_json = '{}' WHERE trial_id = 3",
        "UPDATE trial_user_attributes SET value_json = NULL WHERE trial_id = 3",
    ],
)
def test_a_damaged_database_is_said_so_wherever_it_is_read(
    sound: Path, tmp_path: Path, change: str
) -> None:
    path, url = shutil.copy(sound / "search.db", tmp_path), f"sqlite:///{tmp_path}/search.db"
    with sqlite3.connect(path) as database:
        database.execute(change)
    database.close()
    damaged = open_run(sound / "run", url)
    for read in (damaged.ranked, damaged.read, lambda: search_run(damaged, FakeObjective(), None)):
        with pytest.raises(UserError, match=r"search\.db|study 'run"):
            read()
    if "FROM trials" not in change:  # which only makes it incomplete
        with pytest.raises(UserError, match=r"search\.db"):
            assert damaged.complete


# ---------------------------------------------------------------- passwords


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("sqlite:///a b.db", "sqlite:///a b.db"),
        ("postgresql+psycopg://ann@db:5432/nas", "postgresql+psycopg://ann@db:5432/nas"),
        ("postgresql+psycopg://ann:S3cret@db/nas", "postgresql+psycopg://ann@db/nas"),
        ("postgresql+psycopg://db/nas?password=S3cret&x=1", "postgresql+psycopg://db/nas?x=1"),
        ("mysql://ann:S3cret@db:port/nas", "mysql://..."),
        ("ann:S3cret@db", "..."),
    ],
)
def test_urls_without_their_password(url: str, kept: str) -> None:
    assert without_password(url) == kept


@pytest.mark.parametrize(
    "url",
    ["postgresql+psycopg://ann:S3cret@127.0.0.1:9/nas", "mysql://ann:S3cret@x/nas",
     "foo://ann:S3cret@x/y", "ann:S3cret@x", "postgresql://ann:S3cret:@[x/y"],
)  # fmt: skip
def test_a_database_that_cannot_be_reached(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="cannot be opened") as caught:
        join_run(tmp_path / "run", make_manifest(storage=url, join="ours"), url)
    assert "S3cret" not in "".join(traceback.format_exception(caught.value))
    assert not (tmp_path / "run").exists()


def test_the_password_is_kept_nowhere(tmp_path: Path, sqlite: str) -> None:
    path = tmp_path / "run"
    secret = f"{sqlite}?password=S3cret"
    run = make_manifest(storage=secret, join="ours")
    assert run.storage == sqlite
    with pytest.raises(UserError) as caught, database_errors("postgresql://ann:S3cret@x/y"):
        raise OperationalError("S3cret", None, Exception("no user ann with S3cret"))
    assert "S3cret" not in str(caught.value)
    assert not path.exists()
