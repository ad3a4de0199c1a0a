"""Large pictures within a bound on memory: both transforms in tiles that overlap, the entropy model whole.

    tile   |---------------|
    tile               |---------------|
    tile                           |---------------|
    kept   |-------------|-----------|-------------|

What a tile gives is kept up to the middle of its overlap with the next one. Tiles begin at multiples of 64
pixels, where the local graphs' windows do too; the global graphs span the tile instead of the picture.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import Any, NamedTuple

from glic_pyg.config import HYPER_STRIDE, LATENT_STRIDE, ModelConfig
from glic_pyg.errors import UserError

MARGIN = 64
"""Pixels of a tile beyond what is kept of it, at least; docs/compress.md has what others give."""

LEAST_SIDE = 256
"""Of tiles: a smaller one would be mostly margin."""

PROCESS = 1200 << 20
"""Bytes of a process with torch, Numba and compiled kernels, and what its allocator does not give back.

Torch's CUDA build takes a third of it for its libraries, without a GPU too.
"""

READING = 20
"""Bytes per pixel while a picture is read: Pillow's, the array's, and what decoders such as JPEG's hold."""


class MemoryBoundError(UserError, ValueError):
    """A bound on memory that cannot be kept; the message is one line for the user."""


class Span(NamedTuple):
    """A tile along one axis, in pixels.

    Args:
        start: Where it begins.
        stop: Where it ends.
        first: Where what is kept of it begins.
        last: Where that ends.
    """

    start: int
    stop: int
    first: int
    last: int


class Tile(NamedTuple):
    """A part of a padded picture.

    Args:
        rows: Along the height.
        columns: Along the width.
    """

    rows: Span
    columns: Span

    def read(self, unit: int) -> tuple[Any, ...]:
        """Index the tile in the whole map; `unit` is the map's positions per position of y, 16 or 1."""
        return ..., *(_slice(s.start, s.stop, unit) for s in self)

    def kept(self, unit: int) -> tuple[Any, ...]:
        """Index what is kept in the whole map."""
        return ..., *(_slice(s.first, s.last, unit) for s in self)

    def core(self, unit: int) -> tuple[Any, ...]:
        """Index what is kept in the tile's own map."""
        return ..., *(_slice(s.first - s.start, s.last - s.start, unit) for s in self)


