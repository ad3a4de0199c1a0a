import math

import pytest

from glic_pyg.evaluation.bd import METHODS, Curve, CurveError, Pictures, delta

ANCHOR = Curve("anchor", (0.1, 0.2, 0.4, 0.8, 1.6), (28.0, 30.0, 32.0, 34.0, 36.0))


@pytest.mark.parametrize("method", METHODS)
def test_closed_forms(method):
    """For PSNR linear in the logarithm of the rate all methods have the same closed form."""
    fewer_bits = Curve("test", tuple(0.8 * rate for rate in ANCHOR.rates), ANCHOR.scores)
    result = delta(ANCHOR, fewer_bits, method=method)
    assert result.rate == pytest.approx(-20)
    assert result.score == pytest.approx(2 * math.log2(1 / 0.8))
    assert result.overlap == pytest.approx(1)
    better = Curve("test", ANCHOR.rates, tuple(score + 1 for score in ANCHOR.scores))
    result = delta(ANCHOR, better, method=method)
    assert result.rate == pytest.approx(100 * (2**-0.5 - 1))
    assert result.score == pytest.approx(1)
    assert result.overlap == pytest.approx(7 / 8)


def test_order_and_points_that_do_not_rise_do_not_matter():
    shuffled = Curve("test", (0.4, 0.1, 1.6, 0.8, 0.2, 0.9), (32.0, 28.0, 36.0, 34.0, 30.0, 33.0))
    assert delta(ANCHOR, shuffled, method="cubic").rate == pytest.approx(0, abs=1e-9)


def test_a_range_of_rates():
    assert ANCHOR.within(0.2, 0.9) == Curve("anchor", (0.2, 0.4, 0.8), (30.0, 32.0, 34.0))
    assert ANCHOR.within(2, 3) == Curve("anchor", (), ())


def test_pictures_that_are_known_to_differ():
    kodak, other = Pictures(24, "kodak"), Pictures(24, digest="a")
    assert not kodak.unlike(other)
    assert not Pictures().unlike(kodak)
    assert kodak.unlike(Pictures(3))
    assert kodak.unlike(Pictures(24, "clic"))
    assert other.unlike(Pictures(24, digest="b"))


def test_the_pictures_of_a_column():
    """MS-SSIM is of those that are large enough."""
    results = {"bpp": [1, 2], "psnr-rgb": [3, 4], "ms-ssim-rgb": [0.5, 0.6]}
    counts = {"pictures": [24, 24], "ms-ssim-pictures": [22, 22]}
    assert Curve.of("a", results | counts).pictures == Pictures(24)
    assert Curve.of("a", results | counts, metric="ms-ssim-db-rgb").pictures == Pictures(22)
    assert Curve.of("a", results | counts).within(0, 1).sorted().pictures == Pictures(24)
    for odd in ([24, 23], [None, None], [math.inf, math.inf], 24):
        assert Curve.of("a", results | {"pictures": odd}).pictures == Pictures()


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(CurveError, match=r"Expected at least 4 rising points of anchor \(got 3\)"):
        delta(ANCHOR.within(0.2, 0.9), ANCHOR, method="cubic")
    above = Curve("above", ANCHOR.rates, tuple(score + 10 for score in ANCHOR.scores))
    with pytest.raises(
        CurveError,
        match=r"Expected curves that overlap \(got anchor with 28 to 36 and above with 38 to 46\)",
    ):
        delta(ANCHOR, above, method="cubic")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("score", "found"), [(math.nan, "none"), (math.inf, "inf"), (-math.inf, "-inf")])
@pytest.mark.parametrize("place", range(5))
def test_a_score_that_is_no_number_is_never_left_out(method, place, score, found):
    """Not even where five of six points would do."""
    scores = [*ANCHOR.scores]
    scores[place] = score
    broken = Curve("test", (*ANCHOR.rates, 3.2), (*scores, 38.0))
    message = rf"Expected finite scores of test \(got {found} at {ANCHOR.rates[place]:g} bpp\)"
    for curves in ((ANCHOR, broken), (broken, ANCHOR)):
        with pytest.raises(CurveError, match=message):
            delta(*curves, method=method)


def test_a_lossless_point_beyond_the_range_does_not_matter():
    lossless = Curve("test", (*ANCHOR.rates, 9.0), (*ANCHOR.scores, math.inf))
    assert delta(ANCHOR, lossless.within(0, 2), method="cubic").rate == pytest.approx(0, abs=1e-9)


def test_without_a_rate_in_common_there_is_no_bd_score():
    dear = Curve("dear", tuple(100 * rate for rate in ANCHOR.rates), ANCHOR.scores)
    result = delta(ANCHOR, dear, method="pchip")
    assert result.rate == pytest.approx(9900)
    assert math.isnan(result.score)


@pytest.mark.parametrize("rate", [0, -0.1, math.nan, math.inf, None])
def test_rates_that_are_none_are_refused(rate):
    results = {"bpp": [0.1, rate, 0.4], "psnr-rgb": [28, 30, 32]}
    got = "nan" if rate is None else f"{rate:g}"
    with pytest.raises(CurveError, match=rf"Expected rates above 0 bpp of a \(got {got} as number 2\)"):
        Curve.of("a", results)


def test_columns_of_two_lengths_are_refused():
    with pytest.raises(CurveError, match=r"Expected psnr-rgb for each of 3 rates of a \(got 2\)"):
        Curve.of("a", {"bpp": [0.1, 0.2, 0.4], "psnr-rgb": [28, 30]})


def test_columns_of_compressai():
    """The names of version 1.2 and those before, lists over qualities, and one picture's values."""
    lists = {"bpp": [0.1, 0.2], "psnr-rgb": [28, 30], "ms-ssim-rgb": [0.9, 0.99]}
    old = {"bpp": [0.1, 0.2], "psnr": [28, 30], "ms-ssim": [0.9, 0.99]}
    for results in (lists, old):
        assert Curve.of("a", results) == Curve("a", (0.1, 0.2), (28, 30))
        assert Curve.of("a", results, metric="ms-ssim-rgb").scores == (0.9, 0.99)
        assert Curve.of("a", results, metric="ms-ssim-db-rgb").scores == pytest.approx((10, 20))
    one = {"psnr-rgb": 30.5, "ms-ssim-rgb": 0.9, "bpp": 0.25, "encoding_time": 1.0, "decoding_time": 1.0}
    assert Curve.of("a", one) == Curve("a", (0.25,), (30.5,))
    assert Curve.of("a", one, metric="ms-ssim-db-rgb").scores == pytest.approx((10,))


def test_a_score_that_is_missing_is_none():
    curve = Curve.of("a", {"bpp": [0.1, 0.2], "psnr-rgb": [28, None], "ms-ssim-rgb": [None, 1]})
    assert math.isnan(curve.scores[1])
    scores = Curve.of("a", {"bpp": [0.1, 0.2], "ms-ssim-rgb": [None, 1]}, metric="ms-ssim-db-rgb").scores
    assert math.isnan(scores[0])
    assert scores[1] == math.inf
