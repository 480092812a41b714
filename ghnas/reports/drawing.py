"""Drawings of an architecture: its cells or stages, as text for a terminal and as SVG."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from xml.sax.saxutils import escape

from ghnas.architectures.architecture import Architecture, Choices
from ghnas.architectures.graph import Graph, Node, format_shape
from ghnas.architectures.ops import Op, describe
from ghnas.spaces.cells import CELLS, CellSpace
from ghnas.spaces.dense_cells import DenseCellSpace
from ghnas.spaces.matrix_cells import MatrixCellSpace


@dataclass(frozen=True)
class Wire:
    """What leads from an earlier part of a drawing to a later one.

    Args:
        source: Position of the earlier part.
        label: The operations between the two, separated by commas; empty where there are none.
    """

    source: int
    label: str = ""


@dataclass(frozen=True)
class Part:
    """A place where wires meet: its name, a second line (such as a shape), what it reads."""

    name: str
    detail: str = ""
    wires: tuple[Wire, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """Parts in topological order."""

    title: str
    parts: tuple[Part, ...]


def draw(architecture: Architecture) -> list[Drawing]:
    """A drawing of each cell of a cell space, or of the whole network of any other.

    Args:
        architecture: What to draw.

    Returns:
        The drawings.
    """
    space, choices = architecture.space, dict(architecture.choices)
    if isinstance(space, CellSpace):
        return [_draw_cell(space, choices, cell) for cell in CELLS]
    if isinstance(space, DenseCellSpace):
        return [_draw_dense_cell(space, choices)]
    if isinstance(space, MatrixCellSpace):
        return [_draw_matrix_cell(space, choices)]
    return [_draw_blocks(space.name, architecture.graph)]


def _draw_cell(space: CellSpace, choices: Choices, cell: str) -> Drawing:
    operations = space.file.cell.operations
    parts = [Part("0", "cell k-2"), Part("1", "cell k-1")]
    for pairs in space.edges(choices, cell):
        connected = [(name, source) for name, source in pairs if operations[name].block != "zeros"]
        wires = tuple(Wire(source, name) for name, source in connected)
        parts.append(Part(str(len(parts)), "sum", wires))
    inner = range(2, len(parts))
    parts.append(Part("out", "concat", tuple(Wire(source) for source in inner)))
    return Drawing(f"{cell} cell", tuple(parts))


def _draw_dense_cell(space: DenseCellSpace, choices: Choices) -> Drawing:
    parts = [Part("0", "input")]
    for pairs in space.edges(choices):
        wires = tuple(
            Wire(source, name) for name, source in pairs if not space.file.cell.is_none(name)
        )
        parts.append(Part(str(len(parts)), "sum", wires))
    return Drawing("cell", tuple(parts))


def _draw_matrix_cell(space: MatrixCellSpace, choices: Choices) -> Drawing:
    cell = space.cell(choices)
    named = [*enumerate(cell.operations, 1), ("out", "output")]
    inner = [
        Part(str(name), operation, tuple(map(Wire, sources)))
        for (name, operation), sources in zip(named, cell.sources, strict=True)
    ]
    return Drawing("cell", (Part("0", "input"), *inner))


def _draw_blocks(name: str, graph: Graph) -> Drawing:
    """Nodes whose names share their first two components are one part."""
    parts: list[Part] = []
    owner: dict[int, int] = {}
    for key, indices in groupby(_named_blocks(graph), key=lambda item: item[0]):
        block = [index for _, index in indices]
        owner |= dict.fromkeys(block, len(parts))
        shape = format_shape(graph.nodes[block[-1]].shape)
        parts.append(Part(key, shape, _wires(graph, owner, block)))
    return Drawing(f"{name} network", tuple(parts))


def _named_blocks(graph: Graph) -> list[tuple[str, int]]:
    """Each node with the name of its block; nodes without a name belong to the block before."""
    result: list[tuple[str, int]] = []
    current = ""
    for index, node in enumerate(graph.nodes):
        if node.name:
            current = ".".join(node.name.split(".")[:2])
        elif node.op.primitive == "glob_avg":
            current = "pool"
        result.append((current, index))
    return result


def _wires(graph: Graph, owner: dict[int, int], block: list[int]) -> tuple[Wire, ...]:
    """A wire with the block's operations, and one for each shortcut into its last node."""
    here = owner[block[0]]
    outside = {
        index: [owner[source] for source in graph.nodes[index].inputs if owner[source] != here]
        for index in block
    }
    last = block[-1]
    inner = block if len(block) == 1 else block[:-1]
    entries = [source for index in inner for source in outside[index]]
    shortcuts = [] if len(block) == 1 else outside[last]
    label = ", ".join(filter(None, (_operation_name(graph.nodes[index]) for index in block)))
    main = [Wire(source, label) for source in dict.fromkeys(entries)]
    return (*main, *(Wire(source, "skip") for source in shortcuts))


