"""torch-cluster finds what index arithmetic finds."""

import pytest
import torch
import torch.nn.functional as F

from glic_pyg.graph import GraphBuilder, torch_cluster_neighbors
from glic_pyg.graph.build import batched_similarities
from glic_pyg.graph.candidates import global_mesh, local_windows
from glic_pyg.graph.selection import TopD

SIZES = [(1, 16, 16), (2, 32, 16), (2, 5, 7), (1, 1, 1), (1, 8, 25), (3, 9, 20), (1, 40, 17)]


@pytest.fixture
def calls(monkeypatch):
    """Count the calls of torch-cluster's two functions."""
    counts = {"grid_cluster": 0, "knn": 0}
    for name in counts:
        original = getattr(torch_cluster_neighbors, name)

        def counted(*args, name=name, original=original, **kwargs):
            counts[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(torch_cluster_neighbors, name, counted)
    return counts


@pytest.mark.parametrize("map_size", SIZES, ids=str)
def test_local_windows(map_size):
    expected = local_windows(map_size)
    found = torch_cluster_neighbors.local_windows(map_size)
    assert torch.equal(found.group, expected.group)
    assert torch.equal(found.slot, expected.slot)
    assert torch.equal(found.candidate, expected.candidate)


@pytest.mark.parametrize("find", [local_windows, global_mesh])
@pytest.mark.parametrize("k", [1, 20, 256])
def test_similarities_of_the_nearest(find, k):
    candidates = find((2, 9, 20))
    unit = F.normalize(torch.randn(361, 5, dtype=torch.double), dim=1)
    unit[-1] = 0
    every, found = (
        similarity[candidates.group, candidates.slot]
        for similarity in (
            batched_similarities(unit, candidates),
            torch_cluster_neighbors.similarities(unit, candidates, k=k),
        )
    )
    near = found.isfinite()
    assert (near.sum(dim=1) == k).all()
    torch.testing.assert_close(found[near], every[near])
    assert (found.masked_fill(~near, 2).amin(dim=1) >= every.masked_fill(near, -2).amax(dim=1) - 1e-12).all()


@pytest.mark.parametrize("size", [(2, 6, 16, 32), (1, 6, 7, 12), (3, 6, 9, 20)], ids=str)
def test_threshold_graphs_are_the_same(size, calls):
    x = torch.randn(size, dtype=torch.double)
    expected = GraphBuilder(degree=12)(x)
    assert not any(calls.values())
    found = GraphBuilder(degree=12, neighbors="torch_cluster")(x)
    assert all(calls.values())
    for graph, other in zip(found, expected, strict=True):
        assert torch.equal(graph.edge_index, other.edge_index)
        assert torch.equal(graph.offset, other.offset)
        torch.testing.assert_close(graph.similarity, other.similarity)


@pytest.mark.parametrize("size", [(2, 6, 16, 32), (1, 6, 7, 12), (3, 6, 9, 20)], ids=str)
def test_top_d_graphs_are_the_same_but_for_the_choice_among_zero_nodes(size):
    x = torch.randn(size, dtype=torch.double)
    expected = GraphBuilder(degree=12, selection=TopD())(x)
    found = GraphBuilder(degree=12, selection=TopD(), neighbors="torch_cluster")(x)
    for graph, other in zip(found, expected, strict=True):
        edges, other_edges = (
            torch.cat([g.edge_index, g.offset.T.long()]).T.contiguous() for g in (graph, other)
        )
        real, other_real = (e[e[:, 0] != graph.zero_node] for e in (edges, other_edges))
        assert torch.equal(real, other_real)
        # All zero nodes are one source and equally similar; which of them are taken does not matter.
        zero, other_zero = (e[e[:, 0] == graph.zero_node, 1] for e in (edges, other_edges))
        assert torch.equal(zero, other_zero)
