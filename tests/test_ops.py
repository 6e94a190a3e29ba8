"""Generated from the declarations: every op on every backend and instruction set, against its float64 reference."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from fastnn import backends
from fastnn.backends import native
from fastnn.ops import OPS

EPSILON = 2.0**-24  # half a unit in the last place: the error of one rounded operation


def runners() -> list[str]:
    """Backends, and for native each instruction set and thread count."""
    names = [name for name in backends.NAMES if name != "native" and backends.load(name).why_not() is None]
    if native.why_not() is None:
        names += [f"native-{isa}-{threads}" for isa in native.isas() for threads in (1, 2)]
    return names


@pytest.fixture(params=runners())
def runner(request):
    """Name of the backend, with the instruction set and the threads set."""
    name = request.param
    if name.startswith("native"):
        name, isa, threads = name.split("-")
        before = native.isa(), native.threads()
        native.choose_isa(isa)
        native.set_threads(int(threads))
        yield name
        native.choose_isa(before[0])
        native.set_threads(before[1])
    else:
        yield name


def cases(op):
    """The op's cases, floats as float32 values in float64 arrays."""
    rng = np.random.default_rng(zlib.crc32(op.name.encode()))
    for inputs, attrs in op.cases(rng):
        yield [a if a.dtype.kind in "iu" else a.astype(np.float32).astype(np.float64) for a in inputs], attrs


def expected(op, inputs, attrs):
    """The reference's results in float64, each with the error that float32 may make."""
    with np.errstate(all="ignore"):
        reference = op.reference(*inputs, **attrs)
        results = reference if op.updates else (reference,)
        terms = op.terms(*(a.shape for a in inputs), **attrs)
        for result in results:
            scale = op.scale(*inputs, **attrs) if op.scale else 1.0
            yield result, 2 * EPSILON * terms * scale + EPSILON * np.abs(result)


@pytest.mark.parametrize("name", OPS)
def test_op_agrees_with_its_float64_reference(name, runner):
    op = OPS[name]
    for inputs, attrs in cases(op):
        outputs, run = backends.single(runner, name, inputs, attrs)
        run()
        for output, (result, tolerance) in zip(outputs, expected(op, inputs, attrs), strict=True):
            assert output.shape == result.shape
            with np.errstate(over="ignore", invalid="ignore"):
                wrong = ~((abs(output - result) <= tolerance) | (output == result.astype(np.float32)))
            assert not wrong.any(), (
                f"{[a.shape for a in inputs]} {attrs}: {output[wrong][:3]} instead of {result[wrong][:3]}, "
                f"off by {abs(output - result)[wrong].max():.3g}, allowed {np.broadcast_to(tolerance, wrong.shape)[wrong].max():.3g}"
            )
