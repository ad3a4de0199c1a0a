"""Write a model for other programs: its networks as ONNX graphs, tables and gains as JSON.

glic export --onnx folder/
glic export --onnx folder/ --model my.safetensors
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from glic_pyg.cli import flags
from glic_pyg.cli.printing import say


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    about = "folder for the graphs and model.json"
    parser.add_argument("--onnx", type=Path, required=True, metavar="FOLDER", help=about)
    flags.add_model(parser)
    flags.add_force(parser)


def run(args: Namespace) -> int:
    """Write the files, print their names."""
    from glic_pyg.cli.machine import read_model
    from glic_pyg.export import onnx_files
    from glic_pyg.ledger import write_folder

    model = read_model(args)
    for path in write_folder(args.onnx, onnx_files(model), inputs=[args.model], force=args.force):
        say(path)
    return 0
