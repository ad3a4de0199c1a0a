"""Write a page that shows .glic files in a browser, and makes them of photos there.

npm install onnxruntime-web
glic viewer page/
python -m http.server --directory page/
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from glic_pyg.cli import flags
from glic_pyg.cli.printing import say

RUNTIME = Path("node_modules/onnxruntime-web")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("output", type=Path, metavar="FOLDER", help="of the page, for any static server")
    about = "of the npm package onnxruntime-web, which the page takes along (default: %(default)s)"
    parser.add_argument("--runtime", type=Path, default=RUNTIME, metavar="FOLDER", help=about)
    flags.add_model(parser)
    flags.add_force(parser)


def run(args: Namespace) -> int:
    """Write the page, print its name."""
    from glic_pyg.cli.machine import read_model
    from glic_pyg.ledger import write_folder
    from glic_pyg.viewer import read_runtime, viewer_files

    read_runtime(args.runtime)  # refused before the work
    model = read_model(args)
    files = viewer_files(model, args.runtime)
    write_folder(args.output, files, inputs=[args.model], force=args.force)
    say(args.output / "index.html")
    return 0
