"""The file from which an interrupted training of a hypernetwork goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ghnas.utils.errors import UserError
from ghnas.utils.files import replace_atomically


@dataclass(frozen=True)
class TrainingState:
    """The file from which an interrupted training goes on.

    Args:
        path: The file.
        identity: What must agree for a training to go on.
        parts: What is kept, by their `state_dict`; one is the hypernetwork `ghn`.
    """

    path: Path
    identity: dict[str, object]
    parts: dict[str, Any]

    def save(self, step: int, history: list[dict[str, float]]) -> None:
        """Write the file after so many steps."""
        content = {name: part.state_dict() for name, part in self.parts.items()}
        content |= {"identity": self.identity, "step": step, "history": history}
        replace_atomically(self.path, lambda beside: torch.save(content, beside))

    def restore(self) -> tuple[int, list[dict[str, float]]]:
        """Load the file, if it is there, into what is kept; returns steps done and history.

        Raises:
            UserError: If it is damaged, or of a training with other settings or another version.
        """
        if not self.path.exists():
            return 0, []
        device = next(self.parts["ghn"].parameters()).device
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
        if not self.parts.keys() <= content.keys():
            raise UserError(
                f"{self.path} was written by another version of ghnas: finish the training with "
                "that version, or delete the file to start anew"
            )
        for name, part in self.parts.items():
            part.load_state_dict(content[name])
        return int(content["step"]), list(content["history"])
