"""PyG layers as aggregation, against the layers themselves on dense or hand-made graphs."""

from functools import partial

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch_geometric.nn import MessagePassing

from glic_pyg.graph import GraphBuilder
from glic_pyg.nn.layer_aggregation import LayerAggregation, edge_attributes

CHANNELS = 12
LAYERS = {
    "GATv2Conv": partial(pyg.GATv2Conv, heads=4),
    "TransformerConv": partial(pyg.TransformerConv, heads=3),
    "GENConv": partial(pyg.GENConv, norm=None),
    "SAGEConv": pyg.SAGEConv,
    "EdgeConv": pyg.EdgeConv,
    "GINEConv": partial(pyg.GINEConv, train_eps=True),
    "ResGatedGraphConv": pyg.ResGatedGraphConv,
}
WITHOUT_EDGES = ("SAGEConv", "EdgeConv")


def graph_of(*size, degree=6):
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    return GraphBuilder(degree=degree)(x)[0]


def by_loop(aggregation, x, graph):
    """One call of the layer per target, on the graph of its own edges."""
    x = torch.cat([x, torch.zeros(1, x.size(1))])
    source, target = graph.edge_index
    attributes = edge_attributes(graph)
    rows = []
    for node in range(len(x) - 1):
        mine = target == node
        edge_index = torch.stack([source[mine], target[mine]])
        edges = (attributes[mine],) if aggregation.takes_edges else ()
        rows.append(aggregation.linear(aggregation.layer(x, edge_index, *edges))[node])
    return torch.stack(rows)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_gives_every_node_what_its_own_edges_give(name):
    torch.manual_seed(0)
    aggregation = LayerAggregation(LAYERS[name], channels=CHANNELS).eval()
    assert aggregation.takes_edges == (name not in WITHOUT_EDGES)
    graph = graph_of(1, CHANNELS, 5, 6, degree=60)
    assert (graph.edge_index[0] == graph.zero_node).any()  # zero nodes
    x = torch.randn(30, CHANNELS)
    found = aggregation(x, graph)
    assert found.shape == x.shape
    torch.testing.assert_close(found, by_loop(aggregation, x, graph), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_pictures_of_a_batch_are_independent(name):
    torch.manual_seed(0)
    aggregation = LayerAggregation(LAYERS[name], channels=CHANNELS).eval()
    maps = torch.randn(2, CHANNELS, 9, 10)
    build = GraphBuilder(degree=6)
    x = torch.randn(180, CHANNELS)
    together = aggregation(x, build(maps)[0])
    for i in range(2):
        alone = aggregation(x[90 * i : 90 * (i + 1)], build(maps[i : i + 1])[0])
        torch.testing.assert_close(together[90 * i : 90 * (i + 1)], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_everything_learns(name):
    torch.manual_seed(0)
    aggregation = LayerAggregation(LAYERS[name], channels=CHANNELS)
    x = torch.randn(63, CHANNELS, requires_grad=True)
    aggregation(x, graph_of(1, CHANNELS, 7, 9)).square().sum().backward()
    for label, parameter in [("x", x), *aggregation.named_parameters()]:
        assert parameter.grad is not None, label
        assert parameter.grad.isfinite().all(), label
    assert x.grad.abs().sum(dim=1).min() > 0


def test_mean_of_neighbours_in_closed_form():
    torch.manual_seed(0)
    aggregation = LayerAggregation(partial(pyg.SAGEConv, root_weight=False, bias=False), channels=CHANNELS)
    graph = graph_of(1, CHANNELS, 9, 10)
    x = torch.randn(90, CHANNELS)
    source, target = graph.edge_index
    adjacency = torch.zeros(90, 91).index_put_((target, source), torch.tensor(1.0), accumulate=True)
    expected = adjacency[:, :-1] @ x / adjacency.sum(dim=1, keepdim=True)
    torch.testing.assert_close(aggregation(x, graph), expected @ aggregation.layer.lin_l.weight.T)


def test_edge_attributes_are_distances_in_windows_and_similarity():
    graph = graph_of(1, CHANNELS, 17, 20)
    source, target = graph.edge_index
    inside = source < graph.zero_node
    found = edge_attributes(graph)
    distance = (graph.pos[source[inside]] - graph.pos[target[inside]]) / 8
    torch.testing.assert_close(found[inside, :2], distance)
    assert torch.equal(found[:, 2], graph.similarity)


@pytest.mark.parametrize(
    ("layer", "width"),
    [
        (partial(pyg.GATv2Conv, heads=4), 12),
        (partial(pyg.GATv2Conv, heads=5), 15),
        (partial(pyg.GATv2Conv, heads=4, concat=False), 12),
        (partial(pyg.SAGEConv, out_channels=7), 7),
    ],
)
def test_widths_are_fitted(layer, width):
    aggregation = LayerAggregation(layer, channels=CHANNELS)
    if width == CHANNELS:
        assert isinstance(aggregation.linear, nn.Identity)
    else:
        assert aggregation.linear.weight.shape == (CHANNELS, width)
    assert aggregation(torch.randn(20, CHANNELS), graph_of(1, CHANNELS, 4, 5)).shape == (20, CHANNELS)


def test_what_a_layer_is_given():
    attention = LayerAggregation(pyg.GATv2Conv, channels=CHANNELS).layer
    assert (attention.edge_dim, attention.add_self_loops) == (3, False)
    assert LayerAggregation(pyg.EdgeConv, channels=CHANNELS).layer.nn[0].in_features == 2 * CHANNELS
    assert LayerAggregation(pyg.GINEConv, channels=CHANNELS).layer.nn[0].in_features == CHANNELS
    without = LayerAggregation(partial(pyg.GATv2Conv, edge_dim=None), channels=CHANNELS)
    assert not without.takes_edges
    assert without.layer.lin_edge is None


class Neighbours(MessagePassing):
    """A user's layer: channels and edge attributes by name."""

    def __init__(self, *, channels):
        super().__init__(aggr="sum")
        self.weight = nn.Linear(channels, channels)

    def forward(self, x, edge_index, edge_attr):
        return self.propagate(edge_index, x=self.weight(x), edge_attr=edge_attr)

    def message(self, x_j, edge_attr):
        return edge_attr[:, 2:] * x_j


def test_a_layer_of_the_user():
    aggregation = LayerAggregation(Neighbours, channels=CHANNELS)
    graph = graph_of(1, CHANNELS, 5, 6)
    x = torch.randn(30, CHANNELS)
    torch.testing.assert_close(aggregation(x, graph), by_loop(aggregation, x, graph), rtol=1e-4, atol=1e-5)


class Pooled(Neighbours):
    def forward(self, x, edge_index, edge_attr):
        return super().forward(x, edge_index, edge_attr).sum(dim=0)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Linear, r"^Expected a class derived from MessagePassing \(got <class 'torch\.nn.*Linear'>\)$"),
        (
            partial(pyg.SAGEConv, bogus=3),
            r"^Expected settings that the layer takes \(got SAGEConv: .*'bogus'\)$",
        ),
        (pyg.NNConv, r"^Expected a layer that takes nodes, edges and edge attributes \(got NNConv: mat1"),
        (pyg.PointNetConv, r"^Expected a layer that takes nodes and edges \(got PointNetConv: .*missing 1"),
        (Pooled, r"^Expected a layer that returns features of every node \(got Pooled: \(12,\) of 4\)$"),
        (
            partial(pyg.SAGEConv, flow="target_to_source"),
            r"^Expected a layer from sources to targets \(got SAGEConv, target_to_source\)$",
        ),
    ],
)
def test_a_layer_that_cannot_work_says_why_in_one_line(layer, message):
    with pytest.raises(ValueError, match=message) as caught:
        LayerAggregation(layer, channels=CHANNELS)
    assert "\n" not in str(caught.value)


def test_trying_a_layer_leaves_the_random_state_and_its_mode_alone():
    torch.manual_seed(0)
    pyg.SAGEConv(CHANNELS, CHANNELS)
    expected = torch.rand(3)
    torch.manual_seed(0)
    aggregation = LayerAggregation(pyg.SAGEConv, channels=CHANNELS)
    assert torch.equal(torch.rand(3), expected)
    assert aggregation.layer.training
