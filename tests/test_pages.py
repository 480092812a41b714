"""What is written for readers: docstrings of every public name, and examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ghnas

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    item.name
    for item in pkgutil.walk_packages(ghnas.__path__, "ghnas.")
    if not item.name.endswith("__main__")
)


def own(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Public functions and classes that a module defines."""
    for name, value in vars(module).items():
        defined = getattr(value, "__module__", None) == module.__name__
        if defined and not name.startswith("_") and (inspect.isclass(value) or callable(value)):
            yield name, value


def undocumented(cls: type) -> Iterator[str]:
    """Public methods and properties that have no docstring, and inherit none."""
    kinds = (staticmethod, classmethod, property)
    for name, value in vars(cls).items():
        wanted = inspect.isfunction(value) or isinstance(value, kinds) or hasattr(value, "func")
        if not name.startswith("_") and wanted:
            inherited = (vars(base).get(name) for base in cls.__mro__[:-1])
            if not any(getattr(item, "__doc__", None) for item in inherited):
                yield name


@pytest.mark.parametrize("name", MODULES)
def test_public_names_have_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for item, value in own(module):
        assert value.__doc__, item
        assert not value.__doc__.startswith(f"{item}("), f"{item}: only what dataclass wrote"
        if inspect.isclass(value):
            assert not list(undocumented(value)), item


EXAMPLES = [name for name in MODULES if ">>>" in inspect.getsource(importlib.import_module(name))]


@pytest.mark.parametrize("name", ["ghnas", *EXAMPLES])
def test_examples_run(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ghnas.engine.samplers import SAMPLERS

    monkeypatch.setitem(SAMPLERS, "small", SAMPLERS["random"])  # an example adds one
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted
    assert not results.failed


@pytest.mark.parametrize("name", ghnas.__all__)
def test_public_names_have_an_example(name: str) -> None:
    value = getattr(ghnas, name)
    module = importlib.import_module(value.__module__)
    assert any(item.examples for item in doctest.DocTestFinder().find(value, name, module))


def runnable(page: str) -> str:
    """The Python of a page, all blocks one after the other."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S))


@pytest.mark.parametrize("page", ["README.md", "docs/library.md"])
def test_examples_of_a_page_run(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As written, with fewer candidates and fewer training images."""
    from ghnas.data import sources

    load = sources.load_data
    monkeypatch.setattr(ghnas, "load_data", lambda spec: load(spec, train_limit=64))
    monkeypatch.chdir(tmp_path)
    code, count = re.subn(r"\bbudget=\d+", "budget=6", runnable(page))
    assert count
    exec(compile(code, page, "exec"), {"__name__": "page"})


def test_the_page_of_the_library_names_every_public_name() -> None:
    page = (ROOT / "docs" / "library.md").read_text()
    assert not [name for name in ghnas.__all__ if f"ghnas.{name}" not in page]


def tree() -> Iterator[Path]:
    """The files and folders in the tree of CONTRIBUTING.md."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    block = page.partition("## Where things live")[2].split("```")[1]
    above: list[str] = []
    for line in block.strip().splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], line.split()[0]]
        yield ROOT.joinpath(*above)


def test_the_tree_is_as_built() -> None:
    assert not [path for path in tree() if not path.exists()]
    packages = {path.parent for path in (ROOT / "ghnas").rglob("*.py")}
    assert packages <= set(tree()), "a package that the tree leaves out"


def test_the_tree_is_in_the_order_of_the_layers() -> None:
    contract, _ = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    layers = [name for layer in contract["layers"] for name in layer.split(" | ")]
    assert layers == [
        path.name for path in tree() if path.is_dir() and path.parent == ROOT / "ghnas"
    ]


PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{item.name}" for item in ROOT.glob("docs/*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    folders = "ghnas|tests|search_spaces|benchmarks|results|docs"
    named = set(re.findall(rf"`((?:{folders})/[\w/.-]*)`", text))
    linked = set(re.findall(r"\]\(([^)#:]+)[^):]*\)", text))
    missing = {name for name in named if not (ROOT / name).exists()}
    missing |= {link for link in linked if not ((ROOT / page).parent / link).exists()}
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_of_a_page_exist(page: str) -> None:
    from typer.main import get_command

    from ghnas.cli.app import app

    commands = get_command(app).commands
    for line in re.findall(
        r"(?:^|`|&& |: +)ghnas ([a-z][^`\n#]*)", (ROOT / page).read_text(), re.M
    ):
        words = shlex.split(line)
        known = {option for item in commands[words[0]].params for option in item.opts}
        assert {word for word in words if word.startswith("-")} <= known, line
