"""The program in a process of its own: what reaches the terminal, and who may read its files."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = ("--space", "darts", "--cells", "1", "--channels", "4")


def run(folder: Path, *arguments: str) -> str:
    """Run the program in a folder; returns its stderr."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, "-m", "ghnas", *arguments],
        cwd=folder,
        env=environment,
        umask=0o027,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_terminals_without_unicode_get_plain_characters(finished: Path, encoding: str) -> None:
    show = [sys.executable, "-m", "ghnas", "show", "top-1", "--results", str(finished)]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(show, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"->" in done.stdout
    assert done.stdout.isascii()
    assert b"?" not in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_a_reader_that_has_seen_enough_is_no_error(finished: Path) -> None:
    show = shlex.join([sys.executable, "-m", "ghnas", "show", "top-9", "--results", str(finished)])
    command = f"{show} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


SWALLOWS = """
import signal

try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    pass
print("went on")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_an_interrupt_while_pytorch_is_imported_ends_the_program(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(SWALLOWS)
    program = (
        "import sys; from ghnas.cli.app import exit_code; "
        "sys.exit(exit_code(lambda: __import__('torch')))"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "ghnas: interrupted\n")


@pytest.mark.skipif(os.name != "posix", reason="other systems keep such a folder")
def test_a_folder_that_was_removed(tmp_path: Path) -> None:
    spaces = shlex.join([sys.executable, "-m", "ghnas", "spaces"])
    command = f"mkdir gone; cd gone; rmdir ../gone; {spaces}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "ghnas: this folder has been removed: go to another one, try again\n"


@pytest.mark.skipif(os.name != "posix", reason="other systems have no umask")
def test_no_warnings_and_files_that_follow_the_umask(tmp_path: Path, tiny_ghn: Path) -> None:
    train = ("train", *SMALL, "--hid", "8", "--steps", "2", "--meta-batch", "2", "--workers", "2")
    search = ("search", "--budget", "8", "--ghn", str(tiny_ghn), "--score-images", "32")
    truth = ("truth", *SMALL, "--count", "2", "--seeds", "1", "--steps", "1", "--workers", "2")
    told = [run(tmp_path, *command) for command in (train, search, truth)]
    assert not [text for text in told if "Warning" in text]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".safetensors", ".csv", ".json", ".log"}
    allowed = {path.name: oct(stat.S_IMODE(path.stat().st_mode) & 0o044) for path in files}
    assert set(allowed.values()) == {"0o40"}, allowed
