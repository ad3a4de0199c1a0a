import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from glic_pyg import GLIC, checkpoint
from glic_pyg.checkpoint import CheckpointError, check_state, model_identity
from glic_pyg.config import Aggregation, GraphConfig, Part


def test_float32_keeps_every_bit(tiny_model, tmp_path):
    checkpoint.save(tiny_model, tmp_path / "a.safetensors", info={"lambda": 0.013})
    stored = checkpoint.load(tmp_path / "a.safetensors")
    assert stored.config == tiny_model.config
    assert stored.info == {"lambda": 0.013}
    state = tiny_model.state_dict()
    assert stored.state.keys() == state.keys()
    for name, tensor in state.items():
        assert tensor.dtype == stored.state[name].dtype
        assert torch.equal(tensor, stored.state[name]), name


def test_float16_rounds_weights_but_not_what_tables_are_made_of(tiny_model, tmp_path):
    checkpoint.save(tiny_model, tmp_path / "a.safetensors", dtype=torch.float16)
    stored = checkpoint.load(tmp_path / "a.safetensors").state
    for name, tensor in tiny_model.state_dict().items():
        if "entropy_bottleneck" in name or "gaussian_conditional" in name:
            assert torch.equal(tensor, stored[name]), name
        else:
            assert stored[name].dtype == torch.float16
            torch.testing.assert_close(stored[name].float(), tensor, rtol=1e-3, atol=1e-7)
    again = GLIC.from_pretrained(tmp_path / "a.safetensors")
    checkpoint.save(again, tmp_path / "b.safetensors", dtype=torch.float16)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_tables_are_stored_once_and_never_recomputed(tiny_model, tmp_path):
    model = copy.deepcopy(tiny_model)
    model.latent_codec.hyper.entropy_bottleneck._quantized_cdf[0, 1] += 1
    path = tmp_path / "a.safetensors"
    checkpoint.save(model, path)
    loaded = GLIC.from_pretrained(path)
    assert torch.equal(
        loaded.latent_codec.hyper.entropy_bottleneck._quantized_cdf,
        model.latent_codec.hyper.entropy_bottleneck._quantized_cdf,
    )
    table = model.latent_codec.y.latent_codec.y0.y.gaussian_conditional._quantized_cdf
    assert path.stat().st_size < 2 * 4 * table.numel()


def test_what_cannot_be_saved(tiny_model, tiny_config, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"Expected a model with probability tables \(got one without\)"
    ):
        checkpoint.save(GLIC(tiny_config), tmp_path / "a.safetensors")
    model = copy.deepcopy(tiny_model)
    model.g_a.down[0].bias.data[0] = 1e6
    with pytest.raises(
        CheckpointError, match=r"Expected finite weights \(got others in g_a\.down\.0\.bias as"
    ):
        checkpoint.save(model, tmp_path / "a.safetensors", dtype=torch.float16)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_loaded(tiny_model, tmp_path):
    def error(path):
        with pytest.raises(CheckpointError) as caught:
            checkpoint.load(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    path = tmp_path / "a.safetensors"
    assert "No such file or directory" in error(path)
    path.write_text("no checkpoint")
    assert error(path).startswith(f"Expected a .safetensors checkpoint (got {path}: ")
    save_file({"weight": torch.zeros(1)}, path)
    assert error(path) == f"Expected a checkpoint of glic_pyg (got {path}: KeyError('glic_pyg'))"
    save_file({}, path, metadata={"glic_pyg": '{"format_version": 2}'})
    assert error(path) == f"Expected checkpoint format 1 (got {path} of format 2)"
    checkpoint.save(tiny_model, path)
    path.write_bytes(path.read_bytes()[:-100])
    assert error(path).startswith(f"Expected a .safetensors checkpoint (got {path}: ")


def test_check_state_names_the_first_difference():
    expected = {"a": torch.zeros(2), "b._offset": torch.zeros(0)}
    check_state(expected, {"a": torch.ones(2), "b._offset": torch.zeros(7)}, where="x")
    for state, message in [
        ({"a": torch.zeros(2)}, r"Expected b\._offset in x \(got none\)"),
        (expected | {"c": torch.zeros(1)}, r"Expected no c in x \(got one\)"),
        (expected | {"a": torch.zeros(3)}, r"Expected shape \(2,\) for a in x \(got \(3,\)\)"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            check_state(expected, state, where="x")


def test_resolve(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "WEIGHTS", tmp_path)
    with pytest.raises(CheckpointError, match=r"a model's name \(none in this installation\) \(got nano\)"):
        checkpoint.resolve("nano")
    for name in ("nano", "large"):
        (tmp_path / f"{name}.safetensors").touch()
    assert checkpoint.resolve("nano") == tmp_path / "nano.safetensors"
    assert checkpoint.resolve(tmp_path / "large.safetensors") == tmp_path / "large.safetensors"
    with pytest.raises(CheckpointError, match=r"a model's name \(large, nano\) \(got huge\)"):
        checkpoint.resolve("huge")


def test_identity_follows_weights_tables_and_config(tiny_model, other_tiny_model):
    identity = model_identity(tiny_model)
    assert len(identity) == 8
    assert identity == model_identity(copy.deepcopy(tiny_model))
    assert identity != model_identity(other_tiny_model)

    changed = copy.deepcopy(tiny_model)
    changed.g_s.up[3][0].bias.data[0] += 1e-6
    assert identity != model_identity(changed)

    changed = copy.deepcopy(tiny_model)
    changed.latent_codec.hyper.entropy_bottleneck._quantized_cdf[0, 1] += 1
    assert identity != model_identity(changed)

    changed = copy.deepcopy(tiny_model)
    object.__setattr__(changed.config, "graph", GraphConfig(degree=5))
    assert identity != model_identity(changed)


def test_a_model_with_parts_of_another_kind_is_saved_and_told_apart(tiny_config, tmp_path):
    aggregation = Aggregation("torch_geometric.nn.SAGEConv", {"aggr": "max"})
    graph = GraphConfig(degree=4, score=Part("learned"))
    model = GLIC(replace(tiny_config, aggregation=aggregation, graph=graph))
    model.update()
    x = torch.rand(1, 3, 64, 64)
    expected = model.eval()(x)["x_hat"]
    checkpoint.save(model, tmp_path / "a.safetensors")
    loaded = GLIC.from_pretrained(tmp_path / "a.safetensors")
    assert loaded.config == model.config
    assert model_identity(loaded) == model_identity(model)
    assert torch.equal(loaded(x)["x_hat"], expected)

    changed = copy.deepcopy(model)
    object.__setattr__(changed, "config", replace(model.config, graph=replace(graph, quota=Part("map"))))
    assert model_identity(changed) != model_identity(model)
