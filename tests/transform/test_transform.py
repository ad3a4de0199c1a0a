"""The builders: a configuration's numbers arrive where they belong."""

import dataclasses

import pytest
import torch

from glic_pyg.build import build_analysis, build_synthesis
from glic_pyg.config import Aggregation, ConfigError, GraphConfig, ModelConfig, Part
from glic_pyg.graph.candidates import AnchorMesh
from glic_pyg.graph.quota import MapQuota
from glic_pyg.graph.selection import TopD
from glic_pyg.graph.similarity import Centered
from glic_pyg.nn.conv import ConvBlock
from glic_pyg.nn.gfa import FeedForwardStage, GFALayer, GFAStage


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
            assert layer.aggregate.heads == 4
            assert layer.ffn.project_out.weight.shape == (width, ratio * width, 1, 1)
            assert layer.aggregate.position_bias[0].out_features == config.position_hidden


@pytest.mark.parametrize("build", [build_analysis, build_synthesis])
def test_graph_options(tiny_config, build):
    graph = GraphConfig(degree=9, selection=Part("top_d"), similarity=Part("centered"))
    transform = build(dataclasses.replace(tiny_config, graph=graph))
    builders = [stage.graph_builder for stage in transform.stages if isinstance(stage, GFAStage)]
    assert len(builders) == 2
    for builder in builders:
        assert (builder.degree, type(builder.selection)) == (9, TopD)
        assert type(builder.similarity) is Centered


@pytest.mark.parametrize("build", [build_analysis, build_synthesis])
def test_without_candidates_stages_are_feed_forward_parts(tiny_config, build):
    transform = build(dataclasses.replace(tiny_config, graph=GraphConfig(candidates=())))
    stages = [stage for stage in transform.stages if isinstance(stage, FeedForwardStage)]
    assert [len(stage.layers) for stage in stages] == [2, 2]


@pytest.mark.parametrize("build", [build_analysis, build_synthesis])
@pytest.mark.parametrize("stride", [4, 8])
def test_graphs_at_one_stride(tiny_config, build, stride):
    """The stage at H/4 has the ratio 1, that at H/8 the ratio 2."""
    graph = dataclasses.replace(tiny_config.graph, strides=(stride,))
    stages = build(dataclasses.replace(tiny_config, graph=graph, ffn_ratios=(1, 1, 2))).stages
    (with_graphs,) = (stage for stage in stages if isinstance(stage, GFAStage))
    (without,) = (stage for stage in stages if isinstance(stage, FeedForwardStage))
    own, other = (1, 2) if stride == 4 else (2, 1)
    for ratio, part in ((own, with_graphs.layers[0].ffn), (other, without.layers[0])):
        assert part.project_out.in_channels == ratio * part.project_out.out_channels


@pytest.mark.parametrize("build", [build_analysis, build_synthesis])
def test_parts_by_name(tiny_config, build):
    graph = GraphConfig(
        candidates=(Part("anchors"),),
        score=Part("learned", {"hidden": 3}),
        quota=Part("map"),
        selection=Part("knn", {"k": 4}),
    )
    aggregation = Aggregation("torch_geometric.nn.GATv2Conv", {"heads": 2})
    config = dataclasses.replace(tiny_config, graph=graph, aggregation=aggregation, channels=(4, 8, 12))
    transform = build(config)
    stages = [stage for stage in transform.stages if isinstance(stage, GFAStage)]
    assert sorted(stage.graph_builder.score.convolution.in_channels for stage in stages) == [8, 12]
    for stage in stages:
        builder = stage.graph_builder
        assert [type(candidates) for candidates in builder.candidates] == [AnchorMesh]
        assert (type(builder.quota), builder.selection.k) == (MapQuota, 4)
        assert {layer.aggregate.layer.heads for layer in stage.layers} == {2}
        channels = stage.graph_builder.score.convolution.in_channels
        assert stage(torch.randn(1, channels, 9, 10)).shape == (1, channels, 9, 10)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"aggregation": "torch.nn.Linear"},
            r"^Expected aggregation to be derived from MessagePassing \(got t",
        ),
        (
            {"aggregation": "torch_geometric.nn.NNConv"},
            r"^Expected a layer that takes nodes, edges and edge at",
        ),
        (
            {"graph": {"score": "my_module.Mine"}},
            r"^Expected score to be a class that Python finds \(got my_mo",
        ),
    ],
)
def test_parts_that_do_not_work_are_refused_in_one_line(tiny_config, values, message):
    config = ModelConfig.from_dict(tiny_config.to_dict() | values)
    with pytest.raises(ConfigError, match=message):
        build_analysis(config)
