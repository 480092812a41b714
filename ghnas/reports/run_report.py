"""The report of a run: one HTML file that opens offline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from jinja2 import Environment, StrictUndefined
from optuna.trial import FrozenTrial

from ghnas.engine.run import SHORT_LIST, Run
from ghnas.engine.trials import Trial, primary
from ghnas.reports import figures
from ghnas.reports.commands import search_command
from ghnas.reports.drawing import as_svg, draw
from ghnas.reports.numbers import format_count, format_percent, format_seconds
from ghnas.reports.tables import contents, describe_order, describe_values, ranking_table
from ghnas.utils.errors import UserError
from ghnas.utils.statistics import Values

BEST, DRAWN, CHOICES = 10, 4, 16
"""Candidates in the table, of them drawn, and choices in the figure of what matters."""


@dataclass(frozen=True)
class Table:
    """Words in rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, figures (SVG elements) side by side, and a table."""

    title: str
    text: str
    figures: Sequence[str]
    table: Table | None = None


@dataclass(frozen=True)
class Drawing:
    """A candidate's cells."""

    svg: str
    caption: str


def report(run: Run) -> str:
    """What a run found, as one HTML document without links to anything outside.

    Args:
        run: With scored candidates; what later stages trained is shown if there is any.

    Raises:
        UserError: If nothing is scored yet, or the record is damaged.
    """
    ranked = run.ranked()
    if not ranked:
        raise UserError(f"run {run.name} has no scored candidate yet; run `ghnas search --resume`")
    best, tuned = ranked[:BEST], _finetuned(run, {item.name for item in ranked})
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        files("ghnas.reports").joinpath("run_report.html").read_text(encoding="utf-8")
    )
    order = run.order
    return template.render(
        name=run.name,
        facts=facts(run, ranked),
        best=_best_table(run, best, tuned),
        trust=describe_order(order) if order else "",
        drawings=[_drawing(run, item) for item in best[:DRAWN]],
        sections=[*_sections(run, ranked), *_trainings(run, tuned)],
        command=search_command(run.manifest),
        manifest=run.manifest.model_dump_json(indent=2),
    )


def facts(run: Run, ranked: Sequence[Trial]) -> list[tuple[str, str]]:
    """The run in a few words: label and value of each."""
    manifest = run.manifest
    skeleton = [
        f"{key} {value}"
        for key, value in manifest.skeleton.items()
        if isinstance(value, (str, int, float))
    ]
    return [
        ("space", manifest.space),
        ("images", f"{manifest.sources.data or manifest.objective.get('data', 'of a program')}, "
                   f"{'x'.join(map(str, manifest.image_shape[1:]))} pixels"),
        ("classes", str(len(manifest.classes))),
        ("candidates", f"{manifest.budget:,}, {len(ranked):,} distinct"),
        ("sampler", f"{manifest.sampler}, seed {manifest.seed}"),
        ("ordered by", " and ".join(manifest.objectives)),
        ("networks", ", ".join(skeleton) or "as in the space's file"),
        ("scoring took", format_seconds(sum(item.seconds for item in ranked))),
        ("started", manifest.created[:16].replace("T", " ")),
    ]  # fmt: skip


def _best_table(run: Run, best: Sequence[Trial], tuned: Sequence[FrozenTrial]) -> Table:
    """The table of the terminal, with what fine-tuning made of each."""
    shown = ranking_table(run, best)
    names, rows = contents(shown)
    reached = {trial.user_attrs["candidate"]: trial.value for trial in tuned}
    if not reached:
        return Table(names, rows, str(shown.caption))
    accuracies = [format_percent(reached.get(item.name)) for item in best]
    return Table(
        [*names[:2], "fine-tuned", *names[2:]],
        [(*row[:2], value, *row[2:]) for row, value in zip(rows, accuracies, strict=True)],
        f"fine-tuned: accuracy on validation images; {shown.caption}",
    )


def _finetuned(run: Run, candidates: Collection[str]) -> list[FrozenTrial]:
    """Finished fine-tunings, best first: of the candidates as they were scored those from where
    the search would start them, and all of networks of another size."""
    usual = "ghn" if run.manifest.uses_ghn else "kaiming"
    finished = [
        item
        for item in run.stage("finetune")
        if item.values
        and (
            item.user_attrs.get("start") == usual
            or item.user_attrs.get("candidate") not in candidates
        )
    ]
    return sorted(finished, key=lambda item: -item.values[0])


def _drawing(run: Run, item: Trial) -> Drawing:
    words = describe_values(item, run.manifest.objectives)
    size = f"{format_count(item.parameters)} parameters, {format_count(item.flops)} FLOPs"
    return Drawing(as_svg(draw(item.architecture)), f"{item.name}: {words}, {size}")


def _sections(run: Run, ranked: Sequence[Trial]) -> Iterable[Section]:
    label, values = _qualities(run, ranked)
    in_order = np.argsort([item.number for item in ranked])
    yield Section(
        "How the search went",
        "Each grey point is a candidate in the order in which it was scored.",
        [figures.best_so_far(values[in_order], label)],
    )
    yield Section(
        "Quality and size",
        "On the Pareto front no candidate is smaller, or faster, and as good.",
        [
            figures.against_size(sizes, values, pareto_front(sizes, values), name, label)
            for name, sizes in _sizes(run, ranked).items()
        ],
    )
    matters = choice_shares([item.architecture.choices for item in ranked], values)
    if matters:
        shown = dict(sorted(matters.items(), key=lambda item: -item[1])[:CHOICES])
        pictures = [figures.bars(shown, "Which choices matter", "share of the variance, alone")]
        counted = operation_shares(ranked, values)
        if counted:
            pictures.append(figures.pairs(*counted, ("best tenth", "all candidates")))
        yield Section(
            "What the good ones have in common",
            f"How much of the variance of {label.partition(',')[0]} each choice explains alone, "
            "and what the best tenth is made of.",
            pictures,
        )


