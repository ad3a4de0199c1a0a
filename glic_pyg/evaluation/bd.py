"""Bjontegaard's deltas between two rate-distortion curves, by package bjontegaard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import bjontegaard

from glic_pyg.config import ConfigError

Method = Literal["cubic", "pchip", "akima"]
METHODS: tuple[Method, ...] = ("cubic", "pchip", "akima")
LEAST_POINTS = 4


@dataclass(frozen=True)
class Curve:
    """Rate and quality of a codec.

    Args:
        name: Of the codec.
        rates: In bits per pixel.
        scores: PSNR or MS-SSIM in dB, one per rate.
    """

    name: str
    rates: tuple[float, ...]
    scores: tuple[float, ...]

    @classmethod
    def of(cls, name: str, results: Mapping[str, Sequence[float]], *, metric: str = "psnr-rgb") -> Curve:
        """Return a column of a codec's `results`, in CompressAI's layout, against `bpp`.

        Raises:
            ConfigError: no such column, or something else than numbers in it.
        """
        try:
            return cls(name, tuple(map(float, results["bpp"])), tuple(map(float, results[metric])))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"Expected {metric} of {name} (got {', '.join(results)})") from error

    def within(self, least: float, most: float) -> Curve:
        """Return the points whose rates are in a range."""
        kept = [(r, s) for r, s in zip(self.rates, self.scores, strict=True) if least <= r <= most]
        return Curve(self.name, *zip(*kept, strict=True)) if kept else Curve(self.name, (), ())

    def sorted(self) -> Curve:
        """Return the points by rate, without those that more bits did not make better."""
        points: list[tuple[float, float]] = []
        for rate, score in sorted(zip(self.rates, self.scores, strict=True)):
            if not points or (rate > points[-1][0] and score > points[-1][1]):
                points.append((rate, score))
        return Curve(self.name, *zip(*points, strict=True)) if points else self


@dataclass(frozen=True)
class Delta:
    """How a codec compares with an anchor.

    Args:
        rate: BD-rate in %; negative where the codec needs fewer bits for the same quality.
        score: BD-PSNR, or the same of MS-SSIM, in dB.
        overlap: Share of the range of scores of both curves together that they have in common.
    """

    rate: float
    score: float
    overlap: float


def delta(anchor: Curve, test: Curve, *, method: Method) -> Delta:
    """Compare two curves over the scores (for the rate) or rates (for the score) that both have.

    Raises:
        ConfigError: too few points, or nothing in common.
    """
    anchor, test = anchor.sorted(), test.sorted()
    for curve in (anchor, test):
        if len(curve.rates) < LEAST_POINTS:
            raise ConfigError(
                f"Expected at least {LEAST_POINTS} rising points of {curve.name} (got {len(curve.rates)})"
            )
    overlap = _overlap(anchor.scores, test.scores)
    if overlap <= 0:
        raise ConfigError(f"Expected curves that overlap (got {anchor.name} and {test.name})")
    points = (anchor.rates, anchor.scores, test.rates, test.scores)
    settings = {"method": method, "require_matching_points": False, "min_overlap": 0}
    rate = float(bjontegaard.bd_rate(*map(list, points), **settings))
    score = math.nan
    if _overlap(anchor.rates, test.rates) > 0:
        score = float(bjontegaard.bd_psnr(*map(list, points), **settings))
    return Delta(rate, score, overlap)


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    common = min(max(a), max(b)) - max(min(a), min(b))
    return common / (max(*a, *b) - min(*a, *b))
