"""Seconds per megapixel of GLIC models beside codecs that Pillow writes, for files of about the same size.

On one core these are the processor's seconds, on all cores those of the clock. Codecs take turns, so that
others' work on the machine is a burden to all of them alike.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from math import inf
from typing import Any

import torch
from pictures import photo
from torch import Tensor

from glic_pyg.cli.printing import aligned
from glic_pyg.evaluation.codecs import Codec, PillowCodec, load_codec
from glic_pyg.image import to_8bit, to_float
from glic_pyg.metrics import psnr

BESIDE: dict[str, tuple[str, dict[str, Any]]] = {
    "AVIF, speed 8": ("avif", {"speed": 8}),
    "AVIF, speed 4": ("avif", {"speed": 4}),
    "AVIF, speed 0": ("avif", {"speed": 0}),
    "WebP": ("webp", {}),
    "JPEG XL": ("jpegxl", {}),
}
"""Rivals of the evaluation, with other options."""


@dataclass
class Pace:
    """What a codec takes for a picture.

    Args:
        bpp: Bits per pixel of its file.
        psnr: In dB.
        seconds: The fewest to encode and to decode a megapixel.
    """

    bpp: float = 0.0
    psnr: float = 0.0
    seconds: list[float] = field(default_factory=lambda: [inf, inf])


def print_pace(models: list[str], size: tuple[int, int], *, repeats: int) -> None:
    """Measure models and their rivals, on one core and on all, and print a table.

    Args:
        models: GLIC weights; all files are about as large as the first one's of its middle quality.
        size: Height and width of the picture.
        repeats: The fastest of that many calls counts.
    """
    on_one, on_all = (_alone(models, size, repeats, one) for one in (True, False))
    heads = [f"{what}, {cores}" for cores in ("one core", "all") for what in ("encode s/MP", "decode s/MP")]
    cells = [["", *heads, "bpp", "PSNR"]]
    for name, row in on_one.items():
        seconds = [f"{value:.3f}" for value in row.seconds + on_all[name].seconds]
        cells.append([name, *seconds, f"{row.bpp:.2f}", f"{row.psnr:.1f}"])
    print(f"{size[0]} x {size[1]}, {len(os.sched_getaffinity(0))} cores")
    print(aligned(cells) + "\n")


def _alone(*arguments: Any) -> dict[str, Pace]:
    """Measure in a process of its own, whose threads and cores can be chosen."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


@torch.inference_mode()
def measure(models: list[str], size: tuple[int, int], repeats: int, one: bool) -> dict[str, Pace]:
    """Return the pace of models and rivals by name, on one core or on all."""
    if one:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        torch.set_num_threads(1)
    clock = time.process_time if one else time.perf_counter
    x = photo(*size)
    pixels = x[0, 0].numel()
    codecs = {name: _codec(name) for name in [*models, *BESIDE]}
    first = codecs[models[0]]
    target = len(first.encode(x, first.qualities[len(first.qualities) // 2]))
    qualities = {name: quality_for(codec, x, target) for name, codec in codecs.items()}
    paces = {name: Pace() for name in codecs}
    for turn in range(repeats + 1):
        for name, codec in codecs.items():
            data, encoding = _timed(partial(codec.encode, x, qualities[name]), clock)
            x_hat, decoding = _timed(partial(codec.decode, data), clock)
            if turn == 0:  # compiles, loads
                found = float(psnr(to_float(to_8bit(x_hat)), x))
                paces[name].bpp, paces[name].psnr = 8 * len(data) / pixels, found
                continue
            both = (seconds / pixels * 1e6 for seconds in (encoding, decoding))
            paces[name].seconds = [min(pair) for pair in zip(paces[name].seconds, both, strict=True)]
    return paces


def quality_for(codec: Codec, x: Tensor, target: int) -> float | None:
    """Return the quality whose file comes nearest to `target` bytes, as if sizes always grew with it."""

    @cache
    def size(quality: float | None) -> int:
        return len(codec.encode(x, quality))

    above = bisect_left(codec.fine, target, key=size)
    return min(codec.fine[max(above - 1, 0) : above + 1], key=lambda quality: abs(size(quality) - target))


def _codec(name: str) -> Codec:
    if name not in BESIDE:
        return load_codec(name)
    rival, options = BESIDE[name]
    codec = PillowCodec(rival)
    codec.options = codec.options | options
    return codec


def _timed(work: Callable[[], Any], clock: Callable[[], float]) -> tuple[Any, float]:
    start = clock()
    result = work()
    return result, clock() - start
