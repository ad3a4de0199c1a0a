import copy
from dataclasses import replace

import pytest
import torch

from glic_pyg import GLIC, codec, identity
from glic_pyg.config import GraphConfig, ModelConfig
from glic_pyg.identity import current_names, first_names, identity_of


def test_identity_follows_weights_tables_names_and_config(tiny_model):
    config, state = tiny_model.config, tiny_model.state_dict()
    expected = identity_of(config, state)
    assert len(expected) == 8
    assert identity_of(config, dict(reversed(state.items()))) == expected
    name = "g_s.up.3.0.bias"
    table = "latent_codec.hyper.entropy_bottleneck._quantized_cdf"
    others = [
        identity_of(config, state | {name: state[name] + 1e-6}),
        identity_of(config, state | {name: state[name][None]}),
        identity_of(config, state | {table: state[table] + 1}),
        identity_of(config, {f"x.{name}": value for name, value in state.items()}),
        identity_of(replace(config, graph=GraphConfig(degree=5)), state),
    ]
    assert len({expected, *others}) == 6


def test_identities_are_pinned():
    """They are in every file: settings at their defaults, and the order of tensors, do not matter."""
    state = {"b": torch.tensor([1, 2], dtype=torch.int32), "a": torch.tensor([[0.5]])}
    assert identity_of(ModelConfig(), state).hex() == "e1bf57a78315324a"
    assert identity_of(ModelConfig(qualities=3), state).hex() == "8835a5687482cb0d"


def test_an_identity_is_computed_once_and_follows_the_weights(tiny_model, other_tiny_model, monkeypatch):
    model, calls = copy.deepcopy(tiny_model), []
    compute = codec.identity_of
    monkeypatch.setattr(codec, "identity_of", lambda *of: calls.append(of) or compute(*of))
    first = model.identity
    assert first == tiny_model.identity
    calls.clear()
    coded = model.compress(torch.rand(1, 3, 64, 64))
    model.decompress(coded["strings"], coded["shape"])
    model.to("cpu").float().eval()
    assert model.identity == first
    assert not calls
    model.g_a.load_state_dict(other_tiny_model.g_a.state_dict())
    second = model.identity
    assert second != first
    model.load_state_dict(tiny_model.state_dict())
    assert model.identity == first
    model.half().float()
    assert model.identity not in (first, second)
    model.load_state_dict(tiny_model.state_dict())
    weight = model.get_parameter("g_s.up.3.0.bias")
    weight.grad = torch.ones_like(weight)
    torch.optim.Adam([weight], foreach=True).step()
    assert model.identity != first
    model.load_state_dict(tiny_model.state_dict())
    assert model.identity == first
    with torch.no_grad():
        weight.data += 1
    model.update()
    assert model.identity != first


RENAMED = (("a.b", "a.c"), ("s.*.x", "s.*.y.z"), ("c", "d"))


@pytest.mark.parametrize(
    ("first", "current"),
    [
        ("a.b.w", "a.d.w"),
        ("q.a.b", "q.a.d"),
        ("aa.b.w", "aa.b.w"),
        ("a.bb", "a.bb"),
        ("s.3.x.w", "s.3.y.z.w"),
        ("m.s.10.x", "m.s.10.y.z"),
        ("s.x.w", "s.x.w"),
        ("s.3.4.x", "s.3.4.x"),
        ("cc.c.c", "cc.d.d"),
    ],
)
def test_names_of_earlier_versions(first, current, monkeypatch):
    monkeypatch.setattr(identity, "RENAMED", RENAMED)
    assert current_names({first: 1}) == {current: 1}
    assert current_names({current: 1}) == {current: 1}
    assert first_names({current: 1}) == {first: 1}


def test_the_first_names_of_todays_modules(tiny_config):
    """So the file of a model with every part that has been renamed loads, and its identity stays."""
    values = {"graph": {"score": "learned"}, "aggregation": {"layer": "torch_geometric.nn.SAGEConv"}}
    fitted = {"aggregation": {"layer": "torch_geometric.nn.SAGEConv", "out_channels": 5}}
    first = set()
    for changes in ({}, values, fitted):
        names = dict.fromkeys(GLIC(ModelConfig.from_dict(tiny_config.to_dict() | changes)).state_dict())
        assert current_names(first_names(names)) == current_names(names) == names
        first |= set(first_names(names))
    assert {
        "g_a.stages.1.score.convolution.weight",
        "g_a.stages.1.layers.0.attention.query.weight",
        "g_s.stages.0.layers.1.attention.position_bias.0.bias",
        "g_a.stages.1.layers.0.attention.output.weight",
        "g_a.stages.1.layers.0.aggregation.layer.lin_l.weight",
        "g_a.stages.1.layers.0.aggregation.output.weight",
    } <= first
    assert not any("aggregate" in name or "graph_builder" in name for name in first)
