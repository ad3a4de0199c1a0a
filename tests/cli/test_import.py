import torch

from glic_pyg import GLIC, published
from glic_pyg.published import published_name, published_shape


def test_import(glic, tiny_config, tiny_model, tmp_path, monkeypatch):
    """On a small model, in the authors' layout with its shapes."""
    monkeypatch.setattr(published, "ModelConfig", lambda: tiny_config)
    state = {}
    for our_name, value in tiny_model.state_dict().items():
        name = published_name(our_name)
        state[name] = value.reshape(published_shape(name, tuple(value.shape)))
    torch.save({"state_dict": state}, tmp_path / "a.pth.tar")

    target = tmp_path / "a.safetensors"
    status, out, err = glic("import", tmp_path / "a.pth.tar", "-o", target)
    assert (status, err) == (0, "")
    assert out == f"{target}: 0.07 M parameters, {target.stat().st_size} bytes\n"
    loaded = GLIC.from_pretrained(target).state_dict()
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(loaded[name], value), name

    half = tmp_path / "half.safetensors"
    assert glic("import", tmp_path / "a.pth.tar", "-o", half, "--dtype", "float16")[0] == 0
    assert half.stat().st_size < target.stat().st_size


def test_errors_are_one_line(glic, tmp_path):
    (tmp_path / "a.pth.tar").write_text("no checkpoint")
    status, out, err = glic("import", tmp_path / "a.pth.tar", "-o", tmp_path / "a.safetensors")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: Expected a checkpoint of tensors (got ")
    assert not (tmp_path / "a.safetensors").exists()
