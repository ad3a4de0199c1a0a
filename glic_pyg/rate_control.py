"""The quality that gives a file a wanted size, or a picture a wanted PSNR."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor

from glic_pyg.bitstream import encode_latents, refining_for, tiling_for
from glic_pyg.codec import GLIC, QualityError
from glic_pyg.container import QUALITY_STEPS
from glic_pyg.image import MAX_PIXELS, check_picture, check_size
from glic_pyg.metrics import Distortion, bpp, psnr
from glic_pyg.progress import tell
from glic_pyg.refinement import STEPS, Cost, Watch, check_effort, cost, own_distortion, refine

BITS_UNUSED = 0.005
"""Share of a wanted size that a file may leave unused."""
DECIBELS_OVER = 0.02
"""By which a picture may be better than wanted."""
MOST_DECIBELS = 100.0
"""As which a picture without any error counts while a quality is looked for."""


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
    """Compress a picture to at most `target` bits per pixel and hardly less, all bytes of the file counted.

    Args:
        model: A model of several qualities.
        x: A picture in [0, 1], or of 8 bits (uint8), `1 x 3 x H x W`, on any device.
        target: In bits per pixel.
        effort: See `bitstream.encode`; what is gained betters the picture.
        distortion: See `bitstream.encode`.
        watch: See `bitstream.encode`.
        max_pixels: See `bitstream.encode`.
        max_memory: See `bitstream.encode`.

    Raises:
        QualityError: none of the model's qualities gives that.
        EffortError: there is no such effort or distortion, or the picture is too small for MS-SSIM.
    """
    tolerance = BITS_UNUSED * target
    bound = _Bound(
        "bpp", target, 1, tolerance, lambda data, _: bpp(data, x), math.log, attrgetter("distortion")
    )
    return _encode(
        model,
        x,
        bound,
        effort=effort,
        distortion=distortion,
        watch=watch,
        max_pixels=max_pixels,
        max_memory=max_memory,
    )


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
    """Compress a picture so that the restored 8-bit picture has at least `target` dB, and hardly more.

    Args:
        model: A model of several qualities.
        x: A picture in [0, 1], or of 8 bits (uint8), `1 x 3 x H x W`, on any device.
        target: In dB.
        effort: See `bitstream.encode`; what is gained lessens the bits.
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

    bound = _Bound("dB", target, -1, DECIBELS_OVER, measure, partial(min, MOST_DECIBELS), attrgetter("bits"))
    return _encode(
        model,
        x,
        bound,
        effort=effort,
        distortion="mse",
        watch=watch,
        max_pixels=max_pixels,
        max_memory=max_memory,
    )


class _File(NamedTuple):
    """A file that was tried: latents at a quality in 256ths, and what is limited of it."""

    y: Tensor
    steps: int
    data: bytes
    value: float


class _Place(NamedTuple):
    """A quality in 256ths, and by how much its file misses the target.

    Args:
        steps: The quality.
        miss: Less than 0 below the target, in what grows evenly with quality.
    """

    steps: int
    miss: float


class _Bound(NamedTuple):
    """What a file is to keep to.

    Args:
        unit: Of the target.
        target: The limit.
        side: Where a file may be: 1 below the target, -1 above.
        tolerance: How far from it, at most.
        measure: Returns what is limited, which grows with quality, of a file and its y_hat.
        even: Of that, what grows evenly with quality.
        spared: Returns what is to be little, of files that keep to the target.
    """

    unit: str
    target: float
    side: int
    tolerance: float
    measure: Callable[[bytes, Tensor], float]
    even: Callable[[float], float]
    spared: Callable[[Cost], float]

    def room(self, value: float) -> float:
        """Return how far a file is from the target: less than 0 on the wrong side."""
        return self.side * (self.target - value)

    def place(self, file: _File) -> _Place:
        """Return where a file is, seen from the middle of what keeps to the target."""
        middle = self.target - self.side * self.tolerance / 2
        return _Place(file.steps, self.even(file.value) - self.even(middle))


