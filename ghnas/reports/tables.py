"""Tables and sentences for people, made for a terminal of 80 columns."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ghnas.architectures.architecture import Architecture, Value
from ghnas.architectures.graph import Graph, Node, format_shape
from ghnas.reports.numbers import (
    FLOPS_NOTE,
    format_best,
    format_count,
    format_estimate,
    format_latency,
    format_percent,
    format_seconds,
)
from ghnas.spaces import Space

if TYPE_CHECKING:
    from ghnas.engine.order import Order
    from ghnas.engine.run import Run
    from ghnas.engine.runs import RunSummary
    from ghnas.engine.stages.finetuning import FinetuneResult
    from ghnas.engine.trials import Trial
    from ghnas.ghn.config import GHNInfo
    from ghnas.ghn.library import KnownGHN
    from ghnas.training.hypernetwork.distance import Distance


def summarise(architecture: Architecture) -> str:
    """What an architecture is made of, in a few words: how many operations of which kind.

    A space whose choices are numbers gives them in its own notation.
    """
    kinds = [
        value.partition("_")[0]
        for value in architecture.choices.values()
        if isinstance(value, str) and "+" not in value
    ]
    if not kinds:
        return str(architecture)
    return " ".join(f"{count} {name}" for name, count in Counter(kinds).most_common())


@dataclass(frozen=True)
class Column:
    """A column of words, aligned left, that gives way where the terminal is narrow.

    Args:
        name: Its header.
        wrap: Go on in the next line; otherwise long cells are cut short.
    """

    name: str
    wrap: bool = False


def table(
    title: str,
    columns: Sequence[str | Column],
    rows: Iterable[Sequence[str]],
    caption: str | None = None,
) -> Table:
    """A table; plain columns are never cut, and all but the first are aligned right.

    Args:
        title: Above it.
        columns: Headers.
        rows: A cell for each column.
        caption: Below it.

    Returns:
        The table for a console.
    """
    result = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for number, column in enumerate(columns):
        if isinstance(column, Column):
            result.add_column(column.name, overflow="fold" if column.wrap else "ellipsis")
        else:
            result.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    cut = [not (isinstance(column, Column) and column.wrap) for column in columns]
    for row in rows:
        result.add_row(*(Text(cell, no_wrap=no) for cell, no in zip(row, cut, strict=True)))
    return result


def contents(shown: Table) -> tuple[list[str], list[tuple[str, ...]]]:
    """The headers of a table and the cells of each row, for what is not a terminal."""
    columns = [[str(cell) for cell in column.cells] for column in shown.columns]
    return [str(column.header) for column in shown.columns], list(zip(*columns, strict=True))


def cells_table(graph: Graph) -> Table:
    """Output shape, parameters and FLOPs of every cell or stage."""
    rows: list[tuple[str, str, str, int, int]] = []
    for cell in sorted({node.cell for node in graph.nodes}):
        nodes = [node for node in graph.nodes if node.cell == cell]
        images = [node for node in nodes if len(node.shape) == 3]
        parameters = sum(_parameters(node) for node in nodes)
        flops = sum(node.spec.flops for node in nodes)
        name = str(cell) if cell else "0, stem"
        rows.append((name, str(len(nodes)), format_shape(images[-1].shape), parameters, flops))
    rows[-1] = (f"{rows[-1][0]}, head", *rows[-1][1:])
    rows.append(("all", str(len(graph.nodes)), "", graph.parameter_count, graph.flops))
    return table(
        "Shapes",
        ("part", "nodes", "output", "parameters", "FLOPs"),
        [(*words, format_count(p), format_count(f)) for *words, p, f in rows],
        FLOPS_NOTE,
    )


def nodes_table(graph: Graph) -> Table:
    """Every node: operation, name, inputs, output shape and parameters."""
    rows = [
        (
            str(index),
            getattr(node.op, "kind", type(node.op).__name__),
            node.name,
            ",".join(map(str, node.inputs)),
            format_shape(node.shape),
            format_count(_parameters(node)),
        )
        for index, node in enumerate(graph.nodes)
    ]
    columns = ("node", Column("operation"), Column("name"), Column("reads"), "output", "parameters")
    return table("Nodes", columns, rows)


def _parameters(node: Node) -> int:
    return sum(math.prod(shape) for _, shape in node.spec.parameter_shapes)


def choices_table(space: Space) -> Table:
    """The choices of a space; those with the same options share a row."""
    alike: dict[tuple[Value, ...], list[str]] = {}
    for choice in space.choices:
        alike.setdefault(choice.options, []).append(choice.name)
    rows = [(", ".join(map(str, options)), ", ".join(names)) for options, names in alike.items()]
    columns = (Column("options", wrap=True), Column("choices", wrap=True))
    return table(f"The {len(space.choices)} choices of {space.name}", columns, rows)


def describe_skeleton(skeleton: Mapping[str, object]) -> str:
    """The skeleton in one line."""
    parts = []
    for key, value in skeleton.items():
        inner = f"({describe_skeleton(value)})" if isinstance(value, Mapping) else value
        parts.append(f"{key} {inner}")
    return ", ".join(parts)


def ranking_table(run: Run, ranked: Sequence[Trial]) -> Table:
    """The best candidates of a run."""
    names = run.manifest.objectives
    several = len(names) > 1
    lengths = {item.trained_steps for item in ranked if item.trained_steps}
    trained = any(item.short_training is not None for item in ranked)
    hoped = any(item.expected is not None for item in ranked)
    zero_shot = any(item.accuracy is not None for item in ranked)
    measured = any(item.latency is not None for item in ranked)
    # accuracy, parameters and FLOPs have columns of their own
    values = [i for i, name in enumerate(names) if name not in ("accuracy", "params", "flops")]
    rows = [
        (
            str(item.rank) + (" *" if several and item.front else ""),
            item.name,
            *([_short_training(item)] if trained else []),
            *([f"{item.trained_steps or 0:,}"] if len(lengths) > 1 else []),
            *([_expected(item)] if hoped else []),
            *(_value(names[i], item.values[i]) for i in values),
            *([_value("latency", item.latency)] if measured else []),
            *([format_percent(item.accuracy)] if zero_shot else []),
            format_count(item.parameters),
            format_count(item.flops),
            summarise(item.architecture),
        )
        for item in ranked
    ]
    columns: list[str | Column] = [
        "#",
        "trial",
        *(["loss"] if trained else []),
        *(["steps"] if len(lengths) > 1 else []),
        *(["predicted"] if hoped else []),
        *(names[i] for i in values),
        *(["measured"] if measured else []),
        *(["zero-shot"] if zero_shot else []),
        "params",
        "FLOPs",
        Column("made of"),
    ]
    note = "*: on the Pareto front; " if several else ""
    if trained:
        note += "loss: in nats, in the last half of a short training; "
    if len(lengths) > 1:
        note += "steps: of that training, the longest first; "
    if hoped:
        note += "predicted: 0 is the median of those trained, 1 better than 84 % of them; "
    if proxy := run.manifest.objective.get("proxy"):
        note += f"{proxy}: a training-free proxy, higher is better; "
    if measured and (known := run.manifest.latency):
        note += f"measured: latency ({known.setting}); "
    if zero_shot:
        note += "zero-shot: accuracy on validation images, no training; "
    return table(f"The best of {run.name}", columns, rows, f"{note}{FLOPS_NOTE}")


def describe_values(trial: Trial, objectives: Sequence[str]) -> str:
    """A trial's values in words, such as `zero-shot 87.1 %`."""
    words = [
        f"{name} {_value(name, value)}"
        for name, value in zip(objectives, trial.values, strict=False)
        if name not in ("accuracy", "params", "flops")
    ]
    known = trial.accuracy is not None or not words
    if trial.latency is not None:
        words.append(f"latency as measured {_value('latency', trial.latency)}")
    return ", ".join([*words, f"zero-shot {format_percent(trial.accuracy)}"] if known else words)


