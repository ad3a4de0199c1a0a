import csv
import json
import math
import os

import pytest
import torch
from PIL import Image

from glic_pyg import bitstream
from glic_pyg.evaluation.codecs import PillowCodec
from glic_pyg.evaluation.measure import Table
from glic_pyg.image import read_image, write_png
from glic_pyg.metrics import psnr


def results_of(folder):
    """Return the only model's results."""
    (path,) = folder.glob("tiny-*.json")
    return path


@pytest.fixture
def pictures(photo, tmp_path):
    """Two folders with a picture each."""
    paths = [tmp_path / "photos" / "sub" / "a.png", tmp_path / "more" / "b.png"]
    for path, size in zip(paths, [(40, 56), (64, 30)], strict=True):
        path.parent.mkdir(parents=True)
        write_png(photo(*size), path)
    return paths


def test_means_are_of_real_files(glic, pictures, tiny_model, model_file, tmp_path):
    folders = [tmp_path / "photos", tmp_path / "more"]
    status, _, _ = glic("evaluate", "-d", *folders, "--model", model_file, "-o", tmp_path / "out")
    assert status == 0
    bits, decibels, estimates = [], [], []
    for path in pictures:
        x = read_image(path)
        data = bitstream.encode(tiny_model, x)
        bits.append(8 * len(data) / x[0, 0].numel())
        decibels.append(psnr(x, bitstream.decode(tiny_model, data)))
        likelihoods = tiny_model(x)["likelihoods"].values()
        estimates.append(-sum(p.log2().sum().item() for p in likelihoods) / x[0, 0].numel())
    written = json.loads((results_of(tmp_path / "out")).read_text())["results"]
    assert written["quality"] == [None]
    assert written["bpp"] == [pytest.approx(sum(bits) / 2)]
    assert written["psnr-rgb"] == [pytest.approx(sum(decibels) / 2)]
    assert written["estimated-bpp"] == [pytest.approx(sum(estimates) / 2)]
    assert 0 < written["payload-bpp"][0] < written["bpp"][0]
    assert written["ms-ssim-rgb"] == [None]  # too small for five scales
    assert all(written[key][0] > 0 for key in ("encoding_time", "decoding_time"))
    glic("evaluate", "-d", *folders, "--model", model_file, "-o", tmp_path / "out")  # reads what it wrote
    assert json.loads((results_of(tmp_path / "out")).read_text())["results"] == written


def test_rivals_qualities_and_bd_rates(glic, pictures, variable_model, tmp_path):
    variable_model.save(tmp_path / "variable.safetensors")
    arguments = ["-d", tmp_path / "more", "-o", tmp_path / "out", "--rival", "jpeg", "webp"]
    model = ["--model", tmp_path / "variable.safetensors"]
    status, out, _ = glic("evaluate", *arguments, *model, "--quality", "1", "2.5")
    assert status == 0
    assert json.loads((results_of(tmp_path / "out")).read_text())["results"]["quality"] == [1, 2.5]
    for rival in ("jpeg", "webp"):
        curve = json.loads((tmp_path / "out" / f"{rival}.json").read_text())
        assert curve["results"]["bpp"] == sorted(curve["results"]["bpp"])
        assert curve["settings"]["pillow"]
    assert " against jpeg: Expected at least 4 rising points of" in out


def test_measured_rows_are_not_measured_again(glic, pictures, model_file, tmp_path):
    arguments = ["evaluate", "-d", tmp_path / "photos", "--model", model_file, "-o", tmp_path / "out"]
    assert glic(*arguments)[0] == 0
    table = tmp_path / "out" / "pictures.csv"
    header, row = table.read_text().splitlines()
    marked = row.replace(row.split(",")[5], "123.0")
    table.write_text(f"{header}\n{marked}\n{row[:30]}")  # and killed while writing another
    assert glic(*arguments)[0] == 0
    assert json.loads((results_of(tmp_path / "out")).read_text())["results"]["bpp"] == [123.0]
    with table.open() as file:
        assert len(list(csv.DictReader(file))) == 1
    write_png(read_image(pictures[0]).flip(-1) * 0.5, pictures[0])
    status, out, _ = glic(*arguments, "--json")
    assert status == 0
    assert json.loads(out) == json.loads(results_of(tmp_path / "out").read_text())
    assert json.loads((results_of(tmp_path / "out")).read_text())["results"]["bpp"] != [123.0]


