"""Pillow's pictures as files of any format that Pillow writes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from glic_pyg.errors import FileError
from glic_pyg.picture import has_jpegxl
from glic_pyg.srgb import converted, profile_of

QUALITY = 95
"""Of formats that lose something, 1 to 100; others do not look at it."""
XMP_TAG = 700
"""Of TIFF files; Adobe, XMP Specification Part 3, 1.1.4."""
NAMES = {"exif": "EXIF data", "xmp": "XMP data", "icc_profile": "colour profile"}
"""What may be in a picture's `info`."""


def writable() -> dict[str, str]:
    """Return the lower-case suffixes of what Pillow writes, and the formats that they stand for; not GLIC."""
    known = Image.registered_extensions()
    if has_jpegxl():
        known = known | {".jxl": "JXL"}
    formats = (Image.SAVE.keys() | {"JXL"}) - {"GLIC"}
    return {suffix: name for suffix, name in known.items() if name in formats}


def format_named(name: str) -> tuple[str, str]:
    """Return a format, by its name or a suffix such as `jpg`, and the suffix of its files.

    Raises:
        FileError: Pillow writes none of that name.
    """
    known = writable()
    found = known.get(f".{name.lower().removeprefix('.')}", name.upper())
    if found not in known.values():
        names = ", ".join(sorted({suffix[1:] for suffix in known}))
        raise FileError(f"Expected a format that Pillow writes, one of {names} (got {name})")
    suffix = f".{name.lower().removeprefix('.')}"
    return found, suffix if suffix in known else next(s for s, format in known.items() if format == found)


def image_bytes(image: Image.Image, format: str) -> tuple[bytes, list[str]]:
    """Return a picture's bytes in a format, with its metadata, and what there is to tell.

    What the format does not hold is left out last and told: transparency is composited over white, colours
    of a profile are converted to sRGB.

    Args:
        image: L, LA, RGB or RGBA; metadata in `info`.
        format: As Pillow names it.

    Raises:
        FileError: the format holds no such picture.
    """
    if format == "JXL" and "JXL" not in Image.SAVE:
        import pillow_jxl  # noqa: F401 - it registers itself with Pillow
    error: Exception | None = None
    for candidate, notes in _candidates(image, format):
        for left_out in ((), ("xmp",), ("exif",), ("exif", "xmp")):
            if not set(left_out) <= candidate.info.keys():
                continue
            try:
                data = _saved(candidate, format, left_out)
            except MemoryError:
                raise
            except Exception as refused:  # Pillow's plugins raise nearly anything
                error = error or refused
                continue
            lost = _lost(candidate, data)
            if "transparency" in lost:
                break  # of the next candidate it is left out properly
            if "icc_profile" in lost:
                in_srgb, what = _in_srgb(candidate)
                data, more = image_bytes(in_srgb, format)
                return data, [*notes, f"{format} holds no colour profile: {what}", *more]
            told = [f"{format} does not hold this {NAMES[key]}: left out" for key in lost if key in NAMES]
            if "colors" in lost:
                told.append(f"{format} holds fewer colours")
            if "size" in lost:
                told.append(f"{format} does not hold {image.width} x {image.height} pixels: made smaller")
            return data, [*notes, *told]
    reason = " ".join(str(error).split())
    raise FileError(f"Expected a format for {image.mode} pictures of this size (got {format}: {reason})")


def _candidates(image: Image.Image, format: str) -> Iterator[tuple[Image.Image, list[str]]]:
    """Yield what a picture may be written as, the nearest to it first, with what there is to tell."""
    yield image, []
    has_alpha = image.mode in ("LA", "RGBA")
    if image.mode in ("L", "LA"):
        yield image.convert("RGBA" if has_alpha else "RGB"), []
    if has_alpha:
        white = Image.new("RGBA", image.size, "white")
        opaque = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
        opaque.info = dict(image.info)
        told = [f"{format} holds no transparency: composited over white"]
        if image.mode == "LA":
            yield opaque.convert("L"), told
        yield opaque, told


def _saved(image: Image.Image, format: str, left_out: tuple[str, ...]) -> bytes:
    # What some formats write unasked, they do not.
    metadata: dict[str, Any] = {"exif": b"", "xmp": b"", "icc_profile": None}
    metadata |= {key: image.info[key] for key in NAMES if key in image.info and key not in left_out}
    if metadata["xmp"] and format == "PNG":
        metadata["pnginfo"] = PngInfo()
        metadata["pnginfo"].add_itxt("XML:com.adobe.xmp", metadata["xmp"])
    elif metadata["xmp"] and format == "TIFF":
        exif = Image.Exif()
        exif.load(metadata["exif"])
        exif[XMP_TAG] = metadata["xmp"]
        metadata["exif"] = exif
    file = io.BytesIO()
    image.save(file, format=format, quality=QUALITY, **metadata)
    return file.getvalue()


def _lost(image: Image.Image, data: bytes) -> list[str]:
    """Return what of a picture is not in its file; nothing of files that Pillow only writes."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as written:
            there = {key for key in NAMES if written.info.get(key)}
            if len(written.getexif()):
                there.add("exif")
            lost = [key for key in NAMES if key in image.info and key not in there]
            if image.mode in ("LA", "RGBA") and not written.has_transparency_data:
                lost.append("transparency")
            if image.mode.startswith("RGB") and written.mode in ("1", "L", "P"):
                lost.append("colors")
            if written.size != image.size:
                lost.append("size")
            return lost
    except Exception:
        return []


def _in_srgb(image: Image.Image) -> tuple[Image.Image, str]:
    """Convert the colours of a picture, whose profile leaves its `info`; tell whether it could be used."""
    mode = image.mode.removesuffix("A")
    profile = profile_of(image, [])
    colors = image.convert(mode)
    if profile is not None and profile.to_srgb is not None:
        colors = converted(colors.convert(profile.mode), profile.to_srgb).convert(mode)
    if image.mode != mode:
        colors.putalpha(image.getchannel("A"))
    colors.info = {key: value for key, value in image.info.items() if key != "icc_profile"}
    return colors, "left out, since it is broken" if profile is None else "converted to sRGB"
