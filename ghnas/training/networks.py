"""SGD on one network, kept in a folder: its state after every epoch, then weights and history."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import Network, initialised, load_parameters
from ghnas.data import DataSet, Split, evaluation_batches, random_batches
from ghnas.scoring.evaluation import Batch, evaluate_one
from ghnas.training.saved import save
from ghnas.utils.errors import UserError
from ghnas.utils.files import replace_atomically, write_atomically

CHECK_EVERY = 20
"""Steps between the checks of how far a baseline has come."""

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class FinetuneSettings:
    """How to fine-tune: SGD with Nesterov momentum 0.9 and a cosine rate.

    Args:
        epochs: Passes over the training images.
        batch_size: Images in a step.
        learning_rate: At the first step.
        weight_decay: On all parameters.
        seed: Of the images' order and of Kaiming initialisation.
        baseline: Also train from Kaiming initialisation.
    """

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 0.1
    weight_decay: float = 3e-4
    seed: int = 0
    baseline: bool = False


@dataclass(frozen=True)
class Recipe:
    """How to train a network from scratch: SGD with Nesterov momentum 0.9 and a cosine rate.

    Args:
        steps: Updates in all.
        learning_rate: At the first step.
        batch_size: Images in a step.
        weight_decay: On all parameters.
        shift: Most pixels by which an image is moved each way.
    """

    steps: int = 500
    learning_rate: float = 0.1
    batch_size: int = 64
    weight_decay: float = 3e-4
    shift: int = 1


def sgd(network: Network, learning_rate: float, weight_decay: float) -> torch.optim.SGD:
    """The optimizer of every training here: SGD with Nesterov momentum 0.9."""
    return torch.optim.SGD(
        network.parameters(), learning_rate, momentum=0.9, nesterov=True, weight_decay=weight_decay
    )


def cosine(progress: float) -> float:
    """The share of the first rate after a share of the training (Loshchilov and Hutter, 2017)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def sgd_step(network: Network, optimizer: torch.optim.SGD, batch: Batch, rate: float) -> float:
    """One update with gradients clipped to norm 5; returns the loss before it."""
    images, labels = batch
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = F.cross_entropy(network(images), labels)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimizer.step()
    return float(loss.detach())


def train_steps(
    network: Network, batches: Iterable[Batch], steps: int, rate: float, weight_decay: float = 3e-4
) -> Iterator[int]:
    """Train, and yield the number of steps done after each.

    Args:
        network: In training mode.
        batches: At least `steps` of them.
        steps: Updates in all.
        rate: Learning rate at the first step; it falls to zero as a cosine.
        weight_decay: On all parameters.
    """
    optimizer = sgd(network, rate, weight_decay)
    for step, batch in zip(range(steps), batches, strict=False):
        sgd_step(network, optimizer, batch, rate * cosine(step / steps))
        yield step + 1


def train_from_scratch(graph: Graph, data: DataSet, recipe: Recipe, seed: int) -> Network:
    """A network trained on a CPU from Kaiming initialisation.

    Args:
        graph: The architecture.
        data: Its training images are read.
        recipe: How to train.
        seed: Of initialisation, of the images' order and of their shifts.
    """
    network = initialised(graph, seed)
    batches = random_batches(
        data.train, recipe.batch_size, seed=seed, device="cpu", mean=data.mean, std=data.std,
        mirror=data.mirror, shift=recipe.shift,
    )  # fmt: skip
    for _ in train_steps(network, batches, recipe.steps, recipe.learning_rate, recipe.weight_decay):
        pass
    return network


@torch.no_grad()
def measure_accuracy(
    network: Network, split: Split, data: DataSet, device: torch.device | str = "cpu"
) -> float:
    """Accuracy in [0, 1] with running statistics: how the network will be used.

    The network is left in evaluation mode.
    """
    network.eval()
    batches = evaluation_batches(
        split, EVALUATION_BATCH, device=device, mean=data.mean, std=data.std
    )
    right = sum(int((network(x).argmax(1) == y).sum()) for x, y in batches)
    return right / len(split)


History = list[dict[str, float]]
"""Epoch, mean loss, validation accuracy and seconds of each epoch."""


@dataclass(frozen=True)
class NetworkTask:
    """One network to train.

    Args:
        name: Of the candidate.
        start: `ghn` or `kaiming`.
        graph: The architecture.
        parameters: Weights to start from.
        folder: Where state, weights and history are kept.
        zero_shot: Accuracy with predicted weights on the scoring images.
        architecture: What `ghnas.load` needs to build the network again.
    """

    name: str
    start: str
    graph: Graph
    parameters: dict[str, Tensor]
    folder: Path
    zero_shot: float
    architecture: dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """A trained network: accuracies in [0, 1], seconds of training.

    Args:
        validation: On all validation images.
        test: On all test images.
        seconds: Of training and validation.
        steps_saved: For a baseline: SGD steps until it was as good as the predicted weights;
            None if it never was.
        history: Of each epoch.
    """

    validation: float
    test: float
    seconds: float
    steps_saved: int | None
    history: History


