"""Does the distance to a hypernetwork's training architectures tell which candidates lose accuracy?

    python benchmarks/trust_of_candidates.py

A candidate *loses* if its zero-shot accuracy is below half the mean of architectures that are drawn
as in the training. The definition of the distance was chosen on architectures of one seed, with the
spaces of `general.py`; what is reported of each space is of another seed.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from common import CPU, embedded, percent, write_table
from general import _batches, _spaces
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from ghnas.architectures.graph import Graph
from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.model import GHN
from ghnas.scoring.evaluation import Batch
from ghnas.scoring.scorer import Scorer
from ghnas.spaces import load_space
from ghnas.training.hypernetwork.distance import (
    DRAWN,
    NEIGHBOURS,
    Distance,
    embed,
    training_distances,
)
from ghnas.training.hypernetwork.meta_batches import Source, sample_graphs
from ghnas.training.hypernetwork.mixture import Mixture

TRAINED = "as in the training"
SPLITS = tuple(f"deepnets1m, {name}" for name in ("wide", "deep", "dense", "bnfree"))
Values = np.ndarray
Fit = Callable[[Values], Callable[[Values], Values]]


@dataclass(frozen=True)
class Sample:
    """Architectures of one space."""

    graphs: list[Graph]
    accuracies: Values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ghns", nargs="*", default=["general-embedded", "darts-embedded"])
    parser.add_argument("--count", type=int, default=80, help="architectures of each space")
    parser.add_argument("--chosen-on", type=int, default=30, help="the same for the choice")
    parser.add_argument("--images", type=int, default=256, help="validation images")
    options = parser.parse_args()
    batches, rows, notes = _batches(embedded(), options.images), [], []
    for name in options.ghns:
        ghn = load_ghn(name)
        source: Source = Mixture() if ghn.info.space == "general" else load_space(ghn.info.space)
        spaces: dict[str, Source] = {TRAINED: source, **dict(_spaces(("",)))}
        known = {
            seed: {label: _sample(ghn, s, label, seed, n, batches) for label, s in spaces.items()}
            for seed, n in (("development", options.chosen_on), ("fresh", options.count))
        }
        notes += [_comparison(name, ghn, source, known["development"])]
        rows += _rows(name, ghn, known["fresh"])
    write_table(
        "trust_of_candidates",
        "Does the distance to training architectures tell which candidates lose accuracy?",
        ("hypernetwork", "architectures", "zero-shot", "lose", "far", "distance", "AUROC"),
        rows,
        [
            f"{options.count} random architectures of each space, {options.images} validation "
            "images of digitscapes, batch statistics. lose: below half the mean zero-shot accuracy "
            "of architectures drawn as in the training; far: farther than 95 % of the "
            "training architectures are from each other; distance: median, in units of the usual "
            "one. AUROC: the distance against *lose*, with a 95 % bootstrap interval over "
            "architectures; 0.5 is chance, a dash where all or none lose.",
            "",
            "The definition of the distance was chosen on architectures of another seed, "
            f"{options.chosen_on} of each space, all spaces together:",
            *notes,
        ],
    )


def _sample(
    ghn: GHN, space: Source, label: str, seed: str, count: int, batches: list[Batch]
) -> Sample:
    data, rng = embedded(), random.Random(f"trust, {seed}: {label}")
    graphs = sample_graphs(space, data.image_shape, data.num_classes, count, rng)
    scores = Scorer(ghn, batches, CPU, workers=1).score(graphs)
    found = np.array([score.accuracy if score else 0.0 for score in scores])
    print(ghn.info.space, seed, label, percent(found.mean()), file=sys.stderr, flush=True)
    return Sample(graphs, found)


def _rows(name: str, ghn: GHN, samples: Mapping[str, Sample]) -> list[list[str]]:
    bar = samples[TRAINED].accuracies.mean() / 2
    found = {label: training_distances(ghn, item.graphs) for label, item in samples.items()}
    groups = {
        "training and splits of deepnets1m": (TRAINED, *SPLITS),
        "all": tuple(samples),
    }
    rows = [_row(name, label, [samples[label]], found[label], bar) for label in samples]
    for label, members in groups.items():
        distances = [distance for member in members for distance in found[member]]
        rows += [_row(name, f"**{label}**", [samples[m] for m in members], distances, bar)]
    return rows


def _row(
    name: str, label: str, samples: Sequence[Sample], distances: Sequence[Distance], bar: float
) -> list[str]:
    accuracies = np.concatenate([sample.accuracies for sample in samples])
    values = np.array([distance.value for distance in distances])
    return [
        name,
        label,
        percent(accuracies.mean()),
        percent((accuracies < bar).mean()),
        percent(np.mean([distance.far for distance in distances])),
        f"{np.median([distance.ratio for distance in distances]):.1f}",
        _auroc(accuracies < bar, values),
    ]


def _auroc(lost: Values, values: Values) -> str:
    if lost.all() or not lost.any():
        return "-"
    rng, drawn = np.random.default_rng(0), []
    while len(drawn) < 1000:
        index = rng.integers(len(lost), size=len(lost))
        if 0 < lost[index].mean() < 1:
            drawn.append(roc_auc_score(lost[index], values[index]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{roc_auc_score(lost, values):.2f} ({low:.2f} to {high:.2f})"


def _comparison(name: str, ghn: GHN, source: Source, samples: Mapping[str, Sample]) -> str:
    data, rng = embedded(), random.Random("training architectures, for the choice")
    known = embed(ghn, sample_graphs(source, data.image_shape, data.num_classes, DRAWN, rng))
    points = embed(ghn, [graph for sample in samples.values() for graph in sample.graphs])
    accuracies = np.concatenate([sample.accuracies for sample in samples.values()])
    lost = accuracies < samples[TRAINED].accuracies.mean() / 2
    found = [f"{way} {_auroc(lost, fit(known)(points))}" for way, fit in WAYS.items()]
    return f"{name}: {', '.join(found)}."


def _nearest(known: Values) -> Callable[[Values], Values]:
    scaler = StandardScaler().fit(known)
    tree = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(scaler.transform(known))
    return lambda points: tree.kneighbors(scaler.transform(points))[0].mean(axis=1)


def _mahalanobis(known: Values) -> Callable[[Values], Values]:
    return LedoitWolf().fit(known).mahalanobis


def _nearest_whitened(known: Values) -> Callable[[Values], Values]:
    factor = np.linalg.cholesky(LedoitWolf().fit(known).precision_)
    tree = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(known @ factor)
    return lambda points: tree.kneighbors(points @ factor)[0].mean(axis=1)


WAYS: dict[str, Fit] = {
    "nearest five in units of the standard deviation (taken)": _nearest,
    "Mahalanobis with a shrunk covariance": _mahalanobis,
    "nearest five after whitening by it": _nearest_whitened,
}

if __name__ == "__main__":
    main()
