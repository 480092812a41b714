"""Manifests, records, run folders, and Optuna's storages."""

from __future__ import annotations

import errno
import json
import random
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from searching import FakeScorer, make_manifest, ranking

from ghnas.engine.loop import search
from ghnas.engine.manifest import OBJECTIVES, Manifest, read_manifest
from ghnas.engine.record import Record, TrialFormat
from ghnas.engine.run import JOURNAL, LOCK, MANIFEST, PROGRESS
from ghnas.engine.runs import (
    FORMAT_VERSION,
    Run,
    create_run,
    find_run,
    latest_run,
    list_runs,
    open_run,
    parse_objectives,
    select,
)
from ghnas.engine.storage import JournalWriter, create_study, open_storage, repair_journal
from ghnas.spaces import load_space, read_space_file
from ghnas.utils.errors import UserError

SPACES = {name: load_space(name) for name in ("darts", "mobile")}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run of 20 candidates."""
    made = create_run(tmp_path, make_manifest())
    search(made, FakeScorer())
    return made


# ---------------------------------------------------------------- manifest


@given(
    data=st.text(),
    seed=st.integers(-(2**70), 2**70),
    limits=st.tuples(*[st.none() | st.integers(1, 10**15)] * 2),
    classes=st.lists(st.text(max_size=8), min_size=2, max_size=4),
    objectives=st.lists(st.sampled_from(list(OBJECTIVES)), unique=True).filter(
        lambda names: "accuracy" in names
    ),
)
@settings(max_examples=40, deadline=None)
def test_manifest_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    data: str,
    seed: int,
    limits: tuple[int | None, int | None],
    classes: list[str],
    objectives: list[str],
) -> None:
    manifest = make_manifest(
        data=data,
        seed=seed,
        max_params=limits[0],
        max_flops=limits[1],
        classes=classes,
        objectives=objectives,
    )
    path = tmp_path_factory.mktemp("manifest") / MANIFEST
    path.write_text(manifest.model_dump_json(), encoding="utf-8")
    assert read_manifest(path) == manifest


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"strategy": "magic"}, "unknown strategy 'magic'; known are random, evolution, tpe, nsga"),
        ({"objectives": ("accuracy", "beauty")}, "unknown objective 'beauty'; known are accuracy"),
        ({"objectives": ("params", "flops")}, "objectives must include accuracy"),
        ({"objectives": ("accuracy", "accuracy")}, "named twice"),
        ({"budget": 0}, "the budget must be 1 or more, not 0"),
        ({"batch_size": -1}, "the batch size must be 1 or more, not -1"),
        ({"max_params": 0}, "the max-params must be 1 or more, not 0"),
        ({"space_name": "nowhere.yaml"}, "unknown space 'nowhere.yaml'"),
    ],
)
def test_manifest_refuses(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_manifest(**changes)


def test_parse_objectives() -> None:
    assert parse_objectives("accuracy, params") == ("accuracy", "params")
    with pytest.raises(UserError, match="unknown objective ''"):
        parse_objectives("accuracy,")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "damaged, it is not JSON"),
        ("[]", "damaged"),
        ('{"format_version": 1}', "damaged, key 'created'"),
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


def test_run_of_a_newer_version(run: Run) -> None:
    path = run.path / MANIFEST
    content = json.loads(path.read_text()) | {"format_version": FORMAT_VERSION + 1, "new": 1}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"written by a newer ghnas .* update ghnas"):
        open_run(run.path)


def test_space_is_the_one_the_run_was_started_with(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(read_space_file("mobile").replace("name: mobile", "name: mine"))
    space = load_space(str(mine))
    made = create_run(tmp_path, make_manifest(str(mine)))
    mine.unlink()
    again = open_run(made.path)
    assert again.space.name == "mine"
    assert again.space.choices == space.choices
    assert dict(again.space.skeleton) == dict(space.skeleton)


# ---------------------------------------------------------------- record


@given(
    name=st.sampled_from(sorted(SPACES)),
    seed=st.integers(0, 2**32),
    objectives=st.sampled_from(
        [("accuracy",), ("params", "accuracy"), ("consensus",), tuple(OBJECTIVES)]
    ),
    consensus=st.floats(-1000, 100),
    images=st.none() | st.integers(1, 512),
    early=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 10)), max_size=3),
    accuracy=st.floats(0, 1),
    params=st.integers(0, 2**53),
    duplicate_of=st.none() | st.integers(0, 10**9),
    seconds=st.floats(0, 10**6),
)
@settings(max_examples=100, deadline=None)
def test_record_round_trip(
    name: str,
    seed: int,
    objectives: tuple[str, ...],
    consensus: float,
    images: int | None,
    early: list[tuple[float, float]],
    accuracy: float,
    params: int,
    duplicate_of: int | None,
    seconds: float,
) -> None:
    architecture = SPACES[name].sample(seed)
    record = Record(
        number=-1,
        architecture=architecture,
        accuracy=accuracy,
        params=params,
        flops=7,
        hash="ab" * 8,
        duplicate_of=duplicate_of,
        seconds=seconds,
        images=images,
        early=tuple(early),
        consensus=consensus if "consensus" in objectives else None,
    )
    form = TrialFormat(SPACES[name], objectives)
    trial = form.trial(record)
    again = form.record(trial)
    assert again.seconds == pytest.approx(seconds, abs=1e-6)
    assert again.__dict__ | {"seconds": 0} == record.__dict__ | {"seconds": 0}


def test_record_is_readable() -> None:
    architecture = SPACES["darts"].sample(0)
    form = TrialFormat(SPACES["darts"], ("accuracy",))
    trial = form.trial(Record(0, architecture, 0.5, 10, 20, "ab", 3))
    assert len(trial.params) == 22
    assert trial.params == architecture.choices
    assert str(SPACES["darts"].architecture(trial.params)) == str(architecture)
    assert trial.user_attrs == {"params": 10, "flops": 20, "hash": "ab", "same_as": 3}


def test_journal_lines_are_optunas_own(tmp_path: Path) -> None:
    rng = random.Random(1)
    form = TrialFormat(SPACES["darts"], ("accuracy", "params"))
    trials = [
        form.trial(Record(i, SPACES["darts"].sample(rng), 1 / 3, 9, 9, "ab")) for i in range(5)
    ]
    objectives = {"accuracy": OBJECTIVES["accuracy"], "params": OBJECTIVES["params"]}
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    create_study(open_storage(ours, None), "a", objectives, {})
    JournalWriter(ours, 2).write(trials)
    study = create_study(open_storage(theirs, None), "a", objectives, {})
    study.add_trials(trials)
    assert optuna.load_study(study_name="a", storage=open_storage(ours, None)).trials == (
        study.trials
    )


def test_foreign_trial_is_refused(run: Run) -> None:
    run.study().add_trial(optuna.trial.create_trial(value=0.5))
    with pytest.raises(UserError, match="trial 20 is not a candidate of space 'darts'"):
        run.recorded()


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
    assert study.best_trial.number == run.ranked(1)[0].record.number


def test_runs_are_found_and_listed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run found in .*; run `ghnas search` first"):
        latest_run(tmp_path)
    with pytest.raises(UserError, match=r"no run 'x' in .*; run `ghnas search` first"):
        find_run(tmp_path, "x")
    runs = [create_run(tmp_path, make_manifest()) for _ in range(11)]
    assert latest_run(tmp_path).path == runs[-1].path
    assert find_run(tmp_path, runs[3].name).path == runs[3].path
    assert find_run(tmp_path, str(runs[4].path)).path == runs[4].path
    with pytest.raises(UserError, match=f"the latest is {runs[-1].name}"):
        find_run(tmp_path, "x")
    search(runs[0], FakeScorer())
    (runs[1].path / MANIFEST).write_text("{")
    (tmp_path / "runs" / "not-a-run").mkdir()
    listed = list_runs(tmp_path)
    assert [item.name for item in listed] == [item.name for item in runs]
    assert (listed[0].done, listed[0].budget, listed[0].problem) == (20, 20, None)
    assert listed[0].best_accuracy == runs[0].ranked(1)[0].record.accuracy
    assert "damaged" in (listed[1].problem or "")
    assert (listed[2].done, listed[2].best_accuracy) == (0, None)


def test_results_folder_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="cannot be written"):
        create_run(file, make_manifest())


def test_full_disk_when_a_run_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: JournalFileBackend, logs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(JournalFileBackend, "append_logs", full)
    with pytest.raises(UserError, match="No space left on device"):
        create_run(tmp_path, make_manifest())
    assert list_runs(tmp_path) == []
    assert list((tmp_path / "runs").iterdir()) == []


def test_changed_inputs_are_refused(run: Run) -> None:
    manifest = run.manifest
    run.check_inputs(ghn_sha256=manifest.ghn_sha256, data_fingerprint=manifest.data_fingerprint)
    with pytest.raises(UserError, match="another GHN"):
        run.check_inputs(ghn_sha256="0" * 64, data_fingerprint=manifest.data_fingerprint)
    with pytest.raises(UserError, match="other images"):
        run.check_inputs(ghn_sha256=manifest.ghn_sha256, data_fingerprint="0" * 64)


def test_select(run: Run) -> None:
    best = run.ranked()
    assert select(run, "top-3") == best[:3]
    assert select(run, "best") == select(run, "front") == best[:1]
    number = best[4].record.number
    assert select(run, f"#{number}") == select(run, str(number)) == [best[4]]
    for wrong in ("top-0", "top-", "top-x", "", "top--1", "-1", "#"):
        with pytest.raises(UserError, match="expected top-5"):
            select(run, wrong)
    with pytest.raises(UserError, match="has no trial 20: it has 20 trials"):
        select(run, "#20")


def test_select_before_anything_is_scored(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no scored candidate yet"):
        select(create_run(tmp_path, make_manifest()), "top-5")


def test_finetune_study(run: Run) -> None:
    before = ranking(run)
    study = run.finetune_study()
    trial = study.ask()
    trial.report(0.5, 1)
    study.tell(trial, 0.5)
    assert len(run.finetune_study().trials) == 1
    assert ranking(run) == before


# ---------------------------------------------------------------- storage


def test_lost_and_damaged_records(run: Run) -> None:
    content = run.study_path.read_text()
    run.study_path.write_text("nonsense\n" + content)
    with pytest.raises(UserError, match="damaged, it is not an Optuna journal"):
        run.recorded()
    run.study_path.write_text("")
    with pytest.raises(UserError, match="holds no study"):
        run.recorded()
    run.study_path.unlink()
    with pytest.raises(UserError, match="the run has lost its record"):
        run.recorded()


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


def test_lock_that_nobody_holds_is_removed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ghnas.engine.storage.LOCK_PATIENCE", 0.05)
    lock = Path(f"{run.study_path}.lock")
    lock.symlink_to(run.study_path)
    repair_journal(run.study_path)
    assert not lock.is_symlink()


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/x.db", "foo://x/y"])
def test_bad_storage_url(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        create_run(tmp_path, make_manifest(storage=url))
    assert list_runs(tmp_path) == []


def test_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/search.db"
    made = create_run(tmp_path, make_manifest(storage=url, objectives=("accuracy", "params")))
    search(made, FakeScorer())
    journal = create_run(tmp_path, make_manifest(objectives=("accuracy", "params")))
    search(journal, FakeScorer())
    again = open_run(made.path)
    assert ranking(again) == ranking(journal)
    assert again.storage_url == url
    assert not again.study_path.exists()
    again.finetune_study()
    assert again.complete


def test_journal_is_read_by_optuna_alone(run: Run) -> None:
    storage = JournalStorage(JournalFileBackend(run.storage_url))
    assert len(optuna.load_study(study_name=run.name, storage=storage).trials) == 20


def test_manifest_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_manifest().budget = 3  # type: ignore[misc]
    assert "budget" in Manifest.model_fields
