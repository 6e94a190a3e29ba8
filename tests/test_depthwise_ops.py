"""Depthwise operations against loops in float64, for random geometry; their bits; what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from depthwise_loops import EPSILON, along, convolved, drawn, gradients

from fastnn import backends
from fastnn.backends import native
from fastnn.ops import OPS


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_random_operations_and_their_gradients_are_those_of_the_loops_on_every_backend(rank, backend):
    rng = np.random.default_rng(20 + rank)
    for _ in range(40):
        sizes, c, m, kernel, strides, dilations, _, found = drawn(rng, rank, free=True)
        before, after, outputs = zip(*found, strict=True)
        attrs = {"strides": strides, "dilations": dilations, "pads": tuple(zip(before, after, strict=True))}
        x, w, g = (
            rng.standard_normal(shape).astype(np.float32)
            for shape in ((2, *sizes, c), (*kernel, c, m), (2, *outputs, c * m))
        )
        geometry = strides, dilations, before
        exact = convolved(x, w, outputs, *geometry), *gradients(x.astype(float), w.astype(float), g, *geometry)
        ax, aw, ag = (abs(a).astype(float) for a in (x, w, g))
        scales = convolved(ax, aw, outputs, *geometry), *gradients(ax, aw, ag, *geometry)
        terms = np.prod(kernel), np.prod(kernel) * m, 2 * np.prod(outputs)
        calls = (
            ("depthwise_conv", [x, w], attrs),
            ("depthwise_conv_dx", [g, w], {**attrs, "sizes": sizes}),
            ("depthwise_conv_dw", [x, g], {**attrs, "kernel": kernel}),
        )
        for (name, inputs, options), wanted, scale, count in zip(calls, exact, scales, terms, strict=True):
            (y,), compute = backends.single(backend, name, inputs, options)
            compute()
            assert y.shape == wanted.shape
            assert (abs(y - wanted) <= 2 * EPSILON * (count + 1) * scale).all(), (name, x.shape, w.shape, attrs)


# Bits

#: (sizes, channels, multiplier, kernel, strides, dilations), with enough work that threads share it
LARGE = [
    ((30, 31), 48, 1, (3, 3), (1, 1), (1, 1)),
    ((41, 40), 33, 1, (5, 5), (2, 2), (1, 1)),
    ((70, 60), 3, 1, (3, 3), (1, 1), (2, 2)),
    ((7, 7), 520, 1, (3, 3), (1, 1), (1, 1)),
    ((20, 21), 9, 5, (3, 4), (2, 1), (1, 1)),
    ((9000,), 20, 1, (7,), (1,), (1,)),
    ((9, 11, 10), 17, 2, (3, 3, 3), (1, 1, 1), (1, 1, 1)),
]


@pytest.mark.parametrize("isa", native.isas() if native.why_not() is None else [])
@pytest.mark.parametrize("setting", LARGE)
def test_bits_depend_on_neither_threads_nor_batch(setting, isa):
    sizes, c, m, kernel, strides, dilations = setting
    rng = np.random.default_rng(0)
    found = [along(*n, "same") for n in zip(sizes, kernel, strides, dilations, strict=True)]
    before, after, outputs = zip(*found, strict=True)
    attrs = {"strides": strides, "dilations": dilations, "pads": tuple(zip(before, after, strict=True))}
    x, w, g = (rng.standard_normal(s) for s in ((3, *sizes, c), (*kernel, c, m), (3, *outputs, c * m)))
    calls = (
        ("depthwise_conv", [x, w], attrs),
        ("fused_depthwise_conv", [x, w, rng.standard_normal(c * m)], {**attrs, "activation": "silu"}),
        ("depthwise_conv_dx", [g, w], {**attrs, "sizes": sizes}),
        ("depthwise_conv_dw", [x, g], {**attrs, "kernel": kernel}),
    )
    chosen, threads = native.isa(), native.threads()
    try:
        native.choose_isa(isa)
        for name, inputs, options in calls:
            results = []
            for count in (1, 2, 3):
                native.set_threads(count)
                (y,), compute = backends.single("native", name, inputs, options)
                compute()
                results.append(y.tobytes())
            assert results[0] == results[1] == results[2], name
            assert OPS[name].count_flops(*(a.shape for a in inputs), **options) > 5e5
            if name != "depthwise_conv_dw":
                (alone,), compute = backends.single("native", name, [inputs[0][1:2], *inputs[1:]], options)
                compute()
                assert alone.tobytes() == y[1:2].tobytes(), name
    finally:
        native.choose_isa(chosen)
        native.set_threads(threads)


def test_arrays_that_do_not_fit_are_refused_by_the_operations():
    attrs = {"strides": (1, 1), "pads": ((0, 0), (0, 0)), "dilations": (1, 1)}
    infer = {name: OPS[f"depthwise_conv{name}"].infer for name in ("", "_dx", "_dw")}
    for x, w in (((1, 5, 5, 3), (3, 3, 4, 1)), ((1, 5, 5, 3), (3, 3, 3)), ((1, 5, 3), (3, 3, 3, 1)), ((1, 3), (3, 1))):
        with pytest.raises(ValueError, match=r"^depthwise_conv: needs x \(N, \*space, C\) and w .* Received: "):
            infer[""](x, w, **attrs)
    with pytest.raises(ValueError, match=r"^depthwise_conv_dx: the gradient must have the shape of the output"):
        infer["_dx"]((1, 3, 3, 3), (3, 3, 3, 1), sizes=(6, 5), **attrs)
    with pytest.raises(ValueError, match=r"^depthwise_conv_dw: the gradient must have the shape of the output"):
        infer["_dw"]((1, 5, 5, 3), (1, 3, 3, 4), kernel=(3, 3), **attrs)
    with pytest.raises(ValueError, match=r"^fused_depthwise_conv: activation must be one of"):
        OPS["fused_depthwise_conv"].infer((1, 5, 5, 3), (3, 3, 3, 1), **attrs, activation="sine")
    with pytest.raises(ValueError, match=r"^fused_depthwise_conv: needs a bias of shape \(3,\)"):
        OPS["fused_depthwise_conv"].infer((1, 5, 5, 3), (3, 3, 3, 1), (4,), **attrs, activation="relu")
