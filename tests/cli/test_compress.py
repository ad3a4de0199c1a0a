import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from glic_pyg import GLIC, bitstream
from glic_pyg.cli.refining import Refining
from glic_pyg.config import Part
from glic_pyg.container import unpack
from glic_pyg.image import read_image, to_8bit, write_png
from glic_pyg.ledger import NAME
from glic_pyg.metrics import psnr

COMMAND = [sys.executable, "-m", "glic_pyg"]
WAITING = re.compile(rb"^.*, \d+ s\n", re.MULTILINE)
"""What a command says every 20 seconds, on a machine so busy."""


def picture(path, size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size).convert(mode).save(path)
    return path


def test_there_and_back(glic, tiny_model, model_file, tmp_path):
    source, coded, restored = picture(tmp_path / "a.png"), tmp_path / "a.glic", tmp_path / "a_restored.png"
    status, out, err = glic("compress", source, "-o", coded, "--model", model_file)
    assert (status, err) == (0, "")
    size = coded.stat().st_size
    assert out.startswith(f"{coded}: {size} bytes, {8 * size / 1200:.4f} bpp, ")
    assert coded.read_bytes() == bitstream.encode(tiny_model, read_image(source))

    status, out, err = glic("decompress", coded, "-o", restored, "--model", model_file)
    assert (status, err) == (0, "")
    assert out.startswith(f"{restored}: 40 x 30 from {8 * size / 1200:.4f} bpp, ")
    expected = to_8bit(bitstream.decode(tiny_model, coded.read_bytes()))
    assert (to_8bit(read_image(restored)) == expected).all()


def test_folders_there_and_back(glic, model_file, tmp_path):
    photos, coded, restored = tmp_path / "photos", tmp_path / "coded", tmp_path / "restored"
    for name in ("a.png", "a.jpg", "sub/b.bmp"):
        picture(photos / name)
    (photos / "broken.png").write_bytes(b"no picture")
    (photos / "notes.txt").write_text("left alone")

    status, out, err = glic("compress", photos, "-o", coded, "--model", model_file)
    assert status == 1
    assert len(out.splitlines()) == 3
    assert f"error: Expected a picture (got {photos / 'broken.png'}: cannot identify" in err
    assert "error: 1 of 4 files could not be converted" in err
    files = sorted(str(p.relative_to(coded)) for p in coded.rglob("*.*") if p.is_file() and p.name != NAME)
    assert files == ["a.jpg.glic", "a.png.glic", "sub/b.glic"]

    (coded / "a.png.glic").write_bytes((coded / "a.png.glic").read_bytes()[:-1])
    status, out, err = glic("decompress", coded, "-o", restored, "--model", model_file)
    assert status == 1
    assert f"error: {coded / 'a.png.glic'}: Expected checksum" in err
    files = sorted(
        str(p.relative_to(restored)) for p in restored.rglob("*") if p.is_file() and p.name != NAME
    )
    assert files == ["a.jpg.png", "sub/b.png"]


@pytest.mark.filterwarnings("default")
def test_more_than_8_bits_give_a_warning_line(glic, model_file, tmp_path):
    source = tmp_path / "a.png"
    Image.fromarray(np.uint16([[1, 65535]])).save(source)
    status, _, err = glic("compress", source, "-o", tmp_path / "a.glic", "--model", model_file)
    assert status == 0
    assert err == f"warning: {source} has more than 8 bits per channel: comes back with 8\n"


