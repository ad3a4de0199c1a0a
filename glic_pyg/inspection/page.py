"""A page that shows every node's neighbours under the pointer: one file, without network or library.

    model, picture --> graphs of all stages, bits ---+
                                                      +--> base64 of deflated arrays --+
    its layers' queries and keys --> few numbers -----+                                +--> page.html
    picture --> JPEG; restored picture --> WebP ---------------------------------------+

The template `page.html` includes a style, `page.css`, and three scripts: `page_data.js` reads the arrays,
`page_words.js` says what every word means, `page_view.js` paints and answers to the pointer.

Attention of every layer and head would be the largest part by far, so the page computes it, as the model
does: from queries and keys, stored per node.
"""

from __future__ import annotations

import base64
import html
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glic_pyg.codec import GLIC
from glic_pyg.config import LATENT_STRIDE
from glic_pyg.files import write_file
from glic_pyg.graph import Graph
from glic_pyg.graph.candidates import CANDIDATES, QUERIES, places
from glic_pyg.image import data_uri
from glic_pyg.inspection.neighborhood import degrees
from glic_pyg.inspection.stages import ModelRun, node_size, run_model
from glic_pyg.nn.distance_bias import DistanceBias
from glic_pyg.nn.graph_attention import GraphAttention
from glic_pyg.nn.position_bias import table_row
from glic_pyg.pages import fill_page
from glic_pyg.progress import each, tell

JPEG_QUALITY = 90
DISTANCE_STEPS = 50  # of the unit vectors' distance, 0 to that of the least similar ones; more deflate less
LOGIT_STEP = 0.25  # of queries and keys, such that logits move by about a tenth; a finer one deflates less
BASIS_STEPS = 2**15 - 1  # of the numbers of a basis, from 0 to 1
BIAS_STEP = 0.001
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
        write_file(path, self.text)

    def _repr_html_(self) -> str:
        # In a frame of its own, so that neither its style nor its keys meet the notebook's.
        style = f"width: 100%; height: {FRAME_HEIGHT}px; border: 0"
        return f'<iframe srcdoc="{html.escape(self.text)}" style="{style}"></iframe>'


def graph_page(model: GLIC, image: Tensor, *, title: str = "picture", run: ModelRun | None = None) -> Page:
    """Make the page of the graphs that a model builds for a picture, in all stages.

    Args:
        model: The model, in eval mode.
        image: One picture in [0, 1], `1 x 3 x H x W`.
        title: What the picture is called.
        run: Of the model, where there is one of this picture already.
    """
    run = run or run_model(model, image)
    stages = {}
    for stage, did in each(run.stages.items(), "packing the graphs of stages"):
        graphs = did.pair
        _, height, width = graphs.local.map_size
        stages[stage] = {
            "height": height,
            "width": width,
            "side": node_size(image, graphs.local.map_size),
            "score": _packed_map(graphs.local.score[:-1]),
            "local": _packed_graph(graphs.local),
            "global": _packed_graph(graphs.global_),
            "layers": [
                _packed_layer(attention, x, graphs[i % 2])
                for i, (attention, x) in enumerate(zip(did.attentions, did.inputs, strict=True))
            ],
        }
    graph = model.config.graph
    tell("packing the pictures")
    content = {
        "title": title,
        "model": model.config.name,
        "quality": run.quality,
        "position": model.config.position,
        "score": graph.score.name,
        "degree": graph.degree,
        "queries": QUERIES,
        "candidates": CANDIDATES,
        "distanceSteps": DISTANCE_STEPS,
        "basisSteps": BASIS_STEPS,
        "biasStep": BIAS_STEP,
        "photo": {
            "height": image.size(-2),
            "width": image.size(-1),
            "original": data_uri(image, format="JPEG", quality=JPEG_QUALITY),
            "restored": data_uri(run.x_hat, format="WEBP", lossless=True),
        },
        "bits": _packed_map(run.bits.flatten()),
        "bitsSide": LATENT_STRIDE,
        "stages": stages,
    }
    return Page(fill_page(Path(__file__).with_name("page.html"), content=content))


