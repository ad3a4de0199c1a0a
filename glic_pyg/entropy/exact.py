r"""The entropy model's networks in arithmetic that has the same bits everywhere.

A decoder must compute the very probabilities that the encoder had: a scale in another row of the table, and
all that follows is noise. Sums of floats depend on their order, so on threads, instruction sets, layouts and
devices; exponentials on the library. Here

- sums are of integers, kept in float32: weights and activations are rounded to integers so small that no sum,
  in any order, leaves the \( 2^{24} \) up to which float32 counts exactly;
- all else is addition, multiplication, division, square root and rounding of single values, which IEEE 754
  defines to the last bit. Nothing is divided by a Python number: on a GPU, torch would multiply by its
  reciprocal.

Activations have 8 bits and a sign, in steps of the largest of their position (of their channel where a
convolution is depthwise, of the whole map where it mixes positions and channels). Weights have as many as the
sums leave, in steps of their output channel. See `docs/format.md` for what follows for files.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property, partial, reduce
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from compressai.layers import CheckerboardMaskedConv2d
from torch import Tensor, nn

from glic_pyg.entropy import exact_kernels
from glic_pyg.entropy.context import PointwiseBlock, PointwiseNet
from glic_pyg.entropy.exact_kernels import GELU_COEFFICIENTS, NORM_QMAX, QMAX, TINY
from glic_pyg.errors import UserError
from glic_pyg.kernels import use_kernels
from glic_pyg.nn.conv import ConvBlock, GatedFeedForward, LayerNorm2d
from glic_pyg.nn.pointwise import linear
from glic_pyg.products import packed_pairs, wide
from glic_pyg.threads import parts_of, share_out

LIMIT = 2**24
"""Integers up to here are exact in float32."""
POSITIONS_AT_ONCE = 2**14
"""Where a GPU computes: its launches are few, and memory is bounded."""

OVERRULING = ("NVIDIA_TF32_OVERRIDE", "CUBLAS_EMULATE_SINGLE_PRECISION")
"""Variables by which NVIDIA's libraries compute with fewer bits, or otherwise, whatever torch tells them."""


class InexactError(UserError, RuntimeError):
    """A process whose sums need not be exact; the message is one line for the user."""


class _Held:
    """Settings of the process that have one value while anybody needs it, and then what they had before."""

    def __init__(self) -> None:
        self.before: list[Callable[[], object]] = []
        self.begin()

    def begin(self) -> None:
        """Let nobody need them."""
        self.lock = threading.Lock()
        self.users = 0

    def take(self) -> None:
        """Set them, if nobody has yet."""
        with self.lock:
            if self.users == 0:
                backends = torch.backends
                mkldnn: Any = backends.mkldnn  # an object, which torch puts in the place of a module
                above = {
                    mkldnn.matmul: mkldnn,
                    mkldnn.conv: mkldnn,
                    backends.cuda.matmul: backends.cudnn,
                }
                for backend, parent in above.items():
                    precision = backend.fp32_precision
                    if precision not in ("none", "ieee"):
                        inherited = precision == parent.fp32_precision
                        self._set(backend, "fp32_precision", "ieee", "none" if inherited else precision)
                if torch.cuda.is_available():
                    self._set(backends.cudnn, "enabled", False, backends.cudnn.enabled)
                if not (mkldnn.enabled and mkldnn.is_available()):
                    (enabled,) = backends.nnpack.set_flags(False)  # it would take convolutions of a batch
                    self.before.append(partial(backends.nnpack.set_flags, enabled))
            self.users += 1

    def give_back(self) -> None:
        """Set them as they were, if nobody else needs them."""
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.restore()

    def restore(self) -> None:
        """Set them as they were."""
        while self.before:
            self.before.pop()()

    def _set(self, owner: Any, name: str, value: Any, before: Any) -> None:
        self.before.append(partial(setattr, owner, name, before))
        setattr(owner, name, value)


_held = _Held()


