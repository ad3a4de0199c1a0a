"""Pictures as random training crops and as held-out centre crops."""

from __future__ import annotations

import hashlib
import logging
import math
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from glic_pyg.config import ConfigError
from glic_pyg.image import read_pixels, to_8bit, to_float
from glic_pyg.picture import ImageError
from glic_pyg.progress import each
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.lightning import LightningDataModule, Trainer
from glic_pyg.training.module import CodecModule
from glic_pyg.training.schedule import Schedule, StepSampler
from glic_pyg.training.sources import Folder, Part, Source, as_folder, name_in, sources

logger = logging.getLogger(__name__)

T = TypeVar("T")
Sample = TypeVar("Sample", covariant=True)


def folders_by_prefix(dataset: str | Path | Sequence[str | Path]) -> dict[str, Folder]:
    """Return the folders of a data set, URLs among them, by what the names of their pictures begin with.

    That is nothing where there is one folder, else `NAME_OF_THE_FOLDER/`.

    Raises:
        ConfigError: two folders of one name, or one inside another.
    """
    folders = [as_folder(folder) for folder in ([dataset] if isinstance(dataset, str | Path) else dataset)]
    if len(folders) == 1:
        return {"": folders[0]}
    places = [Path(folder).resolve() for folder in folders]  # good enough to compare URLs too
    for (a, one), (b, other) in permutations(zip(places, folders, strict=True), 2):
        if a.is_relative_to(b):
            raise ConfigError(f"Expected folders apart from each other (got {one} and {other})")
        if a.name == b.name:
            raise ConfigError(f"Expected folders of different names (got {one} and {other})")
    return {f"{place.name}/": folder for place, folder in zip(places, folders, strict=True)}


def find_and_split(
    folders: Mapping[str, Folder], *, config: TrainConfig, listed: Collection[Source] | None = None
) -> tuple[list[Source], list[Source]]:
    """Return the pictures to train on and those held out: of every folder a share, whatever the others.

    Args:
        folders: As `folders_by_prefix` returns them.
        config: The settings; sizes and the share matter.
        listed: Leave out all but these.

    Raises:
        ConfigError: no such folder, or too few pictures in one.
    """
    training: list[Source] = []
    held_out: list[Source] = []
    for folder in folders.values():
        pictures = find_pictures(folder, least_size=max(config.eval_size, *config.patch_sizes))
        if listed is not None:
            pictures = [path for path in pictures if path in listed]
        if len(pictures) < 2:
            raise ConfigError(f"Expected at least 2 usable pictures in {folder} (got {len(pictures)})")
        parts = split_pictures(pictures, folder=folder, eval_share=config.eval_share)
        training, held_out = training + parts[0], held_out + parts[1]
    return training, held_out


def find_pictures(folder: Folder, *, least_size: int) -> list[Source]:
    """Return the pictures in a folder and below, and in its shards, sorted; others are logged and left out.

    Only headers of files are read: damage further on is found when a picture is decoded.

    Args:
        folder: Where to look.
        least_size: Least height and width in pixels.

    Raises:
        ConfigError: no such folder.
        FileError: a shard that cannot be read.
    """
    files = sources(folder)
    pictures: list[Source] = []
    small: list[Source] = []
    for path in each(files, "reading headers"):
        try:
            least = _least_side(path)
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


def _least_side(source: Source) -> int:
    if isinstance(source, Part):
        if not source.width:
            raise ImageError(f"Expected a picture (got {source})")
        return min(source.width, source.height)
    with Image.open(source) as image:
        return min(image.size)


def split_pictures(
    pictures: Sequence[Source], *, folder: Folder, eval_share: float
) -> tuple[list[Source], list[Source]]:
    """Return the pictures to train on and those held out: the share whose hashed names come first.

    The split depends on the names relative to the folder alone; at least one picture is held out.
    """

    def name_hash(source: Source) -> bytes:
        return hashlib.sha256(name_in(source, folder).encode(errors="surrogateescape")).digest()

    ranked = sorted(pictures, key=name_hash)
    count = max(1, round(eval_share * len(ranked)))
    return ranked[count:], ranked[:count]


def center_crops(pictures: Sequence[Source], *, size: int) -> Tensor:
    """Return the centre crops of all pictures that can be decoded, `N x 3 x size x size` in [0, 1].

    Raises:
        ConfigError: none can be decoded.
    """
    center = Draw(picture=0, top=0.5, left=0.5, mirror=False, transpose=False, scale=1.0).row()
    crops = [Pixels([x]).crop(center, size) for x in map(_decode, pictures) if x is not None]
    if not crops:
        raise ConfigError(f"Expected pictures to evaluate on (got {len(pictures)} that cannot be decoded)")
    return torch.cat(crops)


