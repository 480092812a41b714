"""Genotypes in the DARTS notation: `Genotype(normal=[('sep_conv_3x3', 0), ...], ...)`."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from ghnas.utils.errors import UserError

Edge = tuple[str, int]


@dataclass(frozen=True)
class Genotype:
    """Two cells; each node takes the next two edges, (operation, index of the earlier node)."""

    normal: tuple[Edge, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Edge, ...]
    reduce_concat: tuple[int, ...]


def format_genotype(genotype: Genotype) -> str:
    """The genotype as text, as DARTS prints it."""
    return (
        f"Genotype(normal={list(genotype.normal)!r}, "
        f"normal_concat={list(genotype.normal_concat)!r}, "
        f"reduce={list(genotype.reduce)!r}, "
        f"reduce_concat={list(genotype.reduce_concat)!r})"
    )


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
        edges = {key: tuple((str(op), int(i)) for op, i in values[key]) for key in _EDGES}
        concat = {
            f"{key}_concat": tuple(map(int, values.get(f"{key}_concat", _concat(edges[key]))))
            for key in _EDGES
        }
    except (SyntaxError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"not a genotype in the DARTS notation ({error}): {text[:80]!r}") from error
    for key in _EDGES:
        if concat[f"{key}_concat"] != tuple(_concat(edges[key])):
            raise UserError(f"genotype: {key}_concat must name every intermediate node")
    return Genotype(
        edges["normal"], concat["normal_concat"], edges["reduce"], concat["reduce_concat"]
    )


_EDGES = ("normal", "reduce")


def _concat(edges: tuple[Edge, ...]) -> list[int]:
    return list(range(2, 2 + len(edges) // 2))


def _without_range(value: ast.expr) -> ast.expr:
    """DARTS writes `range(2, 6)` for the concatenated nodes: replace it with a list."""
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "range":
        bounds = [int(ast.literal_eval(argument)) for argument in value.args]
        return ast.List([ast.Constant(i) for i in range(*bounds)])
    return value
