"""Similarities against sums over all nodes and candidates."""

import math

import pytest
import torch
import torch.nn.functional as F

from glic_pyg.graph import Candidates, Centered, Cosine, GraphBuilder
from glic_pyg.graph.candidates import global_mesh, local_windows


@pytest.mark.parametrize("find", [local_windows, global_mesh])
def test_the_cosine_is_that_of_each_node_and_candidate(find):
    candidates = find((2, 9, 20))
    unit = F.normalize(torch.randn(361, 5, dtype=torch.double), dim=1)
    unit[-1] = 0
    each = torch.einsum("nc,nkc->nk", unit[:-1], unit[candidates.candidate[candidates.group]])
    found = Cosine()(unit, candidates, k=256)
    assert found.shape == (candidates.candidate.size(0), 64, 256)
    torch.testing.assert_close(found[candidates.group, candidates.slot], each)


def test_products_on_a_gpu_are_few_and_large(monkeypatch):
    """As many groups at a time as 256 MB hold, on a device that stands for one."""
    launches = []
    monkeypatch.setattr(torch, "bmm", lambda x, y, *, out: launches.append((x.shape, y.shape)))
    candidates = local_windows((1, 320, 320))
    found = {}
    for device in ("cpu", "meta"):
        there = Candidates(*(x.to(device) for x in (candidates.candidate, candidates.group, candidates.slot)))
        there.__dict__["node"] = candidates.node.to(device)
        Cosine()(torch.empty(320 * 320 + 1, 192, device=device), there, k=256)
        found[device] = [*launches]
        launches.clear()
    assert [sum(x[0] for x, _ in shapes) for shapes in found.values()] == [1600, 1600]
    assert {x[0] for x, _ in found["cpu"]} == {16}
    assert [x[0] for x, _ in found["meta"]] == [1092, 508]
    largest, other = found["meta"][0]
    assert 0.99 * 2**28 < 4 * (math.prod(largest) + math.prod(other)) <= 2**28


def test_centred_similarity_is_the_cosine_of_differences_from_the_mean():
    x = torch.randn(2, 6, 17, 24, generator=torch.Generator().manual_seed(0)) + 3
    for graph in GraphBuilder(degree=16, similarity=Centered())(x):
        of_nodes = (x - x.mean((2, 3), keepdim=True)).permute(0, 2, 3, 1).reshape(-1, 6)
        source, target = graph.edge_index[:, graph.edge_index[0] != graph.zero_node]
        expected = F.cosine_similarity(of_nodes[source], of_nodes[target])
        found = graph.similarity[graph.edge_index[0] != graph.zero_node]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
