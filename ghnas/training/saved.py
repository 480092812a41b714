"""Trained networks as files: safetensors with the architecture in the header."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.network import Network
from ghnas.data import ImageData
from ghnas.spaces import Space, parse_space
from ghnas.utils.errors import UserError
from ghnas.utils.files import write_atomically
from ghnas.utils.tensor_files import read_tensors, tensors_as_bytes

FORMAT = "1"
WEIGHTS = "model.safetensors"
"""The file of a trained network."""


def describe(architecture: Architecture, data: ImageData) -> dict[str, Any]:
    """What `load` needs to build a network again, and what normalises its images, as plain data.

    Args:
        architecture: Of a space that was read from a file, for the data's images.
        data: What the network is trained on.
    """
    space = architecture.space
    assert isinstance(space, Space)
    return {
        "space": space.text,
        "skeleton": dict(space.skeleton),
        "candidate": dict(architecture.choices),
        "image_shape": list(architecture.image_shape),
        "classes": list(data.classes),
        "mean": list(data.mean),
        "std": list(data.std),
    }


def as_bytes(network: Network, architecture: dict[str, Any]) -> bytes:
    """A network as a file that `load` reads.

    Args:
        network: Its parameters and buffers are kept.
        architecture: From `describe`; more is kept for people.
    """
    metadata = {"format": FORMAT, "ghnas_network": json.dumps(architecture)}
    return tensors_as_bytes(network.state_dict(), metadata)


def save(path: Path, network: Network, architecture: dict[str, Any]) -> None:
    """Write what `as_bytes` gives; an existing file is replaced in one step."""
    write_atomically(path, as_bytes(network, architecture))


@dataclass(frozen=True)
class SavedNetwork:
    """A trained network, with what it is for.

    Args:
        network: In evaluation mode on the CPU.
        classes: Their names, in the order of the logits.
        mean: Of the images' channels, with values in [0, 1].
        std: Their standard deviation; the network's images are normalised with both.
    """

    network: Network
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]


def load(path: str | PathLike[str]) -> Network:
    """A fine-tuned network, in evaluation mode on the CPU.

    Args:
        path: The folder that `ghnas finetune` or `ghnas.finetune` wrote, or the
            `model.safetensors` in it.

    Returns:
        The network; it takes images (B, C, H, W), normalised with the mean and std of
        `architecture.json`, and gives logits (B, classes).

    Raises:
        UserError: If there is none, or it is damaged.

    Example:
        >>> import tempfile
        >>> import ghnas, torch
        >>> data = ghnas.load_data("embedded", train_limit=64)
        >>> space = ghnas.load_space("darts").with_skeleton(cells=1, channels=2)
        >>> folder = tempfile.mkdtemp()
        >>> trained = ghnas.finetune(space.sample(seed=0), data, epochs=1, path=folder)
        >>> ghnas.load(folder)(torch.zeros(1, 3, 16, 16)).shape  # zero: the images' mean
        torch.Size([1, 10])
    """
    return read(path).network


def read(path: str | PathLike[str]) -> SavedNetwork:
    """A fine-tuned network with its classes and what normalises its images.

    Args:
        path: As for `load`.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"no fine-tuned network at {path}: make one with `ghnas finetune`")
    tensors, metadata = read_tensors(file)
    try:
        content = json.loads(metadata["ghnas_network"])
        space = parse_space(content["space"], str(file)).with_skeleton(**content["skeleton"])
        shape, classes = tuple(content["image_shape"]), len(content["classes"])
        network = Network(space.architecture(content["candidate"]).for_images(shape, classes).graph)
        network.load_state_dict(tensors)
        return SavedNetwork(network.eval(), content["classes"], content["mean"], content["std"])
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UserError(f"{file} is damaged or not a network of ghnas ({error})") from error
