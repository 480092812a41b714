"""Optuna storages: a journal file in the run's folder, or any database that Optuna knows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import (
    BaseJournalBackend,
    JournalFileBackend,
    JournalFileSymlinkLock,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from ghnas.engine.trials import Direction
from ghnas.utils.errors import UserError, first_line
from ghnas.utils.files import cut_torn_line

LOCK_GRACE = 5
"""Seconds without a write after which Optuna breaks a journal's lock, whose owner was killed; a
writer needs milliseconds."""


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
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is not None:
        from ghnas.engine.databases.connection import open_database

        return open_database(url)
    try:
        with writing(journal):
            return JournalStorage(_backend(journal))
    except UserError:
        raise
    except Exception as error:  # Optuna replays what it finds: a damaged line raises every kind
        raise UserError(
            f"{journal}: damaged, it is not an Optuna journal ({first_line(error)}); put back a "
            "copy of it, or start a new search"
        ) from error


def _backend(journal: Path) -> JournalFileBackend:
    # the lock is a link to the journal, which must be found from wherever one stands
    return JournalFileBackend(str(journal.resolve()), _lock(journal))


def _lock(journal: Path) -> _Lock:
    return _Lock(str(journal.resolve()), LOCK_GRACE)


class _LockLostError(OSError, RuntimeError):
    """A lock that another process has broken; Optuna catches a RuntimeError where it breaks one."""


class _Lock(JournalFileSymlinkLock):
    """Optuna's lock, which says why it cannot be released; where Optuna cannot break one that was
    left, it would try for ever."""

    def release(self) -> None:
        try:
            super().release()
        except RuntimeError as error:
            cause = error.__context__
            if isinstance(cause, FileNotFoundError):  # as a machine does that sleeps
                reason = f"this process stood still for more than {LOCK_GRACE} s; try again"
                raise _LockLostError(cause.errno, reason, self._lock_file) from error
            if isinstance(cause, OSError):
                raise OSError(cause.errno, cause.strerror, self._lock_file) from error
            raise


class StudyExistsError(UserError):
    """A study of that name is there already."""


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
        StudyExistsError: If it exists and may not.
        UserError: If it cannot be written.
    """
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=list(objectives.values()),
            load_if_exists=may_exist,
        )
    except optuna.exceptions.DuplicatedStudyError as error:
        raise StudyExistsError(
            f"the storage already holds a study {name!r}, started in the same second; try again"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(objectives))
    for key, value in attributes.items():
        study.set_user_attr(key, value)
    return study


class _Memory(BaseJournalBackend):
    """A journal that is not kept; a study and one trial of it are read again, no others: what was
    just written need not be built anew."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        yield from self.logs[log_number_from:2]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += logs


def append_trials(journal: Path, trials: Sequence[FrozenTrial]) -> None:
    """Append trials to the first study of a journal; they are on the disk when this returns.

    Optuna opens, locks, syncs and reads the file for each trial. Here a batch goes through Optuna's
    own storage into memory first, and from there into the file at once: same content, a fifth of
    the time, and a process that is killed leaves whole batches but for the last line.

    Args:
        journal: The file.
        trials: What to append.

    Raises:
        UserError: If the disk is full or the folder not writable.
    """
    memory = _Memory()
    storage = JournalStorage(memory)
    study = storage.create_new_study([StudyDirection.MINIMIZE], "study")
    for trial in trials:
        storage.create_new_trial(study, template_trial=trial)
    with writing(journal):
        _backend(journal).append_logs(memory.logs[1:])


def repair_journal(journal: Path) -> None:
    """Cut a last line that a killed process did not write to its end.

    A lock that it left behind is broken by Optuna itself.

    Args:
        journal: The file.

    Raises:
        UserError: If the file cannot be changed.
    """
    lock = _lock(journal)
    with writing(journal):
        lock.acquire()
        try:
            cut_torn_line(journal)
        finally:
            lock.release()
