import numpy as np
import pytest
from PIL import Image

from glic_pyg import transparency
from glic_pyg.picture import Picture
from glic_pyg.transparency import filled, over_white

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("deep", [False, True])
def test_over_white_is_the_weighted_mean(deep):
    alpha = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
    pixels = RNG.random((5, 7), np.float32) if deep else RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    weight = alpha / 255 if deep else alpha[..., None] / 255
    expected = pixels * weight + (1 if deep else 255) * (1 - weight)
    assert abs(over_white(Picture(pixels, alpha)) - expected).max() <= (1e-6 if deep else 1)


def test_what_is_visible_stays_and_a_plain_colour_goes_on(monkeypatch):
    monkeypatch.setattr(transparency, "TILE", 16)  # some tiles have nothing visible
    alpha = np.zeros((37, 50), np.uint8)
    alpha[3:6, 4:30] = 1
    pixels = RNG.integers(0, 256, (37, 50, 3), dtype=np.uint8)
    pixels[alpha > 0] = (10, 200, 30)
    before = pixels.copy()
    assert (filled(Picture(pixels, alpha)) == (10, 200, 30)).all()
    assert np.array_equal(pixels, before)
    pixels = RNG.integers(0, 256, (37, 50, 3), dtype=np.uint8)
    assert np.array_equal(filled(Picture(pixels, alpha))[alpha > 0], pixels[alpha > 0])


@pytest.mark.parametrize("value", [0, 255])
def test_all_or_nothing_visible(value):
    pixels = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    assert filled(Picture(pixels, np.full((4, 5), value, np.uint8))) is pixels
    assert filled(Picture(pixels, None)) is pixels


def test_a_hole_in_a_ramp_is_smooth():
    """Nowhere steeper than twice the ramp, of grey in [0, 1] too; black in the hole would be a cliff."""
    ramp = np.linspace(0.2, 1, 128, dtype=np.float32)[None].repeat(64, 0)
    alpha = np.full(ramp.shape, 255, np.uint8)
    alpha[16:48, 40:80] = 0
    hole = np.where(alpha > 0, ramp, 0).astype(np.float32)
    result = filled(Picture(hole, alpha))
    assert result.dtype == np.float32
    assert abs(result - ramp).max() < 0.13
    assert abs(np.diff(result)).max() < abs(np.diff(hole)).max() / 5


def test_odd_sizes_do_not_darken_the_edge():
    alpha = np.zeros((5, 3), np.uint8)
    alpha[0, 0] = 255
    pixels = np.asarray(Image.new("RGB", (3, 5), (9, 9, 9))).copy()
    pixels[0, 0] = (200, 100, 50)
    assert (filled(Picture(pixels, alpha)) == (200, 100, 50)).all()
