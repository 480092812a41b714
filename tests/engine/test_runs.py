"""Manifests, records, run folders, and Optuna's storages."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from searching import finished, go_on, make_manifest, make_run, ranking

from ghnas.engine.manifest import FORMAT_VERSION, Manifest, Sources, read_manifest
from ghnas.engine.objectives import ZERO_SHOT, check_objectives
from ghnas.engine.run import JOURNAL, LOCK, MANIFEST, PROGRESS, Run, create_run, open_run
from ghnas.engine.runs import find_run, list_runs, select
from ghnas.engine.storage import repair_journal
from ghnas.spaces import load_space, read_space_file
from ghnas.utils.errors import UserError

SPACES = {name: load_space(name) for name in ("darts", "mobile")}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run of 20 candidates."""
    return finished(tmp_path)


# ---------------------------------------------------------------- manifest


@given(
    seed=st.integers(-(2**70), 2**70),
    limits=st.tuples(*[st.none() | st.integers(1, 10**15)] * 2),
    sources=st.builds(Sources, data=st.none() | st.text(), ghn=st.none() | st.text()),
    objectives=st.lists(st.sampled_from(list(ZERO_SHOT)), unique=True, min_size=1),
)
@settings(max_examples=40, deadline=None)
def test_manifest_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    limits: tuple[int | None, int | None],
    sources: Sources,
    objectives: list[str],
) -> None:
    manifest = make_manifest(
        seed=seed,
        max_parameters=limits[0],
        max_flops=limits[1],
        sources=sources,
        objectives=objectives,
    )
    path = tmp_path_factory.mktemp("manifest") / MANIFEST
    path.write_text(manifest.model_dump_json(), encoding="utf-8")
    assert read_manifest(path) == manifest
    assert manifest.difference(read_manifest(path)) is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sampler": "magic"}, "unknown sampler 'magic'; known are random, evolution, local"),
        ({"budget": 0}, "the budget must be 1 or more, not 0"),
        ({"batch_size": -1}, "the batch size must be 1 or more, not -1"),
        ({"max_parameters": 0}, "the max-params must be 1 or more, not 0"),
    ],
)
def test_manifest_refuses(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_manifest(**changes)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("accuracy", "beauty"), "unknown objective 'beauty'; known are accuracy"),
        (("params", "flops"), "objectives must include accuracy"),
        (("accuracy", "accuracy"), "named twice"),
        (("accuracy", ""), "unknown objective ''"),
    ],
)
def test_objectives_that_make_no_search(names: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_objectives(names)


def test_objectives_have_earlier_names() -> None:
    assert check_objectives(("consensus", "params")) == ("composite", "params")


@pytest.mark.parametrize("entry", ["seed", "budget", "sampler", "max_flops"])
def test_a_run_says_how_another_search_differs(entry: str) -> None:
    other = {"seed": 7, "budget": 21, "sampler": "evolution", "max_flops": 10**9}
    difference = make_manifest().difference(make_manifest(**{entry: other[entry]}))
    assert difference is not None
    assert difference.startswith(entry)
    assert difference.endswith(f"not {other[entry]}")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "damaged, it is not JSON"),
        ("[]", "damaged"),
        ('{"format_version": 2}', "damaged, key 'created'"),
        ("\x00\x01", "damaged"),
    ],
)
def test_damaged_manifest_is_named(run: Run, content: str, sentence: str) -> None:
    path = run.path / MANIFEST
    path.write_text(content)
    with pytest.raises(UserError, match=sentence) as caught:
        open_run(run.path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe{", b'{"a": "\xff"}'])
def test_manifest_that_is_not_text(run: Run, content: bytes) -> None:
    (run.path / MANIFEST).write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        open_run(run.path)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"budget": 10**30}, "budget"), ({"budget": 0}, "budget"), ({"budget": "20"}, "budget"),
        ({"budget": True}, "budget"), ({"batch_size": 0}, "batch_size"), ({"seed": 0.5}, "seed"),
        ({"objective": {"keep": -1}}, "keep"), ({"objective": {"images": 0}}, "images"),
        ({"objective": {"images": "all"}}, "images"), ({"objective": []}, "objective"),
        ({"short_list": {"count": 4, "steps": 0}}, "short_list.steps"),
        ({"short_list": {"count": 0}}, "short_list.count"),
        ({"short_list": {"count": 4, "cells": 10**9}}, "short_list.cells"),
        ({"image_shape": [3, 8]}, "image_shape"), ({"image_shape": [3, 8, 10**9]}, "image_shape"),
        ({"classes": []}, "classes"), ({"objectives": []}, "objectives"),
        ({"objectives": ["accuracy", "params"]}, "directions"), ({"created": "soon"}, "created"),
        ({"max_flops": -1}, "max_flops"), ({"space_text": 7}, "space_text"), ({"new": 1}, "new"),
    ],
)  # fmt: skip
def test_manifest_with_a_wrong_entry(run: Run, changes: dict[str, object], key: str) -> None:
    path = run.path / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=f"damaged, key '.*{key}") as caught:
        open_run(run.path)
    assert str(path) in str(caught.value)
    assert list_runs(run.path.parents[1])[0].problem


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "1e400"])
def test_json_that_is_hard_to_read(run: Run, content: str) -> None:
    (run.path / PROGRESS).write_text(content)
    (run.path / "order.json").write_text(content)
    assert list_runs(run.path.parents[1])[0].done == 0
    assert len(run.ranked()) > 10
    (run.path / MANIFEST).write_text(content)
    with pytest.raises(UserError, match="damaged"):
        open_run(run.path)


