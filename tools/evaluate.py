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
from glic_pyg.errors import FileError
from glic_pyg.evaluation.bd import METHODS, Curve, CurveError, delta
from glic_pyg.evaluation.codecs import RIVALS, Codec
from glic_pyg.evaluation.measure import Job, Outcome, Table, attempt, cached_codec, notes, results
from glic_pyg.files import files_below, replacing
from glic_pyg.image import picture_suffixes


def main() -> int:
    """Parse the command line, measure what is missing, print and write the means."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("-d", "--dataset", type=Path, nargs="+", required=True, help="folders of pictures")
    add("-o", "--output", type=Path, required=True, help="folder for tables")
    add("--model", nargs="+", default=["glic_nano"], metavar="NAME|PATH", help="GLIC's or CompressAI's")
    add("--quality", type=float, nargs="+", help="of models of several (default: all whole ones)")
    add("--rival", nargs="+", choices=list(RIVALS), default=[], help="codecs of libraries, at many qualities")
    add("--bpp", type=float, nargs=2, default=(0.1, 0.9), help="range for BD-rates (default: 0.1 0.9)")
    add("--method", choices=METHODS, default="cubic", help="of BD-rates (default: %(default)s)")
    add("--workers", type=int, default=1, help="processes; several disturb the times (default: 1)")
    cli.add_allow_code(parser)
    args = parser.parse_args()
    pictures = [path for folder in args.dataset for path in _pictures_in(folder)]
    codecs = {name: cached_codec(name, allow_code=args.allow_code) for name in [*args.model, *args.rival]}
    table = Table(args.output / "pictures.csv")
    jobs = [
        Job(name, quality, picture, args.allow_code)
        for name, codec in codecs.items()
        for quality in _qualities(codec, None if name in RIVALS else args.quality)
        for picture in pictures
    ]
    missing = [job for job in jobs if job.key(codecs[job.codec]) not in table.rows]
    errors: set[str] = set()
    for outcome in tqdm(_measure(missing, args.workers), total=len(missing), unit="file", disable=None):
        for message in outcome.warnings:
            warnings.warn(message, stacklevel=1)
        if outcome.row is not None:
            table.add(outcome.row)
        elif (
            outcome.error not in errors
        ):  # one of a picture that cannot be read comes once for each of its files
            errors.add(outcome.error)
            cli.print_line("error", outcome.error)
    names, common = _compared(jobs, codecs, table)

    curves = {}
    for name in names:
        codec = codecs[name]
        rows = [table.rows[job.key(codec)] for job in jobs if job.codec == name and job.picture in common]
        about = f"real files of {len(common)} pictures, workers {args.workers}"
        command = shlex.join(["python", *sys.argv])
        means = results(str(name), codec, rows, description=about, command=command)
        with replacing(args.output / f"{codec.name}.json") as aside:
            aside.write_text(json.dumps(means, indent=1) + "\n")
        _print_means(means)
        curves[name] = Curve.of(codec.name, means["results"])
    rivals = [name for name in args.rival if name in curves]
    if rivals:
        least, most = args.bpp
        print(f"BD-rate ({args.method}), {least:g} to {most:g} bpp, PSNR of the mean curves:")
    for name in (name for name in args.model if name in curves):
        for rival in rivals:
            anchor, test = (curves[key].within(*args.bpp) for key in (rival, name))
            try:
                result = delta(anchor, test, method=args.method)
            except CurveError as error:
                print(f"  {test.name} against {rival}: {error}")
                continue
            print(f"  {test.name} against {rival}: {result.text()} (overlap {result.overlap:.0%})")
    return int(bool(errors))


def _pictures_in(folder: Path) -> list[Path]:
    found = files_below(folder, picture_suffixes())
    if not found:
        raise FileError(f"Expected folders with pictures (got {folder})")
    return found


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


def _qualities(codec: Codec, wanted: list[float] | None) -> tuple[float | None, ...]:
    return codec.qualities if wanted is None or codec.qualities == (None,) else tuple(wanted)


def _measure(jobs: list[Job], workers: int) -> Iterator[Outcome]:
    if workers == 1:
        yield from map(attempt, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for future in as_completed([pool.submit(attempt, job) for job in jobs]):
            yield future.result()


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
    print(f"{means['name']}\n{cli.aligned(lines, labels=0)}")
    print("".join(f"{note}\n" for note in notes(means["results"])))


if __name__ == "__main__":
    cli.run(main)
