"""Work on a Ray cluster: what comes out is what comes out here, whoever dies."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from searching import OWN_SPACE, entries, save_untrained, write_own_task

import ghnas
from ghnas.architectures.architecture import Architecture
from ghnas.data import load_data
from ghnas.engine.progress import SearchProgress
from ghnas.engine.run import open_run
from ghnas.engine.runs import find_run
from ghnas.engine.stages import short_list
from ghnas.engine.trials import Trial
from ghnas.spaces import parse_space
from ghnas.utils import ray_dispatch
from ghnas.utils.cluster import RayPool, connect
from ghnas.utils.errors import UserError
from ghnas.utils.processes import AHEAD, LocalPool
from ghnas.utils.tables import read_rows
from ghnas.utils.tensor_files import read_tensors

ROOT = Path(__file__).parent.parent.parent
Ghnas = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and another node, with a processor each."""
    pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, *_folders()))))
        try:
            made = Cluster(
                initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
            )
            made.add_node(num_cpus=1)
        except Exception as error:
            pytest.skip(f"Ray does not start here: {error}")
        yield made
        import ray

        ray.shutdown()
        made.shutdown()


def _folders() -> list[Path]:
    """Where workers find this module, and what it imports."""
    return [Path(__file__).parent, ROOT / "tests"]


@pytest.fixture(scope="module")
def pool(cluster: Any) -> Iterator[RayPool]:
    with RayPool(cluster.address) as pool:
        yield pool


def test_results_come_in_the_order_of_the_tasks(pool: RayPool) -> None:
    with pool.start(partial, pow, 2) as workers, pool.start(partial, pow, 3) as others:
        assert list(workers.map((i,) for i in range(50))) == [2**i for i in range(50)]
        assert list(others.map([(2,)])) == [9]  # with whom they share the processors
        workers.submit(50)
        found = []
        for result in workers.as_completed([(51,), (52,)]):
            found.append(result)
            if len(found) == 1:
                workers.submit(53)  # more, while results come
        assert sorted(found) == [2**i for i in range(50, 54)]


def fail(number: int) -> int:
    if number == 2:
        raise UserError("two is not for us")
    return number


def test_errors_of_a_task_come_back(pool: RayPool) -> None:
    with (
        pool.start(partial, fail) as workers,
        pytest.raises(UserError, match=r"^two is not for us$"),
    ):
        list(workers.map([(1,), (2,), (3,)]))


def test_few_tasks_wait_in_the_cluster(pool: RayPool) -> None:
    drawn = []

    def tasks() -> Iterator[tuple[int, float]]:
        for number in range(1000):
            drawn.append(number)
            yield number, 0.0

    with pool.start(partial, slowly) as workers:
        for taken, _ in enumerate(workers.map(tasks()), start=1):
            assert len(drawn) <= taken + AHEAD * 2 + 1
            if taken == 40:
                break


