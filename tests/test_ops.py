"""Generated from the declarations: every op on every backend and instruction set, against its float64 reference."""

from __future__ import annotations

import functools
import inspect
import zlib

import numpy as np
import pytest

from fastnn import backends
from fastnn.backends import native
from fastnn.graph import Place, Tensor
from fastnn.ops import OPS
from fastnn.ops.declare import OUTPUT
from fastnn.plan import Plan

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
                f"{[a.shape for a in inputs]} {attrs}: {output[wrong][:3]} instead of {result[wrong][:3]}, off by "
                f"{abs(output - result)[wrong].max():.3g}, allowed {(tolerance + 0 * result)[wrong].max():.3g}"
            )


# More channels, filters, pixels and tiles than one block of any kernel has


@functools.cache
def large_convolutions():
    """Name, inputs, attributes, result and the error that float32 may make."""
    rng = np.random.default_rng(5)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32).astype(np.float64)

    ones = {"strides": (1, 1), "dilations": (1, 1), "groups": 1, "pads": ((1, 1), (1, 1))}
    tiles = {"kernel": (3, 3), "pads": ((1, 1), (1, 1)), "filters": 40, "activation": "relu"}
    u = OPS["winograd_weights"].reference(normal(3, 3, 530, 40), flip=False).astype(np.float32).astype(np.float64)
    found = []
    for name, inputs, attrs in (
        ("conv", [normal(3, 7, 8, 530), normal(3, 3, 530, 150)], ones),
        ("fused_conv", [normal(3, 7, 8, 530), normal(2, 2, 265, 90), normal(90)],
         {**ones, "groups": 2, "activation": "relu"}),
        ("conv_dx", [normal(3, 7, 8, 530), normal(3, 3, 150, 530)], {**ones, "sizes": (7, 8)}),
        ("conv_dw", [normal(3, 7, 8, 530), normal(3, 7, 8, 150)], {**ones, "kernel": (3, 3)}),
        ("winograd_conv", [normal(4, 17, 18, 530), u, normal(40)], tiles),
        ("winograd_conv_dx", [normal(4, 17, 18, 530), u, normal(4, 17, 18, 40)], tiles),
        ("winograd_conv_dw", [normal(3, 9, 18, 300), normal(3, 9, 18, 150)],
         {"kernel": (3, 3), "pads": ((1, 1), (1, 1))}),
        ("winograd_conv_dw", [normal(1, 4, 5, 410), normal(1, 4, 5, 450)],  # some filters at a time
         {"kernel": (3, 3), "pads": ((1, 1), (1, 1))}),
    ):  # fmt: skip
        found.append((name, inputs, attrs, *next(expected(OPS[name], inputs, attrs))))
    return found


def test_large_convolutions_agree_with_their_float64_reference(runner):
    for name, inputs, attrs, result, tolerance in large_convolutions():
        (output,), run = backends.single(runner, name, inputs, attrs)
        run()
        assert (abs(output - result) <= tolerance).all(), name
        if name in ROWWISE and runner != "numpy":
            row = [a[2:3] if i in ROWWISE[name] else a for i, a in enumerate(inputs)]
            assert bits(runner, name, row, attrs) == [output[2:3].tobytes()], name


# Shapes


@pytest.mark.parametrize("name", OPS)
def test_shape_rule_agrees_with_the_result(name):
    op = OPS[name]
    for inputs, attrs in cases(op):
        shape = op.infer(*(a.shape for a in inputs), **op.complete(attrs))
        if op.updates:
            assert shape is None
            for index, value in zip(op.updates, op.reference(*inputs, **attrs), strict=True):
                assert value.shape == inputs[index].shape
        else:
            assert op.reference(*inputs, **attrs).shape == shape


def other_shapes(shape):
    """Shapes that differ in one size, or by one more axis."""
    yield from (tuple(size + (axis == changed) for axis, size in enumerate(shape)) for changed in range(len(shape)))
    yield (*shape, 2)


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if len(op.inputs) > 1])
def test_inputs_that_do_not_fit_are_refused_in_the_name_of_the_op(name):
    op, refusals = OPS[name], []
    inputs, attrs = list(cases(op))[2]
    for number, array in enumerate(inputs):
        for changed in other_shapes(array.shape):
            given = [changed if i == number else a.shape for i, a in enumerate(inputs)]
            try:
                result = op.infer(*given, **op.complete(attrs))
            except ValueError as error:
                refusals.append(str(error))
                continue
            if not op.updates:  # a size that is free, such as the rows of a matmul
                arrays = [np.ones(shape, a.dtype) for shape, a in zip(given, inputs, strict=True)]
                assert op.reference(*arrays, **attrs).shape == result
    assert refusals
    for message in refusals:
        assert message.startswith(f"{name}: ")
        assert "Received: " in message


