import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GATv2Conv, GCNConv, SAGEConv, SimpleConv, global_mean_pool
from torch_geometric.transforms import (
    AddRemainingSelfLoops,
    LargestConnectedComponents,
    ToUndirected,
)
from torch_geometric.utils import to_networkx

from glic_pyg.graph import FeatureMapError, Graph, GraphBuilder
from glic_pyg.graph.candidates import (
    AnchorMesh,
    GlobalMesh,
    LocalWindows,
    global_mesh,
    local_windows,
)
from glic_pyg.graph.complexity import Score, Sobel, Uniform, damp
from glic_pyg.graph.quota import GroupQuota, MapQuota
from glic_pyg.graph.selection import KNN, Threshold, TopD
from glic_pyg.graph.similarity import Centered, Cosine
from glic_pyg.nn.learned_score import LearnedScore

SIZES = [(2, 6, 16, 32), (1, 6, 7, 12), (2, 6, 17, 24)]


def feature_map(*size):
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


def columns(graph):
    """Edges as rows of source (-1: the zero node), target, row offset, column offset."""
    source, target = graph.edge_index
    source = torch.where(source == graph.zero_node, -1, source)
    return torch.cat([source[:, None], target[:, None], graph.offset.long()], dim=1)


def tensors(graph):
    return [value for value in graph.to_dict().values() if isinstance(value, torch.Tensor)]


def differing(edges, other):
    """Number of edges that only one of the two sets has."""
    both, counts = torch.cat([edges, other]).unique(dim=0, return_counts=True)
    assert len(both) >= max(len(edges), len(other)), "Expected no edge twice"
    return (counts == 1).sum().item()


@pytest.mark.parametrize("kind", [0, 1], ids=["local", "global"])
def test_golden_edges(golden, kind):
    data = golden("gfa_small.npz")
    expected = data[["local_edges", "global_edges"][kind]].T.long()
    found = columns(GraphBuilder()(data["x"])[kind])
    # Node 0, which is all zero, is stored without edges; it keeps all its candidates.
    assert not (expected[:, 1] == 0).any()
    assert (found[:, 1] == 0).sum() == 256
    assert differing(found[found[:, 1] != 0], expected) <= len(expected) / 10_000  # ties


@pytest.mark.parametrize("selection", [Threshold(), TopD()])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_edges_are_sorted_by_target_and_reach_from_the_zero_node(size, selection):
    x = feature_map(*size)
    x[0, :, 0, 0] = 0
    num_nodes = size[0] * size[2] * size[3]
    graphs = GraphBuilder(degree=12, selection=selection)(x)
    assert (graphs[0].edge_index[0] == num_nodes).any()
    for graph in graphs:
        source, target = graph.edge_index
        assert type(graph.edge_index) is torch.Tensor
        assert graph.edge_index.dtype == torch.int64
        assert graph.edge_index.is_contiguous()
        assert (target.diff() >= 0).all()
        assert target.max() < num_nodes
        assert source.max() <= num_nodes == graph.zero_node
        assert graph.num_nodes == num_nodes + 1
        assert graph.offset.dtype == torch.int8
        assert graph.offset.shape == (graph.num_edges, 2)
        assert graph.similarity.shape == (graph.num_edges,)
        assert graph.score.shape == graph.quota.shape == (num_nodes + 1,)
        assert graph.map_size == (size[0], *size[2:])
        assert (graph.edge_index[1].bincount(minlength=num_nodes) > 0).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_edge_attributes_belong_to_their_edges(size):
    x = feature_map(*size)
    graphs = GraphBuilder(degree=12)(x)
    for graph in graphs:
        source, target = graph.edge_index
        cosine = F.cosine_similarity(graph.x[source], graph.x[target])
        torch.testing.assert_close(graph.similarity, cosine)
        inside = source < graph.zero_node
        assert (graph.batch[source[inside]] == graph.batch[target[inside]]).all()
    # In a local graph an offset is a distance: the windows' grids begin 4 rows and columns apart.
    graph = graphs[0]
    source, target = graph.edge_index
    inside = source < graph.zero_node
    distance = graph.pos[source[inside]] - graph.pos[target[inside]]
    assert torch.equal(graph.offset[inside].long(), distance + 4)


