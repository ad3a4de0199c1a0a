import pytest
import torch

from glic_pyg.graph import GraphBuilder
from glic_pyg.inspection import NodeError, degrees, neighborhood, nodes_within, region_nodes
from glic_pyg.inspection.stages import Graphs


@pytest.fixture(scope="module", params=["local", "global"])
def graph(request):
    feature_map = torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(0))
    graphs = Graphs(*GraphBuilder(degree=32)(feature_map))
    return graphs.local if request.param == "local" else graphs.global_


def test_neighbors_and_degrees(graph):
    expected = {node: set() for node in range(graph.zero_node)}
    for edge, (source, target) in enumerate(graph.edge_index.T.tolist()):
        expected[target].add((source, *graph.offset[edge].tolist(), graph.similarity[edge].item()))
    assert degrees(graph).tolist() == [len(found) for found in expected.values()]
    for node in (0, 100, graph.zero_node - 1):
        found = neighborhood(graph, node)
        rows = zip(found.source.tolist(), *found.offset.T.tolist(), found.similarity.tolist(), strict=True)
        assert set(rows) == expected[node]
        assert found.num_zero == sum(source == graph.zero_node for source, *_ in expected[node])
        assert found.has_self


def test_a_node_of_zeros_keeps_all_candidates():
    feature_map = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    feature_map[..., 0, 0] = 0
    found = neighborhood(GraphBuilder(degree=32)(feature_map)[0], 0)
    assert found.source.numel() == 256
    assert found.num_zero == 256 - 12 * 12  # the window reaches 4 nodes beyond the corner
    assert torch.equal(found.is_zero, (found.offset - 4 < 0).any(dim=1))


def test_nodes_within_hops_are_those_of_a_walk_over_both_graphs():
    feature_map = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    graphs = Graphs(*GraphBuilder(degree=4)(feature_map))
    reached = [{5, 700}]
    for _ in range(2):
        found = [
            s for g in graphs for s, t in g.edge_index.T.tolist() if t in reached[-1] and s < g.zero_node
        ]
        reached.append(reached[-1] | set(found))
    assert len(reached[0]) < len(reached[1]) < len(reached[2]) < 1024
    for hops, expected in enumerate(reached):
        assert nodes_within(graphs, [5, 700], hops).tolist() == sorted(expected)


def test_regions():
    assert region_nodes((1, 4, 6), 1, 2, 2, 3).tolist() == [8, 9, 10, 14, 15, 16]
    for region in ((0, 0, 5, 1), (0, 4, 1, 3), (2, 2, 0, 1), (-1, 0, 2, 2)):
        with pytest.raises(NodeError, match=r"^Expected a region of a 4 x 6 map \(got "):
            region_nodes((1, 4, 6), *region)
