"""Objectives: what a search optimises.

Any function of an architecture is one. `ZeroShot` scores whole batches of candidates with the
weights that a hypernetwork predicts; `ProxyScore` needs none.
"""

from ghnas.engine.objectives.base import (
    Function,
    FunctionObjective,
    Objective,
    Outcome,
    Report,
    as_objective,
)
from ghnas.engine.objectives.images import ImageObjective
from ghnas.engine.objectives.proxy_score import DEFAULT_PROXY, ProxyScore, check_proxies
from ghnas.engine.objectives.zero_shot import ZERO_SHOT, ZeroShot, check_objectives

__all__ = [
    "DEFAULT_PROXY",
    "ZERO_SHOT",
    "Function",
    "FunctionObjective",
    "ImageObjective",
    "Objective",
    "Outcome",
    "ProxyScore",
    "Report",
    "ZeroShot",
    "as_objective",
    "check_objectives",
    "check_proxies",
]
