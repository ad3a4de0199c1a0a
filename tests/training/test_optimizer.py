"""Which parameter is whose, and what each optimiser does to it."""

import dataclasses

import pytest
import torch
from torch import nn

from glic_pyg.codec import GLIC
from glic_pyg.config import Aggregation
from glic_pyg.training.optimizer import build_optimizers

TALL = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))


def names_by_group(model, optimizers):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        [names[id(p)] for p in group["params"]]
        for optimizer in optimizers
        for group in optimizer.param_groups
    ]


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    return GLIC(dataclasses.replace(tiny_config, qualities=2))


def test_adam_has_the_network_and_the_quantiles(model):
    network, quantiles = names_by_group(model, build_optimizers(model, "adam"))
    assert quantiles == ["latent_codec.hyper.entropy_bottleneck.quantiles"]
    assert network == [name for name, _ in model.named_parameters() if name not in quantiles]


@pytest.mark.parametrize("optimizer", ["soap", "muon"])
def test_weights_that_mix_channels_are_apart(model, optimizer):
    mixing, rest, quantiles = names_by_group(model, build_optimizers(model, optimizer))
    assert quantiles == ["latent_codec.hyper.entropy_bottleneck.quantiles"]
    assert sorted(mixing + rest + quantiles) == sorted(name for name, _ in model.named_parameters())
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    # Everything of rank 2 and more, but the gains, the bottleneck and kernels of one channel each.
    expected = [
        name
        for name, shape in shapes.items()
        if len(shape) > 1 and not name.startswith("gain.") and "bottleneck" not in name
        if not name.endswith("depthwise.weight")
    ]
    assert mixing == expected


def test_weights_of_pyg_layers_mix_channels(tiny_config):
    model = GLIC(dataclasses.replace(tiny_config, aggregation=Aggregation("torch_geometric.nn.GATv2Conv")))
    mixing, rest, _ = names_by_group(model, build_optimizers(model, "soap"))
    assert any("aggregate.layer.lin_l.weight" in name for name in mixing)
    assert any("aggregate.layer.att" in name for name in rest)


class Linear(nn.Module):
    """A weight, a bias and what stands for the quantiles."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 12)
        nn.init.zeros_(self.linear.weight)
        self.quantiles = nn.Parameter(torch.zeros(1))


def steps(optimizer, gradients):
    model = Linear()
    optimizers = build_optimizers(model, optimizer)
    for each in optimizers:
        for group in each.param_groups:
            group["lr"] = 0.01
    for gradient in gradients:
        model.linear.weight.grad = gradient.clone()
        for each in optimizers:
            each.step()
    return model.linear.weight.detach()


def test_muon_makes_all_directions_alike_and_as_large_as_adams():
    update = -steps("muon", [TALL]) / 0.01
    left, _, right = torch.linalg.svd(TALL, full_matrices=False)
    aligned = left.T @ update @ right.T
    # Newton-Schulz, in bfloat16, leaves singular values of about 1: between 0.5 and 1.5.
    values = aligned.diagonal() / (0.2 * 12**0.5)
    assert ((values > 0.5) & (values < 1.5)).all()
    torch.testing.assert_close(aligned, aligned.diagonal().diag(), atol=0.03, rtol=0)


def test_soap_is_adam_in_eigenbases():
    other = TALL.flip(0) + 1
    # The first step begins with the bases; the second is Adam's first, with them.
    weight = steps("soap", [TALL, other])
    rows, columns = (torch.linalg.eigh(gram.double())[1] for gram in (TALL @ TALL.T, TALL.T @ TALL))
    turned = rows.T @ other.double() @ columns
    # Of the rows' bases only the part that has a gradient is determined; the rest of it turns freely.
    update = rows[:, -3:] @ turned[-3:].sign() @ columns.T
    torch.testing.assert_close(
        (rows.T @ weight.double())[-3:], -0.01 * (rows.T @ update)[-3:], rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("optimizer", ["adam", "soap", "muon"])
def test_what_a_mask_covers_stays_zero(model, optimizer):
    optimizers = build_optimizers(model, optimizer)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        model(x, 1)["y_hat"].square().sum().backward()
        for each in optimizers:
            for group in each.param_groups:
                group["lr"] = 0.01
            each.step()
            each.zero_grad()
    convs = [module for name, module in model.named_modules() if name.endswith("context_prediction")]
    assert len(convs) == 2
    for conv in convs:
        assert (conv.weight[conv.mask == 0] == 0).all()
        assert (conv.weight[conv.mask == 1] != 0).any()
