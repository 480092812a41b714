"""Mistakes at the command line: one clear sentence on stderr, exit code 2, no traceback."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ghnas.spaces import list_spaces
from ghnas.utils.errors import UserError

Ghnas = Callable[..., tuple[int, str, str]]
DARTS = list_spaces()["darts"].read_text()


@pytest.fixture
def fails(ghnas: Ghnas, tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must fail; returns its one sentence."""

    def run(*arguments: object, results: Path = tmp_path / "results") -> str:
        takes_results = arguments[0] not in ("spaces", "train")
        code, out, err = ghnas(*arguments, *(["--results", results] if takes_results else []))
        assert code == 2, (code, out, err)
        (sentence,) = err.splitlines()
        assert sentence.startswith("ghnas: ")
        assert "Traceback" not in out + err
        return sentence

    return run


# ---------------------------------------------------------------- names


def test_unknown_space(fails: Callable[..., str]) -> None:
    for command in (("search", "--space", "drats"), ("spaces", "drats")):
        assert (
            "unknown space 'drats': use darts, deepnets1m, mobile, nasbench101, nasbench201, "
            "nasbench_macro, or the path" in fails(*command)
        )


def test_unknown_strategy(fails: Callable[..., str]) -> None:
    sentence = fails("search", "--strategy", "annealing")
    assert "annealing" in sentence
    assert all(name in sentence for name in ("random", "evolution", "tpe", "nsga2"))


def test_unknown_data_set(fails: Callable[..., str]) -> None:
    sentence = fails("search", "--data", "cifar11")
    assert "cifar11" in sentence
    assert "cifar10" in sentence


def test_unknown_objective(fails: Callable[..., str]) -> None:
    sentence = fails("search", "--objective", "accuracy,beauty")
    assert "beauty" in sentence
    assert "params" in sentence


@pytest.mark.parametrize("command", ["search", "finetune"])
def test_unknown_device(fails: Callable[..., str], command: str) -> None:
    assert "unknown device 'tpu': use auto, cpu, cuda" in fails(command, "--device", "tpu")


def test_device_that_is_not_there(fails: Callable[..., str]) -> None:
    assert "'cuda:99' is not there" in fails("search", "--device", "cuda:99")


def test_unknown_command_and_option(fails: Callable[..., str], ghnas: Ghnas) -> None:
    assert "--bugdet" in fails("search", "--bugdet", "3")
    code, _, err = ghnas("serach")
    assert code == 2
    assert "serach" in err


def test_unknown_preset(fails: Callable[..., str], tmp_path: Path) -> None:
    sentence = fails("train", "--preset", "ghn3", "--output", tmp_path / "x.safetensors")
    assert "unknown preset 'ghn3': use ghn2, ghn1, mlp" in sentence


def test_unknown_augmentation(fails: Callable[..., str], tmp_path: Path) -> None:
    sentence = fails("train", "--augment", "mixup", "--output", tmp_path / "x.safetensors")
    assert "unknown augmentation 'mixup': use shift, crop, randaugment" in sentence


def test_a_training_cannot_start_from_nothing(fails: Callable[..., str], tmp_path: Path) -> None:
    output = ("--output", tmp_path / "x.safetensors")
    assert "nowhere.safetensors" in fails("train", "--from", "nowhere.safetensors", *output)
    assert "hid" in fails("train", "--from", "shipped", "--hid", 8, *output)
    assert not (tmp_path / "x.safetensors").exists()


def test_a_mixture_of_spaces_has_no_skeleton(fails: Callable[..., str], tmp_path: Path) -> None:
    output = ("--output", tmp_path / "x.safetensors")
    assert "--cells" in fails("train", "--space", "general", "--cells", 8, *output)


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("value", ["0", "-5", "many", "1.5", "nan", "inf", "1e3"])
@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("search",), "--budget"),
        (("search",), "--max-params"),
        (("search",), "--score-images"),
        (("finetune", "top-1"), "--epochs"),
        (("train", "--output", "x.safetensors"), "--steps"),
    ],
)
def test_not_a_number(
    fails: Callable[..., str], command: tuple[str, ...], option: str, value: str
) -> None:
    sentence = fails(*command, f"{option}={value}")
    assert f"{option} must be a whole number of 1" in sentence
    assert f"not {value!r}" in sentence


