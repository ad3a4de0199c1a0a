import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from glic_pyg.graph import Centered, Cosine, GraphBuilder
from glic_pyg.kernels import use_kernels
from glic_pyg.nn.gfa import GFAStage

LAB = Path(__file__).parents[2] / "lab"


@pytest.fixture
def dense_stage():
    spec = importlib.util.spec_from_file_location("dense_stage", LAB / "dense_stage.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kernels", [None, "reference"])
@pytest.mark.parametrize("position", ["grid", "distance"])
@pytest.mark.parametrize("similarity", [Cosine, Centered])
def test_edges_and_masks_mean_the_same(dense_stage, kernels, position, similarity):
    torch.manual_seed(0)
    stage = GFAStage(
        channels=24,
        depth=2,
        heads=4,
        ffn_ratio=1,
        position_hidden=16,
        position=position,
        graph_builder=GraphBuilder(degree=16, similarity=similarity()),
    )
    use_kernels(stage, kernels)
    for layer in stage.layers:
        torch.nn.init.normal_(layer.aggregate.position_bias[2].weight)  # so that places differ
    x = (torch.randn(2, 24, 48, 32) + 1).contiguous(memory_format=torch.channels_last)
    results = []
    for call in (stage, dense_stage.DenseStage(stage)):
        leaf = x.clone().requires_grad_()
        stage.zero_grad()
        y = call(leaf)
        y.square().mean().backward()
        results.append([y.detach(), leaf.grad, *(p.grad.clone() for p in stage.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * float(one.abs().max()), rtol=1e-4)
