"""Show the codec on a photo that comes along: a page with AVIF, WebP and JPEG at the same size, and a graph.

glic demo -o demo/
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from glic_pyg.cli import flags
from glic_pyg.cli.printing import say

RIVALS = {"avif": "AVIF", "webp": "WebP", "jpeg": "JPEG"}
BPP = 0.2
NAMES = ("demo.html", "photo.jpg", "photo.glic", "restored.png")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    flags.add_output_folder(parser, default=Path("demo"))
    flags.add_model(parser)
    flags.add_machine(parser)
    flags.add_force(parser)


def run(args: Namespace) -> int:
    """Compress, restore, compare, and say what came out."""
    from glic_pyg.ledger import writing

    start = time.perf_counter()
    page, photo, coded, restored = (args.output / name for name in NAMES)
    rivals = ", ".join(RIVALS.values())
    say(f"This codes a photo, lets {rivals} make files of the same size, and draws a node of the graph.")
    say(f"All is shown in one page, {page}, after about 20 seconds on two free cores.")
    with writing(page, photo, coded, restored, inputs=[args.model], force=args.force):
        _show(args, page, photo, coded, restored)
    say(f"written    {page}, {photo}, {coded}, {restored}, in {time.perf_counter() - start:.0f} s")
    say(f"next       open {page} in a browser; then try: glic graph {photo} --html graph.html")
    return 0


def _show(args: Namespace, page: Path, photo: Path, coded: Path, restored: Path) -> None:
    import io
    from dataclasses import replace

    from glic_pyg.cli.machine import prepare
    from glic_pyg.errors import PackageError
    from glic_pyg.evaluation.codecs import Codec, GlicCodec, Options, PillowCodec
    from glic_pyg.evaluation.demo import PHOTO, demo_page, node_graph, photo_bytes
    from glic_pyg.evaluation.viewer import Restored
    from glic_pyg.files import write_file
    from glic_pyg.image import read_image, write_png

    prepare(args)
    write_file(photo, photo_bytes())
    x = read_image(io.BytesIO(photo_bytes()))
    height, width = x.shape[-2:]
    ours = GlicCodec(args.model, Options(args.device, allow_code=args.allow_code))
    say(f"photo      {PHOTO}, {width} x {height} pixels")
    ours.warm()  # the first call compiles the kernels

    codecs: list[tuple[str, Codec]] = [(ours.name, ours)]
    for rival, name in RIVALS.items():
        try:
            codecs.append((name, PillowCodec(rival)))
        except PackageError as error:  # a Pillow without AVIF
            say(f"{name:10} is left out: {error}")
    shown: list[Restored] = []
    size = round(BPP * height * width / 8)
    for name, codec in codecs:
        one = replace(Restored.of(codec, x, codec.encode_to_size(x, size)), name=name)
        size = len(one.data) if not shown else size
        shown.append(one)
        say(f"{name:10} {one.text(size)}")
    write_file(coded, shown[0].data)
    write_png(shown[0].x_hat, restored)
    write_file(page, demo_page(x, shown, node_graph(ours.model, x), path=photo))
