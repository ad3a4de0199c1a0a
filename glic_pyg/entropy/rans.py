"""Asymmetric numeral systems, compiled: symbols to strings and back, in the strings of CompressAI's coder.

The state has 63 bits, of which 32 at a time go to the string; the first symbol is coded last. A value outside
of its row of the tables is coded as the row's last entry, the escape, then the number of its digits to the
base 16, and those: of what it is below 0 or above the last, with the sign in the lowest bit.

From Duda, "Asymmetric numeral systems: entropy coding combining speed of Huffman coding with compression rate
of arithmetic coding", arXiv 1311.2540.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from compressai.entropy_models import EntropyModel
from torch import Tensor

from glic_pyg.compiled import compiled
from glic_pyg.entropy.tables import PRECISION
from glic_pyg.simd import full, load, one_above, store

LOWEST = np.uint64(1 << 31)
"""Of the state, between symbols."""
WORD = np.uint64(32)
DIGIT = 4
"""Bits of a digit of an escaped value, all of which are as likely."""
LANES = (np.float32(0),) * 16
"""As many scales are compared with a bound at a time."""


def encode(model: EntropyModel, symbols: Tensor, rows: Tensor) -> bytes:
    """Code symbols.

    Args:
        model: The entropy model, with its tables.
        symbols: Whole numbers, int32, of magnitudes below 2^30.
        rows: Row of the tables for each, int32.
    """
    return _encode(_array(symbols), _array(rows), *_tables(model)).tobytes()


def decode(model: EntropyModel, string: bytes, rows: Tensor) -> Tensor | None:
    """Decode symbols.

    Args:
        model: The entropy model, with its tables.
        string: As `encode` returned it.
        rows: Row of the tables for each symbol, int32.

    Returns:
        Of `rows`' shape, int32; None if the string ends before the symbols do.
    """
    words = np.frombuffer(string, "<u4", len(string) // 4)
    symbols = np.empty(rows.shape, dtype=np.int32)
    whole = _decode(words, _array(rows), *_tables(model), symbols.ravel())
    return torch.from_numpy(symbols).to(rows.device) if whole else None


def rows_of_scales(scales: Tensor, bounds: Tensor) -> Tensor:
    """Return the row of the tables for each scale: how many bounds, which grow, are below it.

    What `torch.bucketize` does by a search per scale.

    Args:
        scales: Float32.
        bounds: `R - 1`, float32.

    Returns:
        Of `scales`' shape, int32.
    """
    if scales.device.type != "cpu":
        return torch.bucketize(scales, bounds, out_int32=True)
    rows = scales.new_empty(scales.shape, dtype=torch.int32)
    ends = np.nextafter(bounds.detach().numpy(), np.float32(np.inf))
    _find_rows(_array(scales), ends, rows.numpy().ravel())
    return rows


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().contiguous().numpy().ravel()


def _tables(model: EntropyModel) -> tuple[np.ndarray, ...]:
    tables = (model.quantized_cdf, model.cdf_length, model.offset)
    return tuple(table.detach().cpu().contiguous().numpy() for table in tables)


@compiled()
def _find_rows(scales, ends, rows):
    """Set rows: the last one, of what is no number too, less one for each end above the scale."""
    whole, found = len(scales) // len(LANES) * len(LANES), np.empty(len(LANES), np.float32)
    for i in range(0, whole, len(LANES)):
        some, row = load(LANES, scales, i), full(LANES, np.float32(len(ends)))
        for end in ends:
            row = row - one_above(full(LANES, end), some)
        store(found, 0, row)
        for j in range(len(LANES)):
            rows[i + j] = np.int32(found[j])
    for i in range(whole, len(scales)):
        rows[i] = len(ends)
        for end in ends:
            rows[i] -= end > scales[i]


@numba.njit
def _put(state, start, frequency, precision, words, at):
    """Add a symbol of a probability to the state, once it has room; return both state and place."""
    if state >= ((LOWEST >> np.uint64(precision)) << WORD) * np.uint64(frequency):
        at -= 1
        words[at] = np.uint32(state & np.uint64(0xFFFFFFFF))
        state >>= WORD
    whole, rest = state // np.uint64(frequency), state % np.uint64(frequency)
    return (whole << np.uint64(precision)) + rest + np.uint64(start), at


@compiled()
def _encode(symbols, rows, cdf, length, offset):
    """Return the words of a string, which is written from its end on."""
    most = 2  # the state's
    for i in range(len(symbols)):
        value = symbols[i] - offset[rows[i]]
        most += 1 if 0 <= value < length[rows[i]] - 2 else 4
    words, at, state = np.empty(most, np.uint32), most, LOWEST
    for i in range(len(symbols) - 1, -1, -1):
        row = rows[i]
        value, escape = np.int64(symbols[i]) - offset[row], length[row] - 2
        if not 0 <= value < escape:
            beyond = -2 * value - 1 if value < 0 else 2 * (value - escape)
            value, digits = escape, 0
            while beyond >> (DIGIT * digits):
                digits += 1
            for j in range(digits - 1, -1, -1):
                state, at = _put(state, (beyond >> (DIGIT * j)) & 15, 1, DIGIT, words, at)
            state, at = _put(state, digits, 1, DIGIT, words, at)
        start = cdf[row, value]
        state, at = _put(state, start, cdf[row, value + 1] - start, PRECISION, words, at)
    words[at - 2], words[at - 1] = np.uint32(state & np.uint64(0xFFFFFFFF)), np.uint32(state >> WORD)
    return words[at - 2 :]


@numba.njit
def _refilled(state, words, at):
    """Take a word in where the state has room for it, zeros behind the end; return state and place."""
    if state < LOWEST:
        state <<= WORD
        if at < len(words):
            state |= np.uint64(words[at])
        at += 1
    return state, at


@compiled()
def _decode(words, rows, cdf, length, offset, symbols):
    """Set the symbols, and return True; False as soon as the string ends before them."""
    if len(words) < 2:
        return False
    state, at = np.uint64(words[0]) | np.uint64(words[1]) << WORD, 2
    for i in range(len(rows)):
        row = rows[i]
        place = np.int64(state & np.uint64((1 << PRECISION) - 1))
        low, high = 0, length[row] - 1  # cdf[low] <= place < cdf[high]
        while high - low > 1:
            middle = (low + high) // 2
            if cdf[row, middle] <= place:
                low = middle
            else:
                high = middle
        start = cdf[row, low]
        frequency = np.uint64(cdf[row, low + 1] - start)
        state = frequency * (state >> np.uint64(PRECISION)) + np.uint64(place - start)
        state, at = _refilled(state, words, at)
        value, escape = np.int64(low), length[row] - 2
        if value == escape:
            digits = np.int64(state & np.uint64(15))
            state, at = _refilled(state >> np.uint64(DIGIT), words, at)
            beyond = np.int64(0)
            for j in range(digits):
                beyond |= np.int64(state & np.uint64(15)) << (DIGIT * j)
                state, at = _refilled(state >> np.uint64(DIGIT), words, at)
            value = -(beyond >> 1) - 1 if beyond & 1 else (beyond >> 1) + escape
        if at > len(words):
            return False
        symbols[i] = value + offset[row]
    return True
