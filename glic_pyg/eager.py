"""Functions that torch.compile leaves to Python, without torch's compiler being loaded for it.

`torch.compiler.disable` and operators of `torch.library.custom_op` load it where nobody compiles anything.
That takes longer than coding a small picture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch._ops import OpOverload

P, R = ParamSpec("P"), TypeVar("R")


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """Keep torch.compile out of a function, as `torch.compiler.disable` does."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            from glic_pyg.eager_call import call_eagerly

            return call_eagerly(function, *args, **kwargs)
        return function(*args, **kwargs)

    return call


def cpu_operator(name: str) -> Callable[[Callable[..., Any]], OpOverload]:
    """Make an operator of torch from a function of tensors on the CPU, as `torch.library.custom_op` does.

    Args:
        name: `namespace::operator`.
    """

    def define(function: Callable[..., Any]) -> OpOverload:
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(name, schema, tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.impl(name, "cpu", eager(function))
        namespace, _, operator = name.partition("::")
        return getattr(getattr(torch.ops, namespace), operator).default

    return define
