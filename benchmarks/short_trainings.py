"""What a search finds: fine-tuned networks that its orders choose, beside random ones.

    ghnas search --space darts --budget 10000 --train 40 --train-epochs 2 --train-from kaiming
    python benchmarks/short_trainings.py results/runs/<the run>

Fine-tunes, as `ghnas finetune` does, the best by the zero-shot score, the best by the short
trainings, and the first candidates, which are random; what is finished is not trained again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import interval, write_table
from scipy.stats import ttest_ind

from ghnas.engine.run import Run, open_run
from ghnas.engine.stages.finetuning import FinetuneSettings, finetune
from ghnas.engine.trials import Trial, rank_trials
from ghnas.utils.statistics import Values, estimate_spearman


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--best", type=int, default=5)
    parser.add_argument("--random", type=int, default=9)
    options = parser.parse_args()
    run = open_run(options.run)
    groups = chosen(run, options.best, options.random)
    wanted = {item.number: item for members in groups.values() for item in members}
    settings = FinetuneSettings()
    found = finetune(run, list(wanted.values()), settings, torch.device("cpu"), lambda _: None)
    tests = {item.trial.number: 100 * (item.trained.test or 0.0) for item in found}
    values = {
        name: np.array([tests[item.number] for item in members]) for name, members in groups.items()
    }
    whole = list(wanted.values())
    zero_shot = np.array([item.accuracy or 0.0 for item in whole])
    agreement = estimate_spearman(zero_shot, np.array([tests[item.number] for item in whole]))
    write_table(
        "short_trainings",
        f"{run.manifest.space} on {run.manifest.objective['data']}: test accuracy after "
        f"{settings.epochs} epochs from predicted weights",
        ("chosen by", "networks", "mean", "deviation", "against random, p"),
        [(name, *summary(own, values["random"])) for name, own in values.items()],
        [
            f"One search of {run.manifest.budget:,} candidates; {len(run.short_trainings())} of "
            "them had a short training. p: Welch's t-test. Spearman of zero-shot accuracy with "
            f"test accuracy, over all {len(whole)} networks: {interval(agreement, 1)}."
        ],
    )


def chosen(run: Run, best: int, count: int) -> dict[str, list[Trial]]:
    """The networks of each group."""
    scored = rank_trials(run.study(), run.form)
    first = sorted(scored, key=lambda item: item.number)[:count]
    return {
        "zero-shot accuracy": scored[:best],
        "short training": run.ranked(best),
        "random": first,
    }


def summary(own: Values, random: Values) -> tuple[str, ...]:
    """Number, mean, deviation and p."""
    p = "" if own is random else f"{ttest_ind(own, random, equal_var=False).pvalue:.4f}"
    return str(len(own)), f"{own.mean():.2f} %", f"{own.std(ddof=1):.2f}", p


if __name__ == "__main__":
    main()
