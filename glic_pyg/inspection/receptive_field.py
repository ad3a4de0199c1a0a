"""Effective receptive fields: from where in its input a transform takes what it gives at a position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from glic_pyg.nn.graph_attention import GraphAttention
from glic_pyg.progress import each


def receptive_fields(
    transform: nn.Module,
    x: Tensor,
    places: Sequence[tuple[int, int]],
    *,
    block: int = 1,
    doing: str = "receptive fields",
) -> Tensor:
    r"""Return the energy of the gradients of outputs with respect to the input.

    .. math:: e_p = \sum_c \Big(\frac{\partial}{\partial x_{cp}} \sum_{d,\, q \in block} f(x)_{dq}\Big)^2

    divided by its sum over all p. Graphs are constants of the gradient, as in training. From "Understanding
    the Effective Receptive Field in Deep Convolutional Neural Networks", NeurIPS 2016.

    Args:
        transform: f, from `1 x C x H x W` to `1 x D x H' x W'`.
        x: Its input.
        places: Row and column of each block of outputs, in blocks.
        block: Side of a block, in positions of the output.
        doing: What whoever waits is told, see `glic_pyg.progress`.

    Returns:
        `len(places) x H x W`; each field sums to 1, or is zero where nothing depends on the input.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        out = transform(x).sum(dim=1)[0]
        fields = []
        for row, column in each(places, doing):
            part = out[row * block : (row + 1) * block, column * block : (column + 1) * block]
            (gradient,) = torch.autograd.grad(part.sum(), x, retain_graph=True)
            energy = gradient[0].double().square().sum(dim=0)
            fields.append(energy / energy.sum().clamp(min=torch.finfo(torch.double).tiny))
    return torch.stack(fields)


def energy_area(field: Tensor, share: float = 0.9) -> int:
    """Return the least number of positions that hold a share of a field's energy.

    Args:
        field: Energies, any shape.
        share: 0 to 1.
    """
    cumulated = field.flatten().double().sort(descending=True).values.cumsum(dim=0)
    # Rounding must not add a position where the share is met exactly.
    reached = cumulated >= share * cumulated[-1] * (1 - 1e-12)
    return int(reached.int().argmax()) + 1


def centered_mean(fields: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
    """Average fields after moving each one's place to the middle.

    Args:
        fields: `K x H x W`.
        places: Row and column of each field's own position, in positions of the fields.

    Returns:
        `(2H - 1) x (2W - 1)`, the middle being offset 0; what lies outside a field counts as zero.
    """
    count, height, width = fields.shape
    mean = fields.new_zeros(2 * height - 1, 2 * width - 1)
    for field, (row, column) in zip(fields, places, strict=True):
        top, left = height - 1 - row, width - 1 - column
        mean[top : top + height, left : left + width] += field / count
    return mean


@contextmanager
def convolutions_only(transform: nn.Module) -> Iterator[None]:
    """Leave the graph attention out of a transform: what remains of its stages are convolutions."""
    hooks = [
        module.register_forward_hook(lambda _module, _args, out: torch.zeros_like(out))
        for module in transform.modules()
        if isinstance(module, GraphAttention)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
