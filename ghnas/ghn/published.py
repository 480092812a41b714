"""Hypernetworks in the format of the published PyTorch checkpoints: read and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ghnas.ghn.config import GHNInfo
from ghnas.ghn.model import GHN, restored
from ghnas.spaces.files import explain
from ghnas.utils.errors import UserError
from ghnas.utils.tensor_files import read_pytorch, write_pytorch

DEFAULTS: dict[str, Any] = {"weight_norm": False, "ve": False, "layernorm": False}
"""What the published program means by a setting that a checkpoint does not name."""


def read_published(path: Path) -> GHN:
    """Read a checkpoint: `config`, `state_dict` and `epoch`; nothing in it is executed.

    Returns:
        The hypernetwork, with the epochs that it was trained for as `info.training`.

    Raises:
        UserError: If the file is damaged or not such a checkpoint.
    """
    content = read_pytorch(path)
    if not isinstance(content, dict) or not {"config", "state_dict"} <= set(content):
        raise UserError(f"{path} is a PyTorch file, but not a GHN: it needs config and state_dict")
    try:
        info = GHNInfo(training={"epochs": int(content.get("epoch", 0))})
        tensors = {key.removeprefix("module."): x for key, x in content["state_dict"].items()}
        return restored(DEFAULTS | dict(content["config"]), info, tensors)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path} is damaged or not a GHN that is known ({explain(error)})"
        ) from error


def write_published(path: Path, ghn: GHN) -> None:
    """Write a checkpoint that the published program reads; an existing file is replaced."""
    content = {
        "state_dict": {key: value.detach().cpu() for key, value in ghn.state_dict().items()},
        "config": ghn.config.as_dict() | {"max_shape": ghn.config.max_shape},
        "epoch": int(ghn.info.training.get("epochs", 0)),
    }
    write_pytorch(path, content)
