"""A run: one search with its folder, its manifest and its Optuna study."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial
from pydantic import TypeAdapter

from ghnas.engine.manifest import Manifest, read_manifest
from ghnas.engine.order import Order, read_order
from ghnas.engine.storage import (
    append_trials,
    create_study,
    open_storage,
    repair_journal,
    writing,
)
from ghnas.engine.trainings import TrainingRecord, first_outcomes, longest, read_trainings
from ghnas.engine.trials import Direction, Trial, TrialFormat, rank_trials
from ghnas.spaces import Space, parse_space
from ghnas.spaces.files import explain
from ghnas.utils.errors import UserError
from ghnas.utils.files import is_empty, locked, read_json, write_atomically

if TYPE_CHECKING:  # SQLAlchemy is loaded where a database is used
    from ghnas.engine.databases.claims import Claims

MANIFEST = "manifest.json"
JOURNAL = "study.log"
PROGRESS = "progress.json"
LOCK = "search.lock"
CLAIMS = "claims"
"""The study beside a joined search's whose trials are its pieces."""
LATENCIES = "latencies.json"
"""Of the candidates that were measured: seconds by the number of the trial."""
SHORT_LIST = "short-list"
"""The stage whose outcomes order the best candidates."""

_LATENCIES = TypeAdapter(dict[int, float])


