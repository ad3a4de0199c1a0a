"""A page of a photo as several codecs restore it at the same size, and of the graph of one of its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glic_pyg.codec import GLIC
from glic_pyg.evaluation.report_page import PAGES
from glic_pyg.evaluation.viewer import Restored, shown_picture
from glic_pyg.graph.candidates import QUERIES, WINDOW_MARGIN
from glic_pyg.image import data_uri
from glic_pyg.inspection import node_size, run_stages
from glic_pyg.inspection.choice import choose_nodes
from glic_pyg.inspection.neighborhood import neighborhood
from glic_pyg.inspection.stages import SCOPES, stages_with_graphs
from glic_pyg.pages import fill_page

PHOTO = "coffee.jpg"
STAGE = "g_a.1"
SIDE, STEP = 96, 16
"""Pixels, of the regions that are shown large, and between those that are tried."""


def photo_bytes() -> bytes:
    """Return the file of the photo that comes with the package."""
    return (files("glic_pyg") / "photos" / PHOTO).read_bytes()


def demo_page(
    x: Tensor, restored: Sequence[Restored], graph: Mapping[str, Any] | None, *, path: Path, regions: int = 3
) -> str:
    """Return the page.

    Args:
        x: The photo, `1 x 3 x H x W` in [0, 1].
        restored: What codecs made of it; the first one is the one that the page is about.
        graph: See `node_graph`; None for a model without such graphs.
        path: Of the photo.
        regions: How many are shown large.
    """
    ours, *others = restored
    size = len(ours.data)
    corners = regions_that_differ([one.x_hat for one in restored], regions)
    layers = [
        ("original", f"{x.size(-1)} x {x.size(-2)} pixels", x),
        *((one.name, one.text(size), one.x_hat) for one in restored),
    ]
    return fill_page(
        PAGES / "demo.html",
        size=f"{size:,}".replace(",", " "),
        ours=ours.name,
        share=f"{3 * x[0, 0].numel() / size:.0f}",
        psnr=f"{ours.psnr:.1f}",
        others=[f"{one.name} {one.psnr:.1f} dB" for one in others],
        side=SIDE,
        zooms=[
            {
                "name": name,
                "text": text,
                "uris": [_uri(picture[..., r : r + SIDE, c : c + SIDE]) for r, c in corners],
            }
            for name, text, picture in layers
        ],
        graph=graph,
        photo=path,
        pictures=[shown_picture(PHOTO, x, restored)],
    )


def regions_that_differ(pictures: Sequence[Tensor], count: int) -> list[tuple[int, int]]:
    """Return the corners of the squares in which pictures differ most from each other, those of most first.

    Args:
        pictures: `1 x 3 x H x W`, at least `SIDE` high and wide.
        count: How many, fewer if there is no room for so many apart from each other.
    """
    variance = torch.cat(list(pictures)).var(dim=0, correction=0).mean(dim=0)
    means = F.avg_pool2d(variance[None, None], SIDE, stride=STEP)[0, 0]
    corners: list[tuple[int, int]] = []
    while len(corners) < count and means.max() >= 0:
        row, column = divmod(int(means.argmax()), means.size(1))
        corners.append((row * STEP, column * STEP))
        apart = SIDE // STEP - 1
        means[max(0, row - apart) : row + apart + 1, max(0, column - apart) : column + apart + 1] = -1
    return corners


def node_graph(model: GLIC, x: Tensor) -> dict[str, Any] | None:
    """Return a node on an edge of a photo and its neighbours, for the page; None without such graphs.

    Args:
        model: In eval mode.
        x: The photo, `1 x 3 x H x W` in [0, 1].
    """
    kinds = [part.name for part in model.config.graph.candidates]
    if kinds != list(SCOPES) or STAGE not in stages_with_graphs(model):
        return None
    graphs = run_stages(model, x, [STAGE])[STAGE].pair
    map_size = graphs.local.map_size
    side, columns = node_size(x, map_size), map_size[2]
    chosen = choose_nodes(x, graphs.local.score[:-1], map_size)
    node = chosen.get("edge", next(iter(chosen.values())))
    row, column = divmod(node, columns)
    top, left = (side * (QUERIES * (place // QUERIES) - WINDOW_MARGIN) for place in (row, column))
    height, width = x.shape[-2:]
    places = {}
    for kind, graph in zip(SCOPES, graphs, strict=True):
        near = neighborhood(graph, node)
        corners = (divmod(int(source), columns) for source in near.source[~near.is_zero])
        # Nodes of the padding are beyond the photo.
        places[kind] = [(side * c, side * r) for r, c in corners if side * r < height and side * c < width]
    return {
        "uri": data_uri(x, format="WEBP", quality=90),
        "width": width,
        "height": height,
        "side": side,
        "node": (side * column, side * row),
        "window": (left, top, side * (QUERIES + 2 * WINDOW_MARGIN)),
        "places": places,
    }


def _uri(x: Tensor) -> str:
    return data_uri(x, format="WEBP", lossless=True)
