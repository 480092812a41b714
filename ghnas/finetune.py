"""SGD from predicted weights; what it writes, `ghnas.load` reads."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.data import DataSet, evaluation_batches, load_data, random_batches
from ghnas.device import cores
from ghnas.errors import UserError
from ghnas.files import replace_atomically, write_atomically
from ghnas.ghn.checkpoint import find_ghn, load_ghn
from ghnas.graph import Graph
from ghnas.network import Network, kaiming, load_parameters
from ghnas.record import Ranked, trial_name
from ghnas.run import Run
from ghnas.scoring import Batch, evaluate_one, one_torch_thread
from ghnas.trained import save

CHECK_EVERY = 20
"""Steps between the checks of how far a baseline has come."""


@dataclass(frozen=True)
class FinetuneSettings:
    """How to fine-tune: SGD with Nesterov momentum 0.9 and a cosine rate.

    Args:
        epochs: Passes over the training images.
        batch_size: Images in a step.
        learning_rate: At the first step; None takes 0.03.
        weight_decay: On all parameters.
        seed: Of the images' order and of Kaiming initialisation.
        baseline: Also train from Kaiming initialisation.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float | None = None
    weight_decay: float = 3e-4
    seed: int = 0
    baseline: bool = False


@dataclass(frozen=True)
class EpochReport:
    """One epoch of one network, and how many epochs of all networks are done."""

    name: str
    start: str
    epoch: int
    epochs: int
    loss: float
    accuracy: float
    seconds: float
    done: int
    total: int


