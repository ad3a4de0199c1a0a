"""The blocks between the graph layers as Triton kernels: layer norm, depthwise convolution, gate.

torch has kernels for wide rows and for maps channel by channel; with few channels, last, these are ten times
as fast, and write bfloat16 where the next matrix product reads it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

CELLS = 2048  # values of a map that a program works on at a time


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        rows, channels = x.shape
        out = torch.empty(rows, channels, dtype=dtype, device=x.device)
        statistics = torch.empty(rows, 2, dtype=torch.float32, device=x.device)
        block = triton.next_power_of_2(channels)
        at_once = CELLS // block
        _norm[triton.cdiv(rows, at_once),](
            x, weight, bias, out, statistics, rows, channels, eps, block, at_once
        )
        ctx.save_for_backward(x, weight, statistics)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, statistics = ctx.saved_tensors
        rows, channels = x.shape
        out = torch.empty_like(x)
        block = triton.next_power_of_2(channels)
        at_once = CELLS // block
        programs = min(1056, triton.cdiv(rows, at_once))
        parts = torch.empty(2, programs, channels, dtype=torch.float32, device=x.device)
        _norm_backward[programs,](
            x, weight, statistics, grad.contiguous(), out, parts, rows, channels, programs, block, at_once
        )
        of_weight, of_bias = parts.sum(1)
        return out, of_weight, of_bias, None, None


@triton.jit
def _norm(x, weight, bias, out, statistics, rows, channels, eps, CHANNELS: tl.constexpr, ROWS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, CHANNELS)
    inside = (row < rows)[:, None] & (c < channels)[None, :]
    place = row[:, None].to(tl.int64) * channels + c[None, :]
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(values, 1) / channels
    centered = tl.where(inside, values - mean[:, None], 0.0)
    inverse = 1 / tl.sqrt(tl.sum(centered * centered, 1) / channels + eps)
    w = tl.load(weight + c, mask=c < channels, other=0.0)
    b = tl.load(bias + c, mask=c < channels, other=0.0)
    result = centered * inverse[:, None] * w[None, :] + b[None, :]
    tl.store(out + place, result.to(out.dtype.element_ty), mask=inside)
    tl.store(statistics + 2 * row, mean, mask=row < rows)
    tl.store(statistics + 2 * row + 1, inverse, mask=row < rows)


@triton.jit
def _norm_backward(
    x,
    weight,
    statistics,
    grad,
    out,
    parts,
    rows,
    channels,
    programs,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
):
    c = tl.arange(0, CHANNELS)
    w = tl.load(weight + c, mask=c < channels, other=0.0)
    of_weight = tl.zeros([CHANNELS], dtype=tl.float32)
    of_bias = tl.zeros([CHANNELS], dtype=tl.float32)
    for first in range(tl.program_id(0) * ROWS, rows, programs * ROWS):
        row = first + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (c < channels)[None, :]
        place = row[:, None].to(tl.int64) * channels + c[None, :]
        values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
        mean = tl.load(statistics + 2 * row, mask=row < rows, other=0.0)
        inverse = tl.load(statistics + 2 * row + 1, mask=row < rows, other=0.0)
        normed = tl.where(inside, (values - mean[:, None]) * inverse[:, None], 0.0)
        of_weight += tl.sum(g * normed, 0)
        of_bias += tl.sum(g, 0)
        scaled = g * w[None, :]
        along = tl.sum(scaled * normed, 1) / channels
        level = tl.sum(scaled, 1) / channels
        result = (scaled - level[:, None] - normed * along[:, None]) * inverse[:, None]
        tl.store(out + place, result.to(out.dtype.element_ty), mask=inside)
    at = tl.program_id(0) * channels + c
    tl.store(parts + at, of_weight, mask=c < channels)
    tl.store(parts + programs * channels + at, of_bias, mask=c < channels)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise the last axis; under autocast the result is of its dtype."""
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    rows = x.reshape(-1, x.size(-1)).contiguous()
    return _LayerNorm.apply(rows, weight, bias, eps, dtype).view(x.shape)


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution of `B x H x W x C` with `K x K x C`, zero padding, float32 sums."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _convolve(x, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        of_x = _convolve(grad, weight.flip(0, 1).contiguous(), None)
        batch_size, height, width, channels = x.shape
        side = len(weight)
        positions = batch_size * height * width
        programs = min(132, triton.cdiv(positions, 64))
        parts = torch.empty(programs, side, 8, channels, dtype=torch.float32, device=x.device)
        block = min(32, triton.next_power_of_2(channels))
        _depthwise_weight[programs, triton.cdiv(channels, block), side](
            x, grad, parts, positions, height, width, channels, programs, block, 64, side
        )
        sums = parts.sum(0)
        return of_x, sums[:, :side], sums[0, side] if ctx.has_bias else None


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    batch_size, height, width, channels = x.shape
    out = torch.empty_like(x)
    block = min(32, triton.next_power_of_2(channels))
    positions = batch_size * height * width
    grid = (triton.cdiv(positions, 64), triton.cdiv(channels, block))
    _depthwise[grid](
        x, weight, weight if bias is None else bias, out, positions, height, width, channels,
        block, 64, len(weight), bias is not None,
    )  # fmt: skip
    return out


