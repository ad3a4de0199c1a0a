"""Pictures to the bytes of .glic files and back, see `glic_pyg.container`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import TypedDict

import torch
from torch import Tensor

from glic_pyg import container
from glic_pyg.codec import GLIC, QualityError, check_quality, latent_checksum
from glic_pyg.container import QUALITY_STEPS, RGB, Bitstream, BitstreamError, pack, unpack, unpack_head
from glic_pyg.entropy import LatentError
from glic_pyg.image import check_picture, check_size
from glic_pyg.limits import MAX_PIXELS
from glic_pyg.metrics import Distortion
from glic_pyg.picture import ImageError
from glic_pyg.refinement import STEPS, TILES, Watch, check_effort, refine
from glic_pyg.tiles import WHOLE, MemoryBoundError, Tiling, tiling_within

EXACT_SINCE = 3
"""The first version whose probabilities have the same bits everywhere."""


def encode(
    model: GLIC,
    x: Tensor,
    quality: float | None = None,
    *,
    effort: int = 0,
    lmbda: float | None = None,
    distortion: Distortion | None = None,
    watch: Watch | None = None,
    max_pixels: int = MAX_PIXELS,
    max_memory: int | None = None,
) -> bytes:
    """Compress a picture into the bytes of a .glic file, which `decode` reads.

    Args:
        model: The model.
        x: A picture in [0, 1], or of 8 bits (uint8), `1 x 3 x H x W`, on any device.
        quality: Only for a model of several qualities, by default the middle one; rounded to 256ths.
        effort: 0 to 4: how long better latents of this picture are looked for, see `glic_pyg.refinement`.
        lmbda: What they are better by, see `refinement.refine`. A model of one quality needs it, unless its
            checkpoint notes that of its training.
        distortion: What they are better in: `mse`, or `ms-ssim`; by default what the model was trained for.
        watch: Is told of every step of that, and may end it.
        max_pixels: A larger picture is refused, as `decode` would with the same number.
        max_memory: Bytes that the process may hold, with a model on the CPU. A picture too large for that
            goes through g_a in tiles, see `glic_pyg.tiles`.

    Raises:
        ImageError: `x` is not one RGB picture in [0, 1], or is too large.
        QualityError: the model has no such quality; or one only, and lambda is missing.
        EffortError: there is no such effort or distortion, or the picture is too small for MS-SSIM.
        MemoryBoundError: the picture cannot be coded within `max_memory`.
        ModelError, TableError, LatentError: the model cannot code it, see `GLIC.code`.
    """
    steps = quality_steps(model, quality)  # refused before the work
    check_effort(model, effort, lmbda, distortion)
    check_picture(x)
    shape = x.shape[-2:]
    check_size(*shape, max_pixels=max_pixels)
    x = x.to(model.device)
    refining = refining_for(model, x, max_memory) if effort else None
    y = model.analyse(x, tiling_for(model, shape, max_memory, picture_bytes=x.nbytes))
    if refining is not None:
        y = refine(
            model,
            x,
            y,
            _quality(model, steps),
            steps=STEPS[effort],
            lmbda=lmbda,
            distortion=distortion,
            watch=watch,
            **refining,
        )
    return encode_latents(model, y, shape, quality)[0]


def encode_latents(
    model: GLIC, y: Tensor, shape: Sequence[int], quality: float | None = None
) -> tuple[bytes, Tensor]:
    """Return the bytes of the .glic file of a picture's latents, and the y_hat that `decode` will have.

    Args:
        model: The model.
        y: The latents, see `GLIC.analyse`.
        shape: (H, W) of the picture.
        quality: See `encode`.

    Raises:
        QualityError: the model has no such quality.
        ModelError, TableError, LatentError: the model cannot code them, see `GLIC.code`.
    """
    steps = quality_steps(model, quality)
    strings, y_hat = model.code(y, _quality(model, steps))
    height, width = shape
    stream = Bitstream(model.identity, steps, height, width, latent_checksum(y_hat), tuple(strings))
    return pack(stream), y_hat


def quality_steps(model: GLIC, quality: float | None) -> int:
    """Return a quality as files say it, in 256ths: for None the middle one, 0 of a model of one quality.

    Raises:
        QualityError: the model has no such quality.
    """
    check_quality(model.config.qualities, quality)
    quality = model.config.default_quality if quality is None else quality
    return 0 if quality is None else round(quality * QUALITY_STEPS)


def decode(
    model: GLIC, data: bytes, *, max_pixels: int = MAX_PIXELS, max_memory: int | None = None
) -> Tensor:
    """Restore the picture of a .glic file, `1 x 3 x H x W` in [0, 1].

    Args:
        model: The model that the file was made with.
        data: The file's bytes.
        max_pixels: A larger picture is refused before anything is decoded.
        max_memory: Bytes that the process may hold, with a model on the CPU. A picture too large for that
            goes through g_s in tiles, and any picture is then one of 8 bits (uint8).

    Raises:
        BitstreamError: not a .glic file, damaged, too large, of another version or another model, or this
            machine does not compute the latents that the encoder had.
        MemoryBoundError: the picture cannot be restored within `max_memory`.
        ModelError, TableError, InexactError: the model cannot decode, see `GLIC.decode`.
    """
    stream = unpack(data)
    identity = model.identity
    if stream.identity != identity:
        raise BitstreamError(
            f"Expected a file of this model, {identity.hex()} (got one of model {stream.identity.hex()})"
        )
    shape, bounded = (stream.height, stream.width), max_memory is not None
    try:
        check_size(*shape, max_pixels=max_pixels)
        quality = _quality(model, stream.quality)
        check_quality(model.config.qualities, quality)
        # Grey, or alpha beside the colours, make another picture of the one that is restored.
        pictures = (2 if stream.channels == RGB else 4) * 3 * math.prod(shape)
        tiling = tiling_for(model, shape, max_memory, picture_bytes=pictures, restoring=True)
        y_hat = model.decode(stream.strings, shape, quality, exact=stream.version >= EXACT_SINCE)
    except (ImageError, QualityError, LatentError) as error:
        raise BitstreamError(str(error)) from error
    checksum = latent_checksum(y_hat)
    if checksum != stream.latent_checksum:
        raise BitstreamError(
            f"Expected latents with checksum {stream.latent_checksum:08x} (got {checksum:08x}): "
            "this machine computes other probabilities than the encoder's"
        )
    return model.synthesise(y_hat, shape, tiling, dtype=torch.uint8 if bounded else torch.float32)


class RefiningTilings(TypedDict):
    """How a picture is cut into tiles, as `refinement.refine` takes it: to refine it, and to judge it."""

    tiling: Tiling
    restoring: Tiling


def refining_for(model: GLIC, x: Tensor, max_memory: int | None) -> RefiningTilings:
    """Return the tiles in which latents are refined, and pictures restored to judge them, within a bound.

    Args:
        model: The model.
        x: The picture.
        max_memory: Bytes that the process may hold.

    Raises:
        MemoryBoundError: the bound is too low.
    """
    if max_memory is None:
        return {"tiling": TILES, "restoring": WHOLE}
    shape, held = x.shape[-2:], x.nbytes + 2 * 3 * math.prod(x.shape[-2:])
    restoring = tiling_for(model, shape, max_memory, picture_bytes=held)
    within = tiling_for(model, shape, max_memory, picture_bytes=held, refining=True)
    return {"tiling": min(within, TILES), "restoring": restoring}


def tiling_for(
    model: GLIC,
    shape: Sequence[int],
    max_memory: int | None,
    *,
    picture_bytes: int,
    restoring: bool = False,
    refining: bool = False,
) -> Tiling:
    """Return the largest tiles with which coding a picture keeps a bound on memory, if there is one.

    Args:
        model: The model.
        shape: (H, W) of the picture.
        max_memory: Bytes that the process may hold.
        picture_bytes: Of the pictures that are held.
        restoring: Whether they are made only once the latents are decoded.
        refining: Whether tiles are of pictures whose latents are refined.

    Raises:
        MemoryBoundError: the bound is too low, or is none of the memory that the model is in.
    """
    if max_memory is None:
        return WHOLE
    if not isinstance(max_memory, Real) or math.isnan(max_memory):
        raise MemoryBoundError(f"Expected max_memory to be a number of bytes (got {max_memory!r})")
    if model.device.type != "cpu":
        raise MemoryBoundError(f"Expected a model on the CPU for --max-memory (got one on {model.device})")
    return tiling_within(
        max_memory,
        model.config,
        model.nbytes,
        shape,
        picture_bytes=picture_bytes,
        restoring=restoring,
        refining=refining,
    )


def _quality(model: GLIC, steps: int) -> float | None:
    """Return the quality that a file's 256ths mean, None of a model of one."""
    return None if steps == 0 and model.config.qualities == 1 else steps / QUALITY_STEPS


def most_bytes(head: bytes, max_pixels: int = MAX_PIXELS) -> int:
    """Return the most bytes of a file that begins so: many for the size of its picture.

    Args:
        head: The file's first bytes.
        max_pixels: A larger picture is refused.

    Raises:
        BitstreamError: not a .glic file, of another version, or too large a picture.
    """
    if (known := unpack_head(head)) is not None:
        try:
            check_size(known.height, known.width, max_pixels=max_pixels)
        except ImageError as error:
            raise BitstreamError(str(error)) from error
    return container.most_bytes(head)
