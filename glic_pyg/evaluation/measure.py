"""Codecs over pictures: a row of figures for each file, and their means in CompressAI's layout."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import statistics
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from glic_pyg.errors import FileError, UserError, interruption
from glic_pyg.evaluation.codecs import DEFAULT, Codec, Options, load_codec
from glic_pyg.evaluation.complexity import peak_memory
from glic_pyg.files import csv_text, naming, read_file, write_file
from glic_pyg.image import read_image
from glic_pyg.ledger import hash_bytes
from glic_pyg.metrics import LEAST_SIDE, bpp, decibels, ms_ssim, psnr, psnr_unrounded
from glic_pyg.picture import ImageError, most_bytes

Key = tuple[str, str, str, str]
"""Codec, hash of its settings, quality and picture of a row."""


CHECK = "picture_sha256"
MOST_BYTES = 1 << 30
"""Of a table."""


@dataclass(frozen=True)
class Row:
    """The figures of one file.

    Args:
        codec: Name of the codec.
        settings: Hash of its settings.
        quality: As the codec counts it; NaN for a codec of one quality.
        picture: Path of the picture.
        picture_sha256: Of the picture's file, hexadecimal.
        bpp: Bits per pixel of the file, every byte counted.
        payload_bpp: Without container and checksums.
        estimated_bpp: What the entropy model expected.
        psnr: Of 8-bit pictures over all channels, in dB.
        psnr_unrounded: Of the restored picture before rounding, in dB.
        ms_ssim: Of 8-bit pictures.
        encoding_seconds: From the decoded picture to the file's bytes.
        decoding_seconds: From the bytes to the picture.
        encoding_bytes: By which the process grew at most; NaN where the system does not tell.
        decoding_bytes: By which the process grew at most; NaN where the system does not tell.
    """

    codec: str
    settings: str
    quality: float
    picture: str
    picture_sha256: str
    bpp: float
    payload_bpp: float
    estimated_bpp: float
    psnr: float
    psnr_unrounded: float
    ms_ssim: float
    encoding_seconds: float
    decoding_seconds: float
    encoding_bytes: float
    decoding_bytes: float

    @property
    def key(self) -> Key:
        """What tells rows apart."""
        return self.codec, self.settings, repr(self.quality), self.picture


@dataclass(frozen=True)
class Task:
    """A file to make.

    Args:
        codec: As `load_codec` takes it.
        quality: One of the codec's, or one between; None for a codec of one quality.
        picture: To compress.
        options: See `load_codec`.
    """

    codec: str
    quality: float | None
    picture: Path
    options: Options = DEFAULT

    def key(self, codec: Codec) -> Key:
        """Return the key that its row will have."""
        quality = math.nan if self.quality is None else float(self.quality)
        return codec.name, settings_hash(codec.settings), repr(quality), self.picture.as_posix()


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return a short hash of whatever changes a codec's files."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


cached_codec = cache(load_codec)
"""Loads a codec, once per process."""


@cache
def warm(codec: Codec) -> None:
    """Let a codec compile what it compiles, once per process."""
    codec.warm()


def measure(task: Task) -> Row:
    """Compress a picture, restore it, and compare."""
    codec = cached_codec(task.codec, task.options)
    warm(codec)
    photo = read_file(task.picture, most_bytes())
    digest, x = hash_bytes(photo.getvalue()), read_image(photo)
    with peak_memory() as encoding:
        start = time.perf_counter()
        data = codec.encode(x, task.quality)
        encoding_seconds = time.perf_counter() - start
    with peak_memory() as decoding:
        start = time.perf_counter()
        x_hat = codec.decode(data)
        decoding_seconds = time.perf_counter() - start
    pixels = x[0, 0].numel()
    name, settings, _, picture = task.key(codec)
    return Row(
        codec=name,
        settings=settings,
        quality=math.nan if task.quality is None else float(task.quality),
        picture=picture,
        picture_sha256=digest,
        bpp=bpp(data, x),
        payload_bpp=8 * codec.payload(data) / pixels,
        estimated_bpp=codec.estimate(x, task.quality) / pixels,
        psnr=psnr(x, x_hat),
        psnr_unrounded=psnr_unrounded(x, x_hat),
        ms_ssim=ms_ssim(x, x_hat),
        encoding_seconds=encoding_seconds,
        decoding_seconds=decoding_seconds,
        encoding_bytes=encoding["bytes"],
        decoding_bytes=decoding["bytes"],
    )


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Args:
        task: The task.
        row: Its figures; None where it failed.
        error: Why it failed, in a line.
        warnings: What there is to tell of the picture.
    """

    task: Task
    row: Row | None
    error: str
    warnings: tuple[str, ...]


