"""The curves of training runs as one picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from glic_pyg.config import ConfigError

LABELS = {"loss": "held-out loss", "bpp": "bits per pixel", "psnr": "PSNR in dB"}

Scores = dict[str, list[dict[str, float]]]
"""For every quality its evaluations, in order."""


def draw_runs(evaluations: Sequence[Path]) -> Figure:
    """Draw what runs gave on the held-out pictures, a line per quality, the runs one after another.

    Args:
        evaluations: Every run's `eval.csv`, see `run_folder`.

    Raises:
        ConfigError: a table is not one of evaluations, or has no row.
        OSError: a table cannot be read.
    """
    runs = [_read(path) for path in evaluations]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(LABELS)), LABELS.items(), strict=True):
        first = 0.0
        for number, scores in enumerate(runs):
            if number:
                axes.axvline(first, color="#999999", linestyle=":")
            colors = matplotlib.colormaps["viridis"].resampled(len(scores))
            for i, (quality, rows) in enumerate(scores.items()):
                axes.plot(
                    [first + row["step"] for row in rows],
                    [row[name] for row in rows],
                    color=colors(i),
                    marker=".",
                    label=None if number else f"quality {quality}",
                )
            first += max(rows[-1]["step"] for rows in scores.values())
        axes.set(xlabel="steps", ylabel=label)
        axes.grid(color="#dddddd")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center")
    return figure


def _read(path: Path) -> Scores:
    scores: Scores = {}
    with path.open(newline="") as file:
        try:
            for row in csv.DictReader(file):
                values = {name: float(row[name]) for name in ("step", *LABELS)}
                scores.setdefault(row["quality"], []).append(values)
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise ConfigError(f"Expected evaluations of tools/train.py in {path} (got {error!r})") from error
    if not scores:
        raise ConfigError(f"Expected evaluations of tools/train.py in {path} (got none)")
    return scores
