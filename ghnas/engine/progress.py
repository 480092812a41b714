"""How far a search is, and its interruption by Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ghnas.engine.objectives import Objective
from ghnas.engine.trials import Trial, primary

WINDOW = 30.0
"""Seconds over which the rate is measured."""


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is.

    Args:
        done: Candidates recorded, those of earlier calls included.
        budget: Candidates in all.
        best: Best accuracy in [0, 1], or best value of the first objective where there is no
            accuracy; None before the first batch.
        duplicates: Candidates that were isomorphic to an earlier one.
        scored: Architectures evaluated in this call.
        rate: Candidates per second, lately; 0 before the first batch.
        eta: Seconds to go; None while the rate is not known.
        finishing: Whether the search was interrupted and waits for the batches in flight.
    """

    done: int
    budget: int
    best: float | None
    duplicates: int
    scored: int
    rate: float
    eta: float | None
    finishing: bool = False


Report = Callable[[SearchProgress], None]


class Meter:
    """Counts trials, and reports.

    Args:
        report: Called by `show`.
        budget: Candidates in all.
        objective: What is optimised.
    """

    def __init__(self, report: Report, budget: int, objective: Objective) -> None:
        self.report = report
        self.budget = budget
        self.done = 0
        self.duplicates = 0
        self.scored = 0
        self.best: float | None = None
        self.finishing = False
        self._place = primary(objective.names)
        self._better = max if objective.directions[self._place] == "maximize" else min
        self._marks: deque[tuple[float, int]] = deque()

    def count(self, trial: Trial) -> None:
        """Count a trial that was recorded."""
        self.done += 1
        self.duplicates += trial.duplicate_of is not None
        if trial.accuracy is not None:
            self.best = max(trial.accuracy, self.best or 0.0)
        elif trial.values:
            value = trial.values[self._place]
            self.best = value if self.best is None else self._better(value, self.best)

    def finish(self) -> None:
        """Report that the search was interrupted."""
        self.finishing = True
        self.show()

    def show(self) -> None:
        """Report how far the search is."""
        now = time.perf_counter()
        self._marks.append((now, self.done))
        while len(self._marks) > 2 and now - self._marks[1][0] > WINDOW:
            self._marks.popleft()
        then, done = self._marks[0]
        rate = (self.done - done) / (now - then) if now > then else 0.0
        left = self.budget - self.done
        eta = 0.0 if left <= 0 else left / rate if rate > 0 else None
        self.report(
            SearchProgress(
                self.done, self.budget, self.best, self.duplicates, self.scored, rate, eta,
                self.finishing,
            )
        )  # fmt: skip


@contextmanager
def deferred_interrupt(announce: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a request; the second one interrupts.

    Args:
        announce: Called at the first Ctrl-C.

    Yields:
        Whether there was one.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # only the main thread hears of Ctrl-C
        return

    def request(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        asked.set()
        announce()

    before = signal.signal(signal.SIGINT, request)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
