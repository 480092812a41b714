"""Ways to score an architecture, by name, and the processes that compute them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import kaiming
from ghnas.data import ImageData
from ghnas.executors.base import Executor, Parameters
from ghnas.executors.fused import FusedExecutor, compile_gradients
from ghnas.ghn.model import GHN
from ghnas.scoring.composite import Reference, measure, reference_candidates
from ghnas.scoring.evaluation import Batch, Components, Score, evaluate
from ghnas.scoring.proxies import PROXIES, VOTERS, reaches_output, score_graph
from ghnas.scoring.proxies.table import LOWEST
from ghnas.spaces import Space
from ghnas.training.short import train_briefly
from ghnas.utils.errors import UserError
from ghnas.utils.processes import Workers
from ghnas.utils.tables import RowFile

COLUMNS = ("architecture", "method", "weights", "score", "seconds")
"""Of a file of scores; higher is better, seconds of one processor core."""

GHN_METHODS = ("ghn-accuracy", "ghn-loss", "ghn-naswot")
COMPOSITE = "composite"
COMPONENT_METHODS = {"fit": "ghn-loss", "separability": "ghn-naswot", "size": "ghn-size"}
"""The base method of each of `ghnas.scoring.composite.Components`."""
DERIVED = {"vote": VOTERS, COMPOSITE: tuple(COMPONENT_METHODS.values())}
"""Methods that follow from others' scores, and which."""
ENSEMBLE = "ensemble"
SHORT = re.compile(r"(ghn-)?(steps|tse)-([1-9][0-9]{0,3})")
"""A short training: from which weights, what is looked at, and for how many steps."""
DEFAULT = ("ghn-accuracy", "ghn-loss", COMPOSITE, *PROXIES, "vote", ENSEMBLE)

CHUNK = 4
"""Architectures whose weights are predicted together."""


@dataclass(frozen=True)
class ScoreJob:
    """What to score.

    Args:
        space: With the skeleton that weights are predicted for.
        proxy_space: With the skeleton that the proxies see.
        data: Training and validation images.
        architectures: In the space's notation.
        methods: What `base_methods` returned.
        ghn: The hypernetwork, if a method needs one.
        ghn_name: What its scores are of: hypernetwork, skeleton, images.
        checks: Validation batches for predicted weights.
        batch: Training images and labels for the proxies.
        steps: Training batches for short trainings, as many as the longest has steps.
        seed: Of the proxies' initialisation.
        output: The CSV file of scores.
        workers: Processes, one torch thread each.
    """

    space: Space
    proxy_space: Space
    data: ImageData
    architectures: Sequence[str]
    methods: Sequence[str]
    ghn: GHN | None
    ghn_name: str
    checks: Sequence[Batch]
    batch: Batch
    steps: Sequence[Batch]
    seed: int
    output: Path
    workers: int


@dataclass(frozen=True)
class Scored:
    """A score and the seconds that it took on one core."""

    score: float
    seconds: float


def check_methods(names: Sequence[str]) -> None:
    """Make sure that all names are of methods.

    Raises:
        UserError: If there is none; naming the one that is not, and all that there are.
    """
    known = [*GHN_METHODS, *PROXIES, *DERIVED, ENSEMBLE]
    if not names:
        raise UserError(f"no method is named: use {', '.join(known)}")
    for name in names:
        if name not in known and not SHORT.fullmatch(name):
            raise UserError(
                f"unknown method {name!r}: use {', '.join(known)}, or steps-K, tse-K, "
                "ghn-steps-K, ghn-tse-K for K SGD steps"
            )


def steps_of(method: str) -> int:
    """SGD steps that a method takes."""
    match = SHORT.fullmatch(method)
    return int(match[3]) if match else 0


def base_methods(names: Sequence[str]) -> list[str]:
    """What must be computed for the methods named: themselves, or what they follow from."""
    result: dict[str, None] = {}
    for name in names:
        result |= dict.fromkeys(DERIVED.get(name, () if name == ENSEMBLE else (name,)))
    return list(result)


