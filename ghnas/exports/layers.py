"""Every operation as plain PyTorch source: a layer with weights, or an expression without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch

from ghnas.architectures import ops, token_ops
from ghnas.architectures.graph import Shape


@dataclass(frozen=True)
class Layer:
    """An operation's source.

    Args:
        kind: A short name, such as `conv3x3`.
        module: How to make it, such as `nn.ReLU()`; empty where there is no module for it.
        expression: What it computes, of inputs `{0}`, `{1}`, ...; empty where the module does.
        takes_bias: Whether the module adds a bias if it is made with `bias=True`.
    """

    kind: str
    module: str = ""
    expression: str = ""
    takes_bias: bool = False

    def with_bias(self) -> Layer:
        """The same layer with a bias."""
        return Layer(self.kind, self.module.replace("bias=False", "bias=True"))


ACTIVATIONS = {
    "relu": ("nn.ReLU()", "F.relu({0})"),
    "relu6": ("nn.ReLU6()", "F.relu6({0})"),
    "hardswish": ("nn.Hardswish()", "F.hardswish({0})"),
    "silu": ("nn.SiLU()", "F.silu({0})"),
    "gelu": ("nn.GELU()", "F.gelu({0})"),
}


@singledispatch
def layer(op: ops.Op, inputs: Sequence[Shape], output: Shape) -> Layer:
    """An operation's source.

    Args:
        op: The operation.
        inputs: Shapes of its inputs for one image.
        output: Shape of its output for one image.

    Raises:
        TypeError: If it has no source.
    """
    raise TypeError(f"operation {op.kind!r} cannot be exported")


def _conv(kind: str, own: Shape, out: int, **settings: object) -> Layer:
    rest = ", ".join(f"{name}={value}" for name, value in settings.items() if value is not None)
    kernel = settings["kernel_size"]
    size = f"{kernel}x{kernel}" if isinstance(kernel, int) else "{}x{}".format(*kernel)  # type: ignore[misc]
    return Layer(f"{kind}{size}", f"nn.Conv2d({own[0]}, {out}, {rest}, bias=False)", "", True)


def _unless(usual: int, value: int) -> int | None:
    return None if value == usual else value


@layer.register
def _(op: ops.Conv, inputs: Sequence[Shape], output: Shape) -> Layer:
    return _conv(
        op.primitive,
        inputs[0],
        op.out,
        kernel_size=op.kernel,
        stride=_unless(1, op.stride),
        padding=_unless(0, op.padding),
        dilation=_unless(1, op.dilation),
        groups=op.out if op.depthwise else None,
    )


@layer.register
def _(op: token_ops.LineConv, inputs: Sequence[Shape], output: Shape) -> Layer:
    pad = op.kernel // 2
    across = op.across
    return _conv(
        "conv",
        inputs[0],
        op.out,
        kernel_size=(1, op.kernel) if across else (op.kernel, 1),
        stride=(1, op.stride) if across else (op.stride, 1),
        padding=(0, pad) if across else (pad, 0),
    )


@layer.register
def _(op: token_ops.Patches, inputs: Sequence[Shape], output: Shape) -> Layer:
    padding = _unless(0, op.padding)
    return _conv("patches", inputs[0], op.out, kernel_size=op.size, stride=op.size, padding=padding)


@layer.register
def _(op: token_ops.TokenLinear, inputs: Sequence[Shape], output: Shape) -> Layer:
    return _conv("conv", inputs[0], op.out, kernel_size=1)


@layer.register
def _(op: ops.Linear, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer("linear", f"nn.Linear({inputs[0][0]}, {op.out}, bias=False)", "", True)


@layer.register
def _(op: ops.BatchNorm, inputs: Sequence[Shape], output: Shape) -> Layer:
    dimensions = 2 if len(inputs[0]) == 3 else 1
    return Layer("norm", f"nn.BatchNorm{dimensions}d({inputs[0][0]})")


@layer.register
def _(op: ops.Activation, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer(op.function, *ACTIVATIONS[op.function])


def _pool(kind: str, module: str, kernel: int, stride: int, more: str = "") -> Layer:
    size = f"{kernel}, stride={stride}, padding={(kernel - 1) // 2}{more}"
    return Layer(f"{kind}{kernel}x{kernel}", f"nn.{module}({size})")


@layer.register
def _(op: ops.MaxPool, inputs: Sequence[Shape], output: Shape) -> Layer:
    return _pool("max_pool", "MaxPool2d", op.kernel, op.stride)


@layer.register
def _(op: ops.AvgPool, inputs: Sequence[Shape], output: Shape) -> Layer:
    return _pool("avg_pool", "AvgPool2d", op.kernel, op.stride, ", count_include_pad=False")


@layer.register
def _(op: ops.Bias, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer("bias", f"Bias({inputs[0][0]})")


@layer.register
def _(op: token_ops.PositionEncoding, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer("position", f"PositionEncoding({', '.join(map(str, inputs[0]))})")


@layer.register
def _(op: token_ops.LayerNorm, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer("norm", f"ChannelNorm({inputs[0][0]})")


@layer.register
def _(op: token_ops.Attention, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer("attention", f"Attention(heads={op.heads})")


@layer.register
def _(op: ops.Shift, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer("shift", expression="{0}[:, :, 1:, 1:]")


@layer.register
def _(op: ops.Extend, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer("extend", expression='F.pad({0}, (0, 1, 0, 1), mode="replicate")')


@layer.register
def _(op: ops.Truncate, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer("truncate", expression=f"{{0}}[:, :{op.out}]")


@layer.register
def _(op: ops.Zeros, inputs: Sequence[Shape], output: Shape) -> Layer:
    size = ", ".join(map(str, output))
    return Layer("zeros", expression=f"{{0}}.new_zeros({{0}}.shape[0], {size})")


@layer.register
def _(op: ops.Sum, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer("sum", expression=" + ".join(f"{{{i}}}" for i in range(len(inputs))))


@layer.register
def _(op: ops.Concat, inputs: Sequence[Shape], output: Shape) -> Layer:
    parts = ", ".join(f"{{{i}}}" for i in range(len(inputs)))
    return Layer("concat", expression=f"torch.cat([{parts}], dim=1)")


@layer.register
def _(op: ops.GlobalAveragePool, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer("mean", expression="{0}.mean(dim=(2, 3))")


@layer.register
def _(op: token_ops.Gate, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer("gate", expression="{0} * {1}[:, :, None, None]")


@layer.register
def _(op: token_ops.Stride, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer("stride", expression=f"{{0}}[:, :, ::{op.step}, ::{op.step}]")


@layer.register
def _(op: token_ops.Flatten, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer("flatten", "nn.Flatten()")


@layer.register
def _(op: token_ops.Blank, inputs: Sequence[Shape], output: Shape) -> Layer:
    return Layer("blank", expression="torch.zeros_like({0})")
