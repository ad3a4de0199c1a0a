"""Compress and restore folders of pictures with several codecs, and compare.

    python tools/evaluate.py -d kodak/ -o results/
    python tools/evaluate.py -d kodak/ -o results/ --model glic_nano my.safetensors --rival jpeg webp avif

All figures are of real files, every byte counted, and of 8-bit pictures unless they say otherwise. The
output folder holds `pictures.csv` with a row per file, and per codec a JSON of means as CompressAI writes it.
An interrupted evaluation goes on where it was: rows that are there are not measured again. A picture that
cannot be read, or that a codec fails for, is told and left out of all means; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from glic_pyg import cli
from glic_pyg.errors import FileError, UsageError
from glic_pyg.evaluation.bd import METHODS, Curve, CurveError, delta
from glic_pyg.evaluation.codecs import RIVALS, Codec
from glic_pyg.evaluation.measure import (
    Job,
    Outcome,
    Table,
    attempt,
    cached_codec,
    notes,
    results,
    settings_hash,
)
from glic_pyg.files import files_below, write_file
from glic_pyg.image import picture_suffixes
from glic_pyg.ledger import hash_file


def main() -> int:
    """Parse the command line, measure what is missing, print and write the means."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("-d", "--dataset", type=Path, nargs="+", required=True, help="folders of pictures")
    add("-o", "--output", type=Path, required=True, help="folder for tables")
    add("--model", nargs="+", default=["glic_nano"], metavar="NAME|PATH", help="GLIC's or CompressAI's")
    add("--quality", type=float, nargs="+", help="of models of several (default: all whole ones)")
    add("--rival", nargs="+", choices=list(RIVALS), default=[], help="codecs of libraries, at many qualities")
    add(
        "--bpp",
        type=cli.nonnegative,
        nargs=2,
        default=(0.1, 0.9),
        help="range for BD-rates (default: 0.1 0.9)",
    )
    add("--method", choices=METHODS, default="cubic", help="of BD-rates (default: %(default)s)")
    add("--workers", type=cli.count, default=1, help="processes; several disturb the times (default: 1)")
    cli.add_allow_code(parser)
    cli.add_force(parser)
    args = parser.parse_args()
    pictures = _pictures(args.dataset)
    codecs = _codecs([*args.model, *args.rival], allow_code=args.allow_code)
    table = Table(args.output / "pictures.csv")
    jobs = [
        Job(name, quality, picture, args.allow_code)
        for name, codec in codecs.items()
        for quality in _qualities(name, codec, None if name in RIVALS else args.quality)
        for picture in pictures
    ]
    outputs = {name: args.output / f"{_as_file_name(codec.name)}.json" for name, codec in codecs.items()}
    with cli.writing(*outputs.values(), inputs=pictures, force=args.force):
        table.begin(_digests(pictures))
        errors = _measure_missing(jobs, codecs, table, args.workers)
        names, common = _compared(jobs, codecs, table)
        curves = {}
        for name in names:
            codec = codecs[name]
            rows = [table.rows[job.key(codec)] for job in jobs if job.codec == name and job.picture in common]
            about = f"real files of {len(common)} pictures, workers {args.workers}"
            command = shlex.join(["python", *sys.argv])
            means = results(str(name), codec, rows, description=about, command=command)
            write_file(outputs[name], json.dumps(means, indent=1) + "\n")
            _print_means(means)
            curves[name] = Curve.of(codec.name, means["results"])
    _print_deltas(curves, args)
    return int(errors > 0)


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


def _codecs(names: Sequence[str], *, allow_code: bool) -> dict[str, Codec]:
    """Return codecs by name, each once, whatever its names."""
    codecs = {name: cached_codec(name, allow_code=allow_code) for name in names}
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


