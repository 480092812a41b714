"""Many trials of an Optuna study in one transaction.

Optuna adds a trial in a transaction of its own, with a query for each of its parameters. The rows
made here are the same, of Optuna's own models, and a batch takes a few statements.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models  # Optuna keeps the tables the same, or migrates them
from optuna.trial import FrozenTrial
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from ghnas.utils.errors import UserError


def add_from(storage: RDBStorage, study_id: int, first: int, trials: Sequence[FrozenTrial]) -> None:
    """Add trials to a study, those left out that it has already: a batch that two processes add is
    there once, as is one of which a part was added before.

    Args:
        storage: Of the study.
        study_id: Optuna's.
        first: Number of the first of the trials.
        trials: In the order of their numbers.

    Raises:
        UserError: If the study was deleted, or has fewer trials than come before the first.
        SQLAlchemyError: If the database does not take them.
    """
    with Session(storage.engine) as session, session.begin():
        _lock(session, study_id)
        own = models.TrialModel.study_id == study_id
        there = session.scalar(select(func.count()).where(own)) or 0
        if there < first:
            raise UserError("the study has lost trials: somebody else deleted them")
        _insert(session, study_id, there, trials[there - first :])


def _lock(session: Session, study_id: int) -> None:
    """Let no other transaction number trials of the study before this one has ended; an update, for
    SQLite has no locks of rows."""
    own = models.StudyModel.study_id == study_id
    name = {"study_name": models.StudyModel.study_name}
    changed = session.execute(update(models.StudyModel).where(own).values(name))
    if not changed.rowcount:  # type: ignore[attr-defined]
        raise UserError("the study was deleted")


def _insert(session: Session, study_id: int, first: int, trials: Sequence[FrozenTrial]) -> None:
    made = [
        models.TrialModel(
            study_id=study_id,
            number=number,
            state=trial.state,
            datetime_start=trial.datetime_start,
            datetime_complete=trial.datetime_complete,
        )
        for number, trial in enumerate(trials, start=first)
    ]
    session.add_all(made)
    session.flush()  # gives them their keys
    params, values, attributes = [], [], []
    for row, trial in zip(made, trials, strict=True):
        for name, value in trial.params.items():
            distribution = trial.distributions[name]
            params.append(
                {
                    "trial_id": row.trial_id,
                    "param_name": name,
                    "param_value": distribution.to_internal_repr(value),
                    "distribution_json": distribution_to_json(distribution),
                }
            )
        for objective, value in enumerate(trial.values or ()):
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            row_of_value = {"objective": objective, "value": stored, "value_type": kind}
            values.append({"trial_id": row.trial_id} | row_of_value)
        for key, value in trial.user_attrs.items():
            content = {"key": key, "value_json": json.dumps(value)}
            attributes.append({"trial_id": row.trial_id} | content)
    for model, rows in (
        (models.TrialParamModel, params),
        (models.TrialValueModel, values),
        (models.TrialUserAttributeModel, attributes),
    ):
        if rows:
            session.execute(insert(model), rows)
