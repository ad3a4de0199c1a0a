import copy

import pytest
import torch
from torch import nn

from glic_pyg.build import build_entropy_model
from glic_pyg.config import ModelConfig
from glic_pyg.entropy import (
    TABLES,
    TableError,
    accept_tables_of_any_size,
    check_tables,
    update_tables,
)


def build(config: ModelConfig):
    codec = build_entropy_model(config)
    accept_tables_of_any_size(codec)
    return codec


def tables(codec):
    return {name: value for name, value in codec.state_dict().items() if name.endswith(TABLES)}


def test_update_fills_every_table_once(tiny_config):
    codec = build(tiny_config)
    assert all(table.numel() == 0 for table in tables(codec).values())
    assert update_tables(codec, force=False)
    before = tables(codec)
    assert all(table.numel() > 0 for table in before.values())
    codec.hyper.entropy_bottleneck.quantiles.data.mul_(3)
    assert not update_tables(codec, force=False)
    assert update_tables(codec, force=True)
    bottleneck = "hyper.entropy_bottleneck._quantized_cdf"
    assert tables(codec)[bottleneck].shape[1] > before[bottleneck].shape[1]


@pytest.mark.parametrize("updated", [False, True])
def test_tables_of_any_size_load(tiny_config, updated):
    source, target = build(tiny_config), build(tiny_config)
    source.hyper.entropy_bottleneck.quantiles.data.mul_(3)
    update_tables(source, force=True)
    if updated:
        update_tables(target, force=True)
    nn.ModuleDict({"inner": target}).load_state_dict(nn.ModuleDict({"inner": source}).state_dict())
    for name, table in tables(source).items():
        assert torch.equal(tables(target)[name], table), name


def test_other_shapes_are_still_refused(tiny_config):
    codec = build(tiny_config)
    state = codec.state_dict() | {"hyper.h_a.0.bias": torch.zeros(3)}
    with pytest.raises(RuntimeError, match=r"size mismatch for hyper\.h_a\.0\.bias"):
        codec.load_state_dict(state)


@pytest.fixture(scope="module")
def sound(tiny_config):
    codec = build(tiny_config)
    update_tables(codec, force=True)
    return codec


def test_sound_tables_pass(sound, tiny_model):
    check_tables(sound)
    check_tables(tiny_model.latent_codec)


def test_tables_that_would_kill_the_coder_are_refused(sound, hostile_table):
    owner, table, change = hostile_table
    codec = copy.deepcopy(sound)
    model = codec.get_submodule(owner)
    setattr(model, table, change(getattr(model, table)))
    with pytest.raises(TableError, match=r"^Expected .*\(got .*\)$") as caught:
        check_tables(codec)
    assert owner in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda q: q * torch.nan,
            r"Expected finite weights of z's probabilities \(got others in quantiles\)",
        ),
        (
            lambda q: q * torch.inf,
            r"Expected finite weights of z's probabilities \(got others in quantiles\)",
        ),
        (lambda q: q * 1e4, r"Expected quantiles of z that span at most 4096 values \(got 200001\)"),
        (lambda q: q * 1e30, r"Expected quantiles of z that span at most 4096 values \(got 2e\+31\)"),
    ],
)
def test_weights_that_give_no_tables_are_refused(tiny_config, change, message):
    codec = build(tiny_config)
    quantiles = codec.hyper.entropy_bottleneck.quantiles
    quantiles.data = change(quantiles.data)
    with pytest.raises(TableError, match=message):
        update_tables(codec, force=True)


@pytest.mark.parametrize("size", [1e10, 1e30])
def test_huge_weights_of_which_no_probabilities_come_are_refused(tiny_config, size):
    codec = build(tiny_config)
    with torch.no_grad():
        for weight in codec.hyper.entropy_bottleneck.matrices:
            weight.normal_().mul_(size)
    with pytest.raises(TableError, match="Expected weights of z's probabilities that give some"):
        update_tables(codec, force=True)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 40.0, -1.0])
def test_what_compressai_computes_passes(tiny_config, scale):
    """Also of quantiles that are all the same, or in the wrong order."""
    codec = build(tiny_config)
    codec.hyper.entropy_bottleneck.quantiles.data.mul_(scale)
    update_tables(codec, force=True)
    check_tables(codec)