def test_score_and_quota_are_the_damped_score_and_its_share():
    x = feature_map(2, 6, 17, 24)
    graphs = GraphBuilder(degree=12)(x)
    score = damp(Sobel()(x)).flatten()
    for graph, find in zip(graphs, (local_windows, global_mesh), strict=True):
        torch.testing.assert_close(graph.score[:-1], score)
        quota = GroupQuota()(score, find((2, 17, 24)), graph.batch[:-1], degree=12)
        torch.testing.assert_close(graph.quota[:-1], quota)


def test_degrees_follow_the_quota():
    x = feature_map(1, 6, 32, 32)
    x[..., 16:] *= 20  # the right half is busier
    for graph in GraphBuilder(degree=32)(x):
        degree = graph.edge_index[1].bincount(minlength=graph.num_nodes).double()
        assert (degree - graph.quota).abs().mean() < 8
        exact = GraphBuilder(degree=32, selection=TopD())(x)
        for same in exact:
            degree = same.edge_index[1].bincount(minlength=same.num_nodes)
            assert torch.equal(degree, same.quota.round().long())


def test_self_edges_are_kept():
    for graph in GraphBuilder(degree=12)(feature_map(1, 6, 16, 16)):
        source, target = graph.edge_index
        assert (source == target).sum() == graph.zero_node


def test_no_gradient_and_no_change_of_the_input():
    x = feature_map(1, 6, 16, 16).requires_grad_()
    before = x.detach().clone()
    for graph in GraphBuilder()(x):
        assert all(value.grad_fn is None for value in tensors(graph))
    assert torch.equal(x, before)


def test_graphs_built_in_inference_mode_leave_nothing_behind_that_hinders_training():
    size = (1, 2, 8, 40)  # of no other test, so that nothing is kept from before
    with torch.inference_mode():
        GraphBuilder()(torch.randn(size))
    for graph in GraphBuilder()(torch.randn(size)):
        assert not any(value.is_inference() for value in tensors(graph))


def test_an_all_zero_map_keeps_every_candidate():
    for graph in GraphBuilder()(torch.zeros(1, 3, 16, 16)):
        assert graph.num_edges == 256 * 256


@pytest.mark.parametrize("selection", [Threshold(), TopD()])
@pytest.mark.parametrize("size", [(3, 6, 16, 16), (2, 6, 9, 20)], ids=str)
def test_pictures_of_a_batch_are_independent(size, selection):
    x = feature_map(*size)
    build = GraphBuilder(degree=12, selection=selection)
    nodes = size[2] * size[3]
    for kind in (0, 1):
        alone = []
        for i in range(size[0]):
            edges = columns(build(x[i : i + 1])[kind])
            alone.append(torch.where(edges[:, :2] >= 0, edges[:, :2] + i * nodes, -1))
        assert torch.equal(columns(build(x)[kind])[:, :2], torch.cat(alone))


def test_a_graph_for_every_candidate_set():
    x = feature_map(2, 6, 17, 24)
    both = GraphBuilder(degree=12)(x)
    assert type(both) is tuple
    (alone,) = GraphBuilder(degree=12, candidates=[GlobalMesh()])(x)
    assert torch.equal(columns(alone), columns(both[1]))
    mixed = GraphBuilder(degree=12, candidates=[AnchorMesh(), LocalWindows(), GlobalMesh()])(x)
    assert len(mixed) == 3
    assert torch.equal(columns(mixed[1]), columns(both[0]))
    with pytest.raises(ValueError, match=r"^Expected at least one candidate set \(got none\)$"):
        GraphBuilder(candidates=[])


