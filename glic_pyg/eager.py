"""Functions that torch.compile leaves to Python, without torch's compiler being loaded for it.

`torch.compiler.disable` and operators of `torch.library.custom_op` load it where nobody compiles anything.
That takes longer than coding a small picture.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch.library import CustomOpDef

P = ParamSpec("P")
R = TypeVar("R")


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """Keep torch.compile out of a function, as `torch.compiler.disable` does."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            from glic_pyg.eager_call import call_eagerly

            return call_eagerly(function, *args, **kwargs)
        return function(*args, **kwargs)

    return call


def cpu_operator(name: str) -> Callable[[Callable[..., Any]], CustomOpDef]:
    """Make an operator of torch from a function of tensors on the CPU: `torch.library.custom_op`.

    Args:
        name: `namespace::operator`.
    """

    def define(function: Callable[..., Any]) -> CustomOpDef:
        operator = torch.library.custom_op(name, mutates_args=(), device_types="cpu")(function)
        with suppress(AttributeError):  # of another torch: its compiler is loaded, all else is the same
            operator._backend_fns["cpu"] = eager(function)
        return operator

    return define