def needs_ghn(method: str) -> bool:
    """Whether a method predicts weights."""
    return method.startswith("ghn-") or method == COMPOSITE


def score_all(
    job: ScoreJob, settings: dict[str, Any], report: Callable[[int, int], None]
) -> dict[str, dict[str, Scored]]:
    """Compute what the file of scores does not have yet; rows are written as they are finished.

    Args:
        job: What to score.
        settings: What rows in one file must agree in.
        report: Called with the architectures done and their number.

    Returns:
        For each method the scores by architecture.

    Raises:
        UserError: If the file was made with other settings, or a process was ended from outside.
    """
    with RowFile(job.output, COLUMNS, settings) as file:
        missing = _missing(job, file)
        done, total = len(job.architectures) - len(missing), len(job.architectures)
        report(done, total)
        tasks = list(_chunks(missing))
        if any(map(needs_ghn, job.methods)):
            compile_gradients()  # once, before the processes start
        count = min(job.workers, len(tasks))
        with Workers(count, partial, _score_chunk, job, FusedExecutor(), gradients=True) as workers:
            for rows in workers.as_completed(tasks):
                file.append(rows)
                done += len({row["architecture"] for row in rows})
                report(done, total)
        return _by_method(job, file)


def _missing(job: ScoreJob, file: RowFile) -> list[tuple[str, tuple[str, ...]]]:
    """Architectures with the methods that the file has no score of."""
    known = {(row["architecture"], row["method"], row["weights"]) for row in file.rows}
    return [
        (name, lacking)
        for name in job.architectures
        if (lacking := tuple(m for m in job.methods if (name, m, weights(job, m)) not in known))
    ]


def weights(job: ScoreJob, method: str) -> str:
    """Which weights a method's scores are of."""
    return job.ghn_name if needs_ghn(method) else f"Kaiming, seed {job.seed}"


def _by_method(job: ScoreJob, file: RowFile) -> dict[str, dict[str, Scored]]:
    result: dict[str, dict[str, Scored]] = {method: {} for method in job.methods}
    for row in file.rows:
        method = row["method"]
        if method in result and row["weights"] == weights(job, method):
            scored = Scored(float(row["score"]), float(row["seconds"]))
            result[method][row["architecture"]] = scored
    return result


def _chunks(
    missing: Sequence[tuple[str, tuple[str, ...]]],
) -> Iterator[tuple[list[str], tuple[str, ...]]]:
    """Neighbours that lack the same methods, up to CHUNK together."""
    chunk: list[str] = []
    for index, (name, methods) in enumerate(missing):
        chunk.append(name)
        last = index + 1 == len(missing) or missing[index + 1][1] != methods
        if last or len(chunk) == CHUNK:
            yield chunk, methods
            chunk = []