def _slice(start: int, stop: int, unit: int) -> slice:
    return slice(start * unit // LATENT_STRIDE, stop * unit // LATENT_STRIDE)


class Tiling(NamedTuple):
    """How pictures are cut into tiles.

    Args:
        side: Of a tile at most, in pixels, a multiple of 64 and more than twice the margin.
        margin: Pixels of a tile beyond what is kept of it, at least; a multiple of 32.
    """

    side: int
    margin: int = MARGIN

    def tiles(self, height: int, width: int) -> Iterator[Tile]:
        """Cut a picture of that height and width, padded to multiples of 64, into tiles of equal size."""
        spans = (_spans(length, self.side, self.margin) for length in (height, width))
        yield from (Tile(*both) for both in product(*spans))


WHOLE = Tiling(sys.maxsize)
"""One tile, whatever the picture."""


def _spans(length: int, side: int, margin: int) -> list[Span]:
    length = -(-length // HYPER_STRIDE) * HYPER_STRIDE
    if length <= side:
        return [Span(0, length, 0, length)]
    inner = length - 2 * margin
    count = math.ceil(inner / (side - 2 * margin))
    step = math.ceil(inner / count / HYPER_STRIDE) * HYPER_STRIDE
    starts = [min(i * step, inner - step) for i in range(count)]
    stops = [start + step + 2 * margin for start in starts]
    cuts = [0, *((stop + start) // 2 for stop, start in zip(stops, starts[1:], strict=False)), length]
    return [Span(*span) for span in zip(starts, stops, *zip(*pairwise(cuts), strict=True), strict=True)]


def tiling_within(
    max_memory: int,
    config: ModelConfig,
    weight_bytes: int,
    shape: Sequence[int],
    *,
    picture_bytes: int,
    restoring: bool = False,
    refining: bool = False,
) -> Tiling:
    """Return the largest tiles with which coding a picture keeps a bound on memory.

    Estimated for the worst picture, a flat one, whose graphs keep every candidate. It depends on nothing but
    the arguments, so that the same call gives the same file anywhere.

    Args:
        max_memory: Bytes that the whole process may hold.
        config: Of a model on the CPU with its default kernels.
        weight_bytes: Of the model's weights and tables.
        shape: (H, W) of the picture.
        picture_bytes: Of the pictures that are held.
        restoring: Whether they are made only once the latents are decoded.
        refining: Whether the tiles' latents are refined, with all that a gradient needs.

    Raises:
        MemoryBoundError: the bound is too low for that model and size.
    """
    height, width = shape
    pixels = math.prod(-(-side // HYPER_STRIDE) * HYPER_STRIDE for side in shape)
    positions = pixels // LATENT_STRIDE**2  # of y
    held = PROCESS + weight_bytes + picture_bytes + 2 * 4 * config.latent_channels * positions
    per_pixel = _bytes_per_pixel(config) + refining * _bytes_of_gradients(config)
    least = max(
        PROCESS + 3 * weight_bytes,  # while it is loaded
        PROCESS + weight_bytes + READING * height * width,
        PROCESS + weight_bytes + picture_bytes * (not restoring) + _bytes_per_position(config) * positions,
        held + per_pixel * min(pixels, LEAST_SIDE**2),
    )
    if max_memory < least:
        raise MemoryBoundError(
            f"Expected --max-memory of at least {math.ceil(least / 2**20)}M for {width} x {height} pixels "
            f"(got {max_memory >> 20}M)"
        )
    at_once = (max_memory - held) // per_pixel
    return WHOLE if pixels <= at_once else Tiling(math.isqrt(at_once) // HYPER_STRIDE * HYPER_STRIDE)


def check_memory(max_memory: int, config: ModelConfig, weight_bytes: int, shape: Sequence[int]) -> None:
    """Refuse a picture of 8 bits that cannot be coded within a bound on memory, before it is read.

    Args:
        max_memory: See `tiling_within`.
        config: See `tiling_within`.
        weight_bytes: See `tiling_within`.
        shape: (H, W) of the picture.

    Raises:
        MemoryBoundError: the bound is too low.
    """
    tiling_within(max_memory, config, weight_bytes, shape, picture_bytes=3 * math.prod(shape))


def _bytes_per_pixel(config: ModelConfig) -> int:
    """Estimate what the transforms take per pixel of a tile.

    The most at a quarter of the sides, with graphs, or at half of them, with conv blocks. A node's 256 edges
    take 54 bytes each, in two graphs and on the way, the tables of 4 sizes, which are kept, 640; its features
    are there 12 times.
    """
    graphs = (256 * 54 + 640 + 12 * 4 * config.channels[1]) // 16
    return max(graphs, 6 * config.channels[0])


def _bytes_of_gradients(config: ModelConfig) -> int:
    """Estimate what a gradient through g_s and the entropy model keeps per pixel of a tile.

    For each layer its features 14 times and the hidden ones of its feed-forward part 3 times, for each
    position of y 12 times what coding takes, as it was found with two configurations; and a quarter more on
    the way back.
    """
    layers = sum(
        4 * (14 + 3 * ratio) * channels * depth // side**2
        for channels, depth, ratio, side in zip(
            config.channels, config.depths, config.ffn_ratios, (2, 4, 8), strict=True
        )
    )
    return (layers + 12 * _bytes_per_position(config) // LATENT_STRIDE**2) * 5 // 4


def _bytes_per_position(config: ModelConfig) -> int:
    """Estimate what the entropy model takes per position of y, as it was found with two configurations."""
    return 4 * (8 * config.latent_channels + 10 * config.hyper_channels + 11 * max(config.groups))
