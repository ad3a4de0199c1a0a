"""Folders of pictures through several codecs: rows of figures, means, and BD-rates between them.

pictures x codecs x qualities --> rows, in a table that grows --> means of each codec --> BD-rates
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from glic_pyg.errors import FileError, UsageError
from glic_pyg.evaluation.bd import Curve, CurveError, Delta, Method, delta
from glic_pyg.evaluation.codecs import DEFAULT, RIVALS, Codec, Options
from glic_pyg.evaluation.measure import (
    Outcome,
    Table,
    Task,
    attempt,
    cached_codec,
    results,
    settings_hash,
)
from glic_pyg.files import files_below, write_file
from glic_pyg.ledger import hash_file, writing
from glic_pyg.on_ray import connected, in_tasks
from glic_pyg.picture import picture_suffixes
from glic_pyg.processes import in_processes
from glic_pyg.progress import each


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation gave.

    Args:
        means: Per codec, by the name it was asked for by, its results as CompressAI lays them out.
        errors: How many pictures could not be read, or coded by some codec.
    """

    means: dict[str, dict[str, Any]]
    errors: int


def evaluate(
    datasets: Sequence[Path],
    output: Path,
    *,
    models: Sequence[str],
    rivals: Sequence[str] = (),
    qualities: Sequence[float] | None = None,
    jobs: int = 1,
    ray: str | None = None,
    options: Options = DEFAULT,
    force: bool = False,
    command: str = "",
    complain: Callable[[str], object] = warnings.warn,
) -> Evaluation:
    """Compress and restore all pictures with all codecs; what the output folder's table has is not measured.

    Args:
        datasets: Folders of pictures, searched recursively.
        output: Folder for `pictures.csv`, a row per file, and a JSON of means per codec.
        models: Names or paths of GLIC's, names of CompressAI's.
        rivals: Of `RIVALS`.
        qualities: Of models of several; None is all whole ones.
        jobs: Processes; several disturb the times.
        ray: Address of a cluster of Ray's that measures in place of processes, see `on_ray.connected`.
        options: Of models.
        force: Whether files may be overwritten that no earlier call wrote.
        command: That asks for it, to be noted beside the means.
        complain: Is told, in a line, of each picture and codec that is left out.

    Raises:
        FileError: folders without pictures, or an output that may not be written.
        UsageError: a quality that a model does not have.
        CheckpointError, PackageError: see `load_codec`.
    """
    pictures = _pictures(datasets)
    codecs = _codecs([*models, *rivals], options)
    table = Table(output / "pictures.csv")
    tasks = [
        Task(name, quality, picture, options)
        for name, codec in codecs.items()
        for quality in _qualities(name, codec, None if name in RIVALS else qualities)
        for picture in pictures
    ]
    outputs = {name: output / f"{_as_file_name(codec.name)}.json" for name, codec in codecs.items()}
    means = {}
    with writing(*outputs.values(), inputs=[*pictures, *models], force=force):
        table.begin(_digests(pictures))
        errors = _measure_missing(tasks, codecs, table, partial(_measure, jobs=jobs, ray=ray), complain)
        names, common = _compared(tasks, codecs, table, complain)
        for name in names:
            codec = codecs[name]
            rows = [
                table.rows[task.key(codec)] for task in tasks if task.codec == name and task.picture in common
            ]
            about = f"real files of {len(common)} pictures, {'on Ray' if ray else f'jobs {jobs}'}"
            means[name] = results(name, codec, rows, description=about, command=command)
            write_file(outputs[name], json.dumps(means[name], indent=1) + "\n")
    return Evaluation(means, errors)


def deltas(
    means: Mapping[str, Mapping[str, Any]], *, bpp: tuple[float, float], method: Method
) -> Iterator[tuple[str, str, Delta | CurveError]]:
    """Compare every model with every rival: names of both, and the delta or why there is none.

    Args:
        means: See `Evaluation`.
        bpp: The rates between which curves are compared.
        method: Of interpolation.
    """
    curves = {name: Curve.of(some["name"], some["results"]).within(*bpp) for name, some in means.items()}
    for name in (name for name in curves if name not in RIVALS):
        for rival in (name for name in curves if name in RIVALS):
            try:
                result: Delta | CurveError = delta(curves[rival], curves[name], method=method)
            except CurveError as error:
                result = error
            yield curves[name].name, rival, result