_LEFT_OUT = ("input", "bn", "ln", "activation", "bias", "sum", "shift", "truncate")


def _operation_name(node: Node) -> str:
    """A short name; empty for what a drawing leaves out."""
    assert isinstance(node.op, Op)
    settings = describe(node.op)
    kind = settings["kind"]
    if kind in _LEFT_OUT:
        return ""
    name = node.op.primitive if kind == "conv" else kind
    kernel = f" {settings['kernel']}x{settings['kernel']}" if "kernel" in settings else ""
    stride = f"/{settings['stride']}" if settings.get("stride", 1) > 1 else ""
    return f"{name}{kernel}{stride}"


def as_text(drawing: Drawing) -> str:
    """The drawing in box characters, a line for each wire."""
    names = [part.name for part in drawing.parts]
    labelled = [wire for part in drawing.parts for wire in part.wires if wire.label]
    source_width = max((len(names[wire.source]) for wire in labelled), default=0)
    label_width = max((len(wire.label) for wire in labelled), default=0)
    lines = [drawing.title]
    for part in drawing.parts:
        target = part.name if part.detail in ("", "sum") else f"{part.name} ({part.detail})"
        if not any(wire.label for wire in part.wires):
            sources = ", ".join(names[wire.source] for wire in part.wires)
            if part.detail == "sum":
                sources = sources or "nothing"
            lines.append(f"  {sources} ─> {target}" if sources else f"  {target}")
            continue
        for number, wire in enumerate(part.wires, 1):
            source = names[wire.source].rjust(source_width)
            label = f" {wire.label} ".ljust(label_width + 2, "─")
            end = f"> {target}" if number == len(part.wires) else ""
            lines.append(f"  {source} ──{label}─{_corner(number, len(part.wires))}{end}")
    return "\n".join(lines)


def _corner(number: int, count: int) -> str:
    """The end of the wire `number` of `count` that meet."""
    if count == 1:
        return "──"
    if number == count:
        return "┴─"
    return "┐" if number == 1 else "┤"


_COLOURS = {
    "sep_conv": "#1b6ca8",
    "dil_conv": "#7b3fa0",
    "conv": "#2a9d8f",
    "nor_conv": "#2a9d8f",
    "max_pool": "#c0392b",
    "avg_pool": "#d35400",
    "skip": "#7f8c8d",
}
_SPACING, _RADIUS, _LINE, _BASE = 114, 17, 16, 34
_BESIDE = 9
"""Most letters that fit between two parts."""
_LINES = 5
"""Most lines of a label."""
_STYLE = "font-family:Helvetica,Arial,sans-serif;font-size:14px"


def as_svg(drawings: list[Drawing]) -> str:
    """The drawings below each other: parts in a row, wires as arcs above and below it.

    Args:
        drawings: What to draw.

    Returns:
        A complete SVG document.
    """
    bodies, top, width = [], 0.0, 0.0
    for drawing in drawings:
        body, size = _svg(drawing)
        bodies.append(f'<g transform="translate(0,{top:.0f})">{body}</g>')
        top += size[1]
        width = max(width, size[0])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{top:.0f}" '
        f'viewBox="0 0 {width:.0f} {top:.0f}" style="{_STYLE}">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(bodies)}</svg>\n'
    )


