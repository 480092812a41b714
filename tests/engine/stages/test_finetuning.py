"""Fine-tuning of a run's candidates."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from searching import save_untrained

import ghnas
from ghnas.data import ImageData, load_data
from ghnas.engine.manifest import Sources
from ghnas.engine.objectives import ZeroShot
from ghnas.engine.run import Run, create_run, open_run
from ghnas.engine.runs import select
from ghnas.engine.search import new_manifest, search_run
from ghnas.engine.stages import inputs
from ghnas.engine.stages.finetuning import (
    EpochReport,
    FinetuneSettings,
    NetworkForm,
    finetune,
)
from ghnas.engine.stages.training_jobs import training_job
from ghnas.ghn.checkpoint import load_ghn
from ghnas.spaces import load_space
from ghnas.utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> ImageData:
    full = load_data()
    small = replace(full, train=full.train.take(160), validation=full.validation.take(64))
    test = full.load_test().take(64)
    return replace(small, load_test=lambda: test)


@pytest.fixture
def run(tmp_path: Path, data: ImageData, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A finished run of four candidates."""
    space = load_space("darts").with_skeleton(cells=2, channels=4)
    path = save_untrained(tmp_path / "ghn.safetensors", space, data)
    objective = ZeroShot(load_ghn(path), data, batch_size=32, workers=1, device="cpu")
    space = objective.space_for(space)
    manifest = new_manifest(
        space, objective, budget=4, sources=Sources(data="embedded", ghn=str(path))
    )
    made = create_run(tmp_path / "run", manifest)
    search_run(made, objective)
    monkeypatch.setattr(inputs, "load_data", lambda *args, **kwargs: data)
    return made


def test_finetune_writes_a_network_that_loads(run: Run, data: ImageData) -> None:
    chosen = select(run, "top-2")
    reports: list[EpochReport] = []
    settings = FinetuneSettings(epochs=2, batch_size=32, baseline=True)

    def interrupt(progress: EpochReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(run, chosen, settings, CPU, interrupt)
    results = finetune(run, chosen, settings, CPU, reports.append)
    for item, result in zip(chosen, results, strict=True):
        assert result.zero_shot == pytest.approx(item.accuracy, abs=1 / 64)
    assert len(reports) <= 2 * 2 * 2  # an epoch may end while the processes stop
    assert reports[-1].done == reports[-1].total
    assert [item.trial for item in results] == chosen
    for result in results:
        network = ghnas.load(result.path)
        test = data.load_test()
        scale = torch.tensor(data.mean).view(3, 1, 1), torch.tensor(data.std).view(3, 1, 1)
        with torch.no_grad():
            logits = network((test.images / 255 - scale[0]) / scale[1])
        accuracy = float((logits.argmax(1) == test.labels).float().mean())
        assert accuracy == pytest.approx(result.trained.test, abs=0.02)
        assert result.baseline is not None
    curves = run.study_beside("finetune", "accuracy", "maximize").trials
    assert sorted(len(trial.intermediate_values) for trial in curves) == [2, 2, 2, 2]
    # what is finished is not trained again
    before = len(reports)
    again = finetune(run, chosen, settings, CPU, reports.append)
    assert len(reports) == before
    assert [item.trained.test for item in again] == [item.trained.test for item in results]


def test_finetune_without_test_images(
    run: Run, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "load_data", lambda *args, **kwargs: data.without_test())
    settings = FinetuneSettings(epochs=1, batch_size=32)
    (result,) = finetune(run, select(run, "top-1"), settings, CPU, lambda report: None)
    assert result.trained.test is None
    assert result.trained.validation > 0


def test_images_are_normalised_as_in_the_search(run: Run, data: ImageData) -> None:
    """With the hypernetwork's mean and std, where the data has others."""
    ghn = Path(run.manifest.sources.ghn or "")
    moved = replace(data, mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "load_data", lambda *args, **kwargs: moved)
        (result,) = finetune(
            run, select(run, "top-1"), FinetuneSettings(epochs=1, batch_size=32), CPU, ignore
        )
    assert result.zero_shot == pytest.approx(result.trial.accuracy, abs=1 / 64)
    info = load_ghn(ghn).info
    kept = json.loads((result.path / "architecture.json").read_text())
    assert (tuple(kept["mean"]), tuple(kept["std"])) == (info.mean, info.std)
    assert info.mean != moved.mean


def test_short_trainings_see_images_as_the_search_does(run: Run, data: ImageData) -> None:
    """What is undone with the hypernetwork's mean and std are pixels, in whole 255ths."""
    ghn = load_ghn(Path(run.manifest.sources.ghn or ""))
    moved = replace(data, mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7))
    job = training_job(run, ZeroShot(ghn, moved, workers=1, device="cpu"), steps=2)
    mean, std = (torch.tensor(item).view(3, 1, 1) for item in (ghn.info.mean, ghn.info.std))
    for images, _ in (*job.batches, *job.checks):
        pixels = 255 * (images * std + mean)
        torch.testing.assert_close(pixels, pixels.round(), atol=1e-3, rtol=0)
        assert 0 <= pixels.min().round() < pixels.max().round() <= 255


def ignore(progress: EpochReport) -> None:
    pass


def test_two_finetunings_of_one_run(run: Run) -> None:
    """The second one says so and leaves the trials of the first one alone."""
    chosen, settings = select(run, "top-2"), FinetuneSettings(epochs=1, batch_size=32)
    refused = []

    def another(progress: EpochReport) -> None:
        with pytest.raises(UserError, match="is being fine-tuned by another process") as error:
            finetune(open_run(run.path), chosen, settings, CPU, lambda report: None)
        refused.append(str(error.value))

    results = finetune(run, chosen, settings, CPU, another)
    assert len(refused) == len(results) == 2
    curves = run.study_beside("finetune", "accuracy", "maximize").trials
    assert [len(trial.intermediate_values) for trial in curves] == [1, 1]


def test_a_larger_network_starts_from_trained_weights(run: Run) -> None:
    """With a rate of nothing the weights stay those of the small network."""
    chosen, still = select(run, "top-1"), FinetuneSettings(1, 32, learning_rate=1e-30)
    larger = NetworkForm({"cells": 3}, start="trained")
    with pytest.raises(UserError, match="ghnas finetune trial-"):
        finetune(run, chosen, still, CPU, ignore, larger)
    (small,) = finetune(run, chosen, FinetuneSettings(1, 32), CPU, ignore)
    (large,) = finetune(run, chosen, still, CPU, ignore, larger)
    known, found = (dict(ghnas.load(item.path).named_parameters()) for item in (small, large))
    assert len(found) > len(known)
    same = [name for name in found if name in known and known[name].shape == found[name].shape]
    assert any(name.startswith("cells.0.") for name in same)
    for name in same:
        torch.testing.assert_close(found[name], known[name])
    # and what is found again is the network that was trained
    (again,) = finetune(run, chosen, still, CPU, lambda report: pytest.fail(str(report)), larger)
    assert (again.path, again.trained) == (large.path, large.trained)
    (wider,) = run.network_folder(chosen[0].name).parent.glob("*-trained")
    assert wider == large.path
    with pytest.raises(UserError, match="--channels"):
        finetune(run, chosen, still, CPU, ignore, NetworkForm({"channels": 7}, start="trained"))
    # other trained weights make another network
    finetune(run, chosen, FinetuneSettings(2, 32), CPU, ignore)
    (anew,) = finetune(run, chosen, still, CPU, ignore, larger)
    assert anew.trained != large.trained
