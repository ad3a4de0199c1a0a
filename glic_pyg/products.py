"""Products of small matrices in compiled code, for functions that do more with them while they are in cache.

A block of 4 rows and 24 columns stays in registers, of AVX2 too, while all its terms are added up: the speed
of a library for large matrices, without its calls. Each row's sums run in the same order whatever rows are
computed beside it.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from numba.extending import register_jitable
from torch import Tensor

from glic_pyg.compiled import compiled
from glic_pyg.simd import add_products

LANES = (np.float32(0),) * 8
BLOCK = (np.float32(0),) * 4
ONE = BLOCK[:1]
THREE, TWO = BLOCK[:3], BLOCK[:2]
WIDTH = len(LANES) * len(THREE)
"""Columns of a panel, but for the last one's."""


@register_jitable
def padded(columns: int) -> int:
    """Return the columns of what `multiply` writes: whole vectors. Compiled code may call it, too."""
    return -(-columns // len(LANES)) * len(LANES)


def packed(
    matrix: Tensor, *, row_parts: int = 0, column_parts: int = 1, scale: Tensor | None = None
) -> np.ndarray:
    """Lay a matrix out in panels of `WIDTH` columns, row by row each, as `multiply` reads it.

    Args:
        matrix: `K x N`, float32, on the CPU, its entries in any order.
        row_parts: In how many parts of one size there are zeros after the rows, up to whole vectors; 0 for
            no zeros.
        column_parts: The same of columns.
        scale: A factor of each row, `K`, if any.

    Returns:
        `K * N`, with the zeros.
    """
    return _laid_out(matrix, WIDTH, row_parts, column_parts, scale)


def wide(matrix: Tensor, parts: int = 1) -> np.ndarray:
    """Lay a matrix out row by row, with zeros after the columns of each part, up to whole vectors.

    Args:
        matrix: `K x N`, float32, on the CPU, its entries in any order.
        parts: Of the columns, of one size.

    Returns:
        `K * N`, with the zeros.
    """
    return _laid_out(matrix, matrix.size(1) + parts * len(LANES), 0, parts, None)


def _laid_out(
    matrix: Tensor, panel: int, row_parts: int, column_parts: int, scale: Tensor | None
) -> np.ndarray:
    (height, width), (down, right) = matrix.shape, matrix.stride()
    rows, columns = height // max(1, row_parts), width // column_parts
    room = padded(rows) if row_parts else rows
    size = max(1, row_parts) * room, column_parts * padded(columns)
    out = np.empty(size, np.float32) if size == matrix.shape else np.zeros(size, np.float32)
    if matrix.numel():
        entries = matrix.detach().as_strided(((height - 1) * down + (width - 1) * right + 1,), (1,))
        factors = np.empty(0, np.float32) if scale is None else scale.detach().contiguous().numpy()
        _lay_out(entries.numpy(), down, right, rows, room, columns, panel, factors, out)
    return out.ravel()


@compiled()
def _lay_out(entries, down, right, rows, room, columns, panel, factors, out):
    """Fill an array, of zeros where there are to be any, with panels of a matrix, whose rows are
    `down` apart and columns `right`.
    """
    length, total = out.shape
    flat, space = out.reshape(out.size), padded(columns)
    for first in range(0, total, panel):
        width, j = min(panel, total - first), 0
        while j < width:  # runs of columns of one part
            part, column = (first + j) // space, (first + j) % space
            count = min(width - j, columns - column)
            start, at = (part * columns + column) * right, first * length + j
            for row in range(length):
                part, i = row // room, row % room
                if i < rows:
                    i += part * rows
                    factor = factors[i] if len(factors) else np.float32(1)
                    for k in range(count):
                        flat[at + row * width + k] = entries[start + i * down + k * right] * factor
            j += min(width - j, space - column)


def packed_pairs(matrix: Tensor) -> np.ndarray:
    """Lay a matrix of whole numbers below 2^15 out as `packed` does, pairs of rows in the place of rows.

    Args:
        matrix: `K x N`.

    Returns:
        `ceil(K / 2) * padded(N)`, int32: of each two rows, the last of which may be of zeros, both int16.
    """
    rows = torch.zeros(len(matrix) + len(matrix) % 2, matrix.size(1))
    rows[: len(matrix)] = matrix
    return np.stack([packed(rows[::2]), packed(rows[1::2])], axis=1).astype(np.int16).view(np.int32).ravel()


@numba.njit
def multiply(a, a_at, a_step, rows, b, b_at, length, columns, out, out_at, out_step):
    """Add a product of matrices to another: `out[i, j] += sum_k a[i, k] b[k, j]`.

    All are of float32; or of int32, a and b then of pairs of int16 (see `packed_pairs`).

    Args:
        a: Array with the left matrix, its first row at place `a_at`, the next one `a_step` further: rows may
            overlap.
        a_at: See `a`.
        a_step: See `a`.
        rows: Of the left matrix.
        b: Array with the right matrix, `packed` or `packed_pairs`, from place `b_at` on.
        b_at: See `b`.
        length: Columns of the left matrix, rows of the right one.
        columns: Of the right matrix, `padded`.
        out: Array with the sum, as `a`.
        out_at: See `out`.
        out_step: See `out`.
    """
    for first in range(0, columns, WIDTH):
        width = min(WIDTH, columns - first)
        panel, block = b_at + first * length, out_at + first
        _panel(a, a_at, a_step, 1, rows, b, panel, width, length, width // 8, out, block, out_step)


@numba.njit
def multiply_transposed(a, a_at, a_step, rows, b, b_at, b_step, length, columns, out):
    """Add a product of a transposed matrix and another: `out[i, j] += sum_k a[k, i] b[k, j]`.

    Args:
        a: Array with the left matrix, its first row at place `a_at`, the next one `a_step` further.
        a_at: See `a`.
        a_step: See `a`.
        rows: Columns of the left matrix, rows of the sum.
        b: Array with the right matrix, as `a`, not packed.
        b_at: See `b`.
        b_step: See `b`.
        length: Rows of both matrices.
        columns: Of the right matrix, `padded`.
        out: Array with the sum, without gaps.
    """
    for first in range(0, columns, WIDTH):
        vectors = min(WIDTH, columns - first) // 8
        _panel(a, a_at, 1, a_step, rows, b, b_at + first, b_step, length, vectors, out, first, columns)


@numba.njit
def _panel(a, a_at, a_step, a_next, rows, b, b_at, b_next, length, vectors, out, out_at, out_step):
    """Add a product to the columns of one panel, see `add_products`."""
    whole = rows // 4 * 4
    for i in range(0, whole, 4):
        x, y = a_at + i * a_step, out_at + i * out_step
        _block(BLOCK, a, x, a_step, a_next, b, b_at, b_next, length, vectors, out, y, out_step)
    for i in range(whole, rows):
        x, y = a_at + i * a_step, out_at + i * out_step
        _block(ONE, a, x, a_step, a_next, b, b_at, b_next, length, vectors, out, y, out_step)


@numba.njit(forceinline=True)
def _block(block, a, a_at, a_step, a_next, b, b_at, b_next, length, vectors, out, out_at, out_step):
    """Add a product to as many rows as `block` is long, whose length compiled code knows by its type."""
    if vectors == 3:
        add_products(
            block, LANES, THREE, a, a_at, a_step, a_next, b, b_at, b_next, length, out, out_at, out_step
        )
    elif vectors == 2:
        add_products(
            block, LANES, TWO, a, a_at, a_step, a_next, b, b_at, b_next, length, out, out_at, out_step
        )
    else:
        add_products(
            block, LANES, ONE, a, a_at, a_step, a_next, b, b_at, b_next, length, out, out_at, out_step
        )
