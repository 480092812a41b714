"""Is the trust line right? What it claims, against candidates that it knows nothing of.

    ghnas search --data ./my_images --train 64
    python benchmarks/trust.py results/runs/<the run> --count 40

Trains further candidates of the run, drawn at random among those that were not trained, as the
others were, and correlates what is observed with what the predictor expected of them. What is
finished is kept in the run's folder.
"""

from __future__ import annotations

import argparse
import json
import random
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from common import interval, write_table

from ghnas.engine.run import Run, open_run
from ghnas.engine.stages.inputs import load_inputs, objective_of
from ghnas.engine.stages.training_jobs import train_all, training_job
from ghnas.engine.trainings import quality
from ghnas.engine.trials import Trial, rank_trials
from ghnas.utils.statistics import estimate_spearman


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=40)
    options = parser.parse_args()
    run = open_run(options.run)
    order, trained = run.order, run.short_trainings()
    if order is None:
        raise SystemExit(f"{run.name} has no trained candidates: start with --train 64")
    others = [item for item in rank_trials(run.study(), run.form) if item.number not in trained]
    chosen = random.Random(0).sample(others, options.count)
    observed = train(run, chosen)
    expected = np.array([order.expected[item.number] for item in chosen])
    found = estimate_spearman(expected, np.array([observed[item.number] for item in chosen]))
    held = order.agreement.low <= found.value <= order.agreement.high
    write_table(
        "trust",
        f"The trust line of {run.manifest.space} on {run.manifest.objective['data']}",
        ("what", "Spearman"),
        [
            (f"the line says, of {order.trained} trained", interval(order.agreement, 1)),
            (f"{len(chosen)} further ones", interval(found, 1)),
            ("within the interval", "yes" if held else "no"),
        ],
        [
            f"Candidates: {run.manifest.budget:,}; short trainings of "
            f"{run.manifest.short_list.epochs[0] if run.manifest.short_list else 1} epoch; the "
            "further ones drawn at random among those that were not trained, seed 0."
        ],
    )


def train(run: Run, chosen: list[Trial]) -> dict[int, float]:
    """The outcome of each candidate, trained as the run trained the others."""
    path = run.path / "trust.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    known = {item["trial"]: item["outcome"] for item in map(json.loads, lines)}
    ghn, data = load_inputs(run)
    objective = objective_of(run, ghn, data, torch.device("cpu"))
    way = run.study_beside("short-list", "short_training", "maximize").user_attrs
    job = training_job(run, objective, way["steps"], way["skeleton"].get("cells"), way["start"])
    space = job.space.for_images(run.manifest.image_shape, len(run.manifest.classes))
    left = {
        item.number: space.architecture(item.architecture.choices).graph
        for item in chosen
        if item.number not in known
    }
    with closing(train_all(left, job)) as results, path.open("a") as file:
        for number, training, _ in results:
            known[number] = quality(training)
            file.write(json.dumps({"trial": number, "outcome": known[number]}) + "\n")
            file.flush()
    return known


if __name__ == "__main__":
    main()
