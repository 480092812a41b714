"""Samplers: which candidates to score next."""

from __future__ import annotations

from optuna.samplers import BaseSampler

from ghnas.engine.samplers.base import (
    BATCH,
    SAMPLERS,
    Factory,
    Sampler,
    check_sampler,
    gain,
    register,
    with_values,
    worse_than,
)
from ghnas.engine.samplers.evolution import Evolution, LocalSearch, RandomSearch
from ghnas.engine.samplers.optuna_samplers import GeneticSearch, OptunaSampler, ParzenSearch
from ghnas.engine.samplers.predictor_search import PredictorSearch
from ghnas.engine.trials import Directions
from ghnas.spaces import Space

__all__ = [
    "BATCH",
    "SAMPLERS",
    "Evolution",
    "Factory",
    "GeneticSearch",
    "LocalSearch",
    "OptunaSampler",
    "ParzenSearch",
    "PredictorSearch",
    "RandomSearch",
    "Sampler",
    "check_sampler",
    "create_sampler",
    "gain",
    "register",
    "with_values",
    "worse_than",
]


def create_sampler(
    sampler: str | BaseSampler | Factory, space: Space, directions: Directions
) -> Sampler:
    """A sampler before its first batch.

    Args:
        sampler: One of `SAMPLERS`, any of Optuna's samplers, or what makes one of a space and
            directions, such as `functools.partial(PredictorSearch, starters=...)`.
        space: The search space.
        directions: Of the objectives.

    Raises:
        UserError: If there is no such sampler, naming those that there are.
    """
    if isinstance(sampler, BaseSampler):
        return OptunaSampler(space, directions, sampler)
    if not isinstance(sampler, str):
        return sampler(space, directions)
    check_sampler(sampler)
    if not space.choices:  # one architecture: Optuna's NSGA-II fails without parameters
        return RandomSearch(space, directions)
    return SAMPLERS[sampler](space, directions)
