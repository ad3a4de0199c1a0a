import copy
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image

from glic_pyg import bitstream, tiles
from glic_pyg.image import to_8bit
from glic_pyg.metrics import psnr
from glic_pyg.tiles import MARGIN, WHOLE, MemoryBoundError, Tiling, tiling_within

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.mark.parametrize("size", [(64, 64), (1, 700), (577, 640), (1025, 300)])
@pytest.mark.parametrize("side", [192, 256, 448])
def test_what_is_kept_covers_the_picture_once(size, side):
    height, width = (-(-length // 64) * 64 for length in size)
    count = torch.zeros(height, width, dtype=torch.int)
    parts = list(Tiling(side).tiles(*size))
    for tile in parts:
        count[tile.kept(16)] += 1
        assert count[tile.read(16)].shape == count[parts[0].read(16)].shape
        assert count[tile.read(16)][tile.core(16)].shape == count[tile.kept(16)].shape
        for span, length in zip(tile, (height, width), strict=True):
            assert span.start % 64 == span.stop % 64 == 0
            assert span.stop - span.start <= side
            assert span.start == 0 or span.first - span.start >= MARGIN
            assert span.stop == length or span.stop - span.last >= MARGIN
    assert (count == 1).all()


def test_no_more_tiles_than_needed():
    for length in range(64, 3000, 64):
        spans = tiles._spans(length, 512, MARGIN)
        assert len(spans) == 1 or (len(spans) - 1) * (512 - 2 * MARGIN) < length - 2 * MARGIN
        assert all(a.last == b.first for a, b in pairwise(spans))


def in_tiles(monkeypatch, side):
    monkeypatch.setattr(bitstream, "tiling_for", lambda *_, **__: Tiling(side))


@pytest.mark.parametrize("size", [(200, 330), (256, 257)])
def test_files_made_in_tiles_restore_whole_and_the_other_way_round(tiny_model, photo, monkeypatch, size):
    x = photo(*size)
    whole = bitstream.encode(tiny_model, x)
    restored = bitstream.decode(tiny_model, whole)
    with monkeypatch.context() as patch:
        in_tiles(patch, 192)
        of_tiles = bitstream.encode(tiny_model, x)
        in_both = bitstream.decode(tiny_model, of_tiles)  # which checks that y_hat is the encoder's
        restored_in_tiles = bitstream.decode(tiny_model, whole)
    assert of_tiles != whole
    assert not torch.equal(restored_in_tiles, restored)
    assert in_both.shape == restored_in_tiles.shape == x.shape
    # Of random weights, whose pictures are mostly noise: moved by 16 pixels they have 14 dB.
    assert psnr(restored, restored_in_tiles) > 20
    assert psnr(restored, bitstream.decode(tiny_model, of_tiles)) > 20


def test_a_place_for_every_tile(tiny_model, photo, monkeypatch):
    """With transforms that only average and repeat, tiles change nothing."""
    x = photo(300, 500)

    def average(part):
        return torch.nn.functional.avg_pool2d(part, 16).repeat(1, 6, 1, 1)[:, :16]

    def repeat(y):
        return torch.nn.functional.interpolate(y[:, :3], scale_factor=16) / 100

    monkeypatch.setattr(tiny_model.g_a, "forward", average)
    monkeypatch.setattr(tiny_model.g_s, "forward", repeat)
    whole = bitstream.encode(tiny_model, x)
    restored = bitstream.decode(tiny_model, whole)
    in_tiles(monkeypatch, 192)
    assert bitstream.encode(tiny_model, x) == whole
    assert torch.equal(bitstream.decode(tiny_model, whole), restored)


def test_what_fits_is_not_cut(tiny_model, variable_model, photo):
    x = photo(200, 330)
    for model in (tiny_model, variable_model):
        data = bitstream.encode(model, x)
        assert bitstream.encode(model, to_8bit(x), max_memory=2**31) == bitstream.encode(
            model, to_8bit(x) / 255
        )
        restored = bitstream.decode(model, data, max_memory=2**31)
        assert restored.dtype == torch.uint8
        assert torch.equal(restored, to_8bit(bitstream.decode(model, data)))


def within(model, max_memory, shape, picture_bytes=0):
    return tiling_within(max_memory, model.config, model.nbytes, shape, picture_bytes=picture_bytes)


def test_less_memory_means_smaller_tiles(tiny_model):
    sides = [within(tiny_model, m << 20, (4000, 4000)).side for m in (1900, 2400, 4400, 40000)]
    assert sides == sorted(set(sides))
    assert all(side % 64 == 0 for side in sides[:3])
    assert sides[3] == WHOLE.side
    assert len(list(WHOLE.tiles(4000, 4000))) == 1
    assert bitstream.tiling_for(tiny_model, (4000, 4000), None, picture_bytes=0) == WHOLE


def test_a_bound_too_low_is_refused(tiny_model, photo):
    data = bitstream.encode(tiny_model, photo(64, 64))
    message = r"Expected --max-memory of at least \d+M for 64 x 64 pixels \(got 100M\)"
    with pytest.raises(MemoryBoundError, match=message):
        bitstream.decode(tiny_model, data, max_memory=100 << 20)
    with pytest.raises(MemoryBoundError, match=message):
        bitstream.encode(tiny_model, photo(64, 64), max_memory=100 << 20)
    elsewhere = copy.deepcopy(tiny_model).to("meta")
    with pytest.raises(
        MemoryBoundError, match=r"Expected a model on the CPU for --max-memory \(got one on meta\)"
    ):
        bitstream.encode(elsewhere, photo(64, 64), max_memory=2**40)
    with pytest.raises(MemoryBoundError) as caught:
        within(tiny_model, 2**20, (9000, 9000))
    least = int(str(caught.value).split()[5].removesuffix("M"))
    assert within(tiny_model, least << 20, (9000, 9000)).side >= tiles.LEAST_SIDE
    with pytest.raises(MemoryBoundError):
        within(tiny_model, (least - 1) << 20, (9000, 9000))


def peak(tool, *arguments):
    """Run a tool in a process of its own and return how much memory it had at most, in bytes."""
    code = (
        "import runpy, sys, pathlib\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print(pathlib.Path('/proc/self/status').read_text())"
    )
    start = f"import sys; sys.argv = sys.argv[1:]\n{code}"
    command = [sys.executable, "-c", start, TOOLS / f"{tool}.py", *arguments]
    # Of many threads each would have an arena.
    env = os.environ | {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(
    ("kind", "size", "bound"),
    [("flat", (1000, 800), 1350), ("noise", (2500, 400), 1300)],
)
def test_the_bound_holds(tiny_model, tmp_path, kind, size, bound):
    """Of the whole process, for the pictures with most edges, and with fewest."""
    tiny_model.save(tmp_path / "tiny.safetensors")
    width, height = size
    pixels = Image.new("RGB", size, "grey") if kind == "flat" else Image.effect_noise(size, 90).convert("RGB")
    pixels.save(tmp_path / "a.png")
    assert within(tiny_model, bound << 20, (height, width), 6 * width * height).side < max(size)
    shared = ("--model", tmp_path / "tiny.safetensors", "--max-memory", f"{bound}M")
    assert peak("compress", tmp_path / "a.png", "-o", tmp_path / "a.glic", *shared) < bound << 20
    assert peak("decompress", tmp_path / "a.glic", "-o", tmp_path / "b.png", *shared) < bound << 20
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == size
