"""What one setting of torch encodes, each other one decodes: in small what `lab/all_pairs.py` does."""

import json
from contextlib import ExitStack

import portability
import pytest
import torch
from portability import SETTINGS

from glic_pyg.image import write_png

FIRST = "2 threads"
HERE = [name for name, setting in SETTINGS.items() if not setting.environment]
"""Those that need no process of their own."""


@pytest.fixture
def job(tiny_model, photo, tmp_path):
    """One picture, of as many positions as linear maps need to become pictures of oneDNN's, or NNPACK's."""
    tiny_model.save(tmp_path / "model.safetensors")
    write_png(photo(250, 256), tmp_path / "a.png")
    return {
        "model": str(tmp_path / "model.safetensors"),
        "allow_code": False,
        "quality": None,
        "pictures": [str(tmp_path / "a.png")],
        "settings": HERE,
    }


def test_every_setting_decodes_what_every_other_encodes(job, tmp_path, monkeypatch):
    monkeypatch.setattr(portability, "ARITHMETIC", {"exact": True})
    threads = torch.get_num_threads()
    try:
        for name in HERE:
            portability.work("encode", job, name, tmp_path)
        tables = [portability.work("decode", job, name, tmp_path)["same"] for name in HERE]
    finally:
        torch.set_num_threads(threads)
    for name, table in zip(HERE, tables, strict=True):
        assert table["exact"] == dict.fromkeys(HERE, 1), name
    assert len(HERE) >= 12


def test_settings_are_what_they_say():
    """And end."""
    seen = {}
    for name in HERE:
        with ExitStack() as stack:
            for flag in SETTINGS[name].flags:
                stack.enter_context(flag())
            backends = torch.backends
            seen[name] = (
                backends.mkldnn.enabled,
                backends.mkldnn.conv.fp32_precision,
                torch.get_default_dtype(),
                torch.are_deterministic_algorithms_enabled(),
                (torch.tensor([1e-38]) / 100).item() == 0,
                backends.mkldnn.deterministic,
                torch.is_autocast_enabled("cpu"),
            )
    assert seen[FIRST] == (True, "none", torch.float32, *[False] * 4)
    assert not seen["oneDNN off"][0]
    assert seen["oneDNN in bfloat16"][1] == "bf16"
    assert seen["TF32 everywhere"][1] == "tf32"
    assert seen["float64 by default"][2] == torch.float64
    assert seen["flushed denormals"][4]
    assert seen["oneDNN, deterministic"][5]
    assert seen["autocast"][6]
    with ExitStack() as stack:
        assert torch.backends.mkldnn.enabled
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_default_dtype() == torch.float32
        assert (torch.tensor([1e-38]) / 100).item() > 0
        assert not torch.backends.mkldnn.deterministic


def test_a_setting_of_the_environment_has_its_own_process(job, tmp_path):
    name = "ATen default"
    job["settings"] = [name]
    (tmp_path / "job.json").write_text(json.dumps(job))
    portability.start("encode", tmp_path, name)
    portability.start("decode", tmp_path, name)
    done = torch.load(tmp_path / f"decode {name}.pt", weights_only=True)
    assert done["same"]["exact"] == {name: 1}
