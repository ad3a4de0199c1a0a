"""A graph stage without edge lists, for maps of any size: groups are views of the map, neighbours a mask.

    map --> score --> quota ---+
     |                         v
     +--> groups of queries x 256 candidates --> mask --> attention of every layer

The same meaning as `glic_pyg.nn.GFAStage` on maps whose sides are multiples of 8, as those of padded pictures
are. What is outside of the map counts as zeros, which is what the zero node is.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn

from glic_pyg.config import ConfigError
from glic_pyg.export.modules import convolve, emit, map_of, norm_rows, rows_of
from glic_pyg.export.writer import Writer
from glic_pyg.graph import (
    EPS,
    Centered,
    Cosine,
    GlobalMesh,
    GraphBuilder,
    GroupQuota,
    LocalWindows,
    Sobel,
    Threshold,
    Uniform,
)
from glic_pyg.graph.build import NORM_EPS
from glic_pyg.graph.candidates import CANDIDATES, QUERIES, WINDOW_MARGIN
from glic_pyg.graph.complexity import BLUR, DAMPING
from glic_pyg.nn import DistanceBias, GFALayer, GFAStage, GraphAttention, PositionBias
from glic_pyg.nn.distance_bias import FARTHEST, distance_row
from glic_pyg.nn.position_bias import BOUND, table_row

NEVER = -1e9
"""A logit whose exponential is 0."""


class Groups:
    """Where queries and candidates of one graph are, of maps of one size.

    Maps are `1 x H x W x C` here: features of a position stay together when positions move.

    Args:
        writer: The graph that is written.
        like: A map of that size, `1 x C x H x W`.
    """

    side: int
    """Queries of a group along each axis."""

    def __init__(self, writer: Writer, like: str) -> None:
        self.writer = writer
        shape = writer.op("Shape", like)
        self.height, self.width = (writer.op("Gather", shape, writer.integers(i)) for i in (2, 3))

    def queries(self, x: str, channels: int) -> str:
        """Append `1 x H x W x C` -> `G x side^2 x C`."""
        raise NotImplementedError

    def candidates(self, x: str, channels: int) -> str:
        """Append `1 x H x W x C` -> `G x 256 x C`."""
        raise NotImplementedError

    def to_map(self, x: str, channels: int) -> str:
        """Append `G x side^2 x C` -> `1 x H x W x C`."""
        raise NotImplementedError

    def share(self, score: str, degree: float) -> str:
        """Append what `GroupQuota` makes of a score, `1 x H x W x 1` -> `G x side^2 x 1`."""
        raise NotImplementedError

    def biases(self, bias: PositionBias | DistanceBias, heads: int) -> str:
        """Append the biases of all pairs, `heads x side^2 x 256`."""
        raise NotImplementedError

    def view(self, x: str, *shape: int | str) -> str:
        """Append a reshape; sides are numbers, or lists of one that were computed."""
        parts = [side if isinstance(side, str) else self.writer.integers(side) for side in shape]
        return self.writer.op("Reshape", x, self.writer.op("Concat", *parts, axis=0))

    def over(self, a: str, b: int) -> str:
        """Append a quotient of whole numbers, rounded up."""
        more = self.writer.op("Add", a, self.writer.integers(b - 1))
        return self.writer.op("Div", more, self.writer.integers(b))

    def part(self, x: str, axis: int, start: int | str, stop: int | str) -> str:
        """Append a slice along an axis."""
        first, end = (v if isinstance(v, str) else self.writer.integers(v) for v in (start, stop))
        return self.writer.op("Slice", x, first, end, self.writer.integers(axis))

    def quota(self, score: str, members: Any, over: tuple[int, ...], degree: float) -> str:
        """Append a group's budget, shared out in proportion to scores, whose axes `over` are the group's."""
        w = self.writer
        total = w.op("ReduceSum", score, w.integers(*over))
        total = w.op("Max", total, w.constant(1e-30))  # of groups outside of the map
        budget = w.op("Div", w.op("Mul", w.constant(degree), members), total)
        return w.op("Clip", w.op("Mul", score, budget), w.constant(1), w.constant(CANDIDATES**2))


class LocalGroups(Groups):
    """Windows of 8 x 8 queries, each in the middle of its 16 x 16 candidates."""

    side = QUERIES

    def __init__(self, writer: Writer, like: str) -> None:
        super().__init__(writer, like)
        self.rows, self.columns = (self.over(side, QUERIES) for side in (self.height, self.width))

    def queries(self, x: str, channels: int) -> str:
        x = self.view(x, self.rows, QUERIES, self.columns, QUERIES, channels)
        return self._grouped(x, QUERIES, channels)

    def candidates(self, x: str, channels: int) -> str:
        w = self.writer
        margins = [0, WINDOW_MARGIN, WINDOW_MARGIN, 0] * 2
        x = w.op("Pad", x, w.integers(*margins))
        rows, columns = (w.op("Add", count, w.integers(1)) for count in (self.rows, self.columns))
        x = self.view(x, rows, QUERIES, columns, QUERIES, channels)
        for axis in (0, 2):  # a window is two blocks of 8 by two
            halves = self.part(x, axis, 0, -1), self.part(x, axis, 1, np.iinfo(np.int64).max)
            x = w.op("Concat", *halves, axis=axis + 1)
        return self._grouped(x, CANDIDATES, channels)

    def to_map(self, x: str, channels: int) -> str:
        x = self.view(x, self.rows, self.columns, QUERIES, QUERIES, channels)
        x = self.writer.op("Transpose", x, perm=[0, 2, 1, 3, 4])
        return self.view(x, 1, self.height, self.width, channels)

    def share(self, score: str, degree: float) -> str:
        members = self.writer.constant(QUERIES**2)
        return self.quota(self.queries(score, 1), members, (1,), degree)

    def biases(self, bias: PositionBias | DistanceBias, heads: int) -> str:
        rows = (
            distance_row(steps(QUERIES) - WINDOW_MARGIN)
            if isinstance(bias, DistanceBias)
            else table_row(steps(QUERIES))
        )
        table = self.writer.constant(bias((1, 1)).T)
        return self.writer.op("Gather", table, self.writer.constant(rows, np.int64), axis=1)

    def _grouped(self, x: str, side: int, channels: int) -> str:
        x = self.writer.op("Transpose", x, perm=[0, 2, 1, 3, 4])
        return self.view(x, -1, side**2, channels)


class GlobalGroups(Groups):
    """Strided meshes. The four groups of 8 x 8 queries that share 16 x 16 candidates are those candidates."""

    side = CANDIDATES

    def __init__(self, writer: Writer, like: str) -> None:
        super().__init__(writer, like)
        self.strides = [self.over(side, CANDIDATES) for side in (self.height, self.width)]
        beyond = [
            writer.op("Sub", writer.op("Mul", stride, writer.integers(CANDIDATES)), side)
            for stride, side in zip(self.strides, (self.height, self.width), strict=True)
        ]
        self.margins = writer.op("Concat", writer.integers(*[0] * 5), *beyond, writer.integers(0), axis=0)

    def queries(self, x: str, channels: int) -> str:
        x = self.writer.op("Pad", x, self.margins)
        x = self.view(x, CANDIDATES, self.strides[0], CANDIDATES, self.strides[1], channels)
        x = self.writer.op("Transpose", x, perm=[1, 3, 0, 2, 4])
        return self.view(x, -1, CANDIDATES**2, channels)

    candidates = queries

    def to_map(self, x: str, channels: int) -> str:
        x = self.view(x, *self.strides, CANDIDATES, CANDIDATES, channels)
        x = self.writer.op("Transpose", x, perm=[2, 0, 3, 1, 4])
        whole = (self.writer.op("Mul", s, self.writer.integers(CANDIDATES)) for s in self.strides)
        x = self.view(x, 1, *whole, channels)
        return self.part(self.part(x, 1, 0, self.height), 2, 0, self.width)

    def share(self, score: str, degree: float) -> str:
        """A group is every second candidate along both axes."""
        w = self.writer
        grouped = -1, QUERIES, 2, QUERIES, 2
        ones = w.op("Add", w.op("Mul", score, w.constant(0)), w.constant(1))
        members = self.view(self.queries(ones, 1), *grouped)
        members = w.op("ReduceSum", members, w.integers(1, 3))
        score = self.view(self.queries(score, 1), *grouped)
        return self.view(self.quota(score, members, (1, 3), degree), -1, CANDIDATES**2, 1)

    def biases(self, bias: PositionBias | DistanceBias, heads: int) -> str:
        w = self.writer
        if isinstance(bias, PositionBias):
            own = torch.arange(CANDIDATES) // 2  # a query's slot in its group
            table, rows = w.constant(bias().T), table_row(steps(CANDIDATES, own))
        else:
            table, rows = self._distances(bias, heads), distance_row(steps(CANDIDATES))
        return w.op("Gather", table, w.constant(rows, np.int64), axis=1)

    def _distances(self, bias: DistanceBias, heads: int) -> str:
        """Append the table of biases, whose distances depend on the map's size: `heads x 961`."""
        w = self.writer
        first, last = cast(nn.Linear, bias[0]), cast(nn.Linear, bias[-1])
        side = 2 * FARTHEST + 1
        hidden = w.constant(first.bias)
        for axis, stride in enumerate(self.strides):
            step = torch.arange(-FARTHEST, FARTHEST + 1).view((side, 1, 1) if axis == 0 else (side, 1))
            distance = w.op("Mul", w.constant(step), w.op("Cast", stride, to=TensorProto.FLOAT))
            log = w.op("Log", w.op("Add", w.op("Abs", distance), w.constant(1)))
            coordinate = w.op("Mul", w.op("Mul", w.op("Sign", distance), log), w.constant(1 / np.log(8)))
            hidden = w.op("Add", hidden, w.op("Mul", coordinate, w.constant(first.weight[:, axis])))
        table = w.op("MatMul", w.op("Relu", hidden), w.constant(last.weight.T))
        table = w.op("Mul", w.op("Sigmoid", table), w.constant(BOUND))
        return w.op("Transpose", self.view(table, side**2, heads), perm=[1, 0])


