import numba
import numpy as np
import pytest
import torch

from glic_pyg.products import WIDTH, multiply, multiply_transposed, packed, packed_pairs, padded, wide


@numba.njit
def product(a, step, rows, b, length, columns, out):
    multiply(a, 1, step, rows, b, 0, length, columns, out, 0, columns)


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("columns", [1, 8, 9, 24, 25, 48, 60])
@pytest.mark.parametrize("step", [2, 11])
def test_product_of_rows_that_may_overlap(rows, length, columns, step):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(200), rng.standard_normal((length, columns))
    left = np.stack([a[1 + step * i :][:length] for i in range(rows)])
    out = np.ones((rows, padded(columns)), np.float32)
    product(
        a.astype(np.float32), step, rows, packed(torch.from_numpy(b).float()), length, padded(columns), out
    )
    np.testing.assert_allclose(out[:, :columns], 1 + left @ b, rtol=1e-5, atol=1e-5)
    assert (out[:, columns:] == 1).all()


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("columns", [1, 8, 25, 60])
def test_product_of_whole_numbers(rows, length, columns):
    rng = np.random.default_rng(0)
    left = rng.integers(-4096, 4097, (rows, length))
    right = rng.integers(-(2**15) + 1, 2**15, (length, columns))
    pairs = (length + 1) // 2
    a = np.zeros((rows + 1, 2 * pairs), np.int16)
    a[:-1, :length] = left
    a = np.append(np.zeros(2, np.int16), a).view(np.int32)  # `product` leaves out the first pair
    out = np.ones((rows, padded(columns)), np.int32)
    product(a, pairs, rows, packed_pairs(torch.from_numpy(right).float()), pairs, padded(columns), out)
    assert np.array_equal(out[:, :columns], 1 + left @ right)
    assert (out[:, columns:] == 1).all()


@numba.njit
def transposed_product(a, a_step, rows, b, b_step, length, columns, out):
    multiply_transposed(a, 2, a_step, rows, b, 1, b_step, length, columns, out)


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("columns", [8, 24, 32, 64])
def test_product_of_a_transposed_matrix(rows, length, columns):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((length, 11)), rng.standard_normal((length, 70))
    out = np.ones((rows, columns), np.float32)
    flat = (np.append(np.zeros(start), x).astype(np.float32) for start, x in ((2, a), (1, b)))
    left, right = flat
    transposed_product(left, 11, rows, right, 70, length, columns, out)
    np.testing.assert_allclose(out, 1 + a[:, :rows].T @ b[:, :columns], rtol=1e-5, atol=1e-5)


def with_zeros(matrix, axis, parts):
    """Return a matrix with zeros after each part of an axis, up to whole vectors."""
    halves = np.split(matrix, parts, axis)
    length = padded(halves[0].shape[axis]) - halves[0].shape[axis]
    room = [(0, length if i == axis else 0) for i in (0, 1)]
    return np.concatenate([np.pad(half, room) for half in halves], axis)


@pytest.mark.parametrize("row_parts", [0, 1, 2])
@pytest.mark.parametrize("column_parts", [1, 2])
@pytest.mark.parametrize("size", [(2, 2), (6, 58), (48, 24), (10, 26)], ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_layouts(row_parts, column_parts, size, turned):
    rng = np.random.default_rng(0)
    matrix, scale = rng.standard_normal(size), rng.standard_normal(size[0])
    tensor = torch.from_numpy(matrix).float()
    if turned:
        tensor = torch.stack([tensor.T.contiguous(), tensor.T]).unbind()[0].T
    expected = with_zeros(matrix.astype(np.float32), 1, column_parts)
    assert np.array_equal(wide(tensor, column_parts), expected.ravel())
    expected = expected * scale.astype(np.float32)[:, None]
    expected = with_zeros(expected, 0, row_parts) if row_parts else expected
    found = packed(
        tensor, row_parts=row_parts, column_parts=column_parts, scale=torch.from_numpy(scale).float()
    )
    panels = [expected[:, at : at + WIDTH].ravel() for at in range(0, expected.shape[1], WIDTH)]
    assert np.array_equal(found, np.concatenate(panels))


def test_layout_of_nothing():
    assert len(packed(torch.empty(0, 3))) == 0
