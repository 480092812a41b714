"""Tasks on Ray actors: who does which, and what happens when one of them dies or hangs.

An actor holds what tasks have in common (a hypernetwork, images), which lies in Ray's object store
once for each node, and does one task after the other with one torch thread. A thread of this
process hands out tasks, a few to each actor, so that the others wait here and not in the cluster. A
task whose actor dies, or takes longer than a time limit, is done again by another actor.
"""

from __future__ import annotations

import re
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ghnas.utils.errors import UserError, first_line
from ghnas.utils.processes import AHEAD
from ghnas.utils.ray_actor import Actor, versions

ATTEMPTS = 5
"""How often a task may end its worker, or take too long, before it is given up."""
TICK, LOOK, COUNT_NODES = 0.1, 0.5, 3.0
"""Seconds between looks at new tasks, at workers, and at the nodes of the cluster."""
IDLE = 60.0
"""Seconds without a task after which workers are dismissed: others may want their processors."""
SHORTEST_LIMIT, LONGER, FIRST_LIMIT = 600.0, 10.0, 86400.0
"""Without a time limit of the user's: seconds that every task may take; or so many times the
longest so far; and seconds while none is finished."""


@dataclass(frozen=True)
class Terms:
    """What is asked of a cluster; the fields are those of `ghnas.RayPool`."""

    workers: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    time_limit: float | None = None
    patience: float = 60.0

    def fitting(self, nodes: Iterable[dict[str, Any]]) -> int:
        """How many workers fit on the nodes that are alive."""
        needs = {"CPU": self.cpus, "GPU": self.gpus}
        there = [node["Resources"] for node in nodes if node["Alive"]]
        return sum(
            int(min(own.get(kind, 0.0) / need for kind, need in needs.items() if need))
            for own in there
        )


@dataclass(eq=False)
class Work:
    """What the tasks of one `Workers` have in common."""

    number: int
    shared: list[Any]
    longest: float = 0.0


@dataclass(eq=False)
class _Task:
    work: Work
    arguments: tuple[Any, ...]
    future: Future[Any] = field(default_factory=Future)
    begun: bool = False
    failures: int = 0


@dataclass(eq=False)
class _Member:
    """An actor, and the tasks that it has, the first of which it is doing."""

    actor: Any
    introduction: Any
    ready: bool = False
    queue: deque[_Task] = field(default_factory=deque)
    since: float = 0.0

    def begin(self) -> None:
        """Its first task can no longer be cancelled."""
        self.since = time.monotonic()
        if self.queue and not self.queue[0].begun:
            self.queue[0].begun = True
            self.queue[0].future.set_running_or_notify_cancel()