GROUPS: dict[type, type[Groups]] = {LocalWindows: LocalGroups, GlobalMesh: GlobalGroups}


def steps(queries: int, own: Tensor | None = None) -> Tensor:
    """Return each candidate's place minus each query's, `queries^2 x 256 x 2`.

    Args:
        queries: Of a group, along each axis.
        own: Their places; by default as they are counted.
    """
    own = torch.arange(queries) if own is None else own
    query, candidate = torch.cartesian_prod(own, own), torch.cartesian_prod(*[torch.arange(CANDIDATES)] * 2)
    return candidate[None] - query[:, None]


@emit.register
def _(module: GFAStage, writer: Writer, x: str) -> str:
    builder = module.graph_builder
    _check(module)
    groups = [GROUPS[type(part)](writer, x) for part in builder.candidates]
    layers = [cast(GFALayer, layer) for layer in module.layers]
    channels = layers[0].ffn.norm.weight.numel()
    score = rows_of(writer, _damp(writer, _score(writer, builder, x, channels)))
    unit = _unit(writer, builder, rows_of(writer, x))
    masks = [_mask(writer, builder, g, unit, g.share(score, builder.degree), channels) for g in groups]
    for i, layer in enumerate(layers):
        own, mask = groups[i % len(groups)], masks[i % len(groups)]
        normed = norm_rows(writer, rows_of(writer, x), layer.norm)
        update = _attention(writer, cast(GraphAttention, layer.aggregate), own, mask, normed)
        x = writer.op("Add", x, map_of(writer, update))
        x = emit(layer.ffn, writer, x)
    return x


