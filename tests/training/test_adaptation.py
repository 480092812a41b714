"""Adapting a hypernetwork to other networks, images and classes."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from searching import save_untrained

import ghnas
from ghnas.data import ImageData, Split, load_data
from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.config import GHNInfo
from ghnas.ghn.library import KnownGHN, Task, cached, cached_for
from ghnas.ghn.model import GHN
from ghnas.spaces import load_space, parse_space
from ghnas.training.hypernetwork import adaptation as module
from ghnas.training.hypernetwork.adaptation import (
    HEAD_STEPS,
    PATIENCE,
    Adaptation,
    adapt_file,
    adaptation,
    is_near_chance,
)
from ghnas.training.hypernetwork.cached import adapt_cached
from ghnas.training.hypernetwork.course import EVALUATIONS, Course
from ghnas.training.hypernetwork.loop import TrainProgress
from ghnas.utils.errors import UserError

CPU = torch.device("cpu")
SPACE = """
name: mine
family: stages
skeleton:
  stem: {block: conv_bn_act, kernel: 3, width: 4}
stages:
  - {block: residual, depth: [1, 2], width: [4, 8], kernel: [1, 3]}
"""


def images(classes: int = 2, each: int = 40, learnable: bool = True) -> ImageData:
    """Noise on a brightness, which is that of the class where it is learnable."""

    def split(seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(classes * each) % classes
        order = torch.randperm(len(labels), generator=generator)
        brightness = labels if learnable else labels[order]
        noise = torch.randint(0, 60, (len(labels), 3, 6, 6), generator=generator)
        bright = brightness.view(-1, 1, 1, 1) * (190 // max(classes - 1, 1))
        return Split((noise + bright).to(torch.uint8), labels)

    names = tuple(f"class{number}" for number in range(classes))
    parts = split(0), split(1)
    return ImageData("noise", names, *parts, lambda: parts[1], (0.5,) * 3, (0.3,) * 3, mirror=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained hypernetwork for ten classes of other images."""
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    return save_untrained(path, load_space("darts"), load_data(image_size=8, train_limit=20))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(module.SETTINGS, meta_batch=2, batch_size=8, evaluate_architectures=2)
    monkeypatch.setattr(module, "SETTINGS", replace(settings, learning_rate=3e-3))


def job(base: Path, output: Path, data: ImageData, **settings: Any) -> Adaptation:
    space = parse_space(SPACE, "mine.yaml")
    return adaptation(base, load_ghn(base), space, data, output, device=CPU, workers=1, **settings)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_ghn(path).state_dict()


def test_a_time_becomes_steps_that_give_the_same_again(base: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first.safetensors", tmp_path / "again.safetensors"
    seen: list[TrainProgress] = []
    info = adapt_file(job(base, first, images(), seconds=2.0), seen.append)
    steps = info.training["steps"]
    assert steps > 15
    assert seen[0].steps == 0, "their number is not known yet"
    assert seen[-1].steps <= steps
    assert info.training["adaptation"]["seconds"] == 2.0
    assert (info.space, info.data, info.classes) == ("mine", "noise", ("class0", "class1"))
    adapt_file(job(base, again, images(), steps=steps), lambda progress: None)
    for name, value in weights(first).items():
        torch.testing.assert_close(weights(again)[name], value)


def test_the_rate_falls_twice_or_when_nothing_is_gained() -> None:
    course = Course(None)
    assert course.factor(10**6) == 1
    course.decide(15, 8.5, 0.1)
    assert (course.steps, course.every) == (100, 9)
    factors = [course.factor(step) for step in (66, 67, 83, 84, 99)]
    assert factors == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])
    assert course.shorten(40)
    assert (course.planned, course.steps) == (100, 60)
    assert course.factor(40) == pytest.approx(0.1)
    assert not course.shorten(45), "it has fallen before"
    late = Course(None)
    late.decide(15, 0.01, 0.1)
    assert late.steps == 16, "one more where the time is over"