def _score_chunk(
    job: ScoreJob, executor: Executor, names: Sequence[str], methods: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each architecture and method."""
    predicting = [method for method in methods if needs_ghn(method)]
    graphs = _graphs(job, job.space, names)
    scores = _with_predicted(job, executor, graphs, predicting)
    for method in methods:
        if method in PROXIES:
            proxy_graphs = _graphs(job, job.proxy_space, names)
            scores[method] = [_with_proxy(job, method, graph) for graph in proxy_graphs]
    own = [method for method in methods if steps_of(method) and not needs_ghn(method)]
    if own:
        initial = [kaiming(g, torch.Generator().manual_seed(job.seed)) for g in graphs]
        trained = [_trained(job, own, g, w, 0.0) for g, w in zip(graphs, initial, strict=True)]
        scores |= {method: [of[method] for of in trained] for method in own}
    return [
        {
            "architecture": name,
            "method": method,
            "weights": weights(job, method),
            "score": repr(scores[method][index].score),
            "seconds": f"{scores[method][index].seconds:.4f}",
        }
        for index, name in enumerate(names)
        for method in methods
    ]


def _graphs(job: ScoreJob, space: Space, names: Sequence[str]) -> list[Graph]:
    shape, classes = job.data.image_shape, job.data.num_classes
    return [space.parse(name).for_images(shape, classes).graph for name in names]


def _with_proxy(job: ScoreJob, method: str, graph: Graph) -> Scored:
    began = time.process_time()
    score = score_graph(PROXIES[method], graph, *job.batch, job.seed)
    return Scored(score, time.process_time() - began)


def _with_predicted(
    job: ScoreJob, executor: Executor, graphs: Sequence[Graph], methods: Sequence[str]
) -> dict[str, list[Scored]]:
    if not methods:
        return {}
    assert job.ghn is not None
    began = time.process_time()
    predicted = job.ghn.predict_graphs(graphs)
    shared = (time.process_time() - began) / len(graphs)
    result: dict[str, list[Scored]] = {method: [] for method in methods}
    for graph, parameters in zip(graphs, predicted, strict=True):
        scores = _at_once(job, executor, graph, parameters, methods, shared)
        scores |= _trained(job, [m for m in methods if steps_of(m)], graph, parameters, shared)
        for method in methods:
            result[method].append(scores[method])
    return result


@torch.no_grad()
def _at_once(
    job: ScoreJob,
    executor: Executor,
    graph: Graph,
    parameters: Parameters,
    methods: Sequence[str],
    shared: float,
) -> dict[str, Scored]:
    """What predicted weights tell without a gradient step."""
    began = time.process_time()
    score = evaluate(executor, [graph], [parameters], job.checks)[0]
    evaluated = shared + time.process_time() - began
    if not reaches_output(graph):
        score = Score(LOWEST, -LOWEST)
    result = {
        "ghn-accuracy": Scored(score.accuracy, evaluated),
        "ghn-loss": Scored(-score.loss, evaluated),
    }
    if {"ghn-naswot", "ghn-size"} & set(methods):
        began = time.process_time()
        components = measure(graph, parameters, job.checks[0], score)
        gathered = evaluated + time.process_time() - began
        result["ghn-naswot"] = Scored(components.separability, gathered)
        result["ghn-size"] = Scored(components.size, gathered)
    return result


def _trained(
    job: ScoreJob, methods: Sequence[str], graph: Graph, parameters: Parameters, shared: float
) -> dict[str, Scored]:
    """Short trainings, one for all methods of as many steps: the accuracy after it, and minus the
    mean loss of its second half."""
    if not reaches_output(graph):
        return dict.fromkeys(methods, Scored(LOWEST, shared))
    result = {}
    for steps in dict.fromkeys(map(steps_of, methods)):
        alike = [method for method in methods if steps_of(method) == steps]
        began = time.process_time()
        checks = job.checks if any("steps" in method for method in alike) else job.checks[:1]
        trained = train_briefly(graph, parameters, job.steps[:steps], checks)
        seconds = shared + time.process_time() - began
        for method in alike:
            score = trained.score.accuracy if "steps" in method else -trained.summed_loss()
            result[method] = Scored(score, seconds)
    return result


def reference_architectures(space: Space) -> list[str]:
    """Those of `ghnas.scoring.composite.reference_candidates`, in the space's notation."""
    return [str(candidate) for candidate in reference_candidates(space)]


def composite_scores(
    scored: Mapping[str, Mapping[str, Scored]],
    reference: Mapping[str, Mapping[str, Scored]],
    names: Sequence[str],
) -> dict[str, Scored]:
    """The composite score of every architecture, see `ghnas.scoring.composite`.

    Its seconds are those of its most costly component, which makes the others too.

    Args:
        scored: For each of `COMPONENT_METHODS` a score for each architecture.
        reference: The same for the reference architectures.
        names: The reference architectures.
    """

    def components(of: Mapping[str, Mapping[str, Scored]], name: str) -> Components:
        return Components(**{key: of[m][name].score for key, m in COMPONENT_METHODS.items()})

    scales = Reference.of([components(reference, name) for name in names])
    return {
        name: Scored(
            scales.score(components(scored, name)),
            max(scored[method][name].seconds for method in COMPONENT_METHODS.values()),
        )
        for name in scored["ghn-loss"]
    }
