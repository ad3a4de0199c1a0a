"""What training sees of the coder: the latents that a decoder would have, and how likely symbols are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from compressai.entropy_models import GaussianConditional
from compressai.latent_codecs import HyperLatentCodec, HyperpriorLatentCodec
from compressai.latent_codecs.gain import GainHyperLatentCodec, GainHyperpriorLatentCodec
from compressai.ops import quantize_ste
from torch import Tensor

Quantise = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Rows of half a group, their scales and means -> their y_hat, all of one shape."""


class Checkerboard(NamedTuple):
    """The positions of a map in coding order: those with an even sum of row and column first.

    Args:
        order: Their numbers, row by row, in coding order, `H * W`.
        place: Where in that order each position is.
        height: Of the map.
        width: Of the map, even.
    """

    order: Tensor
    place: Tensor
    height: int
    width: int

    @classmethod
    def of(cls, x: Tensor) -> Checkerboard:
        """Return that of a map `... x H x W`."""
        height, width = x.shape[-2:]
        rows, columns = (torch.arange(n, device=x.device) for n in (height, width // 2))
        shift = (rows % 2)[:, None]
        first = rows[:, None] * width + 2 * columns
        order = torch.cat([(first + shift).flatten(), (first + 1 - shift).flatten()])
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
        return cls(order, place, height, width)

    def split(self, x: Tensor) -> Tensor:
        """Map `B x C x H x W` to rows in coding order, `B x HW x C`."""
        return Reorder.apply(x.movedim(1, -1).flatten(1, 2), self.order, self.place)

    def merge(self, rows: Tensor) -> Tensor:
        """Map rows in coding order back to `B x C x H x W`."""
        rows = Reorder.apply(rows, self.place, self.order)
        return rows.unflatten(1, (self.height, self.width)).movedim(-1, 1)


class Reorder(torch.autograd.Function):
    """Rows in another order; their gradients go back by the inverse, which is quicker than adding them up.

    Args:
        x: `B x N x C`.
        order: The numbers of the rows to take, a permutation.
        inverse: Its inverse.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return Reorder.apply(gradient, inverse, order), None, None


def forward_latents(
    codec: HyperpriorLatentCodec | GainHyperpriorLatentCodec,
    y: Tensor,
    *,
    z_gain: Tensor | float,
    z_gain_inverse: Tensor | float,
    rounded: bool = False,
) -> dict[str, Any]:
    """Return what CompressAI's latent codecs return, for less: networks see every position once.

    They see each group in two halves, as the coder does; CompressAI lets them see the whole of it twice.

    In training the rate is that of latents with noise, while y_hat is rounded and its gradient goes straight
    through. With `rounded` all is as in the coder, for the end of a training: the encoder gets no gradient,
    and what decodes gets that of

    - y_hat = symbol + mean with the symbol fixed, since the error does not jump where the symbol does;
    - the rate with the symbol's gradient straight through the rounding, to y - mean: the rate of fixed
      symbols tells means nothing.

    After Borzechowski et al., "Optimizing Learned Image Compression on Scalar and Entropy-Constraint
    Quantization", 2024.

    Args:
        codec: The entropy model.
        y: Latents with their gain, `B x M x H x W`; H and W multiples of 4.
        z_gain: Of z before it is rounded.
        z_gain_inverse: Of z after it.
        rounded: Whether symbols are rounded wherever they are used, for good.

    Returns:
        `y_hat` of y's shape, and `likelihoods`: `y`, of the same shape, and `z`.
    """
    z_hat, z_likelihoods = _side_information(codec.hyper, y, z_gain, rounded=rounded)
    board = Checkerboard.of(y)
    latents = board.split(y.detach() if rounded else y)
    scales, means = [], []

    def quantise(own: Tensor, scale: Tensor, mean: Tensor) -> Tensor:
        scales.append(scale)
        means.append(mean)
        symbols = quantize_ste(own - mean)
        return (symbols.detach() if rounded else symbols) + mean

    y_hat = _through_groups(codec, board, latents, z_hat * z_gain_inverse, quantise)
    scale, mean = (
        torch.cat([torch.cat(some[half::2], dim=-1) for half in (0, 1)], dim=1) for some in (scales, means)
    )
    gaussian = _gaussian(codec)
    if rounded:
        y_likelihoods = gaussian._likelihood(quantize_ste(latents - mean), scale)
        y_likelihoods = gaussian.likelihood_lower_bound(y_likelihoods)
    else:
        _, y_likelihoods = gaussian(latents, scale, mean)
    likelihoods = {"y": board.merge(y_likelihoods), "z": z_likelihoods}
    return {"likelihoods": likelihoods, "y_hat": y_hat}


def dithered_latents(
    codec: HyperpriorLatentCodec | GainHyperpriorLatentCodec,
    y: Tensor,
    *,
    z_gain: Tensor | float,
    z_gain_inverse: Tensor | float,
    width: float,
    curvature: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    r"""Return y_hat and its bits as the coder has them, with gradients that tell y where to go.

    Symbols are whole numbers, as in the coder, so that no value carries what rounding would remove. Which of
    two is left to chance where \( r = y - mean \) is within `width / 2` of their middle: that lets a
    gradient see the other one. Gradients go straight through the rounding, and are of whole steps, not of
    slopes. With \( n = \lfloor r \rfloor \), bits b, and c the curvature of what else the loss has, they are

    .. math:: b(n + 1) - b(n), \quad \pm c / 2,

    the latter added to the slope at \(n\) (plus) or \(n + 1\) (minus), whichever the symbol is. At 0, where
    most symbols are, b has no slope at all, however dear it is to leave it; and a slope at one symbol is not
    what it takes to get to the next. z is what the coder makes of y, without a gradient.

    After the stochastic rounding of Yang et al., "Improving Inference for Neural Image Compression", NeurIPS
    2020, and Perugachi-Diaz et al., "Robustly overfitting latents for flexible neural image compression",
    2024; whole symbols and the gradients of whole steps are this project's.

    Args:
        codec: The entropy model.
        y: Latents with their gain, `1 x M x H x W`; H and W multiples of 4.
        z_gain: Of z before it is rounded.
        z_gain_inverse: Of z after it.
        width: 0 is rounding, 1 makes every probability linear in r.
        curvature: Second derivative of the loss but for the bits, by a symbol of each channel, `M`.
        generator: Of the chances.

    Returns:
        `y_hat` of y's shape, and the bits of y, a scalar, to the gradient of which the curvature is added.
    """
    z_hat, _ = _side_information(codec.hyper, y.detach(), z_gain, rounded=True)
    board, gaussian, bits = Checkerboard.of(y), _gaussian(codec), []
    of_halves = (c for c in curvature.split(codec.y.groups) for _ in range(2))

    def quantise(own: Tensor, scale: Tensor, mean: Tensor) -> Tensor:
        def bits_of(symbols: Tensor) -> Tensor:
            return -gaussian.likelihood_lower_bound(gaussian._likelihood(symbols, scale)).log2()

        residual = own - mean
        fixed = residual.detach()
        chance = torch.rand(fixed.shape, generator=generator, device=fixed.device, dtype=fixed.dtype)
        symbols = (fixed + width * (chance - 0.5)).round()
        moved = residual - fixed  # 0, with the gradient of the residual
        with torch.no_grad():
            below = fixed.floor()
            step = bits_of(below + 1) - bits_of(below) + next(of_halves) * (0.5 - (symbols - below))
        bits.append((bits_of(symbols) + moved * step).sum())
        return symbols + moved + mean

    y_hat = _through_groups(codec, board, board.split(y), z_hat * z_gain_inverse, quantise)
    return y_hat, torch.stack(bits).sum()


def _through_groups(
    codec: HyperpriorLatentCodec | GainHyperpriorLatentCodec,
    board: Checkerboard,
    latents: Tensor,
    z_hat: Tensor,
    quantise: Quantise,
) -> Tensor:
    """Go through the groups of channels, each in two halves, and return y_hat.

    Args:
        codec: The entropy model.
        board: The positions of y.
        latents: y in rows, see `Checkerboard.split`.
        z_hat: What h_s reads.
        quantise: Rows of half a group, their scales and means -> their y_hat.
    """
    num_anchors = len(board.order) // 2
    side = board.split(codec.hyper.h_s(z_hat))
    hats: list[Tensor] = []
    for k, (group, part) in enumerate(
        zip(codec.y.latent_codec.values(), latents.split(codec.y.groups, dim=-1), strict=True)
    ):
        known = side
        if k > 0:
            context = codec.y.channel_context[f"y{k}"](torch.cat(hats, dim=1))
            known = torch.cat([board.split(context), side], dim=-1)
        halves: list[Tensor] = []
        context = side.new_zeros(len(side), num_anchors, 2 * part.size(-1))
        for own, of_half in zip(part.split(num_anchors, 1), known.split(num_anchors, 1), strict=True):
            if halves:
                hat = torch.cat([halves[0], torch.zeros_like(halves[0])], dim=1)
                context = board.split(group.context_prediction(board.merge(hat)))[:, num_anchors:]
            rows = torch.cat([context, of_half], dim=-1)
            parameters = group.entropy_parameters(rows[:, None].movedim(-1, 1)).movedim(1, -1)[:, 0]
            halves.append(quantise(own, *parameters.chunk(2, dim=-1)))
        hats.append(board.merge(torch.cat(halves, dim=1)))
    return torch.cat(hats, dim=1)


def _gaussian(codec: HyperpriorLatentCodec | GainHyperpriorLatentCodec) -> GaussianConditional:
    """Return one group's Gaussian: all have the same settings."""
    return next(iter(codec.y.latent_codec.values())).y.gaussian_conditional


def _side_information(
    hyper: HyperLatentCodec | GainHyperLatentCodec, y: Tensor, gain: Tensor | float, *, rounded: bool
) -> tuple[Tensor, Tensor]:
    """Return z_hat, with its gain, and the likelihoods of z."""
    bottleneck = hyper.entropy_bottleneck
    with torch.no_grad() if rounded else nullcontext():
        z = hyper.h_a(y) * gain
    medians = bottleneck._get_medians().detach()
    by_channel = z.transpose(0, 1)
    values = by_channel.flatten(1)[:, None]
    mode = "noise" if bottleneck.training and not rounded else "dequantize"
    values = bottleneck.quantize(values, mode, medians)
    likelihoods = bottleneck.likelihood_lower_bound(bottleneck._likelihood(values)[0])
    z_hat, likelihoods = (x.reshape(by_channel.shape).transpose(0, 1) for x in (values, likelihoods))
    # CompressAI's codec with gains has no other z_hat than the one whose likelihood it takes.
    if isinstance(hyper, HyperLatentCodec):
        z_hat = quantize_ste(z - medians) + medians
    return z_hat, likelihoods
