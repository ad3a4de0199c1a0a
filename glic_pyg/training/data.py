"""Folders of pictures as random training crops and as held-out centre crops."""

from __future__ import annotations

import hashlib
import logging
import signal
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from glic_pyg.config import ConfigError
from glic_pyg.files import files_below
from glic_pyg.image import ImageError, picture_suffixes, read_image
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.schedule import Schedule, StepSampler

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


class RandomCrops(Dataset[tuple[Tensor, int]]):
    """Random crops, half of them mirrored, each with a random quality: `3 x size x size`, and 1 or more.

    Every picture comes once in an epoch, in another order each time. A sample depends on the pictures, the
    seed and its number alone, so that a run that goes on sees what it would have seen, and a batch is the
    same on one device and on several. In place of a picture that cannot be decoded another is drawn.

    Args:
        pictures: Files to draw from, none smaller than a crop.
        qualities: Number of qualities to draw from.
        seed: Seed of all samples.
    """

    def __init__(self, pictures: Sequence[Path], *, qualities: int, seed: int) -> None:
        self.pictures = list(pictures)
        self.qualities = qualities
        self.seed = seed
        self.broken: set[Path] = set()

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        sample, size = key
        epoch, place = divmod(sample, len(self.pictures))
        path = self.pictures[_order(len(self.pictures), self.seed, epoch)[place]]
        rng = np.random.default_rng((self.seed, sample))
        while len(self.broken) < len(self.pictures):
            top, left, mirror = rng.random(3)
            x = None if path in self.broken else _decode(path)
            if x is None:
                self.broken.add(path)
                path = self.pictures[rng.integers(len(self.pictures))]
                continue
            x = _crop(x, size, top, left)[0]
            return x.flip(-1) if mirror < 0.5 else x.clone(), 1 + int(rng.integers(self.qualities))
        raise ConfigError(f"Expected pictures to train on (got {len(self.pictures)} that cannot be decoded)")


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, count)).permutation(count)


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


class PictureData(LightningDataModule):
    """A run's batches, from its module's step on, and its held-out pictures; devices share both.

    Args:
        training: Files to train on.
        held_out: Centre crops to evaluate on, `N x 3 x H x W`.
        config: The settings of the run.
        schedule: The run, step by step.
    """

    def __init__(
        self, training: Sequence[Path], held_out: Tensor, *, config: TrainConfig, schedule: Schedule
    ) -> None:
        super().__init__()
        self.training = RandomCrops(training, qualities=config.model.qualities, seed=config.seed)
        self.held_out = held_out
        self.num_workers = config.num_workers
        self.run = schedule

    def train_dataloader(self) -> DataLoader:
        """Return the batches that are left; its length, if it has one, is that of the whole run."""
        trainer = self.trainer
        module = trainer.lightning_module
        return DataLoader(
            self.training,
            batch_sampler=StepSampler(
                self.run,
                first_step=module.step,
                first_sample=module.sample,
                seconds=lambda: module.seconds,
                rank=trainer.global_rank,
                num_shares=trainer.world_size,
            ),
            num_workers=self.num_workers,
            pin_memory=trainer.strategy.root_device.type == "cuda",
            worker_init_fn=_ignore_signals,
            # Its own, so that making the loader leaves the model's random state alone.
            generator=torch.Generator(),
        )

    def val_dataloader(self) -> DataLoader:
        """Return this device's share of the held-out pictures, one by one."""
        shares, rank = self.trainer.world_size, self.trainer.global_rank
        if len(self.held_out) < shares:
            raise ConfigError(f"Expected at least {shares} held-out pictures (got {len(self.held_out)})")
        return DataLoader(self.held_out[rank::shares], batch_size=1)


def _ignore_signals(worker: int) -> None:
    """Leave signals that are sent to all processes of the run, as Ctrl-C is, to the training process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
