"""Whole stages with Triton's kernels against those of the definition, edge by edge."""

import copy

import pytest
import torch

from glic_pyg.graph import AnchorMesh, Centered, GraphBuilder, Threshold, TopD
from glic_pyg.kernels import use_kernels
from glic_pyg.nn import GFAStage, GraphAttention, LearnedScore

STAGES = {
    "published": {},
    "distance": {"position": "distance", "similarity": Centered},
    "other": {"selection": TopD, "score": True, "candidates": [AnchorMesh()]},
}


def make(position="grid", selection=Threshold, similarity=None, score=False, candidates=None):
    torch.manual_seed(0)
    builder = GraphBuilder(
        degree=12,
        selection=selection(),
        similarity=None if similarity is None else similarity(),
        score=LearnedScore(channels=8, hidden=4) if score else None,
        candidates=candidates,
    )
    stage = GFAStage(
        channels=8, depth=2, heads=2, ffn_ratio=1, position_hidden=4, position=position, graph_builder=builder
    )
    with torch.no_grad():
        for layer in stage.layers:
            layer.aggregate.position_bias[2].weight.mul_(3)  # so that positions differ
    return stage


def outcome(stage, x, kernels):
    """Return the map and all gradients, on the CPU."""
    stage = use_kernels(copy.deepcopy(stage).to(x.device), kernels)
    x = x.detach().requires_grad_()
    y = stage(x)
    weight = torch.linspace(-1, 1, y.numel(), device=y.device, dtype=y.dtype)
    (y.flatten() * weight).sum().backward()
    gradients = {name: p.grad for name, p in stage.named_parameters()}
    return {name: value.detach().cpu() for name, value in {"y": y, "x": x.grad, **gradients}.items()}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_that_of_the_definition(name, triton_device):
    stage, x = make(**STAGES[name]), torch.randn(1, 8, 5, 9, generator=torch.Generator().manual_seed(1))
    x = x.to(triton_device)
    with torch.backends.cudnn.flags(allow_tf32=False):  # as cuDNN's convolutions else round
        expected, found = outcome(stage, x, "reference"), outcome(stage, x, "triton")
    for key, value in expected.items():
        error = (found[key] - value).norm() / value.norm()
        assert error < 1e-4, key


def test_no_edges_are_listed(triton_device, monkeypatch):
    stage = use_kernels(make().to(triton_device), "triton")
    x = torch.randn(1, 8, 4, 5).to(triton_device)
    monkeypatch.setattr("glic_pyg.graph.build.kept_edges", None)
    with torch.no_grad():
        assert stage(x).isfinite().all()


def test_layers_refuse_a_graph_without_edges_where_they_need_them(triton_device):
    stage = use_kernels(make().to(triton_device), "triton")
    attention: GraphAttention = stage.layers[0].aggregate
    graph = stage.graph_builder(torch.randn(1, 8, 4, 5).to(triton_device), edges=False)[0]
    x = torch.randn(20, 8).to(triton_device)
    with pytest.raises(
        ValueError, match=r"^Expected a graph with edges for their weights \(got one without\)$"
    ):
        attention(x, graph, return_attention_weights=True)
    attention.kernels = "reference"
    with pytest.raises(
        ValueError, match=r"^Expected a graph with edges for kernels reference \(got one with"
    ):
        attention(x, graph)


def test_a_stage_under_autocast(triton_device):
    stage, x = make(), torch.randn(1, 8, 5, 9, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = use_kernels(stage, "reference")(x)
        stage = use_kernels(stage.to(triton_device), "triton")
        half = (
            torch.bfloat16 if triton_device == "cuda" else torch.float16
        )  # the interpreter multiplies no others
        with torch.autocast(triton_device, half):
            y = stage(x.to(triton_device))
    assert ((y.float().cpu() - expected).norm() / expected.norm()).item() < 0.05
