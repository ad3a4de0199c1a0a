"""GLIC, the whole codec: transforms and entropy model."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from glic_pyg import checkpoint
from glic_pyg.build import build_analysis, build_entropy_model, build_gains, build_synthesis
from glic_pyg.config import HYPER_STRIDE, LATENT_STRIDE, ModelConfig
from glic_pyg.derived import Derived, tensors_of
from glic_pyg.entropy import (
    LatentError,
    ProbabilityNets,
    accept_tables_of_any_size,
    check_tables,
    decode_latents,
    encode_latents,
    forward_latents,
    update_tables,
)
from glic_pyg.errors import UserError
from glic_pyg.identity import identity_of
from glic_pyg.image import check_picture, crop, pad, to_8bit, to_float
from glic_pyg.kernels import Kernels, use_kernels
from glic_pyg.threads import begin
from glic_pyg.tiles import WHOLE, Tiling


class QualityError(UserError, ValueError):
    """A quality that a model does not have; the message is one line for the user."""


class ModelError(UserError, ValueError):
    """A model that cannot code as it is; the message is one line for the user."""


class GLIC(nn.Module):
    """Learned image codec whose transforms aggregate features along content-adaptive graphs.

        x -> g_a -> y -> gain -> latent_codec -> strings -> latent_codec -> gain -> y_hat -> g_s -> x_hat
        |- analyse -|---------- code ----------|----------- decode ---------------|---- synthesise -----|

    A model of one quality has no gains. In one of several, qualities run from 1 (small files) to
    `config.qualities`, with any number between; what is not asked for is the middle one.

    Pictures of any size: they are padded right and bottom by replication, and cropped after decoding.
    From "Adaptive Learned Image Compression with Graph Neural Networks", CVPR 2026.

    Args:
        config: The model's numbers.
        kernels: Which code computes the networks, see `HasKernels`; by default those of the device
            that it is on. It changes no meaning.

    Attributes:
        config: Its numbers.
        info: What its checkpoint notes of it, of its training for instance.
    """

    def __init__(self, config: ModelConfig, *, kernels: Kernels | None = None) -> None:
        super().__init__()
        begin()
        self.config = config
        self.g_a = build_analysis(config)
        self.latent_codec = build_entropy_model(config)
        self.g_s = build_synthesis(config)
        self.gain = build_gains(config)
        use_kernels(self, kernels)
        accept_tables_of_any_size(self.latent_codec)
        self._exact_nets: Derived[ProbabilityNets] = Derived()
        self._identity: Derived[bytes] = Derived()
        self.info: Mapping[str, Any] = {}

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, kernels: Kernels | None = None, allow_code: bool = False
    ) -> Self:
        """Load a model for inference, in float32.

        A checkpoint is data, which may come from anybody: nothing it says runs code, asks for memory beyond
        its own size, or reaches the coder unchecked.

        Args:
            name: A model that comes with the package, or the path of a checkpoint.
            kernels: Which code computes the networks.
            allow_code: Let the checkpoint name parts by import path, beyond this package's and the layers of
                `torch_geometric.nn`. Their modules run code: for files that you trust.

        Raises:
            CheckpointError: no such model, or not a sound checkpoint.
        """
        model, stored = checkpoint.restore(name, partial(cls, kernels=kernels), allow_code=allow_code)
        if stored.identity is not None:
            model._identity.put(model, stored.identity)
        model.info = stored.info
        return model.eval()

    def save(
        self,
        path: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint, which `from_pretrained` loads.

        Args:
            path: The file, made or replaced.
            dtype: float32, or float16 for half the size.
            info: Notes to keep with the model, JSON values; by default those that it came with.

        Raises:
            CheckpointError: the model has no tables (see `update`), or what `from_pretrained` would refuse.
        """
        checkpoint.save(self, self.config, path, dtype=dtype, info=self.info if info is None else info)

    @property
    def identity(self) -> bytes:
        """8 bytes that tell models apart, see `identity_of`: of the weights as they are now.

        What changes weights behind torch's back, by `.data` for instance, is seen after `update`.
        """
        return self._identity.get(self, lambda: identity_of(self.config, self.state_dict()))

    def forward(
        self, x: Tensor, quality: Tensor | float | None = None, *, rounded: bool = False
    ) -> dict[str, Any]:
        """Code a batch of pictures without a file: noise or rounding in place of the coder.

        Args:
            x: Pictures in [0, 1], `B x 3 x H x W`.
            quality: Per picture, `B`, or one for all; only for a model of several qualities.
            rounded: In training, too, latents are the decoder's; the encoder, g_a, h_a and their gains, then
                gets no gradient. See `forward_latents`.

        Returns:
            `x_hat`, of x's shape and not clamped; `y_hat`, `B x M x H'/16 x W'/16` (H', W' the padded
            sides); `likelihoods`, those of `y` and `z`, whose bits are `-log2`.

        Raises:
            QualityError: the model has no such quality, or there is neither one nor one per picture.
        """
        with torch.no_grad() if rounded else nullcontext():
            y = self.g_a(pad(x, HYPER_STRIDE))
        out = self.likelihoods(y, quality, rounded=rounded)
        return {"x_hat": crop(self.g_s(out["y_hat"]), *x.shape[-2:]), **out}

    @torch.no_grad()
    def compress(self, x: Tensor, quality: float | None = None) -> dict[str, Any]:
        """Code one picture: `analyse`, then `code`.

        Args:
            x: A picture in [0, 1] of any floating type, or of 8 bits (uint8), `1 x 3 x H x W`.
            quality: Only for a model of several qualities.

        Returns:
            `strings`, the coded bytes, as CompressAI nests them (per string a list over the batch of one);
            `shape`, (H, W); and `y_hat`, which `decompress` will have bit for bit, on any machine.

        Raises:
            ImageError, QualityError, ModelError, TableError, LatentError: see `analyse` and `code`.
        """
        strings, y_hat = self.code(self.analyse(x), quality)
        return {"strings": [[string] for string in strings], "shape": tuple(x.shape[-2:]), "y_hat": y_hat}

    @torch.no_grad()
    def decompress(
        self, strings: Sequence[Sequence[bytes]], shape: tuple[int, int], quality: float | None = None
    ) -> dict[str, Any]:
        """Decode one picture: `decode`, then `synthesise`.

        Args:
            strings: As `compress` returned them.
            shape: (H, W) of the picture.
            quality: As `compress` was given.

        Returns:
            `x_hat`, `1 x 3 x H x W` in [0, 1], float32; and `y_hat`.

        Raises:
            QualityError, ModelError, TableError, LatentError: see `decode`.
        """
        if any(len(batch) != 1 for batch in strings):
            raise LatentError(
                f"Expected {self.num_strings} strings of one picture "
                f"(got {len(strings)} of another number of pictures)"
            )
        y_hat = self.decode([string for (string,) in strings], shape, quality)
        return {"x_hat": self.synthesise(y_hat, shape), "y_hat": y_hat}

    # The four steps of coding a picture. Neither autocast nor default types and devices have an influence on
    # them: all is computed in float32, where the model is.

    @torch.no_grad()
    def analyse(self, x: Tensor, tiling: Tiling = WHOLE) -> Tensor:
        """Return a picture's latents, which are the same for every quality.

        Args:
            x: A picture in [0, 1] of any floating type, or of 8 bits (uint8), `1 x 3 x H x W`.
            tiling: How g_a takes it in tiles, which need less memory; by default in one.

        Returns:
            y, `1 x M x H'/16 x W'/16` (H', W' the padded sides).

        Raises:
            ImageError: `x` is not one RGB picture in [0, 1].
            ModelError: the model is not in float32.
        """
        check_picture(x)
        self._check_float32()
        y = x.new_empty(1, self.config.latent_channels, *latent_shape(x.shape[-2:]), dtype=torch.float32)
        with undisturbed(x.device):
            for tile in tiling.tiles(*x.shape[-2:]):
                part = pad(to_float(x[tile.read(LATENT_STRIDE)]), HYPER_STRIDE)
                y[tile.kept(1)] = self.g_a(part)[tile.core(1)]
        return y

    @torch.no_grad()
    def code(
        self, y: Tensor, quality: float | None = None, *, exact: bool = True
    ) -> tuple[list[bytes], Tensor]:
        """Code latents into strings.

        Args:
            y: As `analyse` returned them.
            quality: Only for a model of several qualities.
            exact: False for probabilities in floating point, which another machine may not have.

        Returns:
            The strings, and y_hat, of y's shape, which `decode` will have bit for bit, on any machine.

        Raises:
            QualityError: the model has no such quality.
            ModelError: the model is not in float32, or has no tables (see `update`).
            TableError: the model's tables are not sound.
            LatentError: latents that cannot be coded, of unsound weights.
            InexactError: on a GPU, the environment overrules torch's precision.
        """
        nets, gains = self.probability_nets(exact=exact), self.gains(quality)
        with undisturbed(y.device):
            strings, y_hat = encode_latents(
                self.latent_codec,
                nets,
                y * gains["y"],
                z_gain=gains["z"],
                z_gain_inverse=gains["z_inverse"],
            )
            return strings, y_hat.mul_(gains["y_inverse"])

    @torch.no_grad()
    def decode(
        self,
        strings: Sequence[bytes],
        shape: tuple[int, int],
        quality: float | None = None,
        *,
        exact: bool = True,
    ) -> Tensor:
        """Decode strings into the latents that the encoder had.

        Args:
            strings: As `code` returned them.
            shape: (H, W) of the picture.
            quality: As `code` was given.
            exact: As `code` was given.

        Returns:
            y_hat, `1 x M x H'/16 x W'/16` (H', W' the padded sides).

        Raises:
            QualityError: the model has no such quality.
            ModelError: the model is not in float32, or has no tables (see `update`).
            TableError: the model's tables are not sound.
            LatentError: not this model's number of strings, or they cannot be of this picture.
            InexactError: on a GPU, the environment overrules torch's precision.
        """
        if len(strings) != self.num_strings:
            raise LatentError(f"Expected {self.num_strings} strings of one picture (got {len(strings)})")
        if min(shape) < 1:
            raise LatentError(
                f"Expected strings of a picture with pixels (got one of {shape[1]} x {shape[0]})"
            )
        nets, gains = self.probability_nets(exact=exact), self.gains(quality)
        height, width = (side * LATENT_STRIDE // HYPER_STRIDE for side in latent_shape(shape))
        with undisturbed(self.device):
            y_hat = decode_latents(
                self.latent_codec, nets, strings, (height, width), z_gain_inverse=gains["z_inverse"]
            )
            return y_hat.mul_(gains["y_inverse"])

    @torch.no_grad()
    def synthesise(
        self,
        y_hat: Tensor,
        shape: tuple[int, int],
        tiling: Tiling = WHOLE,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return the picture of decoded latents.

        Args:
            y_hat: As `code` and `decode` return them.
            shape: (H, W) of the picture.
            tiling: How g_s makes it in tiles, which need less memory; by default in one.
            dtype: float32, or uint8 for a picture rounded to 8 bits, of a quarter of the memory.

        Returns:
            x_hat, `1 x 3 x H x W` in [0, 1], or of 8 bits.

        Raises:
            ModelError: the model is not in float32, or its weights make no picture of these latents.
        """
        self._check_float32()
        x_hat = y_hat.new_empty(1, 3, *shape, dtype=dtype)
        with undisturbed(y_hat.device):
            for tile in tiling.tiles(*shape):
                kept = x_hat[tile.kept(LATENT_STRIDE)]
                part = crop(self.g_s(y_hat[tile.read(1)])[tile.core(LATENT_STRIDE)], *kept.shape[-2:])
                if not part.sum().isfinite():
                    raise ModelError(
                        "Expected weights that make a picture of these latents (got NaN or infinity)"
                    )
                kept.copy_(to_8bit(part) if dtype == torch.uint8 else part.clamp(0, 1))
        return x_hat

    def likelihoods(
        self, y: Tensor, quality: Tensor | float | None = None, *, rounded: bool = False
    ) -> dict[str, Any]:
        """Return what the entropy model expects of latents, without coding them.

        Args:
            y: Latents as g_a gives them, `B x M x H'/16 x W'/16`.
            quality: Per picture, `B`, or one for all; only for a model of several qualities.
            rounded: In training, too, latents are the decoder's, see `forward_latents`.

        Returns:
            `y_hat`, of y's shape; `likelihoods`, those of `y` and `z`, whose bits are `-log2`.

        Raises:
            QualityError: the model has no such quality, or there is neither one nor one per picture.
        """
        gains = self.gains(quality, pictures=len(y))
        with torch.no_grad() if rounded else nullcontext():
            y = gains["y"] * y
        with torch.autocast(y.device.type, enabled=False):  # probabilities need float32
            out = forward_latents(
                self.latent_codec,
                y.float(),
                z_gain=gains["z"],
                z_gain_inverse=gains["z_inverse"],
                rounded=rounded,
            )
        return {"y_hat": out["y_hat"] * gains["y_inverse"], "likelihoods": out["likelihoods"]}

    @property
    def num_strings(self) -> int:
        """Number of strings of a picture: two for each group of channels of y, and one of z."""
        return 2 * len(self.config.groups) + 1

    @property
    def nbytes(self) -> int:
        """Bytes of all weights and tables."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters()).device

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

        Raises:
            TableError: the weights give none.
        """
        self._exact_nets.forget()
        self._identity.forget()
        return update_tables(self.latent_codec, force=force)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert all tensors: what `to`, `half`, `cuda` and others call."""
        super()._apply(fn, recurse)
        self._exact_nets.forget_if_changed(self.latent_codec)
        self._identity.forget_if_changed(self)
        return self

    def gains(self, quality: Tensor | float | None, *, pictures: int = 1) -> dict[str, Tensor | float]:
        """Return the gains of y and z and their inverses, see `GainUnits`.

        Args:
            quality: Per picture, or one for all; only for a model of several qualities.
            pictures: How many there are.

        Raises:
            QualityError: the model has no such quality, or there is neither one nor one per picture.
        """
        qualities = self.config.qualities
        if not isinstance(quality, Tensor):
            check_quality(qualities, quality)
        elif self.gain is None:
            raise QualityError(f"Expected no quality for a model of one (got {quality})")
        if self.gain is None:
            return dict.fromkeys(("y", "y_inverse", "z", "z_inverse"), 1.0)
        if quality is None:
            quality = self.config.default_quality
        of_pictures = torch.as_tensor(quality, device=self.gain.y.device).reshape(-1)
        if len(of_pictures) not in (1, pictures):
            raise QualityError(f"Expected one quality, or {pictures} (got {len(of_pictures)})")
        if not ((of_pictures >= 1) & (of_pictures <= qualities)).all():
            raise QualityError(f"Expected a quality in 1..{qualities} (got {quality})")
        return self.gain(of_pictures)

    def probability_nets(self, *, exact: bool = True) -> ProbabilityNets:
        """Return the networks of the weights as they are now, in integers, once the tables are checked.

        What changes weights behind torch's back, by `.data` for instance, is seen after `update`.

        Args:
            exact: False for the model's own, in floating point.

        Raises:
            ModelError: the model is not in float32, or has no tables (see `update`).
            TableError: the model's tables are not sound.
        """
        self._check_float32()
        if self.latent_codec.hyper.entropy_bottleneck.quantized_cdf.numel() == 0:
            raise ModelError(
                "Expected a model with probability tables (got one without); call update() first"
            )

        def make(*, exactly: bool) -> ProbabilityNets:
            check_tables(self.latent_codec)
            return ProbabilityNets(self.latent_codec, exactly=exactly)

        if not exact:
            return make(exactly=False)
        return self._exact_nets.get(self.latent_codec, partial(make, exactly=True))

    def _check_float32(self) -> None:
        if all(x.dtype == torch.float32 or not x.is_floating_point() for x in tensors_of(self)):
            return
        for name, weight in self.named_parameters():
            if weight.dtype != torch.float32:
                raise ModelError(f"Expected a model in float32 (got {weight.dtype} in {name})")


def check_quality(qualities: int, quality: float | None) -> None:
    """Refuse a quality that a model of so many does not have; None is the middle one, or that of one.

    Raises:
        QualityError: says which there are.
    """
    if quality is None:
        return
    if qualities == 1:
        raise QualityError(f"Expected no quality for a model of one (got {quality})")
    if not (isinstance(quality, Real) and 1 <= quality <= qualities):
        raise QualityError(f"Expected a quality in 1..{qualities} (got {quality})")


def latent_checksum(y_hat: Tensor) -> int:
    """Return the CRC-32 of latents, float32, little-endian."""
    return zlib.crc32(y_hat.cpu().contiguous().numpy().data)


def latent_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Return height and width of y for a picture of that height and width, which is padded."""
    height, width = (-(-side // HYPER_STRIDE) * HYPER_STRIDE // LATENT_STRIDE for side in shape)
    return height, width


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Compute where `device` is, in the tensors' own types, whatever the process has as its defaults."""
    # Where nothing is to be changed, none is set: it would look at every call of torch.
    default = nullcontext() if torch.get_default_device() == device else torch.device(device)
    with default, torch.autocast(device.type, enabled=False):
        yield
