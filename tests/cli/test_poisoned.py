"""Pickles that run code when they are loaded: every command that takes a model refuses them."""

import os
import pickle
import re
from pathlib import Path

import pytest
import torch
import yaml
from compressai.zoo import image as zoo
from PIL import Image

from glic_pyg.evaluation import compressai_models


class Payload:
    """Makes a folder when it is unpickled by a loader that runs code."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def trace(tmp_path):
    return tmp_path / "ran"


@pytest.fixture(params=["archive", "old archive", "pickle"])
def poisoned(request, trace, tmp_path):
    """A checkpoint in each of the forms that torch.load reads, with a payload among its tensors."""
    path, content = tmp_path / "weights.pth.tar", {"state_dict": {"a": torch.ones(1), "b": Payload(trace)}}
    if request.param == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=request.param == "archive")
    return path


def assert_no_advice(message: str) -> None:
    """Torch advises to load such a file with its code."""
    assert not re.search("weights.only|trust|docs|\x1b", message)


def test_the_payload_works(poisoned, trace):
    """Else the tests below would show nothing."""
    if poisoned.read_bytes()[:2] == b"PK" or b"state_dict" not in poisoned.read_bytes()[:60]:
        torch.load(poisoned, weights_only=False)
    else:
        pickle.loads(poisoned.read_bytes())
    assert trace.is_dir()


@pytest.mark.parametrize("suffix", [".pth.tar", ".safetensors"])
@pytest.mark.parametrize("tool_name", ["compress", "decompress", "evaluate", "import", "train"])
def test_a_poisoned_model_is_refused(glic, tool_name, suffix, poisoned, trace, tmp_path, tiny_config):
    model = poisoned.rename(poisoned.with_suffix("").with_suffix(suffix))
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (80, 80)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({"model": tiny_config.to_dict(), "steps": 1}))
    photo, output = tmp_path / "photos" / "a.png", tmp_path / "output.png"
    arguments = {
        "compress": [photo, "-o", output, "--model", model],
        "decompress": [photo, "-o", output, "--model", model],
        "evaluate": ["-d", tmp_path / "photos", "-o", output, "--model", model],
        "import": [model, "-o", output],
        "train": [
            "--config", tmp_path / "train.yaml", "-d", photo.parent, "-o", output, "--checkpoint", model,
        ],
    }[tool_name]  # fmt: skip
    status, _, err = glic(tool_name, *arguments)
    assert (status, err.count("\n")) == (2, 1), err
    assert err.startswith("error: Expected a ")
    assert str(model) in err
    assert_no_advice(err)
    assert not trace.exists()
    assert not output.exists()


def test_a_poisoned_run_is_not_resumed(glic, poisoned, trace, tmp_path, tiny_config):
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({"model": tiny_config.to_dict(), "steps": 1}))
    (tmp_path / "run").mkdir()
    poisoned.rename(tmp_path / "run" / "latest.ckpt")
    run = ["--config", tmp_path / "train.yaml", "-d", tmp_path, "-o", tmp_path / "run", "--resume"]
    status, _, err = glic("train", *run)
    assert (status, err.count("\n")) == (2, 1), err
    assert err.startswith("error: Expected a training checkpoint (got ")
    assert_no_advice(err)
    assert not trace.exists()


def test_a_poisoned_download_is_refused(glic, poisoned, trace, tmp_path, monkeypatch):
    """CompressAI's own loader would run it."""
    name = "bmshj2018-factorized"
    monkeypatch.setitem(zoo.model_urls[name]["mse"], 1, poisoned.as_uri())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    message = f"Expected published weights of {name}"
    with pytest.raises(compressai_models.CheckpointError, match=message) as caught:
        compressai_models.load_compressai(name, quality=1)
    assert_no_advice(str(caught.value))
    assert (tmp_path / "cache" / "hub" / "checkpoints" / poisoned.name).exists()
    assert not trace.exists()
