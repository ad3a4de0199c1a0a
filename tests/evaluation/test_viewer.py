import re

import torch

from glic_pyg.evaluation import viewer
from glic_pyg.evaluation.codecs import PillowCodec
from glic_pyg.evaluation.demo import SIDE, STEP, regions_that_differ
from glic_pyg.evaluation.viewer import Restored, middle, shown_picture


def test_the_middle_of_a_large_picture(monkeypatch):
    monkeypatch.setattr(viewer, "PIXELS", 30 * 40)
    x = torch.arange(60.0 * 80).view(1, 1, 60, 80).expand(1, 3, 60, 80) / 4800
    assert torch.equal(middle(x), x[..., 15:45, 20:60])
    small = x[..., :30, :40]
    assert middle(small) is small


def test_a_picture_tells_its_files(photo, monkeypatch):
    x = photo(170, 180)
    codec = PillowCodec("jpeg")
    small, large = (Restored.of(codec, x, codec.encode(x, quality)) for quality in (20, 60))
    shown = shown_picture("a.png", x, [small, large])
    original, first, second = shown["layers"]
    assert (shown["width"], shown["height"], original["text"]) == (180, 170, "180 x 170 pixels")
    assert re.fullmatch(r"[\d ]+ bytes, 0\.\d{3} bpp, \d\d\.\d\d dB, MS-SSIM 0\.\d{4}", first["text"])
    more = 100 * (len(large.data) / len(small.data) - 1)
    assert f"({more:.0f} % more)" in second["text"]
    assert len({layer["uri"] for layer in shown["layers"]}) == 3

    monkeypatch.setattr(viewer, "PIXELS", 85 * 90)
    shown = shown_picture("a.png", x, [small])
    assert (shown["width"], shown["height"]) == (90, 85)
    assert "shown are 90 x 85 in its middle" in shown["about"]


def test_the_regions_that_differ_most():
    one = torch.zeros(1, 3, 4 * SIDE, 4 * SIDE)
    two = one.clone()
    two[..., 2 * STEP : 2 * STEP + SIDE, STEP : STEP + SIDE] = 0.5
    two[..., 2 * SIDE : 3 * SIDE, 3 * SIDE : 4 * SIDE] = 1
    assert regions_that_differ([one, two], 2) == [(2 * SIDE, 3 * SIDE), (2 * STEP, STEP)]
    assert len(regions_that_differ([one[..., :SIDE, :SIDE], two[..., :SIDE, :SIDE]], 3)) == 1