def test_figures_that_a_killed_process_did_not_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def note(run: Run, done: int, best: float | None) -> None:
        if done == run.manifest.budget:
            raise Killed
        note_progress(run, done, best)

    run, note_progress = make_run(tmp_path), Run.note_progress
    with monkeypatch.context() as patch:
        patch.setattr(Run, "note_progress", note)
        with pytest.raises(Killed):
            go_on(run)
    assert run.complete
    assert list_runs(tmp_path)[0].done < 20
    go_on(run)
    assert list_runs(tmp_path)[0].done == 20
    assert list_runs(tmp_path)[0].best == run.ranked(1)[0].accuracy


@pytest.mark.parametrize("content", ["7", "[]", '{"done": "many", "best": []}', '{"done": -1}'])
def test_progress_that_is_none(run: Run, content: str) -> None:
    (run.path / PROGRESS).write_text(content)
    listed = list_runs(run.path.parents[1])[0]
    assert (listed.done, listed.best) == (0, None)


def trial_lines(run: Run) -> list[int]:
    """Where the journal's trials stand."""
    lines = run.study_path.read_text().splitlines()
    return [i for i, line in enumerate(lines) if '"user_attrs"' in line]


@pytest.mark.parametrize("change", ["swapped", "doubled", "left out", "foreign", "changed"])
def test_trials_that_the_search_did_not_write_so(run: Run, tmp_path: Path, change: str) -> None:
    lines = run.study_path.read_text().splitlines(keepends=True)
    first, second = trial_lines(run)[4:6]
    if change == "swapped":
        lines[first], lines[second] = lines[second], lines[first]
    elif change == "doubled":
        lines.insert(second, lines[first])
    elif change == "left out":
        del lines[first]
    elif change == "foreign":
        other = finished(tmp_path / "other", seed=7)
        lines[first] = other.study_path.read_text().splitlines(keepends=True)[first]
    else:
        assert '"value":0.' in lines[first]
        lines[first] = lines[first].replace('"value":0.', '"value":1.')
    run.study_path.write_text("".join(lines))
    for read in (run.read, run.ranked):
        with pytest.raises(UserError, match=r"trial [45] .* damaged"):
            read()


@pytest.mark.parametrize(
    "line", ["7", "[]", "{}", "null", '{"op_code": 99, "worker_id": "x"}', '{"op_code": "x"}',
             '{"op_code": 4, "worker_id": "x", "study_id": 0, "values": "text"}', "[" * 5000,
             '{"op_code": 8, "trial_id": 3}', '{"op_code": 4, "study_id": "many"}'],
)  # fmt: skip
def test_lines_that_are_json_and_no_record(run: Run, line: str) -> None:
    with run.study_path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=str(run.study_path)) as caught:
        run.ranked()
    assert "damaged" in str(caught.value)


def test_run_of_a_newer_version(run: Run) -> None:
    path = run.path / MANIFEST
    content = json.loads(path.read_text()) | {"format_version": FORMAT_VERSION + 1, "new": 1}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"written by a newer ghnas .* update ghnas"):
        open_run(run.path)


def test_run_of_an_older_version(run: Run) -> None:
    path = run.path / MANIFEST
    content = json.loads(path.read_text()) | {"format_version": 1}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"written by an older ghnas \(run format 1") as caught:
        open_run(run.path)
    assert str(run.path) in str(caught.value)


