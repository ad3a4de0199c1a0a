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
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from glic_pyg import bitstream, container
from glic_pyg.chunks import add_chunks, chunks_of, with_chunks
from glic_pyg.codec import GLIC
from glic_pyg.config import Aggregation, Part
from glic_pyg.entropy import TABLES
from glic_pyg.errors import UserError
from glic_pyg.image import write_png
from glic_pyg.picture import Picture
from glic_pyg.published import load_published, published_name, published_shape

MAX_PIXELS = 2**14
"""Of a picture that is decoded: the codec's time, not the container's, is what larger ones would measure."""
START_SECONDS = 300
"""Within which a child has made its target."""
TRUE_FILES = Path(__file__).parents[1] / "tests" / "golden" / "files"


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
    import resource  # Windows has none

    torch.set_num_threads(1)
    target = TARGETS[name]()
    for data in target.true:
        attempt(target, data, Findings(), seconds=seconds)  # compiles, and fills caches
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
            stream = container.unpack(files[rng.integers(len(files))])
        except bitstream.BitstreamError:
            pass
        else:
            with suppress(bitstream.BitstreamError):  # chunks that cannot be: bytes are changed instead
                return container.pack(_with_wrong_contents(stream, rng))
    data = bytearray(files[rng.integers(len(files))][:-4])
    for _ in range(rng.integers(1, 5)):
        data = _changed(data, files, rng)
    checksum = struct.pack("<I", zlib.crc32(data)) if rng.random() < 0.75 else rng.bytes(4)
    return bytes(data) + checksum


def _with_wrong_contents(stream: container.Bitstream, rng: np.random.Generator) -> container.Bitstream:
    fields = vars(stream) | {"version": max(stream.version, container.PLAIN_VERSION)}
    if stream.version > container.PLAIN_VERSION and rng.random() < 0.7:
        return replace(stream, **_wrong_chunks(stream, rng))
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
    return container.Bitstream(**fields | {"strings": tuple(strings)})


def _wrong_chunks(stream: container.Bitstream, rng: np.random.Generator) -> dict[str, Any]:
    """Return channels and chunks of which one is another one, or has other contents."""
    chunks = dict(stream.chunks)
    name = list(chunks)[rng.integers(len(chunks))] if chunks else "EXIF"
    content = bytearray(chunks.get(name, b""))
    match rng.integers(8):
        case 0 | 1 if content:
            for _ in range(rng.integers(1, 6)):
                content[rng.integers(len(content))] = rng.integers(256)
        case 2:
            del content[int(rng.integers(len(content) + 1)) :]
        case 3:
            content = bytearray(rng.bytes(int(rng.integers(2000))))
        case 4:
            others = ("EXIF", "ALPH", "XMP ", "ICCP", "late", "A\n\0B", "\xff\xff\xff\xff", "alph")
            name = others[rng.integers(len(others))]
        case 5 | 6:
            name, content = "ALPH", bytearray(_wrong_alpha(stream, rng))
        case 7:
            return {"channels": int(rng.integers(6)), "chunks": chunks}
    channels = int(rng.choice((2, 4))) if "ALPH" in chunks or name == "ALPH" else stream.channels
    return {"channels": channels, "chunks": chunks | {name: bytes(content)}}


def _wrong_alpha(stream: container.Bitstream, rng: np.random.Generator) -> bytes:
    """Return a PNG file whose checksums are true: of other sides, kinds and lengths, or with more in it."""
    width, height = stream.width % 2**32, stream.height % 2**32
    depth, color, interlaced = 8, 0, 0
    data = rng.bytes(int(rng.integers(1, 200)) * 130)
    match rng.integers(6):
        case 0:
            width, height = (int(2 ** (32 * rng.random())) for _ in range(2))
        case 1:
            depth, color = int(rng.choice((1, 2, 4, 8, 16, 3))), int(rng.choice((0, 2, 3, 4, 6, 7)))
        case 2:
            interlaced = int(rng.integers(3))
        case 3:
            data = bytes(50_000_000)
        case 4:
            data = bytes(int(rng.integers(height * (width + 1) % 10**6 + 1)))
    packed = zlib.compress(data)
    more = zlib.compress(bytes(100_000_000)) if rng.random() < 0.02 else zlib.compress(b"text")
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    parts = [(b"IHDR", head), (b"zTXt", b"a\0\0" + more), (b"IDAT", packed), (b"IEND", b"")]
    if rng.random() < 0.2:
        rng.shuffle(parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in parts
    )


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
            data = bytearray(b"GLIC" + bytes([rng.integers(6)]) + rng.bytes(int(rng.integers(200))))
    return data


