"""Figures of a stage's graphs, made by matplotlib.

+------------------+----------+   +---------------------------+
| node A, global   | A, local |   | score                     |
|                  |          |   |                           |
+------------------+----------+   +-------------+-------------+
| node B, global   | B, local |   | local quota | its degrees |
|                  |          |   +-------------+-------------+
+------------------+----------+   | global ...  |             |
| node C, global   | C, local |   +-------------+-------------+
|                  |          |   | histogram of degrees      |
+------------------+----------+   +---------------------------+
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from string import ascii_uppercase as LETTERS
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glic_pyg.codec import GLIC
from glic_pyg.config import HYPER_STRIDE, LATENT_STRIDE
from glic_pyg.errors import require
from glic_pyg.graph import Graph
from glic_pyg.graph.candidates import CANDIDATES, QUERIES, WINDOW_MARGIN
from glic_pyg.graph.grid import MapSize
from glic_pyg.image import pad
from glic_pyg.inspection.attention import LayerError, stage_attention
from glic_pyg.inspection.choice import choose_nodes
from glic_pyg.inspection.neighborhood import Neighborhood, NodeError, degrees, neighborhood, node_id
from glic_pyg.inspection.receptive_field import (
    centered_mean,
    convolutions_only,
    energy_area,
    receptive_fields,
)
from glic_pyg.inspection.stages import SCOPES, Graphs, StageRun, node_size, run_stages
from glic_pyg.picture import ImageError
from glic_pyg.progress import tell

with require("matplotlib", extra="graphs", purpose="drawings"):
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator

GRID = 3  # rows and columns of the positions over which receptive fields are averaged
MAX_FIELD_PIXELS = 2**20  # their gradients take 3 GB of memory with glic_nano
DOTS = 384  # along the longer side of a receptive field
SIMILARITY = "cosine similarity with the node"
# Colours that colour-blind eyes order too.
SIMILARITIES, COUNTS, SCORES = "viridis", "viridis", "cividis"
FIELDS = LinearSegmentedColormap.from_list(
    "fields", [(1, 0.8, 0.2, 0), (1, 0.5, 0, 0.45), (0.8, 0, 0.1, 0.75), (0.35, 0, 0.25, 0.95)]
)
"""Over the picture, which shows through where there is little."""
COLORS = {"local": "#0072B2", "global": "#D55E00"}
NODE: dict[str, Any] = {
    "marker": "*",
    "color": "white",
    "markeredgecolor": "black",
    "linestyle": "none",
    "clip_on": False,
}
NEIGHBOR: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.4}
ZERO: dict[str, Any] = {"marker": "s", "facecolor": "none", "edgecolor": "black", "linewidth": 0.8}
WINDOW: dict[str, Any] = {"fill": False, "edgecolor": "black", "linestyle": "--", "linewidth": 0.9}
HALO = [withStroke(linewidth=2, foreground="black")]
LETTER: dict[str, Any] = {"fontsize": 9, "fontweight": "bold", "color": "white", "path_effects": HALO}
TEXT: dict[str, Any] = {"fontsize": 8.5, "loc": "left"}


Scope = Literal["local", "global", "both"]


def graph_picture(
    model: GLIC,
    image: Tensor,
    *,
    stage: str = "g_a.1",
    nodes: Sequence[tuple[int, int]] | None = None,
    scope: Scope = "both",
    by: Literal["similarity", "attention"] = "similarity",
    head: int | None = None,
    run: StageRun | None = None,
) -> Figure:
    """Draw the two graphs that a stage of a model builds for a picture.

    Args:
        model: The model, in eval mode.
        image: One picture in [0, 1], `1 x 3 x H x W`.
        stage: One of `STAGES`.
        nodes: Row and column of each node to show; by default they are chosen, see `choose_nodes`.
        scope: Which of the two graphs.
        by: What colours the neighbours; attention is that of the first layer on each graph.
        head: Attention head, from 0; by default the mean of all.
        run: Of the stage, where there is one of this picture already.

    Raises:
        ValueError: no such stage.
        NodeError: no such node, or too many.
        LayerError: no such head, or no layer on one of the graphs.
    """
    run = run or run_stages(model, image, [stage])[stage]
    tell("drawing the graphs")
    if by == "similarity" and head is not None:
        raise LayerError(f"Expected a head with attention only (got head {head} with {by})")
    attention = stage_attention(run, head=head) if by == "attention" else None
    heads = "mean of all heads" if head is None else f"head {head}"
    named = _named_nodes(image, run.pair, nodes)
    return draw_graphs(
        image,
        run.pair,
        named,
        title=f"{model.config.name}, stage {stage}",
        scope=scope,
        weights=attention,
        weight_name=f"attention, {heads}" if attention else SIMILARITY,
    )


def erf_picture(
    model: GLIC,
    image: Tensor,
    *,
    stage: str = "g_a.1",
    nodes: Sequence[tuple[int, int]] | None = None,
    run: StageRun | None = None,
) -> Figure:
    """Draw effective receptive fields: of y in the picture, and of the decoded picture in y_hat.

    At the places of some nodes, and averaged over a grid of places; each with and without attention.

    Args:
        model: The model, in eval mode.
        image: One picture in [0, 1], `1 x 3 x H x W`.
        stage: Whose nodes they are.
        nodes: Row and column of each node; by default they are chosen, see `choose_nodes`.
        run: Of the stage, where there is one of this picture already.

    Raises:
        ValueError: no such stage.
        ImageError: a picture of more than `MAX_FIELD_PIXELS`.
        NodeError: no such node, or too many.
    """
    height, width = image.shape[-2:]
    if height * width > MAX_FIELD_PIXELS:
        most = f"{MAX_FIELD_PIXELS} pixels for effective receptive fields"
        raise ImageError(f"Expected at most {most} (got {width} x {height})")
    graphs = (run or run_stages(model, image, [stage])[stage]).pair
    map_size = graphs.local.map_size
    named = _named_nodes(image, graphs, nodes)
    x = pad(image.to(model.device), HYPER_STRIDE)
    side = node_size(image, map_size)
    rows, columns = (size // LATENT_STRIDE for size in x.shape[-2:])
    places = [
        tuple((i * side + side // 2) // LATENT_STRIDE for i in divmod(n, map_size[2])) for n in named.values()
    ]
    grid = [
        (rows * (2 * i + 1) // (2 * GRID), columns * (2 * j + 1) // (2 * GRID))
        for i in range(GRID)
        for j in range(GRID)
    ]
    with torch.no_grad():
        y_hat = model(image.to(model.device))["y_hat"]
    aspect = min(max(columns / rows, 0.6), 2.5)
    size = (2.8 * aspect * (len(named) + 1) + 1, 4 * 3.2 + 0.8)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    figure.suptitle(f"{model.config.name}: effective receptive fields at positions of y (16 x 16 pixels)")
    panels = figure.subplots(4, len(named) + 1, squeeze=False)
    photo = 0.4 * x[0].mean(dim=0).cpu() + 0.6  # grey and pale, so that colours stand out
    colors = ScalarMappable(LogNorm(1e-6, 1), FIELDS)
    for first, transform, x_in, block in ((0, model.g_a, x, 1), (2, model.g_s, y_hat, LATENT_STRIDE)):
        stride = LATENT_STRIDE if block == 1 else 1
        name, unit = ("g_a", "pixels") if block == 1 else ("g_s", "positions of y_hat")
        total = x_in.size(-2) * x_in.size(-1)
        for row, convolutions in ((first, False), (first + 1, True)):
            kind = "no attention" if convolutions else "whole"
            with convolutions_only(transform) if convolutions else nullcontext():
                doing = f"receptive fields of {name}, {kind}"
                fields = receptive_fields(transform, x_in, [*places, *grid], block=block, doing=doing).cpu()
            centers = [(r * stride + stride // 2, c * stride + stride // 2) for r, c in grid]
            mean = centered_mean(fields[len(places) :], centers)
            marks = [(r * stride + (stride - 1) / 2, c * stride + (stride - 1) / 2) for r, c in places]
            shown: list[tuple[str, Tensor, tuple[float, float] | None]] = [
                *zip(named, fields[: len(places)], marks, strict=True)
            ]
            top, left = (size // 2 for size in fields.shape[-2:])
            inner = mean[top : top + fields.size(-2), left : left + fields.size(-1)]
            shown.append((f"mean of {len(grid)} places", inner, None))
            for axes, (title, field, mark) in zip(panels[row], shown, strict=True):
                whole = mean if mark is None else field
                _draw_field(axes, field, colors, mark, photo)
                area = f"90 % in {energy_area(whole)} of {total} {unit}"
                axes.set_title(f"{name}, {kind}: {title}\n{area}", **TEXT)
    _color_bar(colors, list(panels.flat), "energy, relative to the greatest", extend="min")
    return figure


def _draw_field(
    axes: Axes, field: Tensor, colors: ScalarMappable, mark: tuple[float, float] | None, photo: Tensor
) -> None:
    """Draw a field: over the photo that of a place, which is marked; on white the mean of several."""
    relative = field / field.max().clamp(min=torch.finfo(field.dtype).tiny)
    # The greatest of each block of pixels: a panel has fewer dots than a picture, and would lose single ones.
    step = max(1, max(field.shape) // DOTS)
    coarse = F.max_pool2d(relative[None], step, ceil_mode=True)[0]
    extent = (-0.5, field.size(1) - 0.5, field.size(0) - 0.5, -0.5)
    axes.set_facecolor(colors.cmap(0))
    if mark is not None:
        axes.imshow(photo, cmap="gray", vmin=0, vmax=1, extent=extent)
    axes.imshow(coarse.clamp(min=1e-9), norm=_norm(colors), cmap=colors.cmap, extent=extent)
    axes.set(xticks=[], yticks=[])
    if mark is not None:
        row, column = mark
        axes.plot(column, row, "o", color="none", markeredgecolor="black", markersize=14)


def draw_graphs(
    image: Tensor,
    graphs: Graphs,
    nodes: Mapping[str, int],
    *,
    title: str,
    scope: Scope = "both",
    weights: tuple[Tensor, Tensor] | None = None,
    weight_name: str = SIMILARITY,
) -> Figure:
    """Draw chosen nodes' neighbours over the picture, and maps of score, quota and degree beside it.

    Args:
        image: The picture that the graphs were built for, `1 x 3 x H x W`.
        graphs: Both graphs of it.
        nodes: Node ids by what to call them; the first letter marks the node on the maps.
        title: Of the figure.
        scope: Which of the two graphs.
        weights: What colours the edges of the local and of the global graph; by default similarity.
        weight_name: What to call it.
    """
    photo = _Photo(image, graphs.local.map_size)
    aspect = min(max(photo.width / photo.height, 0.6), 2.5)
    side = min(max(17 / (2.6 * aspect + 1), 2.5), 4.5)  # of a panel, in inches
    panels = {"global": aspect, "local": 1.0}  # widths of a row's panels, in sides
    if scope != "both":
        panels = {scope: panels[scope]}
    if len(nodes) == 1:
        side *= 1.6
    height = max((side + 0.5) * len(nodes), 7)
    widths = (side * sum(panels.values()) + 0.8, max(aspect * (height - 3.8) / 2, 4))
    figure = Figure(figsize=(sum(widths), height + 1), dpi=150, layout="constrained")
    figure.suptitle(f"{title}: {photo.height} x {photo.width} nodes of {photo.side} x {photo.side} pixels")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=widths, wspace=0.02)[0]
    if weights is None:
        weights = (graphs.local.similarity, graphs.global_.similarity)
    shown = {
        name: (graph, weight)
        for name, graph, weight in zip(SCOPES, graphs, weights, strict=True)
        if name in panels
    }
    _draw_neighbors(left, photo, shown, nodes, panels, dot=side * 72 / CANDIDATES, weight_name=weight_name)
    _draw_maps(right, photo, {name: graph for name, (graph, _) in shown.items()}, nodes)
    figure.legend(
        handles=[
            Line2D([], [], **NODE, markersize=13, label="node"),
            Line2D([], [], **NODE | {"marker": "o", "color": "0.6"}, label="neighbour"),
            Line2D([], [], **NODE | {"marker": "s", "color": "none"}, label="zero node"),
            Rectangle((0, 0), 0, 0, **WINDOW, label="window of the local candidates"),
        ],
        loc="outside lower left",
        ncols=4,
        fontsize=8.5,
        frameon=False,
    )
    return figure


def _named_nodes(image: Tensor, graphs: Graphs, nodes: Sequence[tuple[int, int]] | None) -> dict[str, int]:
    """Return node ids by what to call them: those asked for, or chosen ones."""
    map_size = graphs.local.map_size
    if nodes is None:
        chosen = choose_nodes(image, graphs.local.score[:-1], map_size)
        return {f"{LETTERS[i]} ({kind})": node for i, (kind, node) in enumerate(chosen.items())}
    if not 1 <= len(nodes) <= len(LETTERS):
        raise NodeError(f"Expected 1 to {len(LETTERS)} nodes (got {len(nodes)})")
    return {LETTERS[i]: node_id(node, map_size) for i, node in enumerate(nodes)}


class _Photo:
    """The picture under a drawing, in coordinates of nodes, and pale so that marks stand out."""

    def __init__(self, image: Tensor, map_size: MapSize) -> None:
        _, self.height, self.width = map_size
        self.side = node_size(image, map_size)
        self.bottom, self.right = (side / self.side - 0.5 for side in image.shape[-2:])
        self.pixels = pad(image, HYPER_STRIDE)[0].permute(1, 2, 0).cpu().numpy()

    def draw(self, axes: Axes) -> None:
        extent = (-0.5, self.width - 0.5, self.height - 0.5, -0.5)
        axes.imshow(0.6 * self.pixels + 0.4, extent=extent)
        padding: dict[str, Any] = {"facecolor": "white", "alpha": 0.7, "linewidth": 0}
        axes.add_patch(Rectangle((self.right, -0.5), extent[1] - self.right, self.height, **padding))
        axes.add_patch(Rectangle((-0.5, self.bottom), self.right + 0.5, extent[2] - self.bottom, **padding))
        axes.set(xlim=extent[:2], ylim=extent[2:])


def _draw_neighbors(
    figure: SubFigure,
    photo: _Photo,
    graphs: Mapping[str, tuple[Graph, Tensor]],
    nodes: Mapping[str, int],
    widths: Mapping[str, float],
    *,
    dot: float,
    weight_name: str,
) -> None:
    """Draw a row per node: its global neighbours over the whole picture, the local ones over their window."""
    panels = figure.subplots(len(nodes), len(widths), squeeze=False, width_ratios=list(widths.values()))
    found = {
        (name, scope): neighborhood(graph, node)
        for name, node in nodes.items()
        for scope, (graph, _) in graphs.items()
    }
    values = [graphs[scope][1][neighbors.edge] for (_, scope), neighbors in found.items()]
    colors = ScalarMappable(_range(values, found.values(), weight_name), SIMILARITIES)
    for (name, node), row_of_panels in zip(nodes.items(), panels, strict=True):
        row, column = divmod(node, photo.width)
        top, left = (QUERIES * (place // QUERIES) - WINDOW_MARGIN for place in (row, column))
        for scope, axes in zip(widths, row_of_panels, strict=True):
            graph, weight = graphs[scope]
            neighbors = found[name, scope]
            photo.draw(axes)
            axes.tick_params(labelsize=7)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(6, integer=True))
            axes.add_patch(Rectangle((left - 0.5, top - 0.5), CANDIDATES, CANDIDATES, **WINDOW))
            size = (0.5 if scope == "global" else 0.55) * dot
            _scatter(axes, graph, neighbors, colors.to_rgba(weight[neighbors.edge].numpy()), size**2)
            if scope == "local":
                axes.set_facecolor("0.8")
                axes.set(xlim=(left - 1.5, left + CANDIDATES + 0.5), ylim=(top + CANDIDATES + 0.5, top - 1.5))
                zero_rows, zero_columns = (neighbors.offset[neighbors.is_zero] - WINDOW_MARGIN).T
                axes.scatter(column + zero_columns, row + zero_rows, s=(0.5 * dot) ** 2, **ZERO)
            axes.plot(column, row, markersize=13, **NODE)
            heading = f"{name} at row {row}, column {column}: " if scope == next(iter(widths)) else ""
            axes.set_title(f"{heading}{scope}\n{_told(graph, neighbors)}", **TEXT)
    beyond = "neither" if weight_name == SIMILARITY else "both"  # a node's own attention may be far greater
    _color_bar(colors, list(panels.flat), weight_name, extend=beyond)


def _range(values: list[Tensor], found: Iterable[Neighborhood], weight_name: str) -> Normalize:
    """Return what the colours span: similarities up to 1, attention up to the most that any other has."""
    others = torch.cat(
        [
            value[~neighbors.is_zero & (neighbors.source != neighbors.node)]
            for value, neighbors in zip(values, found, strict=True)
        ]
    )
    if weight_name == SIMILARITY:
        return Normalize(min(float(others.min()) if len(others) else 0.0, 0.9999), 1)
    most = float(others.max()) if len(others) else 1.0
    return LogNorm(most / 100, most)  # a few neighbours share as much attention as many


def _scatter(axes: Axes, graph: Graph, neighbors: Neighborhood, colors: np.ndarray, size: float) -> None:
    real = ~neighbors.is_zero
    rows, columns = graph.pos[neighbors.source[real]].T
    axes.scatter(columns, rows, c=colors[real.numpy()], s=size, **NEIGHBOR)


def _told(graph: Graph, neighbors: Neighborhood) -> str:
    """Return a line about a node's neighbours."""
    parts = [
        f"quota {graph.quota[neighbors.node]:.1f}",
        f"{neighbors.source.numel()} kept",
        "self edge" if neighbors.has_self else "no self edge",
    ]
    if neighbors.num_zero:
        parts.append(f"{neighbors.num_zero} zero nodes")
    return ", ".join(parts)


