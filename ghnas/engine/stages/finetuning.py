"""Trains candidates of a run, from predicted weights where it has a hypernetwork; what it writes,
`ghnas.load` reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
import torch
from optuna.trial import TrialState

from ghnas.architectures.network import kaiming
from ghnas.data import load_data
from ghnas.engine.run import Run
from ghnas.engine.stages.inputs import load_inputs, objective_of
from ghnas.engine.stages.training_jobs import Start
from ghnas.engine.trials import Trial
from ghnas.ghn.model import GHN
from ghnas.scoring.evaluation import evaluate_one
from ghnas.training.epochs import train_networks
from ghnas.training.network_tasks import History, Material, NetworkTask, Trained, finished, identity
from ghnas.training.recipe import FinetuneSettings
from ghnas.training.saved import WEIGHTS, describe
from ghnas.training.transfer import transferred
from ghnas.utils.errors import UserError
from ghnas.utils.files import require_writable
from ghnas.utils.processes import Pool
from ghnas.utils.single_thread import one_torch_thread
from ghnas.utils.tensor_files import read_tensors

__all__ = [
    "EpochReport",
    "FinetuneResult",
    "FinetuneSettings",
    "NetworkForm",
    "Trained",
    "finetune",
]


LEAST_TAKEN = 0.1
"""Share of a network's weights below which it does not start from trained ones."""


@dataclass(frozen=True)
class NetworkForm:
    """How the networks that are trained differ from those that the search scored.

    Args:
        skeleton: Settings of the space's skeleton, such as `{"cells": 20, "channels": 36}`.
        image_size: Pixels of the images each way; None: as in the search.
        start: `ghn` for predicted weights, `kaiming`, or `trained` for those of the candidate's
            network that was fine-tuned as it was scored, where they fit; None: predicted weights
            where the networks are those of the search, which the hypernetwork was trained for.
    """

    skeleton: Mapping[str, int] = field(default_factory=dict)
    image_size: int | None = None
    start: Start | Literal["trained"] | None = None

    @property
    def suffix(self) -> str:
        """What tells the folders of these networks from others."""
        words = [f"-{name}{value}" for name, value in self.skeleton.items()]
        return "".join([*words, f"-{self.image_size}px" if self.image_size else ""])


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
class FinetuneResult:
    """A fine-tuned network.

    Args:
        trial: The candidate.
        start: `ghn`, `kaiming` or `trained`, see `NetworkForm`.
        path: Its folder, for `ghnas.load`.
        zero_shot: Accuracy in [0, 1] with predicted weights on the scoring images; None without a
            hypernetwork.
        trained: What fine-tuning made of it.
        baseline: The same architecture from Kaiming initialisation, if it was asked for.
        parameters: Of the network that was trained, which may be larger than the one scored.
        flops: The same, for one image.
    """

    trial: Trial
    start: str
    path: Path
    zero_shot: float | None
    trained: Trained
    baseline: Trained | None
    parameters: int
    flops: int


def finetune(
    run: Run,
    selection: Sequence[Trial],
    settings: FinetuneSettings,
    device: torch.device,
    report: Callable[[EpochReport], None],
    form: NetworkForm = NetworkForm(),
    pool: Pool | None = None,
) -> list[FinetuneResult]:
    """Fine-tune candidates of a run from the weights that its hypernetwork predicts, or train them
    from Kaiming initialisation if it has none.

    On a CPU the networks train side by side, each worker with one thread. Each state is kept in
    its folder after every epoch and goes on from there; one that is finished is not
    trained again.

    Args:
        run: The search.
        selection: Which candidates.
        settings: How to train.
        device: Where.
        report: Called after each epoch.
        form: How the networks differ from those that were scored, such as in full size.
        pool: Whose workers train on a CPU; default: processes of this machine.

    Returns:
        A result for each candidate, in their order.

    Raises:
        UserError: If the run's hypernetwork or data set is missing or has changed, another process
            fine-tunes in it, a baseline is asked for and there is no hypernetwork, or there are no
            trained weights to start from.
    """
    if not run.manifest.uses_ghn and (settings.baseline or form.start == "ghn"):
        raise UserError(
            f"run {run.name} has no hypernetwork, so that all networks start from Kaiming "
            f"initialisation: leave {'--baseline' if settings.baseline else '--start'} out"
        )
    require_writable(run.network_folder("weights"))
    with run.locked("finetune"):
        ghn, data = load_inputs(run)
        if form.image_size not in (None, data.image_shape[-1]):
            assert run.manifest.sources.data is not None  # or they could not be loaded
            larger = load_data(run.manifest.sources.data, image_size=form.image_size)
            data = larger.normalised_with(data.mean, data.std)
        objective = objective_of(run, ghn, data, torch.device("cpu"))
        data, checks = objective.data, objective.batches()  # normalised as in the search
        if form.start in ("kaiming", "trained") or (form.suffix and form.start is None):
            ghn = None
        if settings.shots is not None:
            data = data.few_shot(settings.shots)
        test = data.load_test() if data.has_test else None
        material = Material(data.without_test(), test, checks, settings, device)
        tasks = list(_tasks(run, ghn, selection, material, form))
        desk = _Desk(run.study_beside("finetune", "accuracy", "maximize"), tasks, material, report)
        unfinished = [index for index in range(len(tasks)) if not desk.skip(index)]
        with closing(
            train_networks([tasks[index] for index in unfinished], material, pool)
        ) as epochs:
            for position, history, ended in epochs:
                desk.count(unfinished[position], history, ended)
    of = {(task.name, task.start): (task, desk.results[i]) for i, task in enumerate(tasks)}
    start = "ghn" if ghn else "trained" if form.start == "trained" else "kaiming"
    results = []
    for item in selection:
        name = f"{item.name}{form.suffix}"
        task, trained = of[name, start]
        baseline = of[name, "kaiming"][1] if settings.baseline else None
        assert task.folder is not None
        size = task.graph.parameter_count, task.graph.flops
        results.append(
            FinetuneResult(item, start, task.folder, task.zero_shot, trained, baseline, *size)
        )
    return results


