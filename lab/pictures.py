"""The pictures that a rig works on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from glic_pyg.errors import FileError
from glic_pyg.files import files_below
from glic_pyg.picture import picture_suffixes


def pictures_below(folder: Path) -> list[Path]:
    """Return the pictures in a folder and below.

    Raises:
        FileError: there are none.
    """
    paths = files_below(folder, picture_suffixes())
    if not paths:
        raise FileError(f"Expected a folder with pictures (got {folder})")
    return paths


def photo(height: int, width: int) -> Tensor:
    """Return a photo that comes with scikit-image, scaled to `1 x 3 x height x width`."""
    image = Image.fromarray(skimage.data.astronaut()).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
