import numba
import numpy as np
import pytest

from glic_pyg.nn.kernels.simd import load, maximum, store, zeros


@numba.njit
def calculate(lanes, x, y, out):
    a, b = load(lanes, x, 1), load(lanes, y, len(lanes))
    store(out, 0, a + b)
    store(out, len(lanes), a - b * b)
    store(out, 2 * len(lanes), maximum(a, b))
    store(out, 3 * len(lanes), zeros(lanes))


@pytest.mark.parametrize("lanes", [1, 3, 8, 20])
def test_arithmetic(lanes):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(lanes + 1).astype(np.float32)
    y = rng.standard_normal((3, lanes)).astype(np.float32)
    out = np.full((5, lanes), 7, np.float32)
    calculate((np.float32(0),) * lanes, x, y, out)
    a, b = x[1:], y[1]
    expected = np.stack([a + b, a - b * b, np.maximum(a, b), 0 * a, 0 * a + 7])
    np.testing.assert_allclose(out, expected, rtol=1e-6)
