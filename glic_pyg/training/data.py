"""Folders of pictures as random training crops and as held-out centre crops."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from glic_pyg.config import ConfigError
from glic_pyg.files import files_below
from glic_pyg.image import ImageError, picture_suffixes, read_image

logger = logging.getLogger(__name__)


def find_pictures(folder: str | Path, *, least_size: int) -> list[Path]:
    """Return the pictures in a folder and below, sorted; what cannot be used is logged and left out.

    Only headers are read: damage further on is found when a picture is decoded.

    Args:
        folder: Where to look.
        least_size: Least height and width in pixels.

    Raises:
        ConfigError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"Expected a folder of pictures (got {folder})")
    files = files_below(folder, picture_suffixes())
    pictures, small = [], []
    for path in tqdm(files, desc="headers", leave=False, disable=None):
        try:
            with Image.open(path) as image:
                least = min(image.size)
        except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
            logger.warning("Skipped %s: %s", path, error)
            continue
        (small if least < least_size else pictures).append(path)
    if small:
        logger.warning(
            "Skipped %d of %d pictures, the first %s: Expected at least %d pixels a side",
            len(small), len(files), small[0], least_size,
        )  # fmt: skip
    return pictures


def split_pictures(
    pictures: Sequence[Path], *, folder: str | Path, eval_share: float
) -> tuple[list[Path], list[Path]]:
    """Return the pictures to train on and those held out: the share whose hashed names come first.

    The split depends on the names relative to the folder alone; at least one picture is held out.
    """

    def name_hash(path: Path) -> bytes:
        return hashlib.sha256(path.relative_to(folder).as_posix().encode()).digest()

    ranked = sorted(pictures, key=name_hash)
    count = max(1, round(eval_share * len(ranked)))
    return ranked[count:], ranked[:count]


def center_crops(pictures: Sequence[Path], *, size: int) -> Tensor:
    """Return the centre crops of all pictures that can be decoded, `N x 3 x size x size`.

    Raises:
        ConfigError: none can be decoded.
    """
    crops = [_crop(x, size, 0.5, 0.5).clone() for x in map(_decode, pictures) if x is not None]
    if not crops:
        raise ConfigError(f"Expected pictures to evaluate on (got {len(pictures)} that cannot be decoded)")
    return torch.cat(crops)


class RandomCrops(Dataset[Tensor]):
    """Random crops, half of them mirrored, `3 x size x size`.

    Sample i depends on the pictures, the seed and i alone, so that a run that goes on sees what it would
    have seen. In place of a picture that cannot be decoded another is drawn.

    Args:
        pictures: Files to draw from, none smaller than a crop.
        size: Side of a crop in pixels.
        length: Number of samples.
        seed: Seed of all samples.
    """

    def __init__(self, pictures: Sequence[Path], *, size: int, length: int, seed: int) -> None:
        self.pictures = list(pictures)
        self.size = size
        self.length = length
        self.seed = seed
        self.broken: set[Path] = set()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng((self.seed, index))
        while len(self.broken) < len(self.pictures):
            path = self.pictures[rng.integers(len(self.pictures))]
            top, left, mirror = rng.random(3)
            x = None if path in self.broken else _decode(path)
            if x is None:
                self.broken.add(path)
                continue
            x = _crop(x, self.size, top, left)[0]
            return x.flip(-1) if mirror < 0.5 else x.clone()
        raise ConfigError(f"Expected pictures to train on (got {len(self.pictures)} that cannot be decoded)")


def _decode(path: Path) -> Tensor | None:
    try:
        return read_image(path)
    except ImageError as error:
        logger.warning("Skipped %s: %s", path, error)
        return None


def _crop(x: Tensor, size: int, top: float, left: float) -> Tensor:
    """Return a window of `1 x 3 x H x W`; `top` and `left` are shares in [0, 1) of the way it can move."""
    height, width = x.shape[-2:]
    row, column = int(top * (height - size + 1)), int(left * (width - size + 1))
    return x[..., row : row + size, column : column + size]
