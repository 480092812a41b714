"""What the Optuna dashboard shows beside the trials."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

from optuna.artifacts import get_all_artifact_meta

from ghnas.engine.runs import find_run
from ghnas.reports.dashboard import annotate, artifact_store, note


def test_the_best_are_drawn_once(finished: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(finished, results)
    run = find_run(results)
    annotate(run, run.ranked(5))
    store, study = artifact_store(run), run.study()
    assert store is not None
    drawings = {item.filename: item.artifact_id for item in get_all_artifact_meta(study)}
    assert set(drawings) == {f"{item.name}.svg" for item in run.ranked(5)}
    for name in drawings.values():
        with store.open_reader(name) as file:
            ElementTree.fromstring(file.read())
    text = str(study._storage.get_study_system_attrs(study._study_id))  # where the note is kept
    assert all(f"/artifacts/{study._study_id}/{item}" in text for item in drawings.values())
    annotate(run, run.ranked(5))
    assert len(get_all_artifact_meta(run.study())) == len(drawings)


def test_the_note_explains_every_column(finished: Path) -> None:
    run = find_run(finished)
    text = note(run, run.ranked(2))
    for name in ("accuracy", "params", "flops", "same_as"):
        assert f"**{name}**" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.count("|") for line in table] == [table[0].count("|")] * 4
    assert "| zero-shot |" in table[0]
    assert all(a.name in line for a, line in zip(run.ranked(2), table[2:], strict=True))
