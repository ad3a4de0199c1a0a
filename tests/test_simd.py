import numba
import numpy as np
import pytest

from glic_pyg.simd import (
    add_products,
    below,
    convolve,
    correlate,
    exponential,
    floor,
    fold,
    full,
    load,
    lowest_bit,
    maximum,
    one_above,
    places_above,
    power_of_two,
    repeat,
    square_root,
    store,
    total,
)


@numba.njit
def calculate(lanes, x, y, out):
    a, b = load(lanes, x, 1), load(lanes, y, len(lanes))
    store(out, 0, a + b)
    store(out, len(lanes), a - b * b)
    store(out, 2 * len(lanes), maximum(a, b))
    store(out, 3 * len(lanes), full(lanes, 0.0))
    store(out, 4 * len(lanes), a / b)
    store(out, 5 * len(lanes), below(a, b))
    store(out, 6 * len(lanes), square_root(b * b))
    store(out, 7 * len(lanes), floor(a))
    store(out, 8 * len(lanes), power_of_two(floor(a)))
    store(out, 9 * len(lanes), full(lanes, 2.5))
    store(out, 10 * len(lanes), 0.1 / b)
    store(out, 11 * len(lanes), a * np.float32(3))
    store(out, 12 * len(lanes), one_above(a, b))
    store(out, 13 * len(lanes), -a)


@pytest.mark.parametrize("lanes", [1, 3, 8, 20])
def test_arithmetic(lanes):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(lanes + 1).astype(np.float32)
    y = rng.standard_normal((3, lanes)).astype(np.float32)
    out = np.full((15, lanes), 7, np.float32)
    calculate((np.float32(0),) * lanes, x, y, out)
    a, b = x[1:], y[1]
    expected = [a + b, a - b * b, np.maximum(a, b), 0 * a, a / b, np.where(a < b, a, 0), abs(b)]
    expected += [np.floor(a), 2 ** np.floor(a), 0 * a + 2.5, 0.1 / b, 3 * a, a > b, -a, 0 * a + 7]
    np.testing.assert_allclose(out, expected, rtol=1e-6)


@numba.njit
def widen(lanes, wide, x, out, back):
    repeated = repeat(wide, load(lanes, x, 0))
    store(out, 0, repeated)
    store(back, 0, fold(lanes, repeated * load(wide, out, 0)))


@pytest.mark.parametrize(("lanes", "times"), [(1, 16), (3, 5), (4, 4), (8, 2), (20, 1)])
def test_repeat_and_fold(lanes, times):
    x = np.random.default_rng(0).standard_normal(lanes).astype(np.float32)
    out, back = np.zeros(lanes * times, np.float32), np.zeros_like(x)
    wide = (np.float32(0),) * len(out)
    widen(wide[:lanes], wide, x, out, back)
    np.testing.assert_array_equal(out, np.tile(x, times))
    np.testing.assert_allclose(back, times * x**2, rtol=1e-6)


@numba.njit
def power(lanes, x, out):
    store(out, 0, power_of_two(load(lanes, x, 0)))


def test_power_of_two_to_its_bounds():
    x, out = np.array([-126, -1, 0, 127], np.float32), np.zeros(4, np.float32)
    power((np.float32(0),) * 4, x, out)
    np.testing.assert_array_equal(out, 2.0**x)


@numba.njit
def places(lanes, x, y):
    bits, found = places_above(load(lanes, x, 0), load(lanes, y, 0)), []
    while bits:
        found.append(lowest_bit(bits))
        bits &= bits - np.uint64(1)
    return found


@pytest.mark.parametrize("lanes", [3, 8, 64])
def test_places_above(lanes):
    x, y = np.random.default_rng(0).standard_normal((2, lanes)).astype(np.float32)
    y[-1], y[0] = -np.inf, np.nan
    expected = np.flatnonzero(x > y)
    assert lanes - 1 in expected
    assert places((np.float32(0),) * lanes, x, y) == expected.tolist()


@numba.njit
def add(rows, lanes, vectors, a, b, out):
    add_products(rows, lanes, vectors, a, 2, 9, 2, b, 1, 25, 5, out, 3, 30)


