"""The .glic file: a picture's coded strings in a container that notices damage.

    magic     4 bytes   "GLIC"
    version   1 byte    3, or 4 of a file that has what 3 cannot hold
    identity  8 bytes   of the model, see `glic_pyg.identity`
    quality   varint    in 256ths; 0 for a model of one quality; not in version 1, which is of such models
    height    varint    of the picture in pixels
    width     varint
    channels  1 byte    1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; from version 4 on, 3 before
    latents   4 bytes   CRC-32 of the encoder's y_hat, float32, little-endian
    count     1 byte    of the strings; from version 4 on, before they go on to the checksum
    strings   each a varint, its length in bytes, and the bytes
    chunks    each a name of 4 bytes, a varint, its length in bytes, and the bytes; from version 4 on
    checksum  4 bytes   CRC-32 of all before, little-endian

Varints have 7 bits per byte, low bits first, the high bit set on all but the last byte. The decoder's y_hat
must have the checksum of the encoder's: of versions 1 and 2, whose probabilities were computed in floating
point, another machine's decoder may have others, and must not show a garbled picture without a word.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from glic_pyg.config import HYPER_STRIDE, MAX_GROUPS
from glic_pyg.errors import UserError
from glic_pyg.limits import MAX_METADATA_BYTES

MAGIC = b"GLIC"
VERSION = 4
PLAIN_VERSION = 3
"""That of files of RGB pictures without chunks, so that older readers take them."""
QUALITY_STEPS = 256
"""Qualities told apart between two whole ones."""
MAX_STRINGS = 2 * MAX_GROUPS + 1
"""Of any model."""
BYTES_PER_PIXEL = 16
"""More than in any file: one of `glic.yaml` whose symbols are all escaped, at their longest, has 10, and an
alpha channel that cannot be compressed has 2."""
HEAD_BYTES = 64
"""In which all is that comes before the strings."""

GREY, RGB, WITH_ALPHA = 1, 3, (2, 4)
"""Numbers of channels."""
ALPHA, EXIF, XMP, ICC = "ALPH", "EXIF", "XMP ", "ICCP"
"""Names of chunks: a PNG file of 8-bit grey; TIFF's structure; XML; a profile."""
MAX_CHUNKS = 64
"""Of a file; but for alpha they have at most `MAX_METADATA_BYTES` together."""


class BitstreamError(UserError, ValueError):
    """A .glic file that cannot be decoded; the message is one line for the user."""


class _CutShort(BitstreamError):
    pass


class Head(NamedTuple):
    """What a .glic file says first.

    Args:
        version: Of the format. Since version 3, probabilities are computed exactly.
        identity: Of the model, 8 bytes.
        quality: In 256ths; 0 for a model of one quality.
        height: Of the picture in pixels.
        width: Of the picture in pixels.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    """

    version: int
    identity: bytes
    quality: int
    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class Bitstream:
    """What a .glic file says.

    Args:
        identity: See `Head`.
        quality: See `Head`.
        height: See `Head`.
        width: See `Head`.
        latent_checksum: CRC-32 of y_hat.
        strings: Coded bytes, in coding order.
        version: See `Head`.
        channels: See `Head`.
        chunks: What else is in the file, by names of 4 printable ASCII characters.
    """

    identity: bytes
    quality: int
    height: int
    width: int
    latent_checksum: int
    strings: tuple[bytes, ...]
    version: int = PLAIN_VERSION
    channels: int = RGB
    chunks: Mapping[str, bytes] = field(default_factory=dict)


def pack(stream: Bitstream) -> bytes:
    """Return the bytes of a .glic file.

    Raises:
        ValueError: a stream of an older version; those are only read. Or one that has channels or chunks
            which its version cannot hold.
        BitstreamError: `unpack` would refuse them.
    """
    if not PLAIN_VERSION <= stream.version <= VERSION:
        raise ValueError(
            f"Expected a stream of version {PLAIN_VERSION}..{VERSION} to write (got {stream.version})"
        )
    has_more = stream.version > PLAIN_VERSION
    if not has_more and (stream.channels != RGB or stream.chunks):
        raise ValueError(f"Expected RGB without chunks in version {PLAIN_VERSION} (got more)")
    _check_chunks(stream.channels, stream.chunks)
    data = bytearray(MAGIC)
    data.append(stream.version)
    data += stream.identity
    data += _varint(stream.quality)
    data += _varint(stream.height) + _varint(stream.width)
    if has_more:
        data.append(stream.channels)
    data += stream.latent_checksum.to_bytes(4, "little")
    if has_more:
        data.append(len(stream.strings))
    for string in stream.strings:
        data += _varint(len(string)) + string
    for name, content in stream.chunks.items():
        data += name.encode("ascii") + _varint(len(content)) + content
    return bytes(data) + zlib.crc32(data).to_bytes(4, "little")


