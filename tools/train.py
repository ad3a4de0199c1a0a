"""Train a model on a folder of photos.

    python tools/train.py --config configs/train/nano.yaml -d PHOTOS
    python tools/train.py --config configs/train/flickr2w.yaml -d PHOTOS --devices 8 --strategy ddp

Ctrl-C or SIGTERM saves and ends; the same command with --resume goes on.
"""

from __future__ import annotations

import difflib
import re
import sys
from argparse import ArgumentError, RawDescriptionHelpFormatter
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser
from jsonargparse.typing import Path_fr

from glic_pyg import cli
from glic_pyg.config import ModelConfig
from glic_pyg.errors import UsageError
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.trainer import is_first_process, train

SETTINGS = {field.name: "--" + field.name.replace("_", "-") for field in fields(TrainConfig)}
SETTINGS["lmbda"] = "--lambda"


def main() -> int:
    """Parse the command line and train; 0 when the last step is reached."""
    parser = _parser()
    try:
        args = vars(parser.parse_args())
    except ArgumentError as error:
        raise UsageError(_explained(str(error))) from error
    values = {name: args[name] for name in SETTINGS if args[name] is not None}
    config = _config(values)
    if args["print_config"]:
        print(config.to_yaml(), end="")
        return 0
    if args["dataset"] is None:
        raise UsageError("Expected -d/--dataset, a folder of pictures (got none)")
    output = args["output"] or Path("runs") / (Path(args["config"][-1]).stem if args["config"] else "run")

    cli.show_log()
    finished = train(
        config,
        dataset=args["dataset"],
        output=output,
        resume=args["resume"],
        weights=args["checkpoint"],
        manifest=args["manifest"],
        accelerator=args["accelerator"],
        devices=args["devices"],
        num_nodes=args["num_nodes"],
        strategy=args["strategy"],
    )
    if not finished:
        if is_first_process():
            print(f"Stopped; the same command with --resume goes on from {output}", file=sys.stderr)
        return 130
    if is_first_process():
        print(output)
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="train.py",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
        exit_on_error=False,
        print_config=None,
    )
    parser.add_argument("--config", action="config", help="training configuration (YAML); flags override it")
    add = parser.add_argument
    add("-d", "--dataset", type=str, nargs="+", help="folders of photos, searched recursively")
    add("-o", "--output", type=str, help="run folder (default: runs/NAME_OF_CONFIG)")
    add("--resume", action="store_true", help="go on from the run folder's checkpoint, if it has one")
    add("--checkpoint", metavar="NAME|PATH", help="start from this model's weights instead of random ones")
    add("--manifest", metavar="FILE", help="another run's manifest.csv: take the same pictures, unchanged")
    add("--print-config", action="store_true", help="print the resulting configuration and end")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--accelerator", default="auto", help="cpu, gpu or auto (default: auto)")
    machine.add_argument("--devices", type=int, default=1, help="GPUs, or processes on the CPU (default: 1)")
    machine.add_argument("--num-nodes", type=int, default=1, help="machines (default: 1)")
    machine.add_argument("--strategy", default="auto", help="ddp for several devices (default: auto)")
    settings = parser.add_argument_group("settings in place of the configuration's")
    helps = {
        param.arg_name: param.description for param in docstring_parser.parse(TrainConfig.__doc__).params
    }
    hints = get_type_hints(TrainConfig)
    for name, flag in SETTINGS.items():
        if name == "model":
            settings.add_argument(
                flag, type=Path_fr | dict, metavar="FILE", help="model configuration (YAML)"
            )
        elif name == "lmbda":
            settings.add_argument(flag, dest=name, type=float, nargs="+", help=helps[name])
        elif name == "milestones":
            settings.add_argument(flag, type=list[dict], metavar="LIST", help=helps[name])
        else:
            hint = hints[name]
            if NoneType in get_args(hint):
                (hint,) = set(get_args(hint)) - {NoneType}
            settings.add_argument(flag, type=hint, help=helps[name])
    return parser


def _config(values: dict[str, Any]) -> TrainConfig:
    model = values.get("model")
    if isinstance(model, Path_fr):
        values["model"] = ModelConfig.from_yaml(model.absolute).to_dict()
    # Of the two ways to say how long, the one on the command line holds.
    for length, other in (("steps", "epochs"), ("epochs", "steps")):
        if any(word.split("=")[0] == f"--{length}" for word in sys.argv):
            values.pop(other, None)
    return TrainConfig.from_dict(values)


def _explained(message: str) -> str:
    """Add the name that an unknown one resembles; say plainly what is wrong with a model's file."""
    model = re.search(r'Parser key "model":.*Given value: (.*)', message, re.DOTALL)
    if model:
        return f"Expected model to be a YAML file or a mapping (got {model[1]})"
    pattern = r"Option '(?P<key>[\w.-]+)' is not accepted|unrecognized arguments: (?P<flag>\S+)"
    unknown = re.search(pattern, message)
    if not unknown:
        return message
    key, flag = unknown["key"], unknown["flag"]
    name = key or flag
    known = [*SETTINGS] if key else [*SETTINGS.values()]
    near = difflib.get_close_matches(name, known, n=1)
    return f"Unknown {'key' if key else 'flag'} '{name}'" + (f"; did you mean '{near[0]}'?" if near else "")


if __name__ == "__main__":
    cli.run(main)
