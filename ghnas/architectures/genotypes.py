"""Genotypes in the DARTS notation: `Genotype(normal=[('sep_conv_3x3', 0), ...], ...)`."""

from __future__ import annotations

import re
from typing import NamedTuple

from ghnas.utils.errors import UserError

Edge = tuple[str, int]


class Genotype(NamedTuple):
    """Two cells; each node takes the next two edges, (operation, index of the earlier node)."""

    normal: tuple[Edge, ...]
    reduce: tuple[Edge, ...]


def format_genotype(genotype: Genotype) -> str:
    """The genotype as text, as DARTS prints it."""
    cells = (
        f"{name}={list(edges)!r}, {name}_concat={_concat(edges)!r}"
        for name, edges in genotype._asdict().items()
    )
    return f"Genotype({', '.join(cells)})"


def _some(item: str) -> str:
    """A regular expression for a list or tuple."""
    return rf"[(\[](?:{item}(?:,{item})*,?)?[)\]]"


_NUMBER = "[0-9]{1,3}"
_EDGE = rf"""[(\[](?:'[\w.-]{{1,80}}'|"[\w.-]{{1,80}}"),{_NUMBER}[)\]]"""
_PARTS = re.compile(rf"""['"]([\w.-]+)['"],({_NUMBER})""")
_FIELD = (
    rf"(?:(normal|reduce)=({_some(_EDGE)})"
    rf"|(normal|reduce)_concat=(range\({_NUMBER},{_NUMBER}\)|{_some(_NUMBER)}))"
)
_GENOTYPE = re.compile(rf"Genotype\({_FIELD}(?:,{_FIELD})*,?\)")


def parse_genotype(text: str) -> Genotype:
    """Read a genotype by its grammar; nothing is evaluated.

    Raises:
        UserError: If the text is not a genotype.
    """
    plain = "".join(text.split())
    cells: dict[str, tuple[Edge, ...]] = {}
    concat: dict[str, list[int]] = {}
    fields = re.findall(_FIELD, plain) if _GENOTYPE.fullmatch(plain) else []
    for cell, edges, concatenated, nodes in fields:
        if cell:
            cells[cell] = tuple((name, int(node)) for name, node in _PARTS.findall(edges))
        else:
            numbers = list(map(int, re.findall(_NUMBER, nodes)))
            concat[concatenated] = list(range(*numbers)) if nodes.startswith("range") else numbers
    if set(cells) != set(Genotype._fields):
        raise UserError(f"not a genotype in the DARTS notation: {text[:80]!r}")
    for name, pairs in cells.items():
        if concat.get(name, _concat(pairs)) != _concat(pairs):
            raise UserError(f"genotype: {name}_concat must name every intermediate node")
    return Genotype(**cells)


def _concat(edges: tuple[Edge, ...]) -> list[int]:
    return list(range(2, 2 + len(edges) // 2))
