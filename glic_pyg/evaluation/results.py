"""Rate-distortion results in files, this project's and other tools'."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from glic_pyg.errors import FileError
from glic_pyg.files import read_json

TEXTS = ("name", "description", "command", "codec", "pictures_sha256")


def read_results(path: Path) -> dict[str, Any]:
    """Return the results in a file: `results`, columns with a value for each rate, and what else it tells.

    Columns may also stand by themselves, or be rows, or single values. `TEXTS` are texts and `settings` is a
    mapping, empty where nothing is told; a missing name is the file's.

    Raises:
        FileError: no such file, or something else; says what.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise FileError(f"Expected results by name (got {path} with a {_kind(content)})")
    bare = {key: values for key, values in content.items() if key not in (*TEXTS, "settings")}
    results = content.get("results", bare)
    if isinstance(results, list):
        results = _columns(results, path)
    if not isinstance(results, dict) or "bpp" not in results:
        raise FileError(f"Expected results with a column bpp (got {path} without)")
    columns = {name: values if isinstance(values, list) else [values] for name, values in results.items()}
    for name, values in columns.items():
        if len(values) != len(columns["bpp"]):
            raise FileError(
                f"Expected a value of {name} for each of {len(columns['bpp'])} rates "
                f"(got {len(values)} in {path})"
            )
        columns[name] = [_number(value, name, path) for value in values]
    texts = {key: value if isinstance(value := content.get(key), str) else "" for key in TEXTS}
    texts["name"] = texts["name"] or path.stem
    settings = content.get("settings")
    return {**texts, "settings": settings if isinstance(settings, dict) else {}, "results": columns}


def _columns(rows: list[Any], path: Path) -> dict[str, list[Any]]:
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise FileError(f"Expected results as columns, or as rows with names (got others in {path})")
    return {name: [row.get(name) for row in rows] for name in rows[0]}


def _number(value: Any, column: str, path: Path) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            return float(value) if isinstance(value, str) or math.isinf(float(value)) else value
    raise FileError(f"Expected numbers as {column} (got {_text(value)} in {path})")


def _text(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float) else _kind(value)
    return text if len(text) <= 40 else text[:40] + "..."


def _kind(value: Any) -> str:
    kinds: Mapping[type, str] = {list: "list", dict: "mapping", str: "text", type(None): "null"}
    return kinds.get(type(value), "number")