def file_target() -> Target:
    """Return the decoder of .glic files."""
    model = GLIC.from_pretrained(TRUE_FILES / "of_2.safetensors")
    files = [(TRUE_FILES / f"version_{version}.glic").read_bytes() for version in (1, 2, 3)]
    x = torch.rand(1, 3, 80, 130, generator=torch.Generator().manual_seed(0))
    for height, width, quality in [(1, 1, 1), (80, 130, 3.7)]:
        files.append(bitstream.encode(model, x[..., :height, :width], quality))
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    metadata = {"EXIF": exif.tobytes()[6:], "XMP ": b"<x/>", "late": bytes(9)}
    files.append(add_chunks(files[-1], 1, metadata))
    for channels in (2, 4):
        alpha = np.arange(80 * 130, dtype=np.uint8).reshape(80, 130)
        of_alpha = chunks_of(Picture(np.zeros((80, 130, 3), np.uint8), alpha))
        files.append(add_chunks(files[4], channels, metadata | of_alpha))

    def decode(data: bytes) -> None:
        with_chunks(bitstream.decode(model, data, max_pixels=MAX_PIXELS), container.unpack(data))

    return Target(files, wrong_file, decode, (bitstream.BitstreamError,), ".glic")


def results_target() -> Target:
    """Return the reader of results, with what is made of them: curves, deltas and a report."""
    from glic_pyg.evaluation.bd import Curve, CurveError, delta
    from glic_pyg.evaluation.report_page import build_page
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
        texts = {"title": "", "about": "", "command": ""}
        build_page(**texts, results=[results], comparisons=[], most_bpp=1.0, complexity=[], pictures=[])
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


def picture_target() -> Target:
    """Return the encoder; what it makes of a picture, the decoder has to take.

    Inputs say in JSON what is to be encoded (see `wrong_picture`).
    """
    model = GLIC.from_pretrained(TRUE_FILES / "of_2.safetensors")
    true = [{"shape": [1, 3, 33, 70], "dtype": "float32"}, {"shape": [1, 3, 1, 1], "dtype": "uint8"}]

    def take(data: bytes) -> None:
        about = json.loads(data)
        x = _picture(**about)
        with ExitStack() as stack:
            if "autocast" in about.get("around", ()):
                stack.enter_context(torch.autocast("cpu", torch.bfloat16))
            if "inference" in about.get("around", ()):
                stack.enter_context(torch.inference_mode())
            if "device" in about.get("around", ()):
                stack.enter_context(torch.device("meta"))
            coded = bitstream.encode(model, x, about.get("quality"), max_pixels=MAX_PIXELS)
            restored = bitstream.decode(model, coded, max_pixels=MAX_PIXELS)
        assert restored.shape == x.shape
        assert restored.isfinite().all()

    return Target([json.dumps(about).encode() for about in true], wrong_picture, take, (UserError,), ".json")


def checkpoint_target() -> Target:
    """Return the loader of checkpoints; a model that loads has to code, or to say why not."""
    config = GLIC.from_pretrained(TRUE_FILES / "of_2.safetensors").config
    folder, true = _temporary(), []
    score = replace(config.graph, score=Part("learned", {"hidden": 2}), quota=Part("map"))
    for other in (
        replace(config, aggregation=Aggregation("torch_geometric.nn.SAGEConv", {"aggr": "max"})),
        replace(config, qualities=1, graph=score),
    ):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = GLIC(other)
        model.update()
        model.save(folder / "a.safetensors")
        true.append((folder / "a.safetensors").read_bytes())
    true += [(TRUE_FILES / f"of_{number}.safetensors").read_bytes() for number in (1, 2)]
    path = folder / "wrong.safetensors"

    def take(data: bytes) -> None:
        path.write_bytes(data)
        _code(GLIC.from_pretrained(path))

    return Target(true, wrong_checkpoint, take, (UserError,), ".safetensors")


