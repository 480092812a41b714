"""The file from which an interrupted training of a hypernetwork goes on, and means of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ghnas.ghn.model import GHN
from ghnas.utils.errors import UserError
from ghnas.utils.files import replace_atomically

Weights = dict[str, Tensor]


def copy_of(ghn: GHN) -> Weights:
    """Its weights, as they are now."""
    return {name: value.detach().clone() for name, value in ghn.state_dict().items()}


def mean_of(weights: Sequence[Mapping[str, Tensor]]) -> Weights:
    """The mean of several states (as in Izmailov et al., Averaging Weights Leads to Wider Optima
    and Better Generalization, UAI 2018)."""
    return {name: torch.stack([item[name] for item in weights]).mean(dim=0) for name in weights[0]}


class TrainingState:
    """The file from which an interrupted training goes on."""

    def __init__(self, path: Path, identity: dict[str, object]) -> None:
        self.path = path
        self.identity = identity

    def save(
        self,
        ghn: GHN,
        optimizer: torch.optim.Optimizer,
        step: int,
        history: list[dict[str, float]],
        recent: Sequence[Weights],
    ) -> None:
        """Write the file; `recent` are the weights that the result is the mean of."""
        content = {
            "identity": self.identity,
            "step": step,
            "history": history,
            "recent": list(recent),
            "ghn": ghn.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        replace_atomically(self.path, lambda beside: torch.save(content, beside))

    def restore(
        self, ghn: GHN, optimizer: torch.optim.Optimizer
    ) -> tuple[int, list[dict[str, float]], list[Weights]]:
        """Load the file into both; returns steps done, history and recent weights.

        Raises:
            UserError: If it is damaged, or of a training with other settings.
        """
        if not self.path.exists():
            return 0, [], []
        device = next(ghn.parameters()).device
        try:
            content = torch.load(self.path, map_location=device, weights_only=True)
            same = content["identity"] == self.identity
        except Exception as error:  # torch.load raises many kinds for a damaged file
            raise UserError(f"{self.path} is damaged: delete it to start anew") from error
        if not same:
            raise UserError(
                f"{self.path} belongs to a training with other settings: delete it to start "
                "anew, or choose another --output"
            )
        ghn.load_state_dict(content["ghn"])
        optimizer.load_state_dict(content["optimizer"])
        return int(content["step"]), list(content["history"]), list(content["recent"])
