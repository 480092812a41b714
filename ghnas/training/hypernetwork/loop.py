"""The training loop of a graph hypernetwork: the loss of networks with predicted weights, over many
architectures and batches of images (section 3.2 of the paper, arXiv 2110.13100)."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from ghnas.architectures.graph import Graph
from ghnas.data import ImageData, evaluation_batches, random_batches
from ghnas.data.augmentation import Augment, crops_of
from ghnas.ghn.checkpoint import save_ghn, start_from
from ghnas.ghn.config import GHNConfig, GHNInfo
from ghnas.ghn.model import GHN
from ghnas.scoring.scorer import Scorer
from ghnas.spaces.archive import Architectures
from ghnas.training.hypernetwork.meta_batches import (
    MetaBatch,
    MetaBatches,
    Source,
    sample_graphs,
)
from ghnas.training.hypernetwork.state import TrainingState
from ghnas.utils.errors import UserError

EVALUATION_SEED = 1_000_003
"""Held-out architectures are drawn from a seed that no training step uses."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train a hypernetwork; the defaults are the paper's.

    Args:
        steps: Updates of the hypernetwork.
        meta_batch: Architectures for each update.
        batch_size: Images for each update, the same for all its architectures.
        learning_rate: Adam's, divided by 10 at two and at five sixths of the steps.
        weight_decay: Adam's.
        gradient_clip: Largest norm of the gradient.
        network_clip: Largest norm of the gradient with respect to the weights of one network, so
            that a few unstable networks do not decide on a step.
        shift: Move training images by up to so many pixels, if they are augmented so.
        augment: `shift`, or random `crop`s, or crops with `randaugment`; see
            `ghnas.training.recipe.FinetuneSettings`.
        seed: Of the initial weights, architectures and images.
        evaluate_every: Steps between evaluations on held-out architectures and saved states.
        average: The result is the mean of the weights at the last so many evaluations.
        evaluate_architectures: Held-out architectures to score.
        evaluate_images: Validation images to score them on.
        workers: Processes: on a CPU they share a step's architectures, for a GPU they prepare
            them.
    """

    steps: int = 2000
    meta_batch: int = 8
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    gradient_clip: float = 5.0
    network_clip: float = 5.0
    shift: int = 1
    augment: Augment = "shift"
    seed: int = 0
    evaluate_every: int = 200
    average: int = 1
    evaluate_architectures: int = 32
    evaluate_images: int = 512
    workers: int = 0


@dataclass(frozen=True)
class TrainProgress:
    """State of a training.

    Args:
        step: Updates done.
        steps: Updates in all.
        loss: Mean cross-entropy in nats since the last report.
        accuracy: Training accuracy with predicted weights since the last report.
        held_out: Zero-shot accuracy on held-out architectures, where it was just measured.
        seconds: Since this process began to train.
        steps_per_second: Over the time since the last report.
        learning_rate: At this step.
    """

    step: int
    steps: int
    loss: float
    accuracy: float
    held_out: float | None
    seconds: float
    steps_per_second: float
    learning_rate: float


def rate_schedule(optimizer: torch.optim.Optimizer, steps: int) -> MultiStepLR:
    """The rate is divided by 10 at two thirds and again at five sixths of the steps."""
    return MultiStepLR(optimizer, [math.ceil(2 * steps / 3), math.ceil(5 * steps / 6)], gamma=0.1)


def evaluations_after(settings: TrainSettings, step: int) -> int:
    """How many evaluations a training does after a step: the last one is at its end."""
    every = settings.evaluate_every
    return -(-settings.steps // every) - step // every if step < settings.steps else 0


@dataclass(frozen=True)
class Job:
    """Everything that one process of a training needs; it can be sent to another process.

    Args:
        space: Where architectures are drawn from.
        data: Images to train and to evaluate on.
        config: Of the hypernetwork.
        settings: How to train.
        output: The file to write.
        device: Where.
        start: A hypernetwork whose weights to start from; None: random weights.
        architectures: Files to draw architectures from; None: drawn from the space on the fly.
        report_every: Steps between reports.
    """

    space: Source
    data: ImageData
    config: GHNConfig
    settings: TrainSettings
    output: Path
    device: torch.device
    start: Path | None = None
    architectures: Architectures | None = None
    report_every: int = 20

    @property
    def state(self) -> Path:
        """Where the training's state is kept until it is complete."""
        return self.output.with_name(self.output.name + ".state")


