"""The curves of training runs as one picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glic_pyg.config import ConfigError
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.run_folder import RunFolder

LABELS = {"loss": "loss", "bpp": "bits per pixel", "psnr": "PSNR in dB"}
POINTS = 60
"""Of a curve of training steps, each a mean over several: single steps hide it."""

Rows = list[dict[str, float]]


def draw_runs(runs: Sequence[Path]) -> Figure:
    """Draw what runs gave on the held-out pictures, a line per quality, the runs one after another.

    Of a run that has not been evaluated yet, what it gave on its training crops is drawn.

    Args:
        runs: Their folders, see `RunFolder`.

    Raises:
        ConfigError: a table is not one of a run, or has no row.
        OSError: a table cannot be read.
    """
    evaluations = [evaluations_of(run) for run in runs]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = dict(zip(LABELS, figure.subplots(1, len(LABELS)), strict=True))
    first = 0.0
    for number, (run, scores) in enumerate(zip(runs, evaluations, strict=True)):
        if number:
            for axes in panels.values():
                axes.axvline(first, color="#999999", linestyle=":")
        if scores:
            _draw_scores(panels, scores, first, named=not any(evaluations[:number]))
            first += max(rows[-1]["step"] for rows in scores.values())
        else:
            steps = _steps(run)
            _draw_steps(panels, steps, first, named=all(evaluations[:number]))
            first += steps[-1]["step"]
    for name, axes in panels.items():
        held_out = name == "loss" and all(evaluations)
        axes.set(xlabel="steps", ylabel="held-out loss" if held_out else LABELS[name])
        axes.grid(color="#dddddd")
    handles, labels = panels["psnr"].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center")
    return figure


def evaluations_of(run: Path) -> dict[str, Rows]:
    """Return a run's evaluations in order, for each quality; none of a run that has not been evaluated yet.

    Raises:
        ConfigError: not a table of evaluations.
        OSError: it cannot be read.
    """
    path, scores = RunFolder(run).eval, dict[str, Rows]()
    if path.exists():
        for quality, row in _read(path, "quality"):
            scores.setdefault(quality, []).append(row)
    return scores


def next_evaluation(run: Path) -> str:
    """Return a line about a run that has not been evaluated yet: where it is, and when the evaluation comes.

    Raises:
        ConfigError: not a run's folder, or it has made no step yet.
        OSError: a file cannot be read.
    """
    config = TrainConfig.from_yaml(RunFolder(run).config)
    steps = _steps(run)
    step, seconds = steps[-1]["step"], steps[-1]["seconds"]
    durations = [after["seconds"] - before["seconds"] for before, after in pairwise(steps[-50:])]
    at = config.eval_every if config.steps is None else min(config.eval_every, config.steps)
    left = (median(durations) if durations else seconds) * max(0, at - step)
    when = f"at step {at}"
    if config.max_time is not None and config.max_time - seconds < left:
        left, when = max(0, config.max_time - seconds), f"at the end, after {config.max_time:.0f} s"
    about = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
    return f"{run}: not evaluated up to step {step:.0f}; the first evaluation comes {when}, in about {about}"


def _draw_scores(panels: dict[str, Axes], scores: dict[str, Rows], first: float, *, named: bool) -> None:
    colors = matplotlib.colormaps["viridis"].resampled(len(scores))
    for name, axes in panels.items():
        for i, (quality, rows) in enumerate(scores.items()):
            axes.plot(
                [first + row["step"] for row in rows],
                [row[name] for row in rows],
                color=colors(i),
                marker=".",
                label=f"quality {quality}" if named else None,
            )


def _draw_steps(panels: dict[str, Axes], steps: Rows, first: float, *, named: bool) -> None:
    size = max(1, len(steps) // POINTS)
    parts = [steps[i : i + size] for i in range(0, len(steps), size)]
    for name, axes in panels.items():
        axes.plot(
            [first + fmean(row["step"] for row in part) for part in parts],
            [fmean(row[name] for row in part) for part in parts],
            color="#777777",
            label=f"training crops,\nmeans of {size} steps" if named else None,
        )
    # The first steps' losses are so high that nothing else could be seen.
    panels["loss"].set_yscale("log")


def _steps(run: Path) -> Rows:
    path = RunFolder(run).log
    rows = [row for _, row in _read(path, "step", "seconds")]
    if not rows:
        raise ConfigError(f"Expected steps of glic train in {path} (got none)")
    return rows


def _read(path: Path, key: str, *more: str) -> list[tuple[str, dict[str, float]]]:
    """Return a table's rows, each by what it has for a key."""
    with path.open(newline="") as file:
        try:
            return [
                (row[key], {name: float(row[name]) for name in ("step", *LABELS, *more)})
                for row in csv.DictReader(file)
            ]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise ConfigError(f"Expected a table of glic train in {path} (got {error!r})") from error
