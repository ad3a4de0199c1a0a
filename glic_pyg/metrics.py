"""Figures of a restored picture and its file."""

import math
from typing import Literal

from torch import Tensor

from glic_pyg.errors import require
from glic_pyg.image import to_8bit

Distortion = Literal["mse", "ms-ssim"]
"""What a model is trained to make small: the squared error, or 1 - MS-SSIM."""

ROWS_AT_ONCE = 64

LEAST_SIDE = 161
"""Of pictures that MS-SSIM takes: five scales of 11 x 11 windows."""


def bpp(data: bytes, x: Tensor) -> float:
    """Return the bits per pixel of a file, every byte counted, for the picture `x`, `1 x 3 x H x W`."""
    return 8 * len(data) / (x.size(-2) * x.size(-1))


def mse(x: Tensor, x_hat: Tensor) -> float:
    """Return the mean squared error of two pictures in [0, 1], rounded to 8 bits, in squares of 1/255."""
    _check_shapes(x, x_hat)
    parts = zip(*(picture.split(ROWS_AT_ONCE, dim=-2) for picture in (x, x_hat)), strict=True)
    # Sums of whole numbers, exact in any order; of a large picture the differences need not all be held.
    return (
        sum((to_8bit(a).double() - to_8bit(b).double()).square().sum().item() for a, b in parts) / x.numel()
    )


def psnr(x: Tensor, x_hat: Tensor) -> float:
    """Return the PSNR of two pictures in [0, 1], rounded to 8 bits, over all three channels in dB.

    It is infinite where they are the same.
    """
    error = mse(x, x_hat)
    return 10 * math.log10(255**2 / error) if error else math.inf


def psnr_unrounded(x: Tensor, x_hat: Tensor) -> float:
    """Return the PSNR of two pictures in [0, 1] as they are, over all three channels in dB."""
    _check_shapes(x, x_hat)
    mse = (x.double() - x_hat.double()).square().mean().item()
    return -10 * math.log10(mse) if mse else math.inf


def ms_ssim(x: Tensor, x_hat: Tensor) -> float:
    """Return the MS-SSIM of two pictures in [0, 1], rounded to 8 bits; NaN for sides below `LEAST_SIDE`."""
    _check_shapes(x, x_hat)
    if min(x.shape[-2:]) < LEAST_SIDE:
        return math.nan
    require("pytorch_msssim", extra="evaluate", purpose="MS-SSIM")
    from pytorch_msssim import ms_ssim

    return ms_ssim(to_8bit(x).float(), to_8bit(x_hat).float(), data_range=255).item()


def decibels(similarity: float) -> float:
    """Return an MS-SSIM in dB, as papers plot it: infinite for 1, NaN for NaN."""
    return math.inf if similarity >= 1 else -10 * math.log10(1 - similarity)


def _check_shapes(x: Tensor, x_hat: Tensor) -> None:
    if x.shape != x_hat.shape:
        raise ValueError(f"Expected pictures of one shape (got {tuple(x.shape)} and {tuple(x_hat.shape)})")
