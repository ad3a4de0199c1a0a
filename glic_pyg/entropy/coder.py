"""From latents to strings and back, in the order that gives each part the most to be predicted from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, chain, pairwise
from typing import TypeVar

import torch
from compressai.entropy_models import EntropyModel, GaussianConditional
from compressai.latent_codecs import CheckerboardLatentCodec, HyperpriorLatentCodec
from torch import Tensor, nn

from glic_pyg.entropy import rans
from glic_pyg.entropy.exact import exact, exact_arithmetic
from glic_pyg.errors import UserError
from glic_pyg.threads import in_one_thread

Result = TypeVar("Result")

LARGEST = 2**23
"""Of the values that are coded: with 2^27, or no number, CompressAI's coder never ends."""

CodeHalf = Callable[[GaussianConditional, Tensor, Tensor], Tensor]
"""Entropy model, rows of its table and means of half a group -> its y_hat; all tensors of one shape."""


class LatentError(UserError, ValueError):
    """Latents that cannot be coded, or strings that hold none; the message is one line for the user."""


class ProbabilityNets(nn.Module):
    """The networks that tell encoder and decoder the probabilities of what comes next.

    Args:
        codec: The entropy model.
        exactly: Whether they have the same bits everywhere (see `glic_pyg.entropy.exact`), or are the
            entropy model's own, as the files of the format's first versions want them.
    """

    def __init__(self, codec: HyperpriorLatentCodec, *, exactly: bool) -> None:
        super().__init__()
        version = exact if exactly else lambda net: net
        self.exactly = exactly
        groups = codec.y.latent_codec.values()
        self.h_s = version(codec.hyper.h_s)
        self.channel_contexts = nn.ModuleList(map(version, codec.y.channel_context.values()))
        self.predictions = nn.ModuleList(version(group.context_prediction) for group in groups)
        self.parameter_nets = nn.ModuleList(version(group.entropy_parameters) for group in groups)

    def run(self, function: Callable[[], Result]) -> Result:
        """Call what uses the networks so that it has the same bits every time.

        Raises:
            InexactError: the environment does not allow that on a GPU.
        """
        if not self.exactly:
            return in_one_thread(function)
        with exact_arithmetic(next(self.buffers()).device):
            return function()


def encode_latents(
    codec: HyperpriorLatentCodec,
    nets: ProbabilityNets,
    y: Tensor,
    *,
    z_gain: Tensor | float,
    z_gain_inverse: Tensor | float,
) -> tuple[list[bytes], Tensor]:
    """Code the latents of one picture.

    Args:
        codec: The entropy model, with its tables.
        nets: Its networks.
        y: Latents with their gain, `1 x M x H x W`; H and W multiples of 4.
        z_gain: Of z before it is rounded, `1 x N x 1 x 1`.
        z_gain_inverse: Of z after it.

    Returns:
        The strings, two for each group of channels and one of z, and y_hat of y's shape.

    Raises:
        LatentError: a value is no number, or too large for the coder.
    """
    bottleneck = codec.hyper.entropy_bottleneck
    parts = zip(_checkerboards(codec), y.split(codec.y.groups, dim=1), strict=True)
    halves = chain.from_iterable(group.unembed(part) for group, part in parts)
    strings = []

    def encode(gaussian: GaussianConditional, indexes: Tensor, means: Tensor) -> Tensor:
        half = next(halves)
        _check_codable("y", half - means)
        symbols = gaussian.quantize(half, "symbols", means)
        strings.append(rans.encode(gaussian, symbols, indexes))
        return gaussian.dequantize(symbols, means)

    def work() -> tuple[list[bytes], Tensor]:
        z, medians = codec.hyper.h_a(y) * z_gain, bottleneck.quantiles[:, 0, 1, None, None]
        _check_codable("z", z - medians)
        symbols = bottleneck.quantize(z, "symbols", medians).contiguous()  # as the decoder has them
        of_z = rans.encode(bottleneck, symbols, _channels(symbols))
        z_hat = bottleneck.dequantize(symbols, medians)
        y_hat = _latents(codec, nets, z_hat * z_gain_inverse, encode)
        return [*strings, of_z], y_hat

    return nets.run(work)


