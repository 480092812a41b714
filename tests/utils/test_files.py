"""Files are written whole, and may be read by whom the umask says."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ghnas.utils.errors import UserError
from ghnas.utils.files import replace_atomically, require_writable, write_atomically


@pytest.fixture(params=[0o022, 0o027])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(os.name != "posix", reason="other systems have no umask")
def test_files_follow_the_umask(tmp_path: Path, umask: int) -> None:
    text, state, weights = tmp_path / "a" / "b.txt", tmp_path / "c.pt", tmp_path / "d.safetensors"
    tensors = {"x": torch.ones(2)}
    for _ in range(2):  # new, then replaced
        write_atomically(text, "text")
        replace_atomically(state, lambda beside: torch.save(tensors, beside))
        replace_atomically(weights, lambda beside: save_file(tensors, beside))
        for path in (text, state, weights):
            assert oct(mode(path)) == oct(0o666 & ~umask)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def fail(beside: Path) -> None:
        beside.write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        replace_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="links and pipes are other things there")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "file", tmp_path / "disk" / "large"
    path.symlink_to(elsewhere)
    for content in ("new", "newer"):
        require_writable(path)
        write_atomically(path, content)
        assert elsewhere.read_text() == content
        assert path.is_symlink()
        assert list(elsewhere.parent.iterdir()) == [elsewhere]


@pytest.mark.skipif(os.name == "nt", reason="links and pipes are other things there")
def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(UserError, match="name a file"):
            write_atomically(path, "content")
        with pytest.raises(UserError, match="name a file"):
            require_writable(path)
    assert pipe.is_fifo()
    assert sorted(tmp_path.iterdir()) == [link, pipe]


KILLED = """
import os, pathlib, sys
from ghnas.utils.files import replace_atomically

def write(beside: pathlib.Path) -> None:
    beside.write_text("half")
    os._exit(1)

replace_atomically(pathlib.Path(sys.argv[1]), write)
"""


@pytest.mark.skipif(os.name == "nt", reason="whether a process runs cannot be asked there")
def test_what_a_killed_process_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "file [1]"
    assert subprocess.run([sys.executable, "-c", KILLED, path]).returncode == 1
    (left,) = tmp_path.iterdir()

    def write(beside: Path) -> None:
        assert not left.exists()
        write_atomically(path, "by another thread")
        beside.write_text("whole")  # which has left this one alone

    replace_atomically(path, write)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "whole"
