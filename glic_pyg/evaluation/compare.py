"""Curves of files and of published points, compared with an anchor."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from glic_pyg.evaluation.bd import Curve, CurveError, Delta, Method, Pictures, delta
from glic_pyg.evaluation.measure import Row, Table
from glic_pyg.evaluation.paper import curve
from glic_pyg.evaluation.results import read_results
from glic_pyg.metrics import decibels

METRICS: Mapping[str, Callable[[Row], float]] = {
    "psnr-rgb": lambda row: row.psnr,
    "ms-ssim-rgb": lambda row: row.ms_ssim,
    "ms-ssim-db-rgb": lambda row: decibels(row.ms_ssim),
}
"""Columns of results, and the same of a row."""


@dataclass(frozen=True)
class Comparison:
    """How a curve compares with an anchor.

    Args:
        name: As it was asked for.
        delta: Of the curves.
        points: Of the curve.
        flat: Those of them that are left out, since more bits did not make them better.
        picture_rate: Mean of the pictures' own BD-rates in %; None where no tables of pictures are beside
            both files.
        pictures: That both tables have.
        compared: Those of them whose curves can be compared.
        means: The pictures that the curves' points are means of.
    """

    name: str
    delta: Delta
    points: int
    flat: int
    picture_rate: float | None
    pictures: int
    compared: int
    means: Pictures


def compare(anchor: str, name: str, *, metric: str, method: Method, bpp: tuple[float, float]) -> Comparison:
    """Compare a curve with an anchor.

    Args:
        anchor: Path of a results file (`.json`), or name of published points.
        name: The same of what is compared.
        metric: One of `METRICS`.
        method: Of interpolation.
        bpp: Points beyond these rates are left out.

    Raises:
        CurveError: curves that cannot be compared.
        FileError: a file without results.
        UsageError: no published points of that name.
    """
    of_anchor, of_name = (load_curve(one, metric=metric).within(*bpp) for one in (anchor, name))
    result = delta(of_anchor, of_name, method=method)
    anchors, others = (_of_pictures(one, metric=metric, bpp=bpp) for one in (anchor, name))
    rates, common = [], sorted(anchors.keys() & others.keys())
    for picture in common:
        with suppress(CurveError):
            rates.append(delta(anchors[picture], others[picture], method=method).rate)
    return Comparison(
        name,
        result,
        points=len(of_name.rates),
        flat=len(of_name.rates) - len(of_name.sorted().rates),
        picture_rate=statistics.fmean(rates) if rates else None,
        pictures=len(common),
        compared=len(rates),
        means=of_name.pictures if of_name.pictures.count else of_anchor.pictures,
    )


def load_curve(name: str, *, metric: str) -> Curve:
    """Return the curve of a results file, or published points."""
    if not name.endswith(".json"):
        return curve(name, metric=metric)
    content = read_results(Path(name))
    return Curve.of(
        f"{name} ({content['name']})",
        content["results"],
        metric=metric,
        pictures=Pictures(digest=content["pictures_sha256"]),
    )


def _of_pictures(name: str, *, metric: str, bpp: tuple[float, float]) -> dict[str, Curve]:
    """Return a curve per picture, of the table that lies beside a file of results; none without one."""
    path = Path(name)
    if path.suffix != ".json" or not (path.parent / "pictures.csv").exists():
        return {}
    means = read_results(path)
    of_picture: dict[str, list[Row]] = {}
    for row in Table(path.parent / "pictures.csv").rows_of(means):
        of_picture.setdefault(row.picture, []).append(row)
    return {
        picture: Curve(
            f"{means['name']}, {picture}",
            tuple(row.bpp for row in rows),
            tuple(METRICS[metric](row) for row in rows),
        ).within(*bpp)
        for picture, rows in of_picture.items()
    }
