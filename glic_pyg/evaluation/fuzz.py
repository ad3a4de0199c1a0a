"""Wrong inputs by the thousand: each has to be taken, or refused in a line, soon and in little memory."""

from __future__ import annotations

import csv
import io
import json
import math
import multiprocessing
import re
import shutil
import struct
import tempfile
import time
import weakref
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glic_pyg import bitstream
from glic_pyg.codec import GLIC
from glic_pyg.errors import UserError
from glic_pyg.image import write_png

MAX_PIXELS = 2**14
"""Of a picture that is decoded: the codec's time, not the container's, is what larger ones would measure."""
START_SECONDS = 300
"""Within which a child has made its target."""
TRUE_FILES = Path(__file__).parents[2] / "tests" / "golden" / "files"


@dataclass(frozen=True)
class Target:
    """Something that takes inputs from outside.

    Args:
        true: Inputs to start from.
        wrong: Makes another of them.
        take: Takes one; a wrong one is refused by an error of `allowed`, whose line begins with `Expected `.
        allowed: Errors.
        suffix: Of files with inputs.
    """

    true: Sequence[bytes]
    wrong: Callable[[Sequence[bytes], np.random.Generator], bytes]
    take: Callable[[bytes], object]
    allowed: tuple[type[UserError], ...]
    suffix: str


@dataclass
class Findings:
    """What came of wrong inputs.

    Args:
        refused: By the kind of the line that the user sees, how many.
        taken: How many were not refused: those in which nothing that counts was changed.
        seconds: The longest time of one.
        memory: Bytes by which a process grew at most.
        problems: What should not be: an input and what it did.
    """

    refused: Counter[str] = field(default_factory=Counter)
    taken: int = 0
    seconds: float = 0.0
    memory: int = 0
    problems: list[tuple[bytes, str]] = field(default_factory=list)


def attempt(target: Target, data: bytes, findings: Findings, *, seconds: float) -> None:
    """Give a target an input and add what comes of it.

    Args:
        target: The target.
        data: The input.
        findings: Is added to.
        seconds: To take longer is a problem.
    """
    begin = time.perf_counter()
    try:
        target.take(data)
    except target.allowed as error:
        line = str(error)
        if "\n" in line or not line.startswith("Expected "):
            findings.problems.append((data, f"no line for a user: {line!r}"))
        else:
            findings.refused[_kind(line)] += 1
    except Exception as error:  # what a fuzzer is for
        findings.problems.append((data, repr(error)))
    else:
        findings.taken += 1
    took = time.perf_counter() - begin
    if took > seconds:
        findings.problems.append((data, f"{took:.1f} s"))
    findings.seconds = max(findings.seconds, took)


def wrong_input(target: Target, seed: int, number: int) -> bytes:
    """Return one of a target's wrong inputs; it depends on seed and number alone."""
    return target.wrong(target.true, np.random.default_rng((seed, number)))


def try_target(
    name: str,
    inputs: int,
    *,
    seed: int,
    seconds: float,
    memory: int,
    progress: Callable[[int], object] = lambda count: None,
) -> Findings:
    """Give a target its wrong inputs, in a process of its own; where that dies, the next one goes on.

    Args:
        name: One of `TARGETS`.
        inputs: How many.
        seed: Of the inputs.
        seconds: For one input; who takes ten times as long is killed.
        memory: Bytes by which the process may grow.
        progress: Is told the number of inputs that are through.
    """
    findings, number = Findings(), 0
    context = multiprocessing.get_context("spawn")
    while number < inputs:
        ours, theirs = context.Pipe()
        job = (name, number, inputs, seed, seconds, memory, theirs)
        child = context.Process(target=_work, args=job, daemon=True)
        child.start()
        theirs.close()
        patience = START_SECONDS
        try:
            while number < inputs or patience == START_SECONDS:
                if not ours.poll(patience):
                    raise TimeoutError(f"more than {patience:g} s")
                part = ours.recv()
                patience = 10 * seconds
                if part is None:  # has begun
                    continue
                _add(findings, part)
                number += 1
                progress(number)
        except (EOFError, TimeoutError) as error:
            child.kill()
            child.join()
            if patience == START_SECONDS:
                raise RuntimeError(f"Expected target {name} to be made (got {error!r})") from error
            what = str(error) or f"the process ended with {child.exitcode}"
            findings.problems.append((wrong_input(TARGETS[name](), seed, number), what))
            number += 1
            progress(number)
        finally:
            ours.close()
            child.join(10)
            child.kill()
    return findings


def _add(findings: Findings, part: Findings) -> None:
    findings.refused += part.refused
    findings.taken += part.taken
    findings.seconds = max(findings.seconds, part.seconds)
    findings.memory = max(findings.memory, part.memory)
    findings.problems += part.problems


