"""Strings against CompressAI's coder."""

import pytest
import torch
from compressai.entropy_models import GaussianConditional
from compressai.models.base import get_scale_table

from glic_pyg.entropy import rans


@pytest.fixture(scope="module")
def gaussian():
    gaussian = GaussianConditional(None)
    gaussian.update_scale_table(get_scale_table())
    return gaussian


def drawn(gaussian, kind, number):
    """Return symbols and their rows."""
    generator = torch.Generator().manual_seed(number)
    rows = torch.randint(64, (number,), generator=generator, dtype=torch.int32)
    scale = gaussian.scale_table[rows]
    values = torch.randn(number, generator=generator) * scale
    if kind == "escaped":
        values = torch.randint(-(2**23), 2**23, (number,), generator=generator)
    elif kind == "near the bounds":
        bounds = gaussian.cdf_length[rows] - 2 + gaussian.offset[rows]
        values = bounds + torch.randint(-2, 3, (number,), generator=generator)
        values[::2] = gaussian.offset[rows[::2]] + torch.randint(
            -2, 3, values[::2].shape, generator=generator
        )
    elif kind == "likeliest":
        values = torch.zeros(number)
    return values.round().int(), rows


@pytest.mark.parametrize("kind", ["usual", "escaped", "near the bounds", "likeliest"])
@pytest.mark.parametrize("number", [0, 1, 2, 7, 3000])
def test_strings_are_those_of_compressai(gaussian, kind, number):
    symbols, rows = drawn(gaussian, kind, number)
    string = rans.encode(gaussian, symbols, rows)
    if number > 2:  # CompressAI's writes beyond its memory otherwise
        assert [string] == gaussian.compress(symbols.float()[None], rows[None])
    assert torch.equal(rans.decode(gaussian, string, rows), symbols)


@pytest.mark.parametrize("kind", ["usual", "escaped", "near the bounds", "likeliest"])
def test_strings_that_are_cut_short(gaussian, kind):
    symbols, rows = drawn(gaussian, kind, 500)
    string = rans.encode(gaussian, symbols, rows)
    for length in (0, 1, 4, 7, len(string) // 2, len(string) - 4, len(string) - 1):
        assert rans.decode(gaussian, string[:length], rows) is None
    assert torch.equal(rans.decode(gaussian, string + bytes(9), rows), symbols)


def test_strings_of_anything_give_symbols_or_none(gaussian):
    _, rows = drawn(gaussian, "usual", 500)
    for string in (bytes(4000), b"\xff" * 4000, bytes(range(250)) * 16):
        assert rans.decode(gaussian, string, rows).shape == (500,)


def test_symbols_keep_their_shape(gaussian):
    symbols, rows = (x.view(1, 5, 20, 3).transpose(1, 2) for x in drawn(gaussian, "usual", 300))
    string = rans.encode(gaussian, symbols, rows)
    assert string == rans.encode(gaussian, symbols.contiguous(), rows.contiguous())
    assert torch.equal(rans.decode(gaussian, string, rows), symbols)


def test_decoding_does_not_ask_for_the_default_device(gaussian):
    symbols, rows = drawn(gaussian, "usual", 500)
    string = rans.encode(gaussian, symbols, rows)
    with torch.device("meta"):
        decoded = rans.decode(gaussian, string, rows)
    assert torch.equal(decoded, symbols)