@pytest.mark.filterwarnings("always:.*transparent parts")
def test_jobs_give_the_same_figures_and_lines(glic, pictures, model_file, tmp_path):
    (tmp_path / "more" / "text.png").write_text("no picture")
    Image.new("RGBA", (20, 20)).save(tmp_path / "more" / "clear.png")
    for jobs in ("1", "2"):
        status, _, err = glic(
            "evaluate", "-d", tmp_path / "more", tmp_path / "photos", "--model", model_file,
            "--rival", "jpeg", "-o", tmp_path / jobs, "--jobs", jobs,
        )  # fmt: skip
        assert status == 1
        starts = {line.split()[1] for line in err.splitlines()}
        assert starts == {"Expected", str(tmp_path / "more" / "clear.png"), "means"}
        assert len(err.splitlines()) == 3
    one, two = (json.loads((tmp_path / n / "jpeg.json").read_text())["results"] for n in "12")
    assert one["bpp"] == two["bpp"]
    assert one["psnr-rgb"] == two["psnr-rgb"]


def test_pictures_that_cannot_be_read_are_told_once(glic, pictures, model_file, tmp_path):
    (tmp_path / "more" / "text.png").write_text("no picture")
    arguments = ["-d", tmp_path / "more", "--model", model_file, "--rival", "jpeg", "-o", tmp_path / "out"]
    status, _, err = glic("evaluate", *arguments)
    bad = tmp_path / "more" / "text.png"
    assert status == 1
    assert [line.partition(":")[0] for line in err.splitlines()] == ["error", "error"]
    assert err.splitlines()[0].startswith(f"error: Expected a picture (got {bad}: cannot identify image file")
    assert err.splitlines()[1] == f"error: means are of 1 of 2 pictures, without {bad}"
    assert len(json.loads((tmp_path / "out" / "jpeg.json").read_text())["results"]["bpp"]) == 14


def test_a_codec_that_fails_for_a_picture_lets_the_others_go_on(
    glic, pictures, model_file, tmp_path, monkeypatch
):
    """And no codec's means count that picture."""
    encode = PillowCodec.encode

    def fails(self, x, quality):
        if self.name == "webp" and x.size(-1) == 56 and quality in (5, 90):
            raise SystemError("encoder error -2")
        return encode(self, x, quality)

    monkeypatch.setattr(PillowCodec, "encode", fails)
    folders = [tmp_path / "photos", tmp_path / "more"]
    arguments = ["--model", model_file, "--rival", "webp", "jpeg", "-o", tmp_path / "out"]
    status, out, err = glic("evaluate", "-d", *folders, *arguments)
    lines = err.splitlines()
    assert status == 1
    assert lines[:2] == [
        f"error: Expected a file of {pictures[0]} by webp, quality {q} (got SystemError: encoder error -2)"
        for q in (5, 90)
    ]
    assert lines[2:] == [f"error: means are of 1 of 2 pictures, without {pictures[0]}"]
    assert " against webp" in out
    monkeypatch.undo()
    glic("evaluate", "-d", tmp_path / "more", *arguments[:-1], tmp_path / "alone")
    for name in ("tiny", "webp", "jpeg"):
        some, alone = (
            json.loads(next((tmp_path / f).glob(f"{name}*.json")).read_text()) for f in ("out", "alone")
        )
        assert some["results"]["bpp"] == alone["results"]["bpp"]
        assert set(some["results"]["pictures"]) == {1}


def test_a_codec_that_always_fails_is_left_out(glic, pictures, model_file, tmp_path, monkeypatch):
    monkeypatch.setattr(PillowCodec, "decode", lambda self, data: torch.zeros(1, 3, 1, 1))
    arguments = ["-d", tmp_path / "more", "--model", model_file, "-o", tmp_path / "out"]
    status, out, err = glic("evaluate", *arguments, "--rival", "jpeg")
    assert status == 1
    assert err.splitlines()[-1] == "error: jpeg is left out: no picture has its files at every quality"
    assert "Expected pictures of one shape" in err
    assert (results_of(tmp_path / "out")).exists()
    assert "BD-rate" not in out


def test_what_a_rival_restores_exactly(glic, model_file, tmp_path):
    """A grey picture, which WebP and JPEG keep at high quality: no mean PSNR there, but all other figures."""
    folder = tmp_path / "flat"
    folder.mkdir()
    write_png(torch.full((1, 3, 64, 64), 128 / 255), folder / "a.png")
    write_png(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), folder / "b.png")
    arguments = [
        "-d",
        folder,
        "--model",
        model_file,
        "--rival",
        "jpeg",
        "-o",
        tmp_path / "out",
        "--bpp",
        "0",
        "9",
    ]
    status, out, err = glic("evaluate", *arguments)
    assert (status, err) == (0, "")
    (line,) = [
        line for line in out.splitlines() if line.startswith("PSNR has no mean where pictures are restored")
    ]
    assert line.endswith(", 1 of 2 at quality 95")
    columns = json.loads((tmp_path / "out" / "jpeg.json").read_text(), parse_constant=pytest.fail)["results"]
    assert columns["exact-pictures"][-1] == 1
    assert columns["psnr-rgb"][-1] is None
    assert columns["bpp"][-1] > 0
    (model,) = (tmp_path / "out").glob("tiny-*.json")
    status, _, err = glic("bd-rate", "--anchor", tmp_path / "out" / "jpeg.json", "--compare", model)
    assert (status, err.count("\n")) == (2, 1)
    assert "Expected finite scores of " in err and "jpeg.json (jpeg) (got none at " in err


