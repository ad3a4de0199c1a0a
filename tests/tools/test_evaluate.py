import json

import pytest

from glic_pyg import bitstream
from glic_pyg.evaluation.metrics import psnr
from glic_pyg.image import read_image, write_png


def test_means_are_of_real_files(tool, photo, tiny_model, model_file, tmp_path):
    pictures = {"a.png": photo(40, 56), "sub/b.png": photo(64, 30)}
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for name, x in pictures.items():
        write_png(x, tmp_path / "photos" / name)
    results = tmp_path / "results.json"
    status, out, _ = tool(
        "evaluate", "-d", tmp_path / "photos", "--model", model_file, "--save-json", results
    )
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["picture", "a.png", "b.png", "mean"]

    bits, decibels = [], []
    for name in pictures:
        x = read_image(tmp_path / "photos" / name)
        data = bitstream.encode(tiny_model, x)
        bits.append(8 * len(data) / x[0, 0].numel())
        decibels.append(psnr(x, bitstream.decode(tiny_model, data)))
    written = json.loads(results.read_text())["results"]
    assert written["bpp"] == [pytest.approx(sum(bits) / 2)]
    assert written["psnr-rgb"] == [pytest.approx(sum(decibels) / 2)]
    assert all(len(written[key]) == 1 for key in ("encoding_time", "decoding_time"))


def test_a_folder_without_pictures_is_refused(tool, model_file, tmp_path):
    status, _, err = tool("evaluate", "-d", tmp_path, "--model", tmp_path / "none")
    assert status == 2
    assert err == f"error: Expected a folder with pictures (got {tmp_path})\n"
