"""Disks that are full or cannot be written: one sentence, and what was finished is kept."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from file_limits import files_up_to

from ghnas.utils.files import require_writable, write_atomically

pytest.importorskip("resource", reason="needs limits of POSIX")
Ghnas = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A results folder of one's own."""
    return Path(shutil.copytree(finished, tmp_path / "results"))


def refused(result: tuple[int, str, str]) -> str:
    code, _, err = result
    sentences = [line for line in err.splitlines() if line.startswith("ghnas: ")]
    assert code == 2, err
    assert len(sentences) == 1
    assert "Traceback" not in err
    assert "free some space" in sentences[0]
    return sentences[0]


@pytest.mark.parametrize("target", ["x.safetensors", "x.pt"])
@pytest.mark.parametrize("size", [1000, 20_000])
def test_convert(ghnas: Ghnas, tiny_ghn: Path, tmp_path: Path, target: str, size: int) -> None:
    (tmp_path / target).write_text("what was there before")
    with files_up_to(size):
        assert target in refused(ghnas("convert", tiny_ghn, tmp_path / target))
    assert [path.name for path in tmp_path.iterdir()] == [target]
    assert (tmp_path / target).read_text() == "what was there before"


def test_generate_whose_last_page_finds_no_room(ghnas: Ghnas, tmp_path: Path) -> None:
    made = "generate", "--space", "darts", "--count", "300", "-o"
    assert ghnas(*made, tmp_path / "whole")[0] == 0
    whole, shard = (tmp_path / name / "00000.npy" for name in ("whole", "part"))
    with files_up_to(whole.stat().st_size // 4096 * 4096):
        refused(ghnas(*made, tmp_path / "part"))
    assert not shard.exists()
    assert ghnas(*made, tmp_path / "part")[0] == 0
    assert shard.read_bytes() == whole.read_bytes()


def test_predict(ghnas: Ghnas, tiny_ghn: Path, tmp_path: Path) -> None:
    with files_up_to(100_000):
        sentence = refused(
            ghnas("predict", "squeezenet1_1", "--ghn", tiny_ghn, "-o", tmp_path / "x.safetensors")
        )
    assert "x.safetensors" in sentence
    assert not list(tmp_path.iterdir())


def test_finetune_keeps_what_it_can(ghnas: Ghnas, run: Path) -> None:
    arguments = ("finetune", "top-1", "--epochs", 1, "--results", run, "--device", "cpu")
    with files_up_to(50_000):
        refused(ghnas(*arguments))
    assert ghnas("show", "top-3", "--results", run)[0] == 0
    (folder,) = (run / "runs").iterdir()
    assert not list(folder.rglob(".*"))


@pytest.mark.parametrize(
    "command", [("show", "top-2"), ("runs",), ("search", "--resume", "--device", "cpu")]
)
def test_commands_that_read_need_no_space(ghnas: Ghnas, run: Path, command: tuple[str]) -> None:
    whole = ghnas(*command, "--results", run)
    shutil.rmtree(next((run / "runs").iterdir()) / "drawings", ignore_errors=True)
    with files_up_to(0):
        code, out, err = ghnas(*command, "--results", run)
    assert code == 0, err
    shown, kept = (
        [line for line in text.splitlines() if line and "drawing" not in line]
        for text in (out, whole[1])
    )
    assert shown == kept
    assert ("cannot be written" in err) == (command[0] == "show")


COMMANDS = {
    "train": ("--output", "below/x.safetensors"),
    "convert": ("darts-embedded", "below/x.safetensors"),
    "predict": ("resnet18", "--ghn", "darts-embedded", "-o", "below/x.safetensors"),
    "truth": ("--output", "below/x.csv", "--count", "2", "--steps", "1"),
    "generate": ("--output", "below"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_where_nothing_can_be_written_nothing_begins(
    ghnas: Ghnas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "below").write_text("a file, and no folder")
    code, out, err = ghnas(command, *COMMANDS[command])
    assert code == 2
    assert "below" in err
    assert "ETA" not in out, "work was begun"


def test_a_file_that_can_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("as before")
    for name in ("there", "new", "folder/new"):
        require_writable(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=os.strerror(errno.EISDIR)):
        require_writable(tmp_path / "folder")
    with files_up_to(100), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        require_writable(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "there"]


def test_errors_name_the_file_and_not_its_neighbour(tmp_path: Path) -> None:
    with files_up_to(100), pytest.raises(OSError, match="large") as caught:
        write_atomically(tmp_path / "weights", bytes(1000))
    assert caught.value.filename == str(tmp_path / "weights")
