"""Show the codec: compress a photo that scikit-image ships, restore it, compare with JPEG, draw its graphs.

glic demo -o demo/
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from glic_pyg.cli import flags
from glic_pyg.cli.printing import say

PHOTO = "coffee.png"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    flags.add_output_folder(parser, default=Path("demo"))
    flags.add_model(parser)
    flags.add_machine(parser)
    flags.add_force(parser)


def run(args: Namespace) -> int:
    """Compress, restore, and say what came out."""
    from glic_pyg.ledger import writing

    names = ("photo.glic", "restored.png", "original_restored.png", "graph.png")
    coded, restored, both, graph = (args.output / name for name in names)
    with writing(coded, restored, both, graph, inputs=[args.model], force=args.force):
        _show(args, coded, restored, both, graph)
    say(f"written   {coded}, {restored}, {both} (side by side), {graph} (its graphs)")
    return 0


def _show(args: Namespace, coded: Path, restored: Path, both: Path, graph: Path) -> None:
    from importlib.resources import as_file, files

    import torch

    from glic_pyg import bitstream
    from glic_pyg.cli.machine import load_model
    from glic_pyg.errors import require
    from glic_pyg.evaluation.jpeg import nearest_jpeg
    from glic_pyg.figures import save_figure
    from glic_pyg.files import write_file
    from glic_pyg.image import read_image, write_png
    from glic_pyg.inspection.drawings import graph_picture
    from glic_pyg.metrics import bpp, psnr

    require("skimage", extra="demo", purpose="its photo")
    model = load_model(args)
    with as_file(files("skimage") / "data" / PHOTO) as path:
        x = read_image(path)
    height, width = x.shape[-2:]
    on_device = x.to(model.device)
    bitstream.encode(model, on_device[..., :64, :64])  # the first call compiles the kernels
    print(f"photo     {PHOTO} of scikit-image, {width} x {height}; model {model.config.name}")

    start = time.perf_counter()
    data = bitstream.encode(model, on_device)
    encode_seconds = time.perf_counter() - start
    write_file(coded, data)
    print(f"file      {len(data)} bytes, {bpp(data, x):.3f} bpp")

    start = time.perf_counter()
    x_hat = bitstream.decode(model, coded.read_bytes()).cpu()
    decode_seconds = time.perf_counter() - start
    write_png(x_hat, restored)
    print(f"PSNR      {psnr(x, x_hat):.2f} dB, of the 8-bit pictures")
    print(f"time      encode {encode_seconds:.2f} s, decode {decode_seconds:.2f} s")

    jpeg = nearest_jpeg(x, len(data))
    print(
        f"JPEG      {len(jpeg.data)} bytes, {bpp(jpeg.data, x):.3f} bpp, {psnr(x, jpeg.x_hat):.2f} dB "
        f"(Pillow's quality {jpeg.quality}, the nearest in size)"
    )

    write_png(torch.cat([x, x_hat], dim=-1), both)
    save_figure(graph_picture(model, x), graph)
