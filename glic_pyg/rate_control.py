"""The quality that gives a file a wanted size, or a picture a wanted PSNR."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from glic_pyg.bitstream import encode_latents, refining_for, tiling_for
from glic_pyg.codec import GLIC, QualityError
from glic_pyg.container import QUALITY_STEPS
from glic_pyg.image import MAX_PIXELS, check_picture, check_size
from glic_pyg.metrics import Distortion, bpp, psnr
from glic_pyg.progress import tell
from glic_pyg.refinement import STEPS, Hold, Watch, check_effort, refine

TOLERANCE = 0.005


def encode_to_bpp(
    model: GLIC,
    x: Tensor,
    target: float,
    *,
    effort: int = 0,
    distortion: Distortion | None = None,
    watch: Watch | None = None,
    max_pixels: int = MAX_PIXELS,
    max_memory: int | None = None,
) -> bytes:
    """Compress a picture to about `target` bits per pixel, all bytes of the file counted.

    Args:
        model: A model of several qualities.
        x: A picture in [0, 1], or of 8 bits (uint8), `1 x 3 x H x W`, on any device.
        target: In bits per pixel.
        effort: See `bitstream.encode`; what is gained betters the picture, at no more bits.
        distortion: See `bitstream.encode`.
        watch: See `bitstream.encode`.
        max_pixels: See `bitstream.encode`.
        max_memory: See `bitstream.encode`.

    Raises:
        QualityError: none of the model's qualities gives that.
        EffortError: there is no such effort or distortion, or the picture is too small for MS-SSIM.
    """
    search = Search("bpp", "bits", effort, distortion, watch, max_pixels, max_memory)
    return _encode(model, x, target, lambda data, _: bpp(data, x), search)


def encode_to_psnr(
    model: GLIC,
    x: Tensor,
    target: float,
    *,
    effort: int = 0,
    watch: Watch | None = None,
    max_pixels: int = MAX_PIXELS,
    max_memory: int | None = None,
) -> bytes:
    """Compress a picture so that the restored 8-bit picture has about `target` dB.

    Args:
        model: A model of several qualities.
        x: A picture in [0, 1], or of 8 bits (uint8), `1 x 3 x H x W`, on any device.
        target: In dB.
        effort: See `bitstream.encode`; what is gained lessens the bits, at no larger squared error.
        watch: See `bitstream.encode`.
        max_pixels: See `bitstream.encode`.
        max_memory: See `bitstream.encode`.

    Raises:
        QualityError: none of the model's qualities gives that.
        EffortError: there is no such effort.
    """

    def measure(_: bytes, y_hat: Tensor) -> float:
        shape = (x.size(-2), x.size(-1))
        both = 2 * x[0].numel()  # bytes, of 8 bits
        tiling = tiling_for(model, shape, max_memory, picture_bytes=both, restoring=True)
        return psnr(x.to(model.device), model.synthesise(y_hat, shape, tiling, dtype=torch.uint8))

    search = Search("dB", "distortion", effort, "mse", watch, max_pixels, max_memory)
    return _encode(model, x, target, measure, search)


class Search(NamedTuple):
    """How a quality is looked for.

    Args:
        unit: Of the target.
        hold: What refining must not let grow, see `refine`.
        effort: See `bitstream.encode`.
        distortion: See `bitstream.encode`.
        watch: See `bitstream.encode`.
        max_pixels: See `bitstream.encode`.
        max_memory: See `bitstream.encode`.
    """

    unit: str
    hold: Hold
    effort: int
    distortion: Distortion | None
    watch: Watch | None
    max_pixels: int
    max_memory: int | None


def _encode(
    model: GLIC,
    x: Tensor,
    target: float,
    measure: Callable[[bytes, Tensor], float],
    search: Search,
) -> bytes:
    """Halve the range of qualities until what is measured, which grows with quality, is near the target.

    The latents are the same for all qualities: g_a runs once.
    """
    config, unit = model.config, search.unit
    if config.qualities == 1:
        raise QualityError(f"Expected a model of several qualities for {target:g} {unit} (got one)")
    check_picture(x)
    shape = x.shape[-2:]
    check_size(*shape, max_pixels=search.max_pixels)
    check_effort(model, search.effort, distortion=search.distortion)
    x = x.to(model.device)
    refining = refining_for(model, x, search.max_memory) if search.effort else None
    y = model.analyse(x, tiling_for(model, shape, search.max_memory, picture_bytes=x.nbytes))

    def attempt(steps: int) -> tuple[float, bytes, int]:
        tell(f"looking for {target:g} {unit}: trying quality {steps / QUALITY_STEPS:.4g}")
        data, y_hat = encode_latents(model, y, shape, steps / QUALITY_STEPS)
        return measure(data, y_hat), data, steps

    low, high = QUALITY_STEPS, config.qualities * QUALITY_STEPS
    tried = [attempt(low), attempt(high)]
    least, most = tried[0][0], tried[1][0]
    if not least * (1 - TOLERANCE) <= target <= most * (1 + TOLERANCE):
        raise QualityError(
            f"Expected a target in {least:.4g}..{most:.4g} {unit} for this picture (got {target:g})"
        )

    def nearest() -> tuple[float, bytes, int]:
        return min(tried, key=lambda result: abs(result[0] - target))

    while high - low > 1 and abs(nearest()[0] - target) > TOLERANCE * target:
        middle = (low + high) // 2
        tried.append(attempt(middle))
        low, high = (middle, high) if tried[-1][0] < target else (low, middle)
    _, data, steps = nearest()
    if refining is None:
        return data
    quality = steps / QUALITY_STEPS
    y = refine(
        model,
        x,
        y,
        quality,
        steps=STEPS[search.effort],
        distortion=search.distortion,
        hold=search.hold,
        watch=search.watch,
        **refining,
    )
    return encode_latents(model, y, shape, quality)[0]