def _pictures(folders: Sequence[Path]) -> list[Path]:
    """Return the pictures in some folders, each once, however often it is met."""
    pictures: dict[str, Path] = {}
    for folder in folders:
        found = files_below(folder, picture_suffixes())
        if not found:
            raise FileError(f"Expected folders with pictures (got {folder})")
        for path in found:
            pictures.setdefault(os.path.realpath(path), path)
    return list(pictures.values())


def _codecs(names: Sequence[str], options: Options) -> dict[str, Codec]:
    """Return codecs by name, each once, whatever its names."""
    codecs = {name: cached_codec(name, options) for name in names}
    first: dict[tuple[str, str], str] = {}
    for name, codec in codecs.items():
        first.setdefault((codec.name, settings_hash(codec.settings)), name)
    return {name: codecs[name] for name in first.values()}


def _as_file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]|^\.", "_", name)[:100]


def _digests(pictures: Sequence[Path]) -> dict[str, str]:
    """Return the pictures' hashes; none of one that cannot be read, which is told when it is measured."""
    digests = {}
    for path in pictures:
        try:
            digests[path.as_posix()] = hash_file(path)
        except OSError:
            digests[path.as_posix()] = ""
    return digests


def _measure_missing(
    tasks: Sequence[Task],
    codecs: Mapping[str, Codec],
    table: Table,
    measure: Callable[[list[Task]], Generator[Outcome, None, None]],
    complain: Callable[[str], object],
) -> int:
    """Fill the table, and return how many errors there were."""
    missing = [task for task in tasks if task.key(codecs[task.codec]) not in table.rows]
    errors: set[str] = set()
    with closing(measure(missing)) as outcomes:
        for outcome in each(outcomes, "measuring files", total=len(missing)):
            for message in outcome.warnings:
                warnings.warn(message, stacklevel=1)
            if outcome.row is not None:
                table.add(outcome.row)
            elif (
                outcome.error not in errors
            ):  # a picture that cannot be read fails with every codec and quality
                errors.add(outcome.error)
                complain(outcome.error)
    return len(errors)


def _compared(
    tasks: Sequence[Task], codecs: Mapping[str, Codec], table: Table, complain: Callable[[str], object]
) -> tuple[list[str], set[Path]]:
    """Return the codecs that made files, and the pictures of which each of them made one at every quality.

    Means of other pictures for each codec could not be compared. What is left out is told.
    """
    pictures = {task.picture for task in tasks}
    made = dict.fromkeys(codecs, pictures)
    for task in tasks:
        if task.key(codecs[task.codec]) not in table.rows:
            made[task.codec] = made[task.codec] - {task.picture}
    names = [name for name in codecs if made[name]]
    for name in codecs:
        if not made[name]:
            complain(f"{name} is left out: no picture has its files at every quality")
    common = pictures.intersection(*(made[name] for name in names)) if names else set()
    if not common:
        raise FileError("Expected a picture with files of every codec (got none)")
    if left_out := ", ".join(sorted(str(picture) for picture in pictures - common)):
        complain(f"means are of {len(common)} of {len(pictures)} pictures, without {left_out}")
    return names, common


def _qualities(name: str, codec: Codec, wanted: Sequence[float] | None) -> tuple[float | None, ...]:
    offered = [quality for quality in codec.qualities if quality is not None]
    if wanted is None or not offered:
        return codec.qualities
    least, most = offered[0], offered[-1]
    for quality in wanted:
        if not least <= quality <= most:
            raise UsageError(f"Expected a quality in {least}..{most} for {name} (got {quality:g})")
    return tuple(dict.fromkeys(wanted))


def _measure(tasks: list[Task], *, jobs: int, ray: str | None) -> Generator[Outcome, None, None]:
    if ray is not None:
        with connected(ray):
            on_gpu = any(task.options.device != "cpu" for task in tasks)
            yield from in_tasks(attempt, tasks, gpus=int(on_gpu))
        return
    if jobs == 1:
        yield from map(attempt, tasks)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    yield from in_processes(partial(_measuring, threads), tasks, jobs=jobs)


def _measuring(threads: int) -> Callable[[Task], Outcome]:
    torch.set_num_threads(threads)
    return attempt
