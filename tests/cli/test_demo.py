import io
import re

import torch
from PIL import Image

from glic_pyg import bitstream
from glic_pyg.image import read_image, to_8bit


def test_demo(glic, tiny_model, model_file, tmp_path):
    folder = tmp_path / "demo"
    status, out, err = glic("demo", "--model", model_file, "-o", folder)
    assert (status, err) == (0, "")

    coded = (folder / "photo.glic").read_bytes()
    both, restored = read_image(folder / "original_restored.png"), read_image(folder / "restored.png")
    height, width = restored.shape[-2:]
    assert torch.equal(both[..., width:], restored)
    original = both[..., :width]
    assert coded == bitstream.encode(tiny_model, original)
    assert torch.equal(to_8bit(restored), to_8bit(bitstream.decode(tiny_model, coded)))
    assert (folder / "graph.png").read_bytes().startswith(b"\x89PNG")

    def dB(x_hat):
        return -10 * torch.log10((x_hat - original).square().mean()).item()

    assert f"{width} x {height}; model tiny\n" in out
    assert f"file      {len(coded)} bytes, {8 * len(coded) / (height * width):.3f} bpp\n" in out
    assert f"PSNR      {dB(restored):.2f} dB" in out
    assert re.search(r"time      encode \d+\.\d\d s, decode \d+\.\d\d s\n", out)
    jpeg_size, jpeg_psnr, quality = re.search(
        r"JPEG      (\d+) bytes, .* bpp, (.*) dB .*quality (\d+)", out
    ).groups()
    with Image.open(folder / "original_restored.png") as image:
        image = image.crop((0, 0, width, height))
    sizes = []
    for near in range(max(1, int(quality) - 1), min(95, int(quality) + 1) + 1):
        file = io.BytesIO()
        image.save(file, format="JPEG", quality=near, optimize=True)
        sizes.append(abs(len(file.getvalue()) - len(coded)))
        if near == int(quality):
            assert len(file.getvalue()) == int(jpeg_size)
            assert f"{dB(read_image(file)):.2f}" == jpeg_psnr
    assert min(sizes) == abs(int(jpeg_size) - len(coded))
    for name in ("photo.glic", "restored.png", "original_restored.png", "graph.png"):
        assert str(folder / name) in out