@pytest.mark.parametrize("name", OPS)
def test_attributes_that_the_op_does_not_have_are_refused(name):
    inputs, attrs = next(cases(OPS[name]))
    leaves = [Tensor(a.shape) for a in inputs]
    with pytest.raises(TypeError, match=name):
        OPS[name](*leaves, **attrs, unknown=1)
    for missing in [key for key in attrs if OPS[name].attrs[key] is inspect.Parameter.empty]:
        with pytest.raises(TypeError, match=name):
            OPS[name](*leaves, **{key: value for key, value in attrs.items() if key != missing})


# Gradients

#: Where a derivative jumps: no step is made across it.
KINKS = {
    **dict.fromkeys(("relu", "leaky_relu", "elu", "selu"), (0.0,)),
    "relu6": (0.0, 6.0),
    **dict.fromkeys(("hard_sigmoid", "hard_silu"), (-3.0, 3.0)),
    "penalty": (0.0,),
    "bounded_relu": (0.0, 0.5, 1.25, 1.5),
    "prelu": (0.0,),
}
STEP = 2.0**-14


#: Ops whose gradient goes through moments, their second input, which must be those of the first.
MOMENTS = {
    "batch_norm": lambda x, moments: OPS["moments"].reference(x),
    "group_norm": lambda x, moments: OPS["group_moments"].reference(x, groups=moments.shape[2]),
}


def consistent(name, inputs):
    """The inputs, with moments that are those of the first."""
    if name not in MOMENTS:
        return inputs
    x, moments, *others = inputs
    return [x, MOMENTS[name](x, moments), *others]


def direction(rng, name, inputs, number, attrs):
    """A random direction for one input, 0 where a step would cross a kink or be lost beside a huge number."""
    x = inputs[number]
    d = rng.standard_normal(x.shape)
    near = abs(x) > 60
    for kink in KINKS.get(name, ()):
        near |= abs(x - kink) < 4 * STEP * abs(d)
    if name == "dense":
        d *= 1e-3
    if name in ("mean_absolute_error", "maximum", "minimum"):
        near |= abs(inputs[0] - inputs[1]) < 4 * STEP * abs(d)
    if name == "random_contrast":  # the mean moves too, by less
        whole = OPS[name].reference(*inputs, **{**attrs, "limits": (-np.inf, np.inf)})
        for limit in attrs["limits"]:
            near |= abs(whole - limit) < 16 * STEP
    return np.where(near, 0.0, d)


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.gradient is not None])
def test_gradient_rule_is_the_slope_along_random_directions(name):
    """Central differences in float64; their error is that of their next term, found by a second, twice as long step."""
    op, rng, checked = OPS[name], np.random.default_rng(7), 0
    for inputs, attrs in cases(op):
        if sum(a.size for a in inputs) > 20_000:
            continue
        inputs = consistent(name, inputs)
        y = op.reference(*inputs, **attrs)
        g = rng.standard_normal(y.shape)
        parts = op.gradient(g, y, *inputs, **attrs)
        assert len(parts) == len(inputs)
        terms = op.terms(*(a.shape for a in inputs), **attrs) + 8
        scale = op.scale(*inputs, **attrs) if op.scale else 1.0
        for number, part in enumerate(parts):
            if part is None:
                continue
            assert part.shape == inputs[number].shape
            d = direction(rng, name, inputs, number, attrs)

            def along(step, number=number, d=d, inputs=inputs, attrs=attrs, g=g):
                moved = [x + step * d if i == number else x for i, x in enumerate(inputs)]
                return np.sum(g * op.reference(*consistent(name, moved), **attrs))

            slope, coarse = ((along(h) - along(-h)) / (2 * h) for h in (STEP, 2 * STEP))
            rounding = 2.0**-52 * terms * np.sum(abs(g) * (scale + abs(y))) / STEP
            assert abs(np.sum(part * d) - slope) <= abs(coarse - slope) + rounding, (name, number, inputs[number].shape)
            checked += 1
    assert checked or name == "fill"  # which depends on a size alone


