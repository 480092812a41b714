"""Training a hypernetwork, fine-tuning, and getting the network back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from file_limits import files_up_to, workers_end_while_they_write

import ghnas.training.hypernetwork.loop
from ghnas.data import ImageData, load_data, random_batches
from ghnas.executors.fused import compile_gradients
from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.config import GHNConfig
from ghnas.ghn.model import GHN
from ghnas.spaces import load_space
from ghnas.training.hypernetwork.loop import (
    compute_gradients,
    evaluations_after,
    rate_schedule,
    train_rank,
)
from ghnas.training.hypernetwork.meta_batches import MetaBatches
from ghnas.training.hypernetwork.mixture import Mixture
from ghnas.training.hypernetwork.state import TrainingState
from ghnas.training.hypernetwork.training import Job, TrainProgress, TrainSettings, run, train
from ghnas.utils.errors import UserError

needs_alarms = pytest.mark.skipif(not hasattr(signal, "alarm"), reason="needs signals of POSIX")
CPU = torch.device("cpu")
CONFIG = GHNConfig(hid=8, max_shape=(16, 16, 5, 5))
SETTINGS = TrainSettings(
    steps=4, meta_batch=2, batch_size=16, evaluate_every=2, evaluate_architectures=2,
    evaluate_images=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def data() -> ImageData:
    full = load_data()
    small = replace(full, train=full.train.take(160), validation=full.validation.take(64))
    test = full.load_test().take(64)
    return replace(small, load_test=lambda: test)


def job(output: Path, data: ImageData, start: Path | None = None, **changes: object) -> Job:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    space = load_space("darts").with_skeleton(cells=2, channels=4)
    return Job(space, data, CONFIG, settings, output, CPU, start=start, report_every=1)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_ghn(path).state_dict()


def test_learning_rate_falls_at_two_and_five_sixths() -> None:
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], 1.0)
    schedule, rates = rate_schedule(optimizer, 12), []
    for _ in range(12):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1.0] * 8 + [0.1] * 2 + [0.01] * 2)


def test_evaluations_are_counted() -> None:
    for every in (1, 2, 3, 5, 10, 20):
        settings = TrainSettings(steps=10, evaluate_every=every)
        wanted = [step for step in range(1, 11) if step % every == 0 or step == 10]
        for step in range(11):
            assert evaluations_after(settings, step) == sum(other > step for other in wanted)


def test_augmentation(data: ImageData, tmp_path: Path) -> None:
    found = {}
    for name in ("shift", "crop", "randaugment", "crop again"):
        path = tmp_path / f"{name}.safetensors"
        augment = name.partition(" ")[0]
        train(job(path, data, steps=1, evaluate_every=1, augment=augment), lambda progress: None)
        found[name] = load_ghn(path).info.training["history"][0]["loss"]
    assert found["crop"] == found.pop("crop again")
    assert len(set(found.values())) == 3


class Stop(Exception):
    pass


def interrupt(progress: TrainProgress) -> None:
    """After the third step."""
    if progress.step == 3:
        raise Stop


@pytest.mark.parametrize("augment", ["shift", "randaugment"])
def test_an_interrupted_training_ends_the_same(
    tmp_path: Path, data: ImageData, augment: str
) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train(job(whole, data, augment=augment), lambda progress: None)
    with pytest.raises(Stop):
        train(job(parts, data, augment=augment), interrupt)
    with pytest.raises(UserError, match="a training with other settings"):
        train(job(parts, data, augment="crop"), interrupt)
    seen: list[int] = []
    train(job(parts, data, augment=augment), lambda progress: seen.append(progress.step))
    assert seen == [3, 4]
    for key, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[key], value)
    assert not parts.with_name(parts.name + ".state").exists()


def test_the_result_can_be_a_mean_of_weights(tmp_path: Path, data: ImageData) -> None:
    """Interrupted after the second evaluation, the state holds what was seen at both."""
    mean, last = tmp_path / "mean.safetensors", tmp_path / "last.safetensors"
    with pytest.raises(Stop):
        train(job(mean, data, average=2), interrupt)
    first = torch.load(mean.with_name(mean.name + ".state"), weights_only=True)["ghn"]
    train(job(mean, data, average=2), lambda progress: None)
    train(job(last, data), lambda progress: None)
    for key, value in weights(last).items():
        torch.testing.assert_close(weights(mean)[key], (first[key] + value) / 2)


def gradients(rank: int, ranks: int, made: Job, folder: Path) -> None:
    """The gradient of a training's first step, as one of its processes has it."""
    if ranks > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks
        )
    torch.manual_seed(0)
    ghn, settings = GHN(CONFIG), made.settings
    members = range(settings.meta_batch)[rank::ranks]
    shape = made.data.image_shape
    metas = MetaBatches(shape, CONFIG, 0, members, False, made.space.sample)
    batches = random_batches(
        made.data.train, settings.batch_size, seed=0, device=CPU, mean=made.data.mean,
        std=made.data.std,
    )  # fmt: skip
    result = compute_gradients(ghn, metas[0], *next(batches), settings)
    found = {name: item.grad for name, item in ghn.named_parameters() if item.grad is not None}
    torch.save({"result": result, **found}, folder / f"{rank}-of-{ranks}.pt")
    if ranks > 1:
        dist.destroy_process_group()


