"""A network as one readable Python file that needs PyTorch alone."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ghnas.architectures.graph import Graph, format_shape
from ghnas.exports.pieces import PIECES
from ghnas.exports.sections import Section, Step, sections

HEAD = '''"""A network for images of {shape}, found with ghnas.

    import torch
    from {module} import CLASSES, load

    network = load("{weights}")
    logits = network(images)  # (B, {channels}, {height}, {width}), values in [0, 1]
    print([CLASSES[i] for i in logits.argmax(dim=1).tolist()])
"""

from __future__ import annotations

import json
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = {classes}
MEAN = {mean}
STD = {std}
'''

NETWORK = '''
class Network(nn.Module):
    """Logits (B, {count}) for images (B, {channels}, {height}, {width}) with values in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, -1, 1, 1), persistent=False)
{attributes}

    def forward(self, images: Tensor) -> Tensor:
        x0 = (images - self.mean) / self.std
{calls}
        return {result}


def load(path: str = "{weights}") -> Network:
    """The network with the weights of a safetensors file, in evaluation mode."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        content = bytearray(file.read())
    if sys.byteorder != "little":
        raise RuntimeError("weights are stored for little-endian machines")
    kinds = {{"F32": torch.float32, "I64": torch.int64}}
    weights = {{}}
    for name, item in header.items():
        if name != "__metadata__":
            begin, end = item["data_offsets"]
            values = torch.frombuffer(content[begin:end], dtype=kinds[item["dtype"]])
            weights[name] = values.reshape(item["shape"])
    network = Network()
    network.load_state_dict(weights)
    return network.eval()
'''


@dataclass(frozen=True)
class Source:
    """A Python file and what its weights are called.

    Args:
        text: The file.
        prefixes: For each layer its name in the graph and in the file, and how it is made.
    """

    text: str
    prefixes: Sequence[tuple[str, str, str]]

    def tensors(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a `ghnas.architectures.network.Network`, by their names in the file."""
        result: dict[str, Tensor] = {}
        for old, new, made in self.prefixes:
            for key in ("weight", "bias", "running_mean", "running_var"):
                value = state.get(f"{old}.{key}")
                if value is not None:
                    if made.startswith("nn.Conv2d") and value.dim() == 2:  # of tokens
                        value = value[:, :, None, None]
                    result[f"{new}.{key}"] = value.detach().float().cpu().contiguous()
            if f"{new}.running_mean" in result:
                result[f"{new}.num_batches_tracked"] = torch.tensor([0])[0]
        return result


def python_source(
    graph: Graph,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    module: str,
    weights: str,
) -> Source:
    """A network as a Python file.

    Args:
        graph: The architecture.
        classes: Names of its classes.
        mean: Of the images it was trained on, for each channel, with values in [0, 1].
        std: Their standard deviation.
        module: The file's name without `.py`.
        weights: The name of the file with its weights.

    Raises:
        TypeError: If an operation has no plain PyTorch source.
    """
    parts = sections(graph)
    shape = graph.nodes[0].shape
    names = dict(zip(("channels", "height", "width"), shape, strict=True))
    classes_of, attributes, prefixes = _classes(parts)
    used = [name for name in PIECES if any(f"{name}(" in text for text in classes_of)]
    pieces = [inspect.getsource(PIECES[name]) for name in used]
    head = HEAD.format(
        shape=format_shape(shape),
        module=module,
        weights=weights,
        classes=_listed(classes),
        mean=list(mean),
        std=list(std),
        **names,
    )
    calls, result = _calls(parts)
    network = NETWORK.format(
        attributes="\n".join(
            f"        self.cell{i} = {name}()" for i, name in enumerate(attributes)
        ),
        calls="\n".join(calls),
        result=result,
        weights=weights,
        count=len(classes),
        **names,
    )
    text = "\n\n".join(part.strip("\n") + "\n" for part in [head, *pieces, *classes_of, network])
    return Source(text, prefixes)


def _listed(names: Sequence[str]) -> str:
    lines = "".join(f"    {json.dumps(name)},\n" for name in names)  # also a Python literal
    return f"[\n{lines}]"


def _classes(parts: Sequence[Section]) -> tuple[list[str], list[str], list[tuple[str, str, str]]]:
    """The text of each different class, the class of each section, and parameters' names."""
    names: dict[str, str] = {}
    attributes, prefixes = [], []
    for position, part in enumerate(parts):
        body = _body(part)
        attributes.append(names.setdefault(body, f"Cell{len(names)}"))
        for step in part.steps:
            if step.name:
                for old, new, made in zip(step.names, step.prefixes, step.layers, strict=True):
                    prefixes.append((old, f"cell{position}.{new}", made.module))
    return (
        [f"class {name}(nn.Module):\n{body}" for body, name in names.items()],
        attributes,
        prefixes,
    )


def _body(part: Section) -> str:
    values = {source: f"x{index}" for index, source in enumerate(part.inputs)}
    layers: list[str] = []
    lines: list[str] = []
    for step in part.steps:
        if step.name:
            layers.append(f"        self.{step.name} = {_constructor(step)}")
        text = _call(step, values)
        if re.fullmatch(r"x\d+", text):  # a sum of one is its input
            values[step.output] = text
            continue
        values[step.output] = f"x{len(part.inputs) + len(lines)}"
        lines.append(f"        {values[step.output]} = {text}")
    given = "".join(f", {values[source]}: Tensor" for source in part.inputs)
    results = [values[item] for item in part.outputs]
    kind = "Tensor" if len(results) == 1 else f"tuple[{', '.join(['Tensor'] * len(results))}]"
    made = "\n".join(["    def __init__(self) -> None:", "        super().__init__()", *layers])
    done = [
        f"    def forward(self{given}) -> {kind}:",
        *lines,
        f"        return {', '.join(results)}",
    ]
    return "\n".join([made, "", *done])


def _constructor(step: Step) -> str:
    if len(step.layers) == 1:
        return step.layers[0].module
    inner = "".join(f"            {item.module},\n" for item in step.layers)
    return f"nn.Sequential(\n{inner}        )"


def _call(step: Step, values: Mapping[int, str]) -> str:
    inputs = [values[source] for source in step.inputs]
    return (
        f"self.{step.name}({inputs[0]})" if step.name else step.layers[0].expression.format(*inputs)
    )


def _calls(parts: Sequence[Section]) -> tuple[list[str], str]:
    """The lines of the network's forward, and the name of its result."""
    values, lines, count = {0: "x0"}, [], 1
    for position, part in enumerate(parts):
        for output in part.outputs:
            values[output] = f"x{count}"
            count += 1
        given = ", ".join(values[source] for source in part.inputs)
        results = ", ".join(values[output] for output in part.outputs)
        lines.append(f"        {results} = self.cell{position}({given})")
    return lines, values[parts[-1].outputs[-1]]