def test_alpha_and_metadata_travel(glic, tiny_model, model_file, tmp_path):
    """Beside the same strings as without them; what they cost is told."""
    source, coded, restored = tmp_path / "a.png", tmp_path / "a.glic", tmp_path / "b.png"
    image = Image.effect_noise((40, 30), 50).convert("RGB")
    alpha = Image.linear_gradient("L").resize(image.size)
    image.putalpha(alpha.point(lambda value: max(value, 1)))  # no colour is hidden
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a maker", 3
    image.save(source, exif=exif)
    assert glic("compress", source, "-o", coded, "--model", model_file, "--json")[0] == 0
    status, out, err = glic("compress", source, "-o", tmp_path / "c.glic", "--model", model_file)
    assert (status, err) == (0, "")
    stream, size = unpack(coded.read_bytes()), coded.stat().st_size
    assert (stream.channels, set(stream.chunks)) == (4, {"ALPH", "EXIF"})
    x = torch.from_numpy(np.array(image.convert("RGB"))[::-1, ::-1].copy()).permute(2, 0, 1)[None]
    plain = bitstream.encode(tiny_model, x)
    assert unpack(plain).strings == stream.strings
    assert (
        f"{size} bytes, {8 * size / 1200:.4f} bpp, {size - len(plain)} of the bytes for alpha, EXIF data"
        in out
    )

    assert glic("decompress", coded, "-o", restored, "--model", model_file)[0] == 0
    with Image.open(restored) as image:
        assert image.mode == "RGBA"
        assert np.array_equal(np.array(image)[..., 3], np.maximum(np.array(alpha), 1)[::-1, ::-1])
        assert dict(image.getexif()) == {0x010F: "a maker"}
        expected = to_8bit(bitstream.decode(tiny_model, plain))[0].permute(1, 2, 0)
        assert np.array_equal(np.array(image)[..., :3], expected)

    glic("compress", source, "-o", coded, "--model", model_file, "--strip", "--force")
    assert set(unpack(coded.read_bytes()).chunks) == {"ALPH"}


@pytest.mark.filterwarnings("default")
def test_a_profile_is_converted_or_travels(glic, model_file, tmp_path):
    source, coded, restored = tmp_path / "a.tif", tmp_path / "a.glic", tmp_path / "b.png"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = bytearray(profile)  # the primaries' tags change places
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    Image.new("RGB", (40, 30), (200, 100, 50)).save(source, icc_profile=bytes(swapped))
    command = ["compress", source, "-o", coded, "--model", model_file]
    status, _, err = glic(*command)
    assert status == 0
    assert err == f"warning: {source} has the colour profile sRGB built-in: converted to sRGB\n"
    assert unpack(coded.read_bytes()).version == 3
    converted = coded.read_bytes()
    assert glic(*command, "--keep-icc")[::2] == (0, "")
    stream = unpack(coded.read_bytes())
    assert stream.chunks == {"ICCP": swapped}
    assert stream.strings != unpack(converted).strings
    assert glic("decompress", coded, "-o", restored, "--model", model_file)[::2] == (0, "")
    with Image.open(restored) as image:
        assert image.info["icc_profile"] == swapped
        kept = np.array(image)
    status, _, err = glic("decompress", coded, "-o", tmp_path / "b.bmp", "--model", model_file)
    assert (status, err) == (0, f"warning: {coded}: BMP holds no colour profile: converted to sRGB\n")
    with Image.open(tmp_path / "b.bmp") as image:  # red and blue change places
        assert abs(np.array(image).astype(int) - kept[..., ::-1]).max() <= 2


def test_errors_are_one_line_and_status_2(glic, model_file, tmp_path):
    target = tmp_path / "a.glic"
    source = picture(tmp_path / "a.png")
    for arguments, message in [
        ((tmp_path / "none.png", "-o", target, "--model", model_file), "No such file or directory: "),
        (
            (source, "-o", target, "--model", "unknown"),
            "Expected the path of a .safetensors file or a model's name",
        ),
        ((source, "-o", target, "--model", source), "Expected a .safetensors checkpoint (got"),
        ((source, "-o", source, "--model", model_file), "Expected another file for the output than "),
    ]:
        status, out, err = glic("compress", *arguments)
        assert (status, out) == (2, "")
        assert err.startswith(f"error: {message}")
        assert err.count("\n") == 1
        assert not target.exists()


