"""A run: its folder, its manifest, its Optuna study."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ghnas.engine.manifest import OBJECTIVES, Direction, Manifest
from ghnas.engine.record import Ranked, Record, TrialFormat
from ghnas.engine.storage import (
    DatabaseWriter,
    JournalWriter,
    TrialWriter,
    create_study,
    open_storage,
    repair_journal,
    writing,
)
from ghnas.spaces import Space, parse_space
from ghnas.utils.errors import UserError
from ghnas.utils.files import try_lock, write_atomically

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

MANIFEST = "manifest.json"
JOURNAL = "study.log"
PROGRESS = "progress.json"
LOCK = "search.lock"


class Run:
    """One search with its folder; see `ghnas.engine.runs`.

    Args:
        path: The folder.
        manifest: What the run was started with.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def study_path(self) -> Path:
        """The journal, if the run does not use a database."""
        return self.path / JOURNAL

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

    def study(self) -> optuna.Study:
        """The search's record: trial n is the n-th candidate.

        Raises:
            UserError: If the record is missing or damaged.
        """
        return self._load_study(self._open_storage())

    def _load_study(self, storage: BaseStorage) -> optuna.Study:
        import optuna

        try:
            return optuna.load_study(study_name=self.manifest.study_name, storage=storage)
        except KeyError as error:
            raise UserError(
                f"{self.storage_url}: holds no study {self.manifest.study_name!r}; "
                "it was deleted or replaced"
            ) from error

    def finetune_study(self) -> optuna.Study:
        """A study for fine-tuning, with its curves as intermediate values; see `_study_beside`."""
        return self._study_beside("finetune", {"accuracy": OBJECTIVES["accuracy"]})

    def refine_study(self) -> optuna.Study:
        """A study of the candidates in `ghnas.engine.short_list`."""
        return self._study_beside("refine", {"refined": "maximize"})

    def _study_beside(self, kind: str, objectives: dict[str, Direction]) -> optuna.Study:
        """A study beside the search's, in the same storage, made on first use.

        Trials of a search are finished and take no more values.
        """
        if self.manifest.storage is None:
            repair_journal(self.study_path)
        with writing(self.study_path):
            return create_study(
                self._open_storage(),
                self._name_beside(kind),
                objectives,
                {"search": self.name},
                may_exist=True,
            )

    def _name_beside(self, kind: str) -> str:
        return f"{self.manifest.study_name}-{kind}"

    def _open_storage(self) -> BaseStorage:
        if self.manifest.storage is None and not self.study_path.is_file():
            raise UserError(f"{self.study_path}: missing, the run has lost its record")
        return open_storage(self.study_path, self.manifest.storage)

    @property
    def trial_format(self) -> TrialFormat:
        """How records stand in the study."""
        return TrialFormat(self.space, self.manifest.objectives)

    def writer(self) -> TrialWriter:
        """Where the search writes its trials."""
        if self.manifest.storage is None:
            return JournalWriter(self.study_path, len(self.manifest.objectives))
        return DatabaseWriter(self.study(), self.manifest.storage)

    def recorded(self) -> list[Record]:
        """What was recorded, in the order of proposal.

        Raises:
            UserError: If the record is missing, damaged, or holds trials of somebody else.
        """
        to_record = self.trial_format.record
        return [to_record(trial) for trial in self.study().get_trials(deepcopy=False)]

    @property
    def complete(self) -> bool:
        """Whether the whole budget is recorded."""
        return len(self.study().get_trials(deepcopy=False)) >= self.manifest.budget

    def ranked(self, limit: int | None = None) -> list[Ranked]:
        """Distinct architectures, best first.

        With one objective the best comes first; with several the Pareto front comes first, front
        and rest each by accuracy or consensus. Those of a short list that was trained for a moment
        come before the others, by what came out. Ties: fewer parameters, then the earlier one.

        Args:
            limit: Only so many.
        """
        storage = self._open_storage()
        study = self._load_study(storage)
        to_record = self.trial_format.record
        records = [to_record(trial) for trial in study.get_trials(deepcopy=False)]
        distinct = [record for record in records if record.duplicate_of is None]
        front = _front(study, distinct) if len(self.manifest.objectives) > 1 else set()
        refined = self._refined(storage)

        def order(record: Record) -> tuple[float, ...]:
            trained = refined.get(record.number, -math.inf)
            return (record.number not in front, -trained, -record.quality, record.params,
                    record.number)  # fmt: skip

        distinct.sort(key=order)
        if not front:
            front = {record.number for record in distinct[:1]}
        return [
            Ranked(rank, record, record.number in front, refined.get(record.number))
            for rank, record in enumerate(distinct[:limit], start=1)
        ]

    def _refined(self, storage: BaseStorage) -> dict[int, float]:
        """What came out for each trial of the search that was trained for a moment."""
        import optuna

        try:
            study = optuna.load_study(study_name=self._name_beside("refine"), storage=storage)
        except KeyError:
            return {}
        return {
            int(trial.user_attrs["trial"]): float(trial.value)
            for trial in study.get_trials(deepcopy=False)
            if trial.value is not None
        }

    def check_inputs(self, *, ghn_sha256: str, data_fingerprint: str) -> None:
        """Check that the hypernetwork and the data are those that the run was started with.

        Raises:
            UserError: If one of them has changed.
        """
        manifest = self.manifest
        if ghn_sha256 != manifest.ghn_sha256:
            raise UserError(
                f"run {self.name} was started with another GHN ({manifest.ghn}, SHA-256 "
                f"{manifest.ghn_sha256[:12]}, now {ghn_sha256[:12]}); start a new search, or "
                "give back that file"
            )
        if data_fingerprint != manifest.data_fingerprint:
            raise UserError(
                f"run {self.name} was started with other images ({manifest.data}, SHA-256 "
                f"{manifest.data_fingerprint[:12]}, now {data_fingerprint[:12]}); start a new "
                "search, or give back those images"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from searching in this run; mend what a killed one left.

        Raises:
            UserError: If another process searches in it, or the folder is not writable.
        """
        with writing(self.path):
            handle = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not try_lock(handle):
                raise UserError(f"run {self.name} is being searched by another process")
            if self.manifest.storage is None and self.study_path.is_file():
                repair_journal(self.study_path)
            yield
        finally:
            os.close(handle)  # the kernel releases the lock, also when the process is killed

    def note_progress(self, done: int, best_accuracy: float | None) -> None:
        """Keep the figures that `list_runs` shows, so that it need not read every study."""
        with writing(self.path / PROGRESS):
            write_atomically(
                self.path / PROGRESS, json.dumps({"done": done, "best_accuracy": best_accuracy})
            )


def _front(study: optuna.Study, records: Sequence[Record]) -> set[int]:
    """Numbers of the records on the Pareto front."""
    best = {trial.number for trial in study.best_trials} if records else set()
    return {record.number for record in records if record.number in best}
