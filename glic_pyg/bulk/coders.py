"""Files' bytes to other files' bytes with one model, a file or a batch at a time; no engine is known here.

columns "path", "bytes" --> Encoder, Decoder or Evaluator --> columns "bytes", "bpp", "seconds", "error"
"""

from __future__ import annotations

import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from glic_pyg import bitstream
from glic_pyg.chunks import add_chunks, chunks_of, with_chunks
from glic_pyg.codec import GLIC
from glic_pyg.container import VERSION, BitstreamError, unpack
from glic_pyg.errors import FileError, UsageError, UserError
from glic_pyg.files import FileBytes
from glic_pyg.formats import format_named, image_bytes
from glic_pyg.image import read_image, to_tensor
from glic_pyg.limits import MAX_PIXELS
from glic_pyg.metrics import Distortion, bpp, psnr
from glic_pyg.picture import DEEP, most_bytes, picture_size, picture_suffixes, read_picture
from glic_pyg.rate_control import encode_to_bpp, encode_to_psnr
from glic_pyg.refinement import Watch, check_effort, own_distortion
from glic_pyg.tiles import check_memory
from glic_pyg.transparency import filled


@dataclass(frozen=True)
class Coded:
    """What was made of a file.

    Args:
        data: The bytes that were made.
        height: Of the picture.
        width: Of the picture.
        bpp: Bits per pixel of the .glic file, every byte counted.
        psnr: Of the restored picture in dB; NaN where nothing was restored.
        chunks: Names of what lies in a made .glic file beside its strings.
        chunk_bytes: That it takes.
        notes: What there is to tell the user, each a line that goes on after the file's name.
    """

    data: bytes
    height: int
    width: int
    bpp: float
    psnr: float = math.nan
    chunks: tuple[str, ...] = ()
    chunk_bytes: int = 0
    notes: tuple[str, ...] = ()


