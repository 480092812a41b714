"""Trains a hypernetwork on for other networks, images or classes, for a short, stated time."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from ghnas.architectures.graph import Graph
from ghnas.data import ImageData
from ghnas.executors.fused import compile_gradients
from ghnas.ghn.checkpoint import load_ghn, save_ghn, start_from
from ghnas.ghn.config import GHNInfo
from ghnas.ghn.model import GHN
from ghnas.spaces import Space
from ghnas.training.hypernetwork.course import EVALUATIONS, TIMED, UNKNOWN, UNTIMED, Course
from ghnas.training.hypernetwork.loop import (
    Job,
    Meter,
    TrainProgress,
    TrainSettings,
    compute_gradients,
    held_out_accuracy,
    held_out_graphs,
    identity,
    sum_over_ranks,
    trained_info,
    training_steps,
)
from ghnas.training.hypernetwork.state import TrainingState
from ghnas.training.hypernetwork.training import run
from ghnas.utils.devices import cores, pick_device
from ghnas.utils.errors import UserError

PATIENCE = 4
"""Evaluations without a new best one after which the rate falls, and then the training ends."""
HEAD_STEPS = 50
"""Steps in which nothing but a fresh class head is trained."""
LEARNS_NOTHING = 0.1
"""Share of the way from chance to all right that zero-shot accuracy must go."""
SETTINGS = TrainSettings(steps=UNKNOWN, meta_batch=4, evaluate_architectures=16)


@dataclass(frozen=True)
class Adaptation(Job):
    """What to adapt, from `start`, to what; of `settings`, `evaluate_every` has no say.

    Args:
        seconds: The time to train; it becomes a number of steps once their rate is measured. None:
            `settings.steps`.
        head_steps: So many first steps train a fresh class head alone.
        about: What is said of the result in `info.training["adaptation"]`.
    """

    seconds: float | None = None
    head_steps: int = 0
    about: dict[str, Any] = field(default_factory=dict)


def adapt(
    ghn: GHN,
    space: Space,
    data: ImageData,
    minutes: float = 5.0,
    *,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
    report: Callable[[TrainProgress], None] | None = None,
) -> GHN:
    """Train a hypernetwork on for a space and images, for a short time.

    The paper's training (arXiv 2110.13100, section 3.2) goes on from the hypernetwork's weights. If
    the classes are others, a fresh class head is trained first, with all else as it is. The
    learning rate falls by 10 at two and at five sixths, or when zero-shot accuracy, of held-out
    architectures on validation images, no longer rises; the state with the highest is the result.

    Args:
        ghn: To start from, of any space and images; it is not changed.
        space: With the skeleton that is to be searched.
        data: Images to train and to validate on.
        minutes: To train for.
        steps: Updates, in place of minutes: equal numbers give equal results.
        seed: Of architectures and images.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        workers: Processes on a CPU; default: one for each core.
        report: Called now and then.

    Returns:
        The hypernetwork for the space and the images. `info.training` says what was done;
        of its "adaptation", "held_out" is the accuracy, and "near_chance" whether it means nothing.

    Raises:
        UserError: If a number is out of range, or the images are too small for the space.

    Example:
        >>> import ghnas
        >>> ghn, data = ghnas.load_ghn("darts-embedded"), ghnas.load_data("embedded")
        >>> space = ghnas.load_space("darts").with_skeleton(cells=2, channels=4)
        >>> smaller = ghnas.adapt(ghn, space, data, steps=2, workers=1)
        >>> smaller.info.skeleton["cells"], smaller.info.training["steps"]
        (2, 2)
    """
    if (steps is not None and steps < 1) or not 0 < minutes < math.inf:
        raise UserError("give adapt one step or more, or minutes above 0")
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.safetensors"
        save_ghn(start, ghn)
        job = adaptation(
            start,
            ghn,
            space,
            data,
            Path(folder) / "adapted.safetensors",
            seconds=None if steps else 60 * minutes,
            steps=steps or UNKNOWN,
            seed=seed,
            device=pick_device(device),
            workers=workers,
        )
        adapt_file(job, report or (lambda progress: None))
        adapted = load_ghn(job.output)
    adapted.info = replace(adapted.info, path="")
    return adapted


def adaptation(
    start: Path,
    ghn: GHN,
    space: Space,
    data: ImageData,
    output: Path,
    *,
    device: torch.device,
    seconds: float | None = None,
    steps: int = UNKNOWN,
    seed: int = 0,
    workers: int | None = None,
    about: dict[str, Any] | None = None,
) -> Adaptation:
    """What to do to adapt a hypernetwork.

    Args:
        start: Its file.
        ghn: What is in it.
        output: The file to write.
        about: As of `Adaptation`.

    Others as of `adapt`.
    """
    processes = min(cores(), SETTINGS.meta_batch) if workers is None else workers
    return Adaptation(
        space,
        data,
        replace(ghn.config, num_classes=data.num_classes),
        replace(SETTINGS, steps=steps, seed=seed, workers=processes),
        output,
        device,
        start,
        report_every=5,
        seconds=seconds,
        head_steps=0 if ghn.info.classes == data.classes else HEAD_STEPS,
        about=about or {},
    )


def adapt_file(job: Adaptation, report: Callable[[TrainProgress], None]) -> GHNInfo:
    """Adapt a hypernetwork and write it to `job.output`.

    The state is kept in `<output>.state` at every evaluation, and the same call goes on from there;
    a state of other settings is dropped.

    Args:
        job: What to do.
        report: Called every `job.report_every` steps and after each evaluation; `steps` is 0 until
            their number is known.

    Returns:
        What was written.

    Raises:
        UserError: If no loss is finite.
    """
    if job.device.type == "cpu":
        compile_gradients()  # or the first steps would be measured with it
    run(adapt_rank, job, report)
    return load_ghn(job.output).info


def adapt_rank(
    job: Adaptation, report: Callable[[TrainProgress], None], rank: int, ranks: int
) -> None:
    """One process's part of an adaptation; the first one reports, saves and writes the result."""
    began, settings, device = time.monotonic(), job.settings, job.device
    torch.manual_seed(settings.seed)
    ghn = GHN(job.config)
    origin = _start(ghn, job)
    ghn.to(device)
    optimizer = torch.optim.Adam(
        ghn.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    best = AveragedModel(ghn, avg_fn=_latest)
    course = Course(None if job.seconds else settings.steps)
    parts = {"ghn": ghn, "best": best, "optimizer": optimizer, "course": course}
    state = TrainingState(job.state, _identity(job, origin), parts)
    done, history = 0, list[dict[str, float]]()
    with suppress(UserError):  # damaged, or of another time to train: start anew
        done, history = state.restore()
    graphs = held_out_graphs(job.space, job.data, settings)[rank::ranks]
    meter = Meter(course.steps or 0, done, history)
    if not history:
        accuracy, took = _evaluate(ghn, graphs, job)
        history.append({"step": 0, "held_out": round(accuracy, 5)})
        best.update_parameters(ghn)
    for step, meta, images, labels in training_steps(job, done, rank, ranks):
        if course.steps is not None and step >= course.steps:
            break
        if step == UNTIMED:
            timed = time.monotonic()
        rate = settings.learning_rate * course.factor(step)
        meter.add(_update(ghn, optimizer, rate, job, step, compute_gradients(
            ghn, meta, images, labels, settings
        )))  # fmt: skip
        done = step + 1
        if course.steps is None and done == UNTIMED + TIMED:
            each = sum_over_ranks(time.monotonic() - timed) / ranks / TIMED
            left = (job.seconds or 0) - (time.monotonic() - began) - EVALUATIONS * took
            course.decide(done, sum_over_ranks(left) / ranks, each)
            meter.steps = course.steps or 0
        if course.evaluates_after(done):
            accuracy, _ = _evaluate(ghn, graphs, job)
            if accuracy > _highest(history):
                best.update_parameters(ghn)
            progress = meter.progress(done, rate, accuracy)
            going_on = _goes_on(history, done, course, ghn, best)
            meter.steps = course.steps or 0
            if rank == 0:
                report(replace(progress, steps=meter.steps))
                state.save(done, history)
            if not going_on:
                break
        elif done % job.report_every == 0:
            progress = meter.progress(done, rate, None)
            if rank == 0:
                report(progress)
    if rank == 0:
        ghn.load_state_dict(best.module.state_dict())
        ghn.info = _adapted_info(job, origin, history, course, done)
        save_ghn(job.output, ghn)
        job.state.unlink(missing_ok=True)


def _start(ghn: GHN, job: Adaptation) -> GHNInfo:
    """Copy the weights to start from; a class head that was fitted to other classes stays fresh."""
    assert job.start is not None
    fresh = {name: ghn.state_dict()[name].clone() for name in _head(ghn)} if job.head_steps else {}
    origin = start_from(ghn, job.start)
    ghn.load_state_dict(fresh, strict=False)
    return origin


def _head(ghn: GHN) -> list[str]:
    """Parameters whose rows are classes."""
    names = [name for name, _ in ghn.named_parameters()]
    return [name for name in names if "class_layer_predictor" in name or "bias_class" in name]


def _latest(kept: Tensor, new: Tensor, count: Any) -> Tensor:
    return new


def _update(
    ghn: GHN,
    optimizer: torch.optim.Optimizer,
    rate: float,
    job: Adaptation,
    step: int,
    result: Tensor,
) -> Tensor:
    """An update with the gradients that were computed; returns the step's loss and accuracy."""
    if step < job.head_steps:
        head = _head(ghn)
        for name, parameter in ghn.named_parameters():
            if name not in head:
                parameter.grad = None  # Adam leaves it as it is
    norm = torch.nn.utils.clip_grad_norm_(ghn.parameters(), job.settings.gradient_clip)
    if torch.isfinite(norm):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    return result


def _evaluate(ghn: GHN, share: list[Graph], job: Adaptation) -> tuple[float, float]:
    """Zero-shot accuracy on the held-out architectures of all processes, and the seconds taken."""
    began = time.monotonic()
    own = held_out_accuracy(ghn, share, job.data, job.settings, job.device) * len(share)
    accuracy = sum_over_ranks(own) / job.settings.evaluate_architectures
    return accuracy, time.monotonic() - began


def _highest(history: list[dict[str, float]]) -> float:
    return max(item["held_out"] for item in history)


def _goes_on(
    history: list[dict[str, float]], done: int, course: Course, ghn: GHN, best: AveragedModel
) -> bool:
    """Whether to train on: after some evaluations without a new best one the rate falls, from the
    best state on; the next time it is the end."""
    since = [item["held_out"] for item in history[_fallen(history) :]]
    stale = len(since) - 1 - since.index(max(since))
    if stale < PATIENCE or course.steps is None or done >= course.steps:
        return True
    if not course.shorten(done):
        return False
    ghn.load_state_dict(best.module.state_dict())
    history[-1]["rate_falls"] = 1.0
    return True


def _fallen(history: list[dict[str, float]]) -> int:
    """Where in the history the rate last fell early."""
    return max((i for i, item in enumerate(history) if "rate_falls" in item), default=0)


def chance(data: ImageData) -> float:
    """Accuracy of a network that always names the commonest class of the validation images."""
    labels = data.validation.take(SETTINGS.evaluate_images).labels
    return float(labels.bincount().max()) / len(labels)


def is_near_chance(accuracy: float, data: ImageData) -> bool:
    """Whether a zero-shot accuracy says that nothing was learned: less than a tenth of the way
    from chance to all right, or within two standard errors of chance."""
    share = chance(data)
    images = min(len(data.validation), SETTINGS.evaluate_images)
    error = math.sqrt(share * (1 - share) / images)
    return accuracy < share + max(LEARNS_NOTHING * (1 - share), 2 * error)


def _adapted_info(
    job: Adaptation,
    origin: GHNInfo,
    history: list[dict[str, float]],
    course: Course,
    done: int,
) -> GHNInfo:
    """What the result was trained for, and how."""
    info, highest = trained_info(job, None, history), _highest(history)
    training = info.training | {
        "steps": course.planned,
        "start": {"sha256": origin.sha256, "space": origin.space, "data": origin.data},
        "adaptation": job.about
        | {
            "held_out": highest,
            "chance": round(chance(job.data), 5),
            "near_chance": is_near_chance(highest, job.data),
            "seconds": job.seconds,
            "head_steps": job.head_steps,
            "steps_done": done,
        },
    }
    return replace(info, training=training)


def _identity(job: Adaptation, origin: GHNInfo) -> dict[str, object]:
    return identity(job, origin) | {"seconds": job.seconds, "head_steps": job.head_steps}
