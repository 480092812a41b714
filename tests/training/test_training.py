"""Training a hypernetwork, fine-tuning, and getting the network back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ghnas
from ghnas.data import ImageData, load_data
from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.config import GHNConfig
from ghnas.spaces import load_space
from ghnas.training.hypernetwork.loop import learning_rate
from ghnas.training.hypernetwork.training import Job, TrainProgress, TrainSettings, train
from ghnas.utils.errors import UserError

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
    return load_ghn(path)[0].state_dict()


def test_learning_rate_falls_at_two_and_five_sixths() -> None:
    settings = TrainSettings(steps=12, learning_rate=1.0)
    rates = [learning_rate(settings, step) for step in range(12)]
    assert rates == pytest.approx([1.0] * 8 + [0.1] * 2 + [0.01] * 2)


class Stop(Exception):
    pass


def interrupt(progress: TrainProgress) -> None:
    """After the third step."""
    if progress.step == 3:
        raise Stop


def test_an_interrupted_training_ends_the_same(tmp_path: Path, data: ImageData) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train(job(whole, data), lambda progress: None)
    with pytest.raises(Stop):
        train(job(parts, data), interrupt)
    seen: list[int] = []
    train(job(parts, data), lambda progress: seen.append(progress.step))
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


def test_processes_share_the_work(tmp_path: Path, data: ImageData) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    train(job(one, data, steps=1, evaluate_every=1), lambda progress: None)
    train(job(two, data, steps=1, evaluate_every=1, workers=2), lambda progress: None)
    for key, value in weights(one).items():
        # Adam's first step is the gradient's sign, so that rounding can turn tiny ones
        same = (weights(two)[key] - value).abs() < 1e-5
        assert same.float().mean() > 0.99


def test_a_training_can_start_from_another_one(tmp_path: Path, data: ImageData) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    train(job(first, data), lambda progress: None)
    # a rate this small changes nothing: the result is where it started
    info = train(job(second, data, first, learning_rate=1e-12, steps=2), lambda progress: None)
    for key, value in weights(first).items():
        torch.testing.assert_close(weights(second)[key], value, atol=1e-6, rtol=0)
    assert info.training["start"]["sha256"] == load_ghn(first)[1].sha256
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


def test_load_explains_itself(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ghnas finetune"):
        ghnas.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="damaged"):
        ghnas.load(tmp_path)
