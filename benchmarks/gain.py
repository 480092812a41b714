"""Is what a search finds better than what random search finds in the same time?

    ghnas search --space darts --budget 10000 --seed 5
    python benchmarks/gain.py results/runs/<the run> --pools 20

The candidates of one random search, in the order of asking, are cut into pools; each pool is a
search of its own, and its first candidates are a random search. Of each pool the best by the
zero-shot score is fine-tuned, as `ghnas finetune` does, and a random candidate; then, with
`--short 4`, the best four have a short training, and the best of them by its loss is fine-tuned,
beside the better of two random candidates by validation accuracy. What is finished is kept in the
run's folder, so that the command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from common import write_table
from scipy.stats import bootstrap

from ghnas.engine.run import Run, open_run
from ghnas.engine.stages.finetuning import FinetuneSettings, finetune
from ghnas.engine.stages.inputs import load_inputs, objective_of
from ghnas.engine.stages.short_list import short_list_job, steps_of_epoch, train_all
from ghnas.engine.trials import Trial, rank_trials

SCORING = 0.023
"""Core-seconds of a zero-shot score: 230 for 10,000 candidates."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pools", type=int, default=20)
    parser.add_argument("--short", type=int, default=0)
    options = parser.parse_args()
    run = open_run(options.run)
    pools = cut(run, options.pools)
    firsts = [pool[0] for pool in pools]
    tops = [best(pool, 1)[0] for pool in pools]
    found = tuned(run, [item for pair in zip(tops, firsts, strict=True) for item in pair])
    scoring = SCORING * len(pools[0])
    rows = [compare("best by zero-shot accuracy", "a random one", tops, firsts, found, scoring, 1)]
    if options.short:
        shown = [best(pool, options.short) for pool in pools]
        short = short_trainings(run, [item for pool in shown for item in pool])
        tops = [min(pool, key=lambda item: short[item.number]["loss"]) for pool in shown]
        seconds = [pool[1] for pool in pools]
        found |= tuned(run, [item for pair in zip(tops, seconds, strict=True) for item in pair])
        pairs = [max(pool[:2], key=lambda item: found[item.number]["validation"]) for pool in pools]
        name = f"best of {options.short} by short training"
        cost = scoring + options.short * float(
            np.mean([item["seconds"] for item in short.values()])
        )
        rows.append(compare(name, "the better of two random ones", tops, pairs, found, cost, 2))
    write_table(
        "gain",
        f"{run.manifest.space} on {run.manifest.objective['data']}: the best of a search against "
        "random search",
        (
            "the search's choice", "test accuracy", "core-s", "random search's", "test accuracy",
            "core-s", "gain, points", "better in",
        ),
        rows,
        [
            f"{len(pools)} searches of {len(pools[0]):,} candidates each (disjoint parts of one "
            "random search), fine-tuned for 5 epochs from predicted weights. Mean and standard "
            "deviation over searches; gain with its bootstrap 95 % interval over searches. "
            f"Core-seconds: {SCORING} for each zero-shot score, and those of the trainings."
        ],
    )  # fmt: skip


def compare(
    choice: str,
    other: str,
    tops: Sequence[Trial],
    randoms: Sequence[Trial],
    found: Mapping[int, Mapping[str, float]],
    cost: float,
    trained: int,
) -> tuple[str, ...]:
    """A row: both choices' test accuracy and cost, and the paired difference.

    Args:
        choice, other: What they are called.
        tops, randoms: Of each search.
        found: Of `tuned`.
        cost: Core-seconds of a search before the fine-tuning of its choice.
        trained: Networks that random search trains.
    """
    first, second = (
        np.array([100 * found[item.number]["test"] for item in side]) for side in (tops, randoms)
    )
    gains = first - second
    interval = bootstrap((gains,), np.mean, rng=0).confidence_interval
    seconds = float(np.mean([item["seconds"] for item in found.values()]))
    return (
        choice,
        f"{first.mean():.2f} % (sd {first.std(ddof=1):.2f})",
        f"{cost + seconds:.0f}",
        other,
        f"{second.mean():.2f} % (sd {second.std(ddof=1):.2f})",
        f"{trained * seconds:.0f}",
        f"{gains.mean():+.2f} ({interval.low:+.2f} to {interval.high:+.2f})",
        f"{int((gains > 0).sum())} of {len(gains)}",
    )


def cut(run: Run, count: int) -> list[list[Trial]]:
    """Distinct scored candidates in the order of asking, in equal parts."""
    trials = sorted(rank_trials(run.study(), run.form), key=lambda item: item.number)
    size = len(trials) // count
    return [trials[at * size : (at + 1) * size] for at in range(count)]


def best(pool: Sequence[Trial], count: int) -> list[Trial]:
    """The best by zero-shot accuracy."""
    return sorted(pool, key=lambda item: -(item.accuracy or 0.0))[:count]


def tuned(run: Run, trials: Sequence[Trial]) -> dict[int, dict[str, float]]:
    """Validation and test accuracy after fine-tuning, by number."""
    different = list({item.number: item for item in trials}.values())
    results = finetune(run, different, FinetuneSettings(), torch.device("cpu"), lambda _: None)
    return {
        item.trial.number: {
            "validation": item.trained.validation,
            "test": item.trained.test or 0.0,
            "seconds": item.trained.seconds,
        }
        for item in results
    }


def short_trainings(run: Run, trials: Sequence[Trial]) -> dict[int, dict[str, float]]:
    """Loss and seconds of a short training of each, one epoch from predicted weights."""
    path = run.path / "gain.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    known = {item["trial"]: item for item in map(json.loads, lines)}
    ghn, data = load_inputs(run)
    objective = objective_of(run, ghn, data, torch.device("cpu"))
    job = short_list_job(run, objective, steps_of_epoch(objective.data))
    left = {item.number: item.architecture.graph for item in trials if item.number not in known}
    with closing(train_all(left, job)) as results, path.open("a") as file:
        for number, training, seconds in results:
            known[number] = {"trial": number, "loss": training.summed_loss(), "seconds": seconds}
            file.write(json.dumps(known[number]) + "\n")
            file.flush()
    return known


if __name__ == "__main__":
    main()