class Dispatcher:
    """Hands out tasks to the actors of a cluster that this process is connected with."""

    def __init__(self, terms: Terms) -> None:
        import ray

        self._ray, self.terms = ray, terms
        self._kind = ray.remote(
            num_cpus=terms.cpus, num_gpus=terms.gpus, max_restarts=0, max_concurrency=1
        )(Actor)
        self._lock, self._new = threading.RLock(), threading.Event()
        self._waiting: deque[_Task] = deque()
        self._flying: dict[Any, tuple[_Member, _Task]] = {}
        self._members: list[_Member] = []
        self._works, self._broken = 0, ""
        self._pace = float("inf")
        """Seconds that a task takes, lately."""
        self._fitting = terms.workers or terms.fitting(ray.nodes())
        now = time.monotonic()
        self._looked = self._counted = self._alive = self._busy = now
        self._rest = 0.0
        """Until when no actor is started, for the last one died at once."""
        self._thread = threading.Thread(target=self._run, name="ghnas-dispatch", daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """How many tasks are done side by side, once all actors are there."""
        return max(self._fitting, 1)

    @property
    def alive(self) -> int:
        """How many actors are at work or ready."""
        return sum(member.ready for member in self._members)

    def new_work(self, build: Callable[..., Any], arguments: tuple[Any, ...]) -> Work:
        """Put into the object store what tasks have in common."""
        self._works += 1
        return Work(self._works, [self._ray.put((build, arguments))])

    def submit(self, work: Work, arguments: tuple[Any, ...]) -> Future[Any]:
        """Do a task when an actor is free.

        Raises:
            UserError: If the cluster is lost.
        """
        with self._lock:
            if self._broken:
                raise UserError(self._broken)
            task = _Task(work, arguments)
            self._waiting.append(task)
            self._hand_out()
        self._new.set()
        return task.future

    def end_work(self, work: Work) -> None:
        """Give up the tasks of a piece of work, and the actors that are busy with it."""
        with self._lock, suppress(Exception):  # the connection may be gone
            given_up = [task for task in self._waiting if task.work is work]
            self._waiting = deque(task for task in self._waiting if task.work is not work)
            for member in tuple(self._members):
                if any(task.work is work for task in member.queue):
                    left = self._dismiss(member)
                    given_up += [task for task in left if task.work is work]
                    self._again(task for task in left if task.work is not work)
                elif member.ready:
                    member.actor.forget.remote(work.number)
            work.shared = []
        _fail(given_up, "the work was given up")

    def close(self) -> None:
        """Dismiss all actors."""
        self._break("the pool is closed")
        if threading.current_thread() is not self._thread:
            self._thread.join(5.0)  # it must not meet a connection that is being closed

    def _run(self) -> None:
        while not self._broken:
            try:
                self._step()
            except Exception as error:
                if self._broken:
                    return
                self._break(
                    f"the connection to the cluster is lost ({first_line(error)}): what was "
                    "finished is kept, run the same command (a search with --resume) to go on"
                )
                if not isinstance(error, ConnectionError | self._ray.exceptions.RayError):
                    traceback.print_exc()  # a mistake of ours

    def _step(self) -> None:
        with self._lock:
            refs = [*self._flying, *(m.introduction for m in self._members if not m.ready)]
        if refs:
            done, _ = self._ray.wait(refs, num_returns=1, timeout=TICK)
            if done and len(refs) > 1:
                done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
            for ref in done:
                self._take(ref)
        else:
            self._new.wait(TICK)
        self._new.clear()
        now = time.monotonic()
        if now - self._counted > COUNT_NODES and self.terms.workers is None:
            self._fitting, self._counted = self.terms.fitting(self._ray.nodes()), now
        if now - self._looked > LOOK or len(self._members) < min(len(self._waiting), 1):
            self._looked = now
            with self._lock:
                self._give_up_the_slow(now)
                self._scale(now)

    def _take(self, ref: Any) -> None:
        """What an actor has to say."""
        with self._lock:
            member, task = self._flying.get(ref, (None, None))
        if member is None or task is None:
            self._welcome(ref)
            return
        errors = self._ray.exceptions
        value, failure = None, None
        try:
            value = self._ray.get(ref)
        except errors.RayTaskError as error:  # of the task itself
            failure = error.cause if isinstance(error.cause, Exception) else error
        except errors.RayError:
            with self._lock:
                self._lose(member, "its worker died")
            return
        with self._lock:
            if self._flying.pop(ref, None) is None:
                return  # given up meanwhile
            took = time.monotonic() - member.since
            task.work.longest = max(task.work.longest, took)
            self._pace = took if self._pace == float("inf") else (self._pace + took) / 2
            member.queue.remove(task)
            if not task.begun:  # results of neighbours may come in any order
                task.begun = True
                task.future.set_running_or_notify_cancel()
            member.begin()
            self._hand_out()
        if task.future.cancelled():
            return
        if failure is None:
            task.future.set_result(value)
        else:
            task.future.set_exception(failure)

    def _welcome(self, ref: Any) -> None:
        """Take in an actor that is there, if it runs what this process runs."""
        with self._lock:
            member = next((m for m in self._members if m.introduction == ref), None)
        if member is None:
            return
        try:
            found = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            if missing := re.search(r"No module named '([\w.]+)'", str(error)):
                self._break(
                    f"a worker of the cluster has no module {missing[1]}: install the same "
                    "ghnas on all its machines"
                )
            with self._lock:
                self._lose(member, "its worker died")
                self._rest = time.monotonic() + 1.0
            return
        for name, here in versions().items():
            if found[name] != here:
                self._break(
                    f"the worker on {found['machine']} has {name} {found[name]} and this machine "
                    f"{here}: install the same on all machines of the cluster"
                )
                return
        with self._lock:
            member.ready, member.since = True, time.monotonic()
            self._hand_out()

    def _hand_out(self) -> None:
        """Give waiting tasks to actors: to each one, and more if they are done in no time."""
        depth = min(max(int(1 / max(self._pace, 1e-9)), 1), AHEAD)
        while self._waiting:
            free = [m for m in self._members if m.ready and len(m.queue) < depth]
            if not free:
                return
            member, task = min(free, key=lambda m: len(m.queue)), self._waiting.popleft()
            if task.future.cancelled():
                continue
            work = task.work
            ref = member.actor.work.remote(work.number, work.shared, task.arguments)
            self._flying[ref] = member, task
            member.queue.append(task)
            if len(member.queue) == 1:
                member.begin()

    def _give_up_the_slow(self, now: float) -> None:
        for member in tuple(self._members):
            if not member.queue:
                continue
            longest = member.queue[0].work.longest
            limit = self.terms.time_limit or (
                max(SHORTEST_LIMIT, LONGER * longest) if longest else FIRST_LIMIT
            )
            if now - member.since > limit:
                self._lose(member, f"it took longer than {limit:,.0f} s")

    def _scale(self, now: float) -> None:
        """As many actors as the cluster holds and there are tasks for."""
        wanted = len(self._waiting) + len(self._flying)
        if wanted:
            self._busy = now
        elif now - self._busy > IDLE:
            for member in tuple(self._members):
                self._dismiss(member)
        if self.alive or not wanted:
            self._alive = now
        elif now - self._alive > self.terms.patience:
            self._break(
                f"no worker of the cluster has been alive for {self.terms.patience:g} s "
                f"({self._fitting} fit on its machines): what was finished is kept, run the same "
                "command (a search with --resume) to go on"
            )
        for member in [m for m in self._members if not m.ready][: len(self._members) - self.count]:
            self._dismiss(member)  # the cluster shrank: it would wait for a place
        while len(self._members) < min(wanted, self.count) and now > self._rest:
            actor = self._kind.remote(self.terms.cpus)
            self._members.append(_Member(actor, actor.introduce.remote()))

    def _lose(self, member: _Member, why: str) -> None:
        """Do the tasks of an actor again, elsewhere."""
        left = self._dismiss(member)
        if left:
            left[0].failures += 1
            if left[0].failures >= ATTEMPTS:
                _fail(
                    [left[0]],
                    f"a task was given up after {ATTEMPTS} attempts, the last because {why}: what "
                    "was finished is kept",
                )
        self._again(task for task in left if not task.future.done())
        self._hand_out()

    def _again(self, tasks: Iterable[_Task]) -> None:
        self._waiting.extendleft(reversed(list(tasks)))

    def _dismiss(self, member: _Member) -> list[_Task]:
        """End an actor; its tasks, in their order."""
        if member not in self._members:
            return []
        self._members.remove(member)
        self._flying = {r: pair for r, pair in self._flying.items() if pair[0] is not member}
        with suppress(Exception):
            self._ray.kill(member.actor)
        return list(member.queue)

    def _break(self, why: str) -> None:
        """End all actors, and fail all tasks, now and from now on."""
        with self._lock:
            self._broken = self._broken or why
            tasks = [*self._waiting, *(task for _, task in self._flying.values())]
            self._waiting.clear()
            for member in tuple(self._members):
                self._dismiss(member)
        _fail(tasks, why)


def _fail(tasks: Iterable[_Task], why: str) -> None:
    for task in tasks:
        if not task.begun:
            task.begun = True
            task.future.set_running_or_notify_cancel()
        if not task.future.cancelled():
            task.future.set_exception(UserError(why))