def test_space_is_the_one_the_run_was_started_with(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(read_space_file("mobile").replace("name: mobile", "name: mine"))
    space = load_space(str(mine))
    made = make_run(tmp_path, str(mine))
    mine.unlink()
    again = open_run(made.path)
    assert again.space.name == "mine"
    assert again.space.choices == space.choices
    assert dict(again.space.skeleton) == dict(space.skeleton)


def test_foreign_trial_is_refused(run: Run) -> None:
    run.study().add_trial(optuna.trial.create_trial(value=0.5))
    with pytest.raises(UserError, match="trial 20 is not a candidate of space 'darts'"):
        run.read()


# ---------------------------------------------------------------- run folders


def test_run_folder(run: Run) -> None:
    assert {path.name for path in run.path.iterdir()} == {MANIFEST, JOURNAL, PROGRESS, LOCK}
    assert run.path.parent.name == "runs"
    assert run.name.endswith("-darts-random")
    assert run.complete
    study = run.study()
    assert study.metric_names == ["accuracy"]
    assert study.user_attrs["seed"] == 0
    assert study.user_attrs["space"] == "darts"
    assert study.best_trial.number == run.ranked(1)[0].number


def test_a_search_that_was_killed_before_its_manifest_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "run"
    create_run(path, make_manifest())
    (path / MANIFEST).unlink()
    assert create_run(path, make_manifest()).read() == []
    whole = finished(tmp_path)
    (whole.path / MANIFEST).unlink()
    with pytest.raises(UserError, match="is not empty"):  # trials are never thrown away
        create_run(whole.path, make_manifest())
    assert whole.study_path.stat().st_size > 0


def test_runs_are_found_and_listed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run found in .*; run `ghnas search` first"):
        find_run(tmp_path)
    with pytest.raises(UserError, match=r"no run 'x' in .*; run `ghnas search` first"):
        find_run(tmp_path, "x")
    runs = [make_run(tmp_path) for _ in range(11)]
    assert find_run(tmp_path).path == runs[-1].path
    assert find_run(tmp_path, runs[3].name).path == runs[3].path
    assert find_run(tmp_path, str(runs[4].path)).path == runs[4].path
    with pytest.raises(UserError, match=f"the latest is {runs[-1].name}"):
        find_run(tmp_path, "x")
    go_on(runs[0])
    (runs[1].path / MANIFEST).write_text("{")
    (tmp_path / "runs" / "not-a-run").mkdir()
    listed = list_runs(tmp_path)
    assert [item.name for item in listed] == [item.name for item in runs]
    assert (listed[0].done, listed[0].budget, listed[0].problem) == (20, 20, None)
    assert listed[0].best == runs[0].ranked(1)[0].accuracy
    assert "damaged" in (listed[1].problem or "")
    assert (listed[2].done, listed[2].best) == (0, None)


def test_results_folder_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="cannot be written"):
        make_run(
            file,
        )


def test_full_disk_when_a_run_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: JournalFileBackend, logs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(JournalFileBackend, "append_logs", full)
    with pytest.raises(UserError, match="No space left on device"):
        make_run(tmp_path)
    assert list_runs(tmp_path) == []
    assert list((tmp_path / "runs").iterdir()) == []


def test_changed_inputs_are_refused(run: Run) -> None:
    known = run.manifest.objective
    same = {"ghn_sha256": known["ghn_sha256"], "data_fingerprint": known["data_fingerprint"]}
    run.check_inputs(**same)
    with pytest.raises(UserError, match="another GHN"):
        run.check_inputs(**same | {"ghn_sha256": "0" * 64})
    with pytest.raises(UserError, match="other images"):
        run.check_inputs(**same | {"data_fingerprint": "0" * 64})


def test_select(run: Run) -> None:
    best = run.ranked()
    assert select(run, "top-3") == best[:3]
    assert select(run, "best") == select(run, "front") == best[:1]
    number = best[4].number
    assert select(run, f"#{number}") == select(run, str(number)) == [best[4]]
    assert select(run, f"trial-{number}") == select(run, str(best[4].architecture)) == [best[4]]
    for wrong in ("top-0", "top-", "top-x", "top--1", "#", "trial-", "trial-x"):
        with pytest.raises(UserError, match="needs a whole number"):
            select(run, wrong)
    for wrong in ("", "-1", "worst"):
        with pytest.raises(UserError, match="unknown selection"):
            select(run, wrong)
    with pytest.raises(UserError, match="has no trial 20: it has 20 trials"):
        select(run, "#20")


@pytest.mark.parametrize(
    "text",
    ["top-" + "9" * 5000, "trial-" + "9" * 5000, "9" * 5000, "top-\uff11", "#" * 5000, "x" * 5000,
     "(" * 5000, "=" * 5000, "|" * 5000, "Genotype(" + "-" * 100_000 + ")", "\0", "top-1e400"],
)  # fmt: skip
def test_select_refuses(run: Run, text: str) -> None:
    with pytest.raises(UserError):
        select(run, text)