def test_a_target_gets_no_gradient():
    for name in ("mean_squared_error", "binary_crossentropy", "sparse_softmax_crossentropy", "overlap"):
        (p, y), attrs = next(cases(OPS[name]))
        rows = OPS[name].reference(p, y, **attrs)
        assert OPS[name].gradient(np.ones_like(rows), rows, p, y, **attrs)[1] is None


# One run for each backend and instruction set, whatever the threads

NATIVE = native.isas() if native.why_not() is None else []


@pytest.fixture
def engine(request):
    """The name of a backend, for native with the instruction set chosen and as many threads as there were."""
    name, _, isa = request.param.partition("-")
    before = (native.isa(), native.threads()) if isa else None
    if isa:
        native.choose_isa(isa)
    yield name
    if before is not None:
        native.choose_isa(before[0])
        native.set_threads(before[1])


every_isa = pytest.mark.parametrize("engine", [f"native-{isa}" for isa in NATIVE], indirect=True)
every_backend = pytest.mark.parametrize(
    "engine", [*(f"native-{isa}" for isa in NATIVE), *(n for n in runners() if "-" not in n)], indirect=True
)
every_engine = pytest.mark.parametrize(
    "engine", [*(f"native-{isa}" for isa in NATIVE), *(n for n in runners() if n == "numba")], indirect=True
)


# NaN and infinity

ELEMENTWISE = [name for name, op in OPS.items() if op.elementwise and len(op.inputs) == 1 and not name.endswith("_dx")]
LOSSES = [name for name in OPS if name.endswith(("_error", "_crossentropy"))]


def attributes(name, classes):
    """Those of a loss on rows of so many classes."""
    attrs = dict(next(cases(OPS[name]))[1])
    return {**attrs, "class_weights": (0.25,) * classes} if "class_weights" in attrs else attrs


SPECIAL = (np.nan, np.inf, -np.inf)


def assert_like_reference(backend, name, inputs, attrs):
    outputs, run = backends.single(backend, name, inputs, attrs)
    run()
    (result, tolerance), output = next(expected(OPS[name], inputs, attrs)), outputs[0].astype(float)
    result = result.astype(np.float32).astype(float)
    if name.endswith("_crossentropy"):  # clipped: half a unit in the last place times the slope of log at the limit
        tolerance = np.nan_to_num(tolerance, nan=EPSILON / 1e-7)
    with np.errstate(invalid="ignore"):
        same = (output == result) | (np.isnan(output) & np.isnan(result)) | (abs(output - result) <= tolerance)
    assert same.all(), f"{[a.tolist() for a in inputs]}: {output[~same]} instead of {result[~same]}"


@every_backend
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_nan_and_infinity_come_through_an_elementwise_op_at_every_lane(name, engine):
    attrs = next(cases(OPS[name]))[1]
    for size in range(1, 34):
        for first in range(4):
            x = np.linspace(-2.0, 3.0, size)
            for number, value in enumerate(SPECIAL, start=first):
                x[number % 4 :: 4] = value
            assert_like_reference(engine, name, [x.reshape(1, size)], attrs)


@every_backend
@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_nan_comes_through_at_every_lane_from_either_of_two(name, engine):
    for size in range(1, 34):
        for place in range(4):
            for value in SPECIAL:
                inputs = [np.linspace(-2.0, 3.0, size).reshape(1, size) for _ in range(2)]
                inputs[0][:, place::4] = value
                assert_like_reference(engine, name, inputs, {})
                assert_like_reference(engine, name, inputs[::-1], {})


@every_backend
@pytest.mark.parametrize("name", ["softmax", *LOSSES])
def test_nan_and_infinity_come_through_a_row_at_every_lane(name, engine):
    for size in range(1, 34):
        target = np.zeros((size, 1)) if name.startswith("sparse") else np.eye(size)
        for value in SPECIAL:
            x = np.tile(np.linspace(0.1, 0.9, size), (size, 1))
            np.fill_diagonal(x, value)
            attrs = attributes(name, size)
            assert_like_reference(engine, name, [x, *([] if name == "softmax" else [target])], attrs)


