"""The benchmark's rival computes what our model computes."""

import copy

import pytest
import torch
from dense_rival import make_dense

from glic_pyg import GLIC, ModelConfig
from glic_pyg.config import ConfigError


@torch.no_grad()
def test_same_weights_give_the_same_numbers(tiny_model):
    dense = copy.deepcopy(tiny_model)
    make_dense(dense)
    x = torch.rand(2, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    y = tiny_model.g_a(x)
    assert y.abs().max() > 0.1
    torch.testing.assert_close(dense.g_a(x), y, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(dense.g_s(y), tiny_model.g_s(y), rtol=1e-3, atol=1e-4)
    coded = tiny_model.compress(x[:1])
    same = dense.decompress(coded["strings"], coded["shape"])
    assert torch.equal(same["y_hat"], coded["y_hat"])


def test_nothing_fused_is_left(tiny_model):
    dense = copy.deepcopy(tiny_model)
    make_dense(dense)
    x = torch.rand(1, 3, 64, 64)
    with torch.profiler.profile() as profile:
        dense(x)
    assert not [event.name for event in profile.events() if event.name.startswith("glic_pyg::")]


@pytest.mark.parametrize(
    "values", [{"graph": {"score": "none"}}, {"aggregation": "torch_geometric.nn.SAGEConv"}]
)
def test_what_has_no_rival_is_refused(tiny_config, values):
    model = GLIC(ModelConfig.from_dict(tiny_config.to_dict() | values))
    message = (
        r"^Expected published graphs and attention for the dense rival \(got tiny\); name other --kernels$"
    )
    with pytest.raises(ConfigError, match=message):
        make_dense(model)
