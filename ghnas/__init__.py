"""ghnas: neural architecture search with a graph hypernetwork.

Example:
    >>> import ghnas
    >>> space = ghnas.load_space("darts")
    >>> ghn, data = ghnas.load_ghn("darts-embedded"), ghnas.load_data("embedded")
    >>> study = ghnas.search(space, ghnas.ZeroShot(ghn, data, workers=1), budget=8)
    >>> network = ghn.initialize(study.best(1)[0])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ghnas.utils.errors import DataError, UserError

if TYPE_CHECKING:
    from ghnas.architectures.architecture import Architecture
    from ghnas.data import ImageData, load_data
    from ghnas.engine.objectives import ProxyScore, ZeroShot
    from ghnas.engine.search import Study, search
    from ghnas.engine.stages.candidates import train_candidates
    from ghnas.exports.formats import export
    from ghnas.ghn.checkpoint import GHNMismatchWarning, list_ghns, load_ghn
    from ghnas.scoring.latency import latency_table
    from ghnas.scoring.scorer import score
    from ghnas.spaces import list_spaces, load_space
    from ghnas.spaces.modules import ModuleSpace
    from ghnas.training.finetuning import TrainedNetwork, finetune
    from ghnas.training.hypernetwork.adaptation import adapt
    from ghnas.training.hypernetwork.distance import training_distances
    from ghnas.training.saved import load
    from ghnas.utils.cluster import RayPool

__all__ = [
    "Architecture",
    "DataError",
    "GHNMismatchWarning",
    "ImageData",
    "ModuleSpace",
    "ProxyScore",
    "RayPool",
    "Study",
    "TrainedNetwork",
    "UserError",
    "ZeroShot",
    "adapt",
    "export",
    "finetune",
    "latency_table",
    "list_ghns",
    "list_spaces",
    "load",
    "load_data",
    "load_ghn",
    "load_space",
    "score",
    "search",
    "train_candidates",
    "training_distances",
]

_WHERE = {
    "Architecture": "ghnas.architectures.architecture",
    "GHNMismatchWarning": "ghnas.ghn.checkpoint",
    "ImageData": "ghnas.data",
    "ModuleSpace": "ghnas.spaces.modules",
    "ProxyScore": "ghnas.engine.objectives",
    "RayPool": "ghnas.utils.cluster",
    "Study": "ghnas.engine.search",
    "TrainedNetwork": "ghnas.training.finetuning",
    "ZeroShot": "ghnas.engine.objectives",
    "adapt": "ghnas.training.hypernetwork.adaptation",
    "export": "ghnas.exports.formats",
    "finetune": "ghnas.training.finetuning",
    "latency_table": "ghnas.scoring.latency",
    "list_ghns": "ghnas.ghn.checkpoint",
    "list_spaces": "ghnas.spaces",
    "load": "ghnas.training.saved",
    "load_data": "ghnas.data",
    "load_ghn": "ghnas.ghn.checkpoint",
    "load_space": "ghnas.spaces",
    "score": "ghnas.scoring.scorer",
    "search": "ghnas.engine.search",
    "train_candidates": "ghnas.engine.stages.candidates",
    "training_distances": "ghnas.training.hypernetwork.distance",
}
"""Modules are imported on first use: torch and optuna take seconds."""


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'ghnas' has no attribute {name!r}")
    found = getattr(import_module(_WHERE[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
