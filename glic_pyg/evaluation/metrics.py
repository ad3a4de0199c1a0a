"""Figures of a restored picture and its file."""

import math

from torch import Tensor

from glic_pyg.image import to_8bit


def bpp(data: bytes, x: Tensor) -> float:
    """Return the bits per pixel of a file, every byte counted, for the picture `x`, `1 x 3 x H x W`."""
    return 8 * len(data) / (x.size(-2) * x.size(-1))


def psnr(x: Tensor, x_hat: Tensor) -> float:
    """Return the PSNR of two pictures in [0, 1], rounded to 8 bits, over all three channels in dB."""
    mse = (to_8bit(x).double() - to_8bit(x_hat).double()).square().mean().item()
    return 10 * math.log10(255**2 / mse) if mse else math.inf
