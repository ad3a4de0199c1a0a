import math

import pytest

from glic_pyg.config import ConfigError
from glic_pyg.evaluation.bd import METHODS, Curve, delta

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
    assert result.overlap == pytest.approx(7 / 9)


def test_order_and_points_that_do_not_rise_do_not_matter():
    shuffled = Curve("test", (0.4, 0.1, 1.6, 0.8, 0.2, 0.9), (32.0, 28.0, 36.0, 34.0, 30.0, 33.0))
    assert delta(ANCHOR, shuffled, method="cubic").rate == pytest.approx(0, abs=1e-9)


def test_a_range_of_rates():
    assert ANCHOR.within(0.2, 0.9) == Curve("anchor", (0.2, 0.4, 0.8), (30.0, 32.0, 34.0))
    assert ANCHOR.within(2, 3) == Curve("anchor", (), ())


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ConfigError, match=r"Expected at least 4 rising points of anchor \(got 3\)"):
        delta(ANCHOR.within(0.2, 0.9), ANCHOR, method="cubic")
    above = Curve("above", ANCHOR.rates, tuple(score + 10 for score in ANCHOR.scores))
    with pytest.raises(ConfigError, match=r"Expected curves that overlap \(got anchor and above\)"):
        delta(ANCHOR, above, method="cubic")
