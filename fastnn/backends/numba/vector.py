"""Vectors of floats that kernels keep in registers.

``LANES`` is the width of the machine's vectors; results do not depend on it, because each lane goes its own way.
A pointer is an address of floats.

pointer(array, offset)      the address of an element of a contiguous array, counted flat
load(pointer, offset)       LANES floats from there on
store(pointer, offset, v)
load_some(pointer, offset, n), store_some(pointer, offset, v, n)
                            the first n of the LANES only, and 0 in the others
spread(pointer, offset)     one float in every lane
fill(x)                     a float32 in every lane
a + b, a - b                of vectors
fma(a, b, c)                a * b + c of vectors or of floats, rounded once where the machine can: the same everywhere
                            on one machine
positive(v)                 0 where v < 0; NaN stays NaN
where_positive(y, v)        v where y > 0, else 0
as_int(x), as_float(i)      the bits of a float32 as an int32, and back
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding  # type: ignore[import-untyped]
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model


def _lanes() -> int:
    try:
        features = llvmlite.binding.get_host_cpu_features()
    except RuntimeError:
        features = {}
    if features.get("avx512f"):
        return 16
    return 4 if features.get("sse2") and not features.get("avx") else 8


LANES = _lanes()
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)


class Vector(types.Type):  # type: ignore[misc]
    """The type of a vector, for Numba."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


vector = Vector()
floats = types.CPointer(types.float32)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _spread(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.IntType(32)(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
    return builder.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), lanes)


@intrinsic
def pointer(typingctx, array, offset):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.gep(data, [arguments[1]])

    return floats(array, types.int64), generate


@intrinsic
def load(typingctx, address, offset):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        place = builder.gep(arguments[0], [arguments[1]])
        return builder.load(builder.bitcast(place, _VECTOR.as_pointer()), align=4)

    return vector(floats, types.int64), generate


@intrinsic
def store(typingctx, address, offset, value):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        place = builder.gep(arguments[0], [arguments[1]])
        builder.store(arguments[2], builder.bitcast(place, _VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(floats, types.int64, vector), generate


def _first_lanes(builder: ir.IRBuilder, n: ir.Value) -> ir.Value:
    """True in the first n lanes."""
    kind = ir.VectorType(ir.IntType(32), LANES)
    count = builder.insert_element(ir.Constant(kind, ir.Undefined), builder.trunc(n, ir.IntType(32)), ir.IntType(32)(0))
    counts = builder.shuffle_vector(count, ir.Constant(kind, ir.Undefined), ir.Constant(kind, None))
    return builder.icmp_signed("<", ir.Constant(kind, list(range(LANES))), counts)


_MASK = ir.VectorType(ir.IntType(1), LANES)


@intrinsic
def load_some(typingctx, address, offset, n):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        place = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), _VECTOR.as_pointer())
        shape = ir.FunctionType(_VECTOR, [_VECTOR.as_pointer(), ir.IntType(32), _MASK, _VECTOR])
        function = cgutils.get_or_insert_function(builder.module, shape, f"llvm.masked.load.v{LANES}f32.p0")
        return builder.call(
            function, [place, ir.IntType(32)(4), _first_lanes(builder, arguments[2]), ir.Constant(_VECTOR, None)]
        )

    return vector(floats, types.int64, types.int64), generate


@intrinsic
def store_some(typingctx, address, offset, value, n):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        place = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), _VECTOR.as_pointer())
        shape = ir.FunctionType(ir.VoidType(), [_VECTOR, _VECTOR.as_pointer(), ir.IntType(32), _MASK])
        function = cgutils.get_or_insert_function(builder.module, shape, f"llvm.masked.store.v{LANES}f32.p0")
        builder.call(function, [arguments[2], place, ir.IntType(32)(4), _first_lanes(builder, arguments[3])])
        return context.get_dummy_value()

    return types.void(floats, types.int64, vector, types.int64), generate


@intrinsic
def fill(typingctx, x):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _spread(builder, arguments[0])

    return vector(types.float32), generate


@intrinsic
def spread(typingctx, address, offset):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _spread(builder, builder.load(builder.gep(arguments[0], [arguments[1]]), align=4))

    return vector(floats, types.int64), generate


@intrinsic
def fma(typingctx, a, b, c):  # type: ignore[no-untyped-def]
    kind = vector if isinstance(a, Vector) else types.float32
    machine, suffix = (_VECTOR, f"v{LANES}f32") if kind is vector else (_FLOAT, "f32")

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        shape = ir.FunctionType(machine, [machine] * 3)
        function = cgutils.get_or_insert_function(builder.module, shape, f"llvm.fmuladd.{suffix}")
        return builder.call(function, arguments)

    return kind(kind, kind, kind), generate


def _arithmetic(symbol: Callable[..., Any], instruction: str) -> None:
    """Let ``symbol`` work on two vectors."""

    @intrinsic
    def compute(typingctx, a, b):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return getattr(builder, instruction)(*arguments)

        return vector(vector, vector), generate

    @overload(symbol, jit_options={"forceinline": True})
    def operate(a, b):  # type: ignore[no-untyped-def]
        if isinstance(a, Vector) and isinstance(b, Vector):
            return lambda a, b: compute(a, b)
        return None


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")


@intrinsic
def positive(typingctx, v):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        zero = ir.Constant(_VECTOR, None)
        return builder.select(builder.fcmp_ordered("<=", arguments[0], zero), zero, arguments[0])

    return vector(vector), generate


@intrinsic
def where_positive(typingctx, y, v):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        zero = ir.Constant(_VECTOR, None)
        return builder.select(builder.fcmp_ordered(">", arguments[0], zero), arguments[1], zero)

    return vector(vector, vector), generate


@intrinsic
def as_int(typingctx, x):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def as_float(typingctx, i):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], _FLOAT)

    return types.float32(types.int32), generate
