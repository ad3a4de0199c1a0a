"""Figures of a stage's graphs, made by matplotlib.

.. code-block:: none

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

from collections.abc import Mapping, Sequence
from string import ascii_uppercase as LETTERS

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch_geometric.data import Data

from glic_pyg.codec import GLIC, MULTIPLE
from glic_pyg.graph import Graphs
from glic_pyg.graph.candidates import CANDIDATES, QUERIES
from glic_pyg.graph.grid import MapSize
from glic_pyg.image import pad
from glic_pyg.inspection.choice import choose_nodes
from glic_pyg.inspection.neighborhood import Neighborhood, degrees, neighborhood
from glic_pyg.inspection.stages import node_size, stage_graphs

MARGIN = (CANDIDATES - QUERIES) // 2
SIMILARITIES, COUNTS, SCORES = "viridis", "viridis", "cividis"  # colours that colour-blind eyes order too
COLORS = {"local": "#0072B2", "global": "#D55E00"}
NODE = {"marker": "*", "color": "white", "markeredgecolor": "black", "linestyle": "none", "clip_on": False}
NEIGHBOR = {"edgecolor": "black", "linewidth": 0.4}
ZERO = {"marker": "s", "facecolor": "none", "edgecolor": "black", "linewidth": 0.8}
WINDOW = {"fill": False, "edgecolor": "black", "linestyle": "--", "linewidth": 0.9}
HALO = [withStroke(linewidth=2, foreground="black")]
LETTER = {"fontsize": 9, "fontweight": "bold", "color": "white", "path_effects": HALO}
TEXT = {"fontsize": 8.5, "loc": "left"}


class NodeError(ValueError):
    """Nodes that cannot be shown; the message is one line for the user."""


def graph_picture(
    model: GLIC, image: Tensor, *, stage: str = "g_a.1", nodes: Sequence[tuple[int, int]] | None = None
) -> Figure:
    """Draw the two graphs that a stage of a model builds for a picture.

    Args:
        model: The model, in eval mode.
        image: One picture in [0, 1], `1 x 3 x H x W`.
        stage: One of `STAGES`.
        nodes: Row and column of each node to show; by default they are chosen, see `choose_nodes`.

    Raises:
        ValueError: no such stage.
        NodeError: no such node, or too many.
    """
    graphs = stage_graphs(model, image, stage)
    map_size = graphs.local.map_size
    if nodes is None:
        chosen = choose_nodes(image, graphs.local.score, map_size)
        names, ids = [f"{LETTERS[i]} ({kind})" for i, kind in enumerate(chosen)], chosen.values()
    elif 1 <= len(nodes) <= len(LETTERS):
        names, ids = LETTERS[: len(nodes)], [_node_id(node, map_size) for node in nodes]
    else:
        raise NodeError(f"Expected 1 to {len(LETTERS)} nodes (got {len(nodes)})")
    named = dict(zip(names, ids, strict=True))
    return draw_graphs(image, graphs, named, title=f"{model.config.name}, stage {stage}")


def draw_graphs(image: Tensor, graphs: Graphs, nodes: Mapping[str, int], *, title: str) -> Figure:
    """Draw chosen nodes' neighbours over the picture, and maps of score, quota and degree beside it.

    Args:
        image: The picture that the graphs were built for, `1 x 3 x H x W`.
        graphs: Both graphs of it.
        nodes: Node ids by what to call them; the first letter marks the node on the maps.
        title: Of the figure.
    """
    photo = _Photo(image, graphs.local.map_size)
    aspect = min(max(photo.width / photo.height, 0.6), 2.5)
    side = min(max(17 / (2.6 * aspect + 1), 2.5), 4.5)  # of a panel, in inches
    if len(nodes) == 1:
        side *= 1.6
    height = max((side + 0.5) * len(nodes), 7)
    widths = (side * (aspect + 1) + 0.8, max(aspect * (height - 3.8) / 2, 4))
    figure = Figure(figsize=(sum(widths), height + 1), dpi=150, layout="constrained")
    figure.suptitle(f"{title}: {photo.height} x {photo.width} nodes of {photo.side} x {photo.side} pixels")
    left, right = figure.subfigures(1, 2, width_ratios=widths, wspace=0.02)
    _draw_neighbors(left, photo, graphs, nodes, dot=side * 72 / CANDIDATES, aspect=aspect)
    _draw_maps(right, photo, graphs, nodes)
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


def _node_id(node: tuple[int, int], map_size: MapSize) -> int:
    (row, column), (_, height, width) = node, map_size
    if not (0 <= row < height and 0 <= column < width):
        raise NodeError(f"Expected a node of a {height} x {width} map (got row {row}, column {column})")
    return row * width + column


class _Photo:
    """The picture under a drawing, in coordinates of nodes, and pale so that marks stand out."""

    def __init__(self, image: Tensor, map_size: MapSize) -> None:
        _, self.height, self.width = map_size
        self.side = node_size(image, map_size)
        self.bottom, self.right = (side / self.side - 0.5 for side in image.shape[-2:])
        self.pixels = pad(image, MULTIPLE)[0].permute(1, 2, 0).cpu().numpy()

    def draw(self, axes: Axes) -> None:
        extent = (-0.5, self.width - 0.5, self.height - 0.5, -0.5)
        axes.imshow(0.6 * self.pixels + 0.4, extent=extent)
        padding = {"facecolor": "white", "alpha": 0.7, "linewidth": 0}
        axes.add_patch(Rectangle((self.right, -0.5), extent[1] - self.right, self.height, **padding))
        axes.add_patch(Rectangle((-0.5, self.bottom), self.right + 0.5, extent[2] - self.bottom, **padding))
        axes.set(xlim=extent[:2], ylim=extent[2:])


def _draw_neighbors(
    figure: SubFigure, photo: _Photo, graphs: Graphs, nodes: Mapping[str, int], *, dot: float, aspect: float
) -> None:
    """Draw a row per node: its global neighbours over the whole picture, the local ones over their window."""
    panels = figure.subplots(len(nodes), 2, squeeze=False, width_ratios=(aspect, 1))
    pairs = [tuple(neighborhood(graph, node) for graph in graphs) for node in nodes.values()]
    shown = torch.cat([neighbors.similarity[~neighbors.is_zero] for pair in pairs for neighbors in pair])
    colors = ScalarMappable(Normalize(min(float(shown.min()), 0.9999), 1), SIMILARITIES)
    for (name, node), (near, far), (wide, window) in zip(nodes.items(), pairs, panels, strict=True):
        row, column = divmod(node, photo.width)
        top, left = (QUERIES * (place // QUERIES) - MARGIN for place in (row, column))
        for axes in (wide, window):
            photo.draw(axes)
            axes.tick_params(labelsize=7)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(6, integer=True))
            axes.add_patch(Rectangle((left - 0.5, top - 0.5), CANDIDATES, CANDIDATES, **WINDOW))
        window.set_facecolor("0.8")
        window.set(xlim=(left - 1.5, left + CANDIDATES + 0.5), ylim=(top + CANDIDATES + 0.5, top - 1.5))
        _scatter(wide, graphs.global_, far, colors, (0.5 * dot) ** 2)
        _scatter(window, graphs.local, near, colors, (0.55 * dot) ** 2)
        zero_rows, zero_columns = (near.offset[near.is_zero] - MARGIN).T
        window.scatter(column + zero_columns, row + zero_rows, s=(0.5 * dot) ** 2, **ZERO)
        for axes in (wide, window):
            axes.plot(column, row, markersize=13, **NODE)
        wide.set_title(f"{name} at row {row}, column {column}: global\n{_told(graphs.global_, far)}", **TEXT)
        window.set_title(f"local\n{_told(graphs.local, near)}", **TEXT)
    _color_bar(colors, list(panels.flat), "cosine similarity with the node")


def _scatter(axes: Axes, graph: Data, neighbors: Neighborhood, colors: ScalarMappable, size: float) -> None:
    real = ~neighbors.is_zero
    rows, columns = graph.pos[neighbors.source[real]].T
    axes.scatter(columns, rows, c=colors.to_rgba(neighbors.similarity[real].numpy()), s=size, **NEIGHBOR)


def _told(graph: Data, neighbors: Neighborhood) -> str:
    """Return a line about a node's neighbours."""
    parts = [
        f"quota {graph.quota[neighbors.node]:.1f}",
        f"{neighbors.source.numel()} kept",
        "self edge" if neighbors.has_self else "no self edge",
    ]
    if neighbors.num_zero:
        parts.append(f"{neighbors.num_zero} zero nodes")
    return ", ".join(parts)