def slowly(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number


def test_cancelled_tasks_are_given_up(pool: RayPool) -> None:
    with pool.start(partial, slowly) as workers:
        results = workers.map([(1, 0.0), (2, 600.0), *((i, 0.0) for i in range(3, 99))])
        assert next(results) == 1
        workers.cancel()
        assert list(results) == []


def decoders(folder: Path) -> int:
    """Processes that decode images for this one."""
    split = load_data(str(folder), in_memory=0, cache=folder.parent / "cache").train
    batches = split.read([torch.arange(2)])
    next(batches)
    return len(multiprocessing.active_children())


def test_a_worker_decodes_on_the_processors_that_it_was_given(
    pool: RayPool, tmp_path: Path
) -> None:
    write_own_task(tmp_path, (8, 8), each=12)
    with pool.start(partial, decoders) as workers:
        assert list(workers.map([(tmp_path / "pets",)])) == [0]


def value(architecture: Architecture) -> float:
    time.sleep(0.02)
    return int(architecture.hash[:8], 16) / 16**8


def test_a_search_goes_on_with_other_workers(pool: RayPool, tmp_path: Path) -> None:
    """Whoever calls the function, and how many there are."""
    space = ghnas.load_space("nasbench201").with_skeleton(channels=4, cells=1)
    search = partial(ghnas.search, space, value, 48, batch_size=12, sampler="evolution")

    def stop(progress: SearchProgress) -> None:
        if progress.done == 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(path=tmp_path / "parts", pool=pool, report=stop)
    assert len(open_run(tmp_path / "parts").read()) == 24
    search(path=tmp_path / "parts", pool=LocalPool(1))
    search(path=tmp_path / "whole")
    assert entries(open_run(tmp_path / "parts")) == entries(open_run(tmp_path / "whole"))


@pytest.mark.slow
def test_every_stage_is_that_of_this_machine(
    ghnas: Ghnas, cluster: Any, pool: RayPool, tmp_path: Path
) -> None:
    """Search, fine-tuning, ground truth and ranking, by the command line."""
    task = write_own_task(tmp_path, (8, 8), each=12)
    space, data = parse_space(OWN_SPACE, "mine"), load_data(str(tmp_path / "pets"))
    ghn = save_untrained(tmp_path / "ghn.safetensors", space, data)
    losses: dict[str, dict[str, float]] = {}
    trained: dict[str, set[str]] = {}
    scores: dict[str, dict[str, float]] = {}
    weights: dict[str, dict[str, torch.Tensor]] = {}
    for name, options in (("here", ()), ("there", ("--cluster", cluster.address))):
        results, truth = tmp_path / name, tmp_path / f"{name}.csv"

        def run(*arguments: object, options: tuple[object, ...] = options) -> Any:
            code, out, err = ghnas(*arguments, "--json", *options)
            assert code == 0, err
            assert "ray" not in err
            return json.loads(out)

        run(
            "search", *task, "--ghn", ghn, "--objective", "accuracy,loss", "--budget", 24,
            "--results", results,
        )  # fmt: skip
        losses[name] = {t.hash: t.values[1] for t in find_run(results).read()}
        tuned = run("finetune", "trial-0", "--epochs", 1, "--results", results)[0]
        weights[name], _ = read_tensors(Path(tuned["path"]) / "model.safetensors")
        run("truth", *task, "--count", 3, "--seeds", 1, "--steps", 2, "--output", truth)
        trained[name] = {line.split(",")[0] for line in truth.read_text().splitlines()}
        ranked = tmp_path / f"rank-{name}"
        run("rank", *task, "--truth", truth, "--methods", "naswot,params", "--output", ranked)
        rows = read_rows(ranked / "scores.csv", ())
        scores[name] = {f"{r['architecture']} {r['method']}": float(r["score"]) for r in rows}
    assert losses["here"] == losses["there"]
    assert trained["here"] == trained["there"]
    assert scores["here"] == scores["there"]
    torch.testing.assert_close(weights["here"], weights["there"], rtol=0, atol=0)


@pytest.mark.slow
def test_trainings_of_a_search_are_those_of_this_machine(
    ghnas: Ghnas, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--train`; a node is killed while it trains."""
    monkeypatch.setattr(ray_dispatch, "IDLE", 0.0)  # another pool's workers leave their places
    task = write_own_task(tmp_path, (8, 8), each=12)
    node, recorded = cluster.add_node(num_cpus=2), list[int]()
    frozen_training = short_list.frozen_training

    def record(form: Any, trial: Trial, *rest: Any) -> Any:
        recorded.append(trial.number)
        if len(recorded) == 3:
            cluster.remove_node(node, allow_graceful=False)
        return frozen_training(form, trial, *rest)

    found: dict[str, dict[tuple[int, int, int], float]] = {}
    orders: dict[str, list[int]] = {}
    for name, options in (("here", ()), ("there", ("--cluster", cluster.address))):
        results = tmp_path / name
        if name == "there":
            monkeypatch.setattr(short_list, "frozen_training", record)
        code, _, err = ghnas(
            "search", *task, "--ghn", "none", "--objective", "naswot", "--budget", 16,
            "--train", 8, "--train-steps", 3, "--results", results, *options,
        )  # fmt: skip
        assert code == 0, err
        run = find_run(results)
        found[name] = {(r.trial, r.steps, r.repeat): r.outcome for r in run.trainings()}
        orders[name] = [trial.number for trial in run.ranked()]
    assert len(recorded) == len(found["there"]) == len(found["here"]) == 8
    assert found["there"] == found["here"]
    assert orders["there"] == orders["here"]


def process(number: int) -> tuple[int, int]:
    time.sleep(0.1)
    return number, os.getpid()


@pytest.mark.slow
def test_a_worker_and_a_node_that_die_cost_nothing_but_time(cluster: Any, pool: RayPool) -> None:
    node = cluster.add_node(num_cpus=1)
    most = 3000  # on a busy machine it takes a while until the new node works
    with pool.start(partial, process) as workers:
        found, at_work = [], set()
        numbers = takewhile(lambda i: i < most, count())
        for number, worker in workers.map((i,) for i in numbers):
            found.append(number)
            at_work.add(worker)
            if number == 20:
                os.kill(worker, signal.SIGKILL)
            if len(at_work) > 3 and node is not None:
                cluster.remove_node(node, allow_graceful=False)
                node, most = None, number + 100
        assert found == list(range(most))
        assert node is None  # or the new node was never used


def hang_once(marks: Path, number: int) -> int:
    mark = marks / str(number)
    if number % 2 and not mark.exists():
        mark.touch()
        time.sleep(600)
    return number


def end_itself(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_task_that_hangs_is_done_elsewhere(
    cluster: Any, pool: RayPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_dispatch, "ATTEMPTS", 2)
    monkeypatch.setattr(pool._dispatcher, "terms", ray_dispatch.Terms(time_limit=1.0))
    with pool.start(partial, hang_once, tmp_path) as workers:
        assert list(workers.map([(0,), (1,), (2,)])) == [0, 1, 2]
    monkeypatch.setattr(pool._dispatcher, "terms", ray_dispatch.Terms())
    with (
        pool.start(partial, end_itself) as workers,
        pytest.raises(UserError, match=r"given up after 2 attempts.*its worker died"),
    ):
        list(workers.map([(1,)]))


def test_other_versions_are_refused(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_dispatch, "versions", lambda: {"ghnas": "0.0.7", "torch": "2.11"})
    with (
        RayPool(cluster.address, cpus=0.001) as pool,
        pool.start(partial, pow, 2) as workers,
        pytest.raises(UserError, match=r"^the worker on \S+ has ghnas .* this machine 0\.0\.7"),
    ):
        list(workers.map([(1,)]))


def test_without_workers_for_long_the_work_is_given_up(cluster: Any) -> None:
    with (
        RayPool(cluster.address, workers=1, gpus=1, patience=0.5) as pool,
        pool.start(partial, pow, 2) as workers,
        pytest.raises(UserError, match=r"^no worker of the cluster has been alive for 0\.5 s"),
    ):
        list(workers.map([(1,)]))


def test_a_cluster_that_cannot_be_reached(ghnas: Ghnas, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        for address in ("127.0.0.1:%d", "ray://127.0.0.1:%d"):
            address %= taken.getsockname()[1]
            code, out, err = ghnas("truth", "--cluster", address)
            assert (code, out) == (2, "")
            assert err.startswith(f"ghnas: the cluster {address} cannot be reached (Connection re")
            assert err.count("\n") == 1
    for address in ("head", "ray://", "http://head:1"):
        with pytest.raises(UserError, match=r"^a cluster is auto, ray://HOST:PORT or HOST:PORT"):
            connect(address)


def test_ray_is_an_extra(ghnas: Ghnas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    code, _, err = ghnas("search", "--cluster", "auto")
    assert code == 2
    assert err == (
        "ghnas: a cluster needs Ray, which is not installed: pip install 'ghnas[cluster]'\n"
    )
