"""A disk that is full: one line that names the file, and nothing of it left."""

import resource

import pytest
import yaml

from glic_pyg import bitstream, files
from glic_pyg.image import write_png
from glic_pyg.ledger import NAME


@pytest.fixture
def fill_disk(monkeypatch):
    """Leave no room for a file, as a quota does: path -> None."""
    replace, full = files._replace, []

    def limited(target, write):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        if target in full:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            replace(target, write)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(files, "_replace", limited)
    return lambda path: full.__setitem__(slice(None), [path])


@pytest.fixture
def photos(photo, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        write_png(photo(70, 90), folder / name)
    return folder


def test_one_file(glic, fill_disk, photos, tiny_model, model_file, photo, tmp_path):
    coded, restored, output = tmp_path / "x.glic", tmp_path / "x.png", tmp_path / "out"
    coded.write_bytes(bitstream.encode(tiny_model, photo(70, 90)))
    results = output / f"tiny-{tiny_model.identity.hex()[:8]}.json"
    for path, name, arguments in [
        (output / "a.glic", "compress", [photos / "a.png", "-o", output / "a.glic"]),
        (output / "x.png", "decompress", [coded, "-o", output / "x.png"]),
        (output / "pictures.csv", "evaluate", ["-d", photos, "-o", output]),
        (results, "evaluate", ["-d", photos, "-o", output]),
    ]:
        fill_disk(path)
        status, _, err = glic(name, *arguments, "--model", model_file)
        assert (status, err.splitlines()[-1]) == (2, f"error: File too large: {path}")
        assert not path.exists()
        assert {path.name for path in output.glob(".*")} <= {NAME}
    assert not restored.exists()


def test_in_a_folder_the_others_go_on(glic, fill_disk, photos, model_file, tmp_path):
    path = tmp_path / "out" / "a.glic"
    fill_disk(path)
    status, out, err = glic("compress", photos, "-o", tmp_path / "out", "--model", model_file)
    assert status == 1
    assert out.startswith(f"{tmp_path / 'out' / 'b.glic'}: ")
    assert err.splitlines() == [
        f"error: File too large: {path}", "error: 1 of 2 files could not be converted",
    ]  # fmt: skip
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"b.glic", NAME}


def test_training_keeps_the_checkpoint_before(glic, fill_disk, photos, tiny_config, tmp_path):
    run = tmp_path / "run"
    settings = {
        "model": tiny_config.to_dict(), "steps": 2, "batch_size": 1, "patch_size": 64, "eval_size": 64,
        "eval_every": 1, "num_workers": 0,
    }  # fmt: skip
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["--config", tmp_path / "train.yaml", "-d", photos, "-o", run]
    assert glic("train", *arguments)[0] == 0
    before = {name: (run / name).read_bytes() for name in ("latest.ckpt", "latest.safetensors")}

    for name in ("latest.ckpt", "latest.safetensors"):
        fill_disk(run / name)
        status, _, err = glic("train", *arguments, "--steps", "3", "--resume")
        errors = [line.partition("error: ")[2] for line in err.splitlines() if "error: " in line]
        assert (status, errors) == (2, [f"File too large: {run / name}"])
        assert {path.name for path in run.glob(".*")} <= {NAME}
    assert (run / "latest.safetensors").read_bytes() == before["latest.safetensors"]
    assert {path.name for path in run.glob(".*")} <= {NAME}