def unpack(data: bytes) -> Bitstream:
    """Read the bytes of a .glic file.

    Raises:
        BitstreamError: not a .glic file, damaged, of another version, or with more strings than any model's.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise BitstreamError(f"Expected the bytes of a .glic file (got {type(data).__name__})")
    reader, version = _begin(data, memoryview(data)[:-4])
    checksum, computed = int.from_bytes(data[-4:], "little"), zlib.crc32(memoryview(data)[:-4])
    if checksum != computed:
        raise BitstreamError(f"Expected checksum {computed:08x} (got {checksum:08x}): damaged or cut short")
    head = _head(reader, version)
    latent_checksum = int.from_bytes(reader.take(4), "little")
    count = reader.take(1)[0] if version > PLAIN_VERSION else None
    strings: list[bytes] = []
    while len(strings) != count if count is not None else not reader.at_end():
        if len(strings) == MAX_STRINGS:
            raise BitstreamError(f"Expected at most {MAX_STRINGS} strings (got more): damaged")
        strings.append(reader.take(reader.number()))
    chunks: dict[str, bytes] = {}
    while not reader.at_end() and len(chunks) <= MAX_CHUNKS:
        name = reader.take(4).decode("latin-1")
        if name in chunks:
            raise BitstreamError(f"Expected one chunk {name!r} (got two): damaged")
        chunks[name] = reader.take(reader.number())
    _check_chunks(head.channels, chunks)
    identity, quality, height, width = head[1:5]
    return Bitstream(
        identity, quality, height, width, latent_checksum, tuple(strings), version, head.channels, chunks
    )


def unpack_head(start: bytes) -> Head | None:
    """Return what a file says that begins so, with `HEAD_BYTES` or more; None of too short a beginning.

    Raises:
        BitstreamError: not a .glic file, of another version, or with other channels than there are.
    """
    reader, version = _begin(start, memoryview(start))
    try:
        return _head(reader, version)
    except _CutShort:  # `unpack` tells more of what is so short
        return None


def most_bytes(start: bytes) -> int:
    """Return the most bytes of a file that begins so: many for the size of its picture.

    Raises:
        BitstreamError: see `unpack_head`.
    """
    head = unpack_head(start)
    if head is None:
        return len(start)
    of_picture = BYTES_PER_PIXEL * (head.height + HYPER_STRIDE) * (head.width + HYPER_STRIDE)
    return of_picture + (MAX_METADATA_BYTES + 10 * MAX_CHUNKS if head.version > PLAIN_VERSION else 0)


def _begin(data: bytes, content: memoryview) -> tuple[_Reader, int]:
    """Return a reader of what follows a file's version, and the version."""
    if data[: len(MAGIC)] != MAGIC:
        raise BitstreamError(f"Expected a .glic file (got one that starts with {data[: len(MAGIC)]!r})")
    reader = _Reader(content[len(MAGIC) :])
    version = reader.take(1)[0]
    if not 1 <= version <= VERSION:
        newer = ": a newer glic_pyg made it" if version > VERSION else ""
        raise BitstreamError(f"Expected format version 1..{VERSION} (got {version}{newer})")
    return reader, version


def _head(reader: _Reader, version: int) -> Head:
    identity = reader.take(8)
    quality = reader.number() if version > 1 else 0
    height, width = reader.number(), reader.number()
    channels = reader.take(1)[0] if version > PLAIN_VERSION else RGB
    if channels not in (GREY, RGB, *WITH_ALPHA):
        raise BitstreamError(f"Expected 1 to 4 channels (got {channels}): damaged")
    return Head(version, identity, quality, height, width, channels)


def _check_chunks(channels: int, chunks: Mapping[str, bytes]) -> None:
    """Refuse chunks that are too many, too long, without a name, or not of a picture of so many channels."""
    if len(chunks) > MAX_CHUNKS:
        raise BitstreamError(f"Expected at most {MAX_CHUNKS} chunks (got more): damaged")
    for name in chunks:
        if not (len(name) == 4 and name.isascii() and name.isprintable()):
            raise BitstreamError(f"Expected a chunk's name of 4 characters (got {name!r}): damaged")
    if sum(len(content) for name, content in chunks.items() if name != ALPHA) > MAX_METADATA_BYTES:
        raise BitstreamError(f"Expected chunks of at most {MAX_METADATA_BYTES} bytes (got more): damaged")
    if (channels in WITH_ALPHA) != (ALPHA in chunks):
        raise BitstreamError(
            f"Expected a chunk {ALPHA} with 2 or 4 channels, and with no others (got {channels} channels)"
        )


class _Reader:
    """Takes values off the front of some bytes."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0

    def at_end(self) -> bool:
        return self.position == len(self.data)

    def take(self, count: int) -> bytes:
        start, self.position = self.position, self.position + count
        if self.position > len(self.data):
            raise _CutShort(
                f"Expected {self.position} bytes and a checksum (got {len(self.data)}): cut short"
            )
        return bytes(self.data[start : self.position])

    def number(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise BitstreamError("Expected a number of at most 5 bytes (got more): damaged")


def _varint(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