@pytest.mark.parametrize("which", ["top-0", "top--1", "top-many", "top-", "trial-x", "best5", ""])
@pytest.mark.parametrize("command", ["finetune", "show"])
def test_wrong_selection(
    fails: Callable[..., str], finished: Path, command: str, which: str
) -> None:
    assert repr(which) in fails(command, which, results=finished)


def test_trial_that_does_not_exist(fails: Callable[..., str], finished: Path) -> None:
    assert "999" in fails("show", "trial-999", results=finished)


@pytest.mark.parametrize(
    "option",
    ["--space", "--data", "--sampler", "--strategy", "--objective", "--ghn", "--device",
     "--storage", "--train-from", "--results"],
)  # fmt: skip
def test_empty_values_start_nothing(fails: Callable[..., str], option: str) -> None:
    assert f"{option} has an empty value" in fails("search", option, "")
    assert f"{option} has an empty value" in fails("search", f"{option}=")
    if option in ("--space", "--data", "--device"):
        assert option in fails("train", "--output", "x.safetensors", option, "")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--budget", "9" * 5000), ("--budget", "1" + "0" * 30), ("--seed", 2**64),
     ("--cells", "1000000"), ("--max-params", "9" * 40 + "G")],
)  # fmt: skip
def test_numbers_that_are_too_large(fails: Callable[..., str], option: str, value: str) -> None:
    sentence = fails("search", option, value)
    assert option in sentence
    assert len(sentence) <= 300


def test_no_more_processes_than_a_machine_has(fails: Callable[..., str]) -> None:
    assert "--workers" in fails("train", "--workers", 10**6, "--output", "x.safetensors")


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x", "x\0y", "\x1b[31mred", "x" * 5000])
@pytest.mark.parametrize("option", ["--data", "--space", "--ghn"])
def test_strange_paths(fails: Callable[..., str], option: str, name: str) -> None:
    sentence = fails("search", "--budget", 2, option, name)
    assert sentence.isprintable()
    assert len(sentence) <= 300


@pytest.mark.parametrize(
    "name",
    [":a", "a:", ":", "..:x", ".a:b", "sys:exit", "builtins:input", "torch.nn:nothing", "a b:c",
     "torch:nn", "os.path:join", "x" * 5000, "\x1b[31m:a"],
)  # fmt: skip
def test_networks_that_are_none(
    ghnas: Ghnas, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = ghnas("predict", name, "--ghn", "darts-embedded")
    assert (code, out) == (2, "")
    assert len(err) <= 301
    assert err.strip().isprintable()
    assert not list(tmp_path.iterdir())


def test_learning_rate(fails: Callable[..., str]) -> None:
    for value in ("0", "-1", "fast", "nan", "1e300", "inf"):
        sentence = fails("finetune", "top-1", f"--learning-rate={value}")
        assert f"--learning-rate must be a number above 0, not {value!r}" in sentence


# ---------------------------------------------------------------- space files


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("nodes: 4", "nods: 4", ("cell.", "nods")),
        ("block: skip", "block: teleport", ("skip_connect", "teleport", "nearest")),
        ("max_pool, kernel: 3", "max_pool, kernel: 4", ("max_pool_3x3", "odd")),
        ("nodes: 4", "nodes: none", ("cell.nodes", "integer")),
        ("family: cells", "family: cell", ("family", "'cell'")),
        ("nodes: 4", "nodes: [4", ("line",)),
    ],
)
def test_wrong_space_file(
    fails: Callable[..., str], tmp_path: Path, old: str, new: str, expected: tuple[str, ...]
) -> None:
    path = tmp_path / "mine.yaml"
    assert old in DARTS
    path.write_text(DARTS.replace(old, new))
    for command in (("spaces", path), ("search", "--space", path)):
        sentence = fails(*command)
        assert all(word in sentence for word in (str(path), *expected)), sentence


