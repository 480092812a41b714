"""The families of search spaces, and spaces by name or file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from yaml.composer import ComposerError

from ghnas.spaces.base import Space
from ghnas.spaces.files import SpaceFile, explain
from ghnas.utils.errors import UserError

FAMILIES: dict[str, tuple[type[SpaceFile], Callable[[Any], Space]]] = {}
"""For each family the model of its files, and the class of its spaces."""

LARGEST_FILE, DEEPEST = 200_000, 20
"""Characters of a space's file, and how deep its brackets may be nested."""

_SpaceType = TypeVar("_SpaceType", bound=type[Space])


class _Loader(yaml.SafeLoader):
    """Plain data alone, and no more of it than stands in the file."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        alias = isinstance(event, yaml.AliasEvent)
        if alias or self.depth > DEEPEST:
            problem = "an alias (*) is not read" if alias else "nested too deep"
            raise ComposerError(None, None, problem, event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def family(name: str, file: type[SpaceFile]) -> Callable[[_SpaceType], _SpaceType]:
    """Enter a class of spaces into the table of families.

    Args:
        name: What `family` says in a space's file.
        file: The model that the file is read with.

    Returns:
        A decorator for the class.
    """

    def register(cls: _SpaceType) -> _SpaceType:
        FAMILIES[name] = (file, cls)
        return cls

    return register


def _folders() -> list[Path]:
    here = Path(__file__).resolve().parent.parent
    return [here / "search_spaces", here.parent / "search_spaces"]  # a wheel, a checkout


def list_spaces() -> dict[str, Path]:
    """The files of the spaces that ship with the package, by name.

    Example:
        >>> import ghnas
        >>> list(ghnas.list_spaces())
        ['darts', 'deepnets1m', 'mobile', 'nasbench101', 'nasbench201', 'nasbench_macro']
    """
    found = {path.stem: path for folder in _folders() for path in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def load_space(name_or_path: str) -> Space:
    """Load a search space.

    Args:
        name_or_path: The name of a space that ships with the package (see `list_spaces`), or the
            path of a YAML file.

    Raises:
        UserError: Naming the file, the key and what was expected.

    Example:
        >>> import ghnas
        >>> space = ghnas.load_space("darts").with_skeleton(cells=8, channels=16)
        >>> space.for_images((3, 64, 64), classes=5).sample(seed=0).graph.nodes[-1].shape
        (5,)
    """
    path = list_spaces().get(name_or_path, name_or_path)
    return parse_space(read_space_file(name_or_path), str(path))


def read_space_file(name_or_path: str) -> str:
    """The text of the file that `load_space` reads.

    Args:
        name_or_path: As of `load_space`.

    Raises:
        UserError: If there is no such file or it cannot be read.
    """
    known = list_spaces()
    path = known.get(name_or_path) or Path(name_or_path)
    if not path.is_file():
        raise UserError(
            f"unknown space {name_or_path!r}: use {', '.join(known)}, or the path of a YAML file"
        )
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(LARGEST_FILE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def parse_space(text: str, path: str) -> Space:
    """The space that a YAML text describes.

    Args:
        text: The content of a file.
        path: What errors name.

    Raises:
        UserError: Naming the key and what was expected.
    """
    try:
        if len(text) > LARGEST_FILE:
            raise ValueError
        content = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # such as a date of month 13
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or "not a YAML file of a search space"
        raise UserError(f"{path}:{where} {problem}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys such as name, family and skeleton")
    name = content.get("family")
    if not isinstance(name, str) or name not in FAMILIES:
        known = ", ".join(map(repr, FAMILIES))
        raise UserError(f"{path}: key 'family': expected one of {known}, found {name!r}")
    file, cls = FAMILIES[name]
    try:
        space = cls(file.model_validate(content))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    space.text = text
    return space