class Coder(ABC):
    """What codes files with one model, and batches of files, as engines for data hand them out.

    Attributes:
        suffixes: Of the files that are coded, lower case.
        new_suffix: Of what is made.
        settings: All that the made bytes depend on beside the file's own, JSON values.
    """

    suffixes: frozenset[str]
    new_suffix: str
    settings: Mapping[str, Any]

    @abstractmethod
    def code(self, source: FileBytes) -> Coded:
        """Code a file.

        Raises:
            UserError: the file is no such file, or cannot be coded.
        """

    @abstractmethod
    def most_bytes(self, head: bytes) -> int:
        """Return how many bytes a file may have that begins so."""

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Code a batch of files, whatever goes wrong with one of them.

        Args:
            batch: Columns, lists or arrays: `path`, of texts, and `bytes`, of each file's. Others are kept.

        Returns:
            The columns, with `bytes` what was made (empty if it failed) and more of them: `height`, `width`,
            `bpp`, `psnr` and `seconds`, numbers; `notes` and `error`, texts, empty where there is nothing to
            tell.
        """
        rows = [
            self.row(str(path), bytes(data)) for path, data in zip(batch["path"], batch["bytes"], strict=True)
        ]
        columns: dict[str, Any] = {name: batch[name] for name in batch}
        for name, kind in COLUMNS.items():
            columns[name] = np.empty(len(rows), kind)
            columns[name][:] = [row[name] for row in rows]
        return columns

    def row(self, path: str, data: bytes) -> dict[str, Any]:
        """Return the row of a file, by the names of the columns."""
        start = time.perf_counter()
        coded, error = NOTHING, ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # notes say the same
            try:
                most = self.most_bytes(data[:1024])
                if len(data) > most:
                    raise FileError(f"Expected a file of at most {most} bytes (got {len(data)})")
                coded = self.code(FileBytes(data, path))
            except (UserError, OSError) as reason:
                error = message_of(reason)
            except (MemoryError, torch.OutOfMemoryError):  # the latter of a GPU
                error = f"Expected enough memory for {path} (got no more)"
        return _row(coded, time.perf_counter() - start, error)


NOTHING = Coded(b"", 0, 0, math.nan)
"""Was made."""


def failed_row(error: str) -> dict[str, Any]:
    """Return the row of a file that was not coded, see `Coder.row`."""
    return _row(NOTHING, 0.0, error)


def _row(coded: Coded, seconds: float, error: str) -> dict[str, Any]:
    return {
        "bytes": coded.data,
        "height": coded.height,
        "width": coded.width,
        "bpp": coded.bpp,
        "psnr": coded.psnr,
        "seconds": seconds,
        "notes": "; ".join(coded.notes),
        "error": error,
    }


COLUMNS: dict[str, Any] = {
    "bytes": object,
    "height": np.int64,
    "width": np.int64,
    "bpp": np.float64,
    "psnr": np.float64,
    "seconds": np.float64,
    "notes": object,
    "error": object,
}
"""Of a batch that is coded, and their kinds."""


def message_of(error: Exception) -> str:
    """Return an error as a line that is never empty, which would tell of success; some have no message."""
    return " ".join(str(error).split()) or type(error).__name__


class Encoder(Coder):
    """Compresses pictures to .glic files.

    Args:
        model: A model, or its name or path.
        quality: See `bitstream.encode`.
        target_bpp: Wanted bits per pixel, in place of a quality.
        target_psnr: Wanted PSNR in dB, in place of a quality.
        effort: See `bitstream.encode`.
        lmbda: See `bitstream.encode`.
        distortion: See `bitstream.encode`.
        strip: Whether EXIF and XMP data are left out.
        keep_icc: Whether a colour profile travels, in place of converting to sRGB.
        max_pixels: Larger pictures are refused.
        max_memory: Bytes that the process may hold.
        device: Where the model computes.
        allow_code: See `GLIC.from_pretrained`.
        watch: Is told of the search for better latents, see `bitstream.encode`.

    Raises:
        UserError: no such model, or one that has no such quality.
    """

    new_suffix = ".glic"

    def __init__(
        self,
        model: GLIC | str = "glic_nano",
        *,
        quality: float | None = None,
        target_bpp: float | None = None,
        target_psnr: float | None = None,
        effort: int = 0,
        lmbda: float | None = None,
        distortion: Distortion | None = None,
        strip: bool = False,
        keep_icc: bool = False,
        max_pixels: int = MAX_PIXELS,
        max_memory: int | None = None,
        device: str = "cpu",
        allow_code: bool = False,
        watch: Watch | None = None,
    ) -> None:
        aims: dict[str, Any] = {"quality": quality, "target_bpp": target_bpp, "target_psnr": target_psnr}
        if sum(aim is not None for aim in aims.values()) > 1:
            raise UsageError(f"Expected one of quality, target_bpp and target_psnr (got {aims})")
        self.model = _loaded(model, device, allow_code)
        self.suffixes = frozenset(picture_suffixes())
        self.strip, self.keep_icc = strip, keep_icc
        self.max_pixels, self.max_memory = max_pixels, max_memory
        self._aims = dict(aims)
        if target_bpp is None and target_psnr is None:
            aims["quality"] = bitstream.quality_steps(self.model, quality)
        check_effort(self.model, effort, lmbda, distortion)
        if target_psnr is not None and distortion == "ms-ssim":
            raise UsageError("Expected the distortion mse with a target of PSNR (got ms-ssim)")
        self._lmbda, self._distortion = lmbda, distortion or own_distortion(self.model)
        self._options: dict[str, Any] = {
            "max_pixels": max_pixels,
            "max_memory": max_memory,
            "effort": effort,
            "watch": watch,
        }
        self.settings = {
            "format": VERSION,
            "model": self.model.identity.hex(),
            "max_memory": max_memory,
            "strip": strip,
            "keep_icc": keep_icc,
            **({"effort": effort, "lambda": lmbda} if effort else {}),
            **({"distortion": "ms-ssim"} if effort and self._distortion == "ms-ssim" else {}),
            **aims,
        }

    def code(self, source: FileBytes) -> Coded:
        """Compress a picture; alpha and metadata travel with it, as `glic compress` does it."""
        self._check_memory(source)
        picture = read_picture(
            source, max_pixels=self.max_pixels, keep_icc=self.keep_icc, metadata=not self.strip
        )
        source.close()
        notes = (*picture.notes, *([DEEP] if picture.is_deep else []))
        channels, chunks = picture.channels, chunks_of(picture)
        x = to_tensor(filled(picture)).to(self.model.device)
        del picture
        data = self._encode(x)
        size, data = len(data), add_chunks(data, channels, chunks)
        height, width = x.shape[-2:]
        return Coded(
            data,
            height,
            width,
            bpp(data, x),
            chunks=tuple(chunks),
            chunk_bytes=len(data) - size,
            notes=notes,
        )

    def most_bytes(self, head: bytes) -> int:
        """Return how many bytes a picture's file may have."""
        return most_bytes(self.max_pixels)

    def _check_memory(self, source: FileBytes) -> None:
        if self.max_memory is not None:
            check_memory(self.max_memory, self.model.config, self.model.nbytes, picture_size(source))

    def _encode(self, x: Any) -> bytes:
        if self._aims["target_psnr"] is not None:
            return encode_to_psnr(self.model, x, self._aims["target_psnr"], **self._options)
        options = {**self._options, "distortion": self._distortion}
        if self._aims["target_bpp"] is not None:
            return encode_to_bpp(self.model, x, self._aims["target_bpp"], **options)
        return bitstream.encode(self.model, x, self._aims["quality"], lmbda=self._lmbda, **options)


