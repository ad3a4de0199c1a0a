import pytest
import torch
from torch import nn

from glic_pyg.config import ModelConfig
from glic_pyg.entropy import TABLES, accept_tables_of_any_size, build_entropy_model, update_tables


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