def _value(name: str, value: float | None) -> str:
    """An objective's value."""
    if value is None:
        return "-"
    return format_latency(value) if name == "latency" else f"{value:#.4g}".rstrip(".")


def describe_distance(distance: Distance) -> str:
    """How far an architecture is from those that its hypernetwork was trained on."""
    than = f"farther than {100 * distance.farther_than:.0f} % of its training architectures"
    if not distance.far:
        return f"near what the hypernetwork was trained on: {than}"
    return (
        f"far from what the hypernetwork was trained on: {distance.ratio:.1f} times the usual "
        f"distance, {than}; predicted weights may fit badly"
    )


def _short_training(item: Trial) -> str:
    """The loss of a short training."""
    return "-" if item.short_training is None else f"{-item.short_training:.3f}"


def describe_order(order: Order) -> str:
    """Whether a predictor, and the trainings, can be trusted on this space and these images."""
    text = (
        f"of the {order.trained} trained, a predictor orders those that it has "
        f"not seen at Spearman {format_estimate(order.agreement)}"
    )
    if order.noise is None:
        return text
    noise, deviation = order.noise, order.noise.deviation
    return (
        f"{text}; {noise.repeated} were trained twice: the loss of a candidate varies by "
        f"{_nats(deviation.value)} ({_nats(deviation.low)} to {_nats(deviation.high)}) between "
        f"trainings, by {_nats(noise.spread)} between candidates, which allows any order at most "
        f"{format_estimate(noise.ceiling)}"
    )