def test_nearest_anchors_in_feature_space():
    """k nearest neighbours among strided anchors, against a sort of all distances."""
    x = feature_map(2, 6, 32, 48)
    builder = GraphBuilder(candidates=[AnchorMesh()], selection=KNN(k=9))
    (graph,) = builder(x)
    anchors = x[:, :, 1::2, 1::3].flatten(2).transpose(1, 2)
    ids = torch.arange(32 * 48).view(32, 48)[1::2, 1::3].flatten()
    for b in range(2):
        nodes = x[b].flatten(1).T
        distance = torch.cdist(F.normalize(nodes, dim=1), F.normalize(anchors[b], dim=1))
        expected = (b * 32 * 48 + ids[distance.topk(9, largest=False).indices]).sort(dim=1).values
        source = graph.edge_index[0].view(-1, 9)[b * 32 * 48 : (b + 1) * 32 * 48]
        assert torch.equal(source.sort(dim=1).values, expected)


def test_the_map_quota_moves_edges_to_where_it_is_busy():
    x = feature_map(1, 6, 32, 32)
    x[..., 16:] *= 20
    degree = []
    for quota in (GroupQuota(), MapQuota()):
        (graph,) = GraphBuilder(degree=20, candidates=[LocalWindows()], quota=quota, selection=TopD())(x)
        busy = graph.pos[:-1, 1] >= 16
        counts = graph.edge_index[1].bincount().double()
        degree.append(counts[busy].mean() / counts[~busy].mean())
    assert degree[0] < 1.1
    assert degree[1] > 1.5


def test_without_a_score_all_nodes_have_the_same_degree():
    for graph in GraphBuilder(degree=20, score=Uniform(), selection=TopD())(feature_map(1, 6, 16, 32)):
        assert (graph.edge_index[1].bincount() == 20).all()


def test_a_score_with_weights_gets_its_gradient_through_the_gate():
    class Scaled(Score):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1, 6, 1, 1))

        def forward(self, feature_map):
            return (self.weight * feature_map).abs().mean(dim=1) + 0.1

    score = Scaled()
    x = feature_map(2, 6, 9, 12).requires_grad_()
    graphs = GraphBuilder(degree=12, score=score)(x)
    assert graphs[0].gate is graphs[1].gate
    gate = graphs[0].gate[:-1]
    torch.testing.assert_close(gate.view(2, -1).mean(dim=1), torch.ones(2))
    damped = graphs[0].score[:-1].view(2, -1)
    torch.testing.assert_close(gate.view(2, -1), damped / damped.mean(dim=1, keepdim=True))
    (gate * torch.rand_like(gate)).sum().backward()
    assert score.weight.grad.abs().min() > 0
    assert x.grad is None
    assert not any(value.requires_grad for value in tensors(graphs[0]) if value is not graphs[0].gate)
    assert "gate" not in GraphBuilder()(x)[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.double])
@pytest.mark.parametrize("score", [Sobel, partial(LearnedScore, channels=6)])
@pytest.mark.parametrize("selection", [Threshold(), TopD()])
def test_any_precision_gives_the_same_graph(dtype, score, selection):
    x = feature_map(2, 6, 17, 24).to(dtype)
    build = GraphBuilder(degree=12, score=score(), selection=selection)
    expected = build(x.float())
    found = build(x)
    with torch.autocast("cpu", torch.float16 if dtype == torch.float16 else torch.bfloat16):
        cast = build(x)
    assert expected[0].x.dtype == torch.float32
    for graphs in (found, cast):
        for graph, other in zip(graphs, expected, strict=True):
            assert torch.equal(columns(graph), columns(other))
            assert graph.to_dict().keys() == other.to_dict().keys()
            for key, value in other.to_dict().items():
                if isinstance(value, torch.Tensor):
                    assert graph[key].dtype == value.dtype
                    assert torch.equal(graph[key], value), key


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [0.0, 0.5, 60000.0])
def test_flat_maps_of_16_bits_have_numbers(dtype, value):
    for graph in GraphBuilder()(torch.full((1, 3, 9, 14), value, dtype=dtype)):
        assert all(x.isfinite().all() for x in tensors(graph))


