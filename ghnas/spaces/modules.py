"""A search space of the user's own PyTorch modules, defined by a function of an Optuna trial."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ghnas.architectures.architecture import Architecture, Choices
from ghnas.architectures.graph import Graph, Shape
from ghnas.architectures.tracing.module_graph import module_graph
from ghnas.spaces.base import Choice, Space
from ghnas.spaces.files import COMPONENTS
from ghnas.utils.errors import UserError, first_line

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FixedTrial
    from torch import nn

TRIED = 16
"""Random modules in a row without a new choice after which all choices are known."""
MOST_OPTIONS = 10_000


class ModuleSpace(Space):
    """A search space of PyTorch modules.

    The choices are what the function asks of its trial. They are found by making random modules, so
    that one that is asked for only now and then may be missed: ask for all at the start. In an
    architecture that does not ask for it, a choice has no effect.

    Modules are traced, as `ghnas predict` traces them, and scored by `ghnas.score` and
    `ghnas.search` with predicted weights, in one process. Short trainings and fine-tuning take
    spaces of files alone: train `module(architecture)` yourself.

    Args:
        make: Makes a classifier of an `optuna.Trial`, from `suggest_int`, `suggest_categorical`
            and `suggest_float` with a `step`. The same answers make the same module.
        name: Of the space.

    Raises:
        UserError: If the function fails, makes no `torch.nn.Module`, or asks for something
            without a finite number of options.

    Example:
        >>> import ghnas
        >>> import torch
        >>> def make(trial):
        ...     width = trial.suggest_categorical("width", [8, 16])
        ...     layers = [torch.nn.Conv2d(3, width, 3), torch.nn.BatchNorm2d(width)]
        ...     for _ in range(trial.suggest_int("depth", 1, 3)):
        ...         layers += [torch.nn.ReLU(), torch.nn.Conv2d(width, width, 3, padding=1)]
        ...     pool = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
        ...     return torch.nn.Sequential(*layers, *pool, torch.nn.Linear(width, 10))
        >>> space = ghnas.ModuleSpace(make).for_images((3, 16, 16), classes=10)
        >>> space.size
        6
        >>> ghn = ghnas.load_ghn("general-embedded")
        >>> network = ghn.initialize(space.module(space.sample(seed=0)), space.image_shape)
    """

    one_process = True
    objective = "accuracy"
    composite = COMPONENTS
    description = "modules that a function makes"

    def __init__(self, make: Callable[[Any], nn.Module], name: str = "modules") -> None:
        self.make, self.name = make, name
        listed = {choice.name: choice.options for choice in self.choices}
        # a run cannot make the modules again by itself: what is kept tells that they are the same
        self.text = f"# modules that a function makes: {json.dumps(listed)}\n"

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return _found(self.make)

    @property
    def skeleton(self) -> Mapping[str, Any]:
        return {}

    def with_skeleton(self, **changes: Any) -> ModuleSpace:
        """A space of modules has no skeleton.

        Raises:
            UserError: If anything is to be changed.
        """
        if changes:
            raise UserError(
                f"space {self.name!r} is made by a function: it has no {next(iter(changes))}"
            )
        return self

    def build(self, choices: Choices, image_shape: Shape, classes: int) -> Graph:
        trial, module = self._made(choices)
        asked = {name: choices[name] for name in sorted(trial.distributions)}
        return module_graph(module, image_shape, classes, repr(asked))

    def module(self, architecture: Architecture) -> nn.Module:
        """A new module, as the function makes it.

        Args:
            architecture: Of this space.
        """
        return self._made(self.check(architecture.choices))[1]

    def _made(self, choices: Choices) -> tuple[FixedTrial, nn.Module]:
        from optuna.trial import FixedTrial

        trial = FixedTrial(dict(choices))
        return trial, _make(self.make, trial, self.format(choices))


def _make(make: Callable[[Any], nn.Module], trial: Trial | FixedTrial, choices: str) -> nn.Module:
    from torch import nn

    try:
        module = make(trial)
    except Exception as error:  # whatever the user's function does
        raise UserError(f"no module can be made of {choices}: {first_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise UserError(
            f"the function makes an object of type {type(module).__name__}, not a torch.nn.Module"
        )
    return module


def _found(make: Callable[[Any], nn.Module]) -> tuple[Choice, ...]:
    """What the function asks for, in the order in which it was first asked for."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    known: dict[str, BaseDistribution] = {}
    without_new = 0
    while without_new < TRIED:
        trial = study.ask()
        _make(make, trial, "what a trial says")
        fresh = trial.distributions.keys() - known
        for name, distribution in trial.distributions.items():
            if known.setdefault(name, distribution) != distribution:
                raise UserError(
                    f"choice {name!r} has other options at another time: name the two apart"
                )
        without_new = 0 if fresh else without_new + 1
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    if not known:
        raise UserError("the function asks its trial for nothing, so that there is no choice")
    return tuple(Choice(name, _options(name, item)) for name, item in known.items())


def _options(name: str, distribution: BaseDistribution) -> tuple[Any, ...]:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    if isinstance(distribution, FloatDistribution) and distribution.step is None:
        raise UserError(f"choice {name!r} has no end of options: give suggest_float a step")
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    low, high, step = distribution.low, distribution.high, distribution.step or 1
    count = round((high - low) / step) + 1
    if count > MOST_OPTIONS:
        raise UserError(f"choice {name!r} has {count:,} options: give it a step, or bounds")
    return tuple(low + number * step for number in range(count))
