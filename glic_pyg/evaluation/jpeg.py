"""Pillow's JPEG as a rival."""

from bisect import bisect_left
from typing import NamedTuple

from torch import Tensor

from glic_pyg.evaluation.codecs import PillowCodec

QUALITIES = range(1, 96)


class Jpeg(NamedTuple):
    """A JPEG file's `quality`, bytes (`data`) and restored picture `x_hat`, `1 x 3 x H x W` in [0, 1]."""

    quality: int
    data: bytes
    x_hat: Tensor


def nearest_jpeg(x: Tensor, size: int) -> Jpeg:
    """Return the JPEG file (4:2:0, optimised) whose size in bytes is nearest to `size`.

    Args:
        x: A picture in [0, 1], `1 x 3 x H x W`.
        size: Bytes.
    """
    codec = PillowCodec("jpeg")
    above = bisect_left(QUALITIES, size, key=lambda quality: len(codec.encode(x, quality)))
    nearby = {quality: codec.encode(x, quality) for quality in QUALITIES[max(above - 1, 0) : above + 1]}
    quality, data = min(nearby.items(), key=lambda item: abs(len(item[1]) - size))
    return Jpeg(quality, data, codec.decode(data))
