"""Apart from `glic_pyg.eager`, because its decorator loads the compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


@torch.compiler.disable
def call_eagerly(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function of which torch.compile is to make nothing."""
    return function(*args, **kwargs)