def _restart() -> None:
    """Let a forked process, where those who hold settings are not, begin anew."""
    _held.restore()
    _held.begin()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing is forked
    os.register_at_fork(after_in_child=_restart)


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Keep torch from computing with fewer bits, or convolutions by transforms that leave the integers.

    Nothing is set that is so already, as on a CPU with torch's defaults. Several threads may hold settings
    at a time; the last one gives them back.

    Args:
        device: What computes.

    Raises:
        InexactError: the environment overrules torch there.
    """
    if device.type == "cuda":
        for name in OVERRULING:
            if (value := os.environ.get(name, "0")) != "0":
                raise InexactError(f"Expected {name} to be unset, for exact sums on the GPU (got {value})")
    _held.take()
    try:
        yield
    finally:
        _held.give_back()


def exact(network: nn.Module) -> nn.Module:
    """Return a network that computes nearly the same as `network`, to the same bits everywhere.

    It is a copy with other convolutions, normalisations and GELUs; the forward passes around them are the
    network's own, by its plain kernels. They may add, multiply, compare and move values, and nothing else.

    Args:
        network: Made of convolutions, `LayerNorm2d` and `nn.GELU`.

    Raises:
        TypeError: another module in it has no exact counterpart.
    """
    copied: dict[int, nn.Module] = {}  # what `deepcopy` takes for copies it has made
    for module in network.modules():
        for kind, make in EXACT.items():
            if isinstance(module, kind):
                copied[id(module)] = make(module)
        if not (id(module) in copied or isinstance(module, UNCHANGED) or list(module.children())):
            raise TypeError(f"Expected a module of the entropy model (got {type(module).__name__})")
    for module in network.modules():
        if isinstance(module, ConvBlock):
            copied[id(module.ffn)] = Chunked(deepcopy(module.ffn, copied))
            copied[id(module)] = ExactBlock(deepcopy(module, copied))
        elif isinstance(module, PointwiseNet):
            copied[id(module)] = Chunked(*(deepcopy(part, copied) for part in module))
    return use_kernels(deepcopy(network, copied), "reference")


def compiled_for(module: Compilable, x: Tensor) -> bool:
    """Return whether `glic_pyg.entropy.exact_kernels` computes what a module makes of `x`."""
    return x.device.type == "cpu" and module.narrow


class Compilable(nn.Module):
    """What compiled code computes on the CPU if its integers have 16 bits, as nearly all weights have."""

    @cached_property
    def narrow(self) -> bool:
        """Whether they have; of depthwise convolutions they may have more."""
        dense = [part for part in self.modules() if isinstance(part, ExactConv2d) and part.groups == 1]
        return all(conv.weight.abs().max() < 2**15 for conv in dense)


class Chunked(nn.Sequential, Compilable):
    """Modules that read one position at a time, on some of the positions at a time."""

    def forward(self, x: Tensor) -> Tensor:
        if compiled_for(self, x):
            return _share_out(self, x)
        run, rows = super().forward, x.movedim(1, -1)
        parts = rows.reshape(-1, x.size(1)).split(POSITIONS_AT_ONCE)
        out = torch.cat([run(part.T[None, :, None])[0, :, 0].T for part in parts])
        return out.view(*rows.shape[:-1], -1).movedim(-1, 1)


def _share_out(modules: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Map `B x C x H x W` by modules that read one position at a time, in compiled code."""
    rows = x.movedim(1, -1).contiguous()
    positions = rows.view(-1, x.size(1)).numpy()
    parts = list(pairwise(parts_of(len(positions))))
    mapped = share_out(lambda part: reduce(_of_positions, modules, positions[slice(*part)]), parts)
    return torch.from_numpy(np.concatenate(mapped)).view(*rows.shape[:-1], -1).movedim(-1, 1)


