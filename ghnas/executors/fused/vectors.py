"""Vectors of the processor's width, for kernels that keep their sums in registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

LANES = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
"""Values of a vector."""

_INT, _BYTE = ir.IntType(32), ir.IntType(8)
_LLVM = ir.VectorType(ir.FloatType(), LANES)


class _Vector(types.Type):
    """Of `LANES` values in single precision."""


@register_model(_Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _LLVM)  # type: ignore[no-untyped-call]


_VECTOR = _Vector("vector")


def _inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """From types to a signature and a function of a context, a builder, a signature and values."""
    return cast(Callable[..., Any], intrinsic(function))


def _pointer(kind: Any, context: Any, builder: Any, signature: Any, values: Any) -> Any:
    """Where a flat array's index is."""
    data = context.make_array(signature.args[0])(context, builder, values[0]).data
    return builder.bitcast(builder.gep(data, [values[1]]), kind.as_pointer())


def _load(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    return builder.load(_pointer(_LLVM, context, builder, signature, values), align=4)


def _store(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    pointer = _pointer(_LLVM, context, builder, signature, values)
    builder.store(values[2], pointer, align=4)


def _splat(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    none = _LLVM(ir.Undefined)
    lone = builder.insert_element(none, values[0], _INT(0))
    return builder.shuffle_vector(lone, none, ir.VectorType(_INT, LANES)([0] * LANES))


def _add_product(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    product = builder.fmul(values[1], values[2], flags=("contract",))
    return builder.fadd(values[0], product, flags=("contract",))


def _prefetch(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    pointer = _pointer(_BYTE, context, builder, signature, values)
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, _INT, _INT, _INT])
    function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
    builder.call(function, [pointer, _INT(0), _INT(2), _INT(1)])


@_inlined
def load(typing: Any, array: Any, index: Any) -> Any:
    """A vector of a flat array's values from an index on."""
    return _VECTOR(array, types.intp), _load


@_inlined
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write a vector to a flat array from an index on."""
    return types.void(array, types.intp, _VECTOR), _store


@_inlined
def splat(typing: Any, value: Any) -> Any:
    """A vector of one value."""
    return _VECTOR(types.float32), _splat


@_inlined
def add_product(typing: Any, total: Any, one: Any, other: Any) -> Any:
    """total + one * other, in one operation where the processor has it."""
    return _VECTOR(_VECTOR, _VECTOR, _VECTOR), _add_product


@_inlined
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Have the cache line of a flat array's index brought nearer."""
    return types.void(array, types.intp), _prefetch
