"""A pool of workers on a Ray cluster.

Source: Moritz et al., "Ray: A Distributed Framework for Emerging AI Applications" (OSDI 2018).
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import socket
import threading
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from ghnas.utils.devices import cores
from ghnas.utils.errors import UserError, first_line
from ghnas.utils.processes import Pool, Workers

if TYPE_CHECKING:
    from ghnas.utils.ray_dispatch import Dispatcher, Work

Result = TypeVar("Result")
ADDRESS = re.compile(r"(ray://)?([\w.-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}")
REACH, CONNECT = 5.0, 40.0
"""Seconds in which a cluster's port must answer, and in which Ray must be connected."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "30",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
"""What Ray reads of the environment when it is imported: no statistics sent, no notes of changes to
come, workers that are no less urgent than other processes, time for a busy cluster to answer, and
no cluster that is started by itself where the connection was closed."""


class RayPool(Pool):
    """Workers of a Ray cluster in place of this machine's processes; needs `ghnas[cluster]`.

    Results are the same, to the last digit, on machines whose processors are alike. A worker or
    machine that dies costs its tasks being done again. Each worker computes on a CPU with one torch
    thread; there are as many as the cluster holds, and more or fewer when it grows or shrinks. A
    connection that this process has already is used. A pool is a context manager; `close` ends its
    workers.

    Args:
        address: `auto` for the cluster that runs on this machine, or else one that is started on it
            and ends with this process; `ray://HOST:10001` for another's client port, or
            `HOST:6379` on one of its machines.
        workers: How many; default: as many as the cluster's machines hold. A cluster that
            starts machines by itself does so when they do not hold so many.
        cpus, gpus: What each is given of a machine, which may be a part of one.
        time_limit: Seconds after which a task is given up and done by another worker, five times at
            most; default: 10 minutes or ten times what the longest took, whichever is more.
        patience: Seconds without any worker after which the work is given up.

    Raises:
        UserError: If Ray is not installed, or the cluster cannot be reached.

    Example:
        >>> import ghnas
        >>> with ghnas.RayPool("ray://head:10001") as pool:  # doctest: +SKIP
        ...     objective = ghnas.ZeroShot(ghn, data, pool=pool)
        ...     study = ghnas.search(space, objective, budget=100_000)
        >>> try:
        ...     ghnas.RayPool("head")
        ... except ghnas.UserError as error:
        ...     print(str(error).partition(",")[0])
        a cluster is auto
    """

    def __init__(
        self,
        address: str = "auto",
        *,
        workers: int | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
        time_limit: float | None = None,
        patience: float = 60.0,
    ) -> None:
        from ghnas.utils.ray_dispatch import Dispatcher, Terms

        if cpus <= 0 or gpus < 0 or not (workers is None or workers > 0):
            raise UserError(
                f"workers ({workers}) and cpus ({cpus}) must be above 0, gpus ({gpus}) 0 or above"
            )
        connect(address)
        self._dispatcher = Dispatcher(Terms(workers, cpus, gpus, time_limit, patience))
        self.close = weakref.finalize(self, self._dispatcher.close)
        atexit.register(self.close)  # before Ray's own, which ends the connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _away, ()  # a worker has no use for it

    @property
    def size(self) -> int:
        """Workers that are there, or else how many the cluster holds."""
        return self._dispatcher.alive or self._dispatcher.count

    def start(
        self,
        build: Callable[..., Callable[..., Result]],
        *arguments: Any,
        tasks: int | None = None,
        gradients: bool = False,
    ) -> Workers[Result]:
        """Workers for tasks that have something in common, see `ghnas.utils.processes.Pool`."""
        return _RayWorkers(self._dispatcher, build, arguments)


def _away() -> None:
    """What a pool is to a worker."""


class _RayWorkers(Workers[Result]):
    """`Workers` whose tasks are done on a cluster."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        build: Callable[..., Callable[..., Result]],
        arguments: tuple[Any, ...],
    ) -> None:
        super().__init__(1, build)
        self._use(_OnCluster(dispatcher, dispatcher.new_work(build, arguments)))


class _OnCluster:
    """The executor of one piece of work."""

    def __init__(self, dispatcher: Dispatcher, work: Work) -> None:
        self._dispatcher, self._work = dispatcher, work

    @property
    def count(self) -> int:
        return self._dispatcher.count

    def submit(self, task: tuple[Any, ...]) -> Future[Any]:
        return self._dispatcher.submit(self._work, task)

    def check(self, within: float = 0) -> None:
        """Nothing to do: what the dispatcher cannot have done, it gives up itself."""

    def close(self) -> None:
        self._dispatcher.end_work(self._work)


def connect(address: str) -> None:
    """Connect this process with a Ray cluster, unless it is connected with one.

    Args:
        address: As in `RayPool`.

    Raises:
        UserError: If Ray is not installed, the address is none, or nobody answers there.
    """
    if address != "auto" and not ADDRESS.fullmatch(address):
        raise UserError(
            f"a cluster is auto, ray://HOST:PORT or HOST:PORT, such as ray://head:10001, not "
            f"{address!r}"
        )
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    tokens = Path.home() / ".ray" / "auth_token"
    if address.startswith("ray://") and (tokens.is_file() or "RAY_AUTH_TOKEN" in os.environ):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as Ray does for other addresses
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "a cluster needs Ray, which is not installed: pip install 'ghnas[cluster]'"
        ) from error
    if ray.is_initialized():
        return
    quiet = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # of a client, too
    ray._private.worker._worker_logs_enabled = False  # of nodes that died: on stdout, in any case
    if address != "auto":
        _require_answer(address)
        _bounded(partial(ray.init, address, **quiet), address)
        return
    try:
        ray.init("auto", **quiet)
    except ConnectionError:  # none runs here; in this thread, with which Ray would end its own
        ray.init("local", num_cpus=cores(), include_dashboard=False, **quiet)


def _bounded(connect: Callable[[], object], address: str) -> None:
    """Ray waits for minutes where a port answers that is not one of its own."""
    failures: list[Exception] = []

    def attempt() -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                connect()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(CONNECT)
    if thread.is_alive():
        raise UserError(
            f"no Ray cluster answers at {address} within {CONNECT:g} s: is it one, and its "
            "token in RAY_AUTH_TOKEN?"
        )
    if failures:
        raise UserError(
            f"the cluster {address} cannot be used ({first_line(failures[0])})"
        ) from failures[0]


def _require_answer(address: str) -> None:
    """Refuse an address where no program listens."""
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        socket.create_connection((place.hostname, place.port), timeout=REACH).close()
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(
            f"the cluster {address} cannot be reached ({reason}): is it up, and its port open?"
        ) from error
