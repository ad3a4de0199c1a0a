"""What may be read in place of a PNG or JPEG file that cannot be read, though its pixels are sound."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

MOST_BYTES = 1 << 30
"""Of a file that is mended: it is held as a whole."""

METADATA, USEFUL, TRANSPARENCY, PIXELS = range(4)
"""Kinds of parts of a file; useful are colour profile and EXIF's orientation."""
LEFT_OUT = {
    "metadata": (METADATA,),
    "metadata or profile": (METADATA, USEFUL),
    "transparency": (METADATA, TRANSPARENCY),
    "metadata, profile or transparency": (METADATA, USEFUL, TRANSPARENCY),
}
"""Kinds that are left out together, with what to call them."""

KINDS = dict.fromkeys((b"IHDR", b"PLTE", b"IDAT", b"IEND"), PIXELS) | {
    b"tRNS": TRANSPARENCY,
    b"iCCP": USEFUL,
    b"eXIf": USEFUL,
}
"""Of a PNG file's chunks; all others are metadata."""

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of a PNG file's colour types."""
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of an interlaced PNG file's passes, and their steps."""
BYTES_AT_ONCE = 1 << 20

JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
JPEG_END = b"\xff\xd9"
JPEG_SCAN = 0xDA


def mended(path: str | Path | io.BytesIO) -> Iterator[tuple[str, bytes]]:
    """Yield what to tell of a file, and the bytes to read in its place; the least change comes first.

    A JPEG file that lacks its end marker gets one, if its scans are whole. Metadata is left out, at first all
    but profile and EXIF; then a PNG file's transparent colours.
    """
    data = _whole(path)
    if data.startswith(PNG):
        parts = list(_png_parts(data))
    elif data.startswith(JPEG):
        parts = list(_jpeg_parts(data))
        if _lacks_only_its_end(b"".join(part for kind, part in parts if kind == PIXELS)):
            yield "lacks its end marker: read nonetheless", data.rstrip(b"\xff") + JPEG_END
    else:
        return
    there = {kind for kind, _ in parts}
    for name, kinds in LEFT_OUT.items():
        if kinds[-1] in there:
            kept = b"".join(part for kind, part in parts if kind not in kinds)
            yield f"has broken {name}: left out", kept


def lacks_rows(path: str | Path | io.BytesIO) -> bool:
    """Return whether a PNG or JPEG file that can be read has less data than pixels.

    Pillow takes zeros for those of a PNG file, grey for those of a JPEG file in one scan. What the last scans
    of a progressive file may lack is not noticed.
    """
    data = _whole(path)
    if data.startswith(JPEG):
        ends = (start for marker, start, _ in _segments(data) if marker == JPEG_END[1])
        return _reads_beyond(data[: next(ends, len(data))])
    if not data.startswith(PNG):
        return False
    width, height, depth, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, len(PNG) + 8)
    left = 0
    for x, y, x_step, y_step in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        columns, rows = -((x - width) // x_step), -((y - height) // y_step)
        if columns > 0 and rows > 0:
            left += rows * (1 + (columns * depth * CHANNELS[color] + 7) // 8)
    unpacked = zlib.decompressobj()
    for _, part in _png_parts(data):
        if part[4:8] == b"IDAT":
            packed = part[8:-4]
            while packed and left > 0:
                left -= len(unpacked.decompress(packed, BYTES_AT_ONCE))
                packed = unpacked.unconsumed_tail
    return left - len(unpacked.flush()) > 0


def _whole(path: str | Path | io.BytesIO) -> bytes:
    """Return the bytes of a file that may be held as a whole; none of others."""
    if isinstance(path, io.BytesIO):
        return path.getvalue()
    if Path(path).is_file() and Path(path).stat().st_size <= MOST_BYTES:
        return Path(path).read_bytes()
    return b""


def _png_parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split a PNG file into chunks; PNG specification, 5.3."""
    yield PIXELS, PNG
    at = len(PNG)
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        yield KINDS.get(name, METADATA), data[at : at + 12 + length]
        at += 12 + length
    yield PIXELS, data[at:]


def _jpeg_parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split a JPEG file into the segments before its first scan, and the rest."""
    yield PIXELS, JPEG
    at = len(JPEG)
    for marker, start, end in _segments(data):
        if marker == JPEG_SCAN:
            break
        content = data[start + 4 : end]
        is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        says_color_transform = marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12
        is_useful = content.startswith((b"Exif\0\0", b"ICC_PROFILE\0"))
        kind = PIXELS if not is_metadata or says_color_transform else USEFUL if is_useful else METADATA
        yield kind, data[at:end]
        at = end
    yield PIXELS, data[at:]


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of a JPEG file's segments, those between scans too; ITU-T T.81, B.1.1.

    The end marker is the last one.
    """
    at = data.find(b"\xff", len(JPEG))
    while 0 <= at < len(data) - 1:
        marker, end = data[at + 1], at + 2
        if marker == JPEG_END[1]:
            yield marker, at, end
            return
        if marker not in (0x00, 0xFF) and not 0xD0 <= marker <= 0xD8:  # those stand alone, or are no markers
            if end > len(data) - 2:
                return
            end += struct.unpack_from(">H", data, end)[0]
            yield marker, at, end
        at = data.find(b"\xff", at + 1 if marker == 0xFF else end)


def _lacks_only_its_end(data: bytes) -> bool:
    """Return whether a JPEG file lacks its end marker, and nothing else."""
    data = data.rstrip(b"\xff")  # the half of a marker
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except OSError:
        try:
            return not _reads_beyond(data) and _has_all_scans(data)
        except Exception:  # Pillow's plugins raise nearly anything on damaged files
            return False
    return False


def _reads_beyond(data: bytes) -> bool:
    """Return whether a JPEG file without its end marker has less data than pixels.

    For pixels that are missing, a decoder takes bits from whatever follows; for none, it does not matter.
    """
    noise = random.Random(0).randbytes(1 << 12).replace(b"\xff", b"").replace(b"\0", b"")
    opposite = bytes(255 - byte for byte in noise)
    ends = {Image.open(io.BytesIO(data + rest + JPEG_END)).tobytes() for rest in (b"", noise, opposite)}
    return len(ends) > 1


def _has_all_scans(data: bytes) -> bool:
    """Return whether a JPEG file's scans tell every coefficient to its last bit; ITU-T T.81, B.2 and G.1."""
    missing: set[tuple[int, int]] = set()
    for marker, start, end in _segments(data):
        content = data[start + 4 : end]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            missing = {(component, k) for component in content[6::3] for k in range(64)}
        elif marker == JPEG_SCAN:
            count = content[0]
            first, last, bits = content[1 + 2 * count : 4 + 2 * count]
            if bits & 15 == 0:
                components = content[1 : 1 + 2 * count : 2]
                missing -= {(component, k) for component in components for k in range(first, last + 1)}
    return not missing
