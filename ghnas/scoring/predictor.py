"""A predictor of accuracy from graph features, fitted on a few trained architectures.

Extremely randomised trees (Geurts, Ernst and Wehenkel, 2006) and a Gaussian process, together, on
`ghnas.spaces.features`, after GRAF (Kadlecova et al., ICML 2024), and on whatever scores are given
beside them; labels are ranks. How they were chosen and what they reach: `results/predictor.md`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from ghnas.architectures.architecture import Architecture
from ghnas.ghn.checkpoint import FOLDER
from ghnas.spaces import Space
from ghnas.spaces.features import feature_names, graph_features
from ghnas.utils.errors import UserError
from ghnas.utils.files import read_json, write_atomically
from ghnas.utils.statistics import Estimate, Values, estimate_spearman

FORMAT = 1
LEAST = 4
"""Fewest labels that a predictor is fitted on."""
MOST = 512
"""Most labels of the Gaussian process, drawn at random; its time grows with their cube."""
TREES, SHARE = 100, 0.15
"""How many trees, and the share of the features that a split chooses from."""


class Prediction(NamedTuple):
    """What is expected of architectures, as normal scores of ranks among the labels: 0 is the
    median label, 1 better than 84 % of them.

    Args:
        mean: (N,).
        deviation: Standard deviation of what is expected (N,).
    """

    mean: Values
    deviation: Values


@dataclass(frozen=True)
class Regression:
    """Trees and a Gaussian process on rows of numbers; `Predictor` makes the rows.

    The mean is that of both; the variance the mean of both plus that between them (trees: variance
    over the trees).

    Args:
        rows: (labels, features); what is not finite is far below what is.
        labels: Higher is better (labels,).
        seed: Of the trees.

    Raises:
        ValueError: If there are fewer than `LEAST` labels.
    """

    rows: Values
    labels: Values
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.labels) < LEAST:
            raise ValueError(f"{len(self.labels)} labels are too few to fit on")

    @cached_property
    def _bounds(self) -> tuple[Values, Values]:
        """Of each feature: twice the range that it has, around its middle."""
        finite = np.where(np.isfinite(self.rows), self.rows, np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a column without a finite value
            low, high = np.nanmin(finite, axis=0), np.nanmax(finite, axis=0)
        low, high = np.nan_to_num(low), np.nan_to_num(high)
        return low - (high - low) / 2, high + (high - low) / 2

    def _clipped(self, rows: Values) -> Values:
        return np.clip(
            np.nan_to_num(rows, nan=-np.inf, posinf=np.inf, neginf=-np.inf), *self._bounds
        )

    @cached_property
    def _models(self) -> tuple[ExtraTreesRegressor, Pipeline]:
        with threadpool_limits(1):  # sums do not depend on the number of cores
            return self._fit()

    def _fit(self) -> tuple[ExtraTreesRegressor, Pipeline]:
        rows, count = self._clipped(self.rows), len(self.labels)
        scores = norm.ppf((rankdata(self.labels) - 0.5) / count)
        trees = ExtraTreesRegressor(TREES, max_features=SHARE, random_state=self.seed)
        kernel = ConstantKernel() * Matern(12, (1, 1000), nu=1.5) + WhiteKernel(0.3)
        process = make_pipeline(StandardScaler(), GaussianProcessRegressor(kernel))
        some = np.random.default_rng(self.seed).permutation(count)[:MOST]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound is fine
            process.fit(rows[some], scores[some])
        return trees.fit(rows, scores), process

    def predict(self, rows: Values) -> Prediction:
        """What is expected of rows (N, features).

        Raises:
            ValueError: If there are more or fewer features than it was fitted on.
        """
        if rows.shape[1] != self.rows.shape[1]:
            raise ValueError(f"{rows.shape[1]} features, fitted on {self.rows.shape[1]}")
        clipped, (trees, process) = self._clipped(rows), self._models
        by_tree = np.stack([tree.predict(clipped) for tree in trees.estimators_])
        with threadpool_limits(1):
            mean, deviation = process.predict(clipped, return_std=True)
        means = np.stack([by_tree.mean(axis=0), mean])
        variance = (by_tree.var(axis=0) + deviation**2) / 2 + means.var(axis=0)
        return Prediction(means.mean(axis=0), np.sqrt(variance))

    def out_of_fold(self, folds: int = 10) -> Values:
        """A prediction of each label by a regression that was fitted without it (labels,)."""
        result = np.empty(len(self.labels))
        parts = KFold(min(folds, len(self.labels)), shuffle=True, random_state=self.seed)
        for others, part in parts.split(self.rows):
            fitted = Regression(self.rows[others], self.labels[others], self.seed)
            result[part] = fitted.predict(self.rows[part]).mean
        return result


@dataclass(frozen=True)
class Predictor:
    """Predicts how architectures of a space compare, from some whose accuracy is known.

    Args:
        space: The search space.
        architectures: Those that are known.
        accuracies: Theirs, in any unit; higher is better.
        scores: Further features of each, such as zero-shot scores (architectures, any number).
        seed: Of the regression; equal arguments give equal predictions.

    Raises:
        UserError: If there are fewer than `LEAST` architectures, or an accuracy is missing or is
            no finite number.

    Example:
        >>> import ghnas
        >>> space = ghnas.load_space("nasbench201")
        >>> known = [space.sample(seed) for seed in range(20)]
        >>> predictor = Predictor(space, known, [item.parameters for item in known])
        >>> others = [space.sample(seed) for seed in range(100, 120)]
        >>> best = others[predictor.predict(others).mean.argmax()]
        >>> predictor.agreement().value > 0.5
        True
    """

    space: Space
    architectures: Sequence[Architecture]
    accuracies: Sequence[float]
    scores: Values | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.architectures) < LEAST:
            raise UserError(
                f"{len(self.architectures)} trained architectures are too few for a predictor: "
                f"it takes {LEAST}"
            )
        for name, values in (("accuracies", self.accuracies), ("scores", self.scores)):
            if values is not None and len(values) != len(self.architectures):
                raise UserError(
                    f"there are {len(values)} {name} of {len(self.architectures)} architectures"
                )
        if not np.isfinite(np.asarray(self.accuracies, dtype=float)).all():
            raise UserError("an accuracy is no finite number")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"the seed must be from 0 to {2**32 - 1}, not {self.seed}")

    @cached_property
    def _regression(self) -> Regression:
        rows = feature_rows(self.space, self.architectures, self.scores)
        return Regression(rows, np.asarray(self.accuracies, dtype=float), self.seed)

    def predict(
        self, architectures: Sequence[Architecture], scores: Values | None = None
    ) -> Prediction:
        """What is expected of architectures of the space.

        Args:
            architectures: Any number; 10,000 take some seconds.
            scores: The same further features as those known have.

        Raises:
            ValueError: If there are more or fewer scores than it was fitted with.
        """
        return self._regression.predict(feature_rows(self.space, architectures, scores))

    @cached_property
    def unseen(self) -> Values:
        """What is expected of those known, each by regressions that did not see it (ten folds): on
        the scale of `Prediction`."""
        return self._regression.out_of_fold()

    def agreement(self) -> Estimate:
        """Spearman's correlation of the accuracies with cross-validated predictions, by regressions
        that did not see them, and its bootstrap 95 % interval over architectures."""
        return estimate_spearman(self.unseen, self._regression.labels)

    def save(self, path: str | PathLike[str]) -> None:
        """Write what it was fitted on as JSON; it is fitted again when it is loaded."""
        content = {
            "format": FORMAT,
            "space": self.space.name,
            "features": feature_names(self.space),
            "seed": self.seed,
            "architectures": [str(item) for item in self.architectures],
            "accuracies": [float(value) for value in self.accuracies],
            "scores": None if self.scores is None else np.asarray(self.scores).tolist(),
        }
        write_atomically(Path(path), json.dumps(content, indent=1))


def predictor_file(space: str, data: str) -> Path | None:
    """The predictor that ships for a space and images, by their names; None if none does. What it
    was fitted on, and what it is worth: `results/shipped_predictor.md`."""
    path = FOLDER / f"{space}-{data}.predictor.json"
    return path if path.is_file() else None


def shipped_predictor(space: Space, data: str) -> Predictor:
    """The predictor that ships for a space and images.

    Args:
        space: With any skeleton.
        data: The images' name.

    Raises:
        UserError: If none does.
    """
    path = predictor_file(space.name, data)
    if path is None:
        raise UserError(
            f"no predictor ships for space {space.name!r} and data {data!r}: leave 'predicted' out "
            "of the objectives, or have some candidates trained with --train"
        )
    return load_predictor(path, space)


def load_predictor(path: str | PathLike[str], space: Space) -> Predictor:
    """The predictor that `Predictor.save` wrote; it predicts the same with the same scikit-learn.

    Args:
        path: The file.
        space: The space that it was fitted for, with any skeleton and for any images.

    Raises:
        UserError: If the file cannot be read, is for another space, or was fitted on features
            that this version of ghnas does not make.
    """
    try:
        content = read_json(Path(path))
        scores = content["scores"]
        made_for, names = content["space"], tuple(content["features"])
        if content.get("format", 0) > FORMAT:
            raise UserError(f"{path} is from a newer version of ghnas: update ghnas")
        if made_for != space.name:
            raise UserError(f"{path} is a predictor for space {made_for!r}, not {space.name!r}")
        if names != feature_names(space):
            raise UserError(f"{path} was fitted on other features than this version of ghnas makes")
        known = list(map(space.parse, content["architectures"]))
        accuracies = [float(value) for value in content["accuracies"]]
        rows = None if scores is None else np.array(scores, dtype=float).reshape(len(known), -1)
        seed = int(content["seed"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is no predictor that can be read ({error})") from error
    try:
        return Predictor(space, known, accuracies, rows, seed)
    except UserError as error:
        raise UserError(f"{path} is no predictor that can be read: {error}") from error


def feature_rows(
    space: Space, architectures: Sequence[Architecture], scores: Values | None = None
) -> Values:
    """Graph features and scores side by side (architectures, features)."""
    rows = graph_features(space, architectures)
    return rows if scores is None else np.hstack([rows, np.asarray(scores).reshape(len(rows), -1)])
