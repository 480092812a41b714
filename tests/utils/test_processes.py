"""Workers: the same results however many there are, and none that outlives its parent."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch

from ghnas.utils.errors import UserError
from ghnas.utils.processes import Workers


def threads_and_power(base: int, exponent: int) -> tuple[int, int]:
    return torch.get_num_threads(), base**exponent


@pytest.mark.parametrize("count", [1, 3])
def test_tasks_are_done_with_one_torch_thread(count: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Workers(count, partial, threads_and_power, 2) as workers:
            assert list(workers.map((i,) for i in range(5))) == [(1, 2**i) for i in range(5)]
            workers.submit(5)
            found = []
            for result in workers.as_completed([(6,), (7,)]):
                found.append(result)
                if len(found) == 1:
                    workers.submit(8)  # more, while results come
            assert sorted(found) == [(1, 2**i) for i in range(5, 9)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def slowly(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number


@pytest.mark.parametrize("count", [1, 2])
def test_cancelled_tasks_are_not_begun(count: int) -> None:
    """What was begun is finished, in the order of the tasks, and nothing is left out between."""
    with Workers(count, partial, slowly) as workers:
        found = []
        for number in workers.map((i, 0.05) for i in range(1000)):
            found.append(number)
            if number == 3:
                workers.cancel()
    assert found == list(range(len(found)))
    assert 4 <= len(found) <= 4 + 2 * count + 1


def test_tasks_that_take_long_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ghnas.utils.processes.GRACE", 0.1)
    with Workers(2, partial, slowly) as workers:
        results = workers.map([(1, 0.0), (2, 600.0), (3, 0.0)])
        assert next(results) == 1
        workers.cancel()
        assert list(results) == []


class Counter:
    """State that a worker builds once."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> tuple[int, int]:
        self.calls += 1
        return os.getpid(), self.calls


@pytest.mark.parametrize("count", [0, 1, 2])
def test_state_is_built_once_in_each_worker(count: int) -> None:
    with Workers(count, Counter) as workers:
        found = list(workers.map([()] * 8))
    processes = {process for process, _ in found}
    assert len(processes) <= max(count, 1)
    assert (os.getpid() in processes) == (count < 2)
    for process in processes:
        calls = [number for where, number in found if where == process]
        assert calls == list(range(1, len(calls) + 1))


def fail(number: int) -> int:
    if number == 2:
        raise UserError("two is not for us")
    return number


@pytest.mark.parametrize("count", [1, 2])
def test_errors_of_a_task_come_back(count: int) -> None:
    with Workers(count, partial, fail) as workers:
        with pytest.raises(UserError, match="two is not for us"):
            list(workers.map([(1,), (2,), (3,)]))
        with pytest.raises(UserError, match="two is not for us"):
            list(workers.as_completed([(1,), (2,), (3,)]))


