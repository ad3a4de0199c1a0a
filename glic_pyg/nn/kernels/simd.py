"""Vectors of float32 in Numba code, for loops too short for the compiler to find the vectors by itself."""

import operator
from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

FLAGS = ("contract", "nsz")  # a product and a sum may become one instruction


class Vector(types.Type):
    """Several float32 side by side; `+`, `-`, `*` and `/` work on each, also with a number."""

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
def full(context, lanes, number):
    """Return a vector of as many numbers as the tuple `lanes` has entries, all the same."""
    vector = Vector(len(lanes))
    return vector(lanes, types.float32), _fill(vector)


@intrinsic
def _full_like(context, vector, number):
    return vector(vector, types.float32), _fill(vector)


def _fill(vector: Vector) -> Callable[..., Any]:
    def generate(context, builder, signature, arguments):
        one = builder.insert_element(ir.Constant(vector.llvm, None), arguments[1], ir.IntType(32)(0))
        return _shuffle(builder, one, [0] * vector.lanes)

    return generate


@intrinsic
def repeat(context, wide, vector):
    """Return a vector of as many values as the tuple `wide` has: the given one's over and over."""
    result = Vector(len(wide))
    mask = [i % vector.lanes for i in range(result.lanes)]
    return result(wide, vector), lambda context, builder, signature, arguments: _shuffle(
        builder, arguments[1], mask
    )


@intrinsic
def fold(context, lanes, vector):
    """Return as many values as the tuple `lanes` has: sums over those that `repeat` makes of each."""
    result = Vector(len(lanes))

    def generate(context, builder, signature, arguments):
        total = ir.Constant(result.llvm, [0.0] * result.lanes)
        for start in range(0, vector.lanes, result.lanes):
            part = _shuffle(builder, arguments[1], range(start, start + result.lanes))
            total = builder.fadd(total, part, flags=FLAGS)
        return total

    return result(lanes, vector), generate


@intrinsic
def maximum(context, a, b):
    """Return the larger of each pair."""

    def generate(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return a(a, b), generate


@intrinsic
def below(context, x, bounds):
    """Return x where it is less than its bound, and 0 elsewhere."""

    def generate(context, builder, signature, arguments):
        zero = ir.Constant(x.llvm, [0.0] * x.lanes)
        return builder.select(builder.fcmp_ordered("<", *arguments), arguments[0], zero)

    return x(x, bounds), generate


@intrinsic
def square_root(context, x):
    """Return the square root of each."""
    return x(x), lambda context, builder, signature, arguments: _call("llvm.sqrt", builder, arguments[0])


@intrinsic
def floor(context, x):
    """Return the largest whole number of at most each."""
    return x(x), lambda context, builder, signature, arguments: _call("llvm.floor", builder, arguments[0])


@intrinsic
def power_of_two(context, x):
    """Return 2 ** x of whole numbers from -126 to 127."""
    integers = ir.VectorType(ir.IntType(32), x.lanes)

    def generate(context, builder, signature, arguments):
        exponent = builder.add(builder.fptosi(arguments[0], integers), ir.Constant(integers, [127] * x.lanes))
        return builder.bitcast(builder.shl(exponent, ir.Constant(integers, [23] * x.lanes)), x.llvm)

    return x(x), generate


def _call(function: str, builder: Any, vector: Any) -> Any:
    name = f"{function}.v{vector.type.count}f32"
    return builder.call(
        get_or_insert_function(builder.module, ir.FunctionType(vector.type, [vector.type]), name), [vector]
    )


def _shuffle(builder: Any, vector: Any, places: Iterable[int]) -> Any:
    mask = [ir.Constant(ir.IntType(32), place) for place in places]
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(ir.IntType(32), len(mask)), mask))


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
        if isinstance(a, Vector) and isinstance(b, types.Float):
            return lambda a, b: compute(a, _full_like(a, b))
        if isinstance(a, types.Float) and isinstance(b, Vector):
            return lambda a, b: compute(_full_like(b, a), b)


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
_define(operator.truediv, "fdiv")
