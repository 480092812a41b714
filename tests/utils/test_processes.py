"""Worker processes end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import os, time
from ghnas.utils.processes import start_pool

def note() -> None:
    print(os.getpid(), flush=True)

pool = start_pool(1, note)
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


TRAINING = """
import torch
from ghnas.utils.processes import start_pool, training_context

class Doubled(torch.nn.Module):
    def forward(self, x):
        return 2 * x if x.shape[0] > 1 else x

def slope() -> float:
    x = torch.ones(1, requires_grad=True)
    (3 * x).sum().backward()
    return float(x.grad)

def nothing() -> None:
    pass

if __name__ == "__main__":
    for threads_of_autograd in (False, True):
        if threads_of_autograd:
            torch.export.export(Doubled(), (torch.ones(2, 3),), strict=False)
            slope()
        context = training_context()
        with start_pool(1, nothing, context=context) as pool:
            print(context.get_start_method(), pool.submit(slope).result())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_gradients_after_an_export(tmp_path: Path) -> None:
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    done = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=True)
    forked, second = done.stdout.splitlines()
    assert forked == "fork 3.0"
    assert second in ("spawn 3.0", "fork 3.0")  # spawned where autograd cannot be forked


def _alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