@dataclass(frozen=True)
class BaselineResult:
    """The same architecture from Kaiming initialisation.

    Args:
        validation: Final accuracy in [0, 1].
        test: The same on the test images.
        seconds: Training time.
        steps_saved: SGD steps until it reached the zero-shot accuracy, None if it never did.
    """

    validation: float
    test: float
    seconds: float
    steps_saved: int | None


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned network; accuracies in [0, 1]."""

    ranked: Ranked
    path: Path
    zero_shot: float
    validation: float
    test: float
    seconds: float
    baseline: BaselineResult | None


@dataclass(frozen=True)
class _Task:
    """One network to train; `start` is `ghn` or `kaiming`."""

    name: str
    start: str
    graph: Graph
    parameters: dict[str, Tensor]
    folder: Path
    zero_shot: float
    architecture: dict[str, Any]


@dataclass(frozen=True)
class _Trained:
    validation: float
    test: float
    seconds: float
    steps_saved: int | None


def finetune(
    run: Run,
    selection: Sequence[Ranked],
    settings: FinetuneSettings,
    device: torch.device,
    report: Callable[[EpochReport], None],
) -> list[FinetuneResult]:
    """Fine-tune candidates of a run from the weights that its hypernetwork predicts.

    On a CPU the networks train side by side, each on one thread. Each keeps its state in its
    folder after every epoch and goes on from there; one that is finished is not trained again.

    Args:
        run: The search.
        selection: Which candidates.
        settings: How to train.
        device: Where.
        report: Called after each epoch.

    Returns:
        A result for each candidate, in their order.

    Raises:
        UserError: If the run's hypernetwork or data set is missing or has changed.
    """
    manifest = run.manifest
    ghn_path = Path(manifest.ghn)
    data = load_data(manifest.data, image_size=manifest.image_shape[-1])
    if not ghn_path.exists():
        ghn_path = find_ghn(run.space.name, data.name)
    ghn, info = load_ghn(ghn_path)
    run.check_inputs(ghn_sha256=info.sha256, data_fingerprint=data.fingerprint)
    graphs = [run.graph(item.record.candidate) for item in selection]
    with one_torch_thread():  # small tensors: threads would only wait for each other
        predicted = [ghn.predict([graph])[0] for graph in graphs]
    split = data.validation.take(manifest.score_images)
    checks = evaluation_batches(split, 128, device="cpu", mean=data.mean, std=data.std)
    tasks = []
    for item, graph, parameters in zip(selection, graphs, predicted, strict=True):
        name = trial_name(item)
        architecture = _architecture(run, item, data)
        score = evaluate_one(graph, parameters, checks).accuracy
        starts = {"ghn": parameters}
        if settings.baseline:
            generator = torch.Generator().manual_seed(settings.seed)
            starts["kaiming"] = kaiming(graph, generator)
        for start, initial in starts.items():
            folder = run.path / "finetune" / (name if start == "ghn" else f"{name}-{start}")
            tasks.append(_Task(name, start, graph, initial, folder, score, architecture))
    trained = _train_all(run, tasks, data, settings, device, checks, report)
    results = []
    for item in selection:
        name = trial_name(item)
        task, outcome = next((t, r) for t, r in trained if (t.name, t.start) == (name, "ghn"))
        other = next((r for t, r in trained if (t.name, t.start) == (name, "kaiming")), None)
        results.append(
            FinetuneResult(
                item,
                task.folder,
                task.zero_shot,
                outcome.validation,
                outcome.test,
                outcome.seconds,
                BaselineResult(**asdict(other)) if other else None,
            )
        )
    return results


def _architecture(run: Run, item: Ranked, data: DataSet) -> dict[str, Any]:
    """What `load` needs to build the network again."""
    return {
        "space": run.manifest.space_text,
        "skeleton": dict(run.manifest.skeleton),
        "candidate": item.record.candidate,
        "image_shape": list(run.manifest.image_shape),
        "classes": list(data.classes),
        "mean": list(data.mean),
        "std": list(data.std),
    }


def _train_all(
    run: Run,
    tasks: Sequence[_Task],
    data: DataSet,
    settings: FinetuneSettings,
    device: torch.device,
    checks: Sequence[Batch],
    report: Callable[[EpochReport], None],
) -> list[tuple[_Task, _Trained]]:
    desk = _Desk(run.finetune_study(), len(tasks) * settings.epochs, report)

    def train(task: _Task) -> _Trained:
        return _Training(task, data, settings, device, checks, desk).run()

    if device.type != "cpu":
        return [(task, train(task)) for task in tasks]
    with one_torch_thread(), ThreadPoolExecutor(min(len(tasks), cores())) as pool:
        try:
            return list(zip(tasks, pool.map(train, tasks), strict=True))
        except BaseException:
            desk.stop.set()  # or the pool would wait for the last epoch
            raise


class _Desk:
    """What the trainings share: the study, the count of epochs, the wish to stop."""

    def __init__(
        self, study: optuna.Study, total: int, report: Callable[[EpochReport], None]
    ) -> None:
        self.study = study
        self.total = total
        self.done = 0
        self.stop = threading.Event()
        self._report = report
        self._lock = threading.Lock()

    def begin(self, task: _Task) -> int:
        """A new trial; returns its id."""
        with self._lock:
            trial = self.study.ask()
            trial.set_user_attr("candidate", task.name)
            trial.set_user_attr("start", task.start)
            trial.set_user_attr("params", task.graph.parameter_count)
            trial.set_user_attr("flops", task.graph.flops)
            return trial._trial_id

    def epoch(self, trial: int, history: list[dict[str, float]], task: _Task, epochs: int) -> None:
        """Record an epoch as an intermediate value and report it."""
        last = history[-1]
        with self._lock:
            optuna.trial.Trial(self.study, trial).report(last["validation"], len(history))
            self.done += 1
            self._report(
                EpochReport(
                    task.name, task.start, len(history), epochs, last["loss"],
                    last["validation"], last["seconds"], self.done, self.total,
                )
            )  # fmt: skip

    def skip(self, epochs: int) -> None:
        """Count epochs that an earlier call did."""
        with self._lock:
            self.done += epochs

    def end(self, trial: int, accuracy: float) -> None:
        """Complete a trial."""
        with self._lock:
            self.study.tell(optuna.trial.Trial(self.study, trial), accuracy)


class _Training:
    """One network's training, kept in a folder: state, then weights and history."""

    def __init__(
        self,
        task: _Task,
        data: DataSet,
        settings: FinetuneSettings,
        device: torch.device,
        checks: Sequence[Batch],
        desk: _Desk,
    ) -> None:
        self.task, self.data, self.settings = task, data, settings
        self.device, self.checks, self.desk = device, checks, desk
        self.network = Network(task.graph)
        load_parameters(self.network, task.parameters)
        self.network.to(device).to(memory_format=torch.channels_last)
        self.rate = settings.learning_rate or 0.03
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), self.rate, momentum=0.9, nesterov=True,
            weight_decay=settings.weight_decay,
        )  # fmt: skip
        self.history: list[dict[str, float]] = []
        self.steps_saved: int | None = None
        self.trial = -1
        self.state = task.folder / "state.pt"

    def run(self) -> _Trained:
        finished = self._finished()
        if finished:
            self.desk.skip(self.settings.epochs)
            return finished
        self._restore()
        settings, data = self.settings, self.data
        per_epoch = max(len(data.train) // settings.batch_size, 1)
        batches = random_batches(
            data.train, settings.batch_size, seed=settings.seed, device=self.device,
            mean=data.mean, std=data.std, mirror=data.mirror, shift=1,
            start_step=len(self.history) * per_epoch,
        )  # fmt: skip
        validation = self._evaluation(data.validation)
        for epoch in range(len(self.history), settings.epochs):
            began = time.monotonic()
            loss = 0.0
            self.network.train()
            for step in range(per_epoch):
                if self.desk.stop.is_set():
                    raise KeyboardInterrupt
                self._check(epoch * per_epoch + step)
                loss += self._step(next(batches), (epoch + step / per_epoch) / settings.epochs)
            self.history.append(
                {
                    "epoch": epoch + 1,
                    "loss": loss / per_epoch,
                    "validation": self._accuracy(validation),
                    "seconds": time.monotonic() - began,
                }
            )
            self._save()
            self.desk.epoch(self.trial, self.history, self.task, settings.epochs)
        return self._finish()

    def _step(self, batch: Batch, progress: float) -> float:
        images, labels = batch
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * 0.5 * (1 + math.cos(math.pi * progress))
        loss = F.cross_entropy(self.network(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        return float(loss.detach())

    def _check(self, step: int) -> None:
        """Note the first step at which a baseline is as good as the predicted weights."""
        if self.task.start == "ghn" or self.steps_saved is not None or step % CHECK_EVERY:
            return
        parameters = {key: value.detach().cpu() for key, value in self.network.named_parameters()}
        if evaluate_one(self.task.graph, parameters, self.checks).accuracy >= self.task.zero_shot:
            self.steps_saved = step

    def _evaluation(self, split: Any) -> list[Batch]:
        return evaluation_batches(
            split, 500, device=self.device, mean=self.data.mean, std=self.data.std
        )

    @torch.no_grad()
    def _accuracy(self, batches: Sequence[Batch]) -> float:
        """With running statistics: how the network will be used."""
        self.network.eval()
        right = sum(int((self.network(x).argmax(1) == y).sum()) for x, y in batches)
        return right / sum(len(y) for _, y in batches)

    def _identity(self) -> dict[str, Any]:
        settings = asdict(self.settings)
        del settings["baseline"]
        return {"settings": settings, "start": self.task.start, "data": self.data.fingerprint}

    def _finished(self) -> _Trained | None:
        path = self.task.folder / "history.json"
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        same = content.get("identity") == self._identity()
        return _Trained(**content["result"]) if same else None

    def _save(self) -> None:
        content = {
            "identity": self._identity(), "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(), "history": self.history,
            "steps_saved": self.steps_saved, "trial": self.trial,
        }  # fmt: skip
        replace_atomically(self.state, lambda beside: torch.save(content, beside))

    def _restore(self) -> None:
        content: dict[str, Any] = {}
        if self.state.exists():
            try:
                content = torch.load(self.state, map_location=self.device, weights_only=True)
            except Exception as error:  # torch.load raises many kinds for a damaged file
                raise UserError(f"{self.state} is damaged: delete it to start anew") from error
        if content.get("identity") != self._identity():
            self.trial = self.desk.begin(self.task)
            return
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.history, self.steps_saved = content["history"], content["steps_saved"]
        self.trial = content["trial"]
        self.desk.skip(len(self.history))

    def _finish(self) -> _Trained:
        result = _Trained(
            self.history[-1]["validation"],
            self._accuracy(self._evaluation(self.data.load_test())),
            sum(item["seconds"] for item in self.history),
            self.steps_saved,
        )
        folder = self.task.folder
        save(folder / "model.safetensors", self.network, self.task.architecture)
        content = {
            "identity": self._identity(),
            "result": asdict(result),
            "zero_shot": self.task.zero_shot,
            "history": self.history,
        }
        write_atomically(folder / "architecture.json", json.dumps(self.task.architecture, indent=1))
        write_atomically(folder / "history.json", json.dumps(content, indent=1))
        self.state.unlink(missing_ok=True)
        self.desk.end(self.trial, result.validation)
        return result