def test_a_second_start_skips_what_is_done(glic, model_file, variable_model, tmp_path):
    photos, coded, restored = tmp_path / "photos", tmp_path / "coded", tmp_path / "restored"
    picture(photos / "a.png"), picture(photos / "b.png")
    variable_model.save(tmp_path / "variable.safetensors")
    compress = ["compress", photos, "-o", coded, "--model", tmp_path / "variable.safetensors"]
    assert len(glic(*compress, "--quality", "1.5")[1].splitlines()) == 2
    (coded / "b.glic").write_bytes(b"something else")
    assert glic(*compress, "--quality", "1.5")[0] == 1
    status, out, _ = glic(*compress, "--quality", "1.5", "--force")
    assert status == 0
    assert out.splitlines()[0].startswith(f"{coded / 'b.glic'}: ")
    assert out.splitlines()[1] == "1 of 2 files were done already"
    assert len(glic(*compress, "--quality", "2")[1].splitlines()) == 2  # another quality, other files
    assert glic(*compress)[1] == "2 of 2 files were done already\n"  # the middle one
    decompress = ["decompress", coded, "-o", restored, "--model", tmp_path / "variable.safetensors"]
    assert len(glic(*decompress)[1].splitlines()) == 2
    assert glic(*decompress)[1] == "2 of 2 files were done already\n"


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
def test_what_cannot_be_had_gives_one_line(glic, variable_model, tmp_path, arguments, message):
    variable_model.save(tmp_path / "variable.safetensors")
    target = tmp_path / "a.glic"
    status, _, err = glic(
        "compress", picture(tmp_path / "a.png"), "-o", target, "--model", tmp_path / "variable.safetensors",
        *arguments,
    )  # fmt: skip
    (line,) = err.splitlines()
    assert status == 2
    assert line.startswith(message)
    assert not target.exists()


@pytest.mark.parametrize("text", ["4 G", "G", "-1", "4.5G", "4GB"])
def test_memory_is_a_whole_number_of_bytes(glic, tmp_path, text):
    status, _, err = glic("compress", tmp_path, "-o", tmp_path, f"--max-memory={text}")
    assert status == 2
    assert f"argument --max-memory: Expected a number of bytes such as 4G (got {text})" in err


def test_a_search_within_a_bound_on_memory(glic, variable_model, tmp_path):
    """Whose picture fits: the file is the same."""
    variable_model.save(tmp_path / "variable.safetensors")
    source, arguments = picture(tmp_path / "a.png"), ["--model", tmp_path / "variable.safetensors"]
    data = [bitstream.encode(variable_model, read_image(source), quality) for quality in (1, 4)]
    for flag, aim in [("--target-bpp", 8 * len(data[1]) / 1200), ("--target-psnr", None)]:
        if aim is None:
            aim = psnr(read_image(source), bitstream.decode(variable_model, data[1])) - 1e-6  # in six digits
        files = []
        for bound in ([], ["--max-memory", f"{2**31}"]):
            target = tmp_path / f"{len(files)}.glic"
            status, _, err = glic("compress", source, "-o", target, *arguments, flag, f"{aim:.6f}", *bound)
            assert (status, err) == (0, "")
            files.append(target.read_bytes())
        assert files[0] == files[1]


def test_in_a_folder_the_refused_picture_is_named(glic, model_file, tmp_path):
    source = picture(tmp_path / "photos" / "a.png")
    status, _, err = glic(
        "compress", source.parent, "-o", tmp_path / "out", "--model", model_file, "--max-memory", "300M"
    )
    assert status == 1
    assert err.splitlines()[0].startswith(f"error: {source}: Expected --max-memory of at least ")


