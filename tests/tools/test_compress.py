import dataclasses
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from glic_pyg import GLIC, bitstream, checkpoint
from glic_pyg.config import Part
from glic_pyg.evaluation.metrics import psnr
from glic_pyg.image import read_image, to_8bit, write_png


def picture(path, size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size).convert(mode).save(path)
    return path


def test_there_and_back(tool, tiny_model, model_file, tmp_path):
    source, coded, restored = picture(tmp_path / "a.png"), tmp_path / "a.glic", tmp_path / "a_restored.png"
    status, out, err = tool("compress", source, "-o", coded, "--model", model_file)
    assert (status, err) == (0, "")
    size = coded.stat().st_size
    assert out.startswith(f"{coded}: {size} bytes, {8 * size / 1200:.4f} bpp, ")
    assert coded.read_bytes() == bitstream.encode(tiny_model, read_image(source))

    status, out, err = tool("decompress", coded, "-o", restored, "--model", model_file)
    assert (status, err) == (0, "")
    assert out.startswith(f"{restored}: 40 x 30 from {8 * size / 1200:.4f} bpp, ")
    expected = to_8bit(bitstream.decode(tiny_model, coded.read_bytes()))
    assert (to_8bit(read_image(restored)) == expected).all()


def test_folders_there_and_back(tool, model_file, tmp_path):
    photos, coded, restored = tmp_path / "photos", tmp_path / "coded", tmp_path / "restored"
    for name in ("a.png", "a.jpg", "sub/b.bmp"):
        picture(photos / name)
    (photos / "broken.png").write_bytes(b"no picture")
    (photos / "notes.txt").write_text("left alone")

    status, out, err = tool("compress", photos, "-o", coded, "--model", model_file)
    assert status == 1
    assert len(out.splitlines()) == 3
    assert f"error: Expected a picture (got {photos / 'broken.png'}: cannot identify" in err
    assert "error: 1 of 4 files could not be converted" in err
    files = sorted(str(p.relative_to(coded)) for p in coded.rglob("*") if p.is_file())
    assert files == ["a.jpg.glic", "a.png.glic", "sub/b.glic"]

    (coded / "a.png.glic").write_bytes((coded / "a.png.glic").read_bytes()[:-1])
    status, out, err = tool("decompress", coded, "-o", restored, "--model", model_file)
    assert status == 1
    assert f"error: {coded / 'a.png.glic'}: Expected checksum" in err
    files = sorted(str(p.relative_to(restored)) for p in restored.rglob("*") if p.is_file())
    assert files == ["a.jpg.png", "sub/b.png"]


@pytest.mark.filterwarnings("default")
def test_transparency_gives_a_warning_line(tool, model_file, tmp_path):
    source = tmp_path / "a.png"
    Image.new("RGBA", (9, 9), (1, 2, 3, 4)).save(source)
    status, _, err = tool("compress", source, "-o", tmp_path / "a.glic", "--model", model_file)
    assert status == 0
    assert err == f"warning: {source} has transparent parts: composited over white\n"


def test_errors_are_one_line_and_status_2(tool, model_file, tmp_path):
    target = tmp_path / "a.glic"
    source = picture(tmp_path / "a.png")
    for arguments, message in [
        ((tmp_path / "none.png", "-o", target, "--model", model_file), "Expected a picture (got"),
        (
            (source, "-o", target, "--model", "unknown"),
            "Expected the path of a .safetensors file or a model's name",
        ),
        ((source, "-o", target, "--model", source), "Expected a .safetensors checkpoint (got"),
        ((source, "-o", tmp_path, "--model", model_file), "Expected a file name for the output"),
    ]:
        status, out, err = tool("compress", *arguments)
        assert (status, out) == (2, "")
        assert err.startswith(f"error: {message}")
        assert err.count("\n") == 1
        assert not target.exists()