def decode_latents(
    codec: HyperpriorLatentCodec,
    nets: ProbabilityNets,
    strings: Sequence[bytes],
    z_shape: tuple[int, int],
    *,
    z_gain_inverse: Tensor | float,
) -> Tensor:
    """Decode the latents of one picture.

    What a wrong string costs is in proportion to its length: it is refused as soon as it cannot hold the
    symbols that it should.

    Args:
        codec: The entropy model, with its tables.
        nets: Its networks, of the encoder's kind.
        strings: As `encode_latents` returned them.
        z_shape: Height and width of z, a quarter of y's.
        z_gain_inverse: As the encoder had it.

    Returns:
        y_hat, `1 x M x H x W`.

    Raises:
        LatentError: a string that cannot be of so many symbols.
    """
    *of_y, of_z = strings
    rest = iter(of_y)
    bottleneck = codec.hyper.entropy_bottleneck

    def decode(gaussian: GaussianConditional, indexes: Tensor, means: Tensor) -> Tensor:
        return gaussian.dequantize(_symbols(gaussian, next(rest), indexes), means)

    def work() -> Tensor:
        rows = _channels(bottleneck.quantiles.new_empty(1, bottleneck.channels, *z_shape))
        z_hat = bottleneck.dequantize(
            _symbols(bottleneck, of_z, rows), bottleneck.quantiles[:, 0, 1, None, None]
        )
        return _latents(codec, nets, z_hat * z_gain_inverse, decode)

    return nets.run(work)


def _latents(codec: HyperpriorLatentCodec, nets: ProbabilityNets, z_hat: Tensor, code: CodeHalf) -> Tensor:
    """Go through the groups of channels, each in two halves, and return y_hat."""
    params = nets.h_s(z_hat)
    y_hat = params.new_zeros(1, sum(codec.y.groups), *params.shape[-2:])
    places = pairwise(accumulate(codec.y.groups, initial=0))
    for k, ((first, end), group) in enumerate(zip(places, _checkerboards(codec), strict=True)):
        side = params
        if k > 0:
            side = torch.cat([nets.channel_contexts[k - 1](y_hat[:, :first]), params], dim=1)
        sides = group.unembed(side)
        del side  # of large pictures, each of these takes much
        context = sides.new_zeros(1, 2 * (end - first), *sides.shape[-2:])
        hat = sides.new_zeros(2, 1, end - first, *sides.shape[-2:])
        gaussian = group.y.gaussian_conditional
        for half in (0, 1):
            if half == 1:
                context = group.unembed(nets.predictions[k](group.embed(hat)))[1]
            scales, means = nets.parameter_nets[k](torch.cat([context, sides[half]], dim=1)).chunk(2, dim=1)
            scales = gaussian.lower_bound_scale(scales.contiguous())
            indexes = rans.rows_of_scales(scales, gaussian.scale_table[:-1])
            del scales
            hat[half] = code(gaussian, indexes, means)
        y_hat[:, first:end] = group.embed(hat)
    return y_hat


def _check_codable(name: str, values: Tensor) -> None:
    largest = values.abs().max().item()
    if not largest < LARGEST:
        raise LatentError(
            f"Expected values of {name} below {LARGEST} (got {largest}): the model's weights are not sound"
        )


def _checkerboards(codec: HyperpriorLatentCodec) -> Sequence[CheckerboardLatentCodec]:
    return list(codec.y.latent_codec.values())


def _channels(z: Tensor) -> Tensor:
    """Return the channel of each value of `1 x N x H x W`, its row of z's tables."""
    return torch.arange(z.size(1), dtype=torch.int32, device=z.device)[:, None, None].expand(z.shape)


def _symbols(model: EntropyModel, string: bytes, rows: Tensor) -> Tensor:
    """Decode a string.

    Raises:
        LatentError: it is cut short, or longer than any of so many symbols.
    """
    longest = 8 * rows.numel() + 64  # escaped, a symbol takes up to 7 bytes
    if len(string) > longest:
        raise LatentError(f"Expected at most {longest} bytes for {rows.numel()} symbols (got {len(string)})")
    symbols = rans.decode(model, string, rows)
    if symbols is None:
        raise LatentError(f"Expected a string of {rows.numel()} symbols (got {len(string)} bytes): cut short")
    return symbols