def _nats(value: float) -> str:
    """Two significant digits."""
    return f"{value:.2g}"


def _expected(item: Trial) -> str:
    return "-" if item.expected is None else f"{item.expected:+.2f}"


def runs_table(runs: Sequence[RunSummary]) -> Table:
    """All runs of a results folder, the latest last."""
    rows = [
        (
            item.name,
            item.data or "-",
            "-" if item.done is None else f"{item.done:,}/{item.budget:,}",
            format_best(item.best, item.is_accuracy),
            item.problem or "",
        )
        for item in runs
    ]
    columns = ("run", Column("data"), "scored", "best", Column("problem", wrap=True))
    return table("Runs", columns, rows)


_PLACES = {
    "shipped": "Hypernetworks that ship",
    "cache": "Adapted ones, in the cache",
    "here": "In this folder",
}


def ghns_tables(found: Sequence[KnownGHN]) -> list[Table]:
    """Hypernetworks, a table for each place and a row for each."""
    tables = []
    for place, title in _PLACES.items():
        rows = [
            (
                item.name,
                _made_for(item.info),
                f"{item.steps:,}",
                format_percent(item.accuracy),
                decimal(item.path.stat().st_size),
            )
            for item in found
            if item.where == place
        ]
        columns = Column("name", wrap=True), Column("for", wrap=True), "steps", "zero-shot", "size"
        if rows:
            tables.append(table(title, columns, rows))
    return tables


def _made_for(info: GHNInfo) -> str:
    from ghnas.ghn.library import describe  # with torch, which the list of runs does without

    classes = f", {len(info.classes)} classes" if len(info.classes) not in (0, 10) else ""
    return describe(info) + classes


STARTS = {
    "ghn": "Fine-tuned from the GHN's weights",
    "kaiming": "Trained from Kaiming initialisation",
    "trained": "Trained from the weights of smaller networks",
}
"""Of a table of networks that started so."""


def finetune_table(results: Sequence[FinetuneResult]) -> Table:
    """Accuracy before and after fine-tuning, and what it cost; without a hypernetwork there is no
    accuracy before."""
    predicted = any(item.zero_shot is not None for item in results)
    many = any(item.trained.test_top5 is not None for item in results)
    rows = [
        (
            item.trial.name,
            *([format_percent(item.zero_shot)] if predicted else []),
            format_percent(item.trained.validation),
            format_percent(item.trained.test),
            *([format_percent(item.trained.test_top5)] if many else []),
            format_count(item.parameters),
            format_count(item.flops),
            format_seconds(item.trained.seconds),
        )
        for item in results
    ]
    before = ["zero-shot"] if predicted else []
    top5 = ["test top-5"] if many else []
    columns = ("trial", *before, "validation", "test", *top5, "params", "FLOPs", "time")
    return table(STARTS[results[0].start], columns, rows, FLOPS_NOTE)


def baseline_table(results: Sequence[FinetuneResult]) -> Table:
    """The same architectures from Kaiming initialisation."""
    rows = []
    for item in results:
        if item.baseline is None:
            continue
        saved = item.baseline.steps_saved
        rows.append(
            (
                item.trial.name,
                format_percent(item.trained.validation),
                format_percent(item.baseline.validation),
                format_percent(item.trained.test),
                format_percent(item.baseline.test),
                "not reached" if saved is None else f"{saved:,}",
            )
        )
    columns = ("trial", "val. GHN", "val. Kaiming", "test GHN", "test Kaiming", "steps saved")
    caption = "steps saved: SGD steps from Kaiming initialisation to the zero-shot accuracy"
    return table("The GHN's weights against Kaiming initialisation", columns, rows, caption)