def _sizes(run: Run, ranked: Sequence[Trial]) -> dict[str, Values]:
    """What a candidate costs, in the order of `ranked`: its name, and lower is better."""
    names = run.manifest.objectives
    sizes = {
        "parameters": np.array([float(item.parameters) for item in ranked]),
        "FLOPs": np.array([float(item.flops) for item in ranked]),
    }
    if "latency" in names[1:]:
        index = names.index("latency")
        sizes["latency, ms"] = np.array([1000 * item.values[index] for item in ranked])
    return sizes


def _qualities(run: Run, ranked: Sequence[Trial]) -> tuple[str, Values]:
    """What candidates are compared by, in the order of `ranked`: its name, and higher is better."""
    names = run.manifest.objectives
    index = primary(names)
    sign = 1.0 if run.manifest.directions[index] == "maximize" else -1.0
    values = np.array([sign * item.values[index] for item in ranked])
    if names[index] == "accuracy":
        return "zero-shot accuracy, %", 100 * values
    return names[index] if sign > 0 else f"-{names[index]}", values


def pareto_front(sizes: Values, values: Values) -> figures.Flags:
    """Whether nothing is smaller and as good, (N,).

    Args:
        sizes: (N,), smaller is better.
        values: (N,), higher is better.
    """
    front = np.zeros(len(sizes), dtype=bool)
    best = -np.inf
    for index in np.lexsort((-values, sizes)):
        if values[index] > best:
            front[index], best = True, values[index]
    return front


def choice_shares(candidates: Sequence[Mapping[str, object]], values: Values) -> dict[str, float]:
    """How much of the variance of a value each choice explains alone: the variance between the
    means of its options, as a share of the whole (eta squared).

    Args:
        candidates: The choices of each.
        values: (candidates,).
    """
    total = float(np.var(values))
    if total == 0:
        return {}
    result = {}
    for name in dict.fromkeys(name for item in candidates for name in item):
        options = np.array([str(item.get(name)) for item in candidates])
        within = sum(
            float(np.var(own)) * len(own)
            for own in (values[options == option] for option in np.unique(options))
        )
        result[name] = 1 - within / (total * len(values))
    return result


def operation_shares(
    ranked: Sequence[Trial], values: Values
) -> tuple[dict[str, float], dict[str, float]] | None:
    """How often each operation was chosen among the best tenth by a value, and among all: shares
    of all choices that name one; None for a space whose choices are numbers."""
    named = [_operations(item) for item in ranked]
    everything: Counter[str] = Counter(name for item in named for name in item)
    if not everything:
        return None
    best = np.argsort(-values, kind="stable")[: max(len(ranked) // 10, 1)]
    among = Counter(name for index in best for name in named[index])
    return (
        {name: among[name] / max(among.total(), 1) for name in everything},
        {name: everything[name] / everything.total() for name in everything},
    )


def _operations(item: Trial) -> list[str]:
    values = item.architecture.choices.values()
    return [value for value in values if isinstance(value, str) and "+" not in value]  # no inputs


def _trainings(run: Run, tuned: Sequence[FrozenTrial]) -> Iterable[Section]:
    short = [item for item in run.stage(SHORT_LIST) if item.values and "trial" in item.user_attrs]
    if short:
        short.sort(key=lambda item: -item.values[0])
        count = len({item.user_attrs["trial"] for item in short})
        again = f" ({len(short)} trainings: some twice, or longer)" if count < len(short) else ""
        lines = _lines(short, lambda item: f"trial-{item.user_attrs['trial']}")
        yield Section(
            "Short trainings",
            f"Training loss of {count} candidates that were trained for a while{again}, the mean "
            "of twenty steps at each point; they are ordered by the second half.",
            [figures.curves(lines, "Short trainings", "SGD steps", "loss, nats")],
        )
    if tuned:
        lines = _lines(tuned, lambda item: str(item.user_attrs["candidate"]), 1, 100)
        title = "validation accuracy, %"
        yield Section(
            "Fine-tuning",
            "Accuracy on validation images after each epoch.",
            [figures.curves(lines, "Fine-tuning", "epochs", title)],
        )


def _lines(
    trainings: Sequence[FrozenTrial],
    name: Callable[[FrozenTrial], str],
    window: int = 20,
    scale: float = 1.0,
) -> figures.Curves:
    """The curve of each training, averaged over windows of steps."""
    lines = []
    for item in trainings:
        steps = np.array(sorted(item.intermediate_values), dtype=float)
        values = np.array([item.intermediate_values[int(step)] for step in steps]) * scale
        whole = len(steps) // window * window if len(steps) >= window else 0
        if whole:
            steps, values = (x[:whole].reshape(-1, window).mean(axis=1) for x in (steps, values))
        if len(steps):
            lines.append((name(item), steps, values))
    return lines