def _work(
    name: str, first: int, last: int, seed: int, seconds: float, memory: int, connection: Connection
) -> None:
    torch.set_num_threads(1)
    target = TARGETS[name]()
    for data in target.true:
        attempt(target, data, Findings(), seconds=seconds)  # compiles, and fills caches
    import resource  # not on Windows

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + memory, resource.RLIM_INFINITY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection.send(None)
    for number in range(first, last):
        findings = Findings()
        attempt(target, wrong_input(target, seed, number), findings, seconds=seconds)
        findings.memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        connection.send(findings)


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


def file_target() -> Target:
    """Return the decoder of .glic files."""
    model = GLIC.from_pretrained(TRUE_FILES / "of_2.safetensors")
    files = [(TRUE_FILES / f"version_{version}.glic").read_bytes() for version in (1, 2, 3)]
    x = torch.rand(1, 3, 80, 130, generator=torch.Generator().manual_seed(0))
    for height, width, quality in [(1, 1, 1), (80, 130, 3.7)]:
        files.append(bitstream.encode(model, x[..., :height, :width], quality))

    def decode(data: bytes) -> None:
        bitstream.decode(model, data, max_pixels=MAX_PIXELS)

    return Target(files, wrong_file, decode, (bitstream.BitstreamError,), ".glic")


def results_target() -> Target:
    """Return the reader of results, with what is made of them: curves, deltas and a report."""
    from glic_pyg.evaluation.bd import Curve, CurveError, delta
    from glic_pyg.evaluation.report import build_report
    from glic_pyg.evaluation.results import read_results

    columns = {
        "quality": [1, 2, 3, 4, 5],
        "bpp": [0.1, 0.2, 0.4, 0.8, 1.6],
        "psnr-rgb": [28.0, 30.0, 32.0, 34.0, 36.0],
        "ms-ssim-rgb": [0.9, 0.95, 0.975, 0.99, 0.995],
        "pictures": [24] * 5,
        "ms-ssim-pictures": [24, 20, 1, 24, 24],
        "exact-pictures": [0, 0, 0, 0, 1],
        "encoding_time": [0.5] * 5,
    }
    about = {"name": "a", "description": "b", "command": "c", "codec": "d", "settings": {"identity": "e"}}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    old = {"bpp": columns["bpp"], "psnr": columns["psnr-rgb"], "ms-ssim": columns["ms-ssim-rgb"]}
    true = [about | {"results": columns}, about | {"results": rows}, columns, {"results": old}]
    path = _temporary() / "results.json"

    def take(data: bytes) -> None:
        path.write_bytes(data)
        results = read_results(path)
        refused = None
        for metric in ("psnr-rgb", "ms-ssim-rgb", "ms-ssim-db-rgb"):
            try:
                curve = Curve.of("test", results["results"], metric=metric)
                delta(curve, curve, method="pchip")
            except CurveError as error:
                refused = error
        build_report(
            title="", command="", results=[results], comparisons=[], figures={}, complexity=[], pictures={}
        )
        if refused is not None:
            raise refused

    return Target([json.dumps(content).encode() for content in true], wrong_json, take, (UserError,), ".json")


def manifest_target() -> Target:
    """Return the reader of manifests; what it returns must lie in the data set's folder."""
    from glic_pyg.training import manifest

    folder = _temporary()
    pictures = [folder / "photos" / "a.png", folder / "photos" / "sub" / "b.png"]
    for i, picture in enumerate(pictures):
        write_png(torch.full((1, 3, 8, 9), i / 2), picture)
    shutil.copy(pictures[0], folder)  # ../a.png has the very bytes, and is beyond
    folders = {"": folder / "photos"}
    path = folder / "manifest.csv"
    manifest.write(manifest.describe(pictures, folders=folders), path)

    def take(data: bytes) -> None:
        path.write_bytes(data)
        for picture in manifest.check(path, folders=folders):
            assert picture.resolve().is_relative_to((folder / "photos").resolve()), picture

    return Target([path.read_bytes()], wrong_csv, take, (UserError,), ".csv")


def table_target() -> Target:
    """Return the reader of an evaluation's rows."""
    from glic_pyg.evaluation.measure import Row, Table
    from glic_pyg.files import csv_text

    row = Row("a", "b", 1.0, "c.png", "d", 0.5, 0.5, 0.5, 30.0, 30.0, math.nan, 0.1, 0.1, 10, 10)
    true = csv_text(list(asdict(row)), [asdict(row), asdict(row) | {"picture": "e.png"}])
    path = _temporary() / "pictures.csv"

    def take(data: bytes) -> None:
        path.write_bytes(data)
        table = Table(path)
        table.rows_of({"name": "a", "settings": {}})
        table.begin({"c.png": "d"})

    return Target([true.encode()], wrong_csv, take, (UserError,), ".csv")


