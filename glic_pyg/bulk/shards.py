"""Files of many pictures: WebDataset tars, and Parquet files with a column of pictures' bytes.

What is made of one is another of the same kind, in which the pictures are replaced; a tar's other files are
kept, and all other columns.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from glic_pyg.bulk.coders import Coder, failed_row
from glic_pyg.errors import FileError, UserError, require
from glic_pyg.files import read_file
from glic_pyg.names import output_names

AT_ONCE = 64
"""Rows of a Parquet file that are in memory."""

Rows = Iterator[tuple[str, dict[str, Any]]]
Begin = Callable[[str], str]


def code_tar(coder: Coder, name: str, source: Path, target: Path | None, begin: Begin) -> Rows:
    """Code the pictures of a tar; one that cannot be coded is left out of what is made.

    Args:
        coder: What codes.
        name: Of the shard, for errors.
        source: Its file.
        target: To be written, if anything.
        begin: Is called before each picture with the shard's name and its own; what it returns is the error
            of one that is not to be coded.

    Yields:
        For every picture its name in the tar, and its row, see `Coder.row`.

    Raises:
        FileError: not a tar, a compressed one, or a damaged one.
    """
    try:
        with (
            tarfile.open(source, "r:") as tar,
            tarfile.open(target, "w") if target else nullcontext() as made,
        ):
            members = [member for member in tar.getmembers() if member.isfile()]
            paths = list(dict.fromkeys(Path(member.name) for member in members if _is_picture(member, coder)))
            names = dict(zip(paths, output_names(paths, coder.new_suffix, lambda _: None), strict=True))
            for member in members:
                content = tar.extractfile(member)
                assert content is not None  # of a file it is not
                if not _is_picture(member, coder):
                    if made is not None:
                        made.addfile(member, content)
                    continue
                row = _row(coder, f"{name}/{member.name}", content, begin)
                yield member.name, row
                if made is not None and not row["error"]:
                    path = Path(member.name)
                    folder = member.name.removesuffix(path.name)  # as it is: ./ is a part of a sample's key
                    about = tarfile.TarInfo(folder + names[path].name)
                    about.size, about.mtime = len(row["bytes"]), member.mtime
                    made.addfile(about, io.BytesIO(row["bytes"]))
    except tarfile.TarError as error:
        raise FileError(f"Expected a tar (got {name}: {error})") from error


def _is_picture(member: tarfile.TarInfo, coder: Coder) -> bool:
    return Path(member.name).suffix.lower() in coder.suffixes


def _row(coder: Coder, name: str, content: Any, begin: Begin) -> dict[str, Any]:
    """Return the row of an open file, of which no more is read than a picture may have."""
    if error := begin(name):
        return failed_row(error)
    try:
        data = read_file(content, coder.most_bytes).getvalue()
    except UserError as error:
        return failed_row(str(error))
    return coder.row(name, data)


def code_parquet(coder: Coder, name: str, source: Path, target: Path | None, begin: Begin) -> Rows:
    """Code the pictures of a Parquet file; where one cannot be coded there is a null in what is made.

    The pictures are in the one column of binary values, or of structures with a field `bytes`, as Hugging
    Face writes them. Arguments and what is yielded are those of `code_tar`; a row's number is its name.

    Raises:
        FileError: not such a file, or a damaged one.
    """
    with require("pyarrow", extra="ray", purpose="Parquet files"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source) as file:
            schema = file.schema_arrow
            column = _column_of_bytes(schema, name)
            kind = schema.field(column).type
            with pq.ParquetWriter(target, schema) if target else nullcontext() as made:
                number = 0
                for batch in file.iter_batches(AT_ONCE):
                    values = batch.column(column).to_pylist()
                    for i, value in enumerate(values):
                        data = value["bytes"] if isinstance(value, dict) else value
                        row = _row(coder, f"{name}/{number}", io.BytesIO(data or b""), begin)
                        yield str(number), row
                        result = None if row["error"] else row["bytes"]
                        values[i] = {**value, "bytes": result} if isinstance(value, dict) else result
                        number += 1
                    if made is not None:
                        changed = batch.set_column(column, schema.field(column), pa.array(values, kind))
                        made.write_batch(changed)
    except pa.ArrowException as error:
        raise FileError(f"Expected a Parquet file (got {name}: {error})") from error


def _column_of_bytes(schema: Any, name: str) -> int:
    import pyarrow.types as types

    def is_bytes(kind: Any) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind)

    found = [
        number
        for number, field in enumerate(schema)
        if is_bytes(field.type)
        or (
            types.is_struct(field.type)
            and any(is_bytes(part.type) for part in field.type if part.name == "bytes")
        )
    ]
    if len(found) != 1:
        names = ", ".join(schema.names[number] for number in found) or "none"
        raise FileError(f"Expected one column of pictures' bytes in {name} (got {names})")
    return found[0]


HOW: dict[str, Callable[[Coder, str, Path, Path | None, Begin], Rows]] = {
    ".tar": code_tar,
    ".parquet": code_parquet,
}
SHARDS = frozenset(HOW)
"""Suffixes of shards, lower case."""


def is_shard(name: str) -> bool:
    """Return whether a file is a shard, by its name."""
    return Path(name).suffix.lower() in SHARDS


def code_shard(coder: Coder, name: str, source: Path, target: Path | None, begin: Begin) -> Rows:
    """Code the pictures of a shard, see `code_tar`."""
    return HOW[Path(name).suffix.lower()](coder, name, source, target, begin)
