"""Pictures as codecs restore them at the same rate, for a page that shows two of them under a slider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from glic_pyg.evaluation.codecs import Codec
from glic_pyg.image import data_uri
from glic_pyg.metrics import bpp, ms_ssim, psnr

PIXELS = 1 << 20
"""Of a picture that is shown whole; of a larger one it is the middle."""
NEAR = 0.03
"""By how much of its bytes a file may differ from another of the same rate without a word."""


@dataclass(frozen=True)
class Restored:
    """What a codec made of a picture.

    Args:
        name: Of the codec.
        data: Its file.
        x: The picture, `1 x 3 x H x W` in [0, 1].
        x_hat: As the file restores it.
    """

    name: str
    data: bytes
    x: Tensor
    x_hat: Tensor

    @classmethod
    def of(cls, codec: Codec, x: Tensor, data: bytes) -> Restored:
        """Restore a picture."""
        return cls(codec.name, data, x, codec.decode(data))

    @property
    def psnr(self) -> float:
        """Of the 8-bit picture, in dB."""
        return psnr(self.x, self.x_hat)

    def text(self, size: int) -> str:
        """Return bytes, rate and scores in a line, and how far the file is from the `size` it was to have."""
        parts = [f"{len(self.data):,} bytes".replace(",", " "), f"{bpp(self.data, self.x):.3f} bpp"]
        more = len(self.data) / size - 1
        if abs(more) > NEAR:
            parts[0] += f" ({100 * abs(more):.0f} % {'more' if more > 0 else 'fewer'})"
        parts.append(f"{self.psnr:.2f} dB")
        if (similarity := ms_ssim(self.x, self.x_hat)) == similarity:
            parts.append(f"MS-SSIM {similarity:.4f}")
        return ", ".join(parts)


def shown_picture(name: str, x: Tensor, restored: Sequence[Restored]) -> dict[str, Any]:
    """Return what the page needs of a picture: the original and what codecs made of it, without loss.

    Args:
        name: Of the picture.
        x: The picture, `1 x 3 x H x W` in [0, 1].
        restored: By the codecs; the first one's file has the rate that the others were to have.
    """
    shown = middle(x)
    height, width = shown.shape[-2:]
    about = (
        f"{name}, {x.size(-1)} x {x.size(-2)} pixels; all files as large as that of {restored[0].name}, as "
    )
    about += "nearly as codecs can"
    if shown is not x:
        about += f"; shown are {width} x {height} in its middle, the figures are of the whole"
    layers = [{"name": "original", "text": f"{x.size(-1)} x {x.size(-2)} pixels", "uri": _uri(shown)}]
    for one in restored:
        text = one.text(len(restored[0].data))
        layers.append({"name": one.name, "text": text, "uri": _uri(middle(one.x_hat))})
    return {"name": name, "about": about, "width": width, "height": height, "layers": layers}


def middle(x: Tensor) -> Tensor:
    """Return the middle of a picture, at most `PIXELS`, with its proportions; `x` itself if that is all."""
    height, width = x.shape[-2:]
    if height * width <= PIXELS:
        return x
    share = (PIXELS / (height * width)) ** 0.5
    rows, columns = int(height * share), int(width * share)
    top, left = (height - rows) // 2, (width - columns) // 2
    return x[..., top : top + rows, left : left + columns]


def _uri(x: Tensor) -> str:
    return data_uri(x, format="WEBP", lossless=True)
