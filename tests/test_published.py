import argparse

import pytest
import torch

from glic_pyg import published
from glic_pyg.checkpoint import CheckpointError
from glic_pyg.codec import GLIC
from glic_pyg.config import ModelConfig
from glic_pyg.published import convert, load_published, published_name, unwrap

TABLE = "latent_codec.hyper.entropy_bottleneck._quantized_cdf"


@pytest.fixture(scope="module")
def ours():
    """The state dict of our model as it is made."""
    return GLIC(ModelConfig()).state_dict()


@pytest.fixture(scope="module")
def theirs(published_shapes):
    """A state dict in the authors' layout, without the memory for it."""
    return {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for name, (dtype, shape) in published_shapes.items()
    }


def test_all_890_names_are_accounted_for(ours, theirs):
    assert len(theirs) == 890
    names = {published_name(name) for name in ours}
    assert len(names) == len(ours)
    rebuilt = {name for name in theirs if "relative_" in name or "dwt." in name}
    assert names == theirs.keys() - rebuilt
    converted = convert(theirs, ours)
    assert converted.keys() == ours.keys()
    assert all(
        converted[name].shape == ours[name].shape for name in ours if not name.endswith(published.TABLES)
    )


def test_names_by_hand():
    for our_name, name in {
        "g_a.down.0.weight": "g_a.down0.weight",
        "g_s.up.3.0.bias": "g_s.up3.0.bias",
        "g_a.shortcuts.1.log_scale": "g_a.AuxT_enc.1.scaling_factors",
        "g_s.shortcuts.2.linear.weight": "g_s.AuxT_dec.2.OLP.linear.weight",
        "g_a.stages.0.2.depthwise.weight": "g_a.g1.2.mixer.depth_conv.weight",
        "g_a.stages.1.layers.4.norm.bias": "g_a.g2.residual_group.blocks.4.norm1.bias",
        "g_a.stages.1.layers.4.aggregate.query.bias": (
            "g_a.g2.residual_group.blocks.4.grapher.proj_group.bias"
        ),
        "g_s.stages.0.layers.0.ffn.depthwise.weight": "g_s.g1.residual_group.blocks.0.mlp.conv.weight",
        "latent_codec.hyper.h_a.1.conv1.bias": "latent_codec.hyper.h_a.1.mixer.conv1.0.bias",
        "latent_codec.y.latent_codec.y0.entropy_parameters.2.conv.weight": (
            "latent_codec.y.latent_codec.y0.entropy_parameters.2.mixer.weight"
        ),
    }.items():
        assert published_name(our_name) == name


def test_tables_may_have_any_length_and_rebuilt_buffers_may_be_absent(ours, theirs):
    state = {name: value for name, value in theirs.items() if "relative_" not in name and "dwt." not in name}
    state[TABLE] = torch.zeros(192, 31, dtype=torch.int32)
    assert convert(state, ours)[TABLE].shape == (192, 31)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("g_a.down1.bias", None, r"Expected g_a\.down1\.bias \(got a state dict without\)"),
        ("g_a.down4.bias", [1], r"Expected no g_a\.down4\.bias \(got a state dict with it\)"),
        ("g_a.AuxT_enc.4.dwt.w_ll", [1, 1, 2, 2], r"Expected no g_a\.AuxT_enc\.4\.dwt\.w_ll"),
        ("g_s.up0.0.bias", [192], r"Expected shape \(768,\) for g_s\.up0\.0\.bias \(got \(192,\)\)"),
        (
            "g_a.AuxT_enc.0.scaling_factors",
            [12],
            r"Expected shape \(1, 1, 12\) for g_a\.AuxT_enc\.0\.scaling_",
        ),
        (
            "g_s.AuxT_dec.0.idwt.filters",
            [4, 2, 2],
            r"Expected shape \(4, 1, 2, 2\) for .* \(got \(4, 2, 2\)\)",
        ),
        (
            "g_a.g2.residual_group.blocks.0.grapher.relative_position_index",
            [64, 64],
            r"Expected shape \(64, 256\) for .*relative_position_index \(got \(64, 64\)\)",
        ),
    ],
)
def test_wrong_ones_are_refused_by_the_first_difference(ours, theirs, name, shape, message):
    state = {n: value for n, value in theirs.items() if n != name}
    if shape is not None:
        state[name] = torch.empty(shape, device="meta")
    with pytest.raises(CheckpointError, match=message):
        convert(state, ours)


def test_unwrap():
    state = {"a": torch.zeros(1), "b": torch.zeros(2)}
    prefixed = {f"module.{name}": value for name, value in state.items()}
    for content in (
        state,
        prefixed,
        {"state_dict": state, "epoch": 7},
        {"model_state_dict": prefixed, "optimizer": {}},
    ):
        assert unwrap(content) == state
    for content, message in [
        ([1], r"Expected a state dict \(got list\)"),
        ({}, r"Expected a state dict \(got dict\)"),
        ({"epoch": 7}, r"Expected a tensor for epoch \(got int\)"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            unwrap(content)


def test_load_published(ours, published_shapes, tmp_path, golden, seeded_state):
    """The whole published model: its latents are the golden ones, and it is ready to compress."""
    state = {
        name: torch.zeros(shape, dtype=getattr(torch, dtype))
        for name, (dtype, shape) in published_shapes.items()
    }
    for name, value in ours.items():
        if "entropy_bottleneck" in name or "gaussian_conditional" in name or name.endswith(".mask"):
            state[published_name(name)] = value
    state |= seeded_state(published_shapes, seed=0)
    path = tmp_path / "0.013.pth.tar"
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)

    model = load_published(path)
    expected = golden("published_128x128.npz")
    with torch.no_grad():
        y = model.g_a(expected["x"])
        y_hat = model.latent_codec(expected["y"])["y_hat"]
    for value, name in ((y, "y"), (y_hat, "y_hat")):
        assert (value - expected[name]).abs().max() < 1e-3 * expected[name].abs().max(), name
    model.save(tmp_path / "model.safetensors")  # refuses a model without tables


def test_files_that_cannot_be_read(tmp_path):
    class Code:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"state_dict": Code()}, tmp_path / "code.pth")
    torch.save({"state_dict": argparse.Namespace(lr=1)}, tmp_path / "object.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    (tmp_path / "zeros.pth").write_bytes(bytes(1000))
    (tmp_path / "empty.pth").touch()
    for name, reason in {
        "code.pth": "it asks for print, but only tensors are loaded",
        "object.pth": "it asks for argparse.Namespace, but only tensors are loaded",
        "text.pth": "it is damaged, or holds no tensors",
        "zeros.pth": "it is damaged, or holds no tensors",
        "empty.pth": "it is damaged, or holds no tensors",
        "missing.pth": "No such file or directory",
    }.items():
        with pytest.raises(
            CheckpointError, match=rf"Expected a checkpoint of tensors \(got .*{name}: {reason}\)$"
        ) as caught:
            load_published(tmp_path / name)
        assert "\n" not in str(caught.value)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(
        CheckpointError, match=r"other\.pth: Expected g_a\.down0\.weight \(got a state dict without\)"
    ):
        load_published(tmp_path / "other.pth")
