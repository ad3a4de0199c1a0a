"""The paper's BD-rates, computed anew from published points."""

from __future__ import annotations

import math
from dataclasses import dataclass

from glic_pyg.evaluation.anchors import DATASETS, PICTURES, anchor_names, load_anchor, load_paper_table
from glic_pyg.evaluation.bd import Curve, Method, Pictures, delta

VTM = {"kodak": "kodak/vtm-compressai", "tecnick": "tecnick/vtm-9.1", "clic": "clic/vtm-9.1"}
"""The anchor behind the paper's table, found by trying: no other gives its figures."""

POINTS = {
    "ELIC": "elic",
    "MLIC++": "mlicpp",
    "TCM-L": "tcm-l",
    "FTIC": "ftic",
    "CCA": "cca",
    "WeConvene": "weconvene",
    "HPCM": "hpcm-base",
    "DCAE": "dcae",
    "LALIC": "lalic",
    "MambaIC": "mambaic",
    "GLIC": "glic",
    "HPCM-Large": "hpcm-large",
    "CMIC": "cmic",
}
"""Whose published points stand for which row; the last two are not in the paper's table."""

TOLERANCE = 0.02


@dataclass(frozen=True)
class Cell:
    """A BD-rate against VTM-9.1 in %.

    Args:
        method: The codec.
        dataset: The pictures.
        published: In the paper; NaN where it has none.
        computed: From published points; NaN where there are none.
    """

    method: str
    dataset: str
    published: float
    computed: float

    @property
    def verdict(self) -> str:
        """How the two agree."""
        if math.isnan(self.computed):
            return "no data"
        if math.isnan(self.published):
            return "not in the paper"
        difference = self.computed - self.published
        return "reproduced" if abs(difference) <= TOLERANCE else f"off by {difference:+.2f}"


def rebuild_table(*, method: Method) -> list[Cell]:
    """Compute every cell of the paper's table, and the rows that it leaves out.

    Args:
        method: Of interpolation; the paper's figures follow from `cubic`.
    """
    rows = {row["method"]: row["bd_rate"] for row in load_paper_table()["rows"]}
    known = anchor_names()
    cells = []
    for name, points in POINTS.items():
        for dataset in DATASETS:
            computed = math.nan
            if f"{dataset}/{points}" in known:
                computed = delta(curve(VTM[dataset]), curve(f"{dataset}/{points}"), method=method).rate
            published = rows.get(name, {}).get(dataset)
            cells.append(Cell(name, dataset, math.nan if published is None else published, computed))
    return cells


def curve(name: str, *, metric: str = "psnr-rgb") -> Curve:
    """Return published points as a curve.

    Raises:
        UsageError: no such points.
        CurveError: they are not of that metric.
    """
    dataset = name.partition("/")[0]
    pictures = Pictures(PICTURES[dataset], dataset)
    return Curve.of(name, load_anchor(name)["results"], metric=metric, pictures=pictures)
