"""The time of coding with a GLIC model, or of training it: of this checkout and of another one.

Each side is a process of its own that stays alive; they take turns, so that others' work on the machine is a
burden to both alike. Each works with the weights that come with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from glic_pyg.cli.printing import aligned
from glic_pyg.errors import UsageError

HERE = Path(__file__).parents[1]
START = """
import sys, time
import numpy as np, skimage.data, torch
from PIL import Image
from glic_pyg import GLIC, bitstream
model, threads = GLIC.from_pretrained(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(threads)
height, width = map(int, sys.argv[3].split("x"))
photo = Image.fromarray(skimage.data.astronaut()).resize((width, height), Image.Resampling.BICUBIC)
x = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
"""
CODER = """
for _ in sys.stdin:
    with torch.inference_mode():
        start = time.perf_counter()
        data = bitstream.encode(model, x)
        middle = time.perf_counter()
        bitstream.decode(model, data)
        print(middle - start, time.perf_counter() - middle, flush=True)
"""


TRAINER = """
from torch.utils.data import DataLoader
from glic_pyg.training.callbacks import MovingAverage
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.module import CodecModule
from glic_pyg.training.quiet import bare_trainer, quiet_lightning
from glic_pyg.training.schedule import Schedule
from lightning.pytorch import Callback  # after glic_pyg, which lets it load torchvision
try:
    from glic_pyg.training.memory import keep_freed_memory
except ImportError:  # of an earlier commit
    pass
else:
    keep_freed_memory()
class Turns(Callback):
    def on_train_batch_start(self, *_):
        sys.stdin.readline()
        self.start = time.perf_counter(), time.process_time()
    def on_train_batch_end(self, *_):
        print(time.perf_counter() - self.start[0], time.process_time() - self.start[1], flush=True)
count, qualities, steps = int(sys.argv[4]), model.config.qualities, 10**6
x = torch.cat([x.roll(17 * i, dims=-1) for i in range(count)])
config = TrainConfig(model=model.config, lmbda=(0.013,) * qualities, steps=steps)
module = CodecModule(model.train().requires_grad_(True), config, Schedule(config, num_pictures=1))
batches = [(x, torch.arange(count) % qualities + 1)] * steps
with quiet_lightning():
    trainer = bare_trainer([MovingAverage(config.ema_decay), Turns()])
    trainer.fit(module, DataLoader(batches, batch_size=None))
"""


def print_versus(
    model: str,
    rival: Path,
    size: tuple[int, int],
    *,
    repeats: int,
    threads: int | None,
    batch_size: int | None = None,
) -> None:
    """Print how long a picture or a training step takes on both sides, and the ratio.

    Args:
        model: Weights that both sides have.
        rival: Folder of the other checkout.
        size: Height and width of the picture.
        repeats: Turns; the fastest counts.
        threads: On both sides; None for all cores.
        batch_size: Pictures per training step, of which processor seconds are told, too; None times coding.

    Raises:
        UsageError: no checkout is there, or it fails.
    """
    if not (rival / "glic_pyg" / "bitstream.py").is_file():
        raise UsageError(f"Expected a checkout of this repository (got {rival})")
    threads = threads or len(os.sched_getaffinity(0))
    words = (model, str(threads), "x".join(map(str, size)))
    if batch_size is None:
        what, code = ["compress s", "decompress s"], START + CODER
    else:
        what, code, words = ["step s", "step CPU s"], START + TRAINER, (*words, str(batch_size))
    sides = [_start(folder, code, *words) for folder in (rival, HERE)]
    try:
        seconds = [[_turn(side) for side in sides] for _ in range(repeats + 1)][1:]  # the first one compiles
    finally:
        for side in sides:
            side.kill()
            side.communicate()
    best = [[min(times) for times in zip(*(turn[side] for turn in seconds), strict=True)] for side in (0, 1)]
    ratios = [f"{new / old:.2f}" for old, new in zip(*best, strict=True)]
    rows = [[name, *(f"{s:.3f}" for s in row)] for name, row in zip((rival.name, "here"), best, strict=True)]
    cells = [["", *what], *rows, ["ratio", *ratios]]
    print(f"{model}, {size[0]} x {size[1]}, {threads} threads\n{aligned(cells)}\n")


def _start(folder: Path, code: str, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *words], env=environment, cwd=folder, **pipes)


def _turn(side: subprocess.Popen[str]) -> tuple[float, ...]:
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write("\n")
    side.stdin.flush()
    words = side.stdout.readline().split()
    if not words:
        raise UsageError(f"Expected a checkout that does it (got {side.args[3:]}, which ended)")
    return tuple(map(float, words))
