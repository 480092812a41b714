"""`ghnas.train_candidates`."""

from __future__ import annotations

from collections.abc import Sequence

from ghnas.engine.objectives import ImageObjective
from ghnas.engine.run import open_run
from ghnas.engine.search import Study
from ghnas.engine.stages.short_list import Report, train_short_list
from ghnas.engine.stages.training_jobs import Start, steps_of_epoch, training_job
from ghnas.engine.stages.training_plan import TrainingPlan
from ghnas.utils.errors import UserError


def train_candidates(
    study: Study,
    objective: ImageObjective,
    count: int | None = None,
    *,
    seconds: float | None = None,
    epochs: int | Sequence[int] = 1,
    steps: int | Sequence[int] | None = None,
    cells: int | None = None,
    start: Start | None = None,
    mutate: bool = False,
    report: Report = lambda progress: None,
) -> None:
    """Give some candidates of a search a short training, chosen by a predictor that learns from
    each, and order them by their loss.

    `study.best` and `study.ranked` give the new order from then on. It can be interrupted at any
    time: the same call goes on where it stopped, and a larger count adds to a smaller one.

    Args:
        study: Of `ghnas.search` with a `path` and one objective.
        objective: The one that was searched with: trainings see its images.
        count: Candidates that are trained.
        seconds: In place of a count: as many as can be trained in that time.
        epochs: Passes over the training images of each; with several, ascending, the best are
            trained again for longer, see `ghnas.engine.stages.training_plan.TrainingPlan`.
        steps: SGD steps of 64 images each, in place of epochs.
        cells: Depth of the networks that are trained; default: as in the space's file.
        start: `ghn` to start from predicted weights, `kaiming`; default: `ghn` where it predicts
            for networks of that depth.
        mutate: Whether mutations of the best join the candidates before each batch.
        report: Called before the first training and after each.

    Raises:
        UserError: If the study was kept in memory, has several objectives or was trained in another
            way, or if not one of count and time is given.

    Example:
        >>> import tempfile, ghnas
        >>> space = ghnas.load_space("nasbench201").with_skeleton(channels=4, cells=1)
        >>> data = ghnas.load_data("embedded", train_limit=500, image_size=8)
        >>> proxy = ghnas.ProxyScore(data, images=16, workers=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     study = ghnas.search(space, proxy, budget=6, path=folder)
        ...     ghnas.train_candidates(study, proxy, 3, steps=2)
        ...     [item.short_training is not None for item in study.ranked()]
        [True, True, True, False, False, False]
    """
    if study.path is None:
        raise UserError("trainings are kept in a run's folder: give ghnas.search a path")
    lengths = epochs if steps is None else steps
    unit = steps_of_epoch(objective.data) if steps is None else 1
    several = (lengths,) if isinstance(lengths, int) else lengths
    plan = TrainingPlan(count, tuple(unit * length for length in several), seconds)
    run = open_run(study.path)
    job = training_job(run, objective, plan.steps[0], cells, start)
    train_short_list(run, job, plan, report, objective if mutate else None)
