"""Files of tensors."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from ghnas.utils.errors import UserError
from ghnas.utils.tensor_files import read_tensors, write_tensors

LITTLE_MEMORY = """
import resource, sys, torch
from ghnas.utils.tensor_files import tensors_as_bytes
tensors = {"x": torch.ones(10**7)}
tensors_as_bytes({"x": torch.ones(2)}, {})
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
size += int(float(sys.argv[1]) * tensors["x"].nbytes)
resource.setrlimit(resource.RLIMIT_AS, (size, size))
try:
    print(len(tensors_as_bytes(tensors, {})))
except MemoryError:
    print("too little memory")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
@pytest.mark.parametrize(
    ("times", "said"),
    [(0, "too little memory"), (0.5, "too little memory"), (1.5, "too little memory"), (3, "4000")],
)
def test_too_little_memory_to_write_is_an_error(times: float, said: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, str(times)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(said)


@pytest.mark.skipif(sys.platform == "win32", reason="limits a process's files")
def test_no_more_open_files_are_no_damage(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "x.safetensors"
    write_tensors(path, {"x": torch.ones(2)}, {})
    before, opened, said = resource.getrlimit(resource.RLIMIT_NOFILE), [], []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        with suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        while True:
            try:
                read_tensors(path)
                break
            except (UserError, RuntimeError) as error:
                said.append(str(error))
            os.close(opened.pop())
    finally:
        for each in opened:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert said
    assert all(os.strerror(errno.EMFILE) in each for each in said)
