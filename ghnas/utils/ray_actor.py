"""A worker on a Ray cluster, and what it runs."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ghnas.utils.devices import use_cores
from ghnas.utils.single_thread import use_one_torch_thread
from ghnas.utils.versions import installed_version


class Actor:
    """A worker of the cluster: keeps what each of several pieces of work is built of.

    Args:
        cpus: That the cluster gave it: what decodes images for it shares them.
    """

    def __init__(self, cpus: float) -> None:
        use_one_torch_thread()
        use_cores(cpus)
        self._works: dict[int, Callable[..., Any]] = {}

    def introduce(self) -> dict[str, str]:
        """On which machine it is, and what it runs."""
        return {"machine": socket.gethostname(), **versions()}

    def work(self, number: int, shared: list[Any], task: tuple[Any, ...]) -> Any:
        """Do a task.

        Args:
            number: Of the work that it is part of.
            shared: A reference to how that is built, fetched once.
            task: Arguments.
        """
        if number not in self._works:
            import ray

            build, arguments = ray.get(shared[0])
            self._works[number] = build(*arguments)
        return self._works[number](*task)

    def forget(self, number: int) -> None:
        """Free what a piece of work holds."""
        self._works.pop(number, None)


@cache
def versions() -> dict[str, str]:
    """What must be the same on all machines, or a study would depend on which of them did what."""
    root, digest = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    code = f"{installed_version('ghnas') or 'checkout'} (files {digest.hexdigest()[:8]})"
    return {"ghnas": code, "torch": torch.__version__}
