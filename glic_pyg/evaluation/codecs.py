"""Codecs to compare, all with the same face: ours, CompressAI's, and those of well-kept libraries."""

from __future__ import annotations

import io
import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any

import torch
from PIL import features
from torch import Tensor

from glic_pyg import bitstream, container
from glic_pyg.checkpoint import shipped
from glic_pyg.codec import GLIC, QualityError
from glic_pyg.errors import PackageError, require
from glic_pyg.evaluation.compressai_models import is_compressai, load_compressai
from glic_pyg.image import crop, pad, read_image, to_pil
from glic_pyg.metrics import Distortion
from glic_pyg.progress import tell
from glic_pyg.rate_control import encode_to_bpp
from glic_pyg.refinement import check_effort, own_distortion

CLOSE = 0.002
"""Share of its bytes by which a file may miss the wanted size."""


class Codec(ABC):
    """Something that makes files of pictures.

    Args:
        name: What it is called in tables.
        settings: Whatever else changes its files: versions, options, the model's identity.
        qualities: From small to large files; a codec of one quality has None.
        fine: The same, with all those between; by default there are none.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        qualities: Sequence[float | None],
        fine: Sequence[float | None] = (),
    ) -> None:
        self.name = name
        self.settings = dict(settings)
        self.qualities = tuple(qualities)
        self.fine = tuple(fine) or self.qualities

    @abstractmethod
    def encode(self, x: Tensor, quality: float | None) -> bytes:
        """Return the file of a picture in [0, 1], `1 x 3 x H x W`."""

    @abstractmethod
    def decode(self, data: bytes) -> Tensor:
        """Return the picture of a file, `1 x 3 x H x W` in [0, 1]."""

    def encode_to_size(self, x: Tensor, size: int) -> bytes:
        """Return the file of a picture, `1 x 3 x H x W`, that comes nearest to `size` bytes.

        The range of qualities is halved, as if sizes always grew with them.
        """
        tell(f"looking for a file of {size} bytes by {self.name}")
        least, most = 0, len(self.fine) - 1
        nearest = b""
        while least <= most:
            middle = (least + most) // 2
            data = self.encode(x, self.fine[middle])
            if not nearest or abs(len(data) - size) < abs(len(nearest) - size):
                nearest = data
            if abs(len(data) - size) <= CLOSE * size:
                break
            if len(data) < size:
                least = middle + 1
            else:
                most = middle - 1
        return nearest

    def payload(self, data: bytes) -> float:
        """Return the bytes of a file without container and checksums; NaN where that is not told."""
        return math.nan

    def estimate(self, x: Tensor, quality: float | None) -> float:
        """Return the bits that the entropy model expects; NaN where there is none."""
        return math.nan

    def warm(self) -> None:
        """Compile what is compiled when it is first used."""
        self.decode(self.encode(torch.zeros(1, 3, 64, 64), self.qualities[0]))


@dataclass(frozen=True)
class Options:
    """How models are loaded, and how they code.

    Args:
        device: Where a model computes.
        effort: Of a GLIC model, see `bitstream.encode`; any but 0 is told in its codec's name.
        lmbda: Of a GLIC model of one quality, see `bitstream.encode`.
        distortion: See `bitstream.encode`; told in the codec's name if it is MS-SSIM.
        allow_code: See `GLIC.from_pretrained`.
    """

    device: str = "cpu"
    effort: int = 0
    lmbda: float | None = None
    distortion: Distortion | None = None
    allow_code: bool = False


DEFAULT = Options()
"""A model on the CPU, without effort."""


class GlicCodec(Codec):
    """A GLIC model and its `.glic` files.

    Args:
        name: A model that comes with the package, or the path of a checkpoint.
        options: How it is loaded and codes.
    """

    def __init__(self, name: str, options: Options = DEFAULT) -> None:
        self.effort, self.lmbda, self.device = options.effort, options.lmbda, options.device
        self.model = GLIC.from_pretrained(name, allow_code=options.allow_code).to(self.device)
        count = self.model.config.qualities
        qualities = [None] if count == 1 else range(1, count + 1)
        identity = self.model.identity.hex()
        # Two checkpoints may have one configuration, and so one name.
        shown = name if name in shipped() else f"{self.model.config.name}-{identity[:8]}"
        settings: dict[str, Any] = {"identity": identity}
        check_effort(self.model, self.effort, self.lmbda, options.distortion)
        self.distortion = options.distortion or own_distortion(self.model)
        if self.effort:
            shown = f"{shown}-effort{self.effort}"
            settings |= {"effort": self.effort, "lambda": self.lmbda}
            if self.distortion == "ms-ssim":
                shown, settings = f"{shown}-ms-ssim", {**settings, "distortion": "ms-ssim"}
        super().__init__(shown, settings, qualities)

    def encode(self, x: Tensor, quality: float | None) -> bytes:
        return bitstream.encode(
            self.model,
            x.to(self.device),
            quality,
            effort=self.effort,
            lmbda=self.lmbda,
            distortion=self.distortion,
        )

    def encode_to_size(self, x: Tensor, size: int) -> bytes:
        """Return a file of at most `size` bytes and hardly fewer; without one, the end that comes nearest."""
        x = x.to(self.device)
        try:
            target = 8 * size / x[0, 0].numel()
            return encode_to_bpp(self.model, x, target, effort=self.effort, distortion=self.distortion)
        except QualityError:  # one quality only, or none of that size
            return min(
                (self.encode(x, q) for q in (self.qualities[0], self.qualities[-1])),
                key=lambda data: abs(len(data) - size),
            )

    def warm(self) -> None:
        """Compile; one step of refining uses all that more do.

        It is told a lambda: a black picture has none of its own, and no step would be taken.
        """
        side = 192 if self.effort and self.distortion == "ms-ssim" else 64  # MS-SSIM takes no less than 161
        data = bitstream.encode(
            self.model,
            torch.zeros(1, 3, side, side),
            self.qualities[0],
            effort=self.effort,
            lmbda=1.0,
            distortion=self.distortion,
            watch=lambda *_: True,
        )
        self.decode(data)

    def decode(self, data: bytes) -> Tensor:
        return bitstream.decode(self.model, data).cpu()

    def payload(self, data: bytes) -> float:
        return float(sum(map(len, container.unpack(data).strings)))

    @torch.no_grad()
    def estimate(self, x: Tensor, quality: float | None) -> float:
        if self.effort:
            return math.nan
        y = self.model.analyse(x.to(self.device))
        likelihoods = self.model.likelihoods(y, quality)["likelihoods"]
        return -sum(p.log2().sum().item() for p in likelihoods.values())


class CompressaiCodec(Codec):
    """One of CompressAI's models with its published weights.

    Its file is what decoding takes: quality, sides of picture and latents, number of strings, their lengths,
    and the strings. CompressAI's own tools count the strings only, the `payload`.

    Args:
        name: As in CompressAI's model zoo.
        device: Where it computes.
    """

    HEAD = struct.Struct(">5HB")
    LENGTH = struct.Struct(">I")

    def __init__(self, name: str, *, device: str = "cpu") -> None:
        version = {"compressai": metadata.version("compressai"), "metric": "mse", "file": "with its head"}
        super().__init__(name, version, range(1, 9 if "cheng2020" not in name else 7))
        self.device = device
        self.load = partial(load_compressai, name, device=device)

    @torch.no_grad()
    def encode(self, x: Tensor, quality: float | None) -> bytes:
        number = _integer(quality)
        coded = self.load(quality=number).compress(pad(x.to(self.device), 64))
        strings = [string for (string,) in coded["strings"]]
        head = self.HEAD.pack(number, *x.shape[-2:], *coded["shape"], len(strings))
        return b"".join([head, *(self.LENGTH.pack(len(string)) for string in strings), *strings])

    @torch.no_grad()
    def decode(self, data: bytes) -> Tensor:
        quality, height, width, *shape, count = self.HEAD.unpack_from(data)
        strings, at = [], self.HEAD.size + count * self.LENGTH.size
        for i in range(count):
            (length,) = self.LENGTH.unpack_from(data, self.HEAD.size + i * self.LENGTH.size)
            strings.append([data[at : at + length]])
            at += length
        x_hat = self.load(quality=quality).decompress(strings, shape)["x_hat"]
        return crop(x_hat, height, width).clamp(0, 1).cpu()

    def payload(self, data: bytes) -> float:
        *_, count = self.HEAD.unpack_from(data)
        return float(len(data) - self.HEAD.size - count * self.LENGTH.size)

    @torch.no_grad()
    def estimate(self, x: Tensor, quality: float | None) -> float:
        likelihoods = self.load(quality=_integer(quality))(pad(x.to(self.device), 64))["likelihoods"]
        return -sum(p.log2().sum().item() for p in likelihoods.values())


class PillowCodec(Codec):
    """A codec that Pillow writes.

    Args:
        name: One of `RIVALS`.

    Raises:
        PackageError: this installation of Pillow lacks it.
    """

    def __init__(self, name: str) -> None:
        self.format, library, self.options, self.parameter, qualities = RIVALS[name]
        if name == "jpegxl":
            version = _jpegxl_version()
        elif not features.check(library):
            raise PackageError(f"Expected a Pillow with {name} (got {metadata.version('pillow')} without)")
        else:
            version = str(features.version(library))
        about = {"pillow": metadata.version("pillow"), library: version, "parameter": self.parameter}
        super().__init__(name, about | self.options, qualities, FINE[name])

    def encode(self, x: Tensor, quality: float | None) -> bytes:
        file = io.BytesIO()
        value = [quality] if self.parameter == "quality_layers" else _integer(quality)
        to_pil(x).save(file, format=self.format, **self.options, **{self.parameter: value})
        return file.getvalue()

    def decode(self, data: bytes) -> Tensor:
        return read_image(io.BytesIO(data))


RIVALS: dict[str, tuple[str, str, dict[str, Any], str, Sequence[int]]] = {
    "jpeg": (
        "JPEG", "jpg", {"subsampling": "4:2:0", "optimize": True}, "quality",
        (5, 8, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 95),
    ),
    "jpeg2000": (
        "JPEG2000", "jpg_2000", {"irreversible": True, "mct": 1, "quality_mode": "dB"}, "quality_layers",
        tuple(range(24, 45, 2)),
    ),
    "webp": ("WEBP", "webp", {"method": 6}, "quality", (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95)),
    "avif": ("AVIF", "avif", {"speed": 4, "subsampling": "4:2:0"}, "quality", tuple(range(10, 91, 10))),
    "jpegxl": ("JXL", "jpegxl", {"effort": 7}, "quality", (5, 10, 20, 30, 40, 50, 60, 70, 80, 90)),
}  # fmt: skip
"""Format, library, options, name of the quality and its values, of what Pillow writes."""

FINE: dict[str, Sequence[float]] = {
    "jpeg": range(1, 96),
    "jpeg2000": [0.25 * i for i in range(60, 221)],
    "webp": range(101),
    "avif": range(101),
    "jpegxl": range(1, 101),
}
"""All values of the quality that are worth trying for a file of a wanted size."""


def _integer(quality: float | None) -> int:
    if quality is None:
        raise ValueError("Expected a quality (got none)")
    return int(quality)


def load_codec(name: str, options: Options = DEFAULT) -> Codec:
    """Return a rival by its name, a model of CompressAI's by its name, or else a GLIC model by name or path.

    Args:
        name: The codec's.
        options: Of models.

    Raises:
        CheckpointError: none of them.
        EffortError, QualityError: see `bitstream.encode`.
        PackageError: a rival that this installation lacks.
    """
    if name in RIVALS:
        return PillowCodec(name)
    if is_compressai(name):
        return CompressaiCodec(name, device=options.device)
    return GlicCodec(name, options)


def _jpegxl_version() -> str:
    require("pillow_jxl", extra="jpegxl", purpose="JPEG XL")
    import pillow_jxl  # noqa: F401 - it registers itself with Pillow

    return metadata.version("pillow-jxl-plugin")