def test_a_model_file_runs_code_only_if_allowed(glic, model_file, tiny_model, tmp_path, monkeypatch):
    (tmp_path / "my_score_4714.py").write_text(
        "from glic_pyg.graph.complexity import Sobel\nclass Mine(Sobel): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    graph = dataclasses.replace(tiny_model.config.graph, score=Part("my_score_4714.Mine"))
    model = GLIC(dataclasses.replace(tiny_model.config, graph=graph))
    model.load_state_dict(tiny_model.state_dict())
    model.save(model_file)
    monkeypatch.delitem(sys.modules, "my_score_4714")
    write_png(torch.rand(1, 3, 40, 50), tmp_path / "a.png")
    files = {"compress": ("a.png", "a.glic"), "decompress": ("a.glic", "b.png")}
    for name, (source, target) in files.items():
        arguments = [tmp_path / source, "-o", tmp_path / target, "--model", model_file]
        if name == "compress":
            status, _, err = glic(name, *arguments)
            assert status == 2
            assert "allow it, if you trust the file, by allow_code=True or --allow-code)" in err
            assert "my_score_4714" not in sys.modules
        assert glic(name, *arguments, "--allow-code")[0] == 0
    assert (tmp_path / "b.png").exists()


@pytest.mark.parametrize("quality", ["0", "0.001", "0.999", "-1", "nan", "inf", "-inf", "4.01", "1e300"])
def test_qualities_that_no_file_can_say(glic, tmp_path, variable_model, quality):
    variable_model.save(tmp_path / "model.safetensors")
    write_png(torch.rand(1, 3, 40, 50), tmp_path / "a.png")
    run = [tmp_path / "a.png", "-o", tmp_path / "a.glic", "--model", tmp_path / "model.safetensors"]
    status, _, err = glic("compress", *run, f"--quality={quality}")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("error: Expected a quality in 1..4 (got ")
    assert not (tmp_path / "a.glic").exists()


def test_originals_are_not_replaced_by_restored_pictures(glic, model_file, tmp_path):
    """And neither is anything else that no call wrote."""
    photos, coded = tmp_path / "photos", tmp_path / "coded"
    source = picture(photos / "a.png")
    original = source.read_bytes()
    model = ["--model", model_file]
    assert glic("compress", photos, "-o", coded, *model)[0] == 0
    for arguments in ([coded, "-o", photos], [coded / "a.glic", "-o", source]):
        status, _, err = glic("decompress", *arguments, *model)
        assert status == (2 if arguments[0] != coded else 1)
        assert f"(got {source}); --force overwrites it" in err
        assert source.read_bytes() == original
    assert glic("decompress", coded, "-o", photos, *model, "--force")[0] == 0
    assert source.read_bytes() != original
    status, out, _ = glic("decompress", coded, "-o", photos, *model)
    assert (status, out) == (0, "1 of 1 files were done already\n")
    source.write_bytes(original)  # somebody brings it back
    assert glic("decompress", coded, "-o", photos, *model)[0] == 1
    assert source.read_bytes() == original


def test_no_input_becomes_the_output(model_file, tmp_path):
    """Neither the model's file nor what standard input is, by force or through a link."""
    source, link = picture(tmp_path / "a.png"), tmp_path / "link.glic"
    link.symlink_to(model_file)
    before = source.read_bytes(), model_file.read_bytes()
    for name, output in (("-", source), (source, model_file), (source, link)):
        arguments = [name, "-o", output, "--model", model_file, "--force"]
        with source.open("rb") as file:
            result = subprocess.run([*COMMAND, "compress", *arguments], stdin=file, capture_output=True)
        assert result.returncode == 2
        assert result.stderr.startswith(b"error: Expected another file for the output than ")
        assert (source.read_bytes(), model_file.read_bytes()) == before


def test_closed_standard_streams(model_file, tmp_path):
    for closed, which in (("<&-", "input"), (">&-", "output")):
        command = f"'{sys.executable}' -m glic_pyg compress - -o - --model '{model_file}' {closed}"
        result = subprocess.run(command, shell=True, capture_output=True)
        assert result.returncode == 2
        assert result.stderr == f"error: Expected standard {which} to be open (got a closed one)\n".encode()


def test_a_picture_in_place_of_another_is_coded_anew(glic, tiny_model, model_file, tmp_path):
    """Whatever its date and its number of bytes."""
    photos, coded, restored = tmp_path / "photos", tmp_path / "coded", tmp_path / "restored"
    photos.mkdir()
    for color in ("red", "blue"):
        Image.new("RGB", (40, 30), color).save(photos / "a.bmp")
        os.utime(photos / "a.bmp", (0, 0))
        assert glic("compress", photos, "-o", coded, "--model", model_file)[0] == 0
        assert (coded / "a.glic").read_bytes() == bitstream.encode(tiny_model, read_image(photos / "a.bmp"))
        os.utime(coded / "a.glic", (0, 0))
        assert glic("decompress", coded, "-o", restored, "--model", model_file)[0] == 0
        expected = to_8bit(bitstream.decode(tiny_model, (coded / "a.glic").read_bytes()))
        assert (to_8bit(read_image(restored / "a.png")) == expected).all()


def test_pipes_from_end_to_end(model_file, tiny_model, tmp_path):
    """Bytes alone on standard output: the lines are on standard error."""
    source = picture(tmp_path / "a.png")

    def run(name, data):
        command = [*COMMAND, name, "-", "-o", "-", "--model", model_file]
        done = subprocess.run(command, input=data, capture_output=True)
        return done.returncode, done.stdout, WAITING.sub(b"", done.stderr)

    _, coded, err = run("compress", source.read_bytes())
    assert coded == bitstream.encode(tiny_model, read_image(source))
    assert err.startswith(b"-: %d bytes, " % len(coded))
    _, restored, err = run("decompress", coded)
    expected = to_8bit(bitstream.decode(tiny_model, coded))
    assert (to_8bit(read_image(io.BytesIO(restored))) == expected).all()
    assert err.startswith(b"-: 40 x 30 from ")
    status, out, err = run("decompress", coded[:-1])
    assert (status, out) == (2, b"")
    assert err.startswith(b"error: <stdin>: Expected checksum ")
    assert err.count(b"\n") == 1


def test_what_is_endless_or_too_large_is_refused(glic, model_file, tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(20 << 30)
    (tmp_path / "large.glic").write_bytes(b"GLIC\3" + bytes(8) + b"\0\1\1" + bytes(4) + bytes(2 << 20))
    bounds = ["--max-pixels", "1000", "--model", model_file]
    for name, source, message in [
        ("compress", "/dev/zero", "Expected a file of at most 16785216 bytes (got /dev/zero with more)"),
        ("compress", large, f"Expected a file of at most 16785216 bytes (got {large} with more)"),
        ("decompress", "/dev/zero", r"Expected a .glic file (got one that starts with b'\x00\x00\x00\x00')"),
        ("decompress", large, r"Expected a .glic file (got one that starts with b'\x00\x00\x00\x00')"),
        (
            "decompress",
            tmp_path / "large.glic",
            f"Expected a file of at most 67600 bytes (got {tmp_path / 'large.glic'} with more)",
        ),
    ]:
        target = tmp_path / ("a.png" if name == "decompress" else "a.glic")
        status, out, err = glic(name, source, "-o", target, *bounds)
        assert (status, out, err) == (2, "", f"error: {message}\n")
        assert not target.exists()


@pytest.mark.parametrize("flag", ["--target-bpp", "--target-psnr"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1", "much"])
def test_aims_that_are_none(glic, tmp_path, flag, value):
    status, out, err = glic("compress", tmp_path / "a.png", "-o", tmp_path / "a.glic", f"{flag}={value}")
    assert (status, out) == (2, "")
    assert err.startswith(f"error: argument {flag}: Expected a number ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["compress", "decompress"])
def test_terminated_at_work(name, model_file, tmp_path):
    """With status 143, and nothing begun is left behind."""
    photos, coded = tmp_path / "photos", tmp_path / "coded"
    for i in range(30):
        picture(photos / f"{i}.png", size=(400, 300))
    source, target = photos, coded
    command = [*COMMAND, "compress", photos, "-o", coded, "--model", model_file]
    if name == "decompress":
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        source, target = coded, tmp_path / "restored"
        command = [*COMMAND, "decompress", coded, "-o", target, "--model", model_file]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.poll() is None and len(list(target.glob("*.*"))) < 3:
            time.sleep(0.001)
        process.terminate()
        _, err = process.communicate()
    assert (process.returncode, WAITING.sub(b"", err)) == (143, b"")
    assert 2 <= len(list(target.iterdir())) <= len(list(source.iterdir()))
    assert not list(target.glob("*.partial"))


def test_results_for_programs(glic, tiny_model, model_file, tmp_path):
    """A line of JSON per file, and nothing else on standard output."""
    photos, coded = tmp_path / "photos", tmp_path / "coded"
    picture(photos / "a.png"), picture(photos / "b.png")
    status, out, err = glic("compress", photos, "-o", coded, "--model", model_file, "--json")
    assert (status, err) == (0, "")
    for line, name in zip(out.splitlines(), "ab", strict=True):
        told, size = json.loads(line), (coded / f"{name}.glic").stat().st_size
        assert told.pop("seconds") >= told.pop("coding_seconds") > 0
        assert told == {
            "input": str(photos / f"{name}.png"), "output": str(coded / f"{name}.glic"), "bytes": size,
            "height": 30, "width": 40, "bpp": 8 * size / 1200, "chunk_bytes": 0,
        }  # fmt: skip
    status, out, err = glic("compress", photos, "-o", coded, "--model", model_file, "--json")
    assert (status, out, err) == (0, "", "2 of 2 files were done already\n")
    status, out, _ = glic(
        "decompress", coded / "a.glic", "-o", tmp_path / "a.png", "--model", model_file, "--json"
    )
    assert json.loads(out)["output"] == str(tmp_path / "a.png")


EFFORT = ["--effort", "1", "--lambda", "0.02"]


def test_effort_makes_another_file_of_the_same_kind(glic, tiny_model, model_file, tmp_path):
    source, coded = picture(tmp_path / "a.png"), tmp_path / "a.glic"
    status, _, err = glic("compress", source, "-o", coded, "--model", model_file, *EFFORT)
    assert (status, err) == (0, "")
    assert coded.read_bytes() == bitstream.encode(tiny_model, read_image(source), effort=1, lmbda=0.02)
    status, _, _ = glic("decompress", coded, "-o", tmp_path / "b.png", "--model", model_file)
    assert status == 0


def test_effort_that_cannot_be_is_refused(glic, model_file, tmp_path):
    command = ["compress", picture(tmp_path / "a.png"), "-o", tmp_path / "a.glic", "--model", model_file]
    status, _, err = glic(*command, "--effort", "5")
    assert (status, err) == (2, "error: argument --effort: Expected one of 0, 1, 2, 3, 4 (got 5)\n")
    status, _, err = glic(*command, "--effort", "1")
    assert status == 2
    assert err.startswith("error: Expected the lambda of its training to refine with a model of one quality")
    status, _, err = glic(*command, *EFFORT, "--distortion", "ms-ssim")
    message = "error: Expected sides of at least 161 pixels to refine for ms-ssim (got "
    assert (status, err[: len(message)]) == (2, message)
    status, _, err = glic(*command, *EFFORT, "--distortion", "ms-ssim", "--target-psnr", "30")
    message = "error: Expected the distortion mse with a target of PSNR (got ms-ssim)\n"
    assert (status, err) == (2, message)
    assert not (tmp_path / "a.glic").exists()


def test_ctrl_c_writes_the_best_so_far_and_begins_no_other(glic, model_file, tmp_path, monkeypatch):
    for name in "ab":
        picture(tmp_path / "photos" / f"{name}.png")
    watch, steps = Refining.watch, []

    def press(self, done, *rest):
        steps.append(done)
        if done == 12:
            signal.raise_signal(signal.SIGINT)
        return watch(self, done, *rest)

    monkeypatch.setattr(Refining, "watch", press)
    before = signal.getsignal(signal.SIGINT)
    status, out, _ = glic(
        "compress", tmp_path / "photos", "-o", tmp_path / "coded", "--model", model_file, *EFFORT
    )
    assert status == 130
    assert signal.getsignal(signal.SIGINT) == before
    assert steps == list(range(1, 13))
    assert len(out.splitlines()) == 1
    assert [path.name for path in (tmp_path / "coded").glob("*.glic")] == ["a.glic"]
    status, _, _ = glic(
        "decompress", tmp_path / "coded" / "a.glic", "-o", tmp_path / "a.png", "--model", model_file
    )
    assert status == 0