@pytest.mark.parametrize(("rows", "lanes", "vectors"), [(4, 8, 3), (1, 8, 1), (2, 4, 2)])
def test_add_products(rows, lanes, vectors):
    rng, columns = np.random.default_rng(0), lanes * vectors
    a, b, out = (rng.standard_normal(n).astype(np.float32) for n in (40, 1 + 5 * 25, 130))
    left = np.stack([a[2 + 9 * i :][:9:2] for i in range(rows)])
    expected = out.copy()
    for i, line in enumerate(left @ b[1:].reshape(5, 25)[:, :columns]):
        expected[3 + 30 * i :][:columns] += line
    sizes = ((np.float32(0),) * n for n in (rows, lanes, vectors))
    add(*sizes, a, b, out)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@numba.njit
def sum_of(lanes, x):
    return total(load(lanes, x, 1))


@pytest.mark.parametrize("lanes", [1, 3, 8, 16])
def test_total(lanes):
    x = np.random.default_rng(0).standard_normal(20).astype(np.float32)
    np.testing.assert_allclose(
        sum_of((np.float32(0),) * lanes, x), x[1 : 1 + lanes].sum(dtype=float), rtol=1e-5, atol=1e-6
    )


@numba.njit
def exponentials(lanes, x, out):
    for i in range(0, len(x), len(lanes)):
        store(out, i, exponential(lanes, load(lanes, x, i)))


def test_exponential():
    x = np.append(np.linspace(-87, 0, 4000), [-1e30, -200, -88, -87, -0.0, 0, -1e-9, -1]).astype(np.float32)
    out = np.empty_like(x)
    exponentials((np.float32(0),) * 8, x, out)
    np.testing.assert_allclose(out, np.exp(np.maximum(x.astype(float), -87)), rtol=3e-7)


@numba.njit
def convolved(side, lanes, positions, x, first, line, at, weight, step, start, out):
    convolve(side, lanes, positions, x, first, line, at, weight, 1, step, load(lanes, start, 0), out, 2)


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("positions", [1, 2, 8])
@pytest.mark.parametrize("first", [0, 1, 4])
def test_depthwise_convolution_of_a_ring(side, positions, first):
    rng = np.random.default_rng(0)
    lanes, step, columns, first = 4, 6, positions + side, first % side
    ring = rng.standard_normal((side, columns, step)).astype(np.float32)
    weight = rng.standard_normal((side, side, step)).astype(np.float32)
    start, out = rng.standard_normal(lanes).astype(np.float32), np.full(2 + positions * step, 7, np.float32)
    tuples = ((np.float32(0),) * count for count in (side, lanes, positions))
    convolved(*tuples, ring, first, columns * step, step + 1, weight, step, start, out)
    rows, of_lanes = np.roll(ring, -first, 0), slice(1, 1 + lanes)
    for i in range(positions):
        taps = rows[:, 1 + i : 1 + i + side, of_lanes] * weight[:, :, of_lanes]
        found = out[2 + i * step :][:lanes]
        np.testing.assert_allclose(found, start + taps.sum((0, 1)), rtol=1e-5, atol=1e-5)
    assert (np.delete(out, [2 + i * step + k for i in range(positions) for k in range(lanes)]) == 7).all()


@numba.njit
def correlated(side, lanes, x, y, step, count, out):
    correlate(side, lanes, x, 1, y, 2, step, count, out, 3)


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 11])
def test_sums_of_products_from_each_of_some_places_on(side, count):
    rng = np.random.default_rng(0)
    lanes, step = 4, 6
    x, y = (rng.standard_normal(200).astype(np.float32) for _ in range(2))
    out = np.ones(3 + side * step, np.float32)
    correlated((np.float32(0),) * side, (np.float32(0),) * lanes, x, y, step, count, out)
    for j in range(side):
        pairs = ((x[1 + (i + j) * step :][:lanes], y[2 + i * step :][:lanes]) for i in range(count))
        expected = 1 + sum((a * b for a, b in pairs), np.zeros(lanes))
        np.testing.assert_allclose(out[3 + j * step :][:lanes], expected, rtol=1e-5, atol=1e-5)
    assert (np.delete(out, [3 + j * step + k for j in range(side) for k in range(lanes)]) == 1).all()
