"""A stage's graphs as files for other programs: PyG, JSON, GraphML."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import subgraph

from glic_pyg.config import ConfigError
from glic_pyg.files import write_file
from glic_pyg.graph import Graph
from glic_pyg.inspection.stages import SCOPES, Graphs
from glic_pyg.progress import tell


def export_graphs(graphs: Graphs, path: str | Path, *, node_size: int, nodes: Tensor | None = None) -> None:
    """Write both graphs of a stage, or a part of them, to a file, its format by the name's suffix.

    - `.pt`: `plain_graph` of `local` and of `global`, as dicts so that reading them runs no code:
      `Data.from_dict(torch.load(path, weights_only=True)["local"])`.
    - `.json`: one object; each graph has lists of numbers per node and per edge.
    - `.graphml`: one directed graph, each edge with its `scope`.

    Args:
        graphs: The graphs.
        path: The file to make or replace.
        node_size: Pixels per side of a node.
        nodes: Ids, ascending, of those to write, with the edges between them (see `region_nodes` and
            `nodes_within`), for programs that would not open a whole photo's; by default all.

    Raises:
        ConfigError: another suffix.
        OSError: a file that cannot be written.
    """
    writers: dict[str, Callable[[dict[str, Data]], bytes | str]] = {
        ".pt": _pt,
        ".json": _json,
        ".graphml": _graphml,
    }
    suffix = Path(path).suffix.lower()
    if suffix not in writers:
        raise ConfigError(f"Expected a name that ends in {', '.join(writers)} for the export (got {path})")
    tell("writing the graphs")
    plain = {scope: plain_graph(graph, node_size) for scope, graph in zip(SCOPES, graphs, strict=True)}
    if nodes is not None:
        plain = {scope: _part(graph, nodes) for scope, graph in plain.items()}
    write_file(path, writers[suffix](plain))


def _part(graph: Data, nodes: Tensor) -> Data:
    """Return some nodes of a plain graph, numbered anew, with the edges between them; `pos` stays."""
    edge_index, similarity = subgraph(
        nodes, graph.edge_index, graph.similarity, relabel_nodes=True, num_nodes=graph.num_nodes
    )
    kept = {name: graph[name][nodes] for name in ("x", "pos", "score", "quota", "num_zero")}
    sizes = {"map_size": graph.map_size, "node_size": graph.node_size, "num_nodes": len(nodes)}
    return Data(edge_index=edge_index, similarity=similarity, **kept, **sizes)


def plain_graph(graph: Graph, node_size: int) -> Data:
    """Return a graph with real nodes only, as every program understands it.

    Args:
        graph: As `GraphBuilder` made it.
        node_size: Pixels per side of a node.

    Returns:
        Per node `x`, `pos` (row, column), `score`, `quota` and `num_zero`, its neighbours that were the zero
        node; `edge_index`, candidate -> query, an ordinary tensor; per edge `similarity`; and `map_size`,
        (rows, columns), and `node_size`.
    """
    zero = graph.zero_node
    source, target = graph.edge_index
    real = source < zero
    return Data(
        x=graph.x[:zero].clone(),
        pos=graph.pos[:zero].clone(),
        score=graph.score[:zero].clone(),
        quota=graph.quota[:zero].clone(),
        num_zero=target[~real].bincount(minlength=zero),
        edge_index=torch.stack([source[real], target[real]]),
        similarity=graph.similarity[real],
        map_size=tuple(graph.map_size[1:]),
        node_size=node_size,
        num_nodes=zero,
    )


def _pt(graphs: dict[str, Data]) -> bytes:
    file = io.BytesIO()
    torch.save({scope: graph.to_dict() for scope, graph in graphs.items()}, file)
    return file.getvalue()


def _json(graphs: dict[str, Data]) -> str:
    first = graphs["local"]
    content: dict[str, object] = {"map_size": first.map_size, "node_size": first.node_size}
    for scope, graph in graphs.items():
        row, column = graph.pos.T.tolist()
        source, target = graph.edge_index.tolist()
        content[scope] = {
            "nodes": {
                "row": row,
                "column": column,
                "score": graph.score.tolist(),
                "quota": graph.quota.tolist(),
                "num_zero": graph.num_zero.tolist(),
            },
            "edges": {"source": source, "target": target, "similarity": _short(graph)},
        }
    return json.dumps(content, separators=(",", ":"))


def _graphml(graphs: dict[str, Data]) -> str:
    attributes = {"row": "int", "column": "int", "score": "double", "local_quota": "double"}
    attributes["global_quota"] = "double"
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">',
        *(
            f'<key id="{name}" for="node" attr.name="{name}" attr.type="{kind}"/>'
            for name, kind in attributes.items()
        ),
        '<key id="scope" for="edge" attr.name="scope" attr.type="string"/>',
        '<key id="similarity" for="edge" attr.name="similarity" attr.type="double"/>',
        '<graph edgedefault="directed">',
    ]
    local = graphs["local"]
    columns = [*local.pos.T.tolist(), local.score.tolist(), *(g.quota.tolist() for g in graphs.values())]
    for node, values in enumerate(zip(*columns, strict=True)):
        data = "".join(f'<data key="{key}">{x}</data>' for key, x in zip(attributes, values, strict=True))
        lines.append(f'<node id="{node}">{data}</node>')
    for scope, graph in graphs.items():
        for source, target, similarity in zip(*graph.edge_index.tolist(), _short(graph), strict=True):
            lines.append(
                f'<edge source="{source}" target="{target}"><data key="scope">{scope}</data>'
                f'<data key="similarity">{similarity}</data></edge>'
            )
    return "\n".join([*lines, "</graph>", "</graphml>", ""])


def _short(graph: Data) -> list[float]:
    """Return the similarities with as many digits as float32 has."""
    return [round(similarity, 7) for similarity in graph.similarity.tolist()]