def test_a_fresh_head_is_fitted_first(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within its steps nothing else moves; later everything does."""
    monkeypatch.setattr(module, "PATIENCE", 100)  # or it might go back to where it was best
    start, ten = load_ghn(base).state_dict(), replace(images(10, 8), name="digitscapes")
    states: list[dict[str, torch.Tensor]] = []

    def look(progress: TrainProgress) -> None:  # the state of the evaluation before this report
        if state.exists() and progress.step in (HEAD_STEPS + 1, HEAD_STEPS + 11):
            states.append(torch.load(state, weights_only=True)["ghn"])

    made = replace(job(base, tmp_path / "a.safetensors", ten, steps=120), report_every=1)
    state = made.output.with_name(made.output.name + ".state")
    adapt_file(made, look)  # evaluated every ten steps
    names = [name for name, _ in load_ghn(base).named_parameters()]
    head = {name for name in names if "class_layer_predictor" in name or "bias_class" in name}
    fitted, trained = (
        {name for name in names if not torch.equal(after[name], start[name])} for after in states
    )
    assert fitted == head
    assert trained > head
    same = replace(ten, classes=load_ghn(base).info.classes)
    assert job(base, tmp_path / "b.safetensors", same, steps=4).head_steps == 0


class Stop(Exception):
    pass


def test_what_can_be_learned_is_learned(base: Path) -> None:
    data = images()
    found = ghnas.adapt(load_ghn(base), parse_space(SPACE, "mine.yaml"), data, steps=150, workers=1)
    about = found.info.training["adaptation"]
    assert about["chance"] == 0.5
    assert about["held_out"] > 0.8
    assert not about["near_chance"]
    others = [parse_space(SPACE, "mine.yaml").sample(seed) for seed in range(6)]
    losses = [score.loss for score in ghnas.score(found, others, data)]
    assert sum(losses) / len(losses) < math.log(2), "better than knowing nothing"


def test_what_cannot_be_learned_ends_early_and_says_so(base: Path) -> None:
    """Ten images a class, labels at random: training accuracy rises, that of others does not."""
    space, data = parse_space(SPACE, "mine.yaml"), images(2, 10, learnable=False)
    info = ghnas.adapt(load_ghn(base), space, data, steps=240, workers=1).info
    about, history = info.training["adaptation"], info.training["history"]
    held_out = [item["held_out"] for item in history]
    assert about["near_chance"]
    assert about["held_out"] == max(held_out)
    # the rate falls after the first two thirds, if it has not fallen before: then patience ends it
    assert about["steps_done"] < 240
    assert max(held_out[-PATIENCE:]) <= max(held_out[:-PATIENCE])
    assert sum("rate_falls" in item for item in history) <= 1


@pytest.mark.parametrize(
    ("shares", "accuracy", "expected"),
    [
        ((100, 100), 0.549, True),  # chance 0.5; a tenth of the way is 0.55; two errors 0.57
        ((100, 100), 0.56, True),
        ((100, 100), 0.58, False),
        ((10,) * 10, 0.15, True),  # chance 0.1, a tenth of the way is 0.19
        ((10,) * 10, 0.2, False),
        ((300, 100), 0.76, True),  # always naming the commoner class is right for 0.75
        ((300, 100), 0.80, False),
    ],
)
def test_near_chance(shares: tuple[int, ...], accuracy: float, expected: bool) -> None:
    labels = torch.cat([torch.full((n,), i) for i, n in enumerate(shares)])
    split = Split(torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8), labels)
    data = replace(images(), validation=split)
    assert is_near_chance(accuracy, data) is expected


def test_an_interrupted_adaptation_goes_on(base: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    adapt_file(job(base, whole, images(), steps=48), lambda progress: None)

    def stop(progress: TrainProgress) -> None:
        if progress.step == 26:  # after three evaluations
            raise Stop

    with pytest.raises(Stop):
        adapt_file(replace(job(base, parts, images(), steps=48), report_every=1), stop)
    seen: list[int] = []
    adapt_file(
        replace(job(base, parts, images(), steps=48), report_every=1),
        lambda progress: seen.append(progress.step),
    )
    assert seen[0] == 16 + 2 * 48 // EVALUATIONS + 1
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value)
    assert not parts.with_name(parts.name + ".state").exists()


def test_a_useless_state_is_dropped(base: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.safetensors"
    output.with_name(output.name + ".state").write_bytes(b"damaged")
    assert adapt_file(job(base, output, images(), steps=2), print).training["steps"] == 2


def test_nothing_is_taken_from_a_state_that_is_damaged_in_part(base: Path, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.safetensors", tmp_path / "a.safetensors"
    state = output.with_name(output.name + ".state")

    def stop(progress: TrainProgress) -> None:
        if state.exists():
            raise Stop

    made = replace(job(base, output, images(), steps=48), report_every=1)
    with pytest.raises(Stop):
        adapt_file(made, stop)
    content = torch.load(state, weights_only=True)
    torch.save(content | {"optimizer": {}}, state)
    for each in (made, replace(made, output=whole)):
        adapt_file(each, lambda progress: None)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(output)[name], value)


def known(path: Path) -> KnownGHN:
    return KnownGHN("base", path, "here", load_ghn(path).info)


def _killed_at_an_evaluation(folder: Path, base: Path) -> None:
    """In another process: ends itself as `kill -9` would, after the second evaluation is saved."""
    import ghnas.ghn.library

    ghnas.ghn.library.cache_folder = lambda: folder  # type: ignore[attr-defined]
    module.SETTINGS = replace(
        module.SETTINGS, meta_batch=2, batch_size=8, evaluate_architectures=2, learning_rate=3e-3
    )
    evaluated = 0

    def kill(progress: TrainProgress) -> None:
        nonlocal evaluated
        if evaluated == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        evaluated += progress.held_out is not None

    task = Task(parse_space(SPACE, "mine.yaml"), images())
    adapt_cached(task, known(base), CPU, kill, lambda: None, steps=48, workers=1)


def test_a_killed_adaptation_goes_on_and_is_kept(base: Path, cache: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_killed_at_an_evaluation, args=(cache, base)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    task, steps = Task(parse_space(SPACE, "mine.yaml"), images()), list[int]()
    assert cached_for(task, []) is None

    def note(progress: TrainProgress) -> None:
        steps.append(progress.step)

    def adapted() -> KnownGHN:
        return adapt_cached(task, known(base), CPU, note, lambda: None, steps=48, workers=1)

    found = adapted()
    assert steps[0] > 20, "what was saved is not trained again"
    count = len(steps)
    assert adapted().path == found.path
    assert len(steps) == count, "a second search takes no time"
    assert [item.path for item in cached()] == [found.path]


def test_two_at_once_adapt_once(base: Path) -> None:
    """The second waits for the first and takes its result (two threads have two locks)."""
    task = Task(parse_space(SPACE, "mine.yaml"), images())
    waits, found = threading.Event(), list[KnownGHN]()

    def never(progress: TrainProgress) -> None:
        raise AssertionError("trained a second time")

    def second() -> None:
        found.append(adapt_cached(task, known(base), CPU, never, waits.set, steps=2, workers=1))

    other = threading.Thread(target=second)

    def begin(progress: TrainProgress) -> None:
        other.start()
        assert waits.wait(60)

    first = adapt_cached(task, known(base), CPU, begin, lambda: None, steps=2, workers=1)
    other.join(60)
    assert [item.path for item in found] == [first.path]


def test_numbers_that_make_no_sense(base: Path) -> None:
    ghn, space = load_ghn(base), parse_space(SPACE, "mine.yaml")
    wrong: list[dict[str, Any]] = [{"steps": 0}, {"minutes": 0}, {"minutes": float("inf")}]
    for settings in wrong:
        with pytest.raises(UserError, match="one step or more"):
            ghnas.adapt(ghn, space, images(), **settings)


def test_the_hypernetwork_that_is_given_is_not_changed(base: Path) -> None:
    ghn = load_ghn(base)
    before = {name: value.clone() for name, value in ghn.state_dict().items()}
    found = ghnas.adapt(ghn, parse_space(SPACE, "mine.yaml"), images(), steps=3, workers=1)
    assert isinstance(found, GHN)
    assert isinstance(found.info, GHNInfo)
    assert found.info.path == ""
    assert len(found.info.sha256) == 64
    for name, value in ghn.state_dict().items():
        assert torch.equal(value, before[name])
