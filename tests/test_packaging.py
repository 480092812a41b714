"""The package's description against what stands in the folders (`.ci/run` builds the wheel)."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from ghnas.spaces import list_spaces

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = {  # where a package is imported under another name
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "torch-geometric": "torch_geometric",
    "optuna-dashboard": "optuna_dashboard",
}


def requirements(lines: list[str]) -> set[str]:
    """The modules of requirements such as `torch>=2.11`."""
    names = {re.split(r"[>\[]", line)[0].strip().lower() for line in lines}
    return {MODULES.get(name, name) for name in names}


def imported(path: Path) -> set[str]:
    """The packages that a file imports, at the top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_every_package_is_listed() -> None:
    folders = {path.parent for path in (ROOT / "ghnas").rglob("*.py")}
    names = {".".join(path.relative_to(ROOT).parts) for path in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == names | {"ghnas.search_spaces"}


def test_data_files_match_their_patterns() -> None:
    settings = PROJECT["tool"]["setuptools"]
    for package, patterns in settings["package-data"].items():
        folder = settings["package-dir"].get(package, package.replace(".", "/"))
        for pattern in patterns:
            assert list((ROOT / folder).glob(pattern)), f"{package}: nothing matches {pattern}"


def test_every_import_is_a_dependency() -> None:
    project = PROJECT["project"]
    declared = requirements(project["dependencies"])
    extras = project["optional-dependencies"]
    optional = requirements(extras["parquet"] + extras["onnx"] + extras["cluster"])
    used: set[str] = set()
    for path in (ROOT / "ghnas").rglob("*.py"):
        used |= imported(path)
    foreign = used - set(sys.stdlib_module_names) - {"ghnas"}
    assert foreign <= declared | optional
    assert declared <= foreign


def test_dependencies_have_a_lower_bound() -> None:
    for line in PROJECT["project"]["dependencies"]:
        assert ">=" in line


def test_spaces_are_found_in_a_checkout() -> None:
    names = {path.stem for path in (ROOT / "search_spaces").glob("*.yaml")}
    assert {"darts", "mobile"} <= names
    assert names <= set(list_spaces())


def test_the_checkout_runs_without_being_installed() -> None:
    import subprocess

    result = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT.parent,
    )
    assert result.returncode == 0, result.stderr
    assert "ghnas search --space darts" in result.stdout


@pytest.mark.parametrize("name", ["LICENSE", "CHANGELOG.md", "README.md", "CONTRIBUTING.md"])
def test_pages_for_readers(name: str) -> None:
    assert len((ROOT / name).read_text()) > 500


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_what_a_benchmark_imports_is_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ghnas"):
            module = importlib.import_module(str(node.module))
            assert not [item.name for item in node.names if not hasattr(module, item.name)]