class Draw(NamedTuple):
    """Where a training crop comes from, and what is done to it.

    Args:
        picture: Number of the picture.
        top: Share, in [0, 1), of the way that the crop can move down.
        left: Of the way that it can move right.
        mirror: Whether left and right change places.
        transpose: Whether rows and columns then change places.
        scale: By which the picture is scaled before, at most 1.
    """

    picture: int
    top: float
    left: float
    mirror: bool
    transpose: bool
    scale: float

    def row(self) -> Tensor:
        """Return it as `Pixels.crop` takes it, for a batch of one."""
        return torch.tensor([self], dtype=torch.float64)


class Pixels:
    """Pictures of any sizes in one tensor, and crops of them made a batch at a time, where the tensor is.

    Args:
        pictures: `1 x 3 x H x W` each, all of 8 bits (uint8) or all in [0, 1].
    """

    def __init__(self, pictures: Sequence[Tensor]) -> None:
        flat = [x.movedim(1, -1).flatten() for x in pictures]
        self.pixels = flat[0] if len(flat) == 1 else torch.cat(flat)
        ends = np.cumsum([x.numel() for x in pictures])
        rows = [(end - x.numel(), *x.shape[-2:]) for x, end in zip(pictures, ends, strict=True)]
        self.shapes = torch.tensor(rows)  # where it begins, height, width

    def to(self, device: torch.device) -> Self:
        """Move all pictures to a device."""
        self.pixels, self.shapes = self.pixels.to(device), self.shapes.to(device)
        return self

    def crop(self, draws: Tensor, size: int, *, least_scale: float = 1.0) -> Tensor:
        """Return a batch of crops, `B x 3 x size x size` in [0, 1].

        Scaling is bicubic and without aliases. Where a picture is too small for it, it is scaled less.

        Args:
            draws: A `Draw` per crop, `B x 6`, float64.
            size: Side of the crops in pixels; no picture is smaller.
            least_scale: Of all draws.
        """
        picture, top, left, mirror, transpose, scale = draws[:, :, None, None, None].unbind(1)
        begin, height, width = self.shapes[picture.long()].unbind(-1)
        side = torch.minimum((size / scale).round().long(), torch.minimum(height, width))
        first = (top * (height - side + 1)).long() * width + (left * (width - side + 1)).long()
        # From one pixel to the next, in the picture: to the right, and down.
        right = torch.where(mirror > 0, -1, 1)
        first += torch.where(mirror > 0, side - 1, 0)
        right, down = torch.where(transpose > 0, width, right), torch.where(transpose > 0, right, width)
        reach = math.ceil(size / least_scale)  # of the largest side
        steps = torch.arange(reach, device=draws.device).minimum(side - 1)
        place = first + down * steps.mT + right * steps
        plane = torch.arange(3, device=draws.device)[:, None, None]
        x = to_float(self.pixels[begin + 3 * place + plane])
        if least_scale == 1:
            return x
        weights = _resampling(side[..., 0], size, reach)
        return (weights @ x @ weights.mT).clamp(0, 1)


def _resampling(side: Tensor, size: int, reach: int) -> Tensor:
    """Return matrices, `... x size x reach`, that scale the first `side` of `reach` values to `size` values.

    The cubic kernel (a = -1/2) is as wide as `side / size` values.
    """
    ratio = side.double() / size
    source, target = (torch.arange(n, device=side.device) + 0.5 for n in (reach, size))
    distance = ((source - target[:, None] * ratio[..., None]) / ratio[..., None]).abs()
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0))
    weights = torch.where(source < side[..., None], weights, 0)
    return (weights / weights.sum(-1, keepdim=True)).float()


class Samples(Dataset[Sample]):
    """Random crops, half of them mirrored, each with a random quality, from 1 on.

    Every picture comes once in an epoch, in another order each time. A sample depends on the pictures, the
    seed and its number alone, so that a run that goes on sees what it would have seen, and a batch is the
    same on one device and on several. In place of a picture that cannot be decoded another is drawn.

    Args:
        pictures: To draw from, none smaller than a crop.
        qualities: Number of qualities to draw from.
        seed: Seed of all samples.
        transpose: Whether rows and columns of half of the crops change places.
        least_scale: Pictures are scaled by a random factor between this and 1.
    """

    def __init__(
        self,
        pictures: Sequence[Source],
        *,
        qualities: int,
        seed: int,
        transpose: bool = False,
        least_scale: float = 1.0,
    ) -> None:
        self.pictures = list(pictures)
        self.qualities = qualities
        self.seed = seed
        self.transpose = transpose
        self.least_scale = least_scale
        self.broken: set[int] = set()

    def draw(self, sample: int, load: Callable[[int], T | None]) -> tuple[Draw, int, T]:
        """Return what is drawn for a sample, its quality, and its picture, as `load` returns it.

        Args:
            sample: Its number.
            load: Returns the picture of a number, or None if it is broken.

        Raises:
            ConfigError: all pictures are broken.
        """
        count = len(self.pictures)
        epoch, place = divmod(sample, count)
        picture = int(_order(count, self.seed, epoch)[place])
        rng = np.random.default_rng((self.seed, sample))
        while len(self.broken) < count:
            top, left, mirror = rng.random(3)
            loaded = None if picture in self.broken else load(picture)
            if loaded is None:
                self.broken.add(picture)
                picture = int(rng.integers(count))
                continue
            quality = 1 + int(rng.integers(self.qualities))
            transpose = self.transpose and rng.random() < 0.5
            scale = rng.uniform(self.least_scale, 1.0)
            return Draw(picture, top, left, mirror < 0.5, transpose, scale), quality, loaded
        raise ConfigError(f"Expected pictures to train on (got {count} that cannot be decoded)")