def train_rank(job: Job, report: Callable[[TrainProgress], None], rank: int, ranks: int) -> None:
    """One process's part of a training; the first one reports, saves and writes the result."""
    settings, device = job.settings, job.device
    torch.manual_seed(settings.seed)
    ghn = GHN(job.config)
    origin = start_from(ghn, job.start) if job.start else None
    ghn.to(device)
    optimizer = torch.optim.Adam(
        ghn.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = rate_schedule(optimizer, settings.steps)
    averaged = AveragedModel(ghn)  # Izmailov et al., "Averaging Weights ...", UAI 2018
    parts = {"ghn": ghn, "averaged": averaged, "optimizer": optimizer, "schedule": schedule}
    state = TrainingState(job.state, identity(job, origin), parts)
    start, history = state.restore()
    graphs = held_out_graphs(job.space, job.data, settings)
    meter = Meter(settings.steps, start, history)
    for step, meta, images, labels in training_steps(job, start, rank, ranks):
        rate = float(schedule.get_last_lr()[0])
        meter.add(compute_gradients(ghn, meta, images, labels, settings))
        norm = torch.nn.utils.clip_grad_norm_(ghn.parameters(), settings.gradient_clip)
        if not torch.isfinite(norm):
            ghn.zero_grad()  # without gradients the step changes nothing
        optimizer.step()
        schedule.step()
        done = step + 1
        if done % settings.evaluate_every == 0 or done == settings.steps:
            if evaluations_after(settings, done) < settings.average:
                averaged.update_parameters(ghn)
            share = graphs[rank::ranks]
            total = held_out_accuracy(ghn, share, job.data, settings, device) * len(share)
            progress = meter.progress(done, rate, sum_over_ranks(total) / len(graphs))
            if rank == 0:
                report(progress)
                state.save(done, meter.history)
        elif done % job.report_every == 0:
            progress = meter.progress(done, rate, None)
            if rank == 0:
                report(progress)
    if rank == 0:
        ghn.load_state_dict(averaged.module.state_dict())
        ghn.info = trained_info(job, origin, meter.history)
        save_ghn(job.output, ghn)
        job.state.unlink(missing_ok=True)


def trained_info(job: Job, origin: GHNInfo | None, history: list[dict[str, float]]) -> GHNInfo:
    """What a hypernetwork was trained for, and how."""
    data = job.data
    return GHNInfo(
        space=job.space.name,
        skeleton=dict(job.space.skeleton),
        data=data.name,
        fingerprint=data.fingerprint,
        classes=data.classes,
        image_shape=tuple(data.image_shape),
        mean=data.mean,
        std=data.std,
        training=asdict(job.settings)
        | {
            "device": job.device.type,
            "architectures": job.architectures and len(job.architectures),
            "start": origin
            and {"sha256": origin.sha256, "space": origin.space, "training": origin.training},
            "history": history,
        },
    )


def sum_over_ranks(value: float) -> float:
    """The sum of a number over all processes of the training."""
    total = torch.tensor([value], dtype=torch.float64)
    if dist.is_initialized():
        dist.all_reduce(total)
    return float(total)


def held_out_graphs(space: Source, data: ImageData, settings: TrainSettings) -> list[Graph]:
    """The architectures that training never sees (drawn from another seed)."""
    rng = random.Random(f"{EVALUATION_SEED}:{settings.seed}")
    count = settings.evaluate_architectures
    return sample_graphs(space, data.image_shape, data.num_classes, count, rng)


def held_out_accuracy(
    ghn: GHN, graphs: list[Graph], data: ImageData, settings: TrainSettings, device: torch.device
) -> float:
    """Mean zero-shot accuracy of architectures on validation images."""
    split = data.validation.take(settings.evaluate_images)
    batches = evaluation_batches(
        split, settings.batch_size, device=device, mean=data.mean, std=data.std
    )
    scores = Scorer(ghn, batches, device, workers=1).score(graphs)
    ghn.train()
    return float(sum(score.accuracy for score in scores if score)) / max(len(graphs), 1)


def training_steps(
    job: Job, start: int, rank: int, ranks: int
) -> Iterator[tuple[int, MetaBatch, Tensor, Tensor]]:
    """Number, architectures, images and labels of each step, from one on."""
    settings, data, device = job.settings, job.data, job.device
    members = range(settings.meta_batch)[rank::ranks]
    on_gpu = device.type == "cuda"
    draw = job.architectures.draw if job.architectures else job.space.sample
    metas = MetaBatches(data.image_shape, job.config, settings.seed, members, on_gpu, draw)
    loader = DataLoader(
        metas,
        batch_size=None,
        sampler=range(start, settings.steps),
        num_workers=settings.workers if on_gpu else 0,
        prefetch_factor=8 if on_gpu and settings.workers else None,
    )
    images = random_batches(
        data.train,
        settings.batch_size,
        seed=settings.seed,
        device=device,
        mean=data.mean,
        std=data.std,
        mirror=data.mirror,
        shift=settings.shift,
        start_step=start,
        crops=crops_of(settings.augment, settings.seed, data.mirror),
    )
    steps = range(start, settings.steps)
    for step, meta, (batch, labels) in zip(steps, loader, images, strict=False):
        yield step, meta, batch, labels


def compute_gradients(
    ghn: GHN, meta: MetaBatch, images: Tensor, labels: Tensor, settings: TrainSettings
) -> Tensor:
    """The gradient of the mean loss of a step's architectures, summed over all processes.

    Args:
        ghn: Its parameters get the gradient.
        meta: This process's share of the step's architectures.
        images: (B, C, H, W), the same for all.
        labels: (B,).
        settings: Of the training.

    Returns:
        Mean loss in nats and accuracy, (2,).
    """
    stacks = ghn(meta.features.to(images.device))
    weights = [stack.detach().requires_grad_() for stack in stacks]
    losses, logits = meta.losses(weights, images, labels)
    gradients = torch.autograd.grad(losses.sum(), weights, materialize_grads=True)
    ghn.zero_grad()
    shares = meta.clipped(gradients, settings.network_clip)
    torch.autograd.backward(stacks, [share / settings.meta_batch for share in shares])
    correct = (logits.argmax(dim=2) == labels).sum() / len(labels)
    result = torch.stack([losses.detach().sum(), correct]) / settings.meta_batch
    if dist.is_initialized():
        _add_up(ghn, result)
    return result


def _add_up(ghn: GHN, result: Tensor) -> None:
    """Sum gradients and results over all processes, as one message."""
    gradients = [
        torch.zeros_like(item) if item.grad is None else item.grad for item in ghn.parameters()
    ]
    message = torch.cat([*(item.flatten() for item in gradients), result])
    dist.all_reduce(message)
    parts = message.split([*(item.numel() for item in gradients), len(result)])
    for parameter, part in zip(ghn.parameters(), parts, strict=False):
        parameter.grad = part.view_as(parameter)
    result.copy_(parts[-1])


class Meter:
    """Averages between reports, and the history of evaluations."""

    def __init__(self, steps: int, start: int, history: list[dict[str, float]]) -> None:
        self.steps = steps
        self.history = history
        self._begin = self._since = time.monotonic()
        self._last = start
        self._results: list[Tensor] = []

    def add(self, result: Tensor) -> None:
        """Keep a step's mean loss and accuracy (2,)."""
        self._results.append(result)

    def progress(self, step: int, learning_rate: float, held_out: float | None) -> TrainProgress:
        """What happened since the last report.

        Raises:
            UserError: If no loss was finite.
        """
        losses, accuracies = torch.stack(self._results).cpu().unbind(1)
        if not torch.isfinite(losses).any():
            raise UserError(
                f"training diverged at step {step}: lower --learning-rate and start anew"
            )
        loss = float(losses[torch.isfinite(losses)].mean())
        accuracy = float(accuracies.mean())
        now = time.monotonic()
        rate = (step - self._last) / max(now - self._since, 1e-9)
        seconds = now - self._begin
        self._results, self._last, self._since = [], step, now
        if held_out is not None:
            values = {"loss": loss, "accuracy": accuracy, "held_out": held_out}
            self.history.append({"step": step} | {key: round(v, 5) for key, v in values.items()})
        return TrainProgress(
            step, self.steps, loss, accuracy, held_out, seconds, rate, learning_rate
        )


def identity(job: Job, origin: GHNInfo | None) -> dict[str, object]:
    """What must agree for a training to go on."""
    same = asdict(job.settings)
    del same["workers"]
    if job.settings.augment == "shift":
        del same["augment"]  # earlier versions did not have it
    return {
        "space": job.space.name,
        "skeleton": dict(job.space.skeleton),
        "data": job.data.fingerprint,
        "config": job.config.as_dict(),
        "settings": same,
        "start": origin.sha256 if origin else None,
        "architectures": job.architectures and job.architectures.manifest.model_dump(),
    }
