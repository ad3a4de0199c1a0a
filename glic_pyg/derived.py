"""What is computed from a module's weights, kept as long as they stay."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Generic, TypeVar

from torch import Tensor, nn

T = TypeVar("T")


class Derived(Generic[T]):
    """A value that is computed from a module's parameters and buffers, and again once any has changed.

    Changes in place, by `load_state_dict` of any part, by an optimiser, and other tensors in their place are
    noticed; what torch does not count, as what is done through `.data`, is not: see `forget`.
    """

    def __init__(self) -> None:
        self._value: T | None = None
        self._tensors: list[tuple[Tensor, int, int]] = []

    def get(self, module: nn.Module, compute: Callable[[], T]) -> T:
        """Return the value, computed if there is none of the module as it is now."""
        now = _tensors(module)
        if self._value is None or not _same(self._tensors, now):
            self._value, self._tensors = compute(), now
        return self._value

    def put(self, module: nn.Module, value: T) -> None:
        """Take a value that is known already."""
        self._value, self._tensors = value, _tensors(module)

    def forget(self) -> None:
        """Compute anew next time."""
        self._value, self._tensors = None, []

    def forget_if_changed(self, module: nn.Module) -> None:
        """Look now: memory that is given back may be taken by the very tensor that follows."""
        if not _same(self._tensors, _tensors(module)):
            self.forget()


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Return parameters and buffers, several times as fast as torch's own lists."""
    found: list[Tensor] = []
    parts = [module]
    while parts:
        part = parts.pop()
        found += (x for x in chain(part._parameters.values(), part._buffers.values()) if x is not None)
        parts += (child for child in part._modules.values() if child is not None)
    return found


def _tensors(module: nn.Module) -> list[tuple[Tensor, int, int]]:
    """Return parameters and buffers, where they are, and how often torch has seen them change."""
    return [(x, x.data_ptr(), 0 if x.is_inference() else x._version) for x in tensors_of(module)]


def _same(before: list[tuple[Tensor, int, int]], now: list[tuple[Tensor, int, int]]) -> bool:
    return len(before) == len(now) and all(
        a is b and of_a == of_b for (a, *of_a), (b, *of_b) in zip(before, now, strict=True)
    )
