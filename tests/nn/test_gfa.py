import copy
import json
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import GATv2Conv, SAGEConv

from glic_pyg.build import NAMES, make_part
from glic_pyg.config import Part
from glic_pyg.graph import FeatureMapError, GraphBuilder, to_map, to_nodes
from glic_pyg.graph.candidates import AnchorMesh, CandidateSet, GlobalMesh, LocalWindows
from glic_pyg.graph.complexity import Score
from glic_pyg.graph.selection import Selection
from glic_pyg.kernels import ON_CPU, use_kernels
from glic_pyg.nn.gfa import FeedForwardStage, GFALayer, GFAStage, silence_attention
from glic_pyg.nn.graph_attention import GraphAttention
from glic_pyg.nn.layer_aggregation import LayerAggregation
from glic_pyg.nn.learned_score import LearnedScore
from glic_pyg.published import published_name

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = {"channels": 8, "heads": 2, "ffn_ratio": 1, "position_hidden": 4}


@pytest.fixture(scope="module")
def golden_stage(golden, seeded_state):
    """The golden stage's data and its module: 32 channels, two layers."""
    data = golden("gfa_small.npz")
    stage = GFAStage(
        channels=32, depth=2, heads=4, ffn_ratio=2, position_hidden=512, graph_builder=GraphBuilder()
    ).eval()
    ours = stage.state_dict()
    names = {name: published_name(f"stage.{name}").removeprefix("stage.") for name in ours}
    shapes = json.loads((GOLDEN / "gfa_small_shapes.json").read_text())
    state = seeded_state(shapes, data["seed"].item())
    assert set(state) == set(names.values())
    stage.load_state_dict({name: state[names[name]].view_as(ours[name]) for name in ours})
    return data, stage


def relative_error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("kernels", ON_CPU)
def test_golden_layers_and_stage(golden_stage, kernels):
    data, stage = golden_stage
    use_kernels(stage, kernels)
    with torch.no_grad():
        graphs = stage.graph_builder(data["x"])
        x = graphs[0].x[:-1]
        for layer, graph, name in zip(stage.layers, graphs, ("block_local", "block_global"), strict=True):
            assert relative_error(to_map(layer(x, graph), graph.map_size), data[name]) < 1e-4
        assert relative_error(stage(data["x"]), data["y"]) < 1e-4


def test_layer_is_its_definition():
    torch.manual_seed(0)
    attention = GraphAttention(channels=8, heads=2, position_hidden=4)
    layer = use_kernels(GFALayer(attention, channels=8, ffn_ratio=1), "reference").double()
    graph = GraphBuilder(degree=12)(torch.randn(2, 8, 9, 14))[0]
    nodes = graph.x[:-1].double()
    x = nodes + attention(F.layer_norm(nodes, (8,), eps=1e-5), graph)
    assert layer.ffn.norm.eps == 1e-5
    y = layer.ffn(x.view(2, 9, 14, 8).permute(0, 3, 1, 2))
    torch.testing.assert_close(layer(nodes, graph), to_nodes(y).x)


def test_stage_builds_its_graphs_once_and_alternates_them():
    torch.manual_seed(0)
    calls, seen = [], []

    class Builder(GraphBuilder):
        def forward(self, feature_map):
            calls.append(super().forward(feature_map))
            return calls[-1]

    stage = GFAStage(depth=5, graph_builder=Builder(degree=12), **SMALL)
    for layer in stage.layers:
        layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[1]))
    x = torch.randn(1, 8, 9, 14)
    stage(x)
    (graphs,) = calls
    assert [graph is graphs[0] for graph in seen] == [True, False, True, False, True]
    assert seen[1] is seen[3] is graphs[1]
    torch.testing.assert_close(graphs[0].x[:-1], to_nodes(x).x)