def _check(stage: GFAStage) -> None:
    """Refuse parts that nobody has written in ONNX's operators."""
    builder = stage.graph_builder
    known: list[tuple[str, tuple[type, ...], list[Any]]] = [
        ("candidates", tuple(GROUPS), list(builder.candidates)),
        ("score", (Sobel, Uniform), [builder.score]),
        ("quota", (GroupQuota,), [builder.quota]),
        ("selection", (Threshold,), [builder.selection]),
        ("similarity", (Cosine, Centered), [builder.similarity]),
        ("aggregation", (GraphAttention,), [cast(GFALayer, layer).aggregate for layer in stage.layers]),
    ]
    for what, kinds, parts in known:
        for part in parts:
            if type(part) not in kinds:
                names = " or ".join(kind.__name__ for kind in kinds)
                raise ConfigError(f"Expected {names} as {what} for ONNX (got {type(part).__name__})")


def _score(writer: Writer, builder: GraphBuilder, x: str, channels: int) -> str:
    """Append the score of each position, `1 x 1 x H x W`."""
    if isinstance(builder.score, Uniform):
        one = writer.op("ReduceMax", x, writer.integers(1))
        return writer.op("Add", writer.op("Mul", one, writer.constant(0)), writer.constant(1))
    across = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]) / 4
    line = torch.tensor([BLUR[0], BLUR[1], BLUR[0]])
    gradients = [_filter(writer, x, kernel, channels) for kernel in (across, across.T)]
    squares = [writer.op("Mul", g, g) for g in gradients]
    total = writer.op("Add", writer.op("Add", *squares), writer.constant(EPS))
    blurred = _filter(writer, writer.op("Sqrt", total), torch.outer(line, line), channels)
    if builder.score.pooling == "mean":
        return writer.op("ReduceMean", blurred, writer.integers(1))
    square = writer.op("ReduceMean", writer.op("Mul", blurred, blurred), writer.integers(1))
    return writer.op("Sqrt", square)