class _Search(NamedTuple):
    """Looks for the quality at which a picture's file keeps to a bound.

    Args:
        model: The model.
        shape: (H, W) of the picture.
        bound: What a file is to keep to.
    """

    model: GLIC
    shape: torch.Size
    bound: _Bound

    def attempt(self, y: Tensor, steps: int) -> _File:
        """Code latents at a quality in 256ths."""
        quality = steps / QUALITY_STEPS
        tell(f"looking for {self.bound.target:g} {self.bound.unit}: trying quality {quality:.4g}")
        data, y_hat = encode_latents(self.model, y, self.shape, quality)
        return _File(y, steps, data, self.bound.measure(data, y_hat))

    def good(self, tried: list[_File]) -> bool:
        """Return whether a file is near enough to the target."""
        return any(0 <= self.bound.room(file.value) <= self.bound.tolerance for file in tried)

    def between(self, y: Tensor, low: _Place, high: _Place, tried: list[_File]) -> _File | None:
        """Look between two qualities; return the file nearest to the target of those that keep to it.

        By false position: where a line through both meets the target. When the same end moves twice, the
        other one's miss counts half (the Illinois rule), or it would stay to the last.
        """
        was_below = None
        while (width := high.steps - low.steps) > 1 and not self.good(tried):
            rise = high.miss - low.miss
            share = -low.miss / rise if rise > 0 else 0.5
            tried.append(self.attempt(y, low.steps + min(max(round(share * width), 1), width - 1)))
            middle = self.bound.place(tried[-1])
            below = middle.miss < 0
            weight = 0.5 if below == was_below else 1
            if below:
                low, high = middle, _Place(high.steps, weight * high.miss)
            else:
                low, high = _Place(low.steps, weight * low.miss), middle
            was_below = below
        keeping = [file for file in tried if self.bound.room(file.value) >= 0]
        return min(keeping, key=lambda file: self.bound.room(file.value), default=None)


def _encode(
    model: GLIC,
    x: Tensor,
    bound: _Bound,
    *,
    effort: int,
    distortion: Distortion | None,
    watch: Watch | None,
    max_pixels: int,
    max_memory: int | None,
) -> bytes:
    """Look for the quality that keeps to the bound; refine there, then look for that of the refined latents.

    Latents are the same for all qualities: g_a runs once, and those refined at one are as good near it.
    """
    unit, target = bound.unit, bound.target
    qualities = model.config.qualities
    if qualities == 1:
        raise QualityError(f"Expected a model of several qualities for {target:g} {unit} (got one)")
    check_picture(x)
    shape = x.shape[-2:]
    check_size(*shape, max_pixels=max_pixels)
    check_effort(model, effort, distortion=distortion)
    x = x.to(model.device)
    refining = refining_for(model, x, max_memory) if effort else None
    y = model.analyse(x, tiling_for(model, shape, max_memory, picture_bytes=x.nbytes))

    search = _Search(model, shape, bound)
    tried = [search.attempt(y, steps) for steps in (QUALITY_STEPS, qualities * QUALITY_STEPS)]
    least, most = (file.value for file in tried)
    low, high = map(bound.place, tried)
    found = None
    if least <= target <= most or search.good(tried):
        found = search.between(y, low, high, tried)
    if found is None:
        least, most = least * 1.0005, most / 1.0005  # what is told, in four digits, can be had
        raise QualityError(
            f"Expected a target in {least:.4g}..{most:.4g} {unit} for this picture (got {target:g})"
        )
    if refining is None:
        return found.data
    distortion = distortion or own_distortion(model)
    refined = refine(
        model,
        x,
        y,
        found.steps / QUALITY_STEPS,
        steps=STEPS[effort],
        distortion=distortion,
        watch=watch,
        **refining,
    )
    # It begins where the first one ended, and takes the far end for what it was then.
    first = search.attempt(refined, found.steps)
    middle = bound.place(first)
    again = search.between(refined, *((middle, high) if middle.miss < 0 else (low, middle)), [first])

    def spared(file: _File) -> float:
        quality = file.steps / QUALITY_STEPS
        return bound.spared(cost(model, x, file.y, quality, distortion=distortion, **refining))

    return min((file for file in (found, again) if file), key=spared).data
