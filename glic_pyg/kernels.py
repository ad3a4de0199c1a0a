"""Which code computes a model: one choice for all of it, of speed and not of meaning."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

Kernels = Literal["reference", "cpu", "triton"]
KERNELS: tuple[Kernels, ...] = get_args(Kernels)
ON_CPU: tuple[Kernels, ...] = ("reference", "cpu")  # those that run there
OLDEST = 8, 0  # compute capability that Triton's kernels are written for

M = TypeVar("M", bound=nn.Module)


class HasKernels:
    """A module with a plain forward pass, and faster ones that compute the same.

    Each of those is a function, which `forward` calls where `kernels_for` says so:

    - `reference`: none of them; every module as its formula reads, edge by edge, on any device.
    - `cpu`: functions compiled by Numba, products by oneDNN, and maps in bands where no gradient is wanted.
    - `triton`: the choice of neighbours and the attention each in one kernel by Triton, on NVIDIA's GPUs
      since Ampere; all else as `reference`.
    """

    kernels: Kernels | None = None
    """Chosen by `use_kernels`; None for those of the features' device: `cpu`; `triton` where it runs;
    `reference` elsewhere."""

    def kernels_for(self, x: Tensor) -> Kernels:
        """Return the kernels for a tensor.

        Raises:
            ValueError: those were chosen that do not run where it is.
        """
        if self.kernels is None:
            return _of_device(x.device)
        if self.kernels == "cpu" and x.device.type != "cpu":
            raise ValueError(f"Expected tensors on the CPU for kernels cpu (got one on {x.device})")
        if self.kernels == "triton" and not runs_triton(x.device):
            raise ValueError(
                f"Expected Triton and tensors on a GPU for kernels triton (got one on {x.device})"
            )
        return self.kernels


def runs_triton(device: torch.device) -> bool:
    """Return whether Triton's kernels run there: in its interpreter, `TRITON_INTERPRET=1`, also on a CPU."""
    if device.type == "cuda":
        return _suits(device)
    return (
        device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None
    )


@cache
def _suits(gpu: torch.device) -> bool:
    if torch.version.hip or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(gpu) >= OLDEST


def _of_device(device: torch.device) -> Kernels:
    if device.type == "cpu":
        return "cpu"
    return "triton" if runs_triton(device) else "reference"


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