def test_select_before_anything_is_scored(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no scored candidate yet"):
        select(make_run(tmp_path), "top-5")


def test_finetune_study(run: Run) -> None:
    before = ranking(run)
    study = run.study_beside("finetune", "accuracy", "maximize")
    trial = study.ask()
    trial.report(0.5, 1)
    study.tell(trial, 0.5)
    assert len(run.study_beside("finetune", "accuracy", "maximize").trials) == 1
    assert ranking(run) == before


# ---------------------------------------------------------------- storage


def test_lost_and_damaged_records(run: Run) -> None:
    content = run.study_path.read_text()
    run.study_path.write_text("nonsense\n" + content)
    with pytest.raises(UserError, match="damaged, it is not an Optuna journal"):
        run.read()
    run.study_path.write_text("")
    with pytest.raises(UserError, match="holds no study"):
        run.read()
    run.study_path.unlink()
    with pytest.raises(UserError, match="the run has lost its record"):
        run.read()


@pytest.mark.parametrize("cut", [1, 2, 200, 100_000])
def test_torn_line_is_cut(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "study.log"
    whole = b'{"a": 1}\n{"b": 2}\n'
    torn = b'{"c": "' + b"x" * 200_000 + b'"}\n'
    path.write_bytes(whole + torn[:-cut])
    repair_journal(path)
    assert path.read_bytes() == whole
    repair_journal(path)
    assert path.read_bytes() == whole
    path.write_bytes(torn[:-cut])
    repair_journal(path)
    assert path.read_bytes() == b""


def test_lock_that_a_killed_process_left_is_broken(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From whatever folder the run was named by: the link must lead to the journal."""
    monkeypatch.setattr("ghnas.engine.storage.LOCK_GRACE", 3)
    monkeypatch.chdir(run.path)
    lock = Path(f"{run.study_path}.lock")
    lock.symlink_to(run.study_path)
    repair_journal(Path(JOURNAL))
    assert not lock.is_symlink()


@pytest.mark.parametrize("left", [False, True])
def test_a_lock_that_cannot_be_released_says_why(
    run: Run, monkeypatch: pytest.MonkeyPatch, left: bool
) -> None:
    """The disk is read-only by now: also where another process has left the lock."""
    monkeypatch.setattr("ghnas.engine.storage.LOCK_GRACE", 3)
    if left:
        Path(f"{run.study_path}.lock").symlink_to(run.study_path)

    def rename(source: str, target: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", source)

    monkeypatch.setattr("os.rename", rename)
    with pytest.raises(UserError, match=r"study\.log: cannot be written \(Read-only file system\)"):
        repair_journal(run.study_path)


def test_a_lock_that_another_process_has_broken_is_lost(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a machine sleeps it has the lock; when it wakes up, others have waited too long."""
    lock = Path(f"{run.study_path}.lock")
    monkeypatch.setattr("ghnas.engine.storage.cut_torn_line", lambda _: lock.unlink())
    with pytest.raises(UserError, match="this process stood still for more than 5 s; try again"):
        repair_journal(run.study_path)


def test_a_lock_that_another_process_has_is_respected(run: Run) -> None:
    """Whoever repairs a journal waits for a writer that is at it."""
    held = JournalFileSymlinkLock(str(run.study_path))
    held.acquire()
    done = threading.Event()

    def repair() -> None:
        repair_journal(run.study_path)
        done.set()

    waiting = threading.Thread(target=repair)
    waiting.start()
    assert not done.wait(1.0)
    assert Path(f"{run.study_path}.lock").is_symlink()
    held.release()
    waiting.join(timeout=30)
    assert done.is_set()


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/x.db", "foo://x/y"])
def test_bad_storage_url(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        make_run(tmp_path, storage=url)
    assert list_runs(tmp_path) == []


def test_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/search.db"
    made = make_run(tmp_path, storage=url, objectives=("accuracy", "params"))
    go_on(made)
    journal = make_run(tmp_path, objectives=("accuracy", "params"))
    go_on(journal)
    again = open_run(made.path)
    assert ranking(again) == ranking(journal)
    assert again.storage_url == url
    assert not again.study_path.exists()
    again.study_beside("finetune", "accuracy", "maximize")
    assert again.complete


def test_journal_is_read_by_optuna_alone(run: Run) -> None:
    storage = JournalStorage(JournalFileBackend(run.storage_url))
    assert len(optuna.load_study(study_name=run.name, storage=storage).trials) == 20


def test_manifest_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_manifest().budget = 3  # type: ignore[misc]
    assert "budget" in Manifest.model_fields
