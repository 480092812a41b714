"""Hypernetworks in the format of the published PyTorch checkpoints: read and written."""

from __future__ import annotations

import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ghnas.ghn.config import GHNConfig, GHNInfo, why
from ghnas.ghn.model import GHN
from ghnas.utils.errors import UserError
from ghnas.utils.files import replace_atomically

DEFAULTS: dict[str, Any] = {"weight_norm": False, "ve": False, "layernorm": False}
"""What the published program means by a setting that a checkpoint does not name."""


def is_pytorch_file(path: Path) -> bool:
    """Whether a file looks like one that `torch.save` wrote: a zip archive or a pickle."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # safetensors: a length of eight bytes, then JSON
        return False
    return start[:2] == b"PK" or start[:1] == b"\x80"


def read_published(path: Path) -> GHN:
    """Read a checkpoint: `config`, `state_dict` and `epoch`; nothing in it is executed.

    Returns:
        The hypernetwork, with the epochs that it was trained for as `info.training`.

    Raises:
        UserError: If the file is damaged or not such a checkpoint.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = (str(error).strip() or "it is damaged").splitlines()[0]
        raise UserError(f"{path} cannot be read as a PyTorch checkpoint: {reason}") from error
    if not isinstance(content, dict) or not {"config", "state_dict"} <= set(content):
        raise UserError(f"{path} is a PyTorch file, but not a GHN: it needs config and state_dict")
    config = DEFAULTS | dict(content["config"])
    known = {item.name for item in fields(GHNConfig)}
    strange = sorted(set(config) - known)
    if strange:
        raise UserError(f"{path} has a GHN setting that is not known: {strange[0]}")
    tensors = {key.removeprefix("module."): item for key, item in content["state_dict"].items()}
    try:
        info = GHNInfo(training={"epochs": int(content.get("epoch", 0))})
        ghn = GHN(GHNConfig(**config), info)
        ghn.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path} is not a GHN that this version can read ({why(error)})") from error
    return ghn


def write_published(path: Path, ghn: GHN) -> None:
    """Write a checkpoint that the published program reads; an existing file is replaced."""
    content = {
        "state_dict": {key: value.detach().cpu() for key, value in ghn.state_dict().items()},
        "config": ghn.config.as_dict() | {"max_shape": ghn.config.max_shape},
        "epoch": int(ghn.info.training.get("epochs", 0)),
    }
    replace_atomically(path, lambda beside: torch.save(content, beside))
