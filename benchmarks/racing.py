"""What racing saves and what it loses: the same candidates scored on everything, then raced."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import percent, write_table

from ghnas.data import evaluation_batches, load_data
from ghnas.engine.samplers import BATCH
from ghnas.ghn.checkpoint import find_ghn, load_ghn
from ghnas.scoring.evaluation import SCORE_BATCH, Score
from ghnas.scoring.racing import KEEP, WARM_UP, Race, Stage, bar_of, fit_stages
from ghnas.scoring.scorer import Scorer
from ghnas.spaces import load_space

MARGINS = (1.28, 1.64, 2.0, 2.33, 3.0)


@dataclass(frozen=True)
class Outcome:
    """Of a race.

    Args:
        images: Mean number of images of a candidate.
        complete: Numbers of the candidates that were scored on everything.
    """

    images: float
    complete: list[int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="darts")
    parser.add_argument("--data", default="embedded")
    parser.add_argument("--ghn", type=Path, default=None)
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data, space = load_data(options.data), load_space(options.space)
    ghn = load_ghn(options.ghn or find_ghn(space.name, data.name, ""))
    info = ghn.info
    order = evaluation_batches(
        data.validation, SCORE_BATCH, device="cpu", mean=info.mean, std=info.std
    )
    count = -(-options.images // SCORE_BATCH)
    rng = random.Random(options.seed)
    graphs = [
        space.sample(rng).for_images(data.image_shape, data.num_classes).graph
        for _ in range(options.budget)
    ]
    scores = _scores(Scorer(ghn, order[:count], torch.device("cpu")), graphs)
    truth = np.array([score.accuracy for score in scores])
    true_top = np.argsort(-truth, kind="stable")[:KEEP].tolist()
    best = set(true_top)
    chosen = {None: (Outcome(float(count * SCORE_BATCH), list(range(len(graphs)))), best)}
    for margin in MARGINS:
        outcome = race(scores, margin)
        ranked = sorted(outcome.complete, key=lambda i: (-truth[i], i))
        chosen[margin] = (outcome, set(ranked[:KEEP]))  # type: ignore[index]
    wanted = sorted(set().union(*(found for _, found in chosen.values())))
    others = _scores(
        Scorer(ghn, order[count : 2 * count], torch.device("cpu")), [graphs[i] for i in wanted]
    )
    elsewhere = {i: score.accuracy for i, score in zip(wanted, others, strict=True)}
    rows = []
    for name, (outcome, found) in chosen.items():
        top = sorted(found, key=lambda i: (-truth[i], i))
        rows.append(
            (
                "none: all images" if name is None else f"{name:.2f}",
                f"{outcome.images:.0f}",
                percent(len(outcome.complete) / len(graphs)),
                percent(len(found & best) / len(best)),
                percent(len(set(top[:10]) & set(true_top[:10])) / 10),
                percent(truth[top[0]]),
                percent(float(np.mean([elsewhere[i] for i in top[:5]]))),
                percent(float(np.mean([elsewhere[i] for i in top]))),
            )
        )
    write_table(
        "racing",
        "Racing: fewer images for most candidates",
        (
            "margin (std)",
            "images a candidate",
            "scored on all",
            f"of the true top {KEEP}",
            "of the true top 10",
            "best found",
            "top 5 on other images",
            f"top {KEEP} on other images",
        ),
        rows,
        [
            f"{len(graphs):,} random architectures of {space.name}, seed {options.seed}, "
            f"{options.images} validation images of {data.name} in batches of {SCORE_BATCH}; "
            f"true top {KEEP}: on all of them. Other images: as many validation images that no "
            "candidate was scored on; there the order of so close a field is mostly chance.",
        ],
    )


def _scores(scorer: Scorer, graphs: Sequence[object]) -> list[Score]:
    found: list[Score] = []
    for start in range(0, len(graphs), BATCH):
        for score in scorer.score(graphs[start : start + BATCH]):  # type: ignore[arg-type]
            assert score is not None
            found.append(score)
    return found


def race(scores: Sequence[Score], margin: float) -> Outcome:
    """What a search would have done that scored these candidates in this order."""
    stages: tuple[Stage, ...] = ()
    complete: list[int] = []
    images = 0
    for start in range(0, len(scores), BATCH):
        done = max(start - BATCH, 0)  # the batch before is still being scored
        if not stages and done >= WARM_UP:
            teachers = scores[:WARM_UP]
            stages = fit_stages([s.early for s in teachers], [s.accuracy for s in teachers], margin)
        bar = bar_of([scores[i].accuracy for i in complete if i < done], KEEP, done / len(scores))
        rule = Race(stages, bar)
        for i in range(start, min(start + BATCH, len(scores))):
            seen = [
                number
                for number, (accuracy, loss) in enumerate(scores[i].early, start=1)
                if stages and rule.verdict(number, accuracy, loss) is not None
            ]
            if seen:
                images += seen[0] * SCORE_BATCH
            else:
                images += scores[i].images
                complete.append(i)
    return Outcome(images / len(scores), complete)


if __name__ == "__main__":
    main()
