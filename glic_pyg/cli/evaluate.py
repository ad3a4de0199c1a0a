"""Compress and restore folders of pictures with several codecs, and compare.

    glic evaluate -d kodak/ -o results/
    glic evaluate -d kodak/ -o results/ --model glic_nano my.safetensors --rival jpeg webp avif

All figures are of real files, every byte counted, and of 8-bit pictures unless they say otherwise. The
output folder holds `pictures.csv` with a row per file, and per codec a JSON of means as CompressAI writes it.
An interrupted evaluation goes on where it was: rows that are there are not measured again. A picture that
cannot be read, or that a codec fails for, is told and left out of all means; the exit status is then 1.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from functools import partial
from typing import Any

from glic_pyg.cli import flags
from glic_pyg.cli.printing import aligned, print_json, print_line, say, say_lines
from glic_pyg.errors import UsageError

RIVALS = ("jpeg", "jpeg2000", "webp", "avif", "jpegxl")
"""`glic_pyg.evaluation.codecs.RIVALS`, which is not imported to read arguments."""
COLUMNS = {
    "quality": ".3g",
    "bpp": ".4f",
    "payload-bpp": ".4f",
    "estimated-bpp": ".4f",
    "psnr-rgb": ".2f",
    "psnr-rgb-unrounded": ".2f",
    "ms-ssim-rgb": ".4f",
    "encoding_time": ".2f",
    "decoding_time": ".2f",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    flags.add_dataset(parser)
    flags.add_output_folder(parser)
    flags.add_model(parser, several=True)
    add(
        "--quality",
        type=float,
        nargs="+",
        metavar="Q",
        help="of models of several (default: all whole ones)",
    )
    add("--rival", nargs="+", choices=RIVALS, default=[], help="codecs of libraries, at many qualities")
    flags.add_bd(parser, bpp=(0.1, 0.9))
    flags.add_jobs(parser, "several disturb the times")
    flags.add_ray(parser)
    flags.add_effort(parser)
    flags.add_machine(parser)
    flags.add_force(parser)
    flags.add_json(parser)


def run(args: Namespace) -> int:
    """Measure what is missing, print and write the means; 1 if a picture was left out."""
    if args.ray is not None and args.jobs != 1:
        raise UsageError("Expected --ray without --jobs (got both)")
    from glic_pyg.cli.machine import prepare
    from glic_pyg.evaluation.codecs import Options
    from glic_pyg.evaluation.evaluate import deltas, evaluate

    prepare(args)
    evaluation = evaluate(
        args.dataset,
        args.output,
        models=args.model,
        rivals=args.rival,
        qualities=args.quality,
        jobs=args.jobs,
        ray=args.ray,
        options=Options(args.device, args.effort, args.lmbda, args.distortion, args.allow_code),
        force=args.force,
        command=args.command_line,
        complain=partial(print_line, "error"),
    )
    for means in evaluation.means.values():
        if args.json:
            print_json(means)
        else:
            _print_means(means)
    compared = list(deltas(evaluation.means, bpp=args.bpp, method=args.method))
    if compared and not args.json:
        least, most = args.bpp
        say_lines(f"BD-rate ({args.method}), {least:g} to {most:g} bpp, PSNR of the mean curves:")
    for name, rival, result in compared:
        if args.json:
            figures = {"error": str(result)} if isinstance(result, Exception) else vars(result)
            print_json({"name": name, "against": rival, **figures})
        elif isinstance(result, Exception):
            say(f"  {name} against {rival}: {result}")
        else:
            thin = f"; overlap {result.overlap:.0%} (thin!)" if result.thin else ""
            say(f"  {name} against {rival}: {result.text()}{thin}")
    return int(evaluation.errors > 0)


def _print_means(means: Mapping[str, Any]) -> None:
    from glic_pyg.evaluation.measure import notes

    lines = [list(COLUMNS)]
    for values in zip(*(means["results"][name] for name in COLUMNS), strict=True):
        lines.append(
            [
                "-" if value is None else format(value, form)
                for value, form in zip(values, COLUMNS.values(), strict=True)
            ]
        )
    say(means["name"])
    say_lines(aligned(lines, labels=0))
    say_lines("".join(f"{note}\n" for note in notes(means["results"])))