def test_ms_ssim_is_of_the_pictures_that_are_large_enough(glic, photo, model_file, tmp_path):
    write_png(photo(161, 170), tmp_path / "large.png")
    write_png(photo(160, 300), tmp_path / "small.png")
    arguments = ["--model", model_file, "--rival", "jpeg", "-o", tmp_path / "out"]
    status, out, _ = glic("evaluate", "-d", tmp_path, *arguments)
    assert status == 0
    line = "MS-SSIM is of 1 of 2 pictures: others have sides below 161"
    assert out.count(line) == 2  # once for each codec
    both = json.loads((tmp_path / "out" / "jpeg.json").read_text())["results"]
    assert set(both["ms-ssim-pictures"]) == {1}
    with (tmp_path / "out" / "pictures.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["codec"] == "jpeg" and "large" in row["picture"]]
    rows.sort(key=lambda row: float(row["quality"]))
    assert both["ms-ssim-rgb"] == [float(row["ms_ssim"]) for row in rows]
    assert both["ms-ssim-db-rgb"] == [pytest.approx(-10 * math.log10(1 - s)) for s in both["ms-ssim-rgb"]]


def test_bad_input_gives_one_line(glic, pictures, model_file, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, err = glic("evaluate", "-d", tmp_path / "empty", "-o", tmp_path / "out")
    assert status == 2
    assert err == f"error: Expected folders with pictures (got {tmp_path / 'empty'})\n"
    status, _, err = glic("evaluate", "-d", tmp_path / "more", tmp_path / "no", "-o", tmp_path / "out")
    assert (status, err) == (2, f"error: Expected folders with pictures (got {tmp_path / 'no'})\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pictures.csv").write_text("a,b\n1,2\n")
    status, _, err = glic("evaluate", "-d", tmp_path / "more", "-o", tmp_path / "out", "--model", model_file)
    assert status == 2
    assert err.startswith("error: Expected a table of this tool (got ")
    assert math.isclose(len(err.splitlines()), 1)


def test_checkpoints_of_one_configuration_are_told_apart(
    glic, pictures, tiny_model, other_tiny_model, model_file, tmp_path
):
    """By name and identity; and what is given twice counts once, by whatever name."""
    other, again = tmp_path / "other.safetensors", tmp_path / "again.safetensors"
    other_tiny_model.save(other)
    again.symlink_to(model_file)
    folders = [tmp_path / "photos", tmp_path / "more", tmp_path / "photos" / "sub", tmp_path / "more" / "."]
    (tmp_path / "more" / "link.png").symlink_to(pictures[1])
    models = [model_file, other, again, model_file, f"{tmp_path}/./tiny.safetensors"]
    arguments = ["-d", *folders, "--model", *models, "--rival", "jpeg", "jpeg", "-o", tmp_path / "out"]
    status, out, err = glic("evaluate", *arguments)
    assert (status, err) == (0, "")
    identities = {model.identity.hex()[:8]: model for model in (tiny_model, other_tiny_model)}
    files = {path.name for path in (tmp_path / "out").glob("*.json")}
    assert files == {"jpeg.json", *(f"tiny-{identity}.json" for identity in identities)}
    for identity, model in identities.items():
        means = json.loads((tmp_path / "out" / f"tiny-{identity}.json").read_text())
        bits = [8 * len(bitstream.encode(model, x)) / x[0, 0].numel() for x in map(read_image, pictures)]
        assert means["name"] == f"tiny-{identity}"
        assert means["results"]["bpp"] == [pytest.approx(sum(bits) / 2)]
        assert means["results"]["pictures"] == [2]
        assert out.count(f"  tiny-{identity} against jpeg:") == 1
    with (tmp_path / "out" / "pictures.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * (2 + 14)


def test_a_picture_in_place_of_another_is_measured_anew(glic, tiny_model, model_file, tmp_path):
    """Of as many bytes and an older date; rows of the one that was there are gone."""
    photos, results = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    scores = []
    for color in ("red", "white"):
        Image.new("RGB", (40, 30), color).save(photos / "a.bmp")
        os.utime(photos / "a.bmp", (0, 0))
        arguments = ["evaluate", "-d", photos, "--model", model_file, "-o", results]
        assert glic(*arguments)[0] == 0
        x = read_image(photos / "a.bmp")
        (score,) = json.loads(results_of(results).read_text())["results"]["psnr-rgb"]
        assert score == pytest.approx(psnr(x, bitstream.decode(tiny_model, bitstream.encode(tiny_model, x))))
        scores.append(score)
        with (results / "pictures.csv").open() as file:
            assert len(list(csv.DictReader(file))) == 1
    assert scores[0] != scores[1]


def test_results_of_somebody_else_are_not_overwritten(glic, pictures, model_file, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "jpeg.json").write_text("precious")
    arguments = ["-d", tmp_path / "more", "--model", model_file, "--rival", "jpeg", "-o", out]
    status, _, err = glic("evaluate", *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert err.endswith(f"(got {out / 'jpeg.json'}); --force overwrites it\n")
    assert (out / "jpeg.json").read_text() == "precious"
    assert not (out / "pictures.csv").exists()
    (out / "jpeg.json").unlink()
    for precious in (model_file, tmp_path / "more" / "b.png"):  # not by force either
        before = precious.read_bytes()
        (out / "jpeg.json").symlink_to(precious)
        status, _, err = glic("evaluate", *arguments, "--force")
        assert (status, err) == (
            2, f"error: Expected another file for the output than {precious} (got the same)\n"
        )  # fmt: skip
        assert precious.read_bytes() == before
        (out / "jpeg.json").unlink()
    (out / "jpeg.json").write_text("precious")
    assert glic("evaluate", *arguments, "--force")[0] == 0
    assert glic("evaluate", *arguments)[0] == 0


def test_tables_of_earlier_versions_are_filled_anew(glic, pictures, model_file, tmp_path):
    """They told a picture's number of bytes in place of its hash."""
    arguments = ["evaluate", "-d", tmp_path / "photos", "--model", model_file, "-o", tmp_path / "out"]
    assert glic(*arguments)[0] == 0
    table = tmp_path / "out" / "pictures.csv"
    header, row = table.read_text().splitlines()
    digest = row.split(",")[4]
    earlier = row.replace(digest, "1234").replace(row.split(",")[5], "123.0")
    table.write_text(f"{header.replace('picture_sha256', 'picture_bytes')}\n{earlier}\n")
    assert glic(*arguments)[0] == 0
    (row,) = table.read_text().splitlines()[1:]
    assert row.split(",")[4] == digest
    assert "123.0" not in row


def test_names_that_are_no_text(glic, photo, model_file, tmp_path):
    folder = tmp_path / "photos"
    write_png(photo(40, 50), folder / os.fsdecode(b"\xff\x1b[31m.png"))
    (folder / os.fsdecode(b"\xfe\n.png")).write_text("no picture")
    for _ in range(2):
        arguments = ["-d", folder, "--model", model_file, "-o", tmp_path / "out"]
        status, _, err = glic("evaluate", *arguments)
        assert status == 1
        assert "\x1b" not in err
        assert err.splitlines()[0].startswith(f"error: Expected a picture (got {folder}/\\xfe .png: ")
    (row,) = Table(tmp_path / "out" / "pictures.csv").rows.values()
    assert row.picture == (folder / os.fsdecode(b"\xff\x1b[31m.png")).as_posix()


@pytest.mark.parametrize("quality", ["0", "4.01", "nan", "inf", "-1"])
def test_qualities_that_a_model_lacks(glic, pictures, variable_model, tmp_path, quality):
    variable_model.save(tmp_path / "variable.safetensors")
    status, _, err = glic(
        "evaluate", "-d", tmp_path / "more", "-o", tmp_path / "out",
        "--model", tmp_path / "variable.safetensors", f"--quality={quality}",
    )  # fmt: skip
    assert status == 2
    assert err.startswith(f"error: Expected a quality in 1..4 for {tmp_path / 'variable.safetensors'} (got ")
    assert err.count("\n") == 1


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_figures_on_ray_are_those_of_one_process(glic, pictures, model_file, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    arguments = ("evaluate", "-d", "more", "--model", model_file, "--rival", "jpeg")
    assert glic(*arguments, "-o", "here")[0] == 0
    status, _, err = glic(*arguments, "-o", "there", "--ray", "local")
    assert status == 0, err
    for name in ("tiny-*", "jpeg"):
        here, there = (
            json.loads(next((tmp_path / folder).glob(f"{name}.json")).read_text())["results"]
            for folder in ("here", "there")
        )
        assert here["bpp"] == there["bpp"]
        assert here["psnr-rgb"] == there["psnr-rgb"]


def test_ray_and_jobs_exclude_each_other(glic, pictures, tmp_path):
    status, _, err = glic("evaluate", "-d", tmp_path, "-o", tmp_path / "o", "--ray", "local", "--jobs", "2")
    assert (status, err) == (2, "error: Expected --ray without --jobs (got both)\n")
