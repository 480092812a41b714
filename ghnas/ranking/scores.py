"""The scores of architectures by every method, computed by several processes and kept in a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import kaiming
from ghnas.executors.base import Executor, Parameters
from ghnas.executors.fused import FusedExecutor, compile_gradients
from ghnas.ranking.methods import (
    COMPONENT_METHODS,
    COMPOSITE,
    DERIVED,
    PREDICTED,
    Scored,
    ScoreJob,
    base_methods,
    needs_ghn,
    steps_of,
)
from ghnas.scoring.composite import Reference, measure, reference_candidates
from ghnas.scoring.evaluation import Components, Score, evaluate
from ghnas.scoring.proxies import PROXIES, reaches_output, score_graph
from ghnas.scoring.proxies.table import LOWEST
from ghnas.spaces import Space
from ghnas.training.short import train_briefly
from ghnas.utils.tables import RowFile

COLUMNS = ("architecture", "method", "weights", "score", "seconds")
"""Of a file of scores; higher is better, seconds of one processor core."""
CHUNK = 4
"""Architectures whose weights are predicted together."""


def score_all(job: ScoreJob, report: Callable[[int, int], None]) -> dict[str, dict[str, Scored]]:
    """Compute what the file of scores does not have yet; rows are written as they are finished.

    Args:
        job: What to score.
        report: Called with the architectures done and their number.

    Returns:
        For each of `base_methods(job.methods)`, and for the composite score, the scores by
        architecture.

    Raises:
        UserError: If the file was made with other settings, or a process was ended from outside.
    """
    methods = tuple(base_methods(job.methods))
    if PREDICTED in methods:
        _ = job.predictor  # refused before anything is computed
    wanted = dict.fromkeys(job.architectures, methods)
    reference = []
    if COMPOSITE in job.methods:
        reference = [str(candidate) for candidate in reference_candidates(job.space)]
    for name in reference:
        wanted.setdefault(name, DERIVED[COMPOSITE])
    with RowFile(job.output, COLUMNS, job.settings()) as file:
        known = {(row["architecture"], row["method"], row["weights"]) for row in file.rows}
        missing = [
            (name, lacking)
            for name, needed in wanted.items()
            if (lacking := tuple(m for m in needed if (name, m, job.weights(m)) not in known))
        ]
        done = len(wanted) - len(missing)
        report(done, len(wanted))
        tasks = list(_chunks(missing))
        if tasks and any(map(steps_of, methods)):
            compile_gradients()  # once, before the processes start
        with job.pool.start(
            partial, _score_chunk, job, FusedExecutor(), tasks=len(tasks), gradients=True
        ) as workers:
            for rows in workers.as_completed(tasks):
                file.append(rows)
                done += len({row["architecture"] for row in rows})
                report(done, len(wanted))
    scores: dict[str, dict[str, Scored]] = {method: {} for method in methods}
    for row in file.rows:
        if (method := row["method"]) in scores and row["weights"] == job.weights(method):
            scored = Scored(float(row["score"]), float(row["seconds"]))
            scores[method][row["architecture"]] = scored
    return scores | ({COMPOSITE: _composite_scores(job, scores, reference)} if reference else {})


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
    if PREDICTED in methods:
        scores[PREDICTED] = _with_predictor(job, names)
    own = [method for method in methods if steps_of(method) and not needs_ghn(method)]
    if own:
        initial = [kaiming(g, torch.Generator().manual_seed(job.seed)) for g in graphs]
        trained = [_trained(job, own, g, w, 0.0) for g, w in zip(graphs, initial, strict=True)]
        scores |= {method: [of[method] for of in trained] for method in own}
    return [
        {
            "architecture": name,
            "method": method,
            "weights": job.weights(method),
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


def _with_predictor(job: ScoreJob, names: Sequence[str]) -> list[Scored]:
    began = time.process_time()
    expected = job.predictor.predict([job.space.parse(name) for name in names]).mean
    seconds = (time.process_time() - began) / len(names)
    return [Scored(float(value), seconds) for value in expected]


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
        (components,) = measure(executor, [graph], [parameters], job.checks[0], [score])
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


def _composite_scores(
    job: ScoreJob, scores: Mapping[str, Mapping[str, Scored]], reference: Sequence[str]
) -> dict[str, Scored]:
    """The composite score of every architecture, see `ghnas.scoring.composite`.

    Its seconds are those of its most costly component, which makes the others too.
    """

    def components(name: str) -> Components:
        return Components(**{key: scores[m][name].score for key, m in COMPONENT_METHODS.items()})

    scales = Reference.of([components(name) for name in reference], job.space.composite)
    return {
        name: Scored(
            scales.score(components(name)),
            max(scores[method][name].seconds for method in DERIVED[COMPOSITE]),
        )
        for name in job.architectures
    }
