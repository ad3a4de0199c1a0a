"""Wrong files by the thousand: what a decoder makes of them."""

from __future__ import annotations

import re
import struct
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from glic_pyg import bitstream
from glic_pyg.codec import GLIC

MAX_PIXELS = 2**14
"""Of a picture that is decoded: the codec's time, not the container's, is what larger ones would measure."""


@dataclass
class Findings:
    """What came of wrong files.

    Args:
        refused: By the kind of the line that the user sees, how many.
        decoded: How many gave a picture: those in which nothing that counts was changed.
        seconds: The longest time of one.
        problems: What should not be: an input and what it did.
    """

    refused: Counter[str] = field(default_factory=Counter)
    decoded: int = 0
    seconds: float = 0.0
    problems: list[tuple[bytes, str]] = field(default_factory=list)


def wrong_file(files: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """Return a changed, cut, joined or invented file.

    Half are well formed with wrong contents; of the others three in four have a true checksum. So what comes
    behind each check is reached.

    Args:
        files: Files to start from; if none can be unpacked, nothing well formed is returned.
        rng: Draws.
    """
    if rng.random() < 0.5:
        try:
            stream = bitstream.unpack(files[rng.integers(len(files))])
        except bitstream.BitstreamError:
            pass
        else:
            return bitstream.pack(_with_wrong_contents(stream, rng))
    data = bytearray(files[rng.integers(len(files))][:-4])
    for _ in range(rng.integers(1, 5)):
        data = _changed(data, files, rng)
    checksum = struct.pack("<I", zlib.crc32(data)) if rng.random() < 0.75 else rng.bytes(4)
    return bytes(data) + checksum


def _with_wrong_contents(stream: bitstream.Bitstream, rng: np.random.Generator) -> bitstream.Bitstream:
    fields = vars(stream) | {"version": bitstream.VERSION}
    strings = list(stream.strings)
    at = int(rng.integers(len(strings))) if strings else 0
    string = bytearray(strings[at] if strings else b"")
    match rng.integers(8):
        case 0 | 1 if string:
            for _ in range(rng.integers(1, 10)):
                string[rng.integers(len(string))] = rng.integers(256)
        case 2:
            string = string[: rng.integers(len(string) + 1)]
        case 3:
            string = bytearray(rng.bytes(int(rng.integers(300))))
        case 4:
            string = bytearray([(0, 0xFF)[rng.integers(2)]]) * int(rng.integers(400))
        case 5:
            fields |= {"height": int(rng.integers(200)), "width": int(2 ** (35 * rng.random()))}
        case 6:
            fields["quality"] = int(rng.integers(5 * 256))
        case 7:
            rng.shuffle(strings)
    if strings:
        strings[at] = bytes(string)
    return bitstream.Bitstream(**fields | {"strings": tuple(strings)})


def _changed(data: bytearray, files: Sequence[bytes], rng: np.random.Generator) -> bytearray:
    # Most of a file are coded strings; half of the changes are where the header is.
    end = len(data) if rng.random() < 0.5 else min(len(data), 40)
    at = int(rng.integers(end)) if end else 0
    match rng.integers(8):
        case 0 if data:
            data[at] ^= 1 << int(rng.integers(8))
        case 1 if data:
            data[at] = (0, 1, 0x7F, 0x80, 0xFF)[rng.integers(5)]
        case 2:
            del data[at:]
        case 3:
            data[at:at] = rng.bytes(int(rng.integers(1, 20)))
        case 4:
            del data[at : at + int(rng.integers(1, 20))]
        case 5:
            other = files[rng.integers(len(files))]
            data[at:] = other[int(rng.integers(len(other))) : -4]
        case 6:
            data[at : at + 5] = b"\xff\xff\xff\xff\x0f"  # the largest number
        case 7:
            data = bytearray(b"GLIC" + bytes([rng.integers(5)]) + rng.bytes(int(rng.integers(200))))
    return data


def try_file(model: GLIC, data: bytes, findings: Findings, *, seconds_bound: float) -> None:
    """Decode a file and add what comes of it.

    Args:
        model: The model that true files were made with.
        data: The file.
        findings: Is added to.
        seconds_bound: To take longer is a problem.
    """
    begin = time.perf_counter()
    try:
        bitstream.decode(model, data, max_pixels=MAX_PIXELS)
    except bitstream.BitstreamError as error:
        line = str(error)
        if "\n" in line or not line.startswith("Expected "):
            findings.problems.append((data, f"no line for a user: {line!r}"))
        else:
            findings.refused[_kind(line)] += 1
    except Exception as error:  # what a fuzzer is for
        findings.problems.append((data, repr(error)))
    else:
        findings.decoded += 1
    seconds = time.perf_counter() - begin
    if seconds > seconds_bound:
        findings.problems.append((data, f"{seconds:.1f} s"))
    findings.seconds = max(findings.seconds, seconds)


def _kind(line: str) -> str:
    """Leave out numbers, names and what came, so that lines of one kind are alike."""
    words = line.split(" (got ")[0].split()
    return " ".join("N" if re.search(r"\d|^[0-9a-f]{8}$", word) else word for word in words)