@triton.jit
def _depthwise(
    x, weight, bias, out, positions, height, width, channels,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, SIDE: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    position = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    row, column = position // width % height, position % width
    some = (c < channels)[None, :]
    total = tl.zeros([ROWS, CHANNELS], dtype=tl.float32)
    for i in range(SIDE):
        for j in tl.static_range(SIDE):
            y, z = row + i - SIDE // 2, column + j - SIDE // 2
            inside = (position < positions) & (y >= 0) & (y < height) & (z >= 0) & (z < width)
            near = position + (i - SIDE // 2) * width + j - SIDE // 2
            values = tl.load(
                x + near[:, None].to(tl.int64) * channels + c[None, :], mask=inside[:, None] & some, other=0.0
            )
            w = tl.load(weight + (i * SIDE + j) * channels + c, mask=c < channels, other=0.0)
            total += values.to(tl.float32) * w[None, :]
    if HAS_BIAS:
        total += tl.load(bias + c, mask=c < channels, other=0.0)[None, :]
    tl.store(
        out + position[:, None].to(tl.int64) * channels + c[None, :],
        total.to(out.dtype.element_ty), mask=(position < positions)[:, None] & some,
    )  # fmt: skip


@triton.jit
def _depthwise_weight(
    x, grad, parts, positions, height, width, channels, programs,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    i = tl.program_id(2)  # the row of the weights
    some = (c < channels)[None, :]
    tap = tl.arange(0, 8)  # its columns, and the bias after them
    sums = tl.zeros([8, CHANNELS], dtype=tl.float32)
    for first in range(tl.program_id(0) * ROWS, positions, programs * ROWS):
        position = first + tl.arange(0, ROWS)
        row, column = position // width % height, position % width
        g = tl.load(
            grad + position[:, None].to(tl.int64) * channels + c[None, :],
            mask=(position < positions)[:, None] & some, other=0.0,
        ).to(tl.float32)  # fmt: skip
        y = row + i - SIDE // 2
        inside_rows = (position < positions) & (y >= 0) & (y < height)
        for j in tl.static_range(SIDE):
            z = column + j - SIDE // 2
            inside = inside_rows & (z >= 0) & (z < width)
            near = position + (i - SIDE // 2) * width + j - SIDE // 2
            values = tl.load(
                x + near[:, None].to(tl.int64) * channels + c[None, :], mask=inside[:, None] & some, other=0.0
            )
            part = tl.sum(values.to(tl.float32) * g, 0)
            sums += tl.where((tap == j)[:, None], part[None, :], 0.0)
        sums += tl.where((tap == SIDE)[:, None], tl.sum(g, 0)[None, :], 0.0)
    place = ((tl.program_id(0) * SIDE + i) * 8 + tap[:, None]) * channels + c[None, :]
    tl.store(parts + place, sums, mask=(tap <= SIDE)[:, None] & some)


def depthwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Do what a depthwise convolution of odd side with zero padding does, channels last."""
    weight = conv.weight[:, 0].permute(1, 2, 0).contiguous()
    rows = x.permute(0, 2, 3, 1).contiguous()
    return _Depthwise.apply(rows, weight, conv.bias).permute(0, 3, 1, 2)


class _Gate(torch.autograd.Function):
    """`GELU(a) * b` of the halves of the last axis."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        rows, width = x.shape
        out = torch.empty(rows, width // 2, dtype=x.dtype, device=x.device)
        _gate[triton.cdiv(out.numel(), 1024),](x, out, out.numel(), width // 2, 1024)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        out = torch.empty_like(x)
        grad = grad.contiguous()
        _gate_backward[triton.cdiv(grad.numel(), 1024),](x, grad, out, grad.numel(), x.size(1) // 2, 1024)
        return out


@triton.jit
def _gate(x, out, count, width, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at = i // width * 2 * width + i % width
    a = tl.load(x + at, mask=i < count, other=0.0).to(tl.float32)
    b = tl.load(x + at + width, mask=i < count, other=0.0).to(tl.float32)
    result = a * 0.5 * (1 + tl.erf(a * 0.7071067811865476)) * b
    tl.store(out + i, result.to(out.dtype.element_ty), mask=i < count)


@triton.jit
def _gate_backward(x, grad, out, count, width, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at = i // width * 2 * width + i % width
    a = tl.load(x + at, mask=i < count, other=0.0).to(tl.float32)
    b = tl.load(x + at + width, mask=i < count, other=0.0).to(tl.float32)
    g = tl.load(grad + i, mask=i < count, other=0.0).to(tl.float32)
    below = 0.5 * (1 + tl.erf(a * 0.7071067811865476))
    slope = below + a * 0.3989422804014327 * tl.exp(-0.5 * a * a)
    tl.store(out + at, (g * b * slope).to(out.dtype.element_ty), mask=i < count)
    tl.store(out + at + width, (g * a * below).to(out.dtype.element_ty), mask=i < count)


def gate(x: Tensor) -> Tensor:
    """`B x 2C x H x W`, channels last -> `B x C x H x W`: `GELU(a) * b`."""
    rows = x.permute(0, 2, 3, 1).contiguous()
    out = _Gate.apply(rows.view(-1, rows.size(-1)))
    return out.view(*rows.shape[:3], -1).permute(0, 3, 1, 2)
