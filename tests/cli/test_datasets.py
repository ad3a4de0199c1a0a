import json
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from glic_pyg.evaluation import datasets


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three made pictures, and a list that knows them as Kodak's."""
    known, folder = {}, tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        image = Image.effect_noise((20 + i, 10), 60).convert("RGB")
        image.save(folder / f"p{i}.png")
        known[f"p{i}.png"] = {"width": 20 + i, "height": 10, "sha256": sha256(image.tobytes()).hexdigest()}
    (tmp_path / "kodak.json").write_text(json.dumps(known))
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "datasets.py"))
    return folder


def test_another_encoding_of_the_same_pixels_is_the_data_set(glic, folder):
    with Image.open(folder / "p1.png") as image:
        image.load()
    image.save(folder / "p1.png", compress_level=1)
    assert glic("datasets", "verify", "kodak", folder)[:2] == (0, f"{folder} is kodak\n")


def test_every_difference_is_told(glic, folder):
    with Image.open(folder / "p0.png") as image:
        image.rotate(180).save(folder / "p0.png")
    with Image.open(folder / "p1.png") as image:
        image.resize((10, 5)).save(folder / "p1.png")
    (folder / "p2.png").rename(folder / "q.png")
    status, out, _ = glic("datasets", "verify", "kodak", folder)
    assert status == 1
    assert out.splitlines() == [
        "p2.png: missing", "q.png: not of kodak", "p0.png: other pixels", "p1.png: 10 x 5 instead of 21 x 10",
    ]  # fmt: skip


def test_pictures_that_cannot_be_read_are_lines_among_others(glic, folder):
    (folder / "p0.png").write_bytes(b"no picture")
    data = (folder / "p2.png").read_bytes()
    (folder / "p2.png").write_bytes(data[:-60])
    status, out, err = glic("datasets", "verify", "kodak", folder)
    assert (status, err) == (1, "")
    for line, picture in zip(out.splitlines(), ("p0.png", "p2.png"), strict=True):
        assert line.startswith(f"{picture}: cannot be read: ")


def test_all_of_kodak_is_known():
    known = json.loads((Path(datasets.__file__).parent / "kodak.json").read_text())
    assert list(known) == [f"kodim{i:02}.png" for i in range(1, 25)]
    sizes = [(facts["width"], facts["height"]) for facts in known.values()]
    assert sizes.count((768, 512)) == 18
    assert sizes.count((512, 768)) == 6


def test_no_folder(glic, tmp_path):
    status, _, err = glic("datasets", "verify", "kodak", tmp_path / "no")
    assert (status, err) == (2, f"error: Expected a folder of pictures (got {tmp_path / 'no'})\n")