def attempt(task: Task) -> Outcome:
    """Measure a file; whatever goes wrong is its outcome, so that one picture does not end all others."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        row, error = None, ""
        try:
            row = measure(task)
        except ImageError as reason:
            error = str(reason)
        except Exception as reason:  # codecs of libraries raise nearly anything
            if ended := interruption(reason):
                raise ended from None
            text = " ".join(str(reason).split()) or "no reason told"
            if not isinstance(reason, UserError | ValueError | OSError):
                text = f"{type(reason).__name__}: {text}"
            error = f"Expected a file of {task.picture} by {task.codec}{_quality_text(task)} (got {text})"
    return Outcome(task, row, error, tuple(str(warning.message) for warning in told))


def _quality_text(task: Task) -> str:
    return "" if task.quality is None else f", quality {task.quality:g}"


class Table:
    """Rows in a CSV file that grows one by one, so that an interrupted evaluation goes on where it was.

    Args:
        path: The file; it need not be there.

    Raises:
        FileError: it is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[Key, Row] = {}
        kinds = get_type_hints(Row)
        if not path.exists():
            return
        try:
            text = read_file(path, MOST_BYTES).getvalue().decode("utf-8", "surrogateescape")
            whole = [line for line in io.StringIO(text, newline="") if line.endswith("\n")]  # it was killed
            # Earlier versions wrote no hash: what they measured is measured again.
            for line in csv.DictReader(whole):
                row = Row(**{name: kind(({CHECK: ""} | line)[name]) for name, kind in kinds.items()})
                self.rows[row.key] = row
            if whole and not self.rows and whole[0].strip() != ",".join(kinds):
                raise ValueError("other columns")
        except (OSError, ValueError, TypeError, KeyError, csv.Error, FileError) as error:
            raise FileError(f"Expected a table of this tool (got {path}: {error!r})") from error

    def begin(self, digests: Mapping[str, str]) -> None:
        """Write the file anew, without rows of pictures that are others by now.

        Args:
            digests: SHA-256 of pictures by their paths.
        """
        self.rows = {
            key: row
            for key, row in self.rows.items()
            if digests.get(row.picture, row.picture_sha256) == row.picture_sha256
        }
        columns = [field.name for field in fields(Row)]
        write_file(self.path, csv_text(columns, map(asdict, self.rows.values())))

    def add(self, row: Row) -> None:
        """Append a row to the file."""
        self.rows[row.key] = row
        line = csv_text(list(asdict(row)), [asdict(row)]).split("\n", 1)[1]
        with naming(self.path), self.path.open("ab") as file:
            file.write(line.encode("utf-8", "surrogateescape"))

    def rows_of(self, means: Mapping[str, Any]) -> list[Row]:
        """Return the rows behind `results`, without those of the codec's other settings or weights.

        Results that another tool wrote tell no settings, and have no rows.
        """
        wanted = means["name"], settings_hash(means.get("settings", {}))
        return [row for row in self.rows.values() if (row.codec, row.settings) == wanted]


def _mean(values: Sequence[float]) -> float | None:
    """Return the mean of the values that are not NaN; None where there are none, or it is infinite."""
    told = [value for value in values if not math.isnan(value)]
    mean = statistics.fmean(told) if told else math.inf
    return mean if math.isfinite(mean) else None


def notes(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return lines to read beside the columns of `results`: which means are not of all pictures, or none."""
    lines, exactly = [], []
    counts = (columns.get(name, ()) for name in ("quality", "pictures", "ms-ssim-pictures", "exact-pictures"))
    for quality, pictures, large, exact in zip(*counts, strict=False):
        if None in (pictures, large, exact):  # another tool's
            continue
        if 0 < large < pictures:
            lines.append(
                f"MS-SSIM is of {large} of {pictures} pictures: others have sides below {LEAST_SIDE}"
            )
        if exact:
            at = "" if quality is None else f" at quality {quality:g}"
            exactly.append(f"{exact} of {pictures}{at}")
    if exactly:
        lines.append(f"PSNR has no mean where pictures are restored exactly: {', '.join(exactly)}")
    return list(dict.fromkeys(lines))


def digest_of(pictures: Iterable[str]) -> str:
    """Return what tells sets of pictures apart, of the hashes of their files in any order."""
    return hashlib.sha256("\n".join(sorted(set(pictures))).encode()).hexdigest()


def results(
    name: str, codec: Codec, rows: Sequence[Row], *, description: str, command: str
) -> dict[str, Any]:
    """Return the means over the pictures, a value per quality, as CompressAI lays out its results.

    MS-SSIM is the mean of the pictures that are large enough for it, `ms-ssim-pictures` of `pictures`. PSNR
    has no mean, None, where some are restored exactly, `exact-pictures`.

    Args:
        name: As `load_codec` takes it.
        codec: The codec.
        rows: Its rows, of the same pictures at every quality.
        description: What was measured.
        command: That measured it.
    """
    # By their texts: NaN does not equal itself.
    qualities = sorted({repr(row.quality) for row in rows}, key=float)
    of_quality = [[row for row in rows if repr(row.quality) == quality] for quality in qualities]

    def means(name: str) -> list[float | None]:
        return [_mean([getattr(row, name) for row in some]) for some in of_quality]

    return {
        "name": codec.name,
        "description": description,
        "command": command,
        "pictures_sha256": digest_of(row.picture_sha256 for row in rows),
        "codec": name,
        "settings": codec.settings,
        "results": {
            "quality": [None if math.isnan(q) else q for q in map(float, qualities)],
            "pictures": [len(some) for some in of_quality],
            "bpp": means("bpp"),
            "psnr-rgb": means("psnr"),
            "ms-ssim-rgb": means("ms_ssim"),
            "ms-ssim-db-rgb": [_mean([decibels(row.ms_ssim) for row in some]) for some in of_quality],
            "ms-ssim-pictures": [sum(not math.isnan(row.ms_ssim) for row in some) for some in of_quality],
            "exact-pictures": [sum(row.psnr == math.inf for row in some) for some in of_quality],
            "payload-bpp": means("payload_bpp"),
            "estimated-bpp": means("estimated_bpp"),
            "psnr-rgb-unrounded": means("psnr_unrounded"),
            "encoding_time": means("encoding_seconds"),
            "decoding_time": means("decoding_seconds"),
            "encoding_memory": means("encoding_bytes"),
            "decoding_memory": means("decoding_bytes"),
        },
    }
