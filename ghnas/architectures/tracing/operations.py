"""How each module and function of a traced network becomes nodes.

To teach the trace an operation, add one entry to `MODULES` or `FUNCTIONS`, or its name to
`PASSED_THROUGH` if it is not to be a node.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import fx, nn

from ghnas.architectures.tracing.building import NOTHING, Building, Sources, Value, is_vector, union


def canonical(node: fx.Node) -> str:
    """One name for an operator, a function, a method and an ATen overload that do the same."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.rpartition("::")[2]
    else:
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    name = name.rstrip("_")
    return _ALIASES.get(name, name)


# Modules: read as a whole.

ModuleReader = Callable[[Building, Any, str, Sources], Sources]


def _convolution(building: Building, module: nn.Module, name: str, sources: Sources) -> Sources:
    groups = cast(int, getattr(module, "groups", 1))  # nn.Linear has none
    primitive = _conv_primitive(groups, getattr(module, "dilation", 1))
    weight, bias = (_own(building, module, name, key) for key in ("weight", "bias"))
    return building.matrix(type(module).__name__, primitive, weight, bias, sources)


def _conv_primitive(groups: int, dilation: Any) -> str:
    if groups == 1:
        return "conv"
    smallest = min(dilation) if isinstance(dilation, (tuple, list)) else dilation
    return "dil_conv" if smallest > 1 else "sep_conv"


def _own(building: Building, module: nn.Module, name: str, key: str) -> str | None:
    """The full name of a module's parameter, None if it has none of that name."""
    if getattr(module, key, None) is None:
        return None
    return building.names[f"{name}.{key}" if name else key]


def _norm_module(building: Building, module: nn.Module, name: str, sources: Sources) -> Sources:
    primitive = "ln" if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) else "bn"
    own = (_own(building, module, name, key) for key in ("weight", "bias"))
    return building.norm(type(module).__name__, primitive, list(filter(None, own)), sources)


def _pool_module(building: Building, module: Any, name: str, sources: Sources) -> Sources:
    primitive = "max_pool" if isinstance(module, nn.modules.pooling._MaxPoolNd) else "avg_pool"
    return building.pool(type(module).__name__, primitive, module.kernel_size, sources)


def _attention(
    building: Building, module: nn.MultiheadAttention, name: str, sources: Sources
) -> Sources:
    """Packed projections, attention, the projection of its result."""
    keys = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    sources = _chained(building, module, name, (*keys, "in_proj_bias", "bias_k", "bias_v"), sources)
    sources = building.add("MultiheadAttention", "msa", sources)
    return chain(building, module.out_proj, f"{name}.out_proj" if name else "out_proj", sources)


def chain(building: Building, module: nn.Module, name: str, sources: Sources) -> Sources:
    """Any other module: its parameters one after the other."""
    keys = [key for key, value in module.named_parameters() if value.is_floating_point()]
    return _chained(building, module, name, keys, sources)


def _chained(
    building: Building, module: nn.Module, name: str, keys: Iterable[str], sources: Sources
) -> Sources:
    for key in keys:
        owner, _, last = key.rpartition(".")
        at = module.get_submodule(owner)
        full = _own(building, at, ".".join(part for part in (name, owner) if part), last)
        if full is None:
            continue
        vector = is_vector(building.shapes[full])
        primitive = "conv" if not vector else "bias" if "bias" in last else "ln"
        sources = building.parameters(type(at).__name__, primitive, [full], sources)
    return sources


MODULES: dict[type, ModuleReader] = {
    nn.modules.conv._ConvNd: _convolution,
    nn.Linear: _convolution,
    nn.modules.batchnorm._NormBase: _norm_module,
    nn.GroupNorm: _norm_module,
    nn.LayerNorm: _norm_module,
    nn.RMSNorm: _norm_module,
    nn.modules.pooling._MaxPoolNd: _pool_module,
    nn.modules.pooling._AvgPoolNd: _pool_module,
    nn.modules.pooling._AdaptiveAvgPoolNd: lambda graph, _, __, sources: graph.mean(sources),
    nn.MultiheadAttention: _attention,
}

