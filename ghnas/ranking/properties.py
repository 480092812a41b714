"""What a graph embedding knows: properties of architectures predicted from it.

Section 5.3 of arXiv 2110.13100: the final node states of a trained hypernetwork, averaged over
a graph, are features for ordinary regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import kendalltau
from sklearn.base import RegressorMixin
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from torch_geometric.utils import scatter

from ghnas.architectures.graph import Graph
from ghnas.ghn.model import GHN, read_graphs


@torch.no_grad()
def graph_embeddings(ghn: GHN, graphs: Sequence[Graph], together: int = 64) -> np.ndarray:
    """Embeddings of architectures.

    Args:
        ghn: A trained hypernetwork.
        graphs: The architectures.
        together: How many are read at once.

    Returns:
        (len(graphs), hid): mean of each graph's final node states.
    """
    device = ghn.embed.weight.device
    result = []
    for start in range(0, len(graphs), together):
        batch = read_graphs(graphs[start : start + together], ghn.config).to(device)
        means = scatter(ghn.embeddings(batch), batch.graph, reduce="mean")
        result.append(means.cpu().numpy())
    return np.concatenate(result)


def property_regressor() -> RegressorMixin:
    """Support-vector regression on standardised features, as in the paper."""
    return make_pipeline(StandardScaler(), SVR(C=1.0, epsilon=0.05))


@dataclass(frozen=True)
class Agreement:
    """How well predicted values order architectures that the regression has not seen.

    Args:
        kendall: Mean Kendall tau over repeats of cross-validation.
        spread: Its standard deviation over the repeats.
    """

    kendall: float
    spread: float


def predict_property(
    features: np.ndarray,
    values: Sequence[float] | np.ndarray,
    folds: int = 5,
    repeats: int = 10,
    seed: int = 0,
    regressor: RegressorMixin | None = None,
) -> Agreement:
    """Cross-validate the prediction of a property, such as accuracy or time.

    Args:
        features: (n, d), such as `graph_embeddings`.
        values: (n,) of the property.
        folds: Parts; each is predicted from the others.
        repeats: Of the whole, with other parts.
        seed: Of the parts.
        regressor: Default: `property_regressor()`.

    Raises:
        ValueError: If there are fewer architectures than folds.
    """
    target = np.asarray(values, dtype=float)
    target = (target - target.mean()) / (target.std() or 1.0)
    found = []
    for repeat in range(repeats):
        parts = KFold(folds, shuffle=True, random_state=seed + repeat)
        predicted = cross_val_predict(regressor or property_regressor(), features, target, cv=parts)
        found.append(kendalltau(predicted, target).statistic)
    return Agreement(float(np.mean(found)), float(np.std(found)))
