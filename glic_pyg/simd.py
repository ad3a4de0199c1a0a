"""Vectors of float32 in Numba code, for loops too short for the compiler to find the vectors by itself."""

import operator
from collections.abc import Callable, Iterable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core.cgutils import alloca_once_value, for_range, get_or_insert_function
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

FLAGS = ("contract", "nsz")  # a product and a sum may become one instruction
SUMS_AT_ONCE = 12  # of vectors: what registers have room for


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
def total(context, vector):
    """Return the sum of a vector's values, a float32."""

    def generate(context, builder, signature, arguments):
        (values,) = arguments
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), values.type])
        name = f"llvm.vector.reduce.fadd.v{vector.lanes}f32"
        function = get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [ir.Constant(ir.FloatType(), 0.0), values], fastmath=("reassoc",))

    return types.float32(vector), generate


@intrinsic
def maximum(context, a, b):
    """Return the larger of each pair."""

    def generate(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return a(a, b), generate


@intrinsic
def one_above(context, x, bounds):
    """Return 1 where x is more than its bound, and 0 elsewhere."""

    def generate(context, builder, signature, arguments):
        zero, one = (ir.Constant(x.llvm, [float(value)] * x.lanes) for value in (0, 1))
        return builder.select(builder.fcmp_ordered(">", *arguments), one, zero)

    return x(x, bounds), generate


@intrinsic
def places_above(context, x, bounds):
    """Return an integer of 64 bits, of which bit i says whether entry i of x is more than its bound."""

    def generate(context, builder, signature, arguments):
        bits = builder.bitcast(builder.fcmp_ordered(">", *arguments), ir.IntType(x.lanes))
        return builder.zext(bits, ir.IntType(64)) if x.lanes < 64 else bits

    return types.uint64(x, bounds), generate


@intrinsic
def lowest_bit(context, bits):
    """Return the place of the lowest bit that is set, of an integer of 64 bits with at least one."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


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


@intrinsic
def add_products(
    context, rows, lanes, vectors, a, a_at, a_step, a_next, b, b_at, b_next, length, out, out_at, out_step
):
    """Add a product of matrices to a block that fits the registers.

        out[i, j] += sum_k a[i, k] b[k, j]

    Numbers are float32; or, of arrays of int32, pairs of int16, whose two products count.

    Args:
        rows: A tuple with an entry for each row of the block.
        lanes: A tuple as long as a vector.
        vectors: A tuple with an entry for each vector of a row of the block, which has as many columns as
            these together.
        a: Array with the left matrix, its first row at place `a_at`, the next one `a_step` further, and the
            next column `a_next` further.
        a_at: See `a`.
        a_step: See `a`.
        a_next: See `a`.
        b: Array with the right matrix, its first row at place `b_at`, the next one `b_next` further, without
            gaps between columns.
        b_at: See `b`.
        b_next: See `b`.
        length: Columns of the left matrix, rows of the right one.
        out: Array with the block, as `a`.
        out_at: See `out`.
        out_step: See `out`.
    """
    pairs, integer = a.dtype == types.int32, types.intp
    element = ir.IntType(32) if pairs else ir.FloatType()
    count, vector = len(lanes), ir.VectorType(element, len(lanes))

    def generate(context, builder, signature, arguments):
        def start(array: int, place: Any) -> Any:
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            return builder.gep(data, [place])

        def vectors_at(place: Any) -> list[Any]:
            places = (builder.gep(place, [ir.IntType(64)(j * count)]) for j in range(len(vectors)))
            return [builder.bitcast(place, vector.as_pointer()) for place in places]

        def row(place: int, i: int) -> Any:
            return builder.add(arguments[place], builder.mul(arguments[place + 1], ir.IntType(64)(i)))

        def plus(x: Any, y: Any) -> Any:
            return builder.add(x, y) if pairs else builder.fadd(x, y, flags=FLAGS)

        def product(x: Any, y: Any) -> Any:
            return _of_pairs(builder, x, y) if pairs else builder.fmul(x, y, flags=FLAGS)

        left = [start(3, row(4, i)) for i in range(len(rows))]
        places = [vectors_at(start(11, row(12, i))) for i in range(len(rows))]
        zero = ir.Constant(vector, [0 if pairs else 0.0] * count)
        sums = [[alloca_once_value(builder, zero) for _ in line] for line in places]
        with for_range(builder, arguments[10]) as loop:
            at = builder.add(arguments[8], builder.mul(loop.index, arguments[9]))
            right = [builder.load(place, align=4) for place in vectors_at(start(7, at))]
            for first, line in zip(left, sums, strict=True):
                one = builder.load(builder.gep(first, [builder.mul(loop.index, arguments[6])]))
                one = builder.insert_element(ir.Constant(vector, None), one, ir.IntType(32)(0))
                factor = _shuffle(builder, one, [0] * count)
                for total, values in zip(line, right, strict=True):
                    builder.store(plus(builder.load(total), product(factor, values)), total)
        for line, totals in zip(places, sums, strict=True):
            for place, total in zip(line, totals, strict=True):
                builder.store(plus(builder.load(place, align=4), builder.load(total)), place, align=4)
        return context.get_dummy_value()

    matrices = (a, integer, integer, integer, b, integer, integer)
    return types.none(rows, lanes, vectors, *matrices, integer, out, integer, integer), generate


@intrinsic
def convolve(context, side, lanes, positions, x, first, line, at, weight, weight_at, step, start, out, to):
    """Set some positions' vectors to a depthwise convolution with a kernel of `side x side`.

    What neighbouring positions read in common is read once. Each sum runs over rows, then columns.

    Args:
        side: A tuple as long as the kernel's side.
        lanes: A tuple as long as a vector.
        positions: A tuple with an entry for each position.
        x: Array with a ring of as many rows.
        first: Place of the first one of them in the ring.
        line: Entries of a row of the ring.
        at: Place within a row of what the first column of the kernel reads for the first position.
        weight: Array with the kernel.
        weight_at: Place of its first vector.
        step: From one column, or position, to the next, everywhere.
        start: What sums begin with.
        out: Array of the results.
        to: Place of the first one.
    """
    integer, vector = types.intp, Vector(len(lanes))

    def generate(context, builder, signature, arguments):
        _, _, _, _, first, line, at, _, weight_at, step, start, _, to = arguments

        def value(array: int, place: Any) -> Any:
            address = _address(context, builder, signature.args[array], arguments[array], place, vector)
            return builder.load(address, align=4)

        sums = [start] * len(positions)
        for row in range(len(side)):
            number, rows = builder.add(first, first.type(row)), first.type(len(side))
            beyond = builder.icmp_signed(">=", number, rows)
            number = builder.select(beyond, builder.sub(number, rows), number)
            place = builder.add(at, builder.mul(number, line))
            taps = [
                value(7, _further(builder, weight_at, step, row * len(side) + j)) for j in range(len(side))
            ]
            for i in range(len(positions) + len(side) - 1):
                read = value(3, _further(builder, place, step, i))
                for j in range(max(0, i - len(positions) + 1), min(i + 1, len(side))):
                    sums[i - j] = _plus_product(builder, sums[i - j], taps[j], read)
        for i, total in enumerate(sums):
            place = _further(builder, to, step, i)
            address = _address(context, builder, signature.args[11], arguments[11], place, vector)
            builder.store(total, address, align=4)
        return context.get_dummy_value()

    matrix = (weight, integer, integer)
    return types.none(
        side, lanes, positions, x, integer, integer, integer, *matrix, vector, out, integer
    ), generate


@intrinsic
def correlate(context, side, lanes, x, at, y, y_at, step, count, out, to):
    """Add sums of products of vectors, of one array and of another from each of some places on.

        out[j] += sum_i x[i + j] y[i], 0 <= j < side

    Args:
        side: A tuple with an entry for each sum.
        lanes: A tuple as long as a vector.
        x: An array.
        at: Place of its first vector.
        y: Another array.
        y_at: Place of its first vector.
        step: From one vector to the next, everywhere.
        count: Products of each sum.
        out: Array of the sums.
        to: Place of the first one.
    """
    integer, vector = types.intp, Vector(len(lanes))
    together = max(1, SUMS_AT_ONCE // len(side))

    def generate(context, builder, signature, arguments):
        _, _, _, at, _, y_at, step, count, _, to = arguments

        def address(array: int, place: Any) -> Any:
            return _address(context, builder, signature.args[array], arguments[array], place, vector)

        zero = ir.Constant(vector.llvm, [0.0] * len(lanes))
        sums = [[alloca_once_value(builder, zero) for _ in side] for _ in range(together)]

        def add(lines: list[Any], i: Any) -> None:
            """Add the products of some places from `i` on, to sums of their own."""
            begin, own = (builder.add(place, builder.mul(i, step)) for place in (at, y_at))
            places = [address(4, _further(builder, own, step, k)) for k in range(len(lines))]
            ys = [builder.load(place, align=4) for place in places]
            for j in range(len(lines) + len(side) - 1):
                read = builder.load(address(2, _further(builder, begin, step, j)), align=4)
                for k in range(max(0, j - len(side) + 1), min(j + 1, len(lines))):
                    total = lines[k][j - k]
                    builder.store(_plus_product(builder, builder.load(total), read, ys[k]), total)

        size = ir.Constant(count.type, together)
        whole = builder.sdiv(count, size)
        with for_range(builder, whole) as loop:
            add(sums, builder.mul(loop.index, size))
        done = builder.mul(whole, size)
        with for_range(builder, builder.sub(count, done)) as loop:
            add(sums[:1], builder.add(done, loop.index))
        for j in range(len(side)):
            place = address(8, _further(builder, to, step, j))
            total = builder.load(place, align=4)
            for line in sums:
                total = builder.fadd(total, builder.load(line[j]), flags=FLAGS)
            builder.store(total, place, align=4)
        return context.get_dummy_value()

    return types.none(side, lanes, x, integer, y, integer, integer, integer, out, integer), generate


def _further(builder: Any, place: Any, step: Any, count: int) -> Any:
    return builder.add(place, builder.mul(step, step.type(count)))


def _of_pairs(builder: Any, x: Any, y: Any) -> Any:
    """Return the sum of both products of each pair of int16: one instruction of several processors."""
    count = x.type.count
    short, wide = (ir.VectorType(ir.IntType(bits), 2 * count) for bits in (16, 32))
    x, y = (builder.sext(builder.bitcast(pairs, short), wide) for pairs in (x, y))
    products = builder.mul(x, y)
    first, second = (_shuffle(builder, products, range(start, 2 * count, 2)) for start in (0, 1))
    return builder.add(first, second)


def _call(function: str, builder: Any, *vectors: Any) -> Any:
    kind = vectors[0].type
    name = f"{function}.v{kind.count}f32"
    operation = get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * len(vectors)), name)
    return builder.call(operation, vectors)


def _plus_product(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """Return a sum and a product more, one instruction where there is one: the first of a sum, too."""
    return _call("llvm.fmuladd", builder, x, y, total)


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


@intrinsic
def _negative(context, x):
    return x(x), lambda context, builder, signature, arguments: builder.fneg(arguments[0])


@overload(operator.neg, inline="always")
def _(x):
    if isinstance(x, Vector):
        return lambda x: _negative(x)


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
_define(operator.truediv, "fdiv")


LOG2E, LN2_HIGH, LN2_LOW = 1.4426950408889634, 0.693359375, -2.12194440e-4


@numba.njit(fastmath={"contract", "reassoc", "nsz", "arcp"}, forceinline=True)
def exponential(lanes, x):
    """Return the exponential of numbers of at most 0, accurate to about 1e-7."""
    y = maximum(x, full(lanes, -87.0))
    n = floor(y * LOG2E + 0.5)
    r = y - n * LN2_HIGH - n * LN2_LOW
    p = 1.9875691500e-4 * r + 1.3981999507e-3
    p = p * r + 8.3334519073e-3
    p = p * r + 4.1665795894e-2
    p = p * r + 1.6666665459e-1
    p = p * r + 5.0000001201e-1
    return (p * r * r + r + 1.0) * power_of_two(n)
