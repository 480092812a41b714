"""Genotypes in the DARTS notation: `Genotype(normal=[('sep_conv_3x3', 0), ...], ...)`."""

from __future__ import annotations

import ast
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


def parse_genotype(text: str) -> Genotype:
    """Read a genotype; the text is parsed as literals and never evaluated.

    Raises:
        UserError: If the text is not a genotype.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Genotype"):
            raise ValueError("expected Genotype(normal=[...], ...)")
        values = {
            str(item.arg): list(ast.literal_eval(_without_range(item.value)))
            for item in call.keywords
        }
        genotype = Genotype(
            *(tuple((str(op), int(i)) for op, i in values[name]) for name in Genotype._fields)
        )
        concat = {
            name: list(map(int, values.get(f"{name}_concat", _concat(edges))))
            for name, edges in genotype._asdict().items()
        }
    except (SyntaxError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"not a genotype in the DARTS notation ({error}): {text[:80]!r}") from error
    for name, edges in genotype._asdict().items():
        if concat[name] != _concat(edges):
            raise UserError(f"genotype: {name}_concat must name every intermediate node")
    return genotype


def _concat(edges: tuple[Edge, ...]) -> list[int]:
    return list(range(2, 2 + len(edges) // 2))


def _without_range(value: ast.expr) -> ast.expr:
    """DARTS writes `range(2, 6)` for the concatenated nodes: replace it with a list."""
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "range":
        bounds = [int(ast.literal_eval(argument)) for argument in value.args]
        return ast.List([ast.Constant(i) for i in range(*bounds)])
    return value
