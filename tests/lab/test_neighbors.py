"""What is put in place of the chosen neighbours."""

import pytest
import torch
from neighbors import PREFERENCES, prefer

from glic_pyg.graph import GraphBuilder


@pytest.mark.parametrize("name", PREFERENCES)
def test_as_many_neighbours_of_another_kind(name):
    torch.manual_seed(0)
    builder, x = GraphBuilder(degree=12), torch.randn(1, 8, 24, 40)
    chosen = builder(x)
    prefer(builder, PREFERENCES[name])
    for before, after in zip(chosen, builder(x), strict=True):
        nodes = before.zero_node
        assert torch.equal(*(graph.edge_index[1].bincount(minlength=nodes) for graph in (before, after)))
        assert (after.edge_index[0] == after.edge_index[1]).sum() == nodes
        assert after.similarity.mean() < before.similarity.mean() - 0.1
        within = [
            (graph.pos[graph.edge_index[0]] - graph.pos[graph.edge_index[1]]).float().norm(dim=1).mean()
            for graph in (before, after)
        ]
        assert (within[1] < within[0] - 0.5) == (name == "nearest")


def test_none_in_one_of_the_graphs():
    torch.manual_seed(0)
    builder, x = GraphBuilder(degree=12), torch.randn(1, 8, 24, 40)
    chosen = builder(x)
    prefer(builder, None, [1])
    for _ in range(2):
        local, global_ = builder(x)
        assert torch.equal(local.edge_index, chosen[0].edge_index)
        assert torch.equal(*global_.edge_index)
        assert torch.equal(global_.edge_index[0], torch.arange(24 * 40))
