"""The builders: a configuration's numbers arrive where they belong."""

import dataclasses

import pytest

from glic_pyg.config import GraphConfig
from glic_pyg.nn.conv import ConvBlock
from glic_pyg.nn.gfa import GFALayer, GFAStage
from glic_pyg.transform import build_analysis, build_synthesis


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_sizes(published_g_a, published_g_s):
    assert round(count(published_g_a) / 1e6, 2) == 7.27
    assert round(count(published_g_s) / 1e6, 2) == 10.60


@pytest.mark.parametrize("build", [build_analysis, build_synthesis])
def test_depths_ratios_and_heads(tiny_config, build):
    config = dataclasses.replace(tiny_config, depths=(2, 3, 1), heads=4, ffn_ratios=(1, 2, 3))
    stages = list(build(config).stages)
    if build is build_synthesis:
        stages[:3] = stages[2::-1]
    blocks, *graph_stages, _ = stages
    assert [type(block) for block in blocks] == [ConvBlock] * 2
    for stage, depth, width, ratio in zip(graph_stages, (3, 1), (8, 8), (2, 3), strict=True):
        assert isinstance(stage, GFAStage)
        assert [type(layer) for layer in stage.layers] == [GFALayer] * depth
        for layer in stage.layers:
            assert layer.attention.heads == 4
            assert layer.ffn.project_out.weight.shape == (width, ratio * width, 1, 1)
            assert layer.attention.position_bias[0].out_features == config.position_hidden


@pytest.mark.parametrize("build", [build_analysis, build_synthesis])
def test_graph_options(tiny_config, build):
    graph = GraphConfig(degree=9, selection="top_d", neighbors="torch_cluster")
    transform = build(dataclasses.replace(tiny_config, graph=graph))
    builders = [stage.graph_builder for stage in transform.stages if isinstance(stage, GFAStage)]
    assert len(builders) == 2
    for builder in builders:
        assert (builder.degree, builder.selection, builder.neighbors) == (9, "top_d", "torch_cluster")
