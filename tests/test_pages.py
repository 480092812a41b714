"""What is written for readers: docstrings of every public name, and examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ghnas

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
    from ghnas.engine import samplers

    monkeypatch.setattr(samplers, "SAMPLERS", dict(samplers.SAMPLERS))  # an example adds one
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted
    assert not results.failed


@pytest.mark.parametrize("name", ghnas.__all__)
def test_public_names_have_an_example(name: str) -> None:
    value = getattr(ghnas, name)
    module = importlib.import_module(value.__module__)
    assert any(item.examples for item in doctest.DocTestFinder().find(value, name, module))