def published_target() -> Target:
    """Return the importer of published checkpoints, of a small model."""
    model = GLIC.from_pretrained(TRUE_FILES / "of_1.safetensors")
    state = {
        published_name(name): tensor.view(published_shape(published_name(name), tuple(tensor.shape)))
        if "cdf" not in name and "offset" not in name
        else tensor
        for name, tensor in model.state_dict().items()
    }
    prefixed = {f"module.{name}": x for name, x in state.items()}
    true = [_saved(content) for content in (state, {"state_dict": prefixed, "epoch": 3})]
    path = _temporary() / "wrong.pth.tar"

    def take(data: bytes) -> None:
        path.write_bytes(data)
        _code(load_published(path, model.config))

    return Target(true, wrong_published, take, (UserError,), ".pth.tar")


def _code(model: GLIC) -> None:
    x = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    assert bitstream.decode(model, bitstream.encode(model, x)).isfinite().all()


TARGETS: dict[str, Callable[[], Target]] = {
    "file": file_target,
    "picture": picture_target,
    "checkpoint": checkpoint_target,
    "published": published_target,
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


NUMBERS = (
    0, 1, -1, 2, 3, 2**31 - 1, 2**31, -(2**31), 2**63, 10**400, 0.5, 0.999, 1 / 600, 1.001, 3.9999, 4, 4.001,
    1e-9, 1e30, -1e-45, math.nan, math.inf, -math.inf, True, False, "2", "", None, [1.0], [1.0, 2.0], [],
)  # fmt: skip
SPOTS = (math.nan, math.inf, -math.inf, 1e12, 1e38, 1.0000001, -1e-45, -0.0, 255.0, 2.0**31, 0.5)


def wrong_picture(true: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """Return what is to be encoded: shape, type, values, quality, what is around the call; most is usual."""

    def draw(usual: Sequence[Any], others: Sequence[Any]) -> Any:
        some = usual if rng.random() < 0.8 else others
        return some[rng.integers(len(some))]

    sides = [int(side) for side in rng.choice([1, 2, 15, 16, 17, 63, 64, 65, 128, 130], 2)]
    odd = [
        [3, *sides],
        [1, 1, *sides],
        [2, 3, *sides],
        [1, 4, *sides],
        [1, 3, 0, 5],
        [1, 3, 5],
        [],
        [0],
        [5] * 6,
    ]
    about = {
        "shape": draw([[1, 3, *sides]], odd),
        "dtype": draw(["float32", "uint8"], DTYPES),
        "values": draw(["unit"], ["bytes", "signed", "normal", "huge", "zeros", "ones"]),
        "spots": draw([[]], [[float(spot)] for spot in SPOTS]),
        "kind": draw(["tensor"], KINDS),
        "quality": draw([None, 1, 2.5, 4], NUMBERS),
        "around": draw([[]], [["autocast"], ["inference"], ["device"]]),
        "seed": int(rng.integers(2**31)),
    }
    return json.dumps(about).encode()


DTYPES = (
    "float16", "bfloat16", "float64", "int8", "int16", "int32", "int64", "bool", "complex64", "float8_e4m3fn",
    "uint16",
)  # fmt: skip
KINDS = (
    "numpy", "list", "none", "bytes", "parameter", "meta", "sparse", "transposed", "channels last",
    "expanded", "strided",
)  # fmt: skip


def _picture(
    shape: Sequence[int],
    dtype: str,
    values: str = "unit",
    spots: Sequence[float] = (),
    kind: str = "tensor",
    seed: int = 0,
    **_: Any,
) -> Any:
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(tuple(shape), generator=generator, dtype=torch.float64)
    change = {
        "unit": lambda x: x,
        "bytes": lambda x: 255 * x,
        "signed": lambda x: 2 * x - 1,
        "normal": lambda x: 10 * (x - 0.5) ** 3,
        "huge": lambda x: 1e30 * x,
        "zeros": torch.zeros_like,
        "ones": torch.ones_like,
    }[values]
    x = change(255 * unit if dtype == "uint8" and values == "unit" else unit)
    for spot in spots:
        if x.numel():
            x.view(-1)[int(torch.randint(x.numel(), (1,), generator=generator))] = spot
    x = x.to(getattr(torch, dtype))
    with suppress(RuntimeError, TypeError, ValueError, IndexError):  # not of every type and shape
        return {
            "tensor": lambda: x,
            "numpy": lambda: x.numpy(),
            "list": lambda: x.tolist(),
            "none": lambda: None,
            "bytes": lambda: b"",
            "parameter": lambda: torch.nn.Parameter(x),
            "meta": lambda: x.to("meta"),
            "sparse": lambda: x.to_sparse(),
            "transposed": lambda: x.transpose(-1, -2),
            "channels last": lambda: x.contiguous(memory_format=torch.channels_last),
            "expanded": lambda: x[..., :1].expand(x.shape),
            "strided": lambda: x[..., ::2],
        }[kind]()
    return x


def wrong_checkpoint(files: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """Return a checkpoint with other tensors, another configuration, or other bytes."""
    data = files[rng.integers(len(files))]
    if rng.random() < 0.2:
        changed = bytearray(data)
        length = int.from_bytes(data[:8], "little")
        for _ in range(rng.integers(1, 5)):  # mostly in the header, or the length before it
            at = int(rng.integers((8, 8 + length, len(data))[rng.integers(3)]))
            changed[at] = (0, 1, 0x7F, 0x80, 0xFF, *b'"[]{}:,09')[rng.integers(14)]
        return bytes(changed[: len(changed) if rng.random() < 0.8 else int(rng.integers(len(changed)))])
    length = int.from_bytes(data[:8], "little")
    text = json.loads(data[8 : 8 + length])["__metadata__"]["glic_pyg"]
    about, state = json.loads(text), dict(sorted(safetensors.torch.load(data).items()))
    for _ in range(1 if rng.random() < 0.6 else 3):
        match rng.integers(8):
            case 0:
                about = _changed_value(about, rng)
            case 1 | 2 if isinstance(about, dict) and isinstance(about.get("config"), dict):
                config = about["config"]
                key = list(config)[rng.integers(len(config))] if config else "heads"
                about = about | {"config": config | {key: _changed_number(config.get(key), rng)}}
            case 3 if isinstance(about, dict) and isinstance(about.get("config"), dict):
                kinds = ("aggregation", "score", "quota", "selection", "candidates", "similarity")
                kind = kinds[rng.integers(len(kinds))]
                part = PARTS[rng.integers(len(PARTS))]
                graph = about["config"].get("graph")
                if kind == "aggregation" or not isinstance(graph, dict):
                    changed = {"aggregation": part if isinstance(part, str) else {"layer": part[0]} | part[1]}
                else:
                    named = part if isinstance(part, str) else {"name": part[0]} | part[1]
                    changed = {"graph": graph | {kind: [named] if kind == "candidates" else named}}
                about = about | {"config": about["config"] | changed}
            case _:
                state = _changed_state(state, rng)
    text = json.dumps(about)
    for mark, raw in RAW.items():
        text = text.replace(f'"{mark}"', raw.decode("latin-1"))
    stored = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    return safetensors.torch.save(stored, metadata={"glic_pyg": text})


PARTS = (
    "this.x", "os.system", "glic_pyg.cli.run", "torch_geometric.nn.GCNConv",
    "torch_geometric.nn.MessagePassing", "torch_geometric.nn.Linear",
    "learned", "sobel", "knn", "anchors", "top_d", "attention", "..", "a.b",
    ("learned", {"hidden": 1024}), ("learned", {"hidden": 0}), ("knn", {"k": 256}), ("knn", {"k": -1}),
    ("local_entropy", {"bins": 1024}), ("local_entropy", {"window": 1023}), ("sobel", {"channels": 5}),
    ("torch_geometric.nn.GATConv", {"heads": 1024}), ("torch_geometric.nn.ChebConv", {"K": 1024}),
    ("torch_geometric.nn.SAGEConv", {"out_channels": 1024}),
    ("torch_geometric.nn.SAGEConv", {"aggr": "median"}),
    ("torch_geometric.nn.TransformerConv", {"heads": 2, "beta": True}), ("torch_geometric.nn.PNAConv", {}),
    ("torch_geometric.nn.SGConv", {"K": 1024}), ("torch_geometric.nn.GINConv", {}),
    ("torch_geometric.nn.RGCNConv", {"num_relations": 1000}),
    ("torch_geometric.nn.APPNP", {"K": 3, "alpha": 9.0}),
    ("torch_geometric.nn.GatedGraphConv", {"num_layers": 1000}), ("torch_geometric.nn.DNAConv", {"heads": 7}),
)  # fmt: skip


def _changed_number(value: Any, rng: np.random.Generator) -> Any:
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = int(rng.integers(len(value)))
        return [*value[:at], _changed_number(value[at], rng), *value[at + 1 :]]
    if isinstance(value, int) and rng.random() < 0.6:
        return (value + 1, value - 1, 2 * value, value // 2, 64, 256, 8192)[rng.integers(7)]
    return (*NUMBERS, *VALUES)[rng.integers(len(NUMBERS) + len(VALUES))]


def _changed_state(state: dict[str, torch.Tensor], rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Return tensors of which one has other values, another type or shape, another name, or none."""
    if not state:
        return {"a": torch.zeros(1)}
    names = [name for name in state if name.endswith(TABLES)] if rng.random() < 0.5 else list(state)
    name = (names or list(state))[rng.integers(len(names or state))]
    tensor = state[name].clone()
    flat = tensor.view(-1)
    at = int(rng.integers(len(flat))) if len(flat) else 0
    spot = (*SPOTS, 0, 1, -1, 2, 65536, 65535, 2**31 - 1, -(2**31), 70000.0)[rng.integers(len(SPOTS) + 9)]
    if tensor.is_floating_point() and len(flat) and rng.random() < 0.4:  # sound, as far as one sees
        flat[at : at + int(rng.integers(1, 50))] = (0.0, 1.0, -5.0, 300.0, -60_000.0, 1e-30)[rng.integers(6)]
        return state | {name: tensor}
    with suppress(RuntimeError, ValueError, OverflowError):  # not of every type
        match rng.integers(10):
            case 0 | 1 if len(flat):
                flat[at] = spot
            case 2 if len(flat):
                flat[at : at + int(rng.integers(1, 50))] = spot
            case 3:
                tensor = tensor * (-1, 0, 2, 1e6, 1e30, 0.5)[rng.integers(6)]
            case 4:
                tensor = tensor.to(STORED[rng.integers(len(STORED))])
            case 5:
                tensor = tensor[: int(rng.integers(len(tensor) + 1))] if tensor.dim() else tensor[None]
            case 6:
                tensor = torch.cat([tensor, tensor]) if tensor.dim() else tensor.expand(3)
            case 7:
                tensor = (tensor.flatten(), tensor[None], tensor.flip(-1))[rng.integers(3)]
            case 8:
                return {other: x for other, x in state.items() if other != name}
            case 9:
                return {(other + "x" if other == name else other): x for other, x in state.items()}
    return state | {name: tensor}


STORED = (
    torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int8, torch.uint8,
    torch.bool, torch.float8_e4m3fn, torch.float32,
)  # fmt: skip


def wrong_published(files: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """Return a published checkpoint with other contents, or other bytes."""
    data = files[rng.integers(len(files))]
    if rng.random() < 0.4:
        changed = bytearray(data)
        for _ in range(rng.integers(1, 5)):
            end = (200, 20_000, len(data))[rng.integers(3)]
            at = int(rng.integers(min(end, len(data))))
            if rng.random() < 0.3:  # where an archive lists what is in it
                at = len(data) - 1 - at
            changed[at] = int(rng.integers(256))
        return bytes(changed[: len(changed) if rng.random() < 0.8 else int(rng.integers(len(changed)))])
    content = torch.load(io.BytesIO(data), weights_only=True)
    state = content.get("state_dict", content)
    for _ in range(rng.integers(1, 3)):
        state = _changed_state(state, rng)
    if rng.random() < 0.3:
        name = list(state)[rng.integers(len(state))]
        x = state[name]
        odd = (
            lambda: x.float().to_sparse(),
            lambda: x.to("meta"),
            lambda: torch.zeros(1).expand(x.shape),
            lambda: torch.zeros(1).expand(10**12),
            lambda: torch.nn.Parameter(x.float()),
            lambda: x.tolist(),
            lambda: None,
            lambda: torch.complex(x.float(), x.float()),
        )
        state = state | {name: odd[rng.integers(len(odd))]()}
    if rng.random() < 0.1:
        state = state | {(3, None, b"a", "", "\x1b[2J", "x" * 10_000)[rng.integers(6)]: torch.zeros(1)}
    if rng.random() < 0.05:
        state = (None, [], {}, 3, "state", [state], {"state_dict": {"state_dict": state}})[rng.integers(7)]
    return _saved({"state_dict": state} if rng.random() < 0.5 else state)


def _saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)  # the older format has addresses in it: other bytes every time
    return file.getvalue()


def _kind(line: str) -> str:
    """Leave out numbers, names and what came, so that lines of one kind are alike."""
    words = line.split(" (got ")[0].split()
    return " ".join("N" if re.search(r"\d|^[0-9a-f]{8}$", word) else word for word in words)
