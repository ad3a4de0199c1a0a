"""The quality that gives a file a wanted size, or a picture a wanted PSNR."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from glic_pyg.bitstream import encode_latents, tiling_for
from glic_pyg.codec import GLIC, QualityError
from glic_pyg.container import QUALITY_STEPS
from glic_pyg.image import MAX_PIXELS, check_picture, check_size
from glic_pyg.metrics import bpp, psnr

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
        max_memory: See `bitstream.encode`.

    Raises:
        QualityError: none of the model's qualities gives that.
    """
    return _search(model, x, target, lambda data, _: bpp(data, x), "bpp", max_pixels, max_memory)


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
        max_memory: See `bitstream.encode`.

    Raises:
        QualityError: none of the model's qualities gives that.
    """

    def measure(_: bytes, y_hat: Tensor) -> float:
        shape = (x.size(-2), x.size(-1))
        both = 2 * x[0].numel()  # bytes, of 8 bits
        tiling = tiling_for(model, shape, max_memory, picture_bytes=both, restoring=True)
        return psnr(x, model.synthesise(y_hat, shape, tiling, dtype=torch.uint8))

    return _search(model, x, target, measure, "dB", max_pixels, max_memory)


def _search(
    model: GLIC,
    x: Tensor,
    target: float,
    measure: Callable[[bytes, Tensor], float],
    unit: str,
    max_pixels: int,
    max_memory: int | None,
) -> bytes:
    """Halve the range of qualities until what is measured, which grows with quality, is near the target.

    The latents are the same for all qualities: g_a runs once.
    """
    config = model.config
    if config.qualities == 1:
        raise QualityError(f"Expected a model of several qualities for {target:g} {unit} (got one)")
    check_picture(x)
    shape = x.shape[-2:]
    check_size(*shape, max_pixels=max_pixels)
    y = model.analyse(x, tiling_for(model, shape, max_memory, picture_bytes=x.nbytes))

    def attempt(steps: int) -> tuple[float, bytes]:
        data, y_hat = encode_latents(model, y, shape, steps / QUALITY_STEPS)
        return measure(data, y_hat), data

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
