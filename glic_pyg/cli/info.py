"""Tell what a .glic file or a checkpoint is, from its first bytes.

glic info photo.glic
glic info glic_nano my.safetensors --json
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from glic_pyg.checkpoint_header import SHIPPED, SUFFIX, WEIGHTS, read_header
from glic_pyg.cli import flags
from glic_pyg.cli.printing import (
    CHUNK_NAMES,
    USER_ERRORS,
    aligned,
    print_json,
    print_line,
    say,
    say_lines,
)
from glic_pyg.container import MAGIC, QUALITY_STEPS, BitstreamError, most_bytes, unpack
from glic_pyg.errors import FileError
from glic_pyg.files import read_file

MOST_BYTES = 1 << 30
"""Of a .glic file."""
CHANNELS = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGB with alpha"}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    about = ".glic file or checkpoint, name of a model that comes with the package, or -"
    parser.add_argument("files", nargs="+", metavar="FILE", help=about)
    flags.add_json(parser)


def run(args: Namespace) -> int:
    """Tell of each file; 1 if some are neither."""
    failed = 0
    for name in args.files:
        try:
            about = describe(name)
        except USER_ERRORS as error:
            if len(args.files) == 1:
                raise
            failed += 1
            print_line("error", error)
            continue
        if args.json:
            print_json({"file": name, **about})
        else:
            _print(name, about)
    return int(failed > 0)


def describe(name: str) -> dict[str, Any]:
    """Return what a file is; `kind` is `glic` or `checkpoint`.

    Raises:
        FileError, BitstreamError: neither, or damaged.
        OSError: it cannot be read.
    """
    if name == "-":
        if sys.stdin is None:
            raise FileError("Expected standard input to be open (got a closed one)")
        return _describe(cast(BufferedReader, sys.stdin.buffer), "standard input")  # typeshed says less
    path = WEIGHTS / (name + SUFFIX) if name in SHIPPED.values() else Path(name)
    with path.open("rb") as file:
        return _describe(file, name)


def _describe(file: BufferedReader, name: str) -> dict[str, Any]:
    start = file.peek(len(MAGIC))[: len(MAGIC)]
    if start == MAGIC:
        try:
            return _glic(read_file(file, lambda head: min(most_bytes(head), MOST_BYTES)).getvalue())
        except BitstreamError as error:
            raise BitstreamError(f"{name}: {error}") from error
    header = read_header(file, name)
    config = header.config
    # Files of format 1 do not say it.
    identity = header.identity or {known: identity for identity, known in SHIPPED.items()}.get(name)
    return {
        "kind": "checkpoint",
        "name": config.name,
        "identity": identity,
        "model": SHIPPED.get(identity or ""),
        "parameters": header.parameters,
        "stored_as": list(header.dtypes),
        "qualities": config.qualities,
        "info": dict(header.info),
        "config": config.to_dict(),
    }


def _glic(data: bytes) -> dict[str, Any]:
    stream = unpack(data)
    of_y = len(stream.strings) - 1
    names = [f"y, group {i // 2 + 1}, half {i % 2 + 1}" for i in range(of_y)] + ["z"]
    identity = stream.identity.hex()

    def part(of: str, content: bytes) -> dict[str, Any]:
        return {"of": of, "bytes": len(content), "share": len(content) / len(data)}

    return {
        "kind": "glic",
        "format": stream.version,
        "height": stream.height,
        "width": stream.width,
        "quality": stream.quality / QUALITY_STEPS if stream.quality else None,
        "identity": identity,
        "model": SHIPPED.get(identity),
        "bytes": len(data),
        "bpp": 8 * len(data) / max(1, stream.height * stream.width),
        "channels": stream.channels,
        "strings": [part(of, string) for of, string in zip(names, stream.strings, strict=False)],
        "chunks": [part(name, content) for name, content in stream.chunks.items()],
    }


def _print(name: str, about: dict[str, Any]) -> None:
    identity = about["identity"] or "not told by files of format 1"
    if about["model"]:
        identity = f"{about['model']} ({identity})"
    if about["kind"] == "glic":
        quality = "the model's only one" if about["quality"] is None else f"{about['quality']:g}"
        strings = about["strings"]
        total = sum(string["bytes"] for string in strings)
        chunks = [part | {"of": _chunk_name(part["of"])} for part in about["chunks"]]
        lines = [
            ["picture", f"{about['width']} x {about['height']}, {CHANNELS[about['channels']]}"],
            ["quality", quality],
            ["model", identity],
            ["size", f"{about['bytes']} bytes, {about['bpp']:.4f} bpp"],
            ["strings", f"{len(strings)} of {total} bytes together"],
        ]
        say(f"{name}: .glic file, format {about['format']}")
        rows = [[f"  {s['of']}", str(s["bytes"]), f"{s['share']:.1%}"] for s in [*strings, *chunks]]
    else:
        config, graph = about["config"], about["config"]["graph"]
        trained = about["info"].get("lambda")
        lines = [
            ["identity", identity],
            ["weights", f"{about['parameters'] / 1e6:.2f} M parameters, {', '.join(about['stored_as'])}"],
            ["qualities", str(about["qualities"])],
            ["channels", f"{_numbers(config['channels'])}; of y {config['latent_channels']}"],
            ["depths", f"{_numbers(config['depths'])}, {config['heads']} heads"],
            ["graphs", f"degree {graph['degree']} on {', '.join(map(str, graph['candidates'])) or 'none'}"],
        ]
        if trained:
            lines.insert(3, ["lambda", _numbers(trained)])
        say(f"{name}: checkpoint of {about['name']}")
        rows = []
    for label, text in lines:
        say(f"  {label:{max(len(label) for label, _ in lines)}}  {text}")
    if rows:
        say_lines(aligned(rows))


def _chunk_name(name: str) -> str:
    return CHUNK_NAMES.get(name, f"unknown chunk {name}")


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
