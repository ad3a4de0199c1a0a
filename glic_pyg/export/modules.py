"""Modules by the operators that compute them.

The exact ones become those of `glic_pyg.entropy.exact`, one by one and in its order: sums of integers, and
operations of single values that IEEE 754 defines to the last bit. A runtime that computes each operator by
itself has the same bits; one that fuses operators, or folds some into others' weights, has not.
"""

from __future__ import annotations

from functools import singledispatch
from typing import cast

import numpy as np
from onnx import TensorProto
from torch import Tensor, nn

from glic_pyg.entropy.context import CheckerboardConv2d, PointwiseBlock
from glic_pyg.entropy.exact import ExactBlock, ExactConv2d, ExactGELU, ExactLayerNorm2d
from glic_pyg.entropy.exact_kernels import GELU_COEFFICIENTS, NORM_QMAX, QMAX, TINY
from glic_pyg.export.writer import Writer
from glic_pyg.nn import ConvBlock, FeedForwardStage, GatedFeedForward, LayerNorm2d, WaveletDown, WaveletUp
from glic_pyg.transform import AnalysisTransform, SynthesisTransform

SLOPE = 0.01  # of `ConvBlock`'s leaky rectifier


@singledispatch
def emit(module: nn.Module, writer: Writer, x: str) -> str:
    """Append what a module computes of a map, `1 x C x H x W`, and return the map that comes out.

    Raises:
        TypeError: no module of a GLIC model.
    """
    raise TypeError(f"Expected a module of a GLIC model (got {type(module).__name__})")


@emit.register
def _(module: nn.Sequential, writer: Writer, x: str) -> str:
    for part in module:
        x = emit(part, writer, x)
    return x


@emit.register
def _(module: nn.Identity, writer: Writer, x: str) -> str:
    return x


@emit.register
def _(module: nn.PixelShuffle, writer: Writer, x: str) -> str:
    return shuffle(writer, x, module.upscale_factor)


@emit.register
def _(module: nn.Conv2d, writer: Writer, x: str) -> str:
    weight = module.weight * module.mask if isinstance(module, CheckerboardConv2d) else module.weight
    padding = cast("tuple[int, ...]", module.padding)
    return convolve(
        writer, x, weight, module.bias, stride=module.stride, padding=padding, groups=module.groups
    )


@emit.register
def _(module: LayerNorm2d, writer: Writer, x: str) -> str:
    return map_of(writer, norm_rows(writer, rows_of(writer, x), module))


@emit.register
def _(module: nn.GELU, writer: Writer, x: str) -> str:
    return writer.op("Gelu", x)


@emit.register
def _(module: GatedFeedForward, writer: Writer, x: str) -> str:
    hidden = emit(module.project_in, writer, emit(module.norm, writer, x))
    if module.depthwise is not None:
        hidden = emit(module.depthwise, writer, hidden)
    a, b = writer.split("Split", hidden, parts=2, axis=1, num_outputs=2)
    gated = writer.op("Mul", emit(module.gelu, writer, a), b)
    return writer.op("Add", x, emit(module.project_out, writer, gated))


@emit.register
def _(module: ConvBlock, writer: Writer, x: str) -> str:
    shortcut = x if module.adaptor is None else emit(module.adaptor, writer, x)
    inner = writer.op("LeakyRelu", emit(module.conv1, writer, x), alpha=SLOPE)
    inner = emit(module.conv2, writer, emit(module.depthwise, writer, inner))
    return emit(module.ffn, writer, writer.op("Add", shortcut, inner))


@emit.register
def _(module: ExactBlock, writer: Writer, x: str) -> str:
    return emit(module.block, writer, x)


@emit.register
def _(module: PointwiseBlock, writer: Writer, x: str) -> str:
    return emit(module.ffn, writer, emit(module.conv, writer, x))


@emit.register
def _(module: FeedForwardStage, writer: Writer, x: str) -> str:
    return emit(module.layers, writer, x)


@emit.register
def _(module: WaveletDown, writer: Writer, x: str) -> str:
    return convolve(writer, x, *module.folded(), stride=(2, 2))


@emit.register
def _(module: WaveletUp, writer: Writer, x: str) -> str:
    return shuffle(writer, convolve(writer, x, *module.folded()), 2)


@emit.register
def _(module: AnalysisTransform, writer: Writer, x: str) -> str:
    return _transform(writer, x, module.down, module.stages, module.shortcuts)


@emit.register
def _(module: SynthesisTransform, writer: Writer, x: str) -> str:
    return _transform(writer, x, module.up, module.stages, module.shortcuts)


def _transform(
    writer: Writer, x: str, steps: nn.ModuleList, stages: nn.ModuleList, shortcuts: nn.ModuleList
) -> str:
    shortcut = x
    for step, stage, wavelet in zip(steps, stages, shortcuts, strict=True):
        shortcut = emit(wavelet, writer, shortcut)
        x = writer.op("Add", emit(stage, writer, emit(step, writer, x)), shortcut)
    return x


