"""Vectors of float32 in Numba code, for loops too short for the compiler to find the vectors by itself."""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

FLAGS = ("contract", "nsz")  # a product and a sum may become one instruction


class Vector(types.Type):
    """Several float32 side by side; `+`, `-` and `*` work on each."""

    def __init__(self, lanes: int) -> None:
        super().__init__(name=f"Vector({lanes})")
        self.lanes = lanes
        self.llvm = ir.VectorType(ir.FloatType(), lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


@intrinsic
def load(context, lanes, array, start):
    """Read as many values as the tuple `lanes` has from place `start` of a contiguous array on."""
    vector = Vector(len(lanes))

    def generate(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[1], arguments[1], arguments[2], vector)
        return builder.load(address, align=4)

    return vector(lanes, array, types.intp), generate


@intrinsic
def store(context, array, start, vector):
    """Write a vector to place `start` of a contiguous array and on; places count over all axes."""

    def generate(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], arguments[0], arguments[1], vector)
        builder.store(arguments[2], address, align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, vector), generate


@intrinsic
def zeros(context, lanes):
    """Return a vector of as many zeros as the tuple `lanes` has entries."""
    vector = Vector(len(lanes))
    return vector(lanes), lambda *_: ir.Constant(vector.llvm, [0.0] * vector.lanes)


@intrinsic
def maximum(context, a, b):
    """Return the larger of each pair."""

    def generate(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return a(a, b), generate


def _address(context, builder, array_type, array, start, vector):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [start]), vector.llvm.as_pointer())


def _define(operation: Callable[..., Any], instruction: str) -> None:
    @intrinsic
    def compute(context, a, b):
        return a(a, b), lambda context, builder, signature, arguments: getattr(builder, instruction)(
            *arguments, flags=FLAGS
        )

    @overload(operation, inline="always")
    def _(a, b):
        if isinstance(a, Vector) and isinstance(b, Vector):
            return lambda a, b: compute(a, b)


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