def test_a_score_of_any_precision_is_computed_in_float32():
    torch.manual_seed(0)
    score = LearnedScore(channels=6)
    x = feature_map(1, 6, 9, 12)
    expected = GraphBuilder(score=score)(x)[0].score
    torch.testing.assert_close(GraphBuilder(score=score.double())(x)[0].score, expected)
    half = score.half()
    found = GraphBuilder(score=half)(torch.zeros_like(x))[0]
    assert found.gate.dtype == torch.float32
    assert found.gate.isfinite().all()


def built_with_gate(*size):
    """Graphs with everything that a graph may have, edges from the zero node included."""
    torch.manual_seed(0)
    x = feature_map(*size)
    x[0, :, 0, 0] = 0
    return GraphBuilder(degree=6, score=LearnedScore(channels=size[1]))(x)


@pytest.mark.parametrize("kind", [0, 1], ids=["local", "global"])
def test_the_zero_node_is_the_last_one(kind):
    graph = built_with_gate(2, 6, 9, 12)[kind]
    assert graph.zero_node == 2 * 9 * 12
    for key in ("x", "score", "quota", "gate"):
        assert len(graph[key]) == graph.num_nodes == graph.zero_node + 1
        assert (graph[key][-1] == 0).all()
        assert (graph[key][:-1] != 0).any()
    assert graph.pos[-1].tolist() == [-1, -1]
    assert graph.batch.tolist() == [0] * 108 + [1] * 108 + [2]
    nodes = graph.queries.flatten()
    assert torch.equal(nodes[nodes < graph.zero_node].sort().values, torch.arange(graph.zero_node))
    source, target = graph.edge_index
    group = (graph.queries[:, :, None] == target).any(dim=1).int().argmax(dim=0)
    assert (graph.candidates[group] == source[:, None]).any(dim=1).all()


@pytest.mark.parametrize("kind", [0, 1], ids=["local", "global"])
def test_pyg_takes_a_graph_for_one_of_its_own(kind):
    graph = built_with_gate(2, 6, 9, 12)[kind]
    assert isinstance(graph, Data)
    assert graph.validate()
    assert set(graph.node_attrs()) == {"x", "pos", "batch", "score", "quota", "gate", "shift"}
    assert set(graph.edge_attrs()) == {"edge_index", "offset", "similarity"}
    network = to_networkx(graph, node_attrs=["pos"], edge_attrs=["similarity"])
    assert network.number_of_nodes() == graph.num_nodes
    assert set(network.edges) == set(map(tuple, graph.edge_index.T.tolist()))
    for layer in (GCNConv(6, 4), GATv2Conv(6, 4, add_self_loops=False)):
        assert layer(graph.x, graph.edge_index).shape == (graph.num_nodes, 4)
    mean = torch.zeros(graph.num_nodes, 6).index_add(0, graph.edge_index[1], graph.x[graph.edge_index[0]])
    layer = SimpleConv(aggr="sum")
    torch.testing.assert_close(layer(graph.x, graph.edge_index), mean)
    pooled = global_mean_pool(graph.x, graph.batch)
    torch.testing.assert_close(pooled[:2], graph.x[:-1].view(2, -1, 6).mean(dim=1))