def test_empty_choice(fails: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    mobile = list_spaces()["mobile"].read_text()
    for old in ("expansion: [1, 2, 3]", "depth: [1, 2]"):
        assert old in mobile
        path.write_text(mobile.replace(old, old.split(":")[0] + ": []", 1))
        sentence = fails("spaces", path)
        assert str(path) in sentence
        assert "stages" in sentence


# ---------------------------------------------------------------- limits, hypernetworks, images


def test_limit_that_no_candidate_meets(fails: Callable[..., str], tiny_ghn: Path) -> None:
    sentence = fails("search", "--ghn", tiny_ghn, "--max-params", "10", "--budget", "5")
    assert "10" in sentence
    assert "param" in sentence
    sentence = fails("search", "--ghn", tiny_ghn, "--max-flops", "1k", "--budget", "5")
    assert "flops" in sentence.lower()


def test_ghn_that_is_not_one(fails: Callable[..., str], tiny_ghn: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.safetensors"
    assert str(missing) in fails("search", "--ghn", missing)

    truncated = tmp_path / "truncated.safetensors"
    content = tiny_ghn.read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 1):
        truncated.write_bytes(content[:length])
        assert str(truncated) in fails("search", "--ghn", truncated)

    text = tmp_path / "text.safetensors"
    text.write_text("this is not a hypernetwork")
    assert str(text) in fails("search", "--ghn", text)
    assert str(tmp_path) in fails("search", "--ghn", tmp_path)


def test_safetensors_file_of_something_else(fails: Callable[..., str], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    assert "not a GHN" in fails("search", "--ghn", path)


def test_ghn_for_another_space(fails: Callable[..., str], tiny_ghn: Path) -> None:
    sentence = fails("search", "--space", "mobile", "--ghn", tiny_ghn)
    assert "space 'darts', not 'mobile'" in sentence
    assert "ghnas train --space mobile" in sentence


@pytest.mark.parametrize("objective", ["accuracy", "composite,params"])
def test_an_objective_that_needs_a_ghn(
    fails: Callable[..., str], tmp_path: Path, objective: str
) -> None:
    make_images(tmp_path / "pets", classes=3)
    for options in (("--data", tmp_path / "pets"), ("--ghn", "none")):
        sentence = fails("search", *options, "--adapt", 0, "--objective", objective)
        assert "needs a hypernetwork (`ghnas train` trains one" in sentence
        assert "naswot" in sentence
    assert "add --ghn none" in fails("search", "--objective", "naswot")
    several = ("--ghn", "none", "--objective", "naswot,params", "--train", 2)
    assert "naswot,params are several" in fails("search", *several)


def test_ghn_for_other_data(fails: Callable[..., str], tiny_ghn: Path, tmp_path: Path) -> None:
    make_images(tmp_path / "pets", classes=3)
    sentence = fails("search", "--data", tmp_path / "pets", "--ghn", tiny_ghn)
    assert "10 classes" in sentence
    assert f"ghnas train --space darts --data {tmp_path / 'pets'}" in sentence
    make_images(tmp_path / "ten", classes=10)
    sentence = fails("search", "--data", tmp_path / "ten", "--ghn", tiny_ghn)
    assert "'digitscapes'" in sentence


def make_images(folder: Path, classes: int, each: int = 20) -> None:
    for label in range(classes):
        place = folder / f"class{label}"
        place.mkdir(parents=True)
        for number in range(each):
            Image.new("RGB", (16, 16), (20 * label, 5 * number, 0)).save(place / f"{number}.png")


def test_image_folder_without_images(fails: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    assert str(folder) in fails("search", "--data", folder)
    (folder / "cats").mkdir()
    assert "cats" in fails("search", "--data", folder)


def test_image_folder_with_one_class(fails: Callable[..., str], tmp_path: Path) -> None:
    make_images(tmp_path / "pets", classes=1)
    assert "one class" in fails("search", "--data", tmp_path / "pets").lower()


def test_broken_image_is_named(fails: Callable[..., str], tmp_path: Path) -> None:
    make_images(tmp_path / "pets", classes=2)
    broken = tmp_path / "pets" / "class1" / "7.png"
    broken.write_bytes(broken.read_bytes()[:40])
    assert str(broken) in fails("search", "--data", tmp_path / "pets")


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("command", ["finetune", "show", "dashboard"])
def test_before_any_search(fails: Callable[..., str], command: str) -> None:
    assert "ghnas search" in fails(command)


def test_unknown_run(fails: Callable[..., str], finished: Path) -> None:
    for arguments in (("finetune", "--run", "nope"), ("search", "--resume", "nope")):
        assert "nope" in fails(*arguments, results=finished)


def test_run_named_without_resume(fails: Callable[..., str]) -> None:
    assert "--resume" in fails("search", "some-run")


def test_resume_with_other_options(fails: Callable[..., str], finished: Path) -> None:
    sentence = fails("search", "--resume", "--seed", "7", results=finished)
    assert "--seed 0, not 7" in sentence


def test_run_from_a_newer_version(
    fails: Callable[..., str], ghnas: Ghnas, finished: Path, tmp_path: Path
) -> None:
    (old,) = (finished / "runs").iterdir()
    new = tmp_path / "results" / "runs" / old.name
    new.mkdir(parents=True)
    manifest = json.loads((old / "manifest.json").read_text())
    (new / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99, "x": 1}))
    for command in (("finetune",), ("search", "--resume"), ("show",)):
        sentence = fails(*command)
        assert "newer" in sentence
        assert str(new) in sentence
    code, out, _ = ghnas("runs", "--results", tmp_path / "results")
    assert code == 0
    assert "newer" in " ".join(out.split())


def test_damaged_manifest(fails: Callable[..., str], finished: Path, tmp_path: Path) -> None:
    (old,) = (finished / "runs").iterdir()
    new = tmp_path / "results" / "runs" / old.name
    new.mkdir(parents=True)
    text = (old / "manifest.json").read_text()
    for damaged in ("", text[: len(text) // 2], "[]", "{}"):
        (new / "manifest.json").write_text(damaged)
        assert str(new) in fails("show")


# ---------------------------------------------------------------- disks


def test_results_folder_that_is_a_file(
    fails: Callable[..., str], tiny_ghn: Path, tmp_path: Path
) -> None:
    place = tmp_path / "file"
    place.write_text("")
    assert str(place) in fails("search", "--ghn", tiny_ghn, "--budget", "4", results=place)


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission")],
)
def test_operating_system_errors(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "as the system says it", "/somewhere/manifest.json")

    monkeypatch.setattr("ghnas.utils.devices.pick_device", refuse)
    sentence = fails("search")
    assert words in sentence
    assert "/somewhere/manifest.json" in sentence


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")],
)
def test_too_little_memory(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("ghnas.utils.devices.pick_device", refuse)
    assert "too little memory" in fails("search")


def test_too_little_memory_to_begin_with(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("ghnas.cli.interrupts.Interrupts.__init__", refuse)
    assert "too little memory" in fails("search")


def test_too_little_memory_of_which_a_library_makes_something_else(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        try:
            raise MemoryError
        except MemoryError:
            raise ValueError("too many values to unpack") from None

    monkeypatch.setattr("ghnas.utils.devices.pick_device", refuse)
    assert "too little memory" in fails("search")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("can't start new thread"), "no more processes may be started here"),
        (RuntimeError("Resource temporarily unavailable"), "no more processes may be started here"),
        (BlockingIOError(errno.EAGAIN, "try again"), "no more processes may be started here"),
        (OSError(errno.EMFILE, "too many", "a file"), "no more files may be open at once"),
        (
            RuntimeError("unable to open file <x> in read-only mode: Too many open files (24)"),
            "no more files may be open at once",
        ),
    ],
)
def test_limits_of_a_user(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("ghnas.utils.devices.pick_device", refuse)
    assert words in fails("search")


def test_file_that_is_not_to_blame(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        try:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "x.npy")
        except OSError as error:
            raise UserError("x.npy is damaged: delete it and generate again") from error

    monkeypatch.setattr("ghnas.utils.devices.pick_device", refuse)
    sentence = fails("search")
    assert "no more files may be open at once" in sentence
    assert "damaged" not in sentence


def test_port_in_use(fails: Callable[..., str], finished: Path) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        sentence = fails("dashboard", "--port", port, "--no-browser", results=finished)
    assert f"port {port} is in use: choose another with --port" in sentence