class Run:
    """One search with its folder.

    Args:
        path: The folder.
        manifest: What the run was started with.
        url: Of its database with the password, which the manifest does not keep; default: the
            manifest's.
    """

    def __init__(self, path: Path, manifest: Manifest, url: str | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self._url = url if manifest.storage and url else manifest.storage
        self._size: int | None = None
        """Of the journal, after the last write."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def study_path(self) -> Path:
        """The journal, if the run does not use a database."""
        return self.path / JOURNAL

    def network_folder(self, name: str) -> Path:
        """Where fine-tuning keeps a network, for `ghnas.load`.

        Args:
            name: Of the candidate, with what tells its networks apart.
        """
        return self.path / "finetune" / name

    @property
    def storage_url(self) -> str:
        """What `optuna-dashboard` takes: the journal's path or the database's URL."""
        return self.manifest.storage or str(self.study_path)

    @cached_property
    def space(self) -> Space:
        """The space as it was when the run was started, with the run's skeleton and images."""
        manifest = self.manifest
        space = parse_space(manifest.space_text, f"{self.path / MANIFEST}, space_text")
        space = space.with_skeleton(**manifest.skeleton)
        return space.for_images(manifest.image_shape, len(manifest.classes))

    @cached_property
    def form(self) -> TrialFormat:
        """How trials stand in the study."""
        manifest = self.manifest
        study = f"{manifest.study_name}, seed {manifest.seed}"
        return TrialFormat(self.space, manifest.objectives, study)

    def study(self) -> optuna.Study:
        """The search's record: trial n is the n-th candidate.

        Raises:
            UserError: If the record is missing or damaged.
        """
        return self._load_study(self.open_storage())

    def _load_study(self, storage: BaseStorage) -> optuna.Study:
        name, wanted = self.manifest.study_name, self.manifest.directions
        with self.expected():
            study = optuna.load_study(study_name=name, storage=storage)
        if (found := tuple(item.name.lower() for item in study.directions)) != wanted:
            raise UserError(
                f"{self.storage_url}: damaged, study {name!r} says {', '.join(found) or 'nothing'} "
                f"where the search was to {', '.join(wanted)}; put back a copy of it, or start a "
                "new search"
            )
        return study

    @contextlib.contextmanager
    def expected(self) -> Iterator[None]:
        """Say what is wrong where Optuna finds no such study.

        Raises:
            UserError: If it does not.
        """
        try:
            yield
        except KeyError as error:
            raise UserError(
                f"{self.storage_url}: holds no study {self.manifest.study_name!r}; "
                "it was deleted or replaced"
            ) from error

    def study_beside(self, kind: str, objective: str, direction: Direction) -> optuna.Study:
        """A study beside the search's, in the same storage, made on first use.

        Trials of a search are finished and take no more values, so that a later stage, such as
        fine-tuning, has a study of its own.

        Args:
            kind: Of stage; the study's name is the search's with this behind it.
            objective: Name of its value.
            direction: Of its value.
        """
        if self.manifest.storage is None:
            repair_journal(self.study_path)
        with writing(self.study_path):
            return create_study(
                self.open_storage(),
                self._name_beside(kind),
                {objective: direction},
                {"search": self.name},
                may_exist=True,
            )

    def _name_beside(self, kind: str) -> str:
        return f"{self.manifest.study_name}-{kind}"

    def open_storage(self) -> BaseStorage:
        """Optuna's storage of the run.

        Raises:
            UserError: If it is missing or damaged.
        """
        if self.manifest.storage is None and not self.study_path.is_file():
            raise UserError(f"{self.study_path}: missing, the run has lost its record")
        return open_storage(self.study_path, self._url)

    def read(self) -> list[Trial]:
        """What was recorded, in the order of asking.

        Raises:
            UserError: If the record is missing, damaged, or holds trials of somebody else.
        """
        return self.form.trials(self.study())

    @cached_property
    def _database(self) -> tuple[RDBStorage, int]:
        """The database of a run that has one, opened once, and Optuna's number of the study."""
        from ghnas.engine.databases.connection import open_database

        assert self._url is not None
        return open_database(self._url), self.study()._study_id

    def _add_to_database(self, first: int, trials: Sequence[FrozenTrial]) -> None:
        from ghnas.engine.databases.connection import database_errors
        from ghnas.engine.databases.rows import add_from

        assert self._url is not None
        with database_errors(self._url):
            add_from(*self._database, first, trials)

    def claims(self, turns: int) -> Claims | None:
        """What this process scores of a search that several share; None if one does it all.

        Args:
            turns: Pieces that are scored at a time.
        """
        from ghnas.engine.databases.claims import Claims

        joined = self.manifest.joined
        if joined is None or self._url is None:
            return None
        size, name = self.manifest.batch_size, self._name_beside(CLAIMS)
        return Claims(self._database[0], self._url, name, size, joined.piece, turns)

    def write(self, trials: Sequence[Trial]) -> None:
        """Append trials; they are on the disk when this returns.

        Raises:
            UserError: If the disk is full, the folder or the database not writable, or the study
                was deleted.
        """
        if not trials:  # Optuna would write an empty line, and not read it
            return
        frozen = [self.form.frozen(trial) for trial in trials]
        if self.manifest.storage is None:
            with writing(self.study_path):
                if self._size != self.study_path.stat().st_size:
                    self.study()  # somebody else wrote: it may have been deleted
                append_trials(self.study_path, frozen)
                self._size = self.study_path.stat().st_size
        else:
            self._add_to_database(trials[0].number, frozen)

    @property
    def complete(self) -> bool:
        """Whether the whole budget is recorded."""
        return len(self.study().get_trials(deepcopy=False)) >= self.manifest.budget

    def ranked(self, limit: int | None = None) -> list[Trial]:
        """Distinct architectures, best first; see `rank_trials`.

        Args:
            limit: Only so many.
        """
        storage = self.open_storage()
        outcomes, order = longest(self.trainings(storage)), self.order
        expected = order.expected if order else None
        found = rank_trials(self._load_study(storage), self.form, outcomes, expected)[:limit]
        measured = self.latencies
        return [replace(item, latency=measured.get(item.number)) for item in found]

    @property
    def latencies(self) -> dict[int, float]:
        """Seconds for a batch, as measured, by the number of the trial.

        Raises:
            UserError: If the file is damaged.
        """
        path = self.path / LATENCIES
        try:
            return _LATENCIES.validate_python(read_json(path))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise UserError(f"{path}: damaged ({explain(error)})") from error

    @property
    def order(self) -> Order | None:
        """What a predictor expects of the candidates, once some were trained."""
        return read_order(self.path)

    def trainings(self, storage: BaseStorage | None = None) -> list[TrainingRecord]:
        """The short trainings that candidates of the search had."""
        return read_trainings(self.stage(SHORT_LIST, storage))

    def short_trainings(self) -> dict[int, float]:
        """The outcome for each trial of the search that had a short training; see
        `first_outcomes`."""
        return first_outcomes(self.trainings())

    def stage(self, kind: str, storage: BaseStorage | None = None) -> list[FrozenTrial]:
        """The trainings of a later stage, with their curves; see `study_beside`.

        Args:
            kind: Of stage, such as `finetune`.
            storage: Of the run, if it is open already.
        """
        storage = storage or self.open_storage()
        try:
            study = optuna.load_study(study_name=self._name_beside(kind), storage=storage)
        except KeyError:
            return []
        return study.get_trials(deepcopy=False)

    def check_inputs(self, *, ghn_sha256: str, data_fingerprint: str) -> None:
        """Check that the hypernetwork and the data are those that the run was started with.

        Raises:
            UserError: If one of them has changed.
        """
        objective, sources = self.manifest.objective, self.manifest.sources
        found = {
            "ghn_sha256": (ghn_sha256, "another GHN", sources.ghn, "that file"),
            "data_fingerprint": (data_fingerprint, "other images", sources.data, "those images"),
        }
        for key, (now, what, source, back) in found.items():
            known = objective.get(key, "")
            if now != known:
                raise UserError(
                    f"run {self.name} was started with {what} ({source}, SHA-256 {known[:12]}, "
                    f"now {now[:12]}); start a new search, or give back {back}"
                )

    @contextlib.contextmanager
    def locked(self, stage: str = "search") -> Iterator[None]:
        """Keep other processes from the same stage of this run; mend what a killed one left.

        Args:
            stage: `search` or `finetune`.

        Raises:
            UserError: If another process is at it, or the folder is not writable.
        """
        doing = {"search": "searched", "finetune": "fine-tuned"}[stage]
        taken = f"run {self.name} is being {doing} by another process: wait until it has ended"
        with contextlib.ExitStack() as stack:
            with writing(self.path):
                stack.enter_context(locked(self.path / f"{stage}.lock", taken))
            if self.manifest.storage is None and self.study_path.is_file():
                repair_journal(self.study_path)
            yield

    def note_progress(self, done: int, best: float | None) -> None:
        """Keep the figures that `list_runs` shows, so that it need not read every study."""
        with writing(self.path / PROGRESS):
            write_atomically(self.path / PROGRESS, json.dumps({"done": done, "best": best}))


def open_run(path: Path, url: str | None = None) -> Run:
    """Open a run's folder.

    Args:
        path: The folder.
        url: As in `Run`.

    Raises:
        UserError: If it is none, is damaged, or was written by another version.
    """
    return Run(path, read_manifest(path / MANIFEST), url)


def _only_begun(path: Path) -> bool:
    """Whether a folder has nothing but the study of a search that was killed before it wrote its
    manifest, and so before its first trial."""
    if [item.name for item in path.iterdir() if not item.name.startswith(".")] != [JOURNAL]:
        return False
    try:
        storage = open_storage(path / JOURNAL, None)
        studies = [study._study_id for study in storage.get_all_studies()]
        return not any(storage.get_n_trials(study) for study in studies)
    except UserError:
        return False


def create_run(path: Path, manifest: Manifest, url: str | None = None) -> Run:
    """Make a run's folder with its manifest and its study.

    Args:
        path: The folder; it must not exist, be empty, or be of a search that was killed before it
            began.
        manifest: What to search; the study gets the folder's name.
        url: As in `Run`.

    Raises:
        UserError: If the folder cannot be written or the storage cannot be opened.
    """
    manifest = manifest.model_copy(update={"study_name": path.resolve().name})
    if path.is_dir() and not is_empty(path):
        if not _only_begun(path):
            raise UserError(f"{path} is not empty: choose another folder for the search")
        (path / JOURNAL).unlink()
    try:
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            storage = open_storage(path / JOURNAL, url or manifest.storage)
            objectives = dict(zip(manifest.objectives, manifest.directions, strict=True))
            create_study(storage, manifest.study_name, objectives, manifest.summary())
            # last: a folder with a manifest is a whole run
            write_atomically(path / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    except UserError:
        with contextlib.suppress(OSError):
            (path / JOURNAL).unlink(missing_ok=True)
            path.rmdir()
        raise
    return Run(path, manifest, url)
