"""More for the same decoder: latents of one picture, refined by gradients through the decoder.

    y --> dithered symbols --> y_hat --> g_s --> error --+
    ^          |                                         +--> loss of the quality, in bits
    |          +--> bits ---------------------------------+          |
    +------------------------------ Adam <---------------------------+

g_a gives good latents for any picture; for this one there are better ones. Nothing of the model changes, so
any decoder reads the file. Every few steps the latents are coded into real strings and restored: what is best
of them is kept, the start included.

After Yang, Bamler, Mandt, "Improving Inference for Neural Image Compression", NeurIPS 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from glic_pyg.codec import GLIC, QualityError, undisturbed
from glic_pyg.config import LATENT_STRIDE
from glic_pyg.entropy import dithered_latents
from glic_pyg.errors import UserError
from glic_pyg.image import crop, to_float
from glic_pyg.metrics import mse
from glic_pyg.tiles import WHOLE, Tiling

STEPS = (0, 25, 100, 400, 1500)
"""Of each effort."""
TILES = Tiling(1024)
"""Larger pictures are refined in tiles: a step holds whatever its gradient needs."""
LEARNING_RATE = 4e-2
"""Of y with its gain, whose symbols are 1 apart; at the end it is 0."""
LEAST_GRADIENT = 10.0
"""Bits per symbol: Adam's epsilon. Symbols that matter less take shorter steps, not steps of random sign."""
DITHER = 0.5
"""At the start, see `dithered_latents`; at the end it is 0."""

Watch = Callable[[int, int, float], bool | None]
"""Is told how many steps are done, of how many, and the gain so far, a share of the loss; True ends them."""


class EffortError(UserError, ValueError):
    """An effort that there is not; the message is one line for the user."""


class Cost(NamedTuple):
    """What latents cost.

    Args:
        bits: Of all strings.
        mse: Of the picture that a decoder restores, rounded to 8 bits, in squares of 1/255.
    """

    bits: float
    mse: float


def check_effort(model: GLIC, effort: int, lmbda: float | None) -> None:
    """Refuse, before the work, an effort that there is not, or that misses a lambda.

    Raises:
        EffortError: says which there are.
        QualityError: a model of one quality without a lambda.
    """
    if not (isinstance(effort, Integral) and effort in range(len(STEPS))):
        raise EffortError(f"Expected an effort in 0..{len(STEPS) - 1} (got {effort})")
    if effort and lmbda is None and model.config.qualities == 1:
        raise QualityError(
            "Expected the lambda of its training to refine with a model of one quality (got none)"
        )


def refine(
    model: GLIC,
    x: Tensor,
    y: Tensor,
    quality: float | None = None,
    *,
    steps: int,
    lmbda: float | None = None,
    hold: Literal["bits", "mse"] | None = None,
    tiling: Tiling = TILES,
    restoring: Tiling = WHOLE,
    watch: Watch | None = None,
) -> Tensor:
    r"""Return latents of a picture whose file and picture are together better, never worse.

    What gets better is \( \lambda \cdot 255^2 \cdot MSE + bpp \), of real strings and of the restored picture
    of 8 bits.

    Args:
        model: The model, with its tables.
        x: A picture in [0, 1], or of 8 bits (uint8), `1 x 3 x H x W`.
        y: Its latents, see `GLIC.analyse`.
        quality: Only for a model of several qualities.
        steps: How many, see `STEPS`; each takes about twice as long as decoding.
        lmbda: Bits per pixel that an error of 1 is worth. By default what this picture's own files say, see
            `trade`; for a model of one quality, which has no such curve, that of its training.
        hold: Let the file grow by nothing (`bits`), or the error (`mse`), and better only the other.
        tiling: Of the picture, while it is refined.
        restoring: Of the picture, while it is restored to be judged, see `GLIC.synthesise`.
        watch: Is told of every step.

    Returns:
        Of y's shape.

    Raises:
        QualityError: the model has no such quality.
        ModelError, TableError, LatentError: the model cannot code, see `GLIC.code`.
    """
    if lmbda is None:
        lmbda = trade(model, x, y, quality, restoring)
    if lmbda is None:  # more bits bring nothing to this picture, or to any
        return y
    tiles = list(tiling.tiles(*x.shape[-2:]))
    refined = y.clone()
    for number, tile in enumerate(tiles):

        def of_tile(done: int, _: int, gain: float, before: int = number * steps) -> bool | None:
            return watch(before + done, len(tiles) * steps, gain) if watch else None

        part = _refine_tile(
            model,
            x[tile.read(LATENT_STRIDE)],
            y[tile.read(1)],
            quality,
            steps,
            lmbda,
            hold,
            restoring,
            of_tile,
        )
        refined[tile.kept(1)] = part.latents[tile.core(1)]
        if part.stopped:
            break
    if len(tiles) == 1:
        return refined
    start, end = (cost(model, x, latents, quality, restoring) for latents in (y, refined))
    return refined if _better(end, start, start, lmbda * x[0, 0].numel(), hold) else y


