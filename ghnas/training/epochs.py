"""Networks that are trained by the epoch and kept in folders: the state after every epoch, then
weights and history. What is written, `ghnas.load` reads.

Workers read and write no files, for they may be on other machines: they are given a state, and give
back what is to be kept.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import torch

from ghnas.architectures.network import Network, load_parameters
from ghnas.data import LabelledImages, random_batches
from ghnas.executors.fused import compile_gradients
from ghnas.executors.grouped import GroupedNetworks
from ghnas.executors.trainable import PlainNetwork, TrainableNetwork, executor_for, trainable
from ghnas.scoring.evaluation import evaluate
from ghnas.training.network_tasks import (
    STATE,
    History,
    Material,
    NetworkTask,
    Trained,
    identity,
    keep,
    read_state,
)
from ghnas.training.populations import POPULATION, follow
from ghnas.training.recipe import PLAIN, RecipeNetwork
from ghnas.training.saved import WEIGHTS, as_bytes
from ghnas.training.sgd import (
    SGDSettings,
    SGDTraining,
    measure_accuracies,
    measure_accuracy,
    measure_top5,
)
from ghnas.utils.devices import cores
from ghnas.utils.errors import UserError
from ghnas.utils.processes import LocalPool, Pool
from ghnas.utils.tensor_files import pytorch_as_bytes, read_pytorch

FEW_CLASSES = 10
"""Up to so many classes the five likeliest tell nothing."""
CHECK_EVERY = 20
"""Steps between the checks of how far a baseline has come."""


def train_network(
    task: NetworkTask, material: Material, report: Callable[[History], None]
) -> tuple[Network, Trained]:
    """Train a network, or go on with it, and write what `ghnas.load` reads.

    Args:
        task: Which one.
        material: With what, and how.
        report: Called with the epochs so far, after each.

    Returns:
        The network in evaluation mode on the CPU, and its result.

    Raises:
        UserError: If the kept state is damaged.
    """
    training = _Training(task, material, state=read_state(task))
    while not training.complete:
        training.epoch()
        keep(task, training.files)
        report(training.history)
    result = training.finish()
    keep(task, training.files)
    return training.best.cpu().eval(), result


def train_networks(
    tasks: Sequence[NetworkTask], material: Material, pool: Pool | None = None
) -> Generator[tuple[int, History, Trained | None]]:
    """Train networks, or go on with them: on a CPU side by side, each worker with one thread;
    on a GPU as one population.

    Args:
        tasks: The networks.
        material: With what, and how.
        pool: Whose workers train on a CPU; default: a process of this machine for each core.

    States are kept after every epoch, so that little is lost when the generator is closed.

    Yields:
        After each epoch of each network: its index, its epochs so far, and after the last one the
        result.

    Raises:
        UserError: If a kept state is damaged, or a process was ended from outside.
    """
    if material.device.type != "cpu":
        plain = material.settings.recipe == PLAIN
        yield from (train_populations if plain else _train_in_turn)(tasks, material)
        return
    compile_gradients()  # once, before the processes start
    with (pool or LocalPool(cores())).start(
        partial, _train_epoch, tasks, material, tasks=len(tasks), gradients=True
    ) as workers:
        for index, task in enumerate(tasks):
            workers.submit(index, read_state(task))
        for index, history, result, files in workers.as_completed():
            keep(tasks[index], files)
            if result is None:
                workers.submit(index, files.get(STATE))
            yield index, history, result


def _train_in_turn(
    tasks: Sequence[NetworkTask], material: Material
) -> Iterator[tuple[int, History, Trained | None]]:
    """As `train_networks`, one network after the other in this process."""
    for index, task in enumerate(tasks):
        training = _Training(task, material, state=read_state(task))
        while not training.complete:
            training.epoch()
            keep(task, training.files)
            if not training.complete:
                yield index, training.history, None
        yield index, training.history, _finish(training)


def _train_epoch(
    tasks: Sequence[NetworkTask], material: Material, index: int, state: bytes | None
) -> tuple[int, History, Trained | None, dict[str, bytes]]:
    training = _Training(tasks[index], material, state=state)
    if not training.complete:
        training.epoch()
    result = training.finish() if training.complete else None
    return index, training.history, result, training.files


def _finish(training: _Training) -> Trained:
    result = training.finish()
    keep(training.task, training.files)
    return result


def train_populations(
    tasks: Sequence[NetworkTask], material: Material
) -> Iterator[tuple[int, History, Trained | None]]:
    """As `train_networks`; networks that have as many epochs behind them train together."""
    trainings = [_Training(task, material, PlainNetwork, read_state(task)) for task in tasks]
    groups: dict[int, list[int]] = defaultdict(list)
    for index, training in enumerate(trainings):
        groups[len(training.history)].append(index)
    for indices in groups.values():
        for start in range(0, len(indices), POPULATION):
            some = indices[start : start + POPULATION]
            members = [trainings[index] for index in some]
            population = GroupedNetworks([item.network for item in members])
            while not members[0].complete:
                _epoch_together(population, members)
                if not members[0].complete:
                    yield from ((i, trainings[i].history, None) for i in some)
            yield from ((i, trainings[i].history, _finish(trainings[i])) for i in some)


def _epoch_together(population: GroupedNetworks, members: Sequence[_Training]) -> None:
    began, sums = time.monotonic(), [0.0] * len(members)
    for step in members[0].epoch_steps:
        for item in members:
            item.check(step)
        losses = population.losses(*next(members[0].batches))
        values = follow([item.training for item in members], losses)
        sums = [total + value for total, value in zip(sums, values, strict=True)]
    data, device = members[0].material.data, members[0].material.device
    accuracies = measure_accuracies(population.logits, data.validation, data, device)
    seconds = (time.monotonic() - began) / len(members)
    for item, total, accuracy in zip(members, sums, accuracies, strict=True):
        item.end_epoch(total, accuracy, seconds)
        keep(item.task, item.files)


@dataclass
class _Training:
    task: NetworkTask
    material: Material
    kind: Callable[[Network], TrainableNetwork] = trainable
    state: bytes | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    """What is to be kept, by name."""
    history: History = field(default_factory=list)
    steps_saved: int | None = None

    def __post_init__(self) -> None:
        settings, device, data = self.material.settings, self.material.device, self.material.data
        self.network = Network(self.task.graph)
        load_parameters(self.network, self.task.parameters)
        self.network.to(device).to(memory_format=torch.channels_last)
        self.per_epoch = max(len(data.train) // settings.batch_size, 1)
        steps = settings.epochs * self.per_epoch
        self.recipe: RecipeNetwork | None = None
        if settings.recipe == PLAIN:
            self.trainable = self.kind(self.network)
        else:
            self.recipe = RecipeNetwork(self.network, settings.recipe, settings.seed, steps)
            self.trainable = self.recipe
        self.training = SGDTraining(
            self.trainable.parameters,
            steps,
            SGDSettings(settings.learning_rate, settings.weight_decay),
        )
        self._restore()
        self.batches = random_batches(
            data.train, settings.batch_size, seed=settings.seed, device=device,
            mean=data.mean, std=data.std, mirror=data.mirror, shift=1,
            start_step=len(self.history) * self.per_epoch, crops=settings.crops(data.mirror),
        )  # fmt: skip

    @property
    def best(self) -> Network:
        """The network that is kept."""
        return self.network if self.recipe is None else self.recipe.best

    @property
    def complete(self) -> bool:
        return len(self.history) == self.material.settings.epochs

    def epoch(self) -> None:
        """Train for one epoch."""
        began, loss = time.monotonic(), 0.0
        parts = self.material.settings.recipe.accumulate
        for step in self.epoch_steps:
            self.check(step)
            loss += self.training.step(self.trainable.loss, *next(self.batches), parts)
            if self.recipe is not None:
                self.recipe.stepped()
        accuracy = self._accuracy(self.material.data.validation)
        self.end_epoch(loss, accuracy, time.monotonic() - began)

    @property
    def epoch_steps(self) -> range:
        """The numbers of the next epoch's steps."""
        done = len(self.history)
        return range(done * self.per_epoch, (done + 1) * self.per_epoch)

    def end_epoch(self, loss: float, accuracy: float, seconds: float) -> None:
        """Note an epoch, with the sum of its losses."""
        self.history.append(
            {
                "epoch": len(self.history) + 1,
                "loss": loss / self.per_epoch,
                "validation": accuracy,
                "seconds": seconds,
            }
        )
        if self.task.folder is None:
            return
        content = {
            "identity": identity(self.task, self.material),
            "network": self.network.state_dict(),
            "training": self.training.state_dict(),
            "history": self.history,
            "steps_saved": self.steps_saved,
        }
        if self.recipe is not None:
            content["recipe"] = self.recipe.state_dict()
        self.files = {STATE: pytorch_as_bytes(content)}

    def check(self, step: int) -> None:
        """Note the first step at which a baseline is as good as the predicted weights."""
        wanted = self.task.zero_shot if self.task.start == "kaiming" else None
        if wanted is None or self.steps_saved is not None or step % CHECK_EVERY:
            return
        parameters = {key: value.detach().cpu() for key, value in self.network.named_parameters()}
        (score,) = evaluate(
            executor_for("cpu"), [self.task.graph], [parameters], self.material.checks
        )
        if score.accuracy >= wanted:
            self.steps_saved = step

    def _accuracy(self, split: LabelledImages) -> float:
        return measure_accuracy(self.trainable, split, self.material.data, self.material.device)

    def _restore(self) -> None:
        if self.task.folder is None or self.state is None:
            return
        path = self.task.folder / STATE
        content = read_pytorch(path, self.material.device, self.state)
        try:
            # a state of another version has no momentum: it starts anew
            ours = "momentum" in content.get("training", {})
            if ours and content.get("identity") == identity(self.task, self.material):
                self.network.load_state_dict(content["network"])
                self.training.load_state_dict(content["training"])
                self.history, self.steps_saved = content["history"], content["steps_saved"]
                if self.recipe is not None:
                    self.recipe.load_state_dict(content["recipe"])
        except Exception as error:  # optimisers and schedules check little of what they are given
            raise UserError(f"{path} is damaged: delete it to start anew") from error

    def _tested(self) -> tuple[float | None, float | None]:
        """Accuracy on the test images, and that of the five likeliest of many classes."""
        test, data = self.material.test, self.material.data
        if test is None:
            return None, None
        if data.num_classes <= FEW_CLASSES:
            return self._accuracy(test), None
        return measure_top5(self.trainable, test, data, self.material.device)

    def finish(self) -> Trained:
        """Measure on the test images; `files` are then those of the trained network."""
        test, top5 = self._tested()
        result = Trained(
            self.history[-1]["validation"],
            test,
            sum(item["seconds"] for item in self.history),
            self.steps_saved,
            self.history,
            top5,
        )
        architecture = self.task.architecture
        if self.task.folder is None:
            return result
        content = {
            "identity": identity(self.task, self.material),
            "zero_shot": self.task.zero_shot,
            "result": asdict(result),
        }
        self.files = {
            WEIGHTS: as_bytes(self.best, architecture),
            "architecture.json": json.dumps(architecture, indent=1).encode(),
            "history.json": json.dumps(content, indent=1).encode(),
        }
        return result
