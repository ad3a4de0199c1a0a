import csv
import json
import math

import pytest

from glic_pyg import bitstream, checkpoint
from glic_pyg.evaluation.metrics import psnr
from glic_pyg.image import read_image, write_png


@pytest.fixture
def pictures(photo, tmp_path):
    """Two folders with a picture each."""
    paths = [tmp_path / "photos" / "sub" / "a.png", tmp_path / "more" / "b.png"]
    for path, size in zip(paths, [(40, 56), (64, 30)], strict=True):
        path.parent.mkdir(parents=True)
        write_png(photo(*size), path)
    return paths


def test_means_are_of_real_files(tool, pictures, tiny_model, model_file, tmp_path):
    folders = [tmp_path / "photos", tmp_path / "more"]
    status, _, _ = tool("evaluate", "-d", *folders, "--model", model_file, "-o", tmp_path / "out")
    assert status == 0
    bits, decibels, estimates = [], [], []
    for path in pictures:
        x = read_image(path)
        data = bitstream.encode(tiny_model, x)
        bits.append(8 * len(data) / x[0, 0].numel())
        decibels.append(psnr(x, bitstream.decode(tiny_model, data)))
        likelihoods = tiny_model(x)["likelihoods"].values()
        estimates.append(-sum(p.log2().sum().item() for p in likelihoods) / x[0, 0].numel())
    written = json.loads((tmp_path / "out" / "tiny.json").read_text())["results"]
    assert written["quality"] == [None]
    assert written["bpp"] == [pytest.approx(sum(bits) / 2)]
    assert written["psnr-rgb"] == [pytest.approx(sum(decibels) / 2)]
    assert written["estimated-bpp"] == [pytest.approx(sum(estimates) / 2)]
    assert 0 < written["payload-bpp"][0] < written["bpp"][0]
    assert written["ms-ssim-rgb"] == [None]  # too small for five scales
    assert all(written[key][0] > 0 for key in ("encoding_time", "decoding_time"))
    tool("evaluate", "-d", *folders, "--model", model_file, "-o", tmp_path / "out")  # reads what it wrote
    assert json.loads((tmp_path / "out" / "tiny.json").read_text())["results"] == written


def test_rivals_qualities_and_bd_rates(tool, pictures, variable_model, tmp_path):
    checkpoint.save(variable_model, tmp_path / "variable.safetensors")
    arguments = ["-d", tmp_path / "more", "-o", tmp_path / "out", "--rival", "jpeg", "webp"]
    model = ["--model", tmp_path / "variable.safetensors"]
    status, out, _ = tool("evaluate", *arguments, *model, "--quality", "1", "2.5")
    assert status == 0
    assert json.loads((tmp_path / "out" / "tiny.json").read_text())["results"]["quality"] == [1, 2.5]
    for rival in ("jpeg", "webp"):
        curve = json.loads((tmp_path / "out" / f"{rival}.json").read_text())
        assert curve["results"]["bpp"] == sorted(curve["results"]["bpp"])
        assert curve["settings"]["pillow"]
    assert "tiny against jpeg: Expected at least 4 rising points of" in out


def test_measured_rows_are_not_measured_again(tool, pictures, model_file, tmp_path):
    arguments = ["evaluate", "-d", tmp_path / "photos", "--model", model_file, "-o", tmp_path / "out"]
    assert tool(*arguments)[0] == 0
    table = tmp_path / "out" / "pictures.csv"
    header, row = table.read_text().splitlines()
    marked = row.replace(row.split(",")[5], "123.0")
    table.write_text(f"{header}\n{marked}\n{row[:30]}")  # and killed while writing another
    assert tool(*arguments)[0] == 0
    assert json.loads((tmp_path / "out" / "tiny.json").read_text())["results"]["bpp"] == [123.0]
    with table.open() as file:
        assert len(list(csv.DictReader(file))) == 1
    write_png(read_image(pictures[0]).flip(-1) * 0.5, pictures[0])
    assert tool(*arguments)[0] == 0
    assert json.loads((tmp_path / "out" / "tiny.json").read_text())["results"]["bpp"] != [123.0]


def test_workers_give_the_same_figures(tool, pictures, model_file, tmp_path):
    for workers in ("1", "2"):
        status, _, err = tool(
            "evaluate", "-d", tmp_path / "more", tmp_path / "photos", "--model", model_file,
            "--rival", "jpeg", "-o", tmp_path / workers, "--workers", workers,
        )  # fmt: skip
        assert status == 0, err
    one, two = (json.loads((tmp_path / n / "jpeg.json").read_text())["results"] for n in "12")
    assert one["bpp"] == two["bpp"]
    assert one["psnr-rgb"] == two["psnr-rgb"]


def test_bad_input_gives_one_line(tool, pictures, model_file, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, err = tool("evaluate", "-d", tmp_path / "empty", "-o", tmp_path / "out")
    assert status == 2
    assert err == f"error: Expected folders with pictures (got {tmp_path / 'empty'})\n"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pictures.csv").write_text("a,b\n1,2\n")
    status, _, err = tool("evaluate", "-d", tmp_path / "more", "-o", tmp_path / "out", "--model", model_file)
    assert status == 2
    assert err.startswith("error: Expected a table of this tool (got ")
    assert math.isclose(len(err.splitlines()), 1)
