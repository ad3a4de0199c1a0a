"""Train a model on a folder of photos.

    python tools/train.py --config configs/train/nano.yaml -d PHOTOS

Ctrl-C or SIGTERM saves and ends; the same command with --resume goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

from glic_pyg import cli
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.trainer import TrainingError, train

OVERRIDES = {"lambda": "lmbda"} | {
    name.replace("_", "-"): name for name in ("steps", "batch_size", "patch_size", "learning_rate", "seed")
}


def main() -> int:
    """Parse the command line and train; 0 when the last step is reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="training configuration (YAML)")
    parser.add_argument(
        "-d", "--dataset", type=Path, required=True, help="folder of photos, searched recursively"
    )
    parser.add_argument("-o", "--output", type=Path, help="run folder (default: runs/NAME_OF_CONFIG)")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the run folder's checkpoint, if it has one"
    )
    parser.add_argument(
        "--checkpoint", metavar="NAME|PATH", help="start from this model's weights instead of random ones"
    )
    settings = parser.add_argument_group("settings in place of the configuration's")
    for flag, field in OVERRIDES.items():
        kind = type(getattr(TrainConfig(), field))
        settings.add_argument(f"--{flag}", dest=field, type=kind, metavar=kind.__name__.upper())
    args = parser.parse_args()

    logging.basicConfig(format="%(message)s")
    overrides = {
        field: getattr(args, field) for field in OVERRIDES.values() if getattr(args, field) is not None
    }
    config = dataclasses.replace(TrainConfig.from_yaml(args.config), **overrides)
    output = args.output or Path("runs") / args.config.stem
    try:
        finished = train(
            config, dataset=args.dataset, output=output, resume=args.resume, weights=args.checkpoint
        )
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not finished:
        print(f"Stopped; the same command with --resume goes on from {output}", file=sys.stderr)
        return 130
    print(output)
    return 0


if __name__ == "__main__":
    cli.run(main)
