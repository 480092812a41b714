"""ghnas: neural architecture search with a graph hypernetwork."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ghnas.architectures.network import Network

__all__ = ["load"]


def load(path: str | PathLike[str]) -> Network:
    """A network that `ghnas finetune` wrote, as a trained `torch.nn.Module`.

    Args:
        path: Its folder, or the `model.safetensors` in it.

    Returns:
        The network in evaluation mode on the CPU; it takes images (B, C, H, W), normalised
        with the mean and std of `architecture.json`.

    Raises:
        ghnas.utils.errors.UserError: If there is none, or it is damaged.
    """
    from ghnas.training.saved import load as load_network  # torch takes seconds to import

    return load_network(Path(path))
