"""A folder job killed with SIGKILL, at a moment that nobody chose, and started again."""

import subprocess
import sys
import time

import pytest

from glic_pyg import bitstream
from glic_pyg.image import read_image, to_8bit, write_png

COMMAND = [sys.executable, "-m", "glic_pyg"]


def kill_when_half_done(name, source, target, model_file, suffix):
    command = [*COMMAND, name, source, "-o", target, "--model", model_file]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(target.glob(f"*{suffix}"))) < 2:
        time.sleep(0.001)
    process.kill()
    process.wait()


@pytest.fixture
def photos(photo, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(8):
        write_png(photo(64, 64 + 40 * i), folder / f"{i}.png")
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:200])
    return folder


def test_outputs_are_whole_and_a_second_start_finishes(glic, photos, tiny_model, model_file, tmp_path):
    coded, restored = tmp_path / "coded", tmp_path / "restored"
    inputs = {path: path.read_bytes() for path in photos.iterdir()}
    expected = {
        path.stem: bitstream.encode(tiny_model, read_image(path))
        for path in inputs if path.stem != "5"
    }  # fmt: skip

    kill_when_half_done("compress", photos, coded, model_file, ".glic")
    done = {path.stem: path.read_bytes() for path in coded.glob("*.glic")}
    assert 2 <= len(done) < 7
    assert done.items() <= expected.items()
    times = {path: path.stat().st_mtime_ns for path in coded.glob("*.glic")}
    status, out, err = glic("compress", photos, "-o", coded, "--model", model_file)
    assert status == 1
    assert out.splitlines()[-1] == f"{len(done)} of 8 files were done already"
    assert err.splitlines()[0].startswith(f"error: Expected a picture (got {photos / '5.png'}: ")
    assert err.splitlines()[-1] == "error: 1 of 8 files could not be converted"
    assert {path.stem: path.read_bytes() for path in coded.glob("*.glic")} == expected
    assert all(path.stat().st_mtime_ns == when for path, when in times.items())
    assert {path: path.read_bytes() for path in photos.iterdir()} == inputs

    kill_when_half_done("decompress", coded, restored, model_file, ".png")
    for path in restored.glob("*.png"):
        assert (to_8bit(read_image(path)) == to_8bit(bitstream.decode(tiny_model, expected[path.stem]))).all()
    assert 2 <= len(list(restored.glob("*.png"))) < 7
    assert glic("decompress", coded, "-o", restored, "--model", model_file)[0] == 0
    assert {path.stem for path in restored.glob("*.png")} == set(expected)
    assert {path.stem: path.read_bytes() for path in coded.glob("*.glic")} == expected
