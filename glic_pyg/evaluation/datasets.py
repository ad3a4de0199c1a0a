"""Whether a folder holds a data set as it was published, not a rescaled or recompressed copy."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from PIL import Image

from glic_pyg.errors import FileError, UsageError

DATASETS = ("kodak",)
"""Those whose pictures are known."""


def problems(name: str, folder: Path) -> list[str]:
    """Return a line for every picture that is missing, superfluous, or has other pixels than it should.

    Other bytes for the same pixels, of another PNG encoder, are none.

    Args:
        name: One of `DATASETS`.
        folder: Where the pictures lie, without subfolders.

    Raises:
        UsageError: no such data set.
        FileError: no such folder.
    """
    if name not in DATASETS:
        raise UsageError(f"Expected one of the data sets {', '.join(DATASETS)} (got {name})")
    if not folder.is_dir():
        raise FileError(f"Expected a folder of pictures (got {folder})")
    known = json.loads((Path(__file__).parent / f"{name}.json").read_text())
    found = {path.name for path in folder.iterdir() if path.is_file()}
    lines = [f"{picture}: missing" for picture in known if picture not in found]
    lines += [f"{picture}: not of {name}" for picture in sorted(found - known.keys())]
    for picture, facts in known.items():
        if picture not in found:
            continue
        try:
            with Image.open(folder / picture) as image:
                pixels = image.convert("RGB")
        except Exception as error:  # Pillow raises nearly anything of damaged files
            lines.append(f"{picture}: cannot be read: {error}")
            continue
        width, height = pixels.size
        if (width, height) != (facts["width"], facts["height"]):
            lines.append(f"{picture}: {width} x {height} instead of {facts['width']} x {facts['height']}")
        elif hashlib.sha256(pixels.tobytes()).hexdigest() != facts["sha256"]:
            lines.append(f"{picture}: other pixels")
    return lines
