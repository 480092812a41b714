"""Files of tensors, of safetensors and of PyTorch: written whole, and nothing in them is run."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ghnas.utils.errors import UserError, first_line
from ghnas.utils.files import replace_atomically, write_atomically
from ghnas.utils.memory import require_memory

_COPIES, _BESIDE = 2, 2**20
"""How often safetensors has what it writes in memory, and bytes for what it does besides."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file; an existing one is replaced in one step.

    Raises:
        OSError: If the folder cannot be written or the disk is full; the old file is kept.
    """
    # not `save_file`: what it makes on the way is left behind, by another name, by a process that
    # is killed
    write_atomically(path, tensors_as_bytes(tensors, metadata))


def tensors_as_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """What `write_tensors` writes.

    Raises:
        MemoryError: If there is no memory for it, where safetensors would end the process.
    """
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    size = sum(value.nbytes for value in plain.values()) + len(str(metadata))
    require_memory(_COPIES * size + _BESIDE, "write tensors")
    return save(plain, metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file, on the CPU.

    Raises:
        UserError: If it cannot be read.
    """
    with _opened(path) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})


def read_metadata(path: Path) -> dict[str, str]:
    """As `read_tensors`, the metadata alone."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb"):  # safetensors says of all that it cannot open that it is not there
            pass
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error})") from error


def is_pytorch_file(path: Path) -> bool:
    """Whether a file begins as one that `torch.save` wrote, a zip archive or a pickle."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # safetensors: a length of eight bytes, then JSON
        return False
    return start[:2] == b"PK" or start[:1] == b"\x80"


def write_pytorch(path: Path, content: Any) -> None:
    """Write what `read_pytorch` reads; an existing file is replaced in one step.

    Raises:
        OSError: As `write_tensors`.
    """

    def save(beside: Path) -> None:
        with beside.open("wb") as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:  # of its own, while it closes what could not be written
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    replace_atomically(path, save)


def pytorch_as_bytes(content: Any) -> bytes:
    """What `write_pytorch` writes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def read_pytorch(
    path: Path, device: str | torch.device = "cpu", content: bytes | None = None
) -> Any:
    """Plain data and tensors that `torch.save` wrote; nothing in the file is executed.

    Args:
        path: The file.
        device: Where the tensors are put.
        content: Of the file, where it was read before.

    Raises:
        UserError: If it cannot be read, or holds anything else.
    """
    try:
        # not by its path: torch would go by the suffix
        with (
            path.open("rb") if content is None else io.BytesIO(content) as file,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # of pickle's protocol
            return torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file makes torch raise nearly every kind
        reason = first_line(error).partition(". ")[0]
        raise UserError(f"{path} is damaged or no PyTorch file of plain data ({reason})") from error