@pytest.mark.parametrize("size", [(2, 8, 16, 32), (1, 8, 5, 3), (3, 8, 17, 9)], ids=str)
@pytest.mark.parametrize("depth", [1, 2])
def test_stage_takes_maps_of_any_size_and_trains(size, depth):
    torch.manual_seed(0)
    stage = GFAStage(depth=depth, graph_builder=GraphBuilder(degree=8), **SMALL)
    x = torch.randn(size, requires_grad=True)
    before = x.detach().clone()
    y = stage(x)
    assert y.shape == size
    y.square().mean().backward()
    assert torch.equal(x, before)
    for name, parameter in [("x", x), *stage.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_all_kernels_give_the_same_stage_and_gradients():
    torch.manual_seed(0)
    stage = GFAStage(depth=3, graph_builder=GraphBuilder(degree=12), **SMALL)
    x = torch.randn(2, 8, 17, 24)
    results = []
    for kernels in ON_CPU:
        use_kernels(stage, kernels).zero_grad()
        y = stage(x)
        y.square().mean().backward()
        results.append([y.detach(), *(parameter.grad.clone() for parameter in stage.parameters())])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-5 * expected.abs().max().item())


@pytest.mark.parametrize("kernels", ON_CPU)
def test_what_inference_mode_computes_does_not_hinder_training(kernels):
    torch.manual_seed(0)
    stage = use_kernels(GFAStage(depth=2, graph_builder=GraphBuilder(degree=12), **SMALL), kernels)
    x = torch.randn(1, 8, 11, 13)
    with torch.inference_mode():
        expected = stage(x)
    y = stage(x)
    torch.testing.assert_close(y, expected.clone())
    y.sum().backward()


def test_defaults_make_a_stage_of_the_published_kind():
    stage = GFAStage(channels=16)
    assert len(stage.layers) == 5
    assert stage(torch.randn(1, 16, 9, 14)).shape == (1, 16, 9, 14)


@pytest.mark.parametrize("candidates", [[LocalWindows()], [GlobalMesh()], [AnchorMesh(), LocalWindows()]])
def test_layers_take_turns_with_any_number_of_graphs(candidates):
    seen = []
    stage = GFAStage(depth=5, graph_builder=GraphBuilder(degree=12, candidates=candidates), **SMALL)
    for layer in stage.layers:
        layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[1]))
    stage(torch.randn(1, 8, 9, 14))
    assert len({id(graph) for graph in seen}) == len(candidates)
    assert all(seen[i] is seen[i % len(candidates)] for i in range(5))


def test_without_graphs_a_stage_is_its_feed_forward_parts():
    torch.manual_seed(0)
    stage = FeedForwardStage(channels=8, depth=2, ffn_ratio=1)
    x = torch.randn(2, 8, 9, 14)
    torch.testing.assert_close(stage(x), stage.layers[1](stage.layers[0](x)))


def test_a_pyg_layer_in_place_of_attention():
    torch.manual_seed(0)
    aggregation = LayerAggregation(partial(SAGEConv, aggr="max"), channels=8)
    layer = GFALayer(aggregation, channels=8, ffn_ratio=1)
    graph = GraphBuilder(degree=6)(torch.randn(1, 8, 9, 14))[0]
    nodes = graph.x[:-1]
    x = nodes + aggregation(F.layer_norm(nodes, (8,)), graph)
    torch.testing.assert_close(layer(nodes, graph), to_nodes(layer.ffn(to_map(x, (1, 9, 14)))).x)


def test_a_learned_score_scales_updates_and_is_trained():
    torch.manual_seed(0)
    builder = GraphBuilder(degree=6, score=LearnedScore(channels=8))
    stage = GFAStage(depth=1, graph_builder=builder, **SMALL)
    x = torch.randn(1, 8, 9, 14)
    graph = builder(x)[0]
    (layer,) = stage.layers
    nodes = graph.x[:-1]
    update = layer.aggregate(layer.norm(nodes), graph)
    nodes = nodes + graph.gate[:-1, None] * update
    torch.testing.assert_close(stage(x), layer.ffn(to_map(nodes, (1, 9, 14))), rtol=1e-4, atol=1e-5)
    stage(x).square().sum().backward()
    learned = {name: p for name, p in stage.named_parameters() if name.startswith("graph_builder.score.")}
    assert len(learned) == 4
    assert all(p.grad.abs().max() > 0 for p in learned.values())


