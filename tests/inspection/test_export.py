import json

import networkx
import pytest
import torch
from torch_geometric.data import Data

from glic_pyg.config import ConfigError
from glic_pyg.graph import GraphBuilder
from glic_pyg.inspection import export_graphs
from glic_pyg.inspection.stages import Graphs

SIZE = (16, 20)


@pytest.fixture(scope="module")
def graphs():
    feature_map = torch.randn(1, 4, *SIZE, generator=torch.Generator().manual_seed(0))
    feature_map[..., 0, 0] = 0
    return Graphs(*GraphBuilder(degree=8)(feature_map))


def edges(graph):
    """Similarity by source and target, without zero nodes."""
    pairs = graph.edge_index.T.tolist()
    found = zip(pairs, graph.similarity.tolist(), strict=True)
    return {(source, target): value for (source, target), value in found if source < graph.zero_node}


def test_pyg(graphs, tmp_path):
    export_graphs(graphs, tmp_path / "a.pt", node_size=4)
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    assert list(loaded) == ["local", "global"]
    for plain, graph in zip(loaded.values(), graphs, strict=True):
        data = Data.from_dict(plain)
        assert data.validate()
        assert (data.num_nodes, data.map_size, data.node_size) == (320, SIZE, 4)
        assert type(data.edge_index) is torch.Tensor
        pairs = map(tuple, data.edge_index.T.tolist())
        assert dict(zip(pairs, data.similarity.tolist(), strict=True)) == edges(graph)
        for name in ("x", "pos", "score", "quota"):
            assert torch.equal(data[name], graph[name][:-1])
        source, target = graph.edge_index
        assert data.num_zero.tolist() == [int(((source == 320) & (target == i)).sum()) for i in range(320)]
    assert loaded["local"]["num_zero"][0] == 256 - 12 * 12


def test_json(graphs, tmp_path):
    export_graphs(graphs, tmp_path / "a.json", node_size=4)
    loaded = json.loads((tmp_path / "a.json").read_text())
    assert (loaded["map_size"], loaded["node_size"]) == ([*SIZE], 4)
    for scope, graph in zip(("local", "global"), graphs, strict=True):
        nodes, found = loaded[scope]["nodes"], loaded[scope]["edges"]
        assert [*zip(nodes["row"], nodes["column"], strict=True)] == [divmod(i, SIZE[1]) for i in range(320)]
        assert nodes["quota"] == graph.quota[:-1].tolist()
        pairs = zip(found["source"], found["target"], strict=True)
        assert dict(zip(pairs, found["similarity"], strict=True)) == pytest.approx(edges(graph), abs=1e-7)


def test_graphml(graphs, tmp_path):
    export_graphs(graphs, tmp_path / "a.graphml", node_size=4)
    loaded = networkx.read_graphml(tmp_path / "a.graphml", node_type=int, force_multigraph=True)
    assert loaded.is_directed()
    assert set(loaded.nodes) == set(range(320))
    node = loaded.nodes[57]
    assert (node["row"], node["column"]) == (2, 17)
    assert node["score"] == pytest.approx(graphs.local.score[57].item())
    assert node["global_quota"] == pytest.approx(graphs.global_.quota[57].item())
    for scope, graph in zip(("local", "global"), graphs, strict=True):
        found = {(s, t): d["similarity"] for s, t, d in loaded.edges(data=True) if d["scope"] == scope}
        assert found == pytest.approx(edges(graph), abs=1e-7)


def test_other_suffixes_are_refused(graphs, tmp_path):
    with pytest.raises(ConfigError, match=r"Expected a name that ends in .pt, .json, .graphml .*a.txt"):
        export_graphs(graphs, tmp_path / "a.txt", node_size=4)
    assert not list(tmp_path.iterdir())
