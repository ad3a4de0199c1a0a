"""Rate-distortion curves as pictures, to be told apart in print too."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from glic_pyg.evaluation.bd import Curve

# Okabe and Ito's colours, apart for colour-blind eyes; markers and dashes, apart without any colour.
COLORS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", ":")


def draw_curves(curves: Sequence[Curve], *, score: str, most_bpp: float) -> Figure:
    """Draw scores against bits per pixel; points without a finite score are left out.

    Args:
        curves: The first one is emphasised.
        score: Label of the vertical axis.
        most_bpp: Right end of the horizontal axis.
    """
    figure = Figure(figsize=(7, 5), dpi=160, layout="constrained")
    axes = figure.add_subplot(xlabel="bits per pixel", ylabel=score, xlim=(0, most_bpp))
    shown, lines = [], []
    for i, curve in enumerate(curves):
        points = sorted(p for p in zip(curve.rates, curve.scores, strict=True) if math.isfinite(p[1]))
        lines += axes.plot(
            [rate for rate, _ in points],
            [score for _, score in points],
            color=COLORS[i % len(COLORS)],
            marker=MARKERS[i % len(MARKERS)],
            linestyle=DASHES[(i // len(COLORS) + i) % len(DASHES)] if i else "-",
            linewidth=2.2 if i == 0 else 1.4,
            markersize=5,
        )
        shown += [score for rate, score in points if rate <= most_bpp]
    if shown:
        margin = 0.04 * (max(shown) - min(shown)) + 0.1
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
    axes.grid(color="#dddddd")
    # A dollar would begin a formula; and without handles, names that begin with an underscore are left out.
    names = [curve.name.encode("utf-8", "backslashreplace").decode().replace("$", r"\$") for curve in curves]
    axes.legend(lines, names, loc="lower right", fontsize=9)
    return figure
