"""`ghnas.search`: the search engine as one function."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage

from ghnas.architectures.architecture import Architecture
from ghnas.engine.constraints import limits_of, require_feasible
from ghnas.engine.loop import Loop
from ghnas.engine.manifest import Manifest, ShortList, Sources, installed_versions
from ghnas.engine.objectives import Function, Objective, ZeroShot, as_objective
from ghnas.engine.progress import SearchProgress
from ghnas.engine.run import MANIFEST, Run, create_run, open_run
from ghnas.engine.runs import new_run_folder
from ghnas.engine.samplers import Factory, Sampler, create_sampler
from ghnas.engine.storage import create_study
from ghnas.engine.trials import Direction, Trial, TrialFormat, rank_trials
from ghnas.spaces import Space
from ghnas.utils.errors import UserError
from ghnas.utils.processes import Pool


class Study(optuna.Study):
    """What a search found: an Optuna study whose trial n is the n-th candidate.

    Every trial has all choices of the space as its parameters; `params`, `flops`, `hash` and
    `same_as` (the number of an isomorphic candidate before it) are among its user attributes.

    Attributes:
        path: The run's folder; None if the search was kept in memory.
        space: The search space, for the objective's images.

    Example:
        >>> import ghnas
        >>> space = ghnas.load_space("nasbench201")
        >>> study = ghnas.search(space, lambda architecture: -architecture.flops, budget=10)
        >>> study.best_value == study.best(1)[0].values[0]
        True
    """

    def __init__(
        self,
        name: str,
        storage: BaseStorage,
        form: TrialFormat,
        run: Run | None = None,
    ) -> None:
        super().__init__(study_name=name, storage=storage)
        self._form, self._run = form, run
        self.path = run.path if run else None
        self.space = form.space

    def best(self, count: int = 1) -> list[Architecture]:
        """The best distinct architectures, best first, each with its `values`.

        With several objectives the Pareto front comes first; architectures that had a short
        training come before the others.

        Args:
            count: How many at most.
        """
        return [trial.scored for trial in self.ranked()[:count]]

    def ranked(self) -> list[Trial]:
        """Distinct architectures that were scored, best first, with all that was recorded."""
        return self._run.ranked() if self._run else rank_trials(self, self._form)


class _MemoryBook:
    """Trials of a search that is not kept."""

    def __init__(self, study: optuna.Study, form: TrialFormat) -> None:
        self.study, self.form = study, form

    def read(self) -> list[Trial]:
        return self.form.trials(self.study)

    def write(self, trials: Sequence[Trial]) -> None:
        self.study.add_trials([self.form.frozen(item) for item in trials])

    def note_progress(self, done: int, best: float | None) -> None:
        pass


def search(
    space: Space,
    objective: Objective | Function,
    budget: int = 1000,
    *,
    sampler: str | BaseSampler | Factory = "random",
    seed: int = 0,
    path: str | PathLike[str] | None = None,
    directions: Sequence[Direction] | None = None,
    max_parameters: int | None = None,
    max_flops: int | None = None,
    max_latency: float | None = None,
    batch_size: int | None = None,
    storage: str | None = None,
    join: str | None = None,
    pool: Pool | None = None,
    report: Callable[[SearchProgress], None] | None = None,
) -> Study:
    """Search a space for the best architectures.

    Isomorphic candidates are evaluated once. A search with a `path` can be interrupted at any
    time: the same call goes on where it stopped. After Ctrl-C what is scored of a zero-shot
    batch is recorded first; a function is interrupted, and its trials so far are recorded.

    Args:
        space: What to search; see `ghnas.load_space`.
        objective: `ghnas.ZeroShot`, `ghnas.ProxyScore`, or any function of an `Architecture` that
            returns a number, or several. What it raises fails the candidate's trial, not the
            search.
        budget: Candidates in all.
        sampler: `random`, `evolution`, `local`, `tpe`, `nsga2`, `predictor`, any of Optuna's
            samplers, or a function that makes one of a space and directions. Searches with one of
            the names are the same for the same seed.
        seed: Of the sampler.
        path: A folder for the run, made if need be; None: the search is kept in memory.
        directions: `maximize` or `minimize` for each value of a function; default: one value, to
            be maximised.
        max_parameters: Most trainable parameters of a candidate.
        max_flops: Most FLOPs of a candidate: multiply-adds x 2, for one image.
        max_latency: Most seconds that it takes for a batch, as the objective's `latency` predicts.
        batch_size: Candidates that are asked for together; default: what suits the sampler.
        storage: URL of a database of Optuna's; default: a journal in the folder. Its password is
            not kept.
        join: Name of a study in that database that several processes fill together: each makes
            the same call, with a `path` of its own; the first one makes the study.
        pool: Whose workers call a function, such as `ghnas.RayPool`: a batch is then evaluated side
            by side. Objectives of this package are given a pool themselves.
        report: Called before the first batch and after each.

    Returns:
        The study.

    Raises:
        UserError: If the sampler is unknown, a number is out of range, the limits cannot be met,
            the folder holds another search, another process searches in it, or the study to join
            was started with something else.

    Example:
        >>> import ghnas
        >>> space = ghnas.load_space("darts")
        >>> study = ghnas.search(space, lambda architecture: -architecture.flops, budget=20)
        >>> [best] = study.best(1)
        >>> best.values[0] == -best.flops
        True
    """
    goal = as_objective(objective, directions, pool)
    space = goal.space_for(space)
    manifest = new_manifest(
        space,
        goal,
        budget,
        sampler=sampler,
        seed=seed,
        max_parameters=max_parameters,
        max_flops=max_flops,
        max_latency=max_latency,
        batch_size=batch_size,
        storage=storage,
        join=join,
    )
    if path is None and join is None and storage is None:
        return _search_in_memory(space, goal, manifest, sampler, report)
    if path is None:
        raise UserError("a search in a database needs a folder of its own too: give a path")
    folder = Path(path)
    if storage is not None and join is not None:
        from ghnas.engine.joining import join_run  # with SQLAlchemy, where it is needed

        run = join_run(folder, manifest, storage)
    elif (folder / MANIFEST).is_file():
        run = open_run(folder, storage)
    else:
        run = create_run(folder, manifest, storage)
    if difference := run.manifest.difference(manifest):
        raise UserError(
            f"{folder} holds a search that was started with {difference}: give the same again to "
            "go on, or choose another folder"
        )
    run.space = space  # one that a function makes is in no file
    return search_run(run, goal, report, sampler)


def search_run(
    run: Run,
    objective: Objective,
    report: Callable[[SearchProgress], None] | None = None,
    sampler: str | BaseSampler | Factory | None = None,
) -> Study:
    """Search in a run until its budget is recorded; of a complete one only its figures are noted.

    Args:
        run: A new run or an interrupted one.
        objective: The one that the run was started with.
        report: Called before the first batch and after each.
        sampler: What the run was started with, if that was no name; default: by the run's name.

    Returns:
        Its study.

    Raises:
        UserError: As `search`.
    """
    manifest = run.manifest
    # those who join a study keep out of each other's way by claims
    with run.locked() if manifest.joined is None else nullcontext():
        complete = run.complete
        if not complete:
            objective.prepare(run.space, lambda done, total: None)
        fresh = create_sampler(sampler or manifest.sampler, run.space, objective.directions)
        claims = None if complete else run.claims(2 if objective.in_background else 1)
        Loop(manifest, run.space, objective, fresh, run, report or _silent, claims).run()
    with run.expected():
        return Study(manifest.study_name, run.open_storage(), run.form, run)


def _search_in_memory(
    space: Space,
    objective: Objective,
    manifest: Manifest,
    sampler: str | BaseSampler | Factory,
    report: Callable[[SearchProgress], None] | None,
) -> Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage, form = InMemoryStorage(), TrialFormat(space, objective.names)
    objectives = dict(zip(objective.names, objective.directions, strict=True))
    made = create_study(storage, "search", objectives, manifest.summary())
    objective.prepare(space, lambda done, total: None)
    fresh, book = create_sampler(sampler, space, objective.directions), _MemoryBook(made, form)
    Loop(manifest, space, objective, fresh, book, report or _silent).run()
    return Study("search", storage, form)


def new_manifest(
    space: Space,
    objective: Objective,
    budget: int,
    *,
    sampler: str | BaseSampler | Factory = "random",
    seed: int = 0,
    max_parameters: int | None = None,
    max_flops: int | None = None,
    max_latency: float | None = None,
    batch_size: int | None = None,
    storage: str | None = None,
    join: str | None = None,
    sources: Sources | None = None,
    short_list: ShortList | None = None,
    space_name: str | None = None,
) -> Manifest:
    """What a new run is started with, after everything that a user can get wrong was checked.

    Args:
        space: For the objective's images.
        objective: What to optimise.
        sources: Where the images and the hypernetwork are found again.
        short_list: Which candidates have a short training afterwards.
        space_name: What the user called the space; default: its name.

    Others as in `search`.

    Raises:
        UserError: For an unknown sampler, a number out of range, a short list of several
            objectives, or a study to join that is in no database.
    """
    fresh = create_sampler(sampler, space, objective.directions)
    made = sampler if isinstance(sampler, BaseSampler) else fresh
    named = sampler if isinstance(sampler, str) else type(made).__name__
    if short_list is not None:
        check_one_objective(objective.names)
    limits = {"max-params": max_parameters, "max-flops": max_flops}
    for name, value in ({"budget": budget, "batch size": batch_size} | limits).items():
        if value is not None and value < 1:
            raise UserError(f"the {name} must be 1 or more, not {value}")
    if max_latency is not None:
        if getattr(objective, "latency", None) is None:
            raise UserError(
                "a limit on the latency needs a table of latencies: give the objective "
                "latency=ghnas.latency_table(space)"
            )
        if not 0 < max_latency < float("inf"):
            raise UserError(f"the max-latency must be a number of seconds, not {max_latency}")
    data: Any = getattr(objective, "data", None)
    return Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        space=space_name or space.name,
        space_text=space.text,
        skeleton=dict(space.skeleton),
        image_shape=space.image_shape,
        classes=tuple(data.classes if data else map(str, range(space.classes))),
        objective=objective.describe(),
        objectives=objective.names,
        directions=objective.directions,
        sampler=named,
        seed=seed,
        budget=budget,
        batch_size=batch_size or objective.batch_size or fresh.batch_size,
        max_parameters=max_parameters,
        max_flops=max_flops,
        max_latency=max_latency,
        sources=sources or Sources(),
        short_list=short_list,
        **_record(storage, join, fresh),
        versions=installed_versions(),
        device=objective.device.type if isinstance(objective, ZeroShot) else "cpu",
    )


def _record(storage: str | None, join: str | None, sampler: Sampler) -> dict[str, Any]:
    """Where a search is recorded, and by whom, as entries of the manifest."""
    if storage is None and join is None:
        return {}
    if storage is None:
        raise UserError("--join names a study in a database: say which one with --storage")
    from ghnas.engine.databases.connection import without_password
    from ghnas.engine.joining import check_study_name, shares

    entries = {"storage": without_password(storage)}
    if join is None:
        return entries
    check_study_name(join)
    return entries | {"joined": shares(sampler), "study_name": join}


def start_run(
    results: Path, space: Space, objective: Objective, budget: int, **settings: Any
) -> Run:
    """A new run in a results folder.

    Args:
        results: The folder.
        space: What to search.
        objective: What to optimise.
        budget: Candidates in all.
        settings: As in `new_manifest`.

    Raises:
        UserError: As `new_manifest`, or if the limits cannot be met or the folder not be written.
    """
    space = objective.space_for(space)
    manifest = new_manifest(space, objective, budget, **settings)
    limits = limits_of(manifest)
    if limits:  # or a run without candidates would stay behind
        require_feasible(space, limits, random.Random(manifest.seed))
    url = settings.get("storage")
    if manifest.joined is not None and url is not None:
        from ghnas.engine.joining import join_run, joined_folder, joined_manifest

        shared = joined_manifest(url, manifest.study_name) or manifest
        return join_run(joined_folder(results, shared), manifest, url)
    return create_run(new_run_folder(results, space.name, manifest.sampler), manifest, url)


def check_one_objective(objectives: Sequence[str]) -> None:
    """Make sure that a short list can be ordered by one value.

    Raises:
        UserError: If there are several objectives.
    """
    if len(objectives) > 1:
        raise UserError(
            f"--train orders by one figure, and {','.join(objectives)} are several: search for "
            "one objective, or leave --train out"
        )


def _silent(progress: SearchProgress) -> None:
    """The default report."""
