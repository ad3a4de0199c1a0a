"""GLIC, the whole codec: transforms and entropy model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from glic_pyg import checkpoint
from glic_pyg.config import ModelConfig
from glic_pyg.entropy import GainUnits, accept_tables_of_any_size, build_entropy_model, update_tables
from glic_pyg.image import crop, pad, to_8bit, to_float
from glic_pyg.nn.graph_attention import Backend
from glic_pyg.threads import one_thread_per_operator
from glic_pyg.tiles import MULTIPLE, Tile, largest_side, tiles
from glic_pyg.transform import build_analysis, build_synthesis


class QualityError(ValueError):
    """A quality that a model does not have; the message is one line for the user."""


class GLIC(nn.Module):
    """Learned image codec whose transforms aggregate features along content-adaptive graphs.

    .. code-block:: none

        x -> g_a -> y -> gain -> latent_codec -> gain -> y_hat -> g_s -> x_hat
                                      |
                                      +-> strings (or likelihoods)

    A model of one quality has no gains. In one of several, qualities run from 1 (small files) to
    `config.qualities`, with any number between; what is not asked for is the middle one.

    Pictures of any size: they are padded right and bottom by replication, and cropped after decoding.
    From "Adaptive Learned Image Compression with Graph Neural Networks", CVPR 2026.

    Args:
        config: The model's numbers.
        backend: Who computes the graphs' attention, see `GraphAttention`; by default what
            is fastest where the model is. It changes no meaning.
    """

    def __init__(self, config: ModelConfig, *, backend: Backend | None = None) -> None:
        super().__init__()
        self.config = config
        self.g_a = build_analysis(config, backend)
        self.latent_codec = build_entropy_model(config)
        self.g_s = build_synthesis(config, backend)
        if config.qualities > 1:
            self.gain = GainUnits(
                qualities=config.qualities,
                latent_channels=config.latent_channels,
                hyper_channels=config.hyper_channels,
            )
        accept_tables_of_any_size(self.latent_codec)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, backend: Backend | None = None) -> Self:
        """Load a model for inference.

        Args:
            name: A model that comes with the package, or the path of a checkpoint.
            backend: Who computes the graphs' attention.

        Raises:
            CheckpointError: no such model, or not a checkpoint.
        """
        path = checkpoint.resolve(name)
        stored = checkpoint.load(path)
        model = cls(stored.config, backend=backend)
        checkpoint.check_state(model.state_dict(), stored.state, where=path)
        model.load_state_dict(stored.state)
        return model.eval()

    def forward(self, x: Tensor, quality: Tensor | float | None = None) -> dict[str, Any]:
        """Code a batch of pictures without a file: noise or rounding in place of the coder.

        Args:
            x: Pictures in [0, 1], `B x 3 x H x W`.
            quality: Per picture, `B`, or one for all; only for a model of several qualities.

        Returns:
            `x_hat`, of x's shape and not clamped; `y_hat`, `B x M x H'/16 x W'/16` (H', W' the padded
            sides); `likelihoods`, those of `y` and `z`, whose bits are `-log2`.
        """
        gain, gains = self._gains(quality)
        y = gain * self.g_a(pad(x, MULTIPLE))
        with torch.autocast(x.device.type, enabled=False):  # probabilities need float32
            out = self.latent_codec(y.float(), **gains)
        x_hat = crop(self.g_s(out["y_hat"]), *x.shape[-2:])
        return {"x_hat": x_hat, "y_hat": out["y_hat"], "likelihoods": out["likelihoods"]}

    @torch.no_grad()
    def compress(
        self, x: Tensor, quality: float | None = None, *, max_memory: int | None = None
    ) -> dict[str, Any]:
        """Code one picture.

        Args:
            x: A picture in [0, 1], or of 8 bits (uint8), `1 x 3 x H x W`.
            quality: Only for a model of several qualities.
            max_memory: Bytes that the process may hold, with a model on the CPU. A picture too large for
                that goes through g_a in tiles, see `glic_pyg.tiles`.

        Returns:
            `strings`, the coded bytes, as CompressAI nests them (per string a list over the batch of one);
            `shape`, (H, W); and `y_hat`, which `decompress` will have bit for bit, whatever the process
            and its threads, on the same kind of device.

        Raises:
            QualityError: the model has no such quality.
            MemoryBoundError: the picture cannot be coded within `max_memory`.
            ValueError: `x` is not one RGB picture, or the model has no tables (see `update`).
        """
        if x.ndim != 4 or x.shape[:2] != (1, 3) or 0 in x.shape:
            raise ValueError(f"Expected a picture of shape 1 x 3 x H x W (got {tuple(x.shape)})")
        self._require_tables()
        gain, gains = self._gains(quality)
        shape = tuple(x.shape[-2:])
        # In one memory layout: the coder's networks take other paths, and round otherwise, in another.
        y = torch.empty(1, self.config.latent_channels, *_latent_sides(shape), device=x.device)
        for tile in self._tiles(shape, max_memory, picture_bytes=x.nbytes):
            part = pad(to_float(x[tile.read(16)]), MULTIPLE)
            y[tile.kept(1)] = gain * self.g_a(part)[tile.core(1)]
        with one_thread_per_operator():
            out = self.latent_codec.compress(y, **gains)
        return {"strings": out["strings"], "shape": shape, "y_hat": out["y_hat"]}

    @torch.no_grad()
    def decompress(
        self,
        strings: Sequence[Sequence[bytes]],
        shape: tuple[int, int],
        quality: float | None = None,
        *,
        max_memory: int | None = None,
    ) -> dict[str, Any]:
        """Decode one picture.

        Args:
            strings: As `compress` returned them.
            shape: (H, W) of the picture.
            quality: As `compress` was given.
            max_memory: Bytes that the process may hold, with a model on the CPU. A picture too large for
                that is restored in tiles.

        Returns:
            `x_hat`, `1 x 3 x H x W` in [0, 1], rounded to 8 bits (uint8) if `max_memory` is given; and
            `y_hat`, on which tiles have no influence.

        Raises:
            QualityError: the model has no such quality.
            MemoryBoundError: the picture cannot be restored within `max_memory`.
            ValueError: not this model's number of strings, or the model has no tables (see `update`).
        """
        num_strings = 2 * len(self.config.groups) + 1
        if [len(s) for s in strings] != [1] * num_strings:
            raise ValueError(
                f"Expected {num_strings} strings of one picture (got {[len(s) for s in strings]})"
            )
        self._require_tables()
        bounded = max_memory is not None
        parts = self._tiles(shape, max_memory, picture_bytes=2 * 3 * shape[0] * shape[1])
        height, width = _latent_sides(shape)
        y_shapes = [(channels, height, width) for channels in self.config.groups]
        z_shape = (height // 4, width // 4)
        counts = [c * h * w // 2 for c, h, w in chain.from_iterable((y, y) for y in y_shapes)]
        counts.append(self.config.hyper_channels * z_shape[0] * z_shape[1])
        padded = [[_padded(s[0], n)] for s, n in zip(strings, counts, strict=True)]
        shapes = {"y": y_shapes, "hyper": z_shape}
        inverse = {name: gain for name, gain in self._gains(quality)[1].items() if name.endswith("_inv")}
        with one_thread_per_operator():
            y_hat = self.latent_codec.decompress(padded, shapes, **inverse)["y_hat"]
        dtype = torch.uint8 if bounded else y_hat.dtype
        x_hat = torch.empty(1, 3, *shape, dtype=dtype, device=y_hat.device)
        for tile in parts:
            kept = x_hat[tile.kept(16)]
            part = crop(self.g_s(y_hat[tile.read(1)])[tile.core(16)], *kept.shape[-2:])
            kept.copy_(to_8bit(part) if bounded else part.clamp(0, 1))
        return {"x_hat": x_hat, "y_hat": y_hat}

    def orthogonality_loss(self) -> Tensor:
        """Return the wavelet shortcuts' orthogonality losses, summed, without their weight in the loss."""
        return self.g_a.orthogonality_loss() + self.g_s.orthogonality_loss()

    def aux_loss(self) -> Tensor:
        """Return the loss that trains the entropy bottleneck's quantiles, and nothing else."""
        return self.latent_codec.hyper.entropy_bottleneck.loss()

    def update(self, *, force: bool = False) -> bool:
        """Compute the coder's probability tables from the weights, once a training is over.

        Args:
            force: Also replace tables that are there. Files coded with them can then not be decoded.

        Returns:
            Whether any table was computed.
        """
        return update_tables(self.latent_codec, force=force)

    def _gains(self, quality: Tensor | float | None) -> tuple[Tensor | float, dict[str, Tensor | float]]:
        """Return the gain of y, and what the entropy model takes with it."""
        qualities = self.config.qualities
        if qualities == 1:
            if quality is not None:
                raise QualityError(f"Expected no quality for a model of one (got {quality})")
            return 1.0, {}
        if quality is None:
            quality = self.config.default_quality
        of_pictures = torch.as_tensor(quality, device=self.gain.y.device).reshape(-1)
        if not ((of_pictures >= 1) & (of_pictures <= qualities)).all():
            raise QualityError(f"Expected a quality in 1..{qualities} (got {quality})")
        gains = self.gain(of_pictures)
        # CompressAI's h_a reads y without its gain, and its parameters would have to guess the quality: here
        # y has its gain before.
        return gains["y"], {
            "y_gain": 1.0,
            "z_gain": gains["z"],
            "y_gain_inv": gains["y_inverse"],
            "z_gain_inv": gains["z_inverse"],
        }

    def _tiles(self, shape: tuple[int, int], max_memory: int | None, *, picture_bytes: int) -> list[Tile]:
        """Return the tiles that a bound on memory asks for; without, one of everything."""
        side = max(shape) + MULTIPLE
        if max_memory is not None:
            side = largest_side(self, *shape, max_memory, picture_bytes=picture_bytes)
        return list(tiles(*shape, side))

    def _require_tables(self) -> None:
        if self.latent_codec.hyper.entropy_bottleneck.quantized_cdf.numel() == 0:
            raise ValueError(
                "Expected a model with probability tables (got one without); call update() first"
            )


def _latent_sides(shape: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of y for a picture of that shape."""
    height, width = (-(-side // MULTIPLE) * MULTIPLE // 16 for side in shape)
    return height, width


def _padded(string: bytes, num_symbols: int) -> bytes:
    """Append zeros so that the decoder, which checks no bounds, cannot read beyond a wrong string's end.

    Each symbol takes in at most 4 bytes, escaped values at most 16 times their own length more.
    """
    return string + bytes(4 * num_symbols + 16 * len(string) + 16)
