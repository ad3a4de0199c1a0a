from dataclasses import replace
from pathlib import Path

import torch
from gpu_minutes import Muon, orthogonalize, start_from
from pytorch_optimizer import Muon as LibrarysMuon
from torch import nn

from glic_pyg import GLIC, ModelConfig


def test_muon_takes_the_steps_of_its_library():
    torch.manual_seed(0)
    shapes = [(24, 12), (24, 12), (12, 40), (8, 4, 3, 3)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(w.detach().clone()) for w in ours]
    muon = Muon(ours, torch.tensor(0.01))
    library = LibrarysMuon([{"params": theirs, "use_muon": True, "use_adjusted_lr": True, "lr": 0.01}])
    for _ in range(3):
        for w, other in zip(ours, theirs, strict=True):
            w.grad = torch.randn(w.shape)
            other.grad = w.grad.clone()
        muon.step(torch.tensor(False))
        library.step()
    for w, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(w, other, atol=2e-3, rtol=0)
    before = [w.detach().clone() for w in ours]
    for momentum in muon.momentum.values():
        momentum.zero_()
    for w in ours:
        w.grad = torch.full_like(w, torch.nan)
    muon.step(torch.tensor(True))
    for w, old in zip(ours, before, strict=True):
        torch.testing.assert_close(w.detach(), old, atol=0, rtol=0)


def test_orthogonalize_brings_singular_values_near_1():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(3, 20, 30)))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_a_wider_model_starts_as_the_narrow_one_computes():
    torch.manual_seed(0)
    config = ModelConfig.from_yaml(Path(__file__).parents[2] / "configs/model/glic_pico.yaml")
    more = replace(
        config,
        latent_channels=config.latent_channels + 8,
        groups=(*config.groups, 8),
        qualities=config.qualities + 2,
    )
    narrow, wide = GLIC(config).eval(), GLIC(more).eval()
    start_from(wide, {name: x.clone() for name, x in narrow.state_dict().items()})
    x = torch.rand(1, 3, 128, 128)
    quality = torch.tensor([config.qualities])
    with torch.inference_mode():
        ours, theirs = wide(x, quality), narrow(x, quality)
        further = wide.gain(quality + 1)["y"].log()[0, 0] - wide.gain(quality)["y"].log()[0, 0]
    torch.testing.assert_close(ours["x_hat"], theirs["x_hat"])
    torch.testing.assert_close(
        ours["likelihoods"]["y"][:, : config.latent_channels], theirs["likelihoods"]["y"]
    )
    steps = narrow.gain.y[-1, 0] - narrow.gain.y[-2, 0]
    torch.testing.assert_close(further.flatten(), steps[None])
