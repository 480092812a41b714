"""Which architectures of a run are meant: `top-5`, `trial-123` or a genotype."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    from ghnas.engine.runs import Ranked, Run

_TOP = re.compile(r"top-?(.*)", re.IGNORECASE)
_TRIAL = re.compile(r"(?:trial-?|#)(.*)", re.IGNORECASE)


def select(run: Run, text: str) -> list[Ranked]:
    """The architectures that a selection names.

    Args:
        run: The run that they are from.
        text: `top-N` (the best N), `front` (the Pareto front), `trial-N` (by number) or an
            architecture in the notation of the run's space.

    Raises:
        UserError: If the selection cannot be read or names nothing.
    """
    from ghnas.engine.runs import select as select_ranked

    text = text.strip()
    if (match := _TRIAL.fullmatch(text)) is not None:
        return select_ranked(run, f"#{_number(match[1], text, least=0)}")
    if (match := _TOP.fullmatch(text)) is not None:
        return select_ranked(run, f"top-{_number(match[1], text, least=1)}")
    if text in ("best", "front"):
        return select_ranked(run, text)
    if any(mark in text for mark in "(=|"):
        return [_from_notation(run, text)]
    raise UserError(f"unknown selection {text!r}: use top-N, front, trial-N or a genotype")


def _number(digits: str, text: str, least: int) -> int:
    if not digits.isascii() or not digits.isdigit() or int(digits) < least:
        raise UserError(f"{text!r} needs a whole number of {least} or more, as in top-5 or trial-7")
    return int(digits)


def _from_notation(run: Run, text: str) -> Ranked:
    """The run's own trial of that architecture, or one that was never scored."""
    from ghnas.engine.record import UNSCORED
    from ghnas.engine.runs import Ranked, Record

    architecture = run.space.parse(text)
    graph = architecture.graph
    for item in run.ranked():
        if graph.hash.startswith(item.record.hash):
            return item
    record = Record(
        number=UNSCORED,
        architecture=architecture,
        accuracy=float("nan"),
        params=graph.parameter_count,
        flops=graph.flops,
        hash=graph.hash,
        duplicate_of=None,
        seconds=0.0,
    )
    return Ranked(rank=1, record=record, front=False)


def ranked_as_dict(item: Ranked) -> dict[str, Any]:
    """For JSON."""
    from ghnas.engine.record import UNSCORED

    record = item.record
    scored = record.number != UNSCORED
    return {
        "rank": item.rank,
        "trial": record.number if scored else None,
        "accuracy": record.accuracy if scored else None,
        "consensus": record.consensus,
        "refined": item.refined,
        "parameters": record.params,
        "flops": record.flops,
        "hash": record.hash,
        "genotype": str(record.architecture),
        "candidate": dict(record.architecture.choices),
    }