@every_backend
@pytest.mark.parametrize(("c", "f"), [(3, 3), (8, 8), (2, 5), (9, 4)])
def test_nan_and_infinity_in_a_group_of_a_convolution_stay_in_it(c, f, engine):
    rng = np.random.default_rng(7)
    groups, pads = 5, ((1, 1), (1, 1))
    x, g = rng.standard_normal((2, 5, 6, groups * c)), rng.standard_normal((2, 5, 6, groups * f))
    w = rng.standard_normal((3, 3, c, groups * f))
    attrs = {"strides": (1, 1), "dilations": (1, 1), "pads": pads, "groups": groups}
    for number, value in enumerate(SPECIAL * groups):
        broken_x, broken_g, broken_w = x.copy(), g.copy(), w.copy()
        broken_x[1, 2, number % 6, number % (groups * c)] = value
        broken_g[0, 4, number % 6, number % (groups * f)] = value
        broken_w[1, 2, number % c, number % (groups * f)] = value
        assert_like_reference(engine, "conv", [broken_x, w], attrs)
        assert_like_reference(engine, "conv", [x, broken_w], attrs)
        assert_like_reference(engine, "conv_dx", [broken_g, w], {**attrs, "sizes": (5, 6)})
        assert_like_reference(engine, "conv_dw", [broken_x, g], {**attrs, "kernel": (3, 3)})
        assert_like_reference(engine, "conv_dw", [x, broken_g], {**attrs, "kernel": (3, 3)})


# Bits

#: More floating-point operations than the least for which the native engine shares a step between threads.
WORTH_SHARING = 2e6


def bits(backend, name, inputs, attrs):
    outputs, run = backends.single(backend, name, inputs, attrs)
    run()
    return [output.tobytes() for output in outputs]


def enlarged(name):
    """Inputs with so much work that the threads share it: one of the op's cases with its rows repeated."""
    op = OPS[name]
    if name == "winograd_weights":  # has no rows
        return [np.random.default_rng(1).standard_normal((3, 3, 90, 200))], {"flip": True}
    for inputs, attrs in reversed(list(cases(op))):
        rows = len(inputs[-1 if name in ("gather", "scatter", "accumulate", "penalty_dx") else 0])
        if rows < 3 or any(rows in a.shape[1:] for a in inputs):
            continue
        varying = [len(a) == rows and not (name == "dense" and number) for number, a in enumerate(inputs)]
        times = 1
        while work(op, inputs, attrs, varying, times) < WORTH_SHARING:
            times *= 2
        large = [np.concatenate([a] * times) if v else a for a, v in zip(inputs, varying, strict=True)]
        if name == "scatter":
            large[0], large[2] = np.concatenate([inputs[0]] * times), np.random.default_rng(1).permutation(times * rows)
        return large, attrs
    raise AssertionError(f"{name}: has no case that can be made large")


def work(op, inputs, attrs, varying, times):
    shapes = [(len(a) * times, *a.shape[1:]) if v else a.shape for a, v in zip(inputs, varying, strict=True)]
    return op.count_flops(*shapes, **attrs)


@every_isa
@pytest.mark.parametrize("name", [name for name, op in OPS.items() if not op.view])
def test_bits_do_not_depend_on_threads(name, engine):
    for inputs, attrs in cases(OPS[name]):
        native.set_threads(1)
        alone = bits(engine, name, inputs, attrs)
        native.set_threads(2)
        assert bits(engine, name, inputs, attrs) == alone


@every_isa
@pytest.mark.parametrize("name", [name for name, op in OPS.items() if not op.view])
def test_large_arrays_have_the_same_bits_for_any_number_of_threads(name, engine):
    inputs, attrs = enlarged(name)
    results = []
    for threads in (1, 2, 3):
        native.set_threads(threads)
        results.append(bits(engine, name, inputs, attrs))
    assert results[0] == results[1] == results[2]


@every_isa
def test_large_products_have_the_same_bits_for_any_number_of_threads(engine):
    rng = np.random.default_rng(3)
    x, w, g = (rng.standard_normal(shape) for shape in ((300, 200), (200, 150), (300, 150)))
    b, y = rng.standard_normal(150), np.tanh(rng.standard_normal((300, 200))).astype(np.float32)
    calls = [
        ("matmul", [x, w], {}),
        ("matmul_nt", [g, w], {}),
        ("matmul_tn", [x, g], {}),
        ("dense", [x, w, b], {"activation": "gelu"}),
        ("dense_dx", [g, w, y], {"activation": "tanh"}),
    ]
    for name, inputs, attrs in calls:
        results = []
        for threads in (1, 2, 3):
            native.set_threads(threads)
            results.append(bits(engine, name, inputs, attrs))
        assert results[0] == results[1] == results[2], name
        output = np.frombuffer(results[0][0], np.float32)
        exact, tolerance = next(expected(OPS[name], [a.astype(np.float32).astype(float) for a in inputs], attrs))
        assert (abs(output - exact.reshape(-1)) <= np.broadcast_to(tolerance, exact.shape).reshape(-1)).all(), name


