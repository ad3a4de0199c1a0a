import dataclasses

import pytest
import torch

from glic_pyg.inspection import LayerError, run_stages, stage_attention


def test_stage_attention_is_that_of_the_first_layer_on_each_graph(tiny_model, photo, monkeypatch):
    x = photo(70, 90)
    run = run_stages(tiny_model, x, ["g_a.1"])["g_a.1"]
    inputs = []
    layers = tiny_model.g_a.stages[1].layers
    for layer in layers:
        forward = layer.aggregate.forward

        def remember(x, *args, forward=forward, **settings):
            inputs.append(x)
            return forward(x, *args, **settings)

        monkeypatch.setattr(layer.aggregate, "forward", remember)
    with torch.no_grad():
        tiny_model(x)
        monkeypatch.undo()
        expected = [
            layer.aggregate(y, graph, return_attention_weights=True)[1][1]
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