@pytest.mark.parametrize("kind", [0, 1], ids=["local", "global"])
def test_batches_of_graphs_tie_no_edge_to_another(kind):
    graphs = [built_with_gate(*size)[kind] for size in ((2, 6, 9, 12), (1, 6, 17, 5))]
    batch = Batch.from_data_list(graphs)
    assert batch.validate()
    source, target = batch.edge_index
    assert torch.equal(batch.batch[source], batch.batch[target])
    assert batch.num_nodes == graphs[0].num_nodes + graphs[1].num_nodes
    assert torch.equal(batch.candidates, torch.cat([graphs[0].candidates, 217 + graphs[1].candidates]))
    assert torch.equal(batch.queries, torch.cat([graphs[0].queries, 217 + graphs[1].queries]))
    for graph, other in zip(batch.to_data_list(), graphs, strict=True):
        for key, value in other.to_dict().items():
            if key != "batch":  # of the pictures in a graph Batch makes one
                assert torch.equal(torch.as_tensor(graph[key]), torch.as_tensor(value)), key
    assert torch.equal(batch.batch, torch.tensor([0, 1]).repeat_interleave(torch.tensor([217, 86])))
    assert [index for index, row in enumerate(batch.pos[:, 0].tolist()) if row < 0] == [216, 302]
    assert (batch.ptr[1:] - 1).tolist() == [216, 302]
    assert [graph.batch.unique().tolist() for graph in batch.to_data_list()] == [[0], [0]]
    layer = SAGEConv(6, 4)
    alone = torch.cat([layer(graph.x, graph.edge_index) for graph in graphs])
    torch.testing.assert_close(layer(batch.x, batch.edge_index), alone)


def test_transforms_of_pyg():
    graph = built_with_gate(1, 6, 9, 12)[0]
    both = ToUndirected()(graph.clone())
    assert both.validate()
    assert both.is_undirected()
    assert len(both.offset) == both.num_edges >= graph.num_edges
    looped = AddRemainingSelfLoops()(graph.clone())
    assert looped.validate()
    assert looped.has_self_loops()

    graph = Batch.from_data_list([built_with_gate(1, 6, *size)[0] for size in ((9, 12), (17, 24))])
    largest = LargestConnectedComponents()(graph)
    assert largest.validate()
    source, target = graph.edge_index
    edges = coo_array((np.ones(len(source)), (source, target)), shape=(graph.num_nodes, graph.num_nodes))
    _, component = connected_components(edges)
    members = torch.from_numpy(component == np.bincount(component).argmax())
    assert 200 < members.sum() < graph.num_nodes - 100
    for key in graph.node_attrs():
        assert torch.equal(largest[key], graph[key][members]), key
    assert largest.num_edges == members[target].sum()
    assert torch.equal(largest.similarity, graph.similarity[members[target]])


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("degree", [0, -3, 0.5, 257, float("nan"), float("inf"), "16", None, 16j])
def test_a_degree_that_no_node_can_have_is_refused(degree):
    with pytest.raises(ValueError, match=rf"^Expected a degree in 1\.\.256 \(got {degree}\)$"):
        GraphBuilder(degree=degree)


@pytest.mark.parametrize("degree", [1, 1.5, 256])
def test_any_other_degree_is_taken(degree):
    graph = GraphBuilder(degree=degree, score=Uniform(), selection=TopD())(feature_map(1, 6, 16, 16))[0]
    assert graph.quota[:-1].unique().tolist() == [degree]


@pytest.mark.parametrize("score", [Sobel, Uniform, partial(LearnedScore, channels=6)])
@pytest.mark.parametrize("similarity", [Cosine, Centered])
@pytest.mark.parametrize(
    ("value", "got"), [(torch.nan, "nan"), (torch.inf, "inf"), (-torch.inf, "inf"), (1e25, r"1e\+25")]
)
def test_maps_that_are_not_finite_are_refused(value, got, similarity, score):
    x = feature_map(2, 6, 9, 12)
    x[1, 3, 4, 5] = value
    build = GraphBuilder(degree=6, score=score(), selection=TopD(), similarity=similarity())
    with pytest.raises(
        FeatureMapError, match=rf"^Expected a feature map of finite numbers, .* \(got up to {got}, .*\)$"
    ):
        build(x)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    "size", [(6, 9, 12), (2, 3, 6, 9, 12), (9,), (1, 6, 0, 12), (0, 6, 9, 12), (1, 0, 9, 12)]
)
@pytest.mark.parametrize("score", [Sobel, Uniform])
def test_what_is_no_map_is_refused(size, score):
    message = rf"^Expected a feature map B x C x H x W \(got {re.escape(str(size))}\)$"
    with pytest.raises(FeatureMapError, match=message):
        GraphBuilder(score=score())(torch.zeros(size))


