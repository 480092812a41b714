"""Files of tensors."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
