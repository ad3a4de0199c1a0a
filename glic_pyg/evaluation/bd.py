"""Bjontegaard's deltas between two rate-distortion curves, by package bjontegaard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from glic_pyg.errors import UserError, require
from glic_pyg.metrics import decibels

with require("pytorch_msssim", "bjontegaard", "matplotlib", extra="evaluate", purpose="evaluation"):
    import bjontegaard

Method = Literal["cubic", "pchip", "akima"]
METHODS: tuple[Method, ...] = ("cubic", "pchip", "akima")
LEAST_POINTS = 4
THIN = 0.5
"""Curves that have less in common are hardly compared."""

OLD_NAMES = {"psnr-rgb": "psnr", "ms-ssim-rgb": "ms-ssim"}
"""What earlier versions of CompressAI call its columns."""


class Pictures(NamedTuple):
    """Of which pictures means are, as far as it is told.

    Args:
        count: How many; 0 where that is not told.
        dataset: Of published points, such as kodak.
        digest: Of the files of pictures that were measured, see `measure.digest_of`.
    """

    count: int = 0  # type: ignore[assignment]  # hides that of tuples
    dataset: str = ""
    digest: str = ""

    def unlike(self, other: Pictures) -> bool:
        """Return whether the others are known to be other pictures."""
        return any(mine and its and mine != its for mine, its in zip(self, other, strict=True))

    def text(self) -> str:
        """Return them in words."""
        some = f"{self.count or 'some'} picture{'s' if self.count != 1 else ''}"
        return f"{some} of {self.dataset}" if self.dataset else some


UNTOLD = Pictures()


class CurveError(UserError, ValueError):
    """Curves that cannot be compared; the message is one line for the user."""


class PicturesError(CurveError):
    """Means of other pictures, which cannot be compared."""


@dataclass(frozen=True)
class Curve:
    """Rate and quality of a codec.

    Args:
        name: Of the codec.
        rates: In bits per pixel.
        scores: PSNR in dB or MS-SSIM, one per rate; infinite where pictures are restored exactly, NaN where
            there is none.
        pictures: That its points are means of.
    """

    name: str
    rates: tuple[float, ...]
    scores: tuple[float, ...]
    pictures: Pictures = UNTOLD

    @classmethod
    def of(
        cls,
        name: str,
        results: Mapping[str, Any],
        *,
        metric: str = "psnr-rgb",
        pictures: Pictures = UNTOLD,
    ) -> Curve:
        """Return a column of a codec's `results`, in CompressAI's layout, against `bpp`.

        Args:
            name: Of the codec.
            results: Columns, or single values for one point; `ms-ssim-db-rgb` follows from `ms-ssim-rgb`, and
                earlier names are known. A score that is None is NaN.
            metric: The column.
            pictures: That the results are means of; by default as many as a column of them says.

        Raises:
            CurveError: no such column, something else than numbers in it, or a rate that is none.
        """
        try:
            rates, scores = (
                tuple(math.nan if v is None else float(v) for v in _column(results, column))
                for column in ("bpp", metric)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CurveError(f"Expected {metric} of {name} (got {', '.join(results)})") from error
        if len(rates) != len(scores):
            raise CurveError(
                f"Expected {metric} for each of {len(rates)} rates of {name} (got {len(scores)})"
            )
        for i, rate in enumerate(rates):
            if not 0 < rate < math.inf:
                raise CurveError(f"Expected rates above 0 bpp of {name} (got {rate:g} as number {i + 1})")
        counts = results.get("ms-ssim-pictures" if metric.startswith("ms-ssim") else "pictures")
        if isinstance(counts, Sequence) and len(set(counts)) == 1 and math.isfinite(counts[0] or math.inf):
            pictures = pictures._replace(count=int(counts[0]))
        return cls(name, rates, scores, pictures)

    def within(self, least: float, most: float) -> Curve:
        """Return the points whose rates are in a range."""
        kept = [(r, s) for r, s in zip(self.rates, self.scores, strict=True) if least <= r <= most]
        return self._with(kept)

    def sorted(self) -> Curve:
        """Return the points by rate, without those that more bits did not make better."""
        points: list[tuple[float, float]] = []
        for rate, score in sorted(zip(self.rates, self.scores, strict=True)):
            if not points or (rate > points[-1][0] and score > points[-1][1]):
                points.append((rate, score))
        return self._with(points)

    def _with(self, points: Sequence[tuple[float, float]]) -> Curve:
        return replace(self, rates=tuple(r for r, _ in points), scores=tuple(s for _, s in points))


@dataclass(frozen=True)
class Delta:
    """How a codec compares with an anchor.

    Args:
        rate: BD-rate in %; negative where the codec needs fewer bits for the same quality.
        score: BD-PSNR in dB, or the same of MS-SSIM; NaN where the curves have no rate in common.
        overlap: Share of the scores of the curve of fewer scores that the other curve has too.
    """

    rate: float
    score: float
    overlap: float

    @property
    def thin(self) -> bool:
        """Whether the curves have so few scores in common that the figures tell little of either."""
        return self.overlap < THIN

    def text(self, *, unit: str = " dB") -> str:
        """Return rate and score as text."""
        score = "none, without a rate in common" if math.isnan(self.score) else f"{self.score:+.3f}{unit}"
        return f"BD-rate {self.rate:+.2f} %, BD-score {score}"


def delta(anchor: Curve, test: Curve, *, method: Method) -> Delta:
    """Compare two curves over the scores (for the rate) or rates (for the score) that both have.

    Raises:
        PicturesError: means of other pictures.
        CurveError: a score that is infinite or none, too few points, or nothing in common.
    """
    if anchor.pictures.unlike(test.pictures):
        means = (f"{curve.name} of {curve.pictures.text()}" for curve in (anchor, test))
        raise PicturesError(f"Expected means of the same pictures (got {' and '.join(means)})")
    for curve in (anchor, test):
        for rate, score in zip(curve.rates, curve.scores, strict=True):
            if not math.isfinite(score):
                found = "none" if math.isnan(score) else f"{score:g}"
                raise CurveError(f"Expected finite scores of {curve.name} (got {found} at {rate:.4g} bpp)")
    anchor, test = anchor.sorted(), test.sorted()
    for curve in (anchor, test):
        if len(curve.rates) < LEAST_POINTS:
            raise CurveError(
                f"Expected at least {LEAST_POINTS} rising points of {curve.name} (got {len(curve.rates)})"
            )
    overlap = _overlap(anchor.scores, test.scores)
    if overlap <= 0:
        ranges = (
            f"{curve.name} with {curve.scores[0]:.4g} to {curve.scores[-1]:.4g}" for curve in (anchor, test)
        )
        raise CurveError(f"Expected curves that overlap (got {' and '.join(ranges)})")
    points = (anchor.rates, anchor.scores, test.rates, test.scores)
    settings = {"method": method, "require_matching_points": False, "min_overlap": 0}
    rate = float(bjontegaard.bd_rate(*map(list, points), **settings))
    if not math.isfinite(rate):
        raise CurveError(f"Expected curves that {method} can compare (got {anchor.name} and {test.name})")
    score = math.nan
    if _overlap(anchor.rates, test.rates) > 0:
        score = float(bjontegaard.bd_psnr(*map(list, points), **settings))
    return Delta(rate, score, overlap)


def _column(results: Mapping[str, Any], metric: str) -> Sequence[float | None]:
    if metric == "ms-ssim-db-rgb" and metric not in results:
        return [v if v is None else decibels(float(v)) for v in _column(results, "ms-ssim-rgb")]
    values = results[metric] if metric in results else results[OLD_NAMES[metric]]
    return [values] if isinstance(values, int | float) else values


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    common = min(max(a), max(b)) - max(min(a), min(b))
    return common / min(max(a) - min(a), max(b) - min(b))
