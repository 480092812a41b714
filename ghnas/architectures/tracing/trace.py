"""Any `nn.Module` as a graph that the hypernetwork can read.

`torch.fx` follows the module symbolically; what it cannot follow, such as control flow that
depends on shapes, goes through `torch.export`. The module is never run on real images.

What becomes a node is what the published implementation makes one, so that its checkpoints
apply: weights and biases of convolutions and matrices are two nodes, a norm is one, a sum or a
concatenation is one if it joins at least two nodes, pooling is one. Everything else (activations,
products, reshapes, attention between its projections) is passed through.

Parameters that the published networks do not have stand at the nearest primitive:

==========================================  =====================================================
parameter                                   node
==========================================  =====================================================
packed or separate attention projections    `conv` and `bias`; `nn.MultiheadAttention` adds `msa`
class token, other vectors that are joined  `bias` that reads nothing
position embedding, relative position table `pos_enc` that reads nothing
layer scale, logit scale, slope of a PReLU  `ln`: a scale, predicted as a norm's
vector that is added                        `bias`
group norm and instance norm, RMS norm      `bn`, `ln`
transposed convolution, embedding table     `conv`
==========================================  =====================================================
"""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import fx, nn

from ghnas.architectures.graph import Graph, Shape
from ghnas.architectures.tracing.building import NOTHING, Building, Value, union
from ghnas.architectures.tracing.operations import (
    FUNCTIONS,
    MODULES,
    PASSED_THROUGH,
    SIZES,
    canonical,
    chain,
)
from ghnas.utils.errors import UserError


def trace(module: nn.Module, image_shape: Shape = (3, 224, 224)) -> Graph:
    """Read a module's graph, or that of its `backbone` where it cannot be followed as a whole.

    Detectors cannot: their losses want targets. What stands beside the backbone has no node then;
    a warning says what.

    Args:
        module: Takes a batch of images; the first of several outputs counts as its output. It is
            followed in training mode, so that auxiliary heads are seen, and left as it was.
        image_shape: (C, H, W) of an image; only read where `torch.export` is needed.

    Returns:
        A graph in which each floating-point parameter stands at one node. Warns, once for each
        name, of operations that are not known and passed through, and of parameters that the
        output does not depend on.

    Raises:
        UserError: If the module can be followed neither by torch.fx nor by torch.export.
    """
    try:
        return _trace(module, image_shape)
    except UserError as error:
        backbone = getattr(module, "backbone", None)
        if not isinstance(backbone, nn.Module):
            raise
        try:
            graph = _trace(backbone, image_shape)
        except UserError:
            raise error from None
    others = {name: part for name, part in module.named_children() if part is not backbone}
    left = [name for name, part in others.items() if next(part.parameters(), None) is not None]
    warnings.warn(
        f"{type(module).__name__} cannot be traced as a whole: its backbone is read alone, and "
        f"{', '.join(left)} left out",
        stacklevel=2,
    )
    named = [n._replace(name=f"backbone.{n.name}") if n.name else n for n in graph.nodes]
    return Graph(tuple(named))


def _trace(module: nn.Module, image_shape: Shape) -> Graph:
    with _training_mode(module):
        followed = _follow(module, image_shape)
    building = Building(module)
    output = _read(followed, building)
    lost = building.unused()
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        warnings.warn(
            f"the output does not depend on {', '.join(lost[:3])}{more}: predicted as if alone",
            stacklevel=3,
        )
    for name in lost:
        building.source(name)
    return building.graph(output)


def replace_classifier(
    module: nn.Module, classes: int, image_shape: Shape = (3, 224, 224)
) -> nn.Module:
    """Give a network another number of classes: a new last `nn.Linear`, in place.

    Raises:
        UserError: If the network does not end in one, or cannot be traced.
    """
    graph = trace(module, image_shape)
    name = graph.nodes[-1].name
    last = module.get_submodule(name)
    if not isinstance(last, nn.Linear):
        raise UserError(
            f"{type(module).__name__} does not end in nn.Linear: give the number of classes "
            "where it is made"
        )
    fresh = nn.Linear(last.in_features, classes, last.bias is not None).to(last.weight)
    owner, _, key = name.rpartition(".")
    setattr(module.get_submodule(owner), key, fresh)
    return module


