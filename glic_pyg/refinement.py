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
from functools import partial
from numbers import Integral
from statistics import fmean
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn

from glic_pyg.codec import GLIC, QualityError, undisturbed
from glic_pyg.config import LATENT_STRIDE
from glic_pyg.entropy import dithered_latents
from glic_pyg.errors import UserError
from glic_pyg.image import crop, to_float
from glic_pyg.metrics import LEAST_SIDE, Distortion, ms_ssim, mse
from glic_pyg.tiles import WHOLE, Tiling

STEPS = (0, 25, 50, 100, 400)
"""Of each effort."""
TILES = Tiling(1024)
"""Larger pictures are refined in tiles: a step holds whatever its gradient needs."""
LEARNING_RATE = 4e-2
"""Of y with its gain, whose symbols are 1 apart; at the end it is 0."""
LEAST_GRADIENT = 10.0
"""Bits per symbol: Adam's epsilon. Symbols that matter less take shorter steps, not steps of random sign."""
DITHER = 0.5
"""At the start, see `dithered_latents`; at the end it is 0."""
PATIENCE = 0.75
"""Share of the steps after which a tile that has gained nothing is left: none was seen that gained later."""

Watch = Callable[[int, int, float], bool | None]
"""Is told how many steps are done, of how many, and the gain so far, a share of the loss; True ends them."""


class EffortError(UserError, ValueError):
    """An effort or a distortion that there is not; the message is one line for the user."""


class Cost(NamedTuple):
    """What latents cost.

    Args:
        bits: Of all strings.
        distortion: Of the picture that a decoder restores, rounded to 8 bits: its mean squared error in
            squares of 1/255, or 1 - MS-SSIM.
    """

    bits: float
    distortion: float


def check_effort(
    model: GLIC, effort: int, lmbda: float | None = None, distortion: Distortion | None = None
) -> None:
    """Refuse, before the work, an effort or a distortion that there is not, or that misses a lambda.

    Raises:
        EffortError: says which there are.
        QualityError: a model of one quality without a lambda.
    """
    if not (isinstance(effort, Integral) and effort in range(len(STEPS))):
        raise EffortError(f"Expected an effort in 0..{len(STEPS) - 1} (got {effort})")
    if distortion not in (None, *get_args(Distortion)):
        names = " or ".join(get_args(Distortion))
        raise EffortError(f"Expected a distortion of {names} (got {distortion})")
    if effort and lmbda is None and model.config.qualities == 1 and _own_lambda(model, distortion) is None:
        raise QualityError(
            "Expected the lambda of its training to refine with a model of one quality (got none)"
        )


def own_distortion(model: GLIC) -> Distortion:
    """Return what a model was trained for, as its checkpoint notes it: the squared error if it does not."""
    return "ms-ssim" if model.info.get("distortion") == "ms-ssim" else "mse"


def _own_lambda(model: GLIC, distortion: Distortion | None) -> float | None:
    """Return the lambda that a model of one quality was trained with for a distortion, if that is noted."""
    noted = model.info.get("lambda")
    if distortion not in (None, own_distortion(model)) or not isinstance(noted, list) or len(noted) != 1:
        return None
    (lmbda,) = noted
    return lmbda if isinstance(lmbda, int | float) and 0 < lmbda < math.inf else None


def refine(
    model: GLIC,
    x: Tensor,
    y: Tensor,
    quality: float | None = None,
    *,
    steps: int,
    lmbda: float | None = None,
    distortion: Distortion | None = None,
    tiling: Tiling = TILES,
    restoring: Tiling = WHOLE,
    watch: Watch | None = None,
) -> Tensor:
    r"""Return latents of a picture whose file and picture are together better, never worse.

    What gets better is \( \lambda \cdot D + bpp \), of real strings and of the restored picture of 8 bits,
    where D is \( 255^2 \cdot MSE \) or 1 - MS-SSIM, the mean of the tiles.

    Args:
        model: The model, with its tables.
        x: A picture in [0, 1], or of 8 bits (uint8), `1 x 3 x H x W`.
        y: Its latents, see `GLIC.analyse`.
        quality: Only for a model of several qualities.
        steps: How many, see `STEPS`; each takes about twice as long as decoding.
        lmbda: Bits per pixel that a distortion of 1 is worth. By default what this picture's own files say,
            see `trade`; for a model of one quality, which has no such curve, that of its training.
        distortion: D; by default what the model was trained for.
        tiling: Of the picture, while it is refined.
        restoring: Of the picture, while it is restored to be judged, see `GLIC.synthesise`.
        watch: Is told of every step.

    Returns:
        Of y's shape.

    Raises:
        EffortError: the picture is too small for MS-SSIM.
        QualityError: the model has no such quality.
        ModelError, TableError, LatentError: the model cannot code, see `GLIC.code`.
    """
    if lmbda is None and model.config.qualities == 1:
        lmbda = _own_lambda(model, distortion)
    distortion = distortion or own_distortion(model)
    height, width = x.shape[-2:]
    if distortion == "ms-ssim" and min(height, width) < LEAST_SIDE:
        raise EffortError(
            f"Expected sides of at least {LEAST_SIDE} pixels to refine for ms-ssim (got {width} x {height})"
        )
    judge = partial(cost, model, distortion=distortion, tiling=tiling, restoring=restoring)
    if lmbda is None:
        lmbda = trade(model, x, y, quality, distortion=distortion, tiling=tiling, restoring=restoring)
    if lmbda is None:  # more bits bring nothing to this picture, or to any
        return y
    aim = _Aim(quality, steps, lmbda, distortion)
    tiles = list(tiling.tiles(height, width))
    refined = y.clone()
    for number, tile in enumerate(tiles):

        def of_tile(done: int, _: int, gain: float, before: int = number * steps) -> bool | None:
            return watch(before + done, len(tiles) * steps, gain) if watch else None

        part = _refine_tile(model, x[tile.read(LATENT_STRIDE)], y[tile.read(1)], aim, judge, of_tile)
        refined[tile.kept(1)] = part.latents[tile.core(1)]
        if part.stopped:
            break
    if len(tiles) == 1:
        return refined
    start, end = (_total(judge(x, latents, quality), lmbda * x[0, 0].numel()) for latents in (y, refined))
    return refined if end < start else y


