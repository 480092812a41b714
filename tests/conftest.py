"""What several test files share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ghnas.cli import main

# Small operations on many threads cost more than on one, and far more on a busy machine. Torch
# reads this when it is imported: the line above must not do that.
os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or "1"


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers whichever tests ran before."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of hypernetworks for each test; that of compiled kernels stays."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("ghnas.ghn.library.cache_folder", lambda: folder)
    return folder


@pytest.fixture(scope="session")
def tiny_ghn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hypernetwork for darts on the embedded data set that was never trained."""
    from searching import save_untrained

    from ghnas.data import load_data
    from ghnas.spaces import load_space

    path = tmp_path_factory.mktemp("ghn") / "tiny.safetensors"
    return save_untrained(path, load_space("darts"), load_data("embedded"))


Ghnas = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ghnas(capsys: pytest.CaptureFixture[str]) -> Ghnas:
    """Runs the program in this process: exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def finished(tiny_ghn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one finished run of 24 candidates; not to be changed."""
    results = tmp_path_factory.mktemp("finished") / "results"
    options = ["--ghn", str(tiny_ghn), "--score-images", "64", "--results", str(results)]
    assert main(["search", "--budget", "24", "--device", "cpu", *options]) == 0
    return results


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server that runs for the tests alone; it asks for no password."""
    pgserver = pytest.importorskip("pgserver", reason="pgserver is not installed")
    # not in pytest's folder: a socket's path must be short, and as root the server is another user
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        try:
            server = pgserver.get_server(folder, cleanup_mode="stop")
        except Exception as error:
            pytest.skip(f"PostgreSQL does not start here: {error}")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        server.cleanup()