@every_isa
@pytest.mark.parametrize("attrs", [{"activation": "linear"}, {"activation": "relu"}, {"activation": "tanh"}])
def test_a_row_has_the_same_bits_in_any_number_of_rows_of_a_product_with_a_matrix_from_memory(attrs, engine):
    rng = np.random.default_rng(4)
    x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((33, 1100), (1100, 512), (512,)))
    whole = np.frombuffer(bits(engine, "dense", [x, w, b], attrs)[0], np.float32).reshape(33, 512)
    exact, tolerance = next(expected(OPS["dense"], [a.astype(float) for a in (x, w, b)], attrs))
    assert (abs(whole - exact) <= tolerance).all()
    for rows in (1, 2, 3):
        for threads in (1, 2, 3):
            native.set_threads(threads)
            assert bits(engine, "dense", [x[:rows], w, b], attrs) == [whole[:rows].tobytes()], (rows, threads)


@every_engine
@pytest.mark.parametrize("shape", [(3, 280, 290, 1), (2, 300, 310, 3), (5, 170, 190, 8), (2, 150, 160, 33)])
def test_sums_of_many_rows_are_right_and_have_the_same_bits_for_any_number_of_threads(shape, engine):
    """Of numbers with a mean, so that an error in one direction would show."""
    g = (np.random.default_rng(6).standard_normal(shape) + 1.0).astype(np.float32).astype(float)
    exact, tolerance = next(expected(OPS["sum_rows"], [g], {}))
    assert OPS["sum_rows"].terms(shape) < 1300
    results = []
    for threads in (1, 2, 3) if engine == "native" else (1,):
        if engine == "native":
            native.set_threads(threads)
        results.append(bits(engine, "sum_rows", [g], {}))
        assert (abs(np.frombuffer(results[0][0], np.float32) - exact) <= tolerance).all()
    assert all(result == results[0] for result in results)


@every_isa
@pytest.mark.parametrize(("c", "kernel"), [(32, (2, 2)), (48, (2, 3)), (16, (4, 4))])
@pytest.mark.parametrize("name", ["upsample_nearest", "upsample_bilinear"])
def test_outputs_too_large_for_the_caches_are_right(name, c, kernel, engine):
    x = np.random.default_rng(8).standard_normal((2, 70 * 4 // kernel[0], 64 * 4 // kernel[1] + 1, c))
    x = x.astype(np.float32).astype(float)
    exact, tolerance = next(expected(OPS[name], [x], {"kernel": kernel}))
    assert exact.size > 2**21
    results = []
    for threads in (1, 2):
        native.set_threads(threads)
        results.append(bits(engine, name, [x], {"kernel": kernel})[0])
        assert (abs(np.frombuffer(results[0], np.float32).reshape(exact.shape) - exact) <= tolerance).all()
    assert results[0] == results[1]


def in_place(backend, name, inputs, attrs, over):
    """The result of one step whose output takes the memory of its input number ``over``."""
    leaves = [Tensor(a.shape, place=Place(f"in{i}")) for i, a in enumerate(inputs)]
    buffers = {f"in{i}": np.ascontiguousarray(a, np.float32).copy() for i, a in enumerate(inputs)}
    output = OPS[name](*leaves, **attrs)
    output.place = Place(f"in{over}")
    backends.load(backend).Program(Plan([output], batch=1)).run(buffers, 0, 1, 1, 1)
    return [buffers[f"in{over}"].tobytes()]


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.elementwise])
def test_an_elementwise_op_may_write_over_its_input(name, runner):
    for inputs, attrs in cases(OPS[name]):
        apart = bits(runner, name, inputs, attrs)
        for over in OPS[name].elementwise[: len(inputs)]:
            if inputs[over].shape == inputs[0].shape:
                assert in_place(runner, name, inputs, attrs, over) == apart, (over, inputs[over].shape)


