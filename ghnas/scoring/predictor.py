"""A predictor of accuracy: trees on graph features, fitted on a few trained architectures.

Extremely randomised trees (Geurts, Ernst and Wehenkel, 2006) on `ghnas.spaces.features`, as in GRAF
(Kadlecova et al., ICML 2024), and on whatever scores are given beside them; labels are ranks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold

from ghnas.architectures.architecture import Architecture
from ghnas.spaces import Space
from ghnas.spaces.features import feature_names, graph_features
from ghnas.utils.errors import UserError
from ghnas.utils.files import write_atomically
from ghnas.utils.statistics import Estimate, Values, estimate_spearman

FORMAT = 1
LEAST = 4
"""Fewest labels that a predictor is fitted on."""


@dataclass(frozen=True)
class TreeSettings:
    """How the trees are grown.

    Args:
        trees: How many.
        features: Share of the features that a split chooses from.
        leaf: Fewest labels of a leaf.
    """

    trees: int = 200
    features: float = 0.5
    leaf: int = 1


class Prediction(NamedTuple):
    """What is expected of architectures, as ranks among the labels: -1 the lowest, 1 the highest.

    Args:
        mean: (N,).
        deviation: Standard deviation over the trees (N,).
    """

    mean: Values
    deviation: Values


@dataclass(frozen=True)
class Trees:
    """A regression on rows of numbers; `Predictor` makes the rows.

    Args:
        rows: (labels, features).
        labels: Higher is better (labels,).
        seed: Of the trees.
        settings: Of the trees.

    Raises:
        ValueError: If there are fewer than `LEAST` labels.
    """

    rows: Values
    labels: Values
    seed: int = 0
    settings: TreeSettings = field(default_factory=TreeSettings)

    def __post_init__(self) -> None:
        if len(self.labels) < LEAST:
            raise ValueError(f"{len(self.labels)} labels are too few to fit on")

    @cached_property
    def _model(self) -> ExtraTreesRegressor:
        settings = self.settings
        model = ExtraTreesRegressor(
            settings.trees,
            max_features=settings.features,
            min_samples_leaf=settings.leaf,
            random_state=self.seed,
        )
        count = len(self.labels)
        return model.fit(_finite(self.rows), 2 * (rankdata(self.labels) - 0.5) / count - 1)

    def predict(self, rows: Values) -> Prediction:
        """What is expected of rows (N, features)."""
        finite = _finite(rows)
        by_tree = np.stack([tree.predict(finite) for tree in self._model.estimators_])
        return Prediction(by_tree.mean(axis=0), by_tree.std(axis=0))

    def out_of_fold(self, folds: int = 10) -> Values:
        """A prediction of each label by trees that were fitted without it (labels,)."""
        result = np.empty(len(self.labels))
        parts = KFold(min(folds, len(self.labels)), shuffle=True, random_state=self.seed)
        for others, part in parts.split(self.rows):
            fitted = Trees(self.rows[others], self.labels[others], self.seed, self.settings)
            result[part] = fitted.predict(self.rows[part]).mean
        return result


def _finite(rows: Values) -> Values:
    """Scores of minus infinity are the lowest; what is no number is as low."""
    return np.nan_to_num(rows, nan=-1e30, posinf=1e30, neginf=-1e30).astype(np.float32)


@dataclass(frozen=True)
class Predictor:
    """Predicts how architectures of a space compare, from some whose accuracy is known.

    Args:
        space: The search space.
        architectures: Those that are known.
        accuracies: Theirs, in any unit; higher is better.
        scores: Further features of each, such as zero-shot scores (architectures, any number).
        seed: Of the trees; equal arguments give equal predictions.
        settings: Of the trees.

    Raises:
        UserError: If there are fewer than `LEAST` architectures.

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
    settings: TreeSettings = field(default_factory=TreeSettings)

    def __post_init__(self) -> None:
        if len(self.architectures) < LEAST:
            raise UserError(
                f"{len(self.architectures)} trained architectures are too few for a predictor: "
                f"it takes {LEAST}"
            )

    @cached_property
    def _trees(self) -> Trees:
        rows = feature_rows(self.space, self.architectures, self.scores)
        return Trees(rows, np.asarray(self.accuracies, dtype=float), self.seed, self.settings)

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
        return self._trees.predict(feature_rows(self.space, architectures, scores))

    def agreement(self, folds: int = 10) -> Estimate:
        """Spearman's correlation of the accuracies with predictions by trees that did not see
        them (cross-validation), with its bootstrap 95 % interval over architectures."""
        return estimate_spearman(self._trees.out_of_fold(folds), self._trees.labels)

    def save(self, path: str | PathLike[str]) -> None:
        """Write what it was fitted on as JSON; the trees are grown again when it is loaded."""
        content = {
            "format": FORMAT,
            "space": self.space.name,
            "features": feature_names(self.space),
            "seed": self.seed,
            "settings": asdict(self.settings),
            "architectures": [str(item) for item in self.architectures],
            "accuracies": [float(value) for value in self.accuracies],
            "scores": None if self.scores is None else np.asarray(self.scores).tolist(),
        }
        write_atomically(Path(path), json.dumps(content, indent=1))


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
        content = json.loads(Path(path).read_text())
        scores = content["scores"]
        made_for, names = content["space"], tuple(content["features"])
        known = list(map(space.parse, content["architectures"])) if made_for == space.name else []
        predictor_arguments = (
            [float(value) for value in content["accuracies"]],
            None if scores is None else np.array(scores, dtype=float),
            int(content["seed"]),
            TreeSettings(**content["settings"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no predictor that can be read ({error})") from error
    if made_for != space.name:
        raise UserError(f"{path} is a predictor for space {made_for!r}, not {space.name!r}")
    if names != feature_names(space):
        raise UserError(f"{path} was fitted on other features than this version of ghnas makes")
    return Predictor(space, known, *predictor_arguments)


def feature_rows(
    space: Space, architectures: Sequence[Architecture], scores: Values | None = None
) -> Values:
    """Graph features and scores side by side (architectures, features)."""
    rows = graph_features(space, architectures)
    return rows if scores is None else np.hstack([rows, np.asarray(scores).reshape(len(rows), -1)])
