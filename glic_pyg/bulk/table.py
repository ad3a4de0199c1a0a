"""The table of results beside what was made: a row for each picture."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from glic_pyg.errors import FileError, require
from glic_pyg.places import Place

if TYPE_CHECKING:
    import pyarrow as pa

RESULTS = "glic_results.parquet"
PARTS = ".glic_parts/"
ROWS, MARK = ".parquet", ".begun"
"""Suffixes of parts of the table, and of marks of batches in work."""
LOCK = f"{PARTS}lock"
COLUMNS = {
    "path": "string",  # of the file, relative to the source
    "member": "string",  # of a shard: a name in a tar, a row's number in a Parquet file; else empty
    "output": "string",  # relative to the target; empty where nothing is written
    "bytes": "int64",
    "height": "int64",
    "width": "int64",
    "bpp": "float64",
    "psnr": "float64",
    "seconds": "float64",
    "notes": "string",
    "error": "string",
    "made": "string",  # of the file's bytes and all settings
    "sha256": "string",  # of the output
}
"""And their types, as Arrow calls them."""
READERS = 16


def schema() -> pa.Schema:
    """Return the columns as Arrow has them.

    Raises:
        PackageError: pyarrow is not installed.
    """
    with require("pyarrow", extra="ray", purpose="tables of results"):
        import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])


def part_name(batch: str) -> str:
    """Return the name of the file with the rows of a batch."""
    return f"{PARTS}{batch}{ROWS}"


def mark_name(batch: str) -> str:
    """Return the name of the mark of a batch, see `deaths.Mark`."""
    return f"{PARTS}{batch}{MARK}"


def write_rows(place: Place, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a Parquet file; NaN becomes null, and what is not UTF-8 in a text is escaped."""
    import pyarrow as pa

    rows = [{key: _known(value) for key, value in row.items()} for row in rows]
    write_table(place, name, pa.Table.from_pylist(rows, schema()))


def write_table(place: Place, name: str, table: pa.Table) -> None:
    """Write a table as a Parquet file."""
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(table, file)
    place.write(name, file.getvalue())


def _known(value: object) -> object:
    if isinstance(value, str):  # names in a tar are any bytes
        return value.encode(errors="backslashreplace").decode()
    return None if isinstance(value, float) and math.isnan(value) else value


def merge_parts(place: Place) -> tuple[pa.Table, int]:
    """Bring the rows of all parts into the one table, in place of earlier rows of the same files.

    The table is written before the parts are removed, so that no row is ever lost. Marks are removed, too.
    Nobody else may do this, or work for this place, at the same time.

    Returns:
        The table, and how many of its rows were in parts.

    Raises:
        FileError: a table that is none of ours.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    none = schema().empty_table()
    found = [PARTS + name for name in Place(f"{place.url.rstrip('/')}/{PARTS}").files({ROWS, MARK})]
    names = [name for name in found if name.endswith(ROWS)]
    for name in found:
        if name not in names:
            place.remove(name)
    with ThreadPoolExecutor(READERS) as pool:
        new = pa.concat_tables([none, *pool.map(lambda name: _read(place, name), names)])
    table = _read(place, RESULTS) if place.exists(RESULTS) else none
    if not names and place.exists(RESULTS):
        return table, 0
    stays = pc.invert(pc.is_in(table["path"], value_set=pc.unique(new["path"])))
    table = pa.concat_tables([table.filter(stays), new]).sort_by([("path", "ascending")])
    write_table(place, RESULTS, table)
    for name in names:
        place.remove(name)
    return table, new.num_rows


def of_files(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """Return the rows of some files."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.filter(pc.is_in(table["path"], value_set=pa.array(list(names), pa.string())))


def _read(place: Place, name: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(place.read(name, 1 << 40).getvalue()))
    except pa.ArrowException as error:
        raise FileError(f"Expected a table of results (got {place.path(name)}: {error})") from error
    if table.schema.names != list(COLUMNS):
        raise FileError(f"Expected a table of results (got {place.path(name)} with other columns)")
    return table.cast(schema())