# Functions, methods, operators and ATen operations, by their canonical names.

FunctionReader = Callable[[Building, fx.Node, Sequence[Value]], Sources]


def _argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    if name in node.kwargs:
        return node.kwargs[name]
    return node.args[position] if len(node.args) > position else default


def _weights(building: Building, inputs: Sequence[Value]) -> tuple[list[str], list[str], Sources]:
    """Matrices and vectors among the inputs, and where the other inputs come from."""
    names = [item.parameter for item in inputs if item.parameter]
    matrices = [name for name in names if not is_vector(building.shapes[name])]
    vectors = [name for name in names if name not in matrices]
    return matrices, vectors, union(inputs)


def _matrix_function(building: Building, node: fx.Node, inputs: Sequence[Value]) -> Sources:
    matrices, vectors, sources = _weights(building, inputs)
    primitive = "conv"
    if canonical(node).startswith("conv"):
        groups, dilation = _argument(node, 6, "groups", 1), _argument(node, 5, "dilation", 1)
        primitive = _conv_primitive(groups, dilation)
        if not matrices and vectors:  # a weight of shape (C, 1, 1, 1) or (1, C, 1, 1)
            matrices, vectors = vectors[:1], vectors[1:]
    for name in matrices:
        sources = building.matrix(canonical(node), primitive, name, None, sources)
    for name in vectors:
        sources = building.matrix(canonical(node), primitive, None, name, sources)
    return sources


def _norm_function(building: Building, node: fx.Node, inputs: Sequence[Value]) -> Sources:
    names = [item.parameter for item in inputs if item.parameter]
    primitive = "ln" if canonical(node) in ("layer_norm", "rms_norm") else "bn"
    return building.norm(canonical(node), primitive, names, union(inputs))


def _pool_function(building: Building, node: fx.Node, inputs: Sequence[Value]) -> Sources:
    kind = canonical(node)
    return building.pool(kind, kind[:8], _argument(node, 1, "kernel_size"), union(inputs))


def _global_average(building: Building, node: fx.Node, inputs: Sequence[Value]) -> Sources:
    return building.mean(union(inputs))


def _mean(building: Building, node: fx.Node, inputs: Sequence[Value]) -> Sources:
    # as published: a mean that drops its dimensions is not a node
    sources = union(inputs)
    keeps = _argument(node, 2, "keepdim", False) is True
    return building.mean(sources) if keeps else sources


def _sum(building: Building, node: fx.Node, inputs: Sequence[Value]) -> Sources:
    vectors = [
        x.parameter for x in inputs if x.parameter and is_vector(building.shapes[x.parameter])
    ]
    others = [item for item in inputs if item.parameter not in vectors or not item.parameter]
    sources = building.joined("add", "sum", others)
    for name in vectors:
        sources = building.parameters("add", "bias", [name], sources)
    return sources


def _is_gate(node: fx.Node) -> bool:
    """Whether a product ends a squeeze-and-excitation: one factor is a reshaped hard activation,
    by which the published implementation knows it."""
    reshaped = [item for item in node.all_input_nodes if canonical(item) in ("view", "reshape")]
    factors = [item.all_input_nodes[0] for item in reshaped if item.all_input_nodes]
    return any(_activation(item).startswith("hard") for item in factors)


def _activation(node: fx.Node) -> str:
    if node.op != "call_module":
        return canonical(node)
    modules = cast(fx.GraphModule, node.graph.owning_module)
    return type(modules.get_submodule(str(node.target))).__name__.lower()


def _product(building: Building, node: fx.Node, inputs: Sequence[Value]) -> Sources:
    if _is_gate(node):
        return building.joined("mul", "cse", inputs)
    matrices, vectors, sources = _weights(building, inputs)
    for name in vectors:  # a learned scale
        sources = building.parameters("mul", "ln", [name], sources)
    return union([Value(sources), *(Value(building.source(name)) for name in matrices)])


