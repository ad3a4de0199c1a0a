"""A page that shows every node's neighbours under the pointer: one file, without network or library.

.. code-block:: none

    model, picture --> graphs of all stages --> base64 of deflated arrays --+
                                                                            +--> page.html --> the page
    picture --> JPEG -------------------------------------------------------+
"""

from __future__ import annotations

import base64
import html
import io
import json
import zlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from glic_pyg.codec import GLIC
from glic_pyg.files import replacing
from glic_pyg.graph.candidates import CANDIDATES, QUERIES
from glic_pyg.image import to_pil
from glic_pyg.inspection.attention import stage_attention
from glic_pyg.inspection.neighborhood import degrees
from glic_pyg.inspection.stages import graphs_by_stage, node_size, stage_module

JPEG_QUALITY = 90
ATTENTION_STEPS, ATTENTION_DECADES = 63, 4  # from 1e-4 to 1; finer steps deflate less
FRAME_HEIGHT = 900  # pixels, of the page in a notebook


@dataclass(frozen=True)
class Page:
    """A page of HTML that needs nothing else; a notebook shows it.

    Args:
        text: The whole page.
    """

    text: str

    def save(self, path: str | Path) -> None:
        """Write the page to a file."""
        with replacing(path) as aside:
            aside.write_text(self.text, encoding="utf-8")

    def _repr_html_(self) -> str:
        # In a frame of its own, so that neither its style nor its keys meet the notebook's.
        style = f"width: 100%; height: {FRAME_HEIGHT}px; border: 0"
        return f'<iframe srcdoc="{html.escape(self.text)}" style="{style}"></iframe>'


def graph_page(model: GLIC, image: Tensor, *, title: str = "picture") -> Page:
    """Make the page of the graphs that a model builds for a picture, in all stages.

    Args:
        model: The model, in eval mode.
        image: One picture in [0, 1], `1 x 3 x H x W`.
        title: What the picture is called.
    """
    stages = {}
    for stage, graphs in graphs_by_stage(model, image).items():
        _, height, width = graphs.local.map_size
        attention: tuple[Tensor | None, Tensor | None] = (None, None)
        if len(stage_module(model, stage).layers) > 1:
            attention = stage_attention(model, image, stage, graphs)
        stages[stage] = {
            "height": height,
            "width": width,
            "side": node_size(image, graphs.local.map_size),
            "score": _packed_map(graphs.local.score),
            "local": _packed_graph(graphs.local, attention[0]),
            "global": _packed_graph(graphs.global_, attention[1]),
        }
    content = {
        "title": title,
        "model": model.config.name,
        "queries": QUERIES,
        "candidates": CANDIDATES,
        "attentionSteps": ATTENTION_STEPS,
        "attentionDecades": ATTENTION_DECADES,
        "photo": {"height": image.size(-2), "width": image.size(-1), "source": _data_uri(image)},
        "stages": stages,
    }
    template = files("glic_pyg.inspection").joinpath("page.html").read_text(encoding="utf-8")
    inert = json.dumps(content).replace("<", "\\u003c")  # no title can end the script that holds it
    return Page(template.replace("{{ content }}", inert))


def _packed_graph(graph: Data, attention: Tensor | None) -> dict[str, Any]:
    """Return a graph's quota and edges as the page reads them.

    Per edge a byte for the source, its place in the target's 16 x 16 candidates, one for the similarity, in
    255 steps from the least one to 1, and one for the attention if any, in logarithmic steps. Edges are
    sorted by target, and `degree` tells where a node's end.
    """
    _, target = graph.edge_index.as_tensor()
    query = graph.candidates.slot[target]
    row, column = (graph.offset[:, axis].long() for axis in (0, 1))
    place = (row + query // QUERIES) * CANDIDATES + column + query % QUERIES
    least = min(float(graph.similarity.min()), 1.0) if graph.num_edges else 0.0
    logarithm = None if attention is None else 1 + attention.log10() / ATTENTION_DECADES
    return {
        "quota": _packed_map(graph.quota),
        "degree": _packed(degrees(graph), "<u2"),
        "place": _packed(place, "u1"),
        "similarity": _packed(_steps((graph.similarity - least) / max(1 - least, 1e-6), 255), "u1"),
        "attention": None if logarithm is None else _packed(_steps(logarithm, ATTENTION_STEPS), "u1"),
        "least": least,
    }


def _steps(parts: Tensor, count: int) -> Tensor:
    return (parts * count).round().clamp(0, count)


def _packed_map(values: Tensor) -> dict[str, Any]:
    """Return a map of positive numbers in 65535 steps up to the greatest."""
    most = max(float(values.max()), 1e-6)
    return {"most": most, "values": _packed((values / most * 65535).round(), "<u2")}


def _packed(values: Tensor, dtype: str) -> str:
    return base64.b64encode(zlib.compress(values.cpu().numpy().astype(np.dtype(dtype)).tobytes(), 9)).decode()


def _data_uri(image: Tensor) -> str:
    file = io.BytesIO()
    to_pil(image).save(file, format="JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
