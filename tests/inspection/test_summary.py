import pytest
import torch

from glic_pyg.graph import GraphBuilder
from glic_pyg.inspection import STAGES, run_stages, summarize, summary_table


@pytest.fixture(scope="module")
def graphs():
    feature_map = torch.randn(1, 4, 24, 36, generator=torch.Generator().manual_seed(0))
    feature_map[..., 0, :3] = 0  # nodes that keep zero nodes
    return GraphBuilder(degree=12)(feature_map)


@pytest.mark.parametrize("scope", [0, 1], ids=["local", "global"])
def test_numbers_against_a_loop(graphs, scope):
    graph = graphs[scope]
    lengths, similarities, beyond, of_candidates, zero = [], [], [], [], 0
    degree = [0] * graph.zero_node
    for edge, (source, target) in enumerate(graph.edge_index.T.tolist()):
        degree[target] += 1
        zero += source == graph.zero_node
        if source in (target, graph.zero_node):
            continue
        (row, column), (to_row, to_column) = divmod(source, 36), divmod(target, 36)
        lengths.append(8 * ((row - to_row) ** 2 + (column - to_column) ** 2) ** 0.5)
        similarities.append(graph.similarity[edge].item())
        inside = all(
            place in range(8 * (to // 8) - 4, 8 * (to // 8) + 12)
            for place, to in ((row, to_row), (column, to_column))
        )
        beyond.append(not inside)
    for node in range(graph.zero_node):
        (near,) = graph.candidates[(graph.queries == node).any(dim=1)]
        near = near[(near < graph.zero_node) & (near != node)]
        of_candidates.append(torch.cosine_similarity(graph.x[near].double(), graph.x[node].double(), dim=1))
    found = summarize(graph, node_size=8)
    mean = {name: torch.tensor(values).double().mean().item() for name, values in (
        ("length", lengths), ("similarity", similarities), ("beyond_window", beyond), ("mean_degree", degree)
    )}  # fmt: skip
    mean["candidate_similarity"] = torch.cat(of_candidates).mean().item()
    mean["zero_share"] = zero / graph.num_edges
    for name, expected in mean.items():
        assert getattr(found, name) == pytest.approx(expected, rel=1e-5, abs=1e-6), name
    assert (found.nodes, found.edges) == (864, graph.num_edges)
    assert (found.median_degree, found.most_degree) == (sorted(degree)[431], max(degree))
    assert (found.beyond_window == 0) == (scope == 0)
    assert found.similarity > found.candidate_similarity
    assert found.zero_share > 0


def test_equal_features_keep_all_candidates_within_reach():
    graph = GraphBuilder()(torch.ones(1, 4, 8, 8))[0]
    found = summarize(graph, node_size=4)
    assert (found.edges, found.most_degree, found.similarity) == (64 * 64, 64, pytest.approx(1))
    assert found.candidate_similarity == pytest.approx(1)
    rows = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))
    assert found.length == pytest.approx(4 * torch.cdist(rows, rows).sum().item() / (64 * 63), rel=1e-6)


def test_a_graph_of_one_node():
    found = summarize(GraphBuilder()(torch.ones(1, 4, 1, 1))[1], node_size=4)
    assert found.nodes == 1
    assert found.length != found.length  # no edge to measure


def test_table_has_a_line_per_graph(tiny_model, photo):
    stages = {stage: run.pair for stage, run in run_stages(tiny_model, photo(70, 90)).items()}
    lines = summary_table(stages, node_sizes=dict.fromkeys(STAGES, 4))
    assert [line[:2] for line in lines[1:]] == [[s, g] for s in STAGES for g in ("local", "global")]
    assert lines[1][2:4] == ["1024", str(stages["g_a.1"].local.num_edges)]
    assert {len(line) for line in lines} == {12}
