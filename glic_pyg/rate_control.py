"""The quality that gives a file a wanted size, or a picture a wanted PSNR."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from glic_pyg import bitstream
from glic_pyg.codec import GLIC, QualityError
from glic_pyg.config import ModelConfig
from glic_pyg.container import QUALITY_STEPS
from glic_pyg.evaluation.metrics import bpp, psnr
from glic_pyg.image import MAX_PIXELS

TOLERANCE = 0.005


def encode_to_bpp(
    model: GLIC,
    x: Tensor,
    target: float,
    *,
    max_pixels: int = MAX_PIXELS,
    max_memory: int | None = None,
) -> bytes:
    """Compress a picture to about `target` bits per pixel, all bytes of the file counted.

    Args:
        model: A model of several qualities.
        x: A picture in [0, 1], or of 8 bits (uint8), `1 x 3 x H x W`.
        target: In bits per pixel.
        max_pixels: See `bitstream.encode`.
        max_memory: Bytes that the process may hold, see `GLIC.compress`.

    Raises:
        QualityError: none of the model's qualities gives that.
    """
    encode = partial(bitstream.encode, model, x, max_pixels=max_pixels, max_memory=max_memory)
    return _search(model.config, encode, target, lambda data: bpp(data, x), "bpp")


def encode_to_psnr(
    model: GLIC,
    x: Tensor,
    target: float,
    *,
    max_pixels: int = MAX_PIXELS,
    max_memory: int | None = None,
) -> bytes:
    """Compress a picture so that the restored 8-bit picture has about `target` dB.

    Args:
        model: A model of several qualities.
        x: A picture in [0, 1], or of 8 bits (uint8), `1 x 3 x H x W`.
        target: In dB.
        max_pixels: See `bitstream.encode`.
        max_memory: Bytes that the process may hold, see `GLIC.compress`.

    Raises:
        QualityError: none of the model's qualities gives that.
    """
    encode = partial(bitstream.encode, model, x, max_pixels=max_pixels, max_memory=max_memory)

    def measure(data: bytes) -> float:
        return psnr(x, bitstream.decode(model, data, max_pixels=max_pixels, max_memory=max_memory))

    return _search(model.config, encode, target, measure, "dB")


def _search(
    config: ModelConfig,
    encode: Callable[[float], bytes],
    target: float,
    measure: Callable[[bytes], float],
    unit: str,
) -> bytes:
    """Halve the range of qualities until what is measured, which grows with quality, is near the target."""
    if config.qualities == 1:
        raise QualityError(f"Expected a model of several qualities for {target:g} {unit} (got one)")

    def attempt(steps: int) -> tuple[float, bytes]:
        data = encode(steps / QUALITY_STEPS)
        return measure(data), data

    low, high = QUALITY_STEPS, config.qualities * QUALITY_STEPS
    tried = [attempt(low), attempt(high)]
    least, most = tried[0][0], tried[1][0]
    if not least * (1 - TOLERANCE) <= target <= most * (1 + TOLERANCE):
        raise QualityError(
            f"Expected a target in {least:.4g}..{most:.4g} {unit} for this picture (got {target:g})"
        )

    def nearest() -> tuple[float, bytes]:
        return min(tried, key=lambda result: abs(result[0] - target))

    while high - low > 1 and abs(nearest()[0] - target) > TOLERANCE * target:
        middle = (low + high) // 2
        tried.append(attempt(middle))
        low, high = (middle, high) if tried[-1][0] < target else (low, middle)
    return nearest()[1]
