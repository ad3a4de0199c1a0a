"""Who gets which parameters, and the learning rate over a run."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from glic_pyg.training.schedule import build_optimizers, build_schedule


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.entropy_bottleneck = nn.Module()
        self.entropy_bottleneck.quantiles = nn.Parameter(torch.zeros(3))


def test_quantiles_belong_to_the_auxiliary_optimizer_alone(config):
    model = Model()
    net, aux = build_optimizers(model, config)
    owned = [{id(p) for p in o.param_groups[0]["params"]} for o in (net, aux)]
    assert owned == [{id(p) for p in model.layer.parameters()}, {id(model.entropy_bottleneck.quantiles)}]
    assert net.param_groups[0]["lr"] == config.learning_rate
    assert aux.param_groups[0]["lr"] == config.aux_learning_rate


def rates(config, *, step=0):
    net, _ = build_optimizers(Model(), config)
    schedule = build_schedule(net, config, step=step)
    seen = []
    for _ in range(step, config.steps):
        seen.append(net.param_groups[0]["lr"])
        net.step()
        schedule.step()
    return [*seen, net.param_groups[0]["lr"]]


def test_learning_rate_rises_then_follows_half_a_cosine_to_the_floor(config):
    config = dataclasses.replace(
        config, steps=30, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-4
    )
    seen = rates(config)
    assert seen[:10] == pytest.approx([1e-3 * (i + 1) / 11 for i in range(10)])
    assert seen[10:] == pytest.approx([1e-4 + 9e-4 * (1 + math.cos(math.pi * i / 20)) / 2 for i in range(21)])


@pytest.mark.parametrize("step", [3, 10, 20])
def test_schedule_goes_on_from_any_step(config, step):
    config = dataclasses.replace(config, steps=30, warmup_steps=10)
    assert rates(config, step=step) == pytest.approx(rates(config)[step:])