def cost(model: GLIC, x: Tensor, y: Tensor, quality: float | None = None, restoring: Tiling = WHOLE) -> Cost:
    """Code latents into real strings, restore the picture, and return what they cost."""
    strings, y_hat = model.code(y, quality)
    x_hat = model.synthesise(y_hat, (x.size(-2), x.size(-1)), restoring, dtype=torch.uint8)
    return Cost(8 * sum(map(len, strings)), mse(x, x_hat))


def trade(
    model: GLIC, x: Tensor, y: Tensor, quality: float | None = None, restoring: Tiling = WHOLE
) -> float | None:
    """Return how many bits per pixel this picture pays for an error less by 1, at a quality.

    Told by its files half a quality below and above: the slope of its own curve, which is what a lambda is.
    None where more bits do not lessen the error, and for a model of one quality, which has no such curve.
    """
    qualities = model.config.qualities
    middle = model.config.default_quality if quality is None else quality
    if middle is None:
        return None
    low, high = (cost(model, x, y, min(max(middle + way, 1), qualities), restoring) for way in (-0.5, 0.5))
    if high.bits <= low.bits or high.mse >= low.mse:
        return None
    return (high.bits - low.bits) / (low.mse - high.mse) / x[0, 0].numel()


class _Refined(NamedTuple):
    """A tile's latents, and whether refining them was stopped."""

    latents: Tensor
    stopped: bool


def _refine_tile(
    model: GLIC,
    x: Tensor,
    y: Tensor,
    quality: float | None,
    steps: int,
    lmbda: float,
    hold: Literal["bits", "mse"] | None,
    restoring: Tiling,
    watch: Watch,
) -> _Refined:
    """Refine the latents of one tile as those of a picture of its own."""
    price = weight = lmbda * x[0, 0].numel()  # bits per error; the weight moves where something is held
    original = to_float(x)
    shape = (x.size(-2), x.size(-1))
    generator = torch.Generator(device=y.device).manual_seed(0)
    start = best = cost(model, x, y, quality, restoring)
    latents = y
    with undisturbed(y.device), _frozen(model), torch.enable_grad():
        gains = {name: torch.as_tensor(gain).detach() for name, gain in model.gains(quality).items()}
        curvature = _curvature(model, y, gains) * weight
        moving = (y * gains["y"]).detach().requires_grad_()
        optimizer = torch.optim.Adam([moving], lr=LEARNING_RATE, betas=(0.9, 0.99), eps=LEAST_GRADIENT)
        stopped = False
        for step in range(steps):
            left = 1 - step / steps
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - math.cos(math.pi * left)) / 2
            y_hat, bits = dithered_latents(
                model.latent_codec,
                moving,
                z_gain=gains["z"],
                z_gain_inverse=gains["z_inverse"],
                width=DITHER * left,
                curvature=curvature,
                generator=generator,
            )
            x_hat = crop(model.g_s(y_hat * gains["y_inverse"]), *shape).clamp(0, 1)
            error = (x_hat - original).square().mean() * 255**2
            optimizer.zero_grad()
            (weight * error + bits).backward()
            if moving.grad is None or not moving.grad.isfinite().all():
                break
            optimizer.step()
            if (step + 1) % max(10, steps // 40) == 0 or step + 1 == steps:
                tried = moving.detach() / gains["y"]
                now = cost(model, x, tried, quality, restoring)
                if _better(now, best, start, price, hold):
                    best, latents = now, tried
                if hold == "bits":
                    weight *= (start.bits / now.bits) ** 2
                elif hold == "mse" and start.mse > 0:
                    weight *= (now.mse / start.mse) ** 2
            if watch(step + 1, steps, 1 - _total(best, price) / _total(start, price)):
                stopped = True
                break
    return _Refined(latents, stopped)


def _curvature(model: GLIC, y: Tensor, gains: dict[str, Tensor]) -> Tensor:
    """Estimate the second derivative of the picture's error by a symbol of each channel, `M`.

    It is twice the square of what the symbol does to each pixel, summed; a gradient of random signs, squared,
    is that sum on average (Hutchinson's estimator), and the mean over positions does the averaging.
    """
    y_hat = y.detach().requires_grad_()
    x_hat = model.g_s(y_hat)
    generator = torch.Generator(device=y.device).manual_seed(0)
    signs = torch.randint(0, 2, x_hat.shape, generator=generator, device=y.device) * 2.0 - 1
    (gradient,) = torch.autograd.grad(x_hat, y_hat, signs)
    per_pixel = (gradient * gains["y_inverse"]).square().mean((0, 2, 3))
    return 2 * 255**2 * per_pixel / x_hat.numel()


def _better(one: Cost, other: Cost, start: Cost, weight: float, hold: Literal["bits", "mse"] | None) -> bool:
    if hold == "bits":
        return one.bits <= start.bits and one.mse < other.mse
    if hold == "mse":
        return one.mse <= start.mse and one.bits < other.bits
    return _total(one, weight) < _total(other, weight)


def _total(some: Cost, weight: float) -> float:
    return some.bits + weight * some.mse


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let no weight ask for a gradient."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)
