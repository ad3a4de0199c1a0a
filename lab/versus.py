"""The time of coding with a GLIC model: of this checkout and of another one, of an earlier commit perhaps.

Each side is a process of its own that stays alive; they take turns, so that others' work on the machine is a
burden to both alike. Each codes with the weights that come with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from glic_pyg.cli.printing import aligned
from glic_pyg.errors import UsageError

HERE = Path(__file__).parents[1]
WORKER = """
import sys, time
import numpy as np, skimage.data, torch
from PIL import Image
from glic_pyg import GLIC, bitstream
model, threads = GLIC.from_pretrained(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(threads)
height, width = map(int, sys.argv[3].split("x"))
photo = Image.fromarray(skimage.data.astronaut()).resize((width, height), Image.Resampling.BICUBIC)
x = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
for _ in sys.stdin:
    with torch.inference_mode():
        start = time.perf_counter()
        data = bitstream.encode(model, x)
        middle = time.perf_counter()
        bitstream.decode(model, data)
        print(middle - start, time.perf_counter() - middle, flush=True)
"""


def print_versus(
    model: str, rival: Path, size: tuple[int, int], *, repeats: int, threads: int | None
) -> None:
    """Print how long a picture takes on both sides, and the ratio.

    Args:
        model: Weights that both sides have.
        rival: Folder of the other checkout.
        size: Height and width of the picture.
        repeats: Turns; the fastest counts.
        threads: On both sides; None for all cores.

    Raises:
        UsageError: no checkout is there, or it cannot code.
    """
    if not (rival / "glic_pyg" / "bitstream.py").is_file():
        raise UsageError(f"Expected a checkout of this repository (got {rival})")
    threads = threads or len(os.sched_getaffinity(0))
    words = (model, str(threads), "x".join(map(str, size)))
    sides = [_start(folder, *words) for folder in (rival, HERE)]
    try:
        seconds = [[_turn(side) for side in sides] for _ in range(repeats + 1)][1:]  # the first one compiles
    finally:
        for side in sides:
            side.kill()
            side.communicate()
    best = [[min(turn[side][what] for turn in seconds) for what in (0, 1)] for side in (0, 1)]
    ratios = [f"{new / old:.2f}" for old, new in zip(*best, strict=True)]
    rows = [[name, *(f"{s:.3f}" for s in row)] for name, row in zip((rival.name, "here"), best, strict=True)]
    cells = [["", "compress s", "decompress s"], *rows, ["ratio", *ratios]]
    print(f"{model}, {size[0]} x {size[1]}, {threads} threads\n{aligned(cells)}\n")


def _start(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", WORKER, *words], env=environment, cwd=folder, **pipes)


def _turn(side: subprocess.Popen[str]) -> tuple[float, ...]:
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write("\n")
    side.stdin.flush()
    words = side.stdout.readline().split()
    if not words:
        raise UsageError(f"Expected a checkout that codes (got {side.args[-3:]}, which ended)")
    return tuple(map(float, words))