def cost(
    model: GLIC,
    x: Tensor,
    y: Tensor,
    quality: float | None = None,
    *,
    distortion: Distortion = "mse",
    tiling: Tiling = TILES,
    restoring: Tiling = WHOLE,
) -> Cost:
    """Code latents into real strings, restore the picture, and return what they cost.

    The arguments are those of `refine`. MS-SSIM is the mean of the tiles, which takes less memory.
    """
    strings, y_hat = model.code(y, quality)
    height, width = x.shape[-2:]
    x_hat = model.synthesise(y_hat, (height, width), restoring, dtype=torch.uint8)
    bits = 8 * sum(map(len, strings))
    if distortion == "mse":
        return Cost(bits, mse(x, x_hat))
    tiles = [tile.read(LATENT_STRIDE) for tile in tiling.tiles(height, width)]
    return Cost(bits, fmean(1 - ms_ssim(x[tile], x_hat[tile]) for tile in tiles))


def trade(
    model: GLIC,
    x: Tensor,
    y: Tensor,
    quality: float | None = None,
    *,
    distortion: Distortion = "mse",
    tiling: Tiling = TILES,
    restoring: Tiling = WHOLE,
) -> float | None:
    """Return how many bits per pixel this picture pays for a distortion less by 1, at a quality.

    Told by its files half a quality below and above: the slope of its own curve, which is what a lambda is.
    None where more bits do not lessen the distortion, and for a model of one quality, which has no such
    curve. The arguments are those of `refine`.
    """
    qualities = model.config.qualities
    middle = model.config.default_quality if quality is None else quality
    if middle is None:
        return None
    judge = partial(cost, model, x, y, distortion=distortion, tiling=tiling, restoring=restoring)
    low, high = (judge(min(max(middle + way, 1), qualities)) for way in (-0.5, 0.5))
    if high.bits <= low.bits or high.distortion >= low.distortion:
        return None
    return (high.bits - low.bits) / (low.distortion - high.distortion) / x[0, 0].numel()


class _Aim(NamedTuple):
    """What is wanted of a tile, as `refine` is told it."""

    quality: float | None
    steps: int
    lmbda: float
    distortion: Distortion


class _Refined(NamedTuple):
    """A tile's latents, and whether refining them was stopped."""

    latents: Tensor
    stopped: bool


def _refine_tile(
    model: GLIC, x: Tensor, y: Tensor, aim: _Aim, judge: Callable[..., Cost], watch: Watch
) -> _Refined:
    """Refine the latents of one tile as those of a picture of its own."""
    quality, steps, lmbda, distortion = aim
    weight = lmbda * x[0, 0].numel()  # bits per distortion
    original = to_float(x)
    shape = (x.size(-2), x.size(-1))
    generator = torch.Generator(device=y.device).manual_seed(0)
    start = best = _total(judge(x, y, quality), weight)
    latents = y
    with undisturbed(y.device), _frozen(model), torch.enable_grad():
        gains = {name: torch.as_tensor(gain).detach() for name, gain in model.gains(quality).items()}
        # For MS-SSIM none was found that helps.
        curvature = _curvature(model, y, gains) * weight if distortion == "mse" else y.new_zeros(y.size(1))
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
            optimizer.zero_grad()
            (weight * _distortion(x_hat, original, distortion) + bits).backward()
            if moving.grad is None or not moving.grad.isfinite().all():
                break
            optimizer.step()
            judged = (step + 1) % max(10, steps // 40) == 0 or step + 1 == steps
            if judged:
                tried = moving.detach() / gains["y"]
                now = _total(judge(x, tried, quality), weight)
                if now < best:
                    best, latents = now, tried
            if watch(step + 1, steps, 1 - best / start):
                stopped = True
                break
            if judged and best == start and step + 1 >= PATIENCE * steps:
                break
    return _Refined(latents, stopped)


def _distortion(x_hat: Tensor, x: Tensor, distortion: Distortion) -> Tensor:
    if distortion == "mse":
        return (x_hat - x).square().mean() * 255**2
    from pytorch_msssim import ms_ssim

    return 1 - ms_ssim(x_hat, x, data_range=1)


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


def _total(some: Cost, weight: float) -> float:
    return some.bits + weight * some.distortion


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
