"""Versions of packages."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from ghnas.engine.manifest import installed_versions
from ghnas.utils.versions import installed_version


def test_versions_are_those_that_the_packages_say() -> None:
    assert installed_version("optuna") == optuna.__version__
    assert installed_version("no-such-package-anywhere") is None


@pytest.mark.parametrize("content", [b"", b"Name: ghnas\n"])
def test_version_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    damaged = tmp_path / "ghnas-9.dist-info"
    damaged.mkdir()
    (damaged / "METADATA").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_version("ghnas") is None
    assert installed_versions()["ghnas"] == "unknown"
