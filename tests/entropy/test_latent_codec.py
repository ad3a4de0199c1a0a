import pytest
import torch

from glic_pyg.build import build_entropy_model
from glic_pyg.config import ModelConfig
from glic_pyg.published import published_name


@pytest.fixture(scope="module")
def published(published_shapes, seeded_state):
    """The published entropy model with the golden data's weights."""
    shapes = {name: value for name, value in published_shapes.items() if name.startswith("latent_codec.")}
    seeded = seeded_state(shapes, seed=0)
    codec = build_entropy_model(ModelConfig()).eval()
    ours = {name: published_name(f"latent_codec.{name}") for name in codec.state_dict()}
    missing = codec.load_state_dict({n: seeded.pop(p) for n, p in ours.items() if p in seeded}, strict=False)
    assert not seeded
    assert not [name for name in missing.missing_keys if name.endswith("weight")]
    return codec


def relative(value, expected):
    return ((value - expected).abs().max() / expected.abs().max()).item()


def test_names_are_the_published_ones(published_shapes, published):
    names = {published_name(f"latent_codec.{name}") for name in published.state_dict()}
    assert names == {name for name in published_shapes if name.startswith("latent_codec.")}


@torch.no_grad()
def test_golden_parity(published, golden):
    expected = golden("published_128x128.npz")
    assert relative(published.hyper.h_a(expected["y"]), expected["z"]) < 1e-5
    assert relative(published.hyper.h_s(expected["z"].round()), expected["hyper_params"]) < 1e-5
    out = published(expected["y"])
    assert relative(out["y_hat"], expected["y_hat"]) < 1e-5
    y_bits = -out["likelihoods"]["y"].double().log2().sum()
    assert relative(y_bits, expected["y_bits"]) < 1e-6
