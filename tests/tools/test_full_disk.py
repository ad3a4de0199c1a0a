"""A disk that is full: one line that names the file, and nothing of it left."""

import errno
import os
from pathlib import Path

import lightning.pytorch
import pytest
import yaml

from glic_pyg import bitstream
from glic_pyg.image import write_png

FULL = Path("/dev/full")  # takes no byte

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


def fill_disk(path):
    """Make what is written for `path` arrive on a full disk."""
    path.parent.mkdir(exist_ok=True)
    path.with_name(f".{path.name}.{os.getpid()}.partial").symlink_to(FULL)


@pytest.fixture
def photos(photo, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        write_png(photo(70, 90), folder / name)
    return folder


def test_one_file(tool, photos, tiny_model, model_file, photo, tmp_path):
    coded, restored, output = tmp_path / "x.glic", tmp_path / "x.png", tmp_path / "out"
    coded.write_bytes(bitstream.encode(tiny_model, photo(70, 90)))
    for path, name, arguments in [
        (output / "a.glic", "compress", [photos / "a.png", "-o", output / "a.glic"]),
        (output / "x.png", "decompress", [coded, "-o", output / "x.png"]),
        (output / "pictures.csv", "evaluate", ["-d", photos, "-o", output]),
        (output / "tiny.json", "evaluate", ["-d", photos, "-o", output]),
    ]:
        fill_disk(path)
        status, _, err = tool(name, *arguments, "--model", model_file)
        assert (status, err.splitlines()[-1]) == (2, f"error: No space left on device: {path}")
        assert not path.exists()
        assert not list(output.glob(".*"))
    assert not restored.exists()


def test_in_a_folder_the_others_go_on(tool, photos, model_file, tmp_path):
    path = tmp_path / "out" / "a.glic"
    fill_disk(path)
    status, out, err = tool("compress", photos, "-o", tmp_path / "out", "--model", model_file)
    assert status == 1
    assert out.startswith(f"{tmp_path / 'out' / 'b.glic'}: ")
    assert err.splitlines() == [
        f"error: No space left on device: {path}", "error: 1 of 2 files could not be converted",
    ]  # fmt: skip
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.glic"]


def test_training_keeps_the_checkpoint_before(tool, photos, tiny_config, tmp_path, monkeypatch):
    run, save = tmp_path / "run", lightning.pytorch.Trainer.save_checkpoint
    settings = {
        "model": tiny_config.to_dict(), "steps": 2, "batch_size": 1, "patch_size": 64, "eval_size": 64,
        "eval_every": 1, "num_workers": 0,
    }  # fmt: skip
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["--config", tmp_path / "train.yaml", "-d", photos, "-o", run]
    assert tool("train", *arguments)[0] == 0
    before = {name: (run / name).read_bytes() for name in ("latest.ckpt", "latest.safetensors")}

    def half(self, path, *arguments):
        Path(path).write_bytes(before["latest.ckpt"][:1000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/elsewhere")

    monkeypatch.setattr(lightning.pytorch.Trainer, "save_checkpoint", half)
    status, _, err = tool("train", *arguments, "--steps", "3", "--resume")
    errors = [line.partition("error: ")[2] for line in err.splitlines() if "error: " in line]
    assert (status, errors) == (2, [f"No space left on device: {run / 'latest.ckpt'}"])

    monkeypatch.setattr(lightning.pytorch.Trainer, "save_checkpoint", save)
    fill_disk(run / "latest.safetensors")
    status, _, err = tool("train", *arguments, "--steps", "3", "--resume")
    errors = [line.partition("error: ")[2] for line in err.splitlines() if "error: " in line]
    assert (status, errors) == (2, [f"No space left on device: {run / 'latest.safetensors'}"])
    assert (run / "latest.safetensors").read_bytes() == before["latest.safetensors"]
    assert not list(run.glob(".*"))
