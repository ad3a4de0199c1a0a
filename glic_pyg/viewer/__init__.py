"""A static page that decodes .glic files, and makes them of photos, in the reader's browser.

Its folder is all of it: the page, a model as `glic_pyg.export` writes it, and onnxruntime-web, which runs the
networks in WebAssembly.
"""

from __future__ import annotations

import json
from pathlib import Path

from glic_pyg.codec import GLIC
from glic_pyg.errors import FileError
from glic_pyg.export import onnx_files

PAGE = Path(__file__).parent / "page"
RUNTIME = "onnxruntime-web"
"""Its name in npm."""
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What the page loads of it."""


def viewer_files(model: GLIC, runtime: Path) -> dict[str, bytes]:
    """Return the names of the page's files, relative to its folder, and their bytes.

    Args:
        model: Whose files the page decodes.
        runtime: The package onnxruntime-web as npm unpacks it.

    Raises:
        FileError: that package is not there.
        ConfigError, ModelError, TableError: see `onnx_files`.
    """
    vendored = read_runtime(runtime)
    page = {path.name: path.read_bytes() for path in sorted(PAGE.iterdir())}
    networks = {f"model/{name}": data for name, data in onnx_files(model).items()}
    return {**page, **{f"runtime/{name}": data for name, data in vendored.items()}, **networks}


def read_runtime(folder: Path) -> dict[str, bytes]:
    """Return what the page loads of onnxruntime-web, and the package's description with its licence.

    Raises:
        FileError: it is not there.
    """
    try:
        about = (folder / "package.json").read_bytes()
        if json.loads(about).get("name") != RUNTIME:
            raise FileError(f"Expected the folder of {RUNTIME} (got {folder}, which is of another package)")
        return {"package.json": about} | {n: (folder / "dist" / n).read_bytes() for n in RUNTIME_FILES}
    except (OSError, ValueError, AttributeError) as error:
        if isinstance(error, FileError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise FileError(
            f"Expected the folder of {RUNTIME}, which `npm install {RUNTIME}` makes "
            f"(got {folder}: {reason}); --runtime names another"
        ) from error