def test_a_second_start_skips_what_is_done(tool, model_file, variable_model, tmp_path):
    photos, coded, restored = tmp_path / "photos", tmp_path / "coded", tmp_path / "restored"
    picture(photos / "a.png"), picture(photos / "b.png")
    checkpoint.save(variable_model, tmp_path / "variable.safetensors")
    compress = ["compress", photos, "-o", coded, "--model", tmp_path / "variable.safetensors"]
    assert len(tool(*compress, "--quality", "1.5")[1].splitlines()) == 2
    (coded / "b.glic").write_bytes(b"something else")
    status, out, _ = tool(*compress, "--quality", "1.5")
    assert status == 0
    assert out.splitlines()[0].startswith(f"{coded / 'b.glic'}: ")
    assert out.splitlines()[1] == "1 of 2 files were done already"
    assert len(tool(*compress, "--quality", "2")[1].splitlines()) == 2  # another quality, other files
    assert tool(*compress)[1] == "2 of 2 files were done already\n"  # the middle one
    decompress = ["decompress", coded, "-o", restored, "--model", tmp_path / "variable.safetensors"]
    assert len(tool(*decompress)[1].splitlines()) == 2
    assert tool(*decompress)[1] == "2 of 2 files were done already\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quality", "9"], "error: Expected a quality in 1..4 (got 9.0)"),
        (["--target-bpp", "99"], "error: Expected a target in "),
        (["--max-pixels", "1199"], "error: Expected at most 1199 pixels (got "),
        (
            ["--max-memory", "300M"],
            "error: Expected --max-memory of at least ",
        ),
    ],
)
def test_what_cannot_be_had_gives_one_line(tool, variable_model, tmp_path, arguments, message):
    checkpoint.save(variable_model, tmp_path / "variable.safetensors")
    target = tmp_path / "a.glic"
    status, _, err = tool(
        "compress", picture(tmp_path / "a.png"), "-o", target, "--model", tmp_path / "variable.safetensors",
        *arguments,
    )  # fmt: skip
    (line,) = err.splitlines()
    assert status == 2
    assert line.startswith(message)
    assert not target.exists()


@pytest.mark.parametrize("text", ["4 G", "G", "-1", "4.5G", "4GB"])
def test_memory_is_a_whole_number_of_bytes(tool, tmp_path, text):
    status, _, err = tool("compress", tmp_path, "-o", tmp_path, f"--max-memory={text}")
    assert status == 2
    assert f"argument --max-memory: Expected a number of bytes such as 4G (got {text})" in err


def test_a_search_within_a_bound_on_memory(tool, variable_model, tmp_path):
    """Whose picture fits: the file is the same."""
    checkpoint.save(variable_model, tmp_path / "variable.safetensors")
    source, arguments = picture(tmp_path / "a.png"), ["--model", tmp_path / "variable.safetensors"]
    data = [bitstream.encode(variable_model, read_image(source), quality) for quality in (1, 4)]
    for flag, aim in [("--target-bpp", 8 * len(data[1]) / 1200), ("--target-psnr", None)]:
        if aim is None:
            aim = psnr(read_image(source), bitstream.decode(variable_model, data[1]))
        files = []
        for bound in ([], ["--max-memory", f"{2**31}"]):
            target = tmp_path / f"{len(files)}.glic"
            status, _, err = tool("compress", source, "-o", target, *arguments, flag, f"{aim:.6f}", *bound)
            assert (status, err) == (0, "")
            files.append(target.read_bytes())
        assert files[0] == files[1]


def test_in_a_folder_the_refused_picture_is_named(tool, model_file, tmp_path):
    source = picture(tmp_path / "photos" / "a.png")
    status, _, err = tool(
        "compress", source.parent, "-o", tmp_path / "out", "--model", model_file, "--max-memory", "300M"
    )
    assert status == 1
    assert err.splitlines()[0].startswith(f"error: {source}: Expected --max-memory of at least ")


def test_a_model_file_runs_code_only_if_allowed(tool, model_file, tiny_model, tmp_path, monkeypatch):
    (tmp_path / "my_score_4714.py").write_text(
        "from glic_pyg.graph.complexity import Sobel\nclass Mine(Sobel): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    graph = dataclasses.replace(tiny_model.config.graph, score=Part("my_score_4714.Mine"))
    model = GLIC(dataclasses.replace(tiny_model.config, graph=graph))
    model.load_state_dict(tiny_model.state_dict())
    checkpoint.save(model, model_file)
    monkeypatch.delitem(sys.modules, "my_score_4714")
    write_png(torch.rand(1, 3, 40, 50), tmp_path / "a.png")
    files = {"compress": ("a.png", "a.glic"), "decompress": ("a.glic", "b.png")}
    for name, (source, target) in files.items():
        arguments = [tmp_path / source, "-o", tmp_path / target, "--model", model_file]
        if name == "compress":
            status, _, err = tool(name, *arguments)
            assert status == 2
            assert "allow it, if you trust the file, by allow_code=True or --allow-code)" in err
            assert "my_score_4714" not in sys.modules
        assert tool(name, *arguments, "--allow-code")[0] == 0
    assert (tmp_path / "b.png").exists()


@pytest.mark.parametrize("quality", ["0", "0.001", "0.999", "-1", "nan", "inf", "-inf", "4.01", "1e300"])
def test_qualities_that_no_file_can_say(tool, tmp_path, variable_model, quality):
    checkpoint.save(variable_model, tmp_path / "model.safetensors")
    write_png(torch.rand(1, 3, 40, 50), tmp_path / "a.png")
    run = [tmp_path / "a.png", "-o", tmp_path / "a.glic", "--model", tmp_path / "model.safetensors"]
    status, _, err = tool("compress", *run, f"--quality={quality}")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("error: Expected a quality in 1..4 (got ")
    assert not (tmp_path / "a.glic").exists()
