"""The hypernetwork that `ghnas rank` compares with the proxies, where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ghnas.cli.terminal import say
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    from ghnas.data import ImageData
    from ghnas.ghn.config import GHNInfo
    from ghnas.ghn.model import GHN
    from ghnas.spaces import Space


@dataclass(frozen=True)
class Predictor:
    """A hypernetwork, and what it was trained for."""

    ghn: GHN
    info: GHNInfo


def find_predictor(
    out: Console, names: list[str], optional: bool, path: Path | None, space: str, data: str
) -> Predictor | None:
    """The hypernetwork that the methods need; where none is named, the one that ships."""
    from ghnas.cli.loading import load_skeleton, shipped_ghn
    from ghnas.ghn.checkpoint import load_ghn
    from ghnas.ranking.methods import needs_ghn

    if not any(map(needs_ghn, names)):
        return None
    with _optional(out, optional):
        path = path or shipped_ghn(out, load_skeleton(space, None, None).name, space, data)
    if not path:
        return None
    ghn = load_ghn(path)
    return Predictor(ghn, ghn.info)


def fitting(
    out: Console,
    predictor: Predictor | None,
    optional: bool,
    space: Space,
    images: ImageData,
    train: str,
) -> Predictor | None:
    """The hypernetwork, if it fits space and images."""
    from ghnas.ghn.checkpoint import check_ghn

    with _optional(out, optional):
        if predictor:
            check_ghn(predictor.ghn, space, images, train)
        return predictor
    return None


@contextmanager
def _optional(out: Console, optional: bool) -> Iterator[None]:
    """Go on without a hypernetwork if `--methods` did not ask for one, and say so."""
    try:
        yield
    except UserError as error:
        if not optional:
            raise
        say(out, f"note: {error}; leaving out what needs one")
