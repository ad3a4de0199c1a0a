"""Which code computes a model: one choice for all of it, of speed and not of meaning."""

from __future__ import annotations

from typing import Literal, TypeVar, get_args

from torch import Tensor, nn

Kernels = Literal["reference", "cpu", "gpu"]
KERNELS: tuple[Kernels, ...] = get_args(Kernels)
BY_DEVICE: dict[str, Kernels] = {"cpu": "cpu", "cuda": "gpu"}

M = TypeVar("M", bound=nn.Module)


class HasKernels:
    """A module with a plain forward pass, and faster ones that compute the same.

    Each of those is a function, which `forward` calls where `kernels_for` says so:

    - `reference`: none of them; every module as its formula reads, edge by edge, on any device.
    - `cpu`: functions compiled by Numba, products by oneDNN, and maps in bands where no gradient is wanted.
    - `gpu`: few large operators of torch; they run on any device.
    """

    kernels: Kernels | None = None
    """Chosen by `use_kernels`; None for those of the device that the features are on."""

    def kernels_for(self, x: Tensor) -> Kernels:
        """Return the kernels for a tensor.

        Raises:
            ValueError: those of the CPU were chosen for what is elsewhere.
        """
        if self.kernels is None:
            return BY_DEVICE.get(x.device.type, "reference")
        if self.kernels == "cpu" and x.device.type != "cpu":
            raise ValueError(f"Expected tensors on the CPU for kernels cpu (got one on {x.device})")
        return self.kernels


def use_kernels(module: M, kernels: Kernels | None) -> M:
    """Choose the kernels of a module and all modules in it, and return it.

    Args:
        module: A model, a stage or a layer.
        kernels: See `HasKernels`; None for those of the device that it is on.

    Raises:
        ValueError: unknown kernels.
    """
    if kernels is not None and kernels not in KERNELS:
        raise ValueError(f"Expected kernels to be one of {', '.join(KERNELS)} (got {kernels})")
    for part in module.modules():
        if isinstance(part, HasKernels):
            part.kernels = kernels
    return module
