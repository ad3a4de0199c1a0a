"""A stage's graphs as files for other programs: PyG, JSON, GraphML."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch_geometric.data import Data

from glic_pyg.config import ConfigError
from glic_pyg.files import replacing
from glic_pyg.graph import Graph, Graphs
from glic_pyg.inspection.stages import SCOPES


def export_graphs(graphs: Graphs, path: str | Path, *, node_size: int) -> None:
    """Write both graphs of a stage to a file, its format by the name's suffix.

    - `.pt`: `plain_graph` of `local` and of `global`, as dicts so that reading them runs no code:
      `Data.from_dict(torch.load(path, weights_only=True)["local"])`.
    - `.json`: one object; each graph has lists of numbers per node and per edge.
    - `.graphml`: one directed graph, each edge with its `scope`.

    Args:
        graphs: The graphs.
        path: The file to make or replace.
        node_size: Pixels per side of a node.

    Raises:
        ConfigError: another suffix.
        OSError: a file that cannot be written.
    """
    writers: dict[str, Callable[[dict[str, Data], Path], None]] = {
        ".pt": _write_pt,
        ".json": _write_json,
        ".graphml": _write_graphml,
    }
    suffix = Path(path).suffix.lower()
    if suffix not in writers:
        raise ConfigError(f"Expected a name that ends in {', '.join(writers)} for the export (got {path})")
    plain = {scope: plain_graph(graph, node_size) for scope, graph in zip(SCOPES, graphs, strict=True)}
    with replacing(path) as aside:
        writers[suffix](plain, aside)


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


def _write_pt(graphs: dict[str, Data], path: Path) -> None:
    torch.save({scope: graph.to_dict() for scope, graph in graphs.items()}, path)


def _write_json(graphs: dict[str, Data], path: Path) -> None:
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
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, separators=(",", ":"))


def _write_graphml(graphs: dict[str, Data], path: Path) -> None:
    attributes = {"row": "int", "column": "int", "score": "double", "local_quota": "double"}
    attributes["global_quota"] = "double"
    with open(path, "w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n')
        file.write('<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n')
        for name, kind in attributes.items():
            file.write(f'<key id="{name}" for="node" attr.name="{name}" attr.type="{kind}"/>\n')
        for name, kind in (("scope", "string"), ("similarity", "double")):
            file.write(f'<key id="{name}" for="edge" attr.name="{name}" attr.type="{kind}"/>\n')
        file.write('<graph edgedefault="directed">\n')
        local = graphs["local"]
        columns = [*local.pos.T.tolist(), local.score.tolist(), *(g.quota.tolist() for g in graphs.values())]
        for node, values in enumerate(zip(*columns, strict=True)):
            data = "".join(f'<data key="{key}">{x}</data>' for key, x in zip(attributes, values, strict=True))
            file.write(f'<node id="{node}">{data}</node>\n')
        for scope, graph in graphs.items():
            for source, target, similarity in zip(*graph.edge_index.tolist(), _short(graph), strict=True):
                file.write(
                    f'<edge source="{source}" target="{target}"><data key="scope">{scope}</data>'
                    f'<data key="similarity">{similarity}</data></edge>\n'
                )
        file.write("</graph>\n</graphml>\n")


def _short(graph: Data) -> list[float]:
    """Return the similarities with as many digits as float32 has."""
    return [round(similarity, 7) for similarity in graph.similarity.tolist()]