def _draw_maps(
    figure: SubFigure, photo: _Photo, graphs: Mapping[str, Graph], nodes: Mapping[str, int]
) -> None:
    """Draw maps of score, quota and degree, and the histogram of degrees."""
    quotas, degrees_ = ([f"{scope} {kind}" for scope in graphs] for kind in ("quota", "degree"))
    rows: list[Any] = [["score"] * len(graphs), quotas, degrees_, ["histogram"] * len(graphs)]
    panels = figure.subplot_mosaic(
        rows,
        height_ratios=[2, 1, 1, 0.8] if len(graphs) == 2 else [1, 1, 1, 0.7],
    )
    score = next(iter(graphs.values())).score[:-1]
    maps = {"score": score}
    for scope, graph in graphs.items():
        maps[f"{scope} quota"] = graph.quota[:-1]
        maps[f"{scope} degree"] = degrees(graph).float()
    most = float(torch.cat([graph.quota[:-1] for graph in graphs.values()]).quantile(0.995))
    counts = ScalarMappable(Normalize(0, most), COUNTS)
    scores = ScalarMappable(Normalize(0, float(score.quantile(0.995))), SCORES)
    for name, values in maps.items():
        axes, colors = panels[name], scores if name == "score" else counts
        axes.imshow(values.view(photo.height, photo.width), norm=_norm(colors), cmap=colors.cmap)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{name}, mean {values.mean():.3g}", **TEXT)
        for label, node in nodes.items():
            row, column = divmod(node, photo.width)
            axes.plot(column, row, markersize=9, **NODE)
            right, up = column < 0.9 * photo.width, row > 0.1 * photo.height
            aside = (5 if right else -13, 3 if up else -11)
            axes.annotate(label[0], (column, row), aside, textcoords="offset points", **LETTER)
    _color_bar(scores, [panels["score"]], "score", extend="max")
    _color_bar(counts, [panels[name] for name in degrees_], "edges per node", extend="max")
    _draw_histogram(panels["histogram"], {scope: maps[f"{scope} degree"] for scope in graphs}, most)


def _norm(colors: ScalarMappable) -> Normalize:
    assert isinstance(colors.norm, Normalize)  # as all are that are made here
    return colors.norm


def _color_bar(colors: ScalarMappable, axes: Sequence[Axes], label: str, extend: str = "neither") -> None:
    bar = axes[0].figure.colorbar(
        colors, ax=axes, location="bottom", shrink=0.6, aspect=40, pad=0.02, extend=extend
    )
    bar.set_label(label, fontsize=8.5)
    bar.ax.tick_params(labelsize=8)


def _draw_histogram(axes: Axes, degree: Mapping[str, Tensor], most: float) -> None:
    width = 1 + int(most / 50)
    bins = np.arange(0, most + width, width) - 0.5
    for scope, values in degree.items():
        counted = values.clamp(max=bins[-1]).numpy()
        axes.hist(
            counted, bins=bins.tolist(), histtype="step", color=COLORS[scope], label=scope, linewidth=1.4
        )
    axes.set(yticks=[])
    axes.set_xlabel("degree (the last bin: or more)", fontsize=8.5)
    axes.set_ylabel("nodes", fontsize=8.5)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False)