def _tasks(
    run: Run,
    ghn: GHN | None,
    selection: Sequence[Trial],
    material: Material,
    form: NetworkForm,
) -> Iterator[NetworkTask]:
    """The networks to train, each with its first weights."""
    data = material.data
    space = run.space.with_skeleton(**form.skeleton)
    for item in selection:
        architecture, name = item.architecture, f"{item.name}{form.suffix}"
        if form.suffix:
            architecture = space.architecture(architecture.choices)
            architecture = architecture.for_images(data.image_shape, data.num_classes)
        graph = architecture.graph
        starts, accuracy = {}, None
        if ghn is not None:
            with one_torch_thread():  # small tensors: threads would only wait for each other
                starts["ghn"] = ghn.predict_graphs([graph])[0]
                accuracy = evaluate_one(graph, starts["ghn"], material.checks).accuracy
        if ghn is None or material.settings.baseline:
            generator = torch.Generator().manual_seed(material.settings.seed)
            starts["kaiming"] = kaiming(graph, generator)
        digest = None
        if form.start == "trained":
            source = _trained_file(run, item)
            digest = hashlib.sha256(source.read_bytes()).hexdigest()
            starts["trained"] = _taken_over(source, item, starts["kaiming"])
            if not material.settings.baseline:
                del starts["kaiming"]
        description = describe(architecture, data)
        for start, parameters in starts.items():
            plain = start == "ghn" or (ghn is None and digest is None)
            path = run.network_folder(name if plain else f"{name}-{start}")
            origin = digest if start == "trained" else None
            yield NetworkTask(name, start, graph, parameters, path, accuracy, description, origin)


def _trained_file(run: Run, item: Trial) -> Path:
    """Of the candidate's network that was fine-tuned as it was scored."""
    path = run.network_folder(item.name) / WEIGHTS
    if not path.is_file():
        raise UserError(
            f"{item.name} of {run.name} has no trained weights to start from: run "
            f"`ghnas finetune {item.name}` first"
        )
    return path


def _taken_over(
    path: Path, item: Trial, fresh: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """First weights from a trained network's file where they fit, else fresh ones."""
    parameters, share = transferred(read_tensors(path)[0], fresh)
    if share < LEAST_TAKEN:
        raise UserError(
            f"the trained weights of {item.name} are {100 * share:.0f} % of those of this network: "
            "more cells take them over, other --channels do not"
        )
    return parameters


class _Desk:
    """Writes the study, counts the epochs of all networks, and collects results."""

    def __init__(
        self,
        study: optuna.Study,
        tasks: Sequence[NetworkTask],
        material: Material,
        report: Callable[[EpochReport], None],
    ) -> None:
        self.study, self.tasks, self.material = study, tasks, material
        self.report = report
        self.done = [0] * len(tasks)
        self.total = len(tasks) * material.settings.epochs
        self.results: dict[int, Trained] = {}
        self._trials: dict[int, optuna.trial.Trial] = {}

    def count(self, index: int, history: History, ended: Trained | None) -> None:
        """Note another epoch of a task, and its result after the last one.

        An earlier call may have done the first ones.
        """
        self.done[index] = len(history)
        if index not in self._trials:
            self._trials[index] = self._running(index) or self._begin(index)
        self._catch_up(self._trials[index], history)
        last, task = history[-1], self.tasks[index]
        self.report(
            EpochReport(
                task.name, task.start, len(history), self.material.settings.epochs,
                last["loss"], last["validation"], last["seconds"], sum(self.done), self.total,
            )
        )  # fmt: skip
        if ended is not None:
            self.results[index] = ended
            self.study.tell(self._trials[index], ended.validation)

    def skip(self, index: int) -> bool:
        """Keep a result that an earlier call wrote, if any; the study may not have it yet."""
        result = finished(self.tasks[index], self.material)
        if result is None:
            return False
        self.results[index], self.done[index] = result, len(result.history)
        if trial := self._running(index):
            self._catch_up(trial, result.history)
            self.study.tell(trial, result.validation)
        return True

    def _attributes(self, index: int) -> dict[str, Any]:
        task = self.tasks[index]
        return {
            "candidate": task.name,
            "start": task.start,
            "params": task.graph.parameter_count,
            "flops": task.graph.flops,
            "identity": identity(task, self.material),
        }

    def _running(self, index: int) -> optuna.trial.Trial | None:
        """The trial that an interrupted call left open."""
        attributes = self._attributes(index)
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs == attributes:
                return optuna.trial.Trial(self.study, trial._trial_id)
        return None

    def _begin(self, index: int) -> optuna.trial.Trial:
        trial = self.study.ask()
        for key, value in self._attributes(index).items():
            trial.set_user_attr(key, value)
        return trial

    def _catch_up(self, trial: optuna.trial.Trial, history: History) -> None:
        known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for epoch, item in enumerate(history, start=1):
            if epoch not in known:
                trial.report(item["validation"], epoch)
