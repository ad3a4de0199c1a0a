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
from collections.abc import Iterator
from itertools import pairwise, product
from typing import TYPE_CHECKING, NamedTuple

from glic_pyg.config import ModelConfig
from glic_pyg.errors import UserError

if TYPE_CHECKING:
    from glic_pyg.codec import GLIC

MULTIPLE = 64
"""Sides that the model takes are multiples of this: z has a 64th of the picture's."""

MARGIN = 64
"""Pixels of a tile beyond what is kept of it, at least; see the README for what others give."""

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

    def read(self, unit: int) -> tuple[slice, ...]:
        """Index the tile in the whole map; `unit` is the map's positions per 16 pixels, 16 or 1."""
        return ..., *(slice(s.start * unit // 16, s.stop * unit // 16) for s in self)

    def kept(self, unit: int) -> tuple[slice, ...]:
        """Index what is kept in the whole map."""
        return ..., *(slice(s.first * unit // 16, s.last * unit // 16) for s in self)

    def core(self, unit: int) -> tuple[slice, ...]:
        """Index what is kept in the tile's own map."""
        return ..., *(slice((s.first - s.start) * unit // 16, (s.last - s.start) * unit // 16) for s in self)


def tiles(height: int, width: int, side: int) -> Iterator[Tile]:
    """Cut a picture, padded to multiples of 64, into tiles of equal size.

    Args:
        height: Of the picture in pixels.
        width: Of the picture in pixels.
        side: Of a tile at most, in pixels, a multiple of 64 and more than twice the margin.
    """
    yield from (Tile(*spans) for spans in product(_spans(height, side), _spans(width, side)))


def _spans(length: int, side: int) -> list[Span]:
    length = -(-length // MULTIPLE) * MULTIPLE
    if length <= side:
        return [Span(0, length, 0, length)]
    inner = length - 2 * MARGIN
    count = math.ceil(inner / (side - 2 * MARGIN))
    step = math.ceil(inner / count / MULTIPLE) * MULTIPLE
    starts = [min(i * step, inner - step) for i in range(count)]
    stops = [start + step + 2 * MARGIN for start in starts]
    cuts = [0, *((stop + start) // 2 for stop, start in zip(stops, starts[1:], strict=False)), length]
    return [Span(*span) for span in zip(starts, stops, *zip(*pairwise(cuts), strict=True), strict=True)]


def largest_side(
    model: GLIC, height: int, width: int, max_memory: int, *, picture_bytes: int, restoring: bool = False
) -> int:
    """Return the side of the largest tiles with which coding a picture keeps a bound on memory.

    Estimated for the worst picture, a flat one, whose graphs keep every candidate. It depends on nothing but
    the arguments, so that the same call gives the same file anywhere.

    Args:
        model: The model, on the CPU with its default backend.
        height: Of the picture in pixels.
        width: Of the picture in pixels.
        max_memory: Bytes that the whole process may hold.
        picture_bytes: Of the pictures that are held.
        restoring: Whether they are made only once the latents are decoded.

    Raises:
        MemoryBoundError: the bound is too low for that model and size.
    """
    positions = -(-height // MULTIPLE) * -(-width // MULTIPLE) * 16  # of y
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    held = PROCESS + weights + picture_bytes + 2 * 4 * model.config.latent_channels * positions
    per_pixel = _bytes_per_pixel(model.config)
    least = max(
        PROCESS + 3 * weights,  # while it is loaded
        PROCESS + weights + READING * height * width,
        PROCESS + weights + picture_bytes * (not restoring) + _bytes_per_position(model.config) * positions,
        held + per_pixel * min(256 * positions, LEAST_SIDE**2),
    )
    if max_memory < least:
        raise MemoryBoundError(
            f"Expected --max-memory of at least {math.ceil(least / 2**20)}M for {width} x {height} pixels "
            f"(got {max_memory >> 20}M)"
        )
    pixels = (max_memory - held) // per_pixel
    return max(height, width) + MULTIPLE if 256 * positions <= pixels else math.isqrt(pixels) // 64 * 64


def check_memory(model: GLIC, height: int, width: int, max_memory: int) -> None:
    """Refuse a picture of 8 bits that cannot be coded within a bound on memory, before it is read.

    Raises:
        MemoryBoundError: the bound is too low.
    """
    largest_side(model, height, width, max_memory, picture_bytes=3 * height * width)


def _bytes_per_pixel(config: ModelConfig) -> int:
    """Estimate what the transforms take per pixel of a tile.

    The most at a quarter of the sides, with graphs, or at half of them, with conv blocks. A node's 256 edges
    take 54 bytes each, in two graphs and on the way, the tables of 4 sizes, which are kept, 640; its features
    are there 12 times.
    """
    graphs = (256 * 54 + 640 + 12 * 4 * config.channels[1]) // 16
    return max(graphs, 6 * config.channels[0])


def _bytes_per_position(config: ModelConfig) -> int:
    """Estimate what the entropy model takes per position of y, as it was found with two configurations."""
    return 4 * (7 * config.latent_channels + 10 * config.hyper_channels + 11 * max(config.groups))