@contextmanager
def _training_mode(module: nn.Module) -> Iterator[None]:
    modes = {item: item.training for item in module.modules()}
    module.train()
    try:
        yield
    finally:
        for item, mode in modes.items():
            item.training = mode


def _follow(module: nn.Module, image_shape: Shape) -> fx.GraphModule:
    try:
        tracer = _Tracer()
        graph = tracer.trace(module, concrete_args=_defaults(module))
        return fx.GraphModule(tracer.root, graph)
    except Exception as first:  # whatever a forward does with a symbolic value
        parameter = next(module.parameters(), None)
        device = parameter.device if parameter is not None else "cpu"
        images = torch.zeros(2, *image_shape, device=device)
        logging.disable()  # of a failure torch logs and prints pages
        try:
            with redirect_stderr(io.StringIO()):
                exported = torch.export.export(module, (images,), strict=False)
            return exported.module(check_guards=False)
        except Exception as second:
            raise UserError(
                f"{type(module).__name__} cannot be traced: torch.fx says {_brief(first)}; "
                f"torch.export, with images of {'x'.join(map(str, image_shape))}, says "
                f"{_brief(second)}{_culprits(module)}"
            ) from second
        finally:
            logging.disable(logging.NOTSET)


def _culprits(module: nn.Module) -> str:
    """The smallest parts that torch.fx cannot follow, by name."""
    failing: list[str] = []
    for name, part in reversed(list(module.named_modules())):  # what is inside comes first
        if not name or any(other.startswith(f"{name}.") for other in failing):
            continue
        try:
            if not _Tracer().is_leaf_module(part, name):
                _Tracer().trace(part, concrete_args=_defaults(part))
        except Exception:  # as above
            failing.append(name)
    named = [f"{name} ({type(module.get_submodule(name)).__name__})" for name in failing[::-1][:3]]
    return f"; it fails in {', '.join(named)}" if named else ""


def _brief(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f'"{line[:160]}"'


def _defaults(module: nn.Module) -> dict[str, Any]:
    """Arguments of `forward` that have a default keep it."""
    parameters = inspect.signature(module.forward).parameters.values()
    return {item.name: item.default for item in parameters if item.default is not item.empty}


class _Tracer(fx.Tracer):
    """Goes into every module but those whose forward this file reads as a whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            return False
        # a subclass with a forward of its own is not what its base class is
        return type(m).forward.__module__.startswith("torch.nn")


_KNOWN = FUNCTIONS.keys() | SIZES | PASSED_THROUGH


def _read(followed: fx.GraphModule, building: Building) -> Value:
    """Make the nodes and return what is known of the output."""
    values: dict[fx.Node, Value] = {}
    output = NOTHING
    unknown: dict[str, None] = {}
    for node in followed.graph.nodes:
        values[node] = NOTHING
        if node.op == "placeholder":
            if not building.nodes:
                values[node] = Value(building.add("input", "input", ()))
        elif node.op == "get_attr":
            if node.target in building.names:
                values[node] = Value((), building.names[node.target])
        elif node.op == "call_module":
            module = followed.get_submodule(node.target)
            read = next((MODULES[kind] for kind in type(module).__mro__ if kind in MODULES), chain)
            sources = union(values[item] for item in node.all_input_nodes)
            values[node] = Value(read(building, module, node.target, sources))
        elif node.op == "output":
            inputs = node.all_input_nodes
            output = values[inputs[0]] if inputs else NOTHING
        else:
            values[node] = _read_function(node, values, building)
            if canonical(node) not in _KNOWN and not isinstance(node.target, type):
                unknown[canonical(node)] = None
    for name in unknown:
        warnings.warn(f"operation {name!r} is not known: it is passed through", stacklevel=4)
    return output


def _read_function(node: fx.Node, values: Mapping[fx.Node, Value], building: Building) -> Value:
    name, inputs = canonical(node), [values[item] for item in node.all_input_nodes]
    if name in SIZES:
        return NOTHING
    if isinstance(node.target, type) and inputs:  # a named tuple of outputs: the first counts
        return inputs[0]
    if name in FUNCTIONS:
        return Value(FUNCTIONS[name](building, node, inputs))
    parameters = [item for item in inputs if item.parameter]
    if len(parameters) == 1 and not union(inputs):
        return parameters[0]  # a reshaped parameter is still that parameter
    return Value(union(building.settled(item) for item in inputs))
