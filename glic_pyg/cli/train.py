"""Train a model on a folder of photos.

    glic train --config configs/train/nano.yaml -d PHOTOS
    glic train --config configs/train/flickr2w.yaml -d PHOTOS --devices 8 --strategy ddp

Ctrl-C or SIGTERM saves and ends; the same command with --resume goes on.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from glic_pyg.cli import flags
from glic_pyg.cli.printing import show_log
from glic_pyg.cli.waiting import waiting
from glic_pyg.config import ModelConfig
from glic_pyg.errors import UsageError
from glic_pyg.training.config import TrainConfig
from glic_pyg.yaml_text import parse_yaml

FLAGS = {field.name: "--" + field.name.replace("_", "-") for field in fields(TrainConfig)}
FLAGS |= {"lmbda": "--lambda", "model": "--model-config"}
"""Of a training configuration's settings."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--config", metavar="FILE", help="training configuration (YAML); flags override it")
    flags.add_training_set(parser, required=False)
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="run folder (default: runs/NAME_OF_CONFIG)",
    )
    add("--resume", action="store_true", help="go on from the run folder's checkpoint, if it has one")
    add("--checkpoint", metavar="NAME|PATH", help="start from this model's weights instead of random ones")
    add("--manifest", metavar="FILE", help="another run's manifest.csv: take the same pictures, unchanged")
    add("--print-config", action="store_true", help="print the resulting configuration and end")
    machine = parser.add_argument_group("machine")
    flags.add_accelerator(machine)
    machine.add_argument(
        "--devices",
        type=flags.count,
        default=1,
        metavar="N",
        help="GPUs, or processes on the CPU (default: 1)",
    )
    machine.add_argument(
        "--num-nodes", type=flags.count, default=1, metavar="N", help="machines (default: 1)"
    )
    machine.add_argument("--strategy", default="auto", help="ddp for several devices (default: auto)")
    settings = parser.add_argument_group("settings in place of the configuration's, written as there")
    helps, hints = _descriptions(), get_type_hints(TrainConfig)
    for name, flag in FLAGS.items():
        several = "tuple" in str(hints[name]) and name != "milestones"
        settings.add_argument(
            flag,
            dest=name,
            nargs="+" if several else None,
            metavar="FILE" if name == "model" else "VALUE",
            help="model configuration (YAML)" if name == "model" else helps[name],
        )


def run(args: Namespace) -> int:
    """Train; 0 when the last step is reached."""
    config = _config(args)
    if args.print_config:
        print(config.to_yaml(), end="")
        return 0
    if args.dataset is None:
        raise UsageError("Expected -d/--dataset, a folder of pictures (got none)")
    output = args.output or Path("runs") / (Path(args.config).stem if args.config else "run")

    with waiting():  # for Lightning
        from glic_pyg.cli.machine import prepare_training
        from glic_pyg.training.trainer import is_first_process, train

    prepare_training(args)
    show_log()
    finished = train(
        config,
        dataset=args.dataset,
        output=output,
        resume=args.resume,
        weights=args.checkpoint,
        manifest=args.manifest,
        accelerator=args.device,
        devices=args.devices,
        num_nodes=args.num_nodes,
        strategy=args.strategy,
    )
    if not finished:
        if is_first_process():
            print(f"Stopped; the same command with --resume goes on from {output}", file=sys.stderr)
        return 130
    if is_first_process():
        print(output)
    return 0


def _config(args: Namespace) -> TrainConfig:
    """Return the file's configuration with the flags' settings."""
    values = TrainConfig.read_yaml(args.config) if args.config else {}
    told = {name: _value(getattr(args, name)) for name in FLAGS if getattr(args, name) is not None}
    if "model" in told:
        told["model"] = ModelConfig.from_yaml(args.model).to_dict()
    if "lmbda" in told and not isinstance(told["lmbda"], list):
        told["lmbda"] = [told["lmbda"]]  # of a model of one quality
    if isinstance(values, dict):
        # Of the two ways to say how long, the one on the command line holds.
        for length, other in (("steps", "epochs"), ("epochs", "steps")):
            if length in told:
                values.pop(other, None)
        values |= told
    return TrainConfig.from_dict(values)


def _value(text: str | list[str]) -> Any:
    """Return what a flag's words stand for: the value that they are in YAML."""
    if isinstance(text, list):
        return _value(text[0]) if len(text) == 1 else [_value(word) for word in text]
    try:
        return parse_yaml(text)
    except ValueError:
        return text


def _descriptions() -> dict[str, str]:
    """Return what the docstring of `TrainConfig` says of each setting."""
    _, _, text = (TrainConfig.__doc__ or "").partition("Args:\n")
    found = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", text, re.MULTILINE)
    return {name: " ".join(about.split()).replace("%", "%%") for name, about in found}
