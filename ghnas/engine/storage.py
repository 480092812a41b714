"""Optuna storages: a journal file in the run's folder, or any database that Optuna knows."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ghnas.engine.manifest import Direction
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

LOCK_PATIENCE = 2.0
"""Seconds after which a journal's lock counts as left behind; a writer needs milliseconds."""


class TrialWriter(Protocol):
    """Where finished trials are written."""

    def write(self, trials: Sequence[FrozenTrial]) -> None:
        """Append trials; they are on the disk when this returns."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the file system into a sentence that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or make the "
            "folder writable"
        ) from error


def open_storage(journal: Path, url: str | None) -> BaseStorage:
    """Open the journal, or the database if a URL is given.

    Raises:
        UserError: If it cannot be opened or is damaged.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is not None:
        return _open_database(url)
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        with writing(journal):
            return JournalStorage(JournalFileBackend(str(journal)))
    except (ValueError, KeyError, AssertionError) as error:
        raise UserError(f"{journal}: damaged, it is not an Optuna journal ({error})") from error


def _open_database(url: str) -> BaseStorage:
    from optuna.storages import RDBStorage

    try:
        return RDBStorage(url)
    except Exception as error:  # SQLAlchemy and the drivers raise classes of their own
        problem = str(error).splitlines()[0]
        raise UserError(
            f"storage {url!r}: cannot be opened ({problem}); expected an Optuna database URL such "
            "as sqlite:///search.db"
        ) from error


def create_study(
    storage: BaseStorage,
    name: str,
    objectives: dict[str, Direction],
    attributes: dict[str, Any],
    may_exist: bool = False,
) -> optuna.Study:
    """Make a study.

    Args:
        objectives: Direction of each objective by name.
        attributes: The study's user attributes.
        may_exist: Whether to open it if it exists.

    Raises:
        UserError: If it exists and may not.
    """
    import optuna

    try:
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=list(objectives.values()),
            load_if_exists=may_exist,
        )
    except optuna.exceptions.DuplicatedStudyError as error:
        raise UserError(
            f"the storage already holds a study {name!r}, started in the same second; try again"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(objectives))
    for key, value in attributes.items():
        study.set_user_attr(key, value)
    return study


class JournalWriter:
    """Writes trials to a journal, a batch in one piece.

    Optuna opens, locks and syncs the file for each trial. Here a batch goes through Optuna's own
    storage into memory first, and from there into the file at once: same content, a third of the
    time, and a process that is killed leaves whole batches but for the last line.

    Args:
        journal: A file whose first study is the one to write to.
        objectives: Number of objectives.
    """

    def __init__(self, journal: Path, objectives: int) -> None:
        from optuna.storages.journal import JournalFileBackend

        self.journal = journal
        self.objectives = objectives
        with writing(journal):
            self._file = JournalFileBackend(str(journal))

    def write(self, trials: Sequence[FrozenTrial]) -> None:
        """See `TrialWriter`.

        Raises:
            UserError: If the disk is full or the folder not writable.
        """
        logs = _journal_lines(trials, self.objectives)
        with writing(self.journal):
            self._file.append_logs(logs)


def _journal_lines(trials: Sequence[FrozenTrial], objectives: int) -> list[dict[str, Any]]:
    """What Optuna would write to a journal for these trials of its first study."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import BaseJournalBackend
    from optuna.study import StudyDirection

    class Memory(BaseJournalBackend):
        def __init__(self) -> None:
            self.logs: list[dict[str, Any]] = []

        def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
            yield from self.logs[log_number_from:]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            self.logs += logs

    memory = Memory()
    storage = JournalStorage(memory)
    study = storage.create_new_study([StudyDirection.MINIMIZE] * objectives, "study")
    start = len(memory.logs)
    for trial in trials:
        storage.create_new_trial(study, template_trial=trial)
    return memory.logs[start:]


class DatabaseWriter:
    """Writes trials through Optuna, one by one.

    Args:
        study: Of a database.
        url: For messages.
    """

    def __init__(self, study: optuna.Study, url: str) -> None:
        self.study = study
        self.url = url

    def write(self, trials: Sequence[FrozenTrial]) -> None:
        """See `TrialWriter`.

        Raises:
            UserError: If the database does not take them.
        """
        import optuna

        try:
            self.study.add_trials(trials)
        except (optuna.exceptions.StorageInternalError, OSError) as error:
            problem = str(error).splitlines()[0]
            raise UserError(f"storage {self.url!r}: cannot be written ({problem})") from error


def repair_journal(journal: Path) -> None:
    """Undo what a killed process left: a lock that nobody holds, a last line cut short.

    Args:
        journal: The file.

    Raises:
        UserError: If the file cannot be changed.
    """
    from optuna.storages.journal import JournalFileSymlinkLock

    lock = Path(f"{journal}.lock")
    with writing(journal):
        deadline = time.monotonic() + LOCK_PATIENCE
        while os.path.lexists(lock) and time.monotonic() < deadline:
            time.sleep(0.02)
        with suppress(FileNotFoundError):
            lock.unlink()
        held = JournalFileSymlinkLock(str(journal))
        held.acquire()
        try:
            _cut_torn_line(journal)
        finally:
            held.release()


def _cut_torn_line(journal: Path) -> None:
    with journal.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(end - 65_536, 0)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