def of_slice(backend, name, inputs, attrs, number, before, after):
    """The output's bits where input ``number``, or the output, lies in a larger array, between so many columns."""
    arrays = [np.asarray(array, np.float32) for array in inputs]
    node = OPS[name].record(*(Tensor(a.shape, place=Place(f"in{i}")) for i, a in enumerate(arrays)), **attrs)
    node.place = Place("out")
    plan = Plan([node], batch=1, passes=())
    (step,) = plan.steps
    output = np.full(node.shape, np.nan, np.float32)
    inside = output if number == OUTPUT else arrays[number]
    whole = np.full((*inside.shape[:-1], before + inside.shape[-1] + after), np.nan, np.float32)
    part = whole[..., before : before + inside.shape[-1]]
    part[...] = inside

    def sliced(operand):
        return operand._replace(place=operand.place._replace(offset=before), skip=before + after)

    if number == OUTPUT:
        plan.steps = [step._replace(outputs=(sliced(step.outputs[0]),))]
        output = whole
    else:
        operands = [sliced(operand) if i == number else operand for i, operand in enumerate(step.inputs)]
        plan.steps = [step._replace(inputs=tuple(operands))]
        arrays[number] = whole
    buffers = {f"in{i}": array for i, array in enumerate(arrays)} | {"out": output}
    backends.load(backend).Program(plan).run(buffers, 0, 1, 1, 1)
    if number == OUTPUT:
        output = part.copy()
        part[...] = np.nan
        assert np.isnan(whole).all()
    return [output.tobytes()]


@every_backend
@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.slices])
def test_a_slice_of_a_larger_array_has_the_same_bits(name, engine):
    for inputs, attrs in (*cases(OPS[name]), enlarged(name)):
        apart = bits(engine, name, inputs, attrs)
        for number in OPS[name].slices:
            for before, after in ((3, 6), (0, 16), (32, 0)):
                assert of_slice(engine, name, inputs, attrs, number, before, after) == apart, (number, before, after)


#: Ops that compute each row by itself, and which of their inputs have rows.
ROWWISE = {
    **dict.fromkeys(("matmul", "dense", "matmul_nt", "add_bias", "scale_columns", "softmax"), (0,)),
    **dict.fromkeys(("conv", "conv_dx", "fused_conv", "fused_conv_transpose"), (0,)),
    **dict.fromkeys(("winograd_conv", "winograd_conv_pool"), (0,)),
    **dict.fromkeys(("depthwise_conv", "depthwise_conv_dx", "fused_depthwise_conv"), (0,)),
    **dict.fromkeys(("dense_dx", "fused_conv_dx", "winograd_conv_dx"), (0, 2)),
    **dict.fromkeys(("softmax_dx", "affine_transform", "affine_transform_dx"), (0, 1)),
    **{name: tuple(range(len(op.inputs))) for name, op in OPS.items() if name.removesuffix("_dx") in LOSSES},
    **{name: (0, 1) for name in OPS if name.endswith("_accuracy")},
    **{name: tuple(range(len(op.inputs))) for name, op in OPS.items() if "_pool" in name and "conv" not in name},
    **{
        name: tuple(range(len(op.inputs)))
        for name, op in OPS.items()
        if op.elementwise
        and not name.startswith(("add_bias", "scale_columns", "batch_norm", "fused_batch_norm"))
    },
    **dict.fromkeys(("batch_norm", "fused_batch_norm", "normalize", "normalize_dx", "fused_normalize"), (0,)),
    **dict.fromkeys(("layer_norm", "group_moments"), (0,)),
    **dict.fromkeys(("group_norm", "layer_norm_dx"), (0, 1)),
    "group_norm_sums": (0, 1, 2),
    "group_norm_dx": (0, 1, 2, 4),
    **dict.fromkeys(("prelu", "transpose", "zero_pad", "crop", "part", "embed", "broadcast", "sum_to"), (0,)),
    "batch_dot": (0, 1),
    "concatenate": tuple(range(6)),
    **{name: (0,) for name in OPS if name.startswith("upsample_")},
    "prelu_dx": (0, 1),
    **dict.fromkeys(("overlap", "overlap_dx", "tversky_dx"), (0, 1, 2)),
    **dict.fromkeys(("class_counts", "threshold_counts", "tversky"), (0, 1)),
}


@every_engine
@pytest.mark.parametrize("name", ROWWISE)
def test_a_row_has_the_same_bits_alone_and_in_any_batch(name, engine):
    for inputs, attrs in cases(OPS[name]):
        rows = len(inputs[0])
        outputs, run = backends.single(engine, name, inputs, attrs)
        run()
        starts = {0, 1, rows // 3, rows // 2, rows - 2, rows - 1}
        for start in sorted(s for s in starts if 0 <= s < rows):
            for stop in sorted({start + 1, min(start + 5, rows), min(start + 17, rows)}):
                part = [a[start:stop] if i in ROWWISE[name] else a for i, a in enumerate(inputs)]
                assert bits(engine, name, part, attrs) == [outputs[0][start:stop].tobytes()], (start, stop)