def _of_positions(x: np.ndarray, part: nn.Module) -> np.ndarray:
    """Map positions, `N x C`, by a part of `Chunked`, in compiled code."""
    if isinstance(part, PointwiseBlock):
        return _of_positions(_of_positions(x, part.conv), part.ffn)
    if isinstance(part, GatedFeedForward):
        return exact_kernels.feed_forward(x, _feed_forward(part))
    if isinstance(part, ExactConv2d):
        return exact_kernels.linear(x, part.linear)
    return x  # nn.Identity


def _feed_forward(part: GatedFeedForward) -> exact_kernels.FeedForward:
    norm, project_in, project_out = part.norm, part.project_in, part.project_out
    return exact_kernels.FeedForward(
        norm.weight.numpy(),
        norm.bias.numpy(),
        norm.eps,
        cast(ExactConv2d, project_in).linear,
        cast(ExactConv2d, project_out).linear,
    )


def _of_pictures(x: Tensor, function: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Map `B x C x H x W` by a function of one picture's map with channels last."""
    pictures = x.movedim(1, -1).contiguous().numpy()
    return torch.from_numpy(np.stack([function(picture) for picture in pictures])).movedim(-1, 1)


class ExactBlock(Compilable):
    """A conv block in few passes over the map, in compiled code on the CPU.

    Args:
        block: Of exact modules.
    """

    def __init__(self, block: ConvBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Map `B x C x H x W` to `B x C' x H x W`."""
        if not compiled_for(self, x):
            return self.block(x)
        block = cast(Any, self.block)  # its convolutions are exact ones
        adaptor, (ffn,) = block.adaptor or block.conv2, block.ffn
        weights = (
            block.conv1.linear,
            block.depthwise.of_channels,
            block.conv2.linear,
            adaptor.linear,
            _feed_forward(ffn),
        )
        return _of_pictures(x, lambda picture: exact_kernels.conv_block(picture, *weights))


class ExactConv2d(Compilable):
    r"""Convolution of integers.

    .. math:: y_o = s_o \cdot t \cdot \sum_k W_{ok} X_k + b_o, \quad X = \mathrm{round}(x / t),
        \quad \sum_k |W_{ok}| \cdot 255 < 2^{24}

    Args:
        conv: The convolution, its kernel 1x1, depthwise or dense.

    Raises:
        TypeError: its padding is told by a name.
    """

    weight: Tensor
    step: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if isinstance(conv.padding, str):
            raise TypeError(f"Expected padding in numbers (got {conv.padding})")
        self.stride, self.padding, self.groups = conv.stride, conv.padding, conv.groups
        self.pointwise = conv.kernel_size == (1, 1)
        weight = conv.weight.detach()
        if isinstance(conv, CheckerboardMaskedConv2d):
            weight = weight * conv.mask
        weight, step = _quantise_weight(weight.flatten(1))
        self.register_buffer("weight", weight.view_as(conv.weight), persistent=False)
        self.register_buffer("step", step, persistent=False)
        bias = None if conv.bias is None else conv.bias.detach().clone()
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `B x C x H x W` to `B x C' x H' x W'`."""
        if compiled_for(self, x) and self.pointwise:
            return _share_out([self], x)
        if compiled_for(self, x) and self.groups == 1:
            return _of_pictures(x, lambda picture: exact_kernels.convolution(picture, self.dense))
        over = 1 if self.pointwise else (2, 3) if self.groups > 1 else (1, 2, 3)
        x, step = _quantise(x, over, QMAX)
        if self.pointwise:
            y = linear(x.movedim(1, -1), self.weight.flatten(1)).movedim(-1, 1)
        else:
            y = F.conv2d(x, self.weight, None, self.stride, self.padding, groups=self.groups)
        y = y.mul_(step).mul_(self.step[:, None, None])
        return y if self.bias is None else y.add_(self.bias[:, None, None])

    # The weights as compiled code reads them, on the CPU, where they are first asked for.

    @cached_property
    def linear(self) -> exact_kernels.Linear:
        """Of a convolution of one position."""
        weight = packed_pairs(self.weight.flatten(1).T)
        return exact_kernels.Linear(weight, self.step.numpy(), self._bias)

    @cached_property
    def dense(self) -> exact_kernels.Dense:
        """Of one of several positions and all channels."""
        taps, weight = exact_kernels.dense_taps(self.weight)
        sizes = self.weight.size(-1), self.stride[0], self.padding[0]
        return exact_kernels.Dense(taps, weight, self.step.numpy(), self._bias, *sizes)

    @cached_property
    def of_channels(self) -> exact_kernels.Depthwise:
        """Of a depthwise one."""
        weight = wide(self.weight.flatten(1).T)
        return exact_kernels.Depthwise(weight, self.step.numpy(), self._bias)

    @property
    def _bias(self) -> np.ndarray:
        return np.empty(0, np.float32) if self.bias is None else self.bias.numpy()


class ExactLayerNorm2d(nn.Module):
    """Layer normalisation over the channels of each position.

    Args:
        norm: The normalisation.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: LayerNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        self.register_buffer("weight", norm.weight.detach().clone(), persistent=False)
        self.register_buffer("bias", norm.bias.detach().clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `B x C x H x W` to the same shape."""
        x, step = _quantise(x, 1, NORM_QMAX)
        share = 1 / x.size(1)
        mean = x.sum(1, keepdim=True, dtype=torch.float64) * share
        square = (x * x).sum(1, keepdim=True, dtype=torch.float64) * share
        eps = self.eps / (step.double() * step.double())
        deviation = ((square - mean * mean).clamp_(min=0) + eps).sqrt()
        x = x.sub_(mean.float()).div_(deviation.float())
        return x.mul_(self.weight[:, None, None]).add_(self.bias[:, None, None])


class ExactGELU(nn.Module):
    """GELU, see `gelu`."""

    def __init__(self, _: nn.GELU) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor of any shape to the same shape."""
        return gelu(x)


EXACT: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Conv2d: ExactConv2d,
    LayerNorm2d: ExactLayerNorm2d,
    nn.GELU: ExactGELU,
}
"""What is exact in place of what."""
UNCHANGED = (nn.PixelShuffle, nn.Identity)
"""What is exact already."""


def gelu(x: Tensor) -> Tensor:
    r"""Return \( x \Phi(x) \), within 3e-4 |x|, by operations that are exact to the last bit.

    From Abramowitz and Stegun, "Handbook of Mathematical Functions", equation 7.1.27.
    """
    magnitude = x.abs()
    t = magnitude * 0.5**0.5
    first, *rest = GELU_COEFFICIENTS
    p = t * first
    for coefficient in rest:
        p = p.add_(coefficient).mul_(t)
    p = p.add_(1)
    p = p.mul_(p)
    p = p.mul_(p)
    return x.clamp(min=0).sub_(magnitude.mul_(0.5).div_(p))


def _quantise(x: Tensor, over: int | tuple[int, ...], qmax: int) -> tuple[Tensor, Tensor]:
    """Return integers of at most `qmax`, and their step, one for all channels, or positions, in `over`."""
    largest = x.abs().amax(over, keepdim=True).clamp_(min=TINY)  # 20 times faster than torch's infinity norm
    return (x * (largest.reciprocal() * qmax)).round_(), largest * (1 / qmax)


def _quantise_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return integers, `O x K`, no sum of which with activations of 8 bits is inexact, and their steps, `O`.

    The steps are the same everywhere, too: their sums are of integers in float64.
    """
    weight = weight.double()
    largest = weight.abs().amax(1, keepdim=True).clamp(min=TINY)
    sums = (weight.abs() / largest * 2**36).round().sum(1, keepdim=True) / 2**36 * largest
    limit = (LIMIT - 1) // QMAX - (weight.size(1) + 1) // 2  # rounding adds at most a half to each
    step = (sums * (1 / limit)).float().clamp(min=TINY)
    return (weight / step).round().float(), step[:, 0]
