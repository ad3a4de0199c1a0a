import dataclasses

import pytest
import torch

from glic_pyg.graph import GraphBuilder
from glic_pyg.inspection import LayerError, attention_weights, run_stages, stage_attention
from glic_pyg.nn.graph_attention import GraphAttention


@pytest.mark.parametrize("scope", [0, 1], ids=["local", "global"])
def test_weights_give_the_layers_output(scope):
    torch.manual_seed(0)
    feature_map = torch.randn(1, 8, 16, 24)
    feature_map[..., 0, 0] = 0  # keeps zero nodes as neighbours
    graph = GraphBuilder(degree=8)(feature_map)[scope]
    attention = GraphAttention(channels=8, heads=2, position_hidden=4)
    x = torch.randn(graph.zero_node, 8)
    with torch.no_grad():
        weights = attention_weights(attention, x, graph)
        value = torch.cat([attention.key_value(x)[:, 8:], torch.zeros(1, 8)])
        source, target = graph.edge_index
        messages = weights.repeat_interleave(4, dim=1) * value[source]
        expected = attention.output(torch.zeros_like(x).index_add(0, target, messages))
        torch.testing.assert_close(expected, attention(x, graph.edge_index, graph.offset))
    total = torch.zeros(graph.zero_node, 2).index_add(0, target, weights)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_stage_attention_is_that_of_the_first_layer_on_each_graph(tiny_model, photo, monkeypatch):
    x = photo(70, 90)
    run = run_stages(tiny_model, x, ["g_a.1"])["g_a.1"]
    inputs = []
    layers = tiny_model.g_a.stages[1].layers
    for layer in layers:
        forward = layer.attention.forward

        def remember(x, *args, forward=forward, **settings):
            inputs.append(x)
            return forward(x, *args, **settings)

        monkeypatch.setattr(layer.attention, "forward", remember)
    with torch.no_grad():
        tiny_model(x)
        expected = [
            attention_weights(layer.attention, y, graph)
            for layer, y, graph in zip(layers, inputs, run.graphs, strict=True)
        ]
    for found, weights in zip(stage_attention(run), expected, strict=True):
        torch.testing.assert_close(found, weights.mean(dim=1))
    for found, weights in zip(stage_attention(run, head=1), expected, strict=True):
        torch.testing.assert_close(found, weights[:, 1])
    assert not any(module._forward_pre_hooks for module in tiny_model.modules())


def test_errors(tiny_model, photo):
    x = photo(64, 64)
    run = run_stages(tiny_model, x, ["g_a.1"])["g_a.1"]
    for head in (-1, 2):
        with pytest.raises(LayerError, match=rf"Expected a head in 0..1 \(got {head}\)"):
            stage_attention(run, head=head)
    run = dataclasses.replace(run, attentions=run.attentions[:1])
    with pytest.raises(LayerError, match=r"Expected a layer on each graph of the stage \(got 1 layer\)"):
        stage_attention(run)