def _draw_maps(figure: SubFigure, photo: _Photo, graphs: Graphs, nodes: Mapping[str, int]) -> None:
    """Draw maps of score, quota and degree, and the histogram of degrees."""
    quotas, degrees_ = ["local quota", "global quota"], ["local degree", "global degree"]
    panels = figure.subplot_mosaic(
        [["score"] * 2, quotas, degrees_, ["histogram"] * 2], height_ratios=[2, 1, 1, 0.8]
    )
    maps = {"score": graphs.local.score}
    for scope, graph in zip(("local", "global"), graphs, strict=True):
        maps[f"{scope} quota"] = graph.quota
        maps[f"{scope} degree"] = degrees(graph).float()
    most = float(torch.cat([graph.quota for graph in graphs]).quantile(0.995))
    counts = ScalarMappable(Normalize(0, most), COUNTS)
    scores = ScalarMappable(Normalize(0, float(graphs.local.score.quantile(0.995))), SCORES)
    for name, values in maps.items():
        axes, colors = panels[name], scores if name == "score" else counts
        axes.imshow(values.view(photo.height, photo.width), norm=colors.norm, cmap=colors.cmap)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{name}, mean {values.mean():.3g}", **TEXT)
        for label, node in nodes.items():
            row, column = divmod(node, photo.width)
            axes.plot(column, row, markersize=9, **NODE)
            right, up = column < 0.9 * photo.width, row > 0.1 * photo.height
            aside = (5 if right else -13, 3 if up else -11)
            axes.annotate(label[0], (column, row), aside, textcoords="offset points", **LETTER)
    _color_bar(scores, [panels["score"]], "score", extend="max")
    _color_bar(counts, [panels["local degree"], panels["global degree"]], "edges per node", extend="max")
    _draw_histogram(panels["histogram"], {scope: maps[f"{scope} degree"] for scope in COLORS}, most)


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
        axes.hist(counted, bins=bins, histtype="step", color=COLORS[scope], label=scope, linewidth=1.4)
    axes.set(yticks=[])
    axes.set_xlabel("degree (the last bin: or more)", fontsize=8.5)
    axes.set_ylabel("nodes", fontsize=8.5)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False)