TARGETS: dict[str, Callable[[], Target]] = {
    "file": file_target,
    "results": results_target,
    "manifest": manifest_target,
    "table": table_target,
}
"""By name, what makes a target."""


def _temporary() -> Path:
    """Return a folder that is removed at the end of the process."""
    folder = Path(tempfile.mkdtemp())
    weakref.finalize(_temporary, shutil.rmtree, folder, ignore_errors=True)
    return folder


def wrong_json(files: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """Return a changed JSON file: other values, types, lengths and names; sometimes other bytes."""
    content = json.loads(files[rng.integers(len(files))])
    for _ in range(rng.integers(1, 4)):
        content = _changed_value(content, rng)
    data = json.dumps(content).encode()
    for mark, text in RAW.items():
        data = data.replace(f'"{mark}"'.encode(), text)
    return data if rng.random() < 0.75 else bytes(_changed(bytearray(data), files, rng))


RAW = {
    "@long": b"9" * 5000,
    "@huge": b"1" + b"0" * 400,
    "@deep": b"[" * 50_000 + b"]" * 50_000,
    "@objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "@text": b'"\xff\xfe"',
    "@beyond": b"1e999",
}
"""What no value of Python gives, by the texts that stand for it."""

VALUES = (
    None, True, False, 0, -0.0, -1, 1, 2**63, 1e-300, 1e300, math.nan, math.inf, -math.inf,
    "", "0.5", "nan", "x" * 10_000, "\x1b[31m", "\udcff", "<script>", [], {}, [[]], [1], {"a": 1}, *RAW,
)  # fmt: skip


def _changed_value(value: Any, rng: np.random.Generator) -> Any:
    """Return a value with one of its parts changed."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = list(value)[rng.integers(len(value))]
        match rng.integers(6):
            case 0:
                return {name: part for name, part in value.items() if name != key}
            case 1:
                return {(name + "x" if name == key else name): part for name, part in value.items()}
            case _:
                return value | {key: _changed_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = int(rng.integers(len(value)))
        match rng.integers(6):
            case 0:
                return value[:at]
            case 1:
                return value[:at] + value[at:] * 2
            case 2:
                return value[::-1]
            case _:
                return [*value[:at], _changed_value(value[at], rng), *value[at + 1 :]]
    return VALUES[rng.integers(len(VALUES))]


CELLS = (
    "", "0", "-1", "1.5", "nan", "inf", "1e999", "9" * 5000, "x" * 200_000, "\0", "a\nb", '"', "'", ",", "\r",
    "\x1b[31m", "\udcff", "..", "../a.png", "sub/../../a.png", "/etc/passwd", "//a.png", "a.png/", "sub",
    "name", "a.png", "A.PNG", " a.png", "n" * 300, "f" * 64, "\u0663",
)  # fmt: skip


def wrong_csv(files: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """Return a changed CSV file: other cells, columns and lines; sometimes other bytes."""
    text = files[rng.integers(len(files))].decode()
    lines = list(csv.reader(io.StringIO(text, newline="")))
    for _ in range(rng.integers(1, 4)):
        line = int(rng.integers(0 if rng.random() < 0.2 else 1, len(lines))) if len(lines) > 1 else 0
        cells = lines[line]
        at = int(rng.integers(len(cells))) if cells else 0
        match rng.integers(8):
            case 0:
                del cells[at : at + 1]
            case 1:
                cells.insert(at, CELLS[rng.integers(len(CELLS))])
            case 2:
                lines.insert(line, list(cells))
            case 3 if len(lines) > 1:
                del lines[line]
            case 4 if cells:
                cells[0] = ("../", "/", "./", "sub/", "-")[rng.integers(5)] + cells[0]
            case _ if cells:
                cells[at] = CELLS[rng.integers(len(CELLS))]
    changed = io.StringIO()
    csv.writer(changed, lineterminator=("\n", "\r\n")[rng.integers(2)]).writerows(lines)
    data = changed.getvalue().encode("utf-8", "surrogateescape")
    return data if rng.random() < 0.75 else bytes(_changed(bytearray(data), files, rng))


def _kind(line: str) -> str:
    """Leave out numbers, names and what came, so that lines of one kind are alike."""
    words = line.split(" (got ")[0].split()
    return " ".join("N" if re.search(r"\d|^[0-9a-f]{8}$", word) else word for word in words)
