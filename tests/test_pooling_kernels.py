"""What holds for the pooling kernels of every backend and instruction set beyond the cases of the ops: random windows
and their gradients, NaN in every lane, ties, precise means, the same bits for any number of threads.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from pooling_loops import EPSILON, INF, NAN, before_and_after, drawn, error, pooled, same, windows
from test_ops import WORTH_SHARING, bits, engine, every_backend, every_isa  # noqa: F401

from fastnn import backends
from fastnn.backends import native
from fastnn.ops import OPS

SPANS = [
    {"kernel": (2, 2), "strides": (2, 2), "pads": ((0, 0), (0, 0))},
    {"kernel": (3, 3), "strides": (1, 1), "pads": ((1, 1), (1, 1))},
    {"kernel": (3, 2), "strides": (2, 3), "pads": ((0, 1), (1, 0))},
]


def single(backend, name, inputs, attrs):
    outputs, run = backends.single(backend, name, inputs, attrs)
    run()
    return outputs[0]


@every_backend
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_random_windows_and_their_gradients_are_what_loops_compute(rank, average, engine):  # noqa: F811
    rng = np.random.default_rng(10 + rank)
    for _ in range(40):
        x, kernel, strides, padding = drawn(rng, rank)
        along = (padding,) * rank if isinstance(padding, str) else padding
        pads = tuple(before_and_after(*n) for n in zip(x.shape[1:-1], kernel, strides, along, strict=True))
        attrs = {"kernel": kernel, "strides": strides, "pads": pads}
        with np.errstate(invalid="ignore"):
            y, backward = pooled(x.astype(float), kernel, strides, padding, average)
            scale, _ = pooled(abs(x.astype(float)), kernel, strides, padding, average)
        g = rng.standard_normal(y.shape).astype(np.float32).astype(float)
        if average:
            assert same(single(engine, "average_pool", [x], attrs), y, error(kernel, scale)), (x.shape, attrs)
            dx = single(engine, "average_pool_dx", [g], {"sizes": x.shape[1:-1], **attrs})
        else:
            assert same(single(engine, "max_pool", [x], attrs), y, 0.0), (x.shape, attrs)
            dx = single(engine, "max_pool_dx", [g, x, y], attrs)
        assert same(dx, backward(g), error(kernel, backward(abs(g)))), (x.shape, attrs)


@every_backend
@pytest.mark.parametrize("attrs", [*SPANS, {}], ids=["side by side", "overlapping", "padded", "global"])
def test_nan_comes_through_in_every_lane_wherever_it_stands(attrs, engine):  # noqa: F811
    name = "max_pool" if attrs else "global_max_pool"
    rng = np.random.default_rng(0)
    for channels in (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 33, 70):
        for place in itertools.product(range(4), range(5)):
            x = rng.standard_normal((channels, 4, 5, channels)).astype(np.float32)
            lane = np.arange(channels)
            x[(lane, *place, lane)] = NAN  # of each row in another channel
            x[(lane, 1, 2, lane)] = INF if place != (1, 2) else NAN
            y = OPS[name](x, **attrs)
            np.testing.assert_array_equal(single(engine, name, [x], attrs), y)
            holds = np.isnan(y).reshape(channels, -1, channels).sum(axis=1)
            assert (holds.diagonal() == holds.sum() / channels).all()
            g = rng.standard_normal(y.shape).astype(np.float32)
            dx = single(engine, f"{name}_dx", [g, x, y], attrs)
            np.testing.assert_allclose(dx, OPS[f"{name}_dx"](g, x, y, **attrs), rtol=1e-6, atol=1e-6)
            taken = np.where(np.isnan(y), g, 0.0).reshape(channels, -1, channels).sum(axis=1)
            np.testing.assert_allclose(dx[(lane, *place, lane)], taken[lane, lane], rtol=1e-6, atol=1e-6)


@every_backend
def test_windows_of_minus_infinity_and_ties_give_their_gradient_to_the_first_pixel(engine):  # noqa: F811
    for value, channels, attrs in itertools.product((-INF, 0.0, INF, NAN), (1, 3, 8, 17, 64), SPANS):
        x = np.full((2, 5, 6, channels), value, np.float32)
        y = single(engine, "max_pool", [x], attrs)
        np.testing.assert_array_equal(y, np.full(y.shape, value))
        g = np.random.default_rng(1).integers(1, 9, y.shape).astype(np.float32)
        wanted = np.zeros(x.shape)
        for output, pixels in windows((5, 6), *attrs.values()):
            wanted[(slice(None), *pixels[0])] += g[(slice(None), *output)]
        np.testing.assert_array_equal(single(engine, "max_pool_dx", [g, x, y], attrs), wanted)
        g = g[:, 0, 0]
        dx = single(engine, "global_max_pool_dx", [g, x, x[:, 0, 0]], {})
        np.testing.assert_array_equal(dx.reshape(2, -1, channels), [[row, *[0 * row] * 29] for row in g])


@every_backend
def test_infinite_and_undefined_gradients_stay_where_they_belong(engine):  # noqa: F811
    for channels, value in itertools.product((1, 9, 33), (INF, -INF, NAN)):
        x = np.tile(np.arange(16.0).reshape(1, 4, 4, 1), channels).astype(np.float32)
        y = x[:, 1::2, 1::2]
        wanted = np.zeros(x.shape)
        wanted[:, 1::2, 1::2] = value
        np.testing.assert_array_equal(single(engine, "max_pool_dx", [np.full(y.shape, value), x, y], SPANS[0]), wanted)


@every_backend
def test_means_are_precise_and_let_nan_and_infinities_through(engine):  # noqa: F811
    tenth = float(np.float32(0.1))
    for channels in (1, 3, 40):  # each sum rounds off the same way; a chain is of 64 at the most, so with 64 roundings
        x = np.full((1, 700, 500, channels), tenth, np.float32)
        np.testing.assert_allclose(single(engine, "global_average_pool", [x], {}), tenth, rtol=64 * EPSILON)
    for size, value in itertools.product((5, 300), (NAN, INF, -INF)):
        for channels, pixel in itertools.product((1, 6, 20), (0, 3, size - 1)):
            x = np.ones((2, size, channels))
            x[1, pixel, channels - 1] = value
            wanted = np.ones((2, channels))
            wanted[1, channels - 1] = value
            np.testing.assert_array_equal(single(engine, "global_average_pool", [x], {}), wanted)


# Threads


def large(rng, name, shape, attrs):
    """Inputs so large that threads share the step."""
    op = OPS[name.removesuffix("_dx")]
    x = np.round(4 * rng.standard_normal(shape))
    if not name.endswith("_dx"):
        return [x], attrs
    y = op(x, **attrs)
    g = rng.standard_normal(y.shape)
    return ([g, x, y], attrs) if "max" in name else ([g], {"sizes": shape[1:-1], **attrs})


@every_isa
@pytest.mark.parametrize("name", [name for name in OPS if "_pool" in name and "conv" not in name])
def test_bits_do_not_depend_on_threads_however_an_image_is_shared_out(name, engine):  # noqa: F811
    rng = np.random.default_rng(5)
    spans = [{}] if name.startswith("global") else SPANS
    shapes = [(1, 190, 60, 32), (1, 300, 400, 3), (5, 61, 40, 17), (1, 200, 350, 1)]
    for shape, attrs in itertools.product(shapes, spans):
        inputs, attrs = large(rng, name, shape, attrs)
        assert OPS[name].count_flops(*(a.shape for a in inputs), **attrs) > WORTH_SHARING / 4
        results = []
        for threads in (1, 2, 3):
            native.set_threads(threads)
            results.append(bits(engine, name, inputs, attrs))
        assert results[0] == results[1] == results[2], (shape, attrs)
