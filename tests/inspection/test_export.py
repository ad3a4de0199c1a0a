import json

import networkx
import pytest
import torch
from torch_geometric.data import Data

from glic_pyg.config import ConfigError
from glic_pyg.graph import GraphBuilder
from glic_pyg.inspection import export_graphs, region_nodes
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


@pytest.mark.parametrize("suffix", [".pt", ".json", ".graphml"])
def test_a_part_has_its_nodes_and_the_edges_between_them(graphs, tmp_path, suffix):
    nodes = region_nodes((1, *SIZE), 2, 3, 4, 5)
    path = tmp_path / f"a{suffix}"
    export_graphs(graphs, path, node_size=4, nodes=nodes)
    inside = {SIZE[1] * row + column for row in range(2, 6) for column in range(3, 8)}
    for scope, graph in zip(("local", "global"), graphs, strict=True):
        expected = {pair: s for pair, s in edges(graph).items() if set(pair) <= inside}
        if suffix == ".pt":
            data = Data.from_dict(torch.load(path, weights_only=True)[scope])
            assert data.validate()
            assert (data.num_nodes, data.map_size) == (20, SIZE)
            assert torch.equal(data.x, graph.x[nodes])
            places, pairs, similarity = (
                data.pos.tolist(),
                data.edge_index.T.tolist(),
                data.similarity.tolist(),
            )
        elif suffix == ".json":
            part = json.loads(path.read_text())[scope]
            places = list(zip(part["nodes"]["row"], part["nodes"]["column"], strict=True))
            pairs = zip(part["edges"]["source"], part["edges"]["target"], strict=True)
            similarity = part["edges"]["similarity"]
        else:
            part = networkx.read_graphml(path, node_type=int, force_multigraph=True)
            places = [(part.nodes[i]["row"], part.nodes[i]["column"]) for i in range(20)]
            told = [(s, t, d["similarity"]) for s, t, d in part.edges(data=True) if d["scope"] == scope]
            pairs, similarity = [pair for *pair, _ in told], [value for *_, value in told]
        ids = [SIZE[1] * row + column for row, column in places]
        assert set(ids) == inside
        found = {(ids[s], ids[t]): value for (s, t), value in zip(pairs, similarity, strict=True)}
        assert found == pytest.approx(expected, abs=1e-7)


def test_other_suffixes_are_refused(graphs, tmp_path):
    with pytest.raises(ConfigError, match=r"Expected a name that ends in .pt, .json, .graphml .*a.txt"):
        export_graphs(graphs, tmp_path / "a.txt", node_size=4)
    assert not list(tmp_path.iterdir())