def _measure_missing(jobs: Sequence[Job], codecs: Mapping[str, Codec], table: Table, workers: int) -> int:
    """Fill the table, and return how many errors there were."""
    missing = [job for job in jobs if job.key(codecs[job.codec]) not in table.rows]
    errors: set[str] = set()
    for outcome in tqdm(_measure(missing, workers), total=len(missing), unit="file", disable=None):
        for message in outcome.warnings:
            warnings.warn(message, stacklevel=1)
        if outcome.row is not None:
            table.add(outcome.row)
        elif outcome.error not in errors:  # a picture that cannot be read fails with every codec and quality
            errors.add(outcome.error)
            cli.print_line("error", outcome.error)
    return len(errors)


def _print_deltas(curves: Mapping[str, Curve], args: argparse.Namespace) -> None:
    rivals = [name for name in curves if name in RIVALS]
    if rivals:
        least, most = args.bpp
        print(f"BD-rate ({args.method}), {least:g} to {most:g} bpp, PSNR of the mean curves:")
    for name in (name for name in curves if name not in RIVALS):
        for rival in rivals:
            anchor, test = (curves[key].within(*args.bpp) for key in (rival, name))
            try:
                result = delta(anchor, test, method=args.method)
            except CurveError as error:
                cli.say(f"  {test.name} against {rival}: {error}")
                continue
            cli.say(f"  {test.name} against {rival}: {result.text()} (overlap {result.overlap:.0%})")


def _compared(jobs: Sequence[Job], codecs: Mapping[str, Codec], table: Table) -> tuple[list[str], set[Path]]:
    """Return the codecs that made files, and the pictures of which each of them made one at every quality.

    Means of other pictures for each codec could not be compared. What is left out is told.
    """
    pictures = {job.picture for job in jobs}
    made = dict.fromkeys(codecs, pictures)
    for job in jobs:
        if job.key(codecs[job.codec]) not in table.rows:
            made[job.codec] = made[job.codec] - {job.picture}
    names = [name for name in codecs if made[name]]
    for name in codecs:
        if not made[name]:
            cli.print_line("error", f"{name} is left out: no picture has its files at every quality")
    common = pictures.intersection(*(made[name] for name in names)) if names else set()
    if not common:
        raise FileError("Expected a picture with files of every codec (got none)")
    if left_out := ", ".join(sorted(str(picture) for picture in pictures - common)):
        cli.print_line("error", f"means are of {len(common)} of {len(pictures)} pictures, without {left_out}")
    return names, common


def _qualities(name: str, codec: Codec, wanted: list[float] | None) -> tuple[float | None, ...]:
    if wanted is None or codec.qualities == (None,):
        return codec.qualities
    least, most = codec.qualities[0], codec.qualities[-1]
    for quality in wanted:
        if not least <= quality <= most:
            raise UsageError(f"Expected a quality in {least}..{most} for {name} (got {quality:g})")
    return tuple(dict.fromkeys(wanted))


def _measure(jobs: list[Job], workers: int) -> Iterator[Outcome]:
    if workers == 1:
        yield from map(attempt, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(attempt, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:  # who is interrupted does not wait for all others
            for future in futures:
                future.cancel()


def _print_means(means: dict[str, Any]) -> None:
    columns = {
        "quality": ".3g", "bpp": ".4f", "payload-bpp": ".4f", "estimated-bpp": ".4f",
        "psnr-rgb": ".2f", "psnr-rgb-unrounded": ".2f", "ms-ssim-rgb": ".4f",
        "encoding_time": ".2f", "decoding_time": ".2f",
    }  # fmt: skip
    lines = [list(columns)]
    for values in zip(*(means["results"][name] for name in columns), strict=True):
        lines.append(
            [
                "-" if value is None else format(value, form)
                for value, form in zip(values, columns.values(), strict=True)
            ]
        )
    cli.say(means["name"])
    print(cli.aligned(lines, labels=0))
    print("".join(f"{note}\n" for note in notes(means["results"])))


if __name__ == "__main__":
    cli.run(main)