def test_processes_share_the_work(tmp_path: Path, data: ImageData) -> None:
    """Their gradients are summed, and the sum is that of one process that does everything."""
    made = job(tmp_path / "unused", replace(data, load_test=data.without_test().load_test))
    gradients(0, 1, made, tmp_path)
    torch.multiprocessing.spawn(gradients, (2, made, tmp_path), nprocs=2)
    whole, *parts = (
        torch.load(tmp_path / name) for name in ("0-of-1.pt", "0-of-2.pt", "1-of-2.pt")
    )
    assert whole["embed.weight"].abs().max() > 0
    for part in parts:
        assert part.keys() >= whole.keys()
        for key, value in whole.items():
            assert float((part[key] - value).norm()) <= 1e-3 * float(value.norm())


def test_processes_train_together(tmp_path: Path, data: ImageData) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    told: list[list[float]] = [[], []]
    for output, workers, losses in ((one, 0, told[0]), (two, 2, told[1])):
        train(job(output, data, workers=workers), lambda p, seen=losses: seen.append(p.loss))
    assert told[0] == pytest.approx(told[1], rel=1e-3)


@contextmanager
def must_end() -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError("the processes do not end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@needs_alarms
def test_files_that_may_not_grow_end_all_processes(tmp_path: Path, data: ImageData) -> None:
    compile_gradients()  # into a file
    with must_end(), files_up_to(67), pytest.raises(OSError, match="File too large"):
        run(train_rank, job(tmp_path / "x.safetensors", data, workers=2), lambda progress: None)
    assert list(tmp_path.iterdir()) == []


@needs_alarms
def test_a_process_that_ends_while_it_writes_leaves_nothing(
    tmp_path: Path, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers_end_while_they_write(monkeypatch)
    with must_end(), pytest.raises(UserError, match="ended from outside"):
        train(job(tmp_path / "x.safetensors", data, workers=2), lambda progress: None)
    assert list(tmp_path.iterdir()) == []


@needs_alarms
def test_a_process_that_reads_the_state_late_goes_on_with_the_others(
    tmp_path: Path, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last step the result could not be written; the process that writes it now has
    nothing else to do, and removes the state."""

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    def restore_in_turn(state: TrainingState) -> tuple[int, list[dict[str, float]]]:
        time.sleep(dist.get_rank())
        return restore(state)

    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train(job(whole, data, workers=2), lambda progress: None)
    with monkeypatch.context() as patch:
        patch.setattr(ghnas.training.hypernetwork.loop, "save_ghn", fail)
        with pytest.raises(OSError, match="the disk is full"):
            train(job(parts, data, workers=2), lambda progress: None)
    restore = TrainingState.restore
    monkeypatch.setattr(TrainingState, "restore", restore_in_turn)
    with must_end():
        train(job(parts, data, workers=2), lambda progress: None)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value)
    assert not parts.with_name(parts.name + ".state").exists()


def test_torchrun_trains_as_one_process_does(tmp_path: Path) -> None:
    """With the same meta-batch; two processes add up their gradients."""
    settings = ["--space", "darts", "--cells", "2", "--channels", "4", "--hid", "8"]
    settings += ["--meta-batch", "2", "--batch-size", "16", "--evaluate-every", "2"]
    command = ["train", *settings, "--steps", "2", "--workers", "0", "--json"]
    one = [sys.executable, "-m", "ghnas"]
    two = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "ghnas"]
    results = []
    for name, start in (("one", one), ("two", two)):
        output = tmp_path / f"{name}.safetensors"
        done = subprocess.run(
            [*start, *command, "--output", str(output)], check=True, capture_output=True, text=True
        )
        assert json.loads(done.stdout)["output"] == str(output)  # only the first one speaks
        results.append(weights(output))
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-3, atol=1e-4)


def test_a_training_can_start_from_another_one(tmp_path: Path, data: ImageData) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    train(job(first, data), lambda progress: None)
    # a rate this small changes nothing: the result is where it started
    info = train(job(second, data, first, learning_rate=1e-12, steps=2), lambda progress: None)
    for key, value in weights(first).items():
        torch.testing.assert_close(weights(second)[key], value, atol=1e-6, rtol=0)
    assert info.training["start"]["sha256"] == load_ghn(first).info.sha256
    assert [item["step"] for item in info.training["start"]["training"]["history"]] == [2, 4]
    # other classes: all but what depends on their number is taken over
    few = replace(data, classes=(*data.classes, "none"))
    third = tmp_path / "third.safetensors"
    other = job(third, few, first, learning_rate=1e-12, steps=2)
    train(replace(other, config=replace(CONFIG, num_classes=11)), lambda progress: None)
    torch.testing.assert_close(
        weights(third)["embed.weight"], weights(first)["embed.weight"], atol=1e-6, rtol=0
    )
    wider = replace(other, config=replace(CONFIG, hid=12))
    with pytest.raises(UserError, match="hid"):
        train(wider, lambda progress: None)


def test_a_state_with_other_settings_is_refused(tmp_path: Path, data: ImageData) -> None:
    output = tmp_path / "x.safetensors"
    state = output.with_name("x.safetensors.state")
    state.write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        train(job(output, data), lambda progress: None)
    state.unlink()

    def interrupt(progress: object) -> None:
        if progress.step == 3:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job(output, data), interrupt)
    with pytest.raises(UserError, match="other settings"):
        train(job(output, data, learning_rate=0.1), lambda progress: None)


def test_a_general_hypernetwork_learns_from_the_mixture(tmp_path: Path, data: ImageData) -> None:
    output = tmp_path / "general.safetensors"
    made = replace(job(output, data), space=Mixture())
    with pytest.raises(Stop):
        train(made, interrupt)
    assert train(made, lambda progress: None).space == "general"
    again = replace(made, output=tmp_path / "again.safetensors")
    train(again, lambda progress: None)
    for key, value in weights(output).items():
        torch.testing.assert_close(weights(again.output)[key], value)


def test_the_gradient_of_each_network_has_a_largest_norm(data: ImageData) -> None:
    """Scaled as a whole: against clipping by hand, network by network."""
    torch.manual_seed(0)
    ghn, space = GHN(CONFIG), load_space("darts").with_skeleton(cells=2, channels=4)
    meta = MetaBatches(data.image_shape, CONFIG, 0, range(3), False, space.sample)[0]
    stacks = [torch.randn_like(stack) for stack in ghn(meta.features)]
    for index, factor in enumerate((0.01, 1.0, 100.0)):
        for tensor in meta.features.by_graph(stacks, 3)[index].values():
            tensor.mul_(factor)

    def norms(stacks: list[torch.Tensor]) -> torch.Tensor:
        parts = meta.features.by_graph(stacks, 3)
        return torch.stack([torch.cat([t.flatten() for t in p.values()]).norm() for p in parts])

    before, largest = norms(stacks), 5.0
    assert before[0] < largest < before[1] < before[2]
    clipped = meta.clipped(stacks, largest)
    torch.testing.assert_close(norms(clipped), torch.tensor([float(before[0]), largest, largest]))
    for ours, given in zip(clipped, stacks, strict=True):
        torch.testing.assert_close(ours.sign(), given.sign())


def test_a_network_that_diverged_takes_no_part_in_a_step(data: ImageData) -> None:
    space = load_space("darts").with_skeleton(cells=2, channels=4)
    meta = MetaBatches(data.image_shape, CONFIG, 0, range(2), False, space.sample)[0]
    stacks = [torch.ones_like(stack) for stack in GHN(CONFIG)(meta.features)]
    next(iter(meta.features.by_graph(stacks, 2)[1].values())).fill_(torch.nan)
    first, second = meta.features.by_graph(meta.clipped(stacks, 1e9), 2)
    assert all((tensor == 1).all() for tensor in first.values())
    assert not any(tensor.any() for tensor in second.values())


def test_load_explains_itself(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ghnas finetune"):
        ghnas.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="damaged"):
        ghnas.load(tmp_path)


FEW_FILES = """
import resource, sys
from ghnas.cli import main
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), 100))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of the system")
@pytest.mark.parametrize("files", [19, 26])
def test_processes_that_may_open_few_files(tmp_path: Path, files: int) -> None:
    """Torch would abort, or wait for ever."""
    sizes = ["--cells", "2", "--channels", "4", "--hid", "8", "--steps", "1", "--workers", "2"]
    output = ["--output", str(tmp_path / "ghn.safetensors")]
    done = subprocess.run(
        [sys.executable, "-c", FEW_FILES, str(files), "train", *sizes, *output],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "ghnas: no more files may be open at once" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
