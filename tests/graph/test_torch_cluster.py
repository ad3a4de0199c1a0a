"""torch-cluster finds what index arithmetic finds."""

import pytest
import torch
import torch.nn.functional as F

from glic_pyg.graph import (
    KNN,
    AnchorMesh,
    Centered,
    Cosine,
    FeatureMapError,
    GlobalMesh,
    GraphBuilder,
    Threshold,
    TopD,
)
from glic_pyg.graph.candidates import global_mesh, local_windows

pytest.importorskip("torch_cluster")

from glic_pyg.graph import torch_cluster

TorchClusterCentered = torch_cluster.TorchClusterCentered
TorchClusterCosine = torch_cluster.TorchClusterCosine
TorchClusterWindows = torch_cluster.TorchClusterWindows

SIZES = [(1, 16, 16), (2, 32, 16), (2, 5, 7), (1, 1, 1), (1, 8, 25), (3, 9, 20), (1, 40, 17)]


@pytest.fixture
def calls(monkeypatch):
    """Count the calls of torch-cluster's two functions."""
    counts = {"grid_cluster": 0, "knn": 0}
    for name in counts:
        original = getattr(torch_cluster, name)

        def counted(*args, name=name, original=original, **kwargs):
            counts[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(torch_cluster, name, counted)
    return counts


@pytest.mark.parametrize("map_size", SIZES, ids=str)
def test_local_windows(map_size):
    expected = local_windows(map_size)
    found = torch_cluster.local_windows(map_size)
    assert torch.equal(found.group, expected.group)
    assert torch.equal(found.slot, expected.slot)
    assert torch.equal(found.candidate, expected.candidate)
    assert torch.equal(found.shift, expected.shift)
    assert found.stride == expected.stride


@pytest.mark.parametrize("find", [local_windows, global_mesh])
@pytest.mark.parametrize("k", [1, 20, 256])
def test_similarities_of_the_nearest(find, k):
    candidates = find((2, 9, 20))
    unit = F.normalize(torch.randn(361, 5, dtype=torch.double), dim=1)
    unit[-1] = 0
    every, found = (
        similarity[candidates.group, candidates.slot]
        for similarity in (
            Cosine()(unit, candidates, k=256),
            TorchClusterCosine()(unit, candidates, k=k),
        )
    )
    near = found.isfinite()
    assert (near.sum(dim=1) == k).all()
    torch.testing.assert_close(found[near], every[near])
    assert (found.masked_fill(~near, 2).amin(dim=1) >= every.masked_fill(near, -2).amax(dim=1) - 1e-12).all()


def by_torch_cluster(*, similarity=TorchClusterCosine, selection=Threshold):
    return GraphBuilder(
        degree=12,
        candidates=[TorchClusterWindows(), GlobalMesh()],
        similarity=similarity(),
        selection=selection(),
    )


@pytest.mark.parametrize(
    ("similarity", "plain"), [(TorchClusterCosine, Cosine), (TorchClusterCentered, Centered)]
)
@pytest.mark.parametrize("size", [(2, 6, 16, 32), (1, 6, 7, 12), (3, 6, 9, 20)], ids=str)
def test_threshold_graphs_are_the_same(size, similarity, plain, calls):
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)) + 1
    expected = GraphBuilder(degree=12, similarity=plain())(x)
    assert not any(calls.values())
    found = by_torch_cluster(similarity=similarity)(x)
    assert all(calls.values())
    for graph, other in zip(found, expected, strict=True):
        assert torch.equal(graph.edge_index, other.edge_index)
        assert torch.equal(graph.offset, other.offset)
        torch.testing.assert_close(graph.similarity, other.similarity)


@pytest.mark.parametrize("size", [(2, 6, 16, 32), (1, 6, 7, 12), (3, 6, 9, 20)], ids=str)
def test_top_d_graphs_are_the_same_but_for_the_choice_among_zero_nodes(size):
    x = torch.randn(size, dtype=torch.double)
    expected = GraphBuilder(degree=12, selection=TopD())(x)
    found = by_torch_cluster(selection=TopD)(x)
    for graph, other in zip(found, expected, strict=True):
        edges, other_edges = (
            torch.cat([g.edge_index, g.offset.T.long()]).T.contiguous() for g in (graph, other)
        )
        real, other_real = (e[e[:, 0] != graph.zero_node] for e in (edges, other_edges))
        assert torch.equal(real, other_real)
        # All zero nodes are one source and equally similar; which of them are taken does not matter.
        zero, other_zero = (e[e[:, 0] == graph.zero_node, 1] for e in (edges, other_edges))
        assert torch.equal(zero, other_zero)


def test_nearest_anchors_in_feature_space():
    """Global candidates, of which each node keeps its nearest."""
    x, parts = torch.randn(2, 6, 32, 48), {"candidates": [AnchorMesh()], "selection": KNN(k=9)}
    (expected,) = GraphBuilder(**parts)(x)
    (found,) = GraphBuilder(**parts, similarity=TorchClusterCosine())(x)
    assert torch.equal(found.edge_index, expected.edge_index)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_maps_that_are_not_finite_are_refused(value):
    x = torch.randn(2, 6, 9, 12)
    x[1, 3, 4, 5] = value
    with pytest.raises(FeatureMapError, match=r"^Expected a feature map of finite numbers"):
        by_torch_cluster()(x)