class Evaluator(Encoder):
    """Compresses pictures and restores them, for the figures; has the arguments of `Encoder`."""

    def __init__(self, model: GLIC | str = "glic_nano", **settings: Any) -> None:
        super().__init__(model, **settings)
        self.settings = {**self.settings, "evaluated": True}

    def code(self, source: FileBytes) -> Coded:
        """Compress a picture without alpha and metadata and restore it, as `glic evaluate` does it."""
        self._check_memory(source)
        x = read_image(source, max_pixels=self.max_pixels).to(self.model.device)
        source.close()
        data = self._encode(x)
        x_hat = bitstream.decode(self.model, data, max_pixels=self.max_pixels, max_memory=self.max_memory)
        height, width = x.shape[-2:]
        return Coded(data, height, width, bpp(data, x), psnr(x, x_hat))


class Decoder(Coder):
    """Restores the pictures of .glic files.

    Args:
        model: A model, or its name or path.
        format: Of what is restored, as Pillow names it, or a suffix.
        max_pixels: Larger pictures are refused.
        max_memory: Bytes that the process may hold.
        device: Where the model computes.
        allow_code: See `GLIC.from_pretrained`.

    Raises:
        UserError: no such model, or no such format.
    """

    suffixes = frozenset({".glic"})

    def __init__(
        self,
        model: GLIC | str = "glic_nano",
        *,
        format: str = "png",
        max_pixels: int = MAX_PIXELS,
        max_memory: int | None = None,
        device: str = "cpu",
        allow_code: bool = False,
    ) -> None:
        self.format, self.new_suffix = format_named(format)
        self.model = _loaded(model, device, allow_code)
        self.max_pixels, self.max_memory = max_pixels, max_memory
        self.settings = {
            "format": self.format.lower(),
            "model": self.model.identity.hex(),
            "max_memory": max_memory,
        }

    def code(self, source: FileBytes) -> Coded:
        """Restore a picture with its alpha and metadata, as `glic decompress` does it."""
        data = source.getvalue()
        try:
            x = bitstream.decode(self.model, data, max_pixels=self.max_pixels, max_memory=self.max_memory)
            image = with_chunks(x, unpack(data))
        except BitstreamError as error:
            raise BitstreamError(f"{source}: {error}") from error
        height, width = x.shape[-2:]
        rate = bpp(data, x)
        del x
        result, notes = image_bytes(image, self.format)
        return Coded(result, height, width, rate, notes=tuple(notes))

    def most_bytes(self, head: bytes) -> int:
        """Return how many bytes a .glic file may have."""
        return bitstream.most_bytes(head, self.max_pixels)


def _loaded(model: GLIC | str, device: str, allow_code: bool) -> GLIC:
    if isinstance(model, GLIC):
        return model
    return GLIC.from_pretrained(model, allow_code=allow_code).to(device)