def _packed_graph(graph: Graph) -> dict[str, Any]:
    """Return a graph's quota and edges as the page reads them.

    Per edge a byte for the source, its place in the target's 16 x 16 candidates, and one for the distance of
    the two unit vectors, sqrt(2 - 2 similarity), in even steps: most similarities are near 1, and there they
    are told apart best. Edges are sorted by target, and `degree` tells where a node's end;
    places ascend from 0 in each node, and `advance` tells by how much.
    """
    _, target = graph.edge_index
    query = places(graph.queries, graph.zero_node)[target] % QUERIES**2
    row, column = (graph.offset[:, axis].long() for axis in (0, 1))
    place = (row + query // QUERIES) * CANDIDATES + column + query % QUERIES
    before = F.pad(place[:-1], (1, 0)).masked_fill(target != F.pad(target[:-1], (1, 0), value=-1), 0)
    least = min(float(graph.similarity.min()), 1 - 1e-6)
    distance = ((1 - graph.similarity) / (1 - least)).clamp(min=0).sqrt()
    return {
        "quota": _packed_map(graph.quota[:-1]),
        "degree": _packed(degrees(graph), "<u2"),
        "advance": _packed(place - before, "u1"),
        "distance": _packed((distance * DISTANCE_STEPS).round().clamp(max=DISTANCE_STEPS), "u1"),
        "least": least,
    }


@torch.no_grad()
def _packed_layer(attention: GraphAttention, x: Tensor, graph: Graph) -> dict[str, Any]:
    """Return what the page needs for a layer's attention: factors, biases, and all nodes' queries and keys.

    Those of a node, side by side, are a vector that principal components describe with few numbers, each
    rounded to a step. Before, queries and keys are scaled to their head's factor, and each node's vector to
    the same length, so that a step changes every logit by about as much; cosines do not change by that.

    Args:
        attention: The layer.
        x: Its input, `N x C`.
        graph: The graph it works on.
    """
    factor = attention.scale()
    parts = []
    shape = (len(x), attention.heads, -1)
    for part in (attention.query(x), attention.key_value(x).chunk(2, dim=1)[0]):
        part = part.reshape(shape)
        length = part.square().sum(dim=2).mean(dim=0).sqrt().clamp(min=1e-12)
        parts.append((part * (factor.sqrt() / length)[:, None]).flatten(1))
    vector = F.normalize(torch.cat(parts, dim=1).double(), dim=1) * (2 * float(factor.sum())) ** 0.5
    mean = vector.mean(dim=0)
    vector = vector - mean
    basis = torch.linalg.eigh(vector.T @ vector).eigenvectors.flip(1)
    value = (vector @ basis).T
    step = max(LOGIT_STEP, float(value.abs().max()) / 127)
    value = (value / step).round()
    told = value.count_nonzero(dim=1) > 0
    return {
        "factor": factor.tolist(),
        "bias": _packed((_bias(attention, graph) / BIAS_STEP).round(), "<i2"),
        "mean": mean.tolist(),
        "basis": _packed((basis.T[told] * BASIS_STEPS).round(), "<i2"),
        "step": step,
        "value": _packed(value[told], "i1"),
    }


def _bias(attention: GraphAttention, graph: Graph) -> Tensor:
    """Return the biases of rows and, in each, columns: of offsets -7..15, or of distances -15..15."""
    if isinstance(attention.position_bias, DistanceBias):
        return attention.position_bias(graph.stride)
    axis = torch.arange(1 - QUERIES, CANDIDATES)
    return attention.position_bias()[table_row(torch.cartesian_prod(axis, axis)).long()]


def _packed_map(values: Tensor) -> dict[str, Any]:
    """Return a map of positive numbers in 65535 steps up to the greatest."""
    most = max(float(values.max()), 1e-6)
    return {"most": most, "values": _packed((values / most * 65535).round(), "<u2")}


def _packed(values: Tensor, dtype: str) -> str:
    data = values.cpu().numpy().astype(np.dtype(dtype)).tobytes()
    ways = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_RLE)  # what is nearly noise deflates better without a search
    return base64.b64encode(min((_deflated(data, way) for way in ways), key=len)).decode()


def _deflated(data: bytes, strategy: int) -> bytes:
    deflate = zlib.compressobj(level=9, strategy=strategy)
    return deflate.compress(data) + deflate.flush()
