"""Worker processes for a CPU: one torch thread each, ended with their parent."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.multiprocessing

from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

_PR_SET_PDEATHSIG = 1


def process_context() -> BaseContext:
    """Fork on Linux, where it saves ten seconds of imports; spawn elsewhere."""
    method = "fork" if sys.platform == "linux" else "spawn"
    context: BaseContext = torch.multiprocessing.get_context(method)
    return context


def training_context() -> BaseContext:
    """As `process_context`, for processes that compute gradients.

    Autograd refuses to work in a fork of a process in which it has threads of its own, as it has
    after `torch.export`: then the processes are spawned.
    """
    context = process_context()
    if context.get_start_method() == "fork":
        child = torch.multiprocessing.get_context("fork").Process(target=_differentiate)
        child.start()
        child.join()
        if child.exitcode:
            spawning: BaseContext = torch.multiprocessing.get_context("spawn")
            return spawning
    return context


def _differentiate() -> None:
    try:
        torch.ones(1, requires_grad=True).sum().backward()
    except RuntimeError:
        sys.exit(1)


def start_pool(
    workers: int,
    setup: Callable[..., None],
    *arguments: Any,
    context: BaseContext | None = None,
) -> ProcessPoolExecutor:
    """Processes, for threads would wait for Python's lock between small operations.

    Args:
        workers: How many.
        setup: Called once in each with the arguments.
        context: How they start; default: `process_context()`.
    """
    pool = ProcessPoolExecutor(
        workers,
        mp_context=context or process_context(),
        initializer=_start,
        initargs=(setup, arguments),
    )
    pool.submit(int).result()  # all start now, before this process has other threads
    return pool


def as_completed(
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, ...]],
    workers: int,
    setup: Callable[..., None],
    *arguments: Any,
) -> Generator[Any]:
    """Apply a function to every task on processes that compute gradients.

    Closing the generator, or an exception such as Ctrl-C, ends the processes at once.

    Args:
        function: Called in a worker with a task's items.
        tasks: What for.
        workers: How many processes at most.
        setup: Called once in each with the arguments.

    Yields:
        Results in the order in which they are finished.

    Raises:
        UserError: If a process was ended from outside.
    """
    tasks = list(tasks)
    if not tasks:
        return
    before = multiprocessing.active_children()
    pool = start_pool(min(workers, len(tasks)), setup, *arguments, context=training_context())
    own = [child for child in multiprocessing.active_children() if child not in before]
    waiting = {pool.submit(function, *task) for task in tasks}
    try:
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process was ended from outside, perhaps for lack of memory: what was finished is "
            "kept, run the same command to go on"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in own:
            child.kill()  # or the program would wait for work that nobody wants
        for child in own:
            child.join()


def _start(setup: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    become_worker()
    setup(*arguments)


def become_worker() -> None:
    """One torch thread, deaf to Ctrl-C, which is the parent's to answer, and ended with it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch use one thread for each operation, and restore the number at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