def _svg(drawing: Drawing) -> tuple[str, tuple[float, float]]:
    """A drawing's elements and its (width, height)."""
    arcs = [
        (wire, target, number % 2 == 0 and bool(wire.label))
        for target, part in enumerate(drawing.parts)
        for number, wire in enumerate(part.wires)
    ]

    def reach(upper: bool) -> float:
        sizes = [
            _height(target - wire.source) + _LINE * len(_lines(wire.label))
            for wire, target, up in arcs
            if up == upper
        ]
        return max(sizes, default=0.0)

    middle = 40 + reach(True) + _RADIUS
    height = middle + max(reach(False), _LINE) + _RADIUS + 12
    width = _SPACING * (len(drawing.parts) + 0.2)
    title = escape(drawing.title)
    elements = [f'<text x="12" y="22" font-weight="bold">{title}</text>']
    elements += [_arc(wire, target, middle, up) for wire, target, up in arcs]
    elements += [_label(wire, target, middle, up) for wire, target, up in arcs if wire.label]
    elements += [_circle(part, index, middle) for index, part in enumerate(drawing.parts)]
    return "".join(elements), (width, height)


def _x(position: float) -> float:
    return _SPACING * (position + 0.65)  # words stand left of the first part


def _height(span: int) -> float:
    return _BASE * span


def _lines(label: str) -> list[str]:
    """A label's lines; a long one is cut short."""
    lines = label.split(", ")
    if len(lines) <= _LINES:
        return lines
    return [*lines[: _LINES - 1], f"and {len(lines) - _LINES + 1} more"]


def _colour(label: str) -> str:
    first = max(label.split(", "), key=lambda name: (name.startswith(("sep", "dil")), len(name)))
    return next((c for name, c in _COLOURS.items() if first.startswith(name)), "#b0b0b0")


def _arc(wire: Wire, target: int, middle: float, up: bool) -> str:
    sign = -1 if up else 1
    start, end = middle + sign * _RADIUS * 0.8, middle + sign * _RADIUS * 1.15
    # a cubic curve reaches three quarters of the way to its control points
    bend = start + sign * _height(target - wire.source) * 4 / 3
    x1, x2 = _x(wire.source) + 10, _x(target) - 10
    colour = _colour(wire.label) if wire.label else "#c8c8c8"
    path = f"M{x1:.0f},{start:.1f} C{x1:.0f},{bend:.1f} {x2:.0f},{bend:.1f} {x2:.0f},{end:.1f}"
    tip = end + sign * 8
    arrow = f"M{x2:.0f},{end:.1f} L{x2 - 4:.0f},{tip:.1f} L{x2 + 4:.0f},{tip:.1f} Z"
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        f'<path d="{arrow}" fill="{colour}"/>'
    )


def _label(wire: Wire, target: int, middle: float, up: bool) -> str:
    sign = -1 if up else 1
    lines = _lines(wire.label)
    apex = middle + sign * (_RADIUS * 0.8 + _height(target - wire.source))
    x = (_x(wire.source) + _x(target)) / 2
    top = apex - _LINE * (len(lines) - 1) - 6 if up else apex + _LINE
    return "".join(
        f'<text x="{x:.0f}" y="{top + _LINE * n:.1f}" text-anchor="middle" '
        f'fill="{_colour(wire.label)}" stroke="white" stroke-width="4" paint-order="stroke">'
        f"{escape(line)}</text>"
        for n, line in enumerate(lines)
    )


def _circle(part: Part, index: int, middle: float) -> str:
    fill = "#f4d58d" if not part.wires else "#dbe9f4"
    inside = part.name if len(part.name) <= 4 else str(index)
    below = part.detail if len(part.name) <= 4 else f"{part.name} {part.detail}"
    x = _x(index)
    if len(below) <= _BESIDE:  # no arc crosses the line through the parts
        place = f'x="{x - _RADIUS - 4:.0f}" y="{middle + 4:.1f}" text-anchor="end"'
    else:
        place = f'x="{x:.0f}" y="{middle + _RADIUS + 13:.1f}" text-anchor="middle"'
    return (
        f'<circle cx="{x:.0f}" cy="{middle:.1f}" r="{_RADIUS}" fill="{fill}" stroke="#555"/>'
        f'<text x="{x:.0f}" y="{middle + 4:.1f}" text-anchor="middle">{escape(inside)}</text>'
        f'<text {place} font-size="11" fill="#555" stroke="white" stroke-width="3" '
        f'paint-order="stroke">{escape(below)}</text>'
    )