def end_itself(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("way", [Workers.map, Workers.as_completed])
def test_a_killed_worker_is_one_sentence(way: Callable[..., list[None]]) -> None:
    with (
        Workers(2, partial, end_itself) as workers,
        pytest.raises(UserError, match=r"^a process was ended from outside.*is kept"),
    ):
        list(way(workers, [(1,), (2,)]))


@pytest.mark.parametrize("way", [Workers.map, Workers.as_completed])
def test_so_is_work_for_workers_that_were_killed_before(way: Callable[..., list[None]]) -> None:
    with Workers(2, partial, end_itself) as workers:
        for _ in range(2):
            with pytest.raises(UserError, match=r"^a process was ended from outside"):
                list(way(workers, [(1,)]))


def sleep(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def test_closing_ends_what_still_runs() -> None:
    with Workers(2, partial, sleep) as workers:
        results = workers.as_completed([(0,), (600,), (600,)])
        first = next(results)
        assert _alive(first)
    assert not _alive(first)  # and the test does not take ten minutes


def test_closing_ends_the_threads_too() -> None:
    before = threading.active_count()
    for _ in range(20):  # a program that ends would meet one that is about to end
        with Workers(2, partial, sleep) as workers:
            assert next(workers.as_completed([(0,)]))
        assert threading.active_count() == before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_processes_of_which_a_part_cannot_be_started_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a user may have no more of them: those that run would wait for work for ever."""
    started: list[int] = []
    fork = os.fork

    def fork_once() -> int:
        if started:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        if pid := fork():
            started.append(pid)
        return pid

    monkeypatch.setattr("os.fork", fork_once)
    with pytest.raises(BlockingIOError):
        Workers(3, partial, sleep)
    assert not _alive(*started)


@pytest.mark.parametrize("most", range(5))
def test_processes_are_not_begun_without_their_threads(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """A pool whose second thread cannot start would be waited for, for ever."""
    before, running = active_children(), threading.active_count()
    start, started = threading.Thread.start, []

    def start_some(self: threading.Thread) -> None:
        if len(started) == most:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    monkeypatch.setattr("threading.Thread.start", start_some)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Workers(3, partial, sleep)
    assert (active_children(), threading.active_count()) == (before, running)


def halve(number: int) -> float:
    time.sleep(number / 100)
    return 1 / number


@pytest.mark.parametrize("count", [1, 2])
def test_waiting_for_what_was_submitted(count: int) -> None:
    with Workers(count, partial, halve) as workers:
        assert workers.wait(timeout=0)
        for number in (1, 20):
            workers.submit(number)
        while not workers.wait(timeout=0.02):
            assert count > 1  # a single one works in this process, to the end
        workers.submit(0)
        with pytest.raises(ZeroDivisionError):
            workers.wait(timeout=60)


def lose(number: int) -> None:
    """What processes do that talk to each other: all but the one that is killed have an error of
    it, and perhaps before anybody else knows."""
    if number == 0:
        time.sleep(0.3)
        end_itself(number)
    raise RuntimeError("connection closed by peer")


def test_a_killed_worker_is_the_reason_for_the_errors_of_the_others() -> None:
    with Workers(2, partial, lose) as workers:
        for number in range(2):
            workers.submit(number)
        with pytest.raises(UserError, match=r"^a process was ended from outside"):
            workers.wait(timeout=60)


def test_without_one_an_error_stays_what_it_is() -> None:
    with Workers(2, partial, lose) as workers:
        workers.submit(1)
        with pytest.raises(RuntimeError, match="connection closed by peer"):
            workers.wait(timeout=60)


PARENT = """
import os, time
from ghnas.utils.processes import Workers

class Told:
    def __init__(self) -> None:
        print(os.getpid(), flush=True)
    def __call__(self) -> None:
        pass

workers = Workers(2, Told)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such signal")
def test_workers_do_not_outlive_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)  # it lives
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(200):
        if not _alive(worker):
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker lives on")


INTERRUPTED = """
import os, signal
from ghnas.utils.processes import Workers

signal.signal(signal.SIGINT, signal.default_int_handler)
parent, forks = os.getpid(), []
os.register_at_fork(
    before=lambda: forks.append(None),
    after_in_child=lambda: len(forks) == 1 and os.kill(parent, signal.SIGINT),
)
Workers(2, int)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_an_interrupt_while_processes_start_ends_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert done.returncode in (130, -signal.SIGINT)
    assert done.stderr.strip().endswith("KeyboardInterrupt")


TRAINING = """
import multiprocessing
from functools import partial
import torch
from ghnas.utils.processes import Workers

class Doubled(torch.nn.Module):
    def forward(self, x):
        return 2 * x if x.shape[0] > 1 else x

def slope() -> tuple[str, float]:
    x = torch.ones(1, requires_grad=True)
    (3 * x).sum().backward()
    return type(multiprocessing.current_process()).__name__, float(x.grad)

if __name__ == "__main__":
    for threads_of_autograd in (False, True):
        if threads_of_autograd:
            torch.export.export(Doubled(), (torch.ones(2, 3),), strict=False)
            slope()
        with Workers(2, partial, slope, gradients=True) as workers:
            print(*next(workers.map([()])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_gradients_after_an_export(tmp_path: Path) -> None:
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    done = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=True)
    forked, second = done.stdout.splitlines()
    assert forked == "ForkProcess 3.0"
    # spawned where autograd cannot be forked
    assert second in ("SpawnProcess 3.0", "ForkProcess 3.0")


FIRST_KILLED = """
import os, signal
from ghnas.utils.errors import UserError
from ghnas.utils.processes import Workers

if __name__ == "__main__":
    os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGKILL))
    try:
        Workers(2, int, gradients=True)
    except UserError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_a_killed_process_does_not_decide_how_others_begin(tmp_path: Path) -> None:
    """It was the one that tries whether gradients can be computed in a fork."""
    assert "ended from outside" in _printed(FIRST_KILLED, tmp_path, seconds=60)


def _alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _printed(program: str, folder: Path, *arguments: str, seconds: float) -> str:
    """What a program prints, which is a file, as processes that are spawned need it, and ends."""
    script = folder / "program.py"
    script.write_text(program)
    return subprocess.run(
        [sys.executable, script, *arguments],
        stdout=subprocess.PIPE, text=True, check=True, timeout=seconds,
    ).stdout  # fmt: skip


LEFT_OPEN = """
import os, signal
from multiprocessing import active_children
from ghnas.utils.processes import Workers

workers = Workers(2, int)
os.kill(active_children()[0].pid, signal.SIGSTOP)
print("over")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_a_program_ends_whose_workers_do_not_end_by_themselves(tmp_path: Path) -> None:
    """One stands still, perhaps with the lock that the others need, and nobody has closed them."""
    assert _printed(LEFT_OPEN, tmp_path, seconds=60) == "over\n"


CLOSED_EARLY = """
import time
from functools import partial

from ghnas.utils.processes import Workers

if __name__ == "__main__":
    for number in range(8):
        workers = Workers(2, partial, bytes.__mul__, bytes(1000))
        for _ in range(6):
            workers.submit(60_000)  # takes a while to be written
        time.sleep(0.05 * number)
        workers.close()
    print("closed")
"""


def test_a_program_ends_that_gave_up_half_written_results(tmp_path: Path) -> None:
    assert _printed(CLOSED_EARLY, tmp_path, seconds=120) == "closed\n"


KILLED_BUSY = """
import os, signal, sys, time
from ghnas.utils.errors import UserError
from ghnas.utils.processes import Workers

def build():
    return work

def work(task):
    if task:
        time.sleep(60)
    return os.getpid()

with Workers(2, build) as workers:
    if os.fork() == 0:  # a process of the program's own has an end of every pipe
        sys.stdin.read()
        os._exit(0)
    (worker,) = workers.map([(b"",)])
    for _ in range(6):
        workers.submit(bytes(2**20))  # more than a pipe holds
    time.sleep(0.5)
    os.kill(worker, signal.SIGKILL)
    try:
        next(workers.as_completed())
    except UserError:
        print("a process was ended")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others do not fork")
def test_a_program_ends_whose_worker_was_killed_while_tasks_were_handed_out() -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", KILLED_BUSY],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert program.wait(timeout=60) == 0
        assert program.stdout is not None
        assert program.stdout.readline() == "a process was ended\n"
    finally:
        program.kill()
        for stream in (program.stdin, program.stdout):
            assert stream is not None
            stream.close()  # the other process ends with its input


CLOSED_WITHOUT_MEMORY = """
import time
from functools import partial
from multiprocessing.process import BaseProcess

from ghnas.utils.processes import Workers

def kill(process):
    raise MemoryError

if __name__ == "__main__":
    workers = Workers(2, partial, time.sleep)
    workers.submit(2)
    time.sleep(0.5)
    BaseProcess.kill = kill
    try:
        workers.close()
    except MemoryError:
        print("no memory")
"""


def test_a_program_ends_that_had_no_memory_to_close(tmp_path: Path) -> None:
    assert _printed(CLOSED_WITHOUT_MEMORY, tmp_path, seconds=60) == "no memory\n"


KILLED_WRITING = """
import os, signal, sys, time
from multiprocessing.connection import Connection

from ghnas.utils.errors import UserError
from ghnas.utils.processes import Workers

def build():
    return work

def work(task):
    if task == "sleep":
        time.sleep(300)
    writes = iter((True, True, False))

    def write(handle, part, system=os.write):  # as where the pipe is full
        if not next(writes):
            os.kill(os.getpid(), signal.SIGKILL)
        return system(handle, part[:1000])

    Connection._send.__defaults__ = (write,)
    return bytes(100_000)

def wait(workers):
    while not workers.wait(timeout=0.1):
        pass

WAYS = {
    "map": lambda workers: list(workers.map([("sleep",), ("",)])),
    "as_completed": lambda workers: list(workers.as_completed()),
    "wait": wait,
}

if __name__ == "__main__":
    with Workers(2, build) as workers:
        for task in ("sleep", ""):
            workers.submit(task)
        try:
            WAYS[sys.argv[1]](workers)
        except UserError as error:
            print(str(error).partition(",")[0])
"""


@pytest.mark.parametrize("way", ["map", "as_completed", "wait"])
def test_a_worker_that_was_killed_while_it_wrote_its_result(tmp_path: Path, way: str) -> None:
    """The pool itself would wait for the rest, for ever."""
    printed = _printed(KILLED_WRITING, tmp_path, way, seconds=60)
    assert printed == "a process was ended from outside\n"
