import io
import json
import re

import torch
from PIL import Image

from glic_pyg import bitstream
from glic_pyg.evaluation import demo
from glic_pyg.image import read_image, to_8bit, to_pil


def test_demo(glic, photo, tiny_model, model_file, tmp_path, monkeypatch):
    """With a small photo in place of its own."""
    file = io.BytesIO()
    to_pil(photo(176, 208)).save(file, format="JPEG", quality=95)
    monkeypatch.setattr(demo, "photo_bytes", file.getvalue)
    folder = tmp_path / "demo"
    status, out, err = glic("demo", "--model", model_file, "-o", folder)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert "in one page, " in lines[1]  # what it does, before it does it
    assert "20 seconds" in lines[1]
    assert lines[-1].startswith("next ")

    original, restored = read_image(folder / "photo.jpg"), read_image(folder / "restored.png")
    coded = (folder / "photo.glic").read_bytes()
    assert coded == bitstream.encode(tiny_model, original)
    assert torch.equal(to_8bit(restored), to_8bit(bitstream.decode(tiny_model, coded)))

    def dB(x_hat):
        return -10 * torch.log10((x_hat - original).square().mean()).item()

    pixels = original.shape[-1] * original.shape[-2]
    size = f"{len(coded):,}".replace(",", " ")
    assert f"{size} bytes, {8 * len(coded) / pixels:.3f} bpp, {dB(restored):.2f} dB, MS-SSIM " in out

    page = (folder / "demo.html").read_text()
    assert f"<h1>A photo in {size} bytes</h1>" in page
    content = json.loads(re.search(r'id="pictures">(.*?)</script>', page, re.DOTALL)[1])
    ((_, ours, *rivals),) = (picture["layers"] for picture in content)
    assert ours["text"] in out
    for rival in rivals:
        assert f"{rival['name']:10} {rival['text']}" in lines
    assert page.count("<figure><figcaption>") == len(rivals) + 2
    assert page.count("<svg") == 2

    # No quality of JPEG comes nearer.
    with Image.open(folder / "photo.jpg") as image:
        sizes = []
        for quality in range(1, 96):
            file = io.BytesIO()
            image.save(file, format="JPEG", quality=quality, optimize=True, subsampling="4:2:0")
            sizes.append(file.tell())
    nearest = min(sizes, key=lambda some: abs(some - len(coded)))
    (jpeg,) = (rival for rival in rivals if rival["name"] == "JPEG")
    assert int(re.match(r"[\d ]+", jpeg["text"])[0].replace(" ", "")) == nearest


def test_the_photo_is_small_and_its_licence_is_told():
    from importlib.resources import files

    folder = files("glic_pyg") / "photos"
    licence = (folder / "LICENSE.md").read_text()
    for photo in (path for path in folder.iterdir() if path.name != "LICENSE.md"):
        assert len(photo.read_bytes()) <= 100_000
        assert f"`{photo.name}`" in licence
    assert "CC0" in licence
