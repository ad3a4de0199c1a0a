"""Transparent pictures without their alpha: as they look, and as they are best coded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from glic_pyg.picture import PIXELS_AT_ONCE, Picture

TILE = 1024
"""Side of the parts in which hidden colours are made up; floats of whole pictures would be many bytes."""


def over_white(picture: Picture) -> np.ndarray:
    """Return a picture's pixels over white where it is transparent."""
    if picture.alpha is None:
        return picture.pixels
    if picture.pixels.ndim == 2:
        weight = picture.alpha / np.float32(255)
        return picture.pixels * weight + (1 - weight)
    height, width = picture.alpha.shape
    pixels, rows = np.empty_like(picture.pixels), max(1, PIXELS_AT_ONCE // width)
    for top in range(0, height, rows):
        band = Image.fromarray(picture.pixels[top : top + rows])
        band.putalpha(Image.fromarray(picture.alpha[top : top + rows]))
        pixels[top : top + rows] = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band).convert(
            "RGB"
        )
    return pixels


def filled(picture: Picture) -> np.ndarray:
    """Return a picture's pixels, those under an alpha of 0 as smooth continuations of the others.

    What nobody sees then costs no bits, and does not spoil what is beside it. From half the size to one pixel
    the visible ones are averaged; from there back, each hidden one takes what the smaller picture has there
    (pull-push, Gortler et al., The Lumigraph, 1996, section 3.4).
    """
    if picture.alpha is None or picture.alpha.all() or not picture.alpha.any():
        return picture.pixels
    pixels, visible = picture.pixels.copy(), picture.alpha > 0
    mean = pixels[visible].mean(0)
    for rows, columns in _tiles(visible.shape):
        shown = visible[rows, columns]
        if not shown.all():
            part = pixels[rows, columns]  # a view
            colors = _pull_push(part, shown) if shown.any() else np.broadcast_to(mean, part.shape)
            part[~shown] = (np.rint(colors) if part.dtype == np.uint8 else colors)[~shown]
    return pixels


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    for top in range(0, shape[0], TILE):
        for left in range(0, shape[1], TILE):
            yield slice(top, top + TILE), slice(left, left + TILE)


def _pull_push(pixels: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Return pixels, `H x W` or `H x W x C`, float32, the hidden ones made up."""
    colors = pixels.astype(np.float32).reshape(*shown.shape, -1)
    weight = shown[..., None].astype(np.float32)
    levels = [(colors * weight, weight)]
    while levels[-1][1].size > 1:
        levels.append((_halved(levels[-1][0]), _halved(levels[-1][1])))
    colors, weight = levels.pop()
    colors = colors / weight
    while levels:
        known, weight = levels.pop()
        size = weight.shape[1], weight.shape[0]
        larger = [
            np.array(Image.fromarray(channel).resize(size, Image.Resampling.BILINEAR))
            for channel in np.ascontiguousarray(np.moveaxis(colors, -1, 0))
        ]
        colors = known + (1 - weight) * np.stack(larger, -1)
    return colors.reshape(pixels.shape)


def _halved(values: np.ndarray) -> np.ndarray:
    """Return the means of 2 x 2 values, beyond the right and lower edges zeros."""
    height, width, channels = values.shape
    values = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    return values.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, channels).mean((1, 3))
