"""Trains a graph hypernetwork, on one device or on several processes of a CPU."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from ghnas.executors.fused import compile_gradients
from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.config import GHNInfo
from ghnas.training.hypernetwork.loop import Job, TrainProgress, TrainSettings, train_rank
from ghnas.training.hypernetwork.meta_batches import sample_graphs
from ghnas.utils.errors import UserError
from ghnas.utils.files import remove_abandoned, require_writable
from ghnas.utils.limits import require_files
from ghnas.utils.process_executor import context_of_workers
from ghnas.utils.processes import Workers

__all__ = ["Job", "TrainProgress", "TrainSettings", "sample_graphs", "train"]


JobType = TypeVar("JobType", bound=Job)
Work = Callable[[JobType, Callable[[TrainProgress], None], int, int], None]
"""A process's part of a training: of a job, a report, its number and the number of processes."""
LOOPBACK = "127.0.0.1"
FILES, FILES_OF_RANK = 32, 8
"""More than what processes that find each other open: where there are fewer torch aborts, or waits
for ever."""


def train(job: Job, report: Callable[[TrainProgress], None]) -> GHNInfo:
    """Train a hypernetwork and write it to `job.output`.

    The state is kept in `<output>.state` at every evaluation; a training that was interrupted
    goes on from there, with the same architectures and images as if it had not been. On a CPU
    the architectures of a step are shared among `settings.workers` processes, which add up
    their gradients; under `torchrun` among those that it started, on CPUs or GPUs, and
    `job.output` lies where all of them see it.

    Args:
        job: What to train.
        report: Called every `job.report_every` steps and after each evaluation.

    Returns:
        What was written.

    Raises:
        UserError: If `<output>.state` belongs to a training with other settings, or the loss
            is not finite for many steps in a row.
        OSError: If the file cannot be written, which is found out at the start.
    """
    require_writable(job.output)
    run(train_rank, job, report)
    return load_ghn(job.output).info


def run(work: Work[JobType], job: JobType, report: Callable[[TrainProgress], None]) -> None:
    """Do a training's work in this process, or on `job.settings.workers` of a CPU.

    Args:
        work: What each process does.
        job: What to train.
        report: As in `train`.

    Raises:
        UserError: As `train`.
    """
    if dist.is_torchelastic_launched():
        _run_launched(work, job, report)
    elif job.device.type == "cpu" and job.settings.workers > 1:
        _run_on_processes(work, job, report)
    else:
        work(job, report, 0, 1)


def _run_launched(
    work: Work[JobType], job: JobType, report: Callable[[TrainProgress], None]
) -> None:
    """The part of this process, of those that torchrun started, perhaps on several machines."""
    local = int(os.environ["LOCAL_RANK"])
    if job.device.type == "cuda":
        torch.cuda.set_device(local)
        job = replace(job, device=torch.device("cuda", local))
    else:
        torch.set_num_threads(1)
    dist.init_process_group("nccl" if job.device.type == "cuda" else "gloo")
    try:
        if job.device.type == "cpu":
            if local == 0:
                compile_gradients()  # once on each machine
            dist.barrier()
        rank = dist.get_rank()
        work(job, report if rank == 0 else _say_nothing, rank, dist.get_world_size())
        dist.barrier()  # until the first one has written the file
    finally:
        dist.destroy_process_group()


def _say_nothing(progress: TrainProgress) -> None:
    """Only the first process reports."""


def _run_on_processes(
    work: Work[JobType], job: JobType, report: Callable[[TrainProgress], None]
) -> None:
    compile_gradients()  # once, before the processes start
    messages = context_of_workers(gradients=True).SimpleQueue()
    job = replace(job, data=job.data.without_test())
    ranks = job.settings.workers
    require_files(FILES + ranks * FILES_OF_RANK)
    arguments = (work, job, messages, ranks)
    try:
        with Workers(ranks, partial, _work_in_rank, *arguments, gradients=True) as workers:
            store = _rendezvous()  # it has a thread, and so comes after the processes
            for rank in range(ranks):  # none ends before all have begun: each has its process
                workers.submit(store.port, rank)
            try:
                while not workers.wait(timeout=0.2):
                    _read(messages, report)
            finally:
                _read(messages, report)  # if one ended early, the reason may be there
    finally:
        remove_abandoned(job.output, job.state)  # one may have been writing when it was ended


def _rendezvous() -> TCPStore:
    """Where the processes of this machine find each other, and nobody from another machine. It is
    no file: torch waits for ever for the rest of one that is cut off by a full disk."""
    listening = socket.create_server((LOOPBACK, 0))
    port = listening.getsockname()[1]
    return TCPStore(
        LOOPBACK, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
    )


def _read(messages: Any, report: Callable[[TrainProgress], None]) -> None:
    while not messages.empty():
        message = messages.get()
        if isinstance(message, Exception):
            raise message
        report(message)


def _work_in_rank(
    work: Work[Job], job: Job, messages: Any, ranks: int, port: int, rank: int
) -> None:
    if Path("/sys/class/net/lo").exists():  # the loopback needs no name to be looked up
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = TCPStore(LOOPBACK, port)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    try:
        work(job, messages.put, rank, ranks)
        dist.barrier()  # none ends while another may still write to it
    except (UserError, OSError) as error:
        messages.put(error)
    finally:
        dist.destroy_process_group()
