"""Code many pictures on a cluster, by Ray Data.

    glic bulk compress photos/ -o coded/
    glic bulk compress s3://bucket/photos -o s3://bucket/coded --quality 3 --ray auto
    glic bulk decompress coded/ -o restored/ --format webp
    glic bulk evaluate photos/ -o results/ --target-bpp 0.25

Source and target are folders, or URLs of object stores, which all nodes have to see. Beside pictures a source
may have shards: .tar as WebDataset has them, and .parquet with a column of pictures' bytes. A shard's output
is a shard. A table, glic_results.parquet, has a row for each picture, with an error where it could not be
coded; the exit status is then 1. The same command goes on where an earlier one ended.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from glic_pyg.cli import compress, flags
from glic_pyg.cli.printing import print_json, print_line, say
from glic_pyg.errors import UsageError, require

VERBS = {
    "compress": "pictures to .glic files",
    "decompress": ".glic files to pictures",
    "evaluate": "measure bpp and PSNR of pictures",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, about in VERBS.items():
        verb = verbs.add_parser(name, help=about, description=__doc__)
        verb.set_defaults(verb=name)
        add = verb.add_argument
        add("source", help="folder, shard, or URL of either")
        add("-o", "--output", required=True, metavar="TARGET", help="folder or URL")
        if name == "decompress":
            flags.add_model(verb)
            add("--format", default="png", metavar="F", help="as Pillow names it, or a suffix (default: png)")
        else:
            compress.add_settings(verb)
        flags.add_max_pixels(verb)
        flags.add_max_memory(verb)
        flags.add_ray(verb, default="local")
        most = "processes at most (default: as many as the cluster has room for)"
        add("--actors", type=flags.count, metavar="N", help=most)
        cores = "cores of each process, and its threads (default: %(default)g)"
        add("--cpus", type=flags.positive, default=1, metavar="N", help=cores)
        gpus = "GPUs of each process, 0.5 if two share one (default: none)"
        add("--gpus", type=flags.positive, default=0, metavar="N", help=gpus)
        add(
            "--batch",
            type=flags.count,
            default=32,
            metavar="N",
            help="pictures in a batch (default: %(default)s)",
        )
        flags.add_force(verb)
        flags.add_json(verb)
        verb.set_defaults(flags=list(verb._option_string_actions))


def run(args: Namespace) -> int:
    """Do what is missing, tell what came of it; 1 if a picture failed."""
    if args.gpus > 1 and args.gpus % 1:
        raise UsageError(f"Expected --gpus of at most 1, or a whole number (got {args.gpus:g})")
    require("ray", "pyarrow", extra="ray", purpose="glic bulk")

    from glic_pyg.bulk import Coder, Decoder, Encoder, Evaluator
    from glic_pyg.bulk.job import Engine
    from glic_pyg.bulk.job import run as run_job
    from glic_pyg.on_ray import alone, connected, in_actors

    coders: dict[str, type[Coder]] = {"compress": Encoder, "decompress": Decoder, "evaluate": Evaluator}
    settings: dict[str, Any] = {
        "model": os.path.abspath(args.model) if os.path.exists(args.model) else args.model,
        "allow_code": args.allow_code,
        "device": "cuda" if args.gpus else "cpu",
        "max_pixels": args.max_pixels,
        "max_memory": args.max_memory,
    }
    if args.verb == "decompress":
        settings |= {"format": args.format}
    else:
        settings |= compress.encoder_settings(args)

    @contextmanager
    def engine() -> Iterator[Engine]:
        on_store = "://" in args.output  # a folder is locked by a file
        with connected(args.ray), alone(args.output.rstrip("/")) if on_store else nullcontext():
            yield partial(in_actors, actors=args.actors, cpus=args.cpus, gpus=args.gpus)

    summary = run_job(
        coders[args.verb],
        settings,
        args.source,
        args.output,
        engine=engine(),
        writes=args.verb != "evaluate",
        batch=args.batch,
        force=args.force,
    )
    if args.json:
        print_json(vars(summary))
    else:
        say(
            f"{args.output}: {summary.pictures} pictures, {summary.new} of them now, "
            f"in {summary.seconds:.1f} s"
        )
    if summary.failed:
        print_line(
            "error",
            f"{summary.failed} of {summary.pictures} pictures could not be coded, see glic_results.parquet; "
            f"the first: {summary.first_error}",
        )
    return int(summary.failed > 0)