def convolve(
    writer: Writer,
    x: str,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, ...] = (1, 1),
    padding: tuple[int, ...] = (0, 0),
    groups: int = 1,
) -> str:
    """Append a convolution, as `torch.nn.functional.conv2d` has it."""
    inputs = [x, writer.constant(weight)] + ([] if bias is None else [writer.constant(bias)])
    return writer.op("Conv", *inputs, strides=stride, pads=[*padding, *padding], group=groups)


def shuffle(writer: Writer, x: str, factor: int) -> str:
    """Append `torch.nn.PixelShuffle`."""
    return writer.op("DepthToSpace", x, blocksize=factor, mode="CRD")


def rows_of(writer: Writer, x: str) -> str:
    """Append `1 x C x H x W` -> `1 x H x W x C`."""
    return writer.op("Transpose", x, perm=[0, 2, 3, 1])


def map_of(writer: Writer, x: str) -> str:
    """Append `1 x H x W x C` -> `1 x C x H x W`."""
    return writer.op("Transpose", x, perm=[0, 3, 1, 2])


def norm_rows(writer: Writer, x: str, norm: nn.LayerNorm | LayerNorm2d) -> str:
    """Append a normalisation over the channels of each position of `1 x H x W x C`."""
    weights = writer.constant(norm.weight), writer.constant(norm.bias)
    return writer.op("LayerNormalization", x, *weights, axis=-1, epsilon=norm.eps)


@emit.register
def _(module: ExactConv2d, writer: Writer, x: str) -> str:
    over = (1,) if module.pointwise else (2, 3) if module.groups > 1 else (1, 2, 3)
    x, step = _quantise(writer, x, over, QMAX)
    y = convolve(
        writer, x, module.weight, None, stride=module.stride, padding=module.padding, groups=module.groups
    )
    y = writer.op("Mul", writer.op("Mul", y, step), writer.constant(module.step[:, None, None]))
    return y if module.bias is None else writer.op("Add", y, writer.constant(module.bias[:, None, None]))


@emit.register
def _(module: ExactLayerNorm2d, writer: Writer, x: str) -> str:
    x, step = _quantise(writer, x, (1,), NORM_QMAX)
    share = writer.constant(1 / len(module.weight), np.float64)
    mean, square = (
        writer.op("Mul", writer.op("ReduceSum", _double(writer, v), writer.integers(1)), share)
        for v in (x, writer.op("Mul", x, x))
    )
    step = _double(writer, step)
    eps = writer.op("Div", writer.constant(1, np.float64), writer.op("Mul", step, step))  # as torch divides
    eps = writer.op("Mul", eps, writer.constant(module.eps, np.float64))
    variance = writer.op("Sub", square, writer.op("Mul", mean, mean))
    variance = writer.op("Max", variance, writer.constant(0, np.float64))
    deviation = _single(writer, writer.op("Sqrt", writer.op("Add", variance, eps)))
    x = writer.op("Div", writer.op("Sub", x, _single(writer, mean)), deviation)
    weight, bias = (writer.constant(v[:, None, None]) for v in (module.weight, module.bias))
    return writer.op("Add", writer.op("Mul", x, weight), bias)


@emit.register
def _(module: ExactGELU, writer: Writer, x: str) -> str:
    magnitude = writer.op("Abs", x)
    t = writer.op("Mul", magnitude, writer.constant(0.5**0.5))
    first, *rest = GELU_COEFFICIENTS
    p = writer.op("Mul", t, writer.constant(first))
    for coefficient in rest:
        p = writer.op("Mul", writer.op("Add", p, writer.constant(coefficient)), t)
    p = writer.op("Add", p, writer.constant(1))
    p = writer.op("Mul", p, p)
    p = writer.op("Mul", p, p)
    below = writer.op("Div", writer.op("Mul", magnitude, writer.constant(0.5)), p)
    return writer.op("Sub", writer.op("Max", x, writer.constant(0)), below)


def _quantise(writer: Writer, x: str, over: tuple[int, ...], qmax: int) -> tuple[str, str]:
    """Append `exact._quantise`."""
    largest = writer.op("ReduceMax", writer.op("Abs", x), writer.integers(*over), keepdims=1)
    largest = writer.op("Max", largest, writer.constant(TINY))
    inverse = writer.op("Mul", writer.op("Div", writer.constant(1), largest), writer.constant(qmax))
    return (
        writer.op("Round", writer.op("Mul", x, inverse)),
        writer.op("Mul", largest, writer.constant(1 / qmax)),
    )


def _double(writer: Writer, x: str) -> str:
    return writer.op("Cast", x, to=TensorProto.DOUBLE)


def _single(writer: Writer, x: str) -> str:
    return writer.op("Cast", x, to=TensorProto.FLOAT)