@dataclass(frozen=True)
class Material:
    """What every training reads.

    Args:
        data: Training and validation images.
        test: Test images, for the final figure.
        checks: The batches that candidates were scored on.
        settings: How to train.
        device: Where.
    """

    data: DataSet
    test: Split
    checks: Sequence[Batch]
    settings: FinetuneSettings
    device: torch.device


class Stopped(Exception):
    """The training was asked to stop; finished epochs are kept."""


def identity(task: NetworkTask, material: Material) -> dict[str, Any]:
    """What must agree for a training to go on, or to count as finished."""
    settings = asdict(material.settings)
    del settings["baseline"]
    return {"settings": settings, "start": task.start, "data": material.data.fingerprint}


def finished(task: NetworkTask, material: Material) -> Trained | None:
    """The result of a training that ended earlier."""
    try:
        content = json.loads((task.folder / "history.json").read_text())
        if content["identity"] != identity(task, material):
            return None
        return Trained(**content["result"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def train_network(
    task: NetworkTask,
    material: Material,
    report: Callable[[History], None],
    stop: Callable[[], bool],
) -> Trained:
    """Train a network, or go on with it, and write what `ghnas.load` reads.

    Args:
        task: Which one.
        material: With what, and how.
        report: Called with the epochs so far, at the start and after each.
        stop: Asked before each step.

    Raises:
        Stopped: If `stop` said so.
        UserError: If the kept state is damaged.
    """
    training = _Training(task, material)
    report(training.history)
    for _ in range(len(training.history), material.settings.epochs):
        training.epoch(stop)
        report(training.history)
    return training.finish()


@dataclass
class _Training:
    task: NetworkTask
    material: Material
    history: History = field(default_factory=list)
    steps_saved: int | None = None

    def __post_init__(self) -> None:
        settings, device, data = self.material.settings, self.material.device, self.material.data
        self.network = Network(self.task.graph)
        load_parameters(self.network, self.task.parameters)
        self.network.to(device).to(memory_format=torch.channels_last)
        self.optimizer = sgd(self.network, settings.learning_rate, settings.weight_decay)
        self.state = self.task.folder / "state.pt"
        self._restore()
        self.per_epoch = max(len(data.train) // settings.batch_size, 1)
        self.batches = random_batches(
            data.train, settings.batch_size, seed=settings.seed, device=device,
            mean=data.mean, std=data.std, mirror=data.mirror, shift=1,
            start_step=len(self.history) * self.per_epoch,
        )  # fmt: skip

    def epoch(self, stop: Callable[[], bool]) -> None:
        began, done, loss = time.monotonic(), len(self.history), 0.0
        self.network.train()
        for step in range(self.per_epoch):
            if stop():
                raise Stopped
            self._check(done * self.per_epoch + step)
            progress = (done + step / self.per_epoch) / self.material.settings.epochs
            rate = self.material.settings.learning_rate * cosine(progress)
            loss += sgd_step(self.network, self.optimizer, next(self.batches), rate)
        self.history.append(
            {
                "epoch": done + 1,
                "loss": loss / self.per_epoch,
                "validation": self._accuracy(self.material.data.validation),
                "seconds": time.monotonic() - began,
            }
        )
        content = {
            "identity": identity(self.task, self.material),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "steps_saved": self.steps_saved,
        }
        replace_atomically(self.state, lambda beside: torch.save(content, beside))

    def _check(self, step: int) -> None:
        """Note the first step at which a baseline is as good as the predicted weights."""
        if self.task.start == "ghn" or self.steps_saved is not None or step % CHECK_EVERY:
            return
        parameters = {key: value.detach().cpu() for key, value in self.network.named_parameters()}
        score = evaluate_one(self.task.graph, parameters, self.material.checks)
        if score.accuracy >= self.task.zero_shot:
            self.steps_saved = step

    def _accuracy(self, split: Split) -> float:
        return measure_accuracy(self.network, split, self.material.data, self.material.device)

    def _restore(self) -> None:
        if not self.state.exists():
            return
        try:
            device = self.material.device
            content = torch.load(self.state, map_location=device, weights_only=True)
        except Exception as error:  # torch.load raises many kinds for a damaged file
            raise UserError(f"{self.state} is damaged: delete it to start anew") from error
        if content.get("identity") == identity(self.task, self.material):
            self.network.load_state_dict(content["network"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.history, self.steps_saved = content["history"], content["steps_saved"]

    def finish(self) -> Trained:
        """Measure on the test images and write everything."""
        result = Trained(
            self.history[-1]["validation"],
            self._accuracy(self.material.test),
            sum(item["seconds"] for item in self.history),
            self.steps_saved,
            self.history,
        )
        folder, architecture = self.task.folder, self.task.architecture
        save(folder / "model.safetensors", self.network, architecture)
        content = {
            "identity": identity(self.task, self.material),
            "zero_shot": self.task.zero_shot,
            "result": asdict(result),
        }
        write_atomically(folder / "architecture.json", json.dumps(architecture, indent=1))
        write_atomically(folder / "history.json", json.dumps(content, indent=1))
        self.state.unlink(missing_ok=True)
        return result