def _window_attention(building: Building, node: fx.Node, inputs: Sequence[Value]) -> Sources:
    """torchvision's Swin attention, which torch.fx does not look into."""
    known = dict(zip(node.all_input_nodes, inputs, strict=True))
    bound = inspect.signature(cast(Callable[..., Any], node.target)).bind(*node.args, **node.kwargs)

    def value(name: str) -> Value:
        given = bound.arguments.get(name)
        return known[given] if isinstance(given, fx.Node) else NOTHING

    def project(name: str, sources: Sources) -> Sources:
        weight, bias = (value(f"{name}_{part}").parameter for part in ("weight", "bias"))
        return building.matrix("linear", "conv", weight, bias, sources)

    sources = project("qkv", value("input").sources)
    scale = value("logit_scale").parameter
    if scale:
        sources = building.parameters("mul", "ln", [scale], sources)
    position = value("relative_position_bias")
    return project("proj", building.joined("add", "sum", [Value(sources), position]))


_ALIASES = {
    "iadd": "add",
    "imul": "mul",
    "multiply": "mul",
    "div": "mul",
    "divide": "mul",
    "truediv": "mul",
    "itruediv": "mul",
    "concat": "cat",
    "concatenate": "cat",
}

_MATRIX_FUNCTIONS = (
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution "
    "linear addmm matmul mm bmm baddbmm einsum embedding bilinear"
)
_NORM_FUNCTIONS = "batch_norm instance_norm group_norm layer_norm rms_norm"
_POOL_FUNCTIONS = "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d"
_GLOBAL_FUNCTIONS = "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"

FUNCTIONS: dict[str, FunctionReader] = {
    "add": _sum,
    "mul": _product,
    "cat": lambda building, _, inputs: building.joined("cat", "concat", inputs),
    "mean": _mean,
    "shifted_window_attention": _window_attention,
    **dict.fromkeys(_MATRIX_FUNCTIONS.split(), _matrix_function),
    **dict.fromkeys(_NORM_FUNCTIONS.split(), _norm_function),
    **dict.fromkeys(_POOL_FUNCTIONS.split(), _pool_function),
    **dict.fromkeys(
        _GLOBAL_FUNCTIONS.split(), lambda building, _, inputs: building.mean(union(inputs))
    ),
}
"""Functions that become nodes."""

SIZES = frozenset({"getattr", "size", "dim", "ndim", "numel", "stride", "_assert", "sym_size"})
"""What is computed from shapes alone."""

_ELEMENTWISE = (
    "relu relu6 elu selu celu gelu silu mish hardswish hardsigmoid hardtanh leaky_relu prelu rrelu "
    "softplus softsign logsigmoid sigmoid tanh exp log sqrt rsqrt pow square abs neg clamp clip "
    "clamp_min clamp_max maximum minimum where masked_fill sub isub subtract dropout dropout1d "
    "dropout2d alpha_dropout feature_dropout native_dropout stochastic_depth drop_path "
    "eq ne lt gt le ge not and or floordiv mod floor ceil round"
)
_ALONG_A_DIMENSION = (
    "softmax log_softmax logsumexp sum amax amin max min var std norm normalize cumsum "
    "scaled_dot_product_attention adaptive_max_pool1d adaptive_max_pool2d"
)
_RESHAPING = (
    "flatten unflatten reshape view transpose permute squeeze unsqueeze expand expand_as repeat "
    "repeat_interleave contiguous clone detach to type_as float half bool chunk split stack unbind "
    "getitem select slice index index_select narrow roll flip pad constant_pad_nd pixel_shuffle "
    "pixel_unshuffle channel_shuffle interpolate upsample movedim swapaxes t alias _to_copy copy "
    "unfold fold rearrange zeros ones full arange zeros_like ones_like full_like new_zeros "
    "new_ones new_empty empty empty_like _get_relative_position_bias _patch_merging_pad"
)
PASSED_THROUGH = frozenset(f"{_ELEMENTWISE} {_ALONG_A_DIMENSION} {_RESHAPING}".split())
"""Known operations that are no nodes."""