class RandomCrops(Samples[tuple[Tensor, int]]):
    """Samples cut out of files: `3 x size x size` in [0, 1], and the quality."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        sample, size = key
        draw, quality, x = self.draw(sample, lambda picture: _decode(self.pictures[picture]))
        draw = draw._replace(picture=0)
        return Pixels([x]).crop(draw.row(), size, least_scale=self.least_scale)[0], quality


class RandomDraws(Samples[tuple[Draw, int, int]]):
    """The same samples, not yet cut out: for pictures in memory, of which `broken` are known before."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[Draw, int, int]:
        sample, size = key
        draw, quality, _ = self.draw(sample, lambda picture: True)
        return draw, quality, size

    @staticmethod
    def collate(samples: Sequence[tuple[Draw, int, int]]) -> tuple[Tensor, Tensor, int]:
        """Return draws as `Pixels.crop` takes them, qualities, and the size that they share."""
        draws, qualities, sizes = zip(*samples, strict=True)
        return torch.tensor(draws, dtype=torch.float64), torch.tensor(qualities), sizes[0]


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, count)).permutation(count)


def _decode(source: Source) -> Tensor | None:
    try:
        return read_pixels(source.read() if isinstance(source, Part) else source)
    except (ImageError, OSError) as error:
        logger.warning("Skipped %s: %s", source, error)
        return None


class PictureData(LightningDataModule):
    """A run's batches, from its module's step on, and its held-out pictures; devices share both.

    Args:
        training: Pictures to train on.
        held_out: Centre crops to evaluate on, `N x 3 x H x W`.
        config: The settings of the run.
        schedule: The run, step by step.
    """

    def __init__(
        self, training: Sequence[Source], held_out: Tensor, *, config: TrainConfig, schedule: Schedule
    ) -> None:
        super().__init__()
        in_memory = config.pictures == "memory"
        kind: type[Samples[Any]] = RandomDraws if in_memory else RandomCrops
        self.training = kind(
            training,
            qualities=config.model.qualities,
            seed=config.seed,
            transpose=config.transpose,
            least_scale=config.least_scale,
        )
        self.pixels = None
        if in_memory:
            self.pixels, self.training.broken = _decode_all(training)
        self.held_out = held_out
        self.num_workers = config.num_workers
        self.run = schedule

    def train_dataloader(self) -> DataLoader:
        """Return the batches that are left; its length, if it has one, is that of the whole run."""
        trainer = self._trainer()
        module = trainer.lightning_module
        assert isinstance(module, CodecModule)
        device = trainer.strategy.root_device
        if self.pixels is not None:
            self.pixels.to(device)
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
            collate_fn=None if self.pixels is None else RandomDraws.collate,
            pin_memory=device.type == "cuda",
            worker_init_fn=_ignore_signals,
            # Its own, so that making the loader leaves the model's random state alone.
            generator=torch.Generator(),
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Cut the crops of a training batch out of the pictures in memory, where these are."""
        if self.pixels is None or isinstance(batch, Tensor):  # the held-out pictures are crops already
            return batch
        draws, quality, size = batch
        return self.pixels.crop(draws, size, least_scale=self.training.least_scale), quality

    def val_dataloader(self) -> DataLoader:
        """Return this device's share of the held-out pictures, one by one."""
        shares, rank = self._trainer().world_size, self._trainer().global_rank
        if len(self.held_out) < shares:
            raise ConfigError(f"Expected at least {shares} held-out pictures (got {len(self.held_out)})")
        return DataLoader(cast("Dataset[Tensor]", self.held_out[rank::shares]), batch_size=1)

    def _trainer(self) -> Trainer:
        assert self.trainer is not None  # Lightning asks for batches when it has set it
        return self.trainer


def _decode_all(pictures: Sequence[Source]) -> tuple[Pixels, set[int]]:
    """Return all pictures, of 8 bits, and the numbers of those that cannot be decoded."""
    with ThreadPoolExecutor() as pool:
        decoded = list(each(pool.map(_decode, pictures), "decoding pictures", total=len(pictures)))
    broken = {number for number, x in enumerate(decoded) if x is None}
    none = torch.empty(1, 3, 0, 0, dtype=torch.uint8)
    return Pixels([none if x is None else to_8bit(x) for x in decoded]), broken


def _ignore_signals(worker: int) -> None:
    """Leave signals that are sent to all processes of the run, as Ctrl-C is, to the training process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
