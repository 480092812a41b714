"""Workers that do tasks side by side, and where they are."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Future,
    wait,
)
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Generic, Protocol, Self, TypeVar

from ghnas.utils.process_executor import GRACE, ProcessExecutor, all_alive
from ghnas.utils.single_thread import one_torch_thread

Result = TypeVar("Result")
LOOK = 1.0
"""Seconds after which it is seen to that somebody works on what is waited for."""
AHEAD = 4
"""Tasks that wait for each process, so that none is idle while results are taken."""


class Executor(Protocol):
    """Who does the tasks of `Workers`."""

    @property
    def count(self) -> int:
        """How many tasks are done side by side."""

    def submit(self, task: tuple[Any, ...]) -> Future[Any]:
        """Do a task when somebody is free."""

    def check(self, within: float = 0) -> None:
        """See whether what was submitted can still be done.

        Args:
            within: Seconds in which it may turn out that it cannot.

        Raises:
            UserError: If not.
        """

    def close(self) -> None:
        """Give up what is not done."""


def _some(futures: Collection[Future[Any]], executor: Executor) -> set[Future[Any]]:
    """Those that are done, of which one is waited for."""
    while not (done := wait(futures, LOOK, FIRST_COMPLETED).done):
        executor.check()
    return done


class Workers(Generic[Result]):
    """Processes that work on tasks side by side, each with one torch thread.

    Processes and not threads, which would wait for Python's lock between small operations. A
    single worker works in this process, also with one torch thread: results do not depend on the
    number of workers. The processes ignore Ctrl-C, which is this process's to answer; `close`
    ends them at once, and so does the end of this process.

    Args:
        count: How many; 0 is as 1.
        build: Called once in each worker with the arguments; returns what is called for each task.
            Both must be picklable.
        arguments: What all tasks have in common.
        gradients: Whether tasks compute gradients. Autograd refuses to work in a fork of a process
            in which it has threads of its own, as after `torch.export` or on a GPU: then, and on
            other systems than Linux, the processes are spawned, which takes seconds of imports.

    Example:
        with Workers(4, partial, pow, 2) as workers:
            print(list(workers.map([(3,), (4,)])))  # [8, 16]
    """

    def __init__(
        self,
        count: int,
        build: Callable[..., Callable[..., Result]],
        *arguments: Any,
        gradients: bool = False,
    ) -> None:
        self._build = build, arguments
        self._work: Callable[..., Result] | None = None
        self._queue: deque[tuple[Any, ...]] = deque()
        self._futures: set[Future[Result]] = set()
        self._begun: set[Future[Result]] = set()
        self._cancelled, self._until = False, 0.0
        self._stop: Future[Any] = Future()
        self._executor: Executor | None = None
        if count > 1:
            with _uninterrupted():  # or nobody knows of those that have begun
                processes = ProcessExecutor(count, build, arguments, gradients)
                self._use(processes)
                _open.add(self)
            try:
                _some((processes.first,), processes)
                with all_alive():
                    processes.first.result()
            except BaseException:  # not when nobody has the error any more
                self.close()
                raise

    def _use(self, executor: Executor) -> None:
        """Leave the tasks to others; they are given up with this object."""
        self._executor = executor
        self._end = weakref.finalize(self, executor.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, *task: Any) -> None:
        """Put a task behind those that wait; `as_completed` gives its result."""
        if self._executor is None:
            self._queue.append(task)
        else:
            with all_alive():
                self._futures.add(self._executor.submit(task))

    def as_completed(self, tasks: Iterable[tuple[Any, ...]] = ()) -> Generator[Result]:
        """Results of these tasks and of those that were submitted, in the order in which they are
        finished. More may be submitted meanwhile.

        Raises:
            UserError: If a process was ended from outside.
        """
        for task in tasks:
            self.submit(*task)
        while self._queue:
            yield self._here(self._queue.popleft())
        while self._futures and self._executor is not None:
            done = _some(self._futures, self._executor)
            self._futures -= done
            for future in done:
                with all_alive():
                    result = future.result()
                yield result

    def wait(self, timeout: float) -> bool:
        """Wait for the tasks that were submitted, for so many seconds; returns whether all are
        finished. Their results are dropped.

        Raises:
            UserError: If a process was ended from outside, whatever error others have of it.
        """
        while self._queue:
            self._here(self._queue.popleft())
        done, self._futures = wait(self._futures, timeout, return_when=FIRST_EXCEPTION)
        for future in done:
            try:
                with all_alive():
                    future.result()
            except RuntimeError:  # what talks to an ended process may know before anybody else
                if self._executor is not None:
                    self._executor.check(within=GRACE)
                raise
        if self._futures and self._executor is not None:
            self._executor.check()
        return not self._futures

    def map(self, tasks: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
        """Results in the order of the tasks; no more than a few wait to be taken. After `cancel` it
        ends before the first task that was not finished.

        Raises:
            UserError: If a process was ended from outside.
        """
        if self._executor is None:
            yield from map(self._here, takewhile(lambda _: not self._cancelled, tasks))
            return
        begun: deque[Future[Result]] = deque()
        with all_alive(), suppress(CancelledError):
            for task in takewhile(lambda _: not self._cancelled, tasks):
                begun.append(self._executor.submit(task))
                self._begun.add(begun[-1])
                if len(begun) > AHEAD * self._executor.count:
                    yield self._result(begun.popleft(), self._executor)
            while begun:
                yield self._result(begun.popleft(), self._executor)

    def _result(self, future: Future[Result], executor: Executor) -> Result:
        self._begun.discard(future)
        _some((future, self._stop), executor)
        if self._cancelled:
            wait((future,), timeout=max(self._until - time.monotonic(), 0))
            if not future.done():
                raise CancelledError
        return future.result()

    def cancel(self) -> None:
        """Give up the tasks of `map` that no process has begun, and in `GRACE` seconds the others;
        may be called by any thread, once."""
        self._until, self._cancelled = time.monotonic() + GRACE, True
        self._stop.set_result(None)
        for future in tuple(self._begun):
            future.cancel()

    def close(self) -> None:
        """End the processes; tasks that are not finished are lost."""
        self._queue.clear()
        self._futures.clear()
        self._work = None
        if self._executor is not None:
            self._end()

    def _here(self, task: tuple[Any, ...]) -> Result:
        with one_torch_thread():
            if self._work is None:
                build, arguments = self._build
                self._work = build(*arguments)
            return self._work(*task)


_open: weakref.WeakSet[Workers[Any]] = weakref.WeakSet()
"""Those of this process whose processes may still be there."""


def _close_all() -> None:
    """End the processes before a program's end waits for them: it would let them end on their own
    account, and one that is killed then, with the lock of the tasks, lets the others wait for it,
    for ever."""
    for workers in tuple(_open):
        workers.close()


# not of `atexit`, whose turn comes after the wait; the last to be registered is the first
threading._register_atexit(_close_all)  # type: ignore[attr-defined]
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_open.clear)  # they are the parent's to end


class Pool(Protocol):
    """Where work is done side by side: processes of this machine, or a cluster's.

    What asks a pool for workers does not know which it has; results do not depend on it.
    """

    @property
    def size(self) -> int:
        """How many tasks are done side by side, as far as is known now."""

    def start(
        self,
        build: Callable[..., Callable[..., Result]],
        *arguments: Any,
        tasks: int | None = None,
        gradients: bool = False,
    ) -> Workers[Result]:
        """Workers for tasks that have something in common.

        Args:
            build, arguments, gradients: As in `Workers`.
            tasks: How many there will be, where that is known: no more workers are started.
        """


@dataclass(frozen=True)
class LocalPool(Pool):
    """Processes of this machine.

    Args:
        workers: How many; with 1, none is started.
    """

    workers: int

    @property
    def size(self) -> int:
        return self.workers

    def start(
        self,
        build: Callable[..., Callable[..., Result]],
        *arguments: Any,
        tasks: int | None = None,
        gradients: bool = False,
    ) -> Workers[Result]:
        count = self.workers if tasks is None else min(self.workers, tasks)
        return Workers(count, build, *arguments, gradients=gradients)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C, or a wish to end, arrive when a block is over."""
    arrived: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # which alone hears of them
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in heard:
        signal.signal(number, lambda number, frame: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
    for number in arrived:
        signal.raise_signal(number)
