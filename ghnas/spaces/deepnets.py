"""The `deepnets` family: networks of random cells, depths, norms, stems and heads.

DeepNets-1M (Knyazev et al., NeurIPS 2021, arXiv 2110.13100, section 3 and appendix A).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self, TypeVar

import ghnas.architectures.deepnets_blocks  # noqa: F401  (enters its blocks into the table)
from ghnas.architectures.architecture import Choices, Value
from ghnas.architectures.blocks import Place, add_block
from ghnas.architectures.graph import Graph, GraphBuilder, Shape
from ghnas.architectures.labelled_dag import DagKind, LabelledDag
from ghnas.architectures.ops import Activation, Bias, Concat, GlobalAveragePool, Input, Linear, Sum
from ghnas.architectures.token_ops import Blank, Flatten
from ghnas.spaces.base import Choice, Space
from ghnas.spaces.cells import (
    CELLS,
    cell_choices,
    cell_dag,
    cell_edges,
    input_pairs,
    lives,
    reductions,
)
from ghnas.spaces.deepnets_file import DeepNetsFile, is_convolution
from ghnas.spaces.files import dag_kind
from ghnas.spaces.registry import family
from ghnas.utils.errors import UserError

POOLING_SHARE = 0.5
"""How many networks have a reduction cell without parameters."""
SPARSE_SHARE = 0.5
"""How many networks leave nodes of a cell out of its output."""
KEPT_SHARE = 0.5
"""How many nodes such a network keeps."""
PLAIN_HEAD_SHARE = 0.1
"""How many shallow networks have a head without global pooling."""
VIT_PREPROCESS_SHARE = 0.2
"""How many transformers of one node a cell have 1x1 convolutions before their cells."""
IMAGENET_GROWTH = 49 / 16
"""How much larger a head without global pooling is for 224x224 images than for 32x32."""
_Option = TypeVar("_Option")


@family("deepnets", DeepNetsFile)
class DeepNetsSpace(Space):
    """Choices of the network (`cells`, `nodes`, `stem`, ...) and of each node of its two cells.

    Every choice has a value in every architecture, also those that have no effect: the choices
    of nodes beyond the number `nodes` are ignored.

    Sampling follows the paper: it is not uniform, and `is_connected` holds its rules.
    """

    file: DeepNetsFile

    def __init__(self, file: DeepNetsFile) -> None:
        super().__init__(file)
        self.split = file.splits[file.skeleton.split]
        blocks = {name: item.block for name, item in file.operations.items()}
        self._none = {name for name, item in blocks.items() if item == "zeros"}
        self._attention = {name for name, item in blocks.items() if item == "transformer"}
        self._gates = {name for name, item in blocks.items() if item == "squeeze_excitation"}
        self._convolutions = {name for name, item in blocks.items() if is_convolution(item)}
        self._large = {
            name
            for name, item in file.operations.items()
            if item.block == "relu_conv_bn" and item.settings.get("kernel", 1) > 3
        }
        self._plain = tuple(
            name
            for name, item in blocks.items()
            if item in ("zeros", "max_pool", "avg_pool", "skip")
        )

    def with_skeleton(self, **changes: Any) -> Self:
        if "cells" in changes:
            raise UserError(f"space {self.name!r}: the number of cells is a choice")
        return super().with_skeleton(**changes)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        split, operations = self.split, tuple(self.file.operations)
        result = [
            Choice("cells", _range(split.cells)),
            Choice("deep_from", _range(split.deep_from)),
            Choice("nodes", _range(split.nodes)),
            Choice("norm", split.norm),
            Choice("preprocess", ("yes", "no")),
            Choice("multiplier", (1, 2)),
            Choice("stem", ("simple", "pooled", "deep")),
            Choice("stem_kernel", (3, 5, 7)),
            Choice("head", ("pooled", "flat")),
            Choice("fc_layers", (1, 2)),
        ]
        most = split.nodes[1]
        result += [Choice(f"concat.{node}", ("yes", "no")) for node in range(2, 1 + most)]
        return (*result, *cell_choices(most, operations))

    @cached_property
    def _first_options(self) -> Choices:
        return {item.name: item.options[0] for item in self.choices}

    @cached_property
    def dag_kinds(self) -> Mapping[str, DagKind]:
        return dict.fromkeys(CELLS, dag_kind(self.file.operations, 2, 3 + self.split.nodes[1]))

    def dags(self, choices: Choices) -> Mapping[str, LabelledDag]:
        outputs = self._outputs(choices)
        return {
            cell: cell_dag(self._edges(choices, cell), outputs, self._none.__contains__)
            for cell in CELLS
        }

    # Sampling, as published: not uniform over each choice, and with rules.

    def draw(self, rng: random.Random) -> Choices:
        split, operations = self.split, tuple(self.file.operations)
        found: dict[str, Value] = dict(self._first_options)
        cells, deep_from = rng.randint(*split.cells), rng.randint(*split.deep_from)
        least, most = split.nodes
        nodes = rng.randint(least, split.deep_nodes if cells > deep_from else most)
        found |= {"cells": cells, "deep_from": deep_from, "nodes": nodes}
        pools, sparse = rng.random() < POOLING_SHARE, rng.random() < SPARSE_SHARE
        for cell in CELLS:
            options = self._plain if pools and cell == "reduce" else operations
            if nodes == 1:
                options = tuple(item for item in options if item not in self._none)
            options = options or operations  # a file may have no such operation
            for node in range(2, 2 + nodes):
                if node > 2:
                    found[f"{cell}.{node}.inputs"] = _pick(rng, input_pairs(node))
                found[f"{cell}.{node}.first"] = _pick(rng, options)
                found[f"{cell}.{node}.second"] = _pick(rng, options)
        for node in range(2, 1 + nodes):
            found[f"concat.{node}"] = "no" if sparse and rng.random() >= KEPT_SHARE else "yes"
        used = self._operations_used(found)
        vit = any(name in self._attention for name in used["normal"] + used["reduce"])
        multiplier = rng.choice((1, 2))
        plain = nodes == 1 and multiplier == 1
        shallow = cells <= split.cells[0] + 1 and nodes <= split.deep_nodes
        found |= {
            "multiplier": multiplier,
            "preprocess": "no" if plain and vit and rng.random() >= VIT_PREPROCESS_SHARE else "yes",
            "head": "flat"
            if not vit and cells <= deep_from and rng.random() < PLAIN_HEAD_SHARE
            else "pooled",
            "norm": rng.choice(split.norm) if shallow else split.norm[0],
            "stem": rng.choice(("simple", "pooled", "deep", "deep")),
            "stem_kernel": rng.choice((3, 5, 7)),
            "fc_layers": rng.choice((1, 2)),
        }
        return found

    def _operations_used(self, choices: Choices) -> dict[str, list[str]]:
        nodes = range(2, 2 + int(choices["nodes"]))
        return {
            cell: [str(choices[f"{cell}.{n}.{side}"]) for n in nodes for side in _SIDES]
            for cell in CELLS
        }

    def is_connected(self, choices: Choices) -> bool:
        """Whether the published rules hold.

        There is an operation with weights, at most one large convolution and one
        squeeze-and-excitation in a cell, and the image reaches the output.
        """
        used = self._operations_used(choices)
        both = used["normal"] + used["reduce"]
        if choices["preprocess"] == "no" and (choices["nodes"] != 1 or choices["multiplier"] != 1):
            return False
        convolution = any(name in self._convolutions for name in both)
        gates = [len([n for n in names if n in self._gates]) for names in used.values()]
        large = [len([n for n in names if n in self._large]) for names in used.values()]
        if max(gates) > 1 or max(large) > 1 or (any(gates) and not convolution):
            return False
        if not (convolution or any(gates) or any(name in self._attention for name in both)):
            return False
        return self._reaches(choices)

    def _reaches(self, choices: Choices) -> bool:
        """Whether the output of the last cell depends on the image."""
        split, cells = self._cells_that_live(choices), int(choices["cells"])
        before = last = True
        for index in range(cells):
            kind = "reduce" if index in reductions(cells) else "normal"
            before, last = last, split[kind][before, last]
            if not (before or last):
                return False
        return last

    def _cells_that_live(self, choices: Choices) -> dict[str, dict[tuple[bool, bool], bool]]:
        """For each cell whether its output depends on the image, by whether its two inputs do."""
        outputs = self._outputs(choices)
        result = {}
        for cell in CELLS:
            edges = [
                [i for op, i in pairs if op not in self._none]
                for pairs in self._edges(choices, cell)
            ]
            result[cell] = {pair: lives(edges, outputs, pair) for pair in _PAIRS}
        return result

    def _edges(self, choices: Choices, cell: str) -> list[list[tuple[str, int]]]:
        return cell_edges(choices, cell, int(choices["nodes"]))

    def _outputs(self, choices: Choices) -> list[int]:
        """The nodes that a cell concatenates: the last, and those that are chosen."""
        last = 1 + int(choices["nodes"])
        return [n for n in range(2, last) if choices[f"concat.{n}"] == "yes"] + [last]

    # From choices to a graph.

    def build(self, choices: Choices, image_shape: Shape, classes: int) -> Graph:
        choices = self.check(choices)
        graph = GraphBuilder(left_out="bn" if choices["norm"] == "none" else "")
        image = graph.add(Input(*image_shape), name="input")
        used = self._operations_used(choices)
        vit = any(name in self._attention for name in used["normal"] + used["reduce"])
        channels = self.file.skeleton.channels * self.split.widen
        before, last, halved = self._stem(graph, choices, image, channels, vit)
        cells, preprocess = int(choices["cells"]), choices["preprocess"] == "yes"
        edges = {cell: self._edges(choices, cell) for cell in CELLS}
        outputs = self._outputs(choices)
        alive: tuple[int | None, int | None] = (before, last)
        for index in range(cells):
            graph.cell = index
            reduces = index in reductions(cells)
            channels *= int(choices["multiplier"]) if reduces else 1
            kind = "reduce" if reduces else "normal"
            stride = 2 if reduces and not vit else 1
            states = self._inputs(graph, alive, channels, preprocess, halved and not vit)
            self._nodes(graph, edges[kind], states, channels, stride)
            alive = (alive[1], self._output(graph, [states[i] for i in outputs]))
            halved = reduces
        if alive[1] is None:
            raise UserError(f"space {self.name!r}: the image does not reach the output")
        self._head(graph, choices, alive[1], classes)
        return graph.build()

    def _stem(
        self, graph: GraphBuilder, choices: Choices, image: int, channels: int, vit: bool
    ) -> tuple[int, int, bool]:
        """Add the stem.

        Returns:
            Both inputs of the first cell, and whether the second is half as large.
        """
        kernel = choices["stem_kernel"]
        if vit:
            x = add_block(graph, "stem_patches", Place(image, channels, 1, ""), (("kernel", 3),))
            return x, x, False
        if choices["stem"] == "deep":
            place = Place(image, channels, 1, "stem0")
            first = add_block(graph, "stem_first", place, (("kernel", kernel),))
            place = Place(first, channels, 2, "stem1")
            return first, add_block(graph, "stem_second", place), True
        width = 3 * channels if choices["preprocess"] == "yes" else channels
        pool = 2 if choices["stem"] == "pooled" else 1
        place = Place(image, width, 1, "stem")
        x = add_block(graph, "stem_simple", place, (("kernel", kernel), ("pool", pool)))
        return x, x, False

    def _inputs(
        self,
        graph: GraphBuilder,
        previous: tuple[int | None, int | None],
        channels: int,
        preprocess: bool,
        halves: bool,
    ) -> list[int | None]:
        """Bring both inputs of a cell to its size; None is one that the image does not reach."""
        if preprocess:  # 1x1 convolutions
            blocks = ("factorized_reduce" if halves else "relu_conv_bn", "relu_conv_bn")
        else:
            blocks = ("stride" if halves else "skip", "skip")
        states: list[int | None] = []
        for number, (block, source) in enumerate(zip(blocks, previous, strict=True)):
            step = 2 if block == "stride" else 1
            place = Place(source or 0, channels, step, f"cells.{graph.cell}.preprocess{number}")
            states.append(None if source is None else add_block(graph, block, place))
        return states

    def _nodes(
        self,
        graph: GraphBuilder,
        edges: list[list[tuple[str, int]]],
        states: list[int | None],
        channels: int,
        stride: int,
    ) -> None:
        """Append a cell's nodes to its states; None is one that the image does not reach."""
        number = 0
        for pairs in edges:
            reached = []
            for operation, source in pairs:
                state = states[source]
                if state is not None and operation not in self._none:
                    step = stride if source < 2 else 1
                    place = Place(state, channels, step, f"cells.{graph.cell}._ops.{number}")
                    reached.append(self.file.operations[operation].add(graph, place))
                number += 1
            if len(reached) > 1:
                reached = [graph.add(_SUM, *reached)]
            states.append(reached[0] if reached else None)

    def _output(self, graph: GraphBuilder, states: list[int | None]) -> int | None:
        living = [state for state in states if state is not None]
        if not living:
            return None
        if len(states) == 1:
            return living[0]
        blank = None if len(living) == len(states) else graph.add(Blank(), living[0])
        return graph.add(_CONCAT, *(blank if s is None else s for s in states))  # type: ignore[arg-type]

    def _head(self, graph: GraphBuilder, choices: Choices, source: int, classes: int) -> None:
        flat = choices["head"] == "flat"
        x = graph.add(Flatten() if flat else GlobalAveragePool(), source)
        widths = [self.file.skeleton.fc_width] * (int(choices["fc_layers"]) - 1)
        for number, width in enumerate([*widths, classes]):
            if number:
                x = graph.add(Activation(), x)
            name = f"classifier.{3 * number}"
            x = graph.add(Bias(), graph.add(Linear(width), x, name=name), name=name)

    def is_small_enough(self, choices: Choices, graph: Graph) -> bool:
        """Whether the parameters are within the split's limit, for 32x32 and 224x224 images.

        Args:
            choices: Of an architecture.
            graph: The architecture's, for 32x32 images.
        """
        count = float(graph.parameter_count)
        if choices["head"] == "flat":
            first = graph.parameters["classifier.0.weight"]
            count += (IMAGENET_GROWTH - 1) * first[0] * first[1]
        return count <= self.split.max_parameters


_SIDES = ("first", "second")
_SUM, _CONCAT = Sum(), Concat()
_PAIRS = tuple((a, b) for a in (True, False) for b in (True, False))


def _pick(rng: random.Random, options: Sequence[_Option]) -> _Option:
    """As `rng.choice`, several times faster."""
    return options[int(rng.random() * len(options))]


def _range(bounds: tuple[int, int]) -> tuple[int, ...]:
    return tuple(range(bounds[0], bounds[1] + 1))