@pytest.mark.parametrize("shape", [(2, 1, 9, 12), (2, 12, 9), (9, 12)])
def test_scores_of_another_shape_are_refused(shape):
    class Wrong(Score):
        def forward(self, feature_map):
            return torch.ones(shape)

    message = rf"^Expected a score of shape \(2, 9, 12\) \(got {re.escape(str(shape))}\)$"
    with pytest.raises(ValueError, match=message):
        GraphBuilder(score=Wrong())(feature_map(2, 6, 9, 12))


def test_scores_that_are_not_finite_are_refused():
    class Infinite(Score):
        def forward(self, feature_map):
            return feature_map[:, 0] / 0

    with pytest.raises(FeatureMapError, match=r"^Expected a feature map of finite numbers, norms and scores"):
        GraphBuilder(score=Infinite())(feature_map(2, 6, 9, 12).abs())


def test_graphs_move_as_a_whole(device):
    x = feature_map(1, 6, 9, 12)
    for graph, other in zip(GraphBuilder()(x), GraphBuilder()(x.to(device)), strict=True):
        moved = graph.to(device)
        for there in (moved, other):
            assert {value.device.type for value in tensors(there)} == {torch.device(device).type}
        assert torch.equal(moved.queries, other.queries)
        assert torch.equal(moved.candidates, other.candidates)
    meta = GraphBuilder()(x)[0].to("meta")
    assert all(value.is_meta for value in tensors(meta))


def test_graphs_survive_a_file(tmp_path):
    graph = built_with_gate(1, 6, 9, 12)[0].detach()
    torch.save(graph.to_dict(), tmp_path / "graph.pt")
    other = Graph.from_dict(torch.load(tmp_path / "graph.pt", weights_only=True))
    assert other.zero_node == 108
    for key, value in graph.to_dict().items():
        assert torch.equal(torch.as_tensor(other[key]), torch.as_tensor(value)), key


@pytest.mark.parametrize("selection", [Threshold(), TopD()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.double])
def test_every_device_builds_the_same_graph(device, dtype, selection):
    """But for ties: similarities differ in their last bits. Whatever the precision, autocast or not."""
    x = feature_map(2, 6, 17, 24).to(dtype)
    build = GraphBuilder(degree=12, selection=selection)
    expected, found = build(x.float()), build(x.to(device))
    with torch.autocast(device, torch.float16 if dtype == torch.float16 else torch.bfloat16):
        cast = build(x.to(device))
    for graph, same, other in zip(found, cast, expected, strict=True):
        assert torch.equal(graph.edge_index, same.edge_index)
        edges = columns(graph.cpu())
        assert differing(edges, columns(other)) <= len(edges) / 1000
        assert (edges[:, 1].diff() >= 0).all()
        torch.testing.assert_close(graph.score.cpu(), other.score)
        torch.testing.assert_close(graph.quota.cpu(), other.quota)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:called a synchronizing CUDA operation:UserWarning")
def test_a_gpu_is_waited_for_only_where_shapes_depend_on_it(monkeypatch):
    """Whether all is finite, and the number of edges of either graph; products are few and large."""
    launches = []
    bmm = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *args, **kwargs: launches.append(1) or bmm(*args, **kwargs))
    x, build = torch.randn(1, 192, 128, 192, device="cuda"), GraphBuilder()
    build(x)  # tables are made once
    launches.clear()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            build(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(launches) == 2
    assert len(waits) <= 3, [str(wait.message) for wait in waits]


@pytest.mark.parametrize("size", SIZES)
def test_offset_shift_and_stride_tell_how_far_a_neighbour_is(size):
    for graph in GraphBuilder(degree=16)(feature_map(*size)):
        real = graph.edge_index[0] != graph.zero_node
        source, target = graph.edge_index[:, real]
        steps = graph.offset[real] - graph.shift[target]
        expected = graph.pos[source] - graph.pos[target]
        assert torch.equal(steps * torch.tensor(graph.stride), expected)