def _filter(writer: Writer, x: str, kernel: Tensor, channels: int) -> str:
    """Append the same 3 x 3 filter of each channel; at the border values are repeated."""
    padded = writer.op("Pad", x, writer.integers(0, 0, 1, 1, 0, 0, 1, 1), mode="edge")
    return convolve(writer, padded, kernel.expand(channels, 1, 3, 3), None, groups=channels)


def _damp(writer: Writer, score: str) -> str:
    mean = writer.op("ReduceMean", score, writer.integers(2, 3))
    deviation = writer.op("Div", writer.op("Sub", score, mean), writer.constant(DAMPING))
    return writer.op("Add", mean, deviation)


def _unit(writer: Writer, builder: GraphBuilder, x: str) -> str:
    """Append features of length 1, `1 x H x W x C`."""
    if isinstance(builder.similarity, Centered):
        x = writer.op("Sub", x, writer.op("ReduceMean", x, writer.integers(1, 2)))
    return _normalised(writer, x)


def _normalised(writer: Writer, x: str) -> str:
    length = writer.op("ReduceL2", x, writer.integers(-1))
    return writer.op("Div", x, writer.op("Max", length, writer.constant(NORM_EPS)))


def _mask(writer: Writer, builder: GraphBuilder, groups: Groups, unit: str, quota: str, channels: int) -> str:
    """Append what to add to logits: 0 of the chosen candidates, `G x side^2 x 256`."""
    near = writer.op("Transpose", groups.candidates(unit, channels), perm=[0, 2, 1])
    similarity = writer.op("MatMul", groups.queries(unit, channels), near)
    last = writer.integers(-1)
    mean, low, most = (writer.op(f"Reduce{what}", similarity, last) for what in ("Mean", "Min", "Max"))
    threshold, high = mean, writer.constant(1)
    for _ in range(cast(Threshold, builder.selection).bisections):
        above = writer.op("Greater", similarity, threshold)
        count = writer.op("ReduceSum", writer.op("Cast", above, to=TensorProto.FLOAT), last)
        too_many = writer.op("Greater", count, quota)
        low = writer.op("Where", too_many, threshold, low)
        high = writer.op("Where", too_many, high, threshold)
        end = writer.op("Where", too_many, high, low)
        threshold = writer.op("Mul", writer.op("Add", threshold, end), writer.constant(0.5))
    # A node that would keep nothing keeps everything; no cosine is as low as -2.
    some = writer.op("Greater", most, threshold)
    threshold = writer.op("Where", some, threshold, writer.constant(-2))
    kept = writer.op("Greater", similarity, threshold)
    return writer.op("Where", kept, writer.constant(0), writer.constant(NEVER))


def _attention(writer: Writer, layer: GraphAttention, groups: Groups, mask: str, x: str) -> str:
    """Append `GraphAttention`, head by head: all heads' logits at once would take the most memory by far."""
    heads, channels = layer.heads, layer.query.in_features

    def split(x: str, *, axis: int = -1, parts: int = heads) -> list[str]:
        return writer.split("Split", x, parts=parts, axis=axis, num_outputs=parts)

    key, value = split(_linear(writer, layer.key_value, x), parts=2)
    queries = split(groups.queries(_linear(writer, layer.query, x), channels))
    keys, values = (split(groups.candidates(part, channels)) for part in (key, value))
    biases = split(groups.biases(layer.position_bias, heads), axis=0)
    outs = []
    for q, k, v, bias, scale in zip(queries, keys, values, biases, layer.scale().tolist(), strict=True):
        q = writer.op("Mul", _normalised(writer, q), writer.constant(scale))
        k = writer.op("Transpose", _normalised(writer, k), perm=[0, 2, 1])
        logits = writer.op("Add", writer.op("Add", writer.op("MatMul", q, k), mask), bias)
        outs.append(writer.op("MatMul", writer.op("Softmax", logits, axis=-1), v))
    out = groups.to_map(writer.op("Concat", *outs, axis=-1), channels)
    return _linear(writer, layer.output, out)


def _linear(writer: Writer, layer: nn.Linear, x: str) -> str:
    product = writer.op("MatMul", x, writer.constant(layer.weight.T))
    return writer.op("Add", product, writer.constant(layer.bias))