class Weighted(Score):
    """A user's score: all its weights are frozen, and it has a buffer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(1, 8, 1, 1), requires_grad=False)
        self.register_buffer("floor", torch.tensor(0.1))

    def forward(self, feature_map):
        return (self.weight * feature_map).abs().mean(dim=1) + self.floor


PARTS = {
    "score": {
        **{name: partial(make_part, "score", Part(name), Score, channels=8) for name in NAMES["score"]},
        "user's": Weighted,
    },
    "candidates": {
        **{
            name: lambda name=name: [make_part("candidates", Part(name), CandidateSet)]
            for name in NAMES["candidates"]
            if name != "torch_cluster"
        },
        "as published": lambda: None,
    },
    "selection": {
        name: partial(make_part, "selection", Part(name, {"k": 9} if name == "knn" else {}), Selection)
        for name in NAMES["selection"]
    },
}
LAYERS = {"attention": None, "SAGEConv": SAGEConv, "GATv2Conv": partial(GATv2Conv, heads=2)}


@pytest.mark.parametrize(
    ("parts", "layer"),
    [
        *(({"score": score}, layer) for score in PARTS["score"] for layer in LAYERS),
        *(
            ({"score": "learned", "candidates": candidates, "selection": selection}, "attention")
            for candidates in PARTS["candidates"]
            for selection in PARTS["selection"]
        ),
    ],
    ids=str,
)
def test_it_is_the_same_network_with_and_without_gradient(parts, layer):
    torch.manual_seed(0)
    builder = GraphBuilder(degree=6, **{kind: PARTS[kind][name]() for kind, name in parts.items()})
    stage = GFAStage(depth=2, graph_builder=builder, layer=LAYERS[layer], **SMALL)
    x = torch.randn(2, 8, 9, 20)
    expected = stage(x)
    assert expected.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(stage(x), expected)
    with torch.inference_mode():
        torch.testing.assert_close(stage(x), expected)
    torch.testing.assert_close(stage.requires_grad_(False)(x), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.double])
@pytest.mark.parametrize("score", ["sobel", "learned"])
def test_a_stage_works_in_any_precision(score, dtype):
    """As a whole, and under autocast where torch has it."""
    torch.manual_seed(0)
    stage = GFAStage(depth=2, graph_builder=GraphBuilder(degree=6, score=PARTS["score"][score]()), **SMALL)
    x = torch.randn(1, 8, 9, 14).to(dtype).float()
    expected = stage(x).double()
    y = copy.deepcopy(stage).to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    assert (y - expected).norm() < (1e-5 if dtype == torch.double else 0.05) * expected.norm()
    if dtype == torch.double:
        return
    with torch.autocast("cpu", dtype):
        y = stage(x)
    assert (y - expected).norm() < 0.05 * expected.norm()
    y.float().square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in stage.parameters())


# torch's compiler warns of what it does itself.
@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
@pytest.mark.parametrize(
    ("score", "layer", "kernels"),
    [
        *(("sobel", "attention", kernels) for kernels in (None, "reference")),
        ("learned", "SAGEConv", None),
    ],
)
def test_a_compiled_stage_is_the_same(score, layer, kernels):
    torch.manual_seed(0)
    torch._dynamo.reset()
    builder = GraphBuilder(degree=6, score=PARTS["score"][score]())
    stage = GFAStage(depth=2, graph_builder=builder, layer=LAYERS[layer], **SMALL)
    compiled = torch.compile(use_kernels(stage, kernels), backend="eager")
    x = torch.randn(2, 8, 9, 14)
    results = []
    for module in (stage, compiled):
        with torch.no_grad():
            free = module(x)
        y = module(x)
        gradients = torch.autograd.grad(y.square().mean(), list(stage.parameters()))
        results.append([free, y, *gradients])
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_refused_but_in_training_where_it_stays_so(value):
    """So that a training step with it is seen to be broken, by its loss, on all devices alike."""
    stage = GFAStage(depth=2, graph_builder=GraphBuilder(degree=6), **SMALL)
    x = torch.randn(1, 8, 9, 14)
    x[0, 1, 2, 3] = value
    y = stage.train()(x)
    assert not y.isfinite().all()
    y.sum().backward()
    assert all(p.grad is not None for p in stage.parameters())
    with pytest.raises(FeatureMapError, match="Expected a feature map of finite numbers"):
        stage.eval()(x)


@pytest.mark.usefixtures("shapes_unchecked")
def test_what_is_no_map_is_refused_in_training_too():
    stage = GFAStage(depth=2, graph_builder=GraphBuilder(degree=6), **SMALL)
    with pytest.raises(FeatureMapError, match="Expected a feature map B x C x H x W"):
        stage.train()(torch.randn(8, 9, 14))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("score", ["sobel", "learned"])
def test_a_stage_is_the_same_on_every_device(score, layer, device):
    torch.manual_seed(0)
    builder = GraphBuilder(degree=6, score=PARTS["score"][score](), selection=PARTS["selection"]["top_d"]())
    stage = GFAStage(depth=2, graph_builder=builder, layer=LAYERS[layer], **SMALL)
    x, results = torch.randn(2, 8, 17, 24), []
    for there in ("cpu", device):
        y = stage.to(there)(x.to(there))
        assert y.device.type == there
        gradients = torch.autograd.grad(y.square().mean(), list(stage.parameters()))
        results.append([part.cpu() for part in (y, *gradients)])
        with torch.no_grad():
            torch.testing.assert_close(stage(x.to(there)), y, rtol=1e-4, atol=1e-5)
    for found, expected in zip(*reversed(results), strict=True):
        assert (found - expected).norm() <= 0.01 * expected.norm()  # GPUs' convolutions round to 11 bits


@pytest.mark.parametrize("score", ["sobel", "learned"])
def test_a_stage_under_autocast_on_every_device(score, device):
    torch.manual_seed(0)
    builder = GraphBuilder(degree=6, score=PARTS["score"][score]())
    stage, x = GFAStage(depth=2, graph_builder=builder, **SMALL), torch.randn(1, 8, 9, 14)
    expected = stage(x)
    with torch.autocast(device, torch.bfloat16):
        y = stage.to(device)(x.to(device))
    y.float().square().mean().backward()
    assert (y.cpu() - expected).norm() < 0.05 * expected.norm()
    assert all(p.grad.isfinite().all() for p in stage.parameters())


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("score", ["sobel", "learned"])
def test_default_device_and_precision_do_not_matter(score, gradient):
    torch.manual_seed(0)
    builder = GraphBuilder(degree=6, score=PARTS["score"][score]())
    stage, x = GFAStage(depth=2, graph_builder=builder, **SMALL), torch.randn(1, 8, 9, 14)
    with torch.set_grad_enabled(gradient):
        expected = stage(x)
        with torch.device("meta"):
            assert torch.equal(stage(x), expected)
        torch.set_default_dtype(torch.double)
        try:
            assert torch.equal(stage(x), expected)
        finally:
            torch.set_default_dtype(torch.float32)


def test_silent_attention_adds_nothing_and_can_learn():
    torch.manual_seed(0)
    stage = GFAStage(channels=16, depth=2, heads=2, ffn_ratio=1, position_hidden=8)
    x = torch.randn(1, 16, 16, 16)
    y = stage(x)
    silence_attention(stage)
    expected = x
    for layer in stage.layers:
        expected = layer.ffn(expected)
    assert not torch.allclose(y, expected)
    out = stage(x)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    assert all(layer.aggregate.output.weight.grad.abs().sum() > 0 for layer in stage.layers)
