"""What is written for readers: docstrings of every public name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
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
