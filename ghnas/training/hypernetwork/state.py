"""The file from which an interrupted training of a hypernetwork goes on."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ghnas.utils.errors import UserError
from ghnas.utils.tensor_files import read_pytorch, write_pytorch


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
        write_pytorch(self.path, content)

    def restore(self) -> tuple[int, list[dict[str, float]]]:
        """Load the file, if it is there, into what is kept; returns steps done and history. All
        processes of a training do so together.

        Raises:
            UserError: If it is damaged, or of a training with other settings or another version;
                what is kept is as it was.
        """
        try:
            return self._restore()
        finally:
            if dist.is_initialized():  # one that goes on at the end of a training removes the file
                dist.barrier()

    def _restore(self) -> tuple[int, list[dict[str, float]]]:
        if not self.path.exists():
            return 0, []
        device = next(self.parts["ghn"].parameters()).device
        content = read_pytorch(self.path, device)
        if not isinstance(content, dict) or "identity" not in content:
            raise UserError(f"{self.path} is damaged: delete it to start anew")
        if content["identity"] != self.identity:
            raise UserError(
                f"{self.path} belongs to a training with other settings: delete it to start "
                "anew, or choose another --output"
            )
        if not self.parts.keys() <= content.keys():
            raise UserError(
                f"{self.path} was written by another version of ghnas: finish the training with "
                "that version, or delete the file to start anew"
            )
        before = deepcopy({name: part.state_dict() for name, part in self.parts.items()})
        try:
            for name, part in self.parts.items():
                part.load_state_dict(content[name])
            return int(content["step"]), list(content["history"])
        except Exception as error:  # optimisers and schedules check little of what they are given
            for name, part in self.parts.items():
                part.load_state_dict(before[name])
            raise UserError(f"{self.path} is damaged: delete it to start anew") from error
