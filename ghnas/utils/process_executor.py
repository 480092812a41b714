"""Processes of this machine that do tasks: one torch thread each, ended with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import Any

import torch
import torch.multiprocessing

from ghnas.utils.errors import UserError
from ghnas.utils.limits import require_threads
from ghnas.utils.single_thread import use_one_torch_thread

_PR_SET_PDEATHSIG = 1
ENDED = (
    "a process was ended from outside, perhaps for lack of memory: what was finished is kept, run "
    "the same command (a search with --resume) to go on"
)
GRACE = 1.0
"""Seconds that tasks are waited for which were begun when the others were given up."""


@contextmanager
def all_alive() -> Iterator[None]:
    """Say in a sentence that a process was ended."""
    try:
        yield
    except BrokenProcessPool as error:
        raise UserError(ENDED) from error


class ProcessExecutor:
    """An executor of `ghnas.utils.processes.Workers`: processes of this machine.

    Args:
        count: How many.
        build, arguments, gradients: As in `Workers`.

    Attributes:
        first: Done when a process is ready to work.
    """

    def __init__(
        self,
        count: int,
        build: Callable[..., Callable[..., Any]],
        arguments: tuple[Any, ...],
        gradients: bool,
    ) -> None:
        self.count = count
        require_threads(count + 2)  # the pool's two: one that cannot start lets it wait for ever
        self._pool = ProcessPoolExecutor(
            count,
            mp_context=context_of_workers(gradients),
            initializer=_start,
            initargs=(os.getpid(), build, arguments),
        )
        self._results: Any = self._pool._result_queue  # which `shutdown` lets go of
        self._all: Any = self._pool._processes  # likewise; of those that are spawned more come
        tasks: Any = self._pool._call_queue  # type: ignore[attr-defined]
        tasks.cancel_join_thread()  # or what is half handed out to killed processes is waited for
        try:  # all start now, before this process has other threads
            self.first = self._pool.submit(int)
        except BaseException:  # those that have started would wait for work, and be waited for
            self.close()
            raise

    def submit(self, task: tuple[Any, ...]) -> Future[Any]:
        """Do a task when a process is free.

        Raises:
            BrokenProcessPool: If one was ended from outside.
        """
        return self._pool.submit(_call, task)

    def check(self, within: float = 0) -> None:
        """See whether all processes are there.

        Args:
            within: Seconds in which it may turn out that one is not.

        Raises:
            UserError: If one was ended from outside.
        """
        # the pool itself waits for the rest of a result that an ended process had begun to write,
        # and in Python 3.11 can miss what is submitted while it notices that one has ended
        if connection.wait([process.sentinel for process in self._all.values()], within):
            raise UserError(ENDED)

    def close(self) -> None:
        """End the processes."""
        manager: Any = self._pool._executor_manager_thread  # which `shutdown` lets go of
        self._pool.shutdown(wait=False, cancel_futures=True)
        # half a result would be waited for, at the end of the program, for ever: none is being
        # written while this process has their lock, and where it is not to be had the reader
        # finds that nobody writes any more
        lock = self._results._wlock  # None where writing needs none
        locked = lock is not None and lock.acquire(timeout=GRACE)
        try:
            processes = tuple(self._all.values())
            for process in processes:
                process.kill()  # or the program would wait for work that nobody wants
            for process in processes:
                process.join()
        finally:  # also without the memory for these few steps
            if locked:
                lock.release()
        self._results._writer.close()
        # or a program that ends now wakes it through a pipe that it is closing
        if manager not in (None, threading.current_thread()) and manager.is_alive():
            manager.join(GRACE)


def context_of_workers(gradients: bool) -> BaseContext:
    """How processes begin now, for locks and queues that they share: by fork where it works, which
    saves seconds of imports.

    Args:
        gradients: As in `ghnas.utils.processes.Workers`.

    Raises:
        UserError: If a process that tries it was ended from outside.
    """
    if sys.platform != "linux":
        return torch.multiprocessing.get_context("spawn")
    context = torch.multiprocessing.get_context("fork")
    if gradients:
        probe = context.Process(target=_differentiate)
        probe.start()
        probe.join()
        if probe.exitcode == _REFUSED:
            return torch.multiprocessing.get_context("spawn")
        if probe.exitcode:  # ended before it knew: who asks again may hear another answer
            raise UserError(ENDED)
    return context


_REFUSED = 3
"""Exit code of a process in which autograd does not work."""


def _differentiate() -> None:
    try:
        torch.ones(1, requires_grad=True).sum().backward()
    except RuntimeError:
        sys.exit(_REFUSED)


_work: Callable[..., Any] | None = None
"""What a worker process calls for each task; None in every other process."""


def _start(
    parent: int, build: Callable[..., Callable[..., Any]], arguments: tuple[Any, ...]
) -> None:
    global _work
    _become_worker(parent)
    _work = build(*arguments)


def _call(task: tuple[Any, ...]) -> Any:
    assert _work is not None
    return _work(*task)


def _become_worker(parent: int) -> None:
    """Use one torch thread, ignore Ctrl-C, which the parent answers, and end with the parent."""
    use_one_torch_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended before
            os._exit(1)
