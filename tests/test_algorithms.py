"""Which algorithm a Plan takes for a convolution: a matter of shapes, never of the batch."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from small_graphs import leaf, ops

import fastnn
from fastnn import backends
from fastnn.backends.numpy import Program
from fastnn.graph import ALL, Place, Tensor
from fastnn.layers import Conv2D, Dense, Flatten, MaxPooling2D
from fastnn.ops import OPS
from fastnn.ops.conv import conv, conv_dw, conv_dx, fused_conv, fused_conv_dx, transposed_pads
from fastnn.ops.pointwise import tanh
from fastnn.ops.pool import max_pool
from fastnn.ops.update import sgd
from fastnn.ops.winograd import pool_attrs
from fastnn.plan import Plan, choose
from fastnn.plan.algorithms import worth_winograd
from fastnn.plan.schedule import schedule


def geometry(rank, **changes):
    attrs = {"strides": (1,) * rank, "pads": ((1, 1),) * rank, "dilations": (1,) * rank, "groups": 1}
    return {**attrs, **changes}


def graph(name, space, kernel, channels, filters, *, bias=True, **changes):
    """One op of the family with placed leaves, its output wanted in "out"."""
    attrs = geometry(len(space), **changes)
    x, w = leaf(None, *space, channels, name="x"), leaf(*kernel, channels // attrs["groups"], filters, name="w")
    y = conv(x, w, **attrs)
    g = leaf(*y.shape, name="g")
    if name == "conv":
        found = y
    elif name == "fused_conv":
        found = fused_conv(x, w, *([leaf(filters, name="b")] if bias else []), **attrs, activation="tanh")
    elif name == "conv_dx":
        found = conv_dx(g, w, sizes=space, **attrs)
    elif name == "fused_conv_dx":
        found = fused_conv_dx(g, w, leaf(*x.shape, name="y"), sizes=space, **attrs, activation="relu")
    else:
        found = conv_dw(x, g, kernel=kernel, **attrs)
    found.place = Place("out")
    return found


NAMES = ("conv", "fused_conv", "conv_dx", "fused_conv_dx", "conv_dw")
SMALL = ((7, 9), (3, 3), 16, 20)


def run(backend, op, arrays, attrs):
    (output,), compute = backends.single(backend, op, arrays, attrs)
    compute()
    return output


def chosen(found, batch=2, **options):
    return ops(Plan([found], batch=batch, **options))


def assert_same_numbers(found):
    """The Plan computes what the op does by itself."""
    rng = np.random.default_rng(1)
    plan, apart = Plan([found], batch=3, dtype="float64"), Plan([found], batch=3, dtype="float64", passes=())
    tensors = {t.name: t for t in found.node.inputs}
    buffers = {name: rng.normal(size=[3 if s is None else s for s in t.shape]) for name, t in tensors.items()}
    results = []
    for each in (plan, apart):
        buffers["out"] = np.full([3 if s is None else s for s in found.shape], np.nan)
        Program(each).run(buffers, 0, 1, 3, 3)
        results.append(buffers["out"])
    assert ops(apart) == [found.node.op.name]
    np.testing.assert_allclose(results[0], results[1], rtol=1e-9, atol=1e-10)


# Products


@pytest.mark.parametrize(
    ("name", "product"), list(zip(NAMES, ("matmul", "dense", "matmul_nt", "dense_dx", "matmul_tn"), strict=True))
)
@pytest.mark.parametrize("space", [(9,), (5, 6), (2, 3, 4)])
def test_a_kernel_of_one_element_is_a_product(name, product, space):
    rank = len(space)
    found = graph(name, space, (1,) * rank, 3, 5, pads=((0, 0),) * rank, dilations=(2,) * rank)
    plan = Plan([found], batch=2)
    assert ops(plan) == [product]  # weights and their gradient are seen as a matrix at no cost
    weights = plan.steps[0].outputs[0] if name == "conv_dw" else plan.steps[0].inputs[1]
    assert (weights.shape, weights.place) == ((3, 5), Place("out" if name == "conv_dw" else "w"))
    assert_same_numbers(found)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "changes", [{"strides": (2, 1)}, {"pads": ((0, 0), (0, 1))}, {"groups": 3, "pads": ((0, 0), (0, 0))}]
)
def test_with_strides_padding_or_groups_it_is_not(name, changes):
    changes = {"pads": ((0, 0), (0, 0)), **changes}
    assert chosen(graph(name, (5, 6), (1, 1), 6, 9, **changes)) == [name]


def test_an_update_waits_for_a_product_with_the_weights_that_it_overwrites():
    w, rates = leaf(1, 1, 3, 3, name="w"), leaf(1, name="rates")
    attrs = geometry(2, pads=((0, 0), (0, 0)))
    update = sgd(leaf(9, name="w"), leaf(9, name="grads"), rates)
    y = conv(leaf(None, 4, 4, 3, name="x"), w, **attrs)
    y.place = Place("out")
    result = choose([update, y])
    order = [node.op.name for node in schedule([result[update], result[y]])]
    assert order == ["reshape_weight", "matmul", "sgd"]


# Winograd


@pytest.mark.parametrize("name", NAMES)
def test_a_convolution_of_stride_one_is_winograds(name):
    wanted = {
        "conv": ["winograd_weights", "winograd_conv"],
        "fused_conv": ["winograd_weights", "winograd_conv"],
        "conv_dx": ["winograd_weights", "winograd_conv"],
        "fused_conv_dx": ["winograd_weights", "winograd_conv_dx"],
        "conv_dw": ["winograd_conv_dw"],
    }[name]
    found = graph(name, *SMALL)
    plan = Plan([found], batch=2)
    assert ops(plan) == wanted
    if "w" in {t.name for t in found.node.inputs}:
        assert plan.steps[0].attrs == {"flip": name.endswith("dx")}
    assert_same_numbers(found)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("space", "kernel", "pads"),
    [
        ((30,), (3,), ((0, 2),)),
        ((13,), (5,), ((2, 2),)),
        ((9, 8), (5, 5), ((2, 1), (0, 2))),
        ((3, 17), (1, 3), ((0, 0), (1, 1))),
        ((4, 5, 6), (3, 3, 3), ((1, 1), (0, 1), (1, 0))),
        ((3, 5, 6), (2, 3, 3), ((0, 1), (1, 1), (2, 2))),
    ],
)
def test_every_kernel_that_winograd_fits_computes_the_same(name, space, kernel, pads):
    found = graph(name, space, kernel, 17, 16, pads=pads)
    assert any(op.startswith("winograd_conv") for op in chosen(found))
    assert_same_numbers(found)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "conv_dw"])
def test_many_weights_that_change_at_each_step_are_transformed_on_the_way(name):
    found = graph(name, (6, 7), (3, 3), 190, 200)
    assert len(chosen(found)) == 1
    plan = Plan([found], batch=2, passes=[choose])
    assert plan.steps[0].attrs["flip"] == name.endswith("dx")
    assert [i.shape for i in plan.steps[0].inputs][1] == (3, 3, 190, 200)
    assert chosen(found, passes=[partial(choose, changing=False)])[0] == "winograd_weights"
    assert_same_numbers(found)


def test_without_a_bias_there_is_none():
    found = graph("fused_conv", *SMALL, bias=False)
    plan = Plan([found], batch=2)
    assert [i.shape for i in plan.steps[1].inputs] == [(None, 7, 9, 16), (36, 1, 16, 32)]
    assert plan.steps[1].attrs["activation"] == "tanh"
    assert_same_numbers(found)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "setting",
    [
        {"strides": (2, 2)},
        {"strides": (1, 2)},
        {"dilations": (2, 1)},
        {"groups": 2},
        {"kernel": (4, 4)},
        {"kernel": (3, 2)},
        {"kernel": (7, 7), "pads": ((3, 3), (3, 3))},
        {"channels": 15},
        {"filters": 15},
    ],
    ids=str,
)
def test_everything_else_is_summed_directly(name, setting):
    setting = {"space": (12, 12), "kernel": (3, 3), "channels": 16, "filters": 16, **setting}
    assert chosen(graph(name, **setting)) == [name]


@pytest.mark.parametrize("name", ["conv_dx", "fused_conv_dx"])
def test_padding_wider_than_the_kernel_is_summed_directly_on_the_way_back(name):
    pads = ((3, 0), (1, 1))
    assert chosen(graph("conv", *SMALL, pads=pads)) == ["winograd_weights", "winograd_conv"]
    assert min(transposed_pads((3, 3), (1, 1), pads)[0]) < 0
    assert chosen(graph(name, *SMALL, pads=pads)) == [name]


def test_tiles_must_be_worth_it():
    assert worth_winograd((3, 3), 16, 16, (4, 4))
    assert not worth_winograd((3, 3), 16, 16, (2, 2))  # a tile of 36 points for 4 outputs of 9 products
    assert not worth_winograd((3, 3), 16, 16, (1, 40))
    assert worth_winograd((3,), 16, 16, (4,))
    assert not worth_winograd((3,), 16, 16, (2,))
    assert not worth_winograd((5, 5), 16, 16, (1, 1))
    assert worth_winograd((5, 5), 16, 16, (2, 2))
    assert worth_winograd((1, 3), 16, 16, (1, 4))
    assert not worth_winograd((3, 3), 15, 16, (8, 8))
    assert not worth_winograd((3, 3), 16, 15, (8, 8))
    assert not worth_winograd((3, 1), 16, 16, (8, 8))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("setting", [SMALL, ((2, 2), (3, 3), 16, 16), ((6, 6), (3, 3), 3, 32)], ids=str)
def test_the_batch_does_not_matter(name, setting):
    found = graph(name, *setting)
    assert len({tuple(chosen(found, batch)) for batch in (1, 2, 3, 31, 256, 100_000)}) == 1


def test_weights_are_transformed_once_for_all_that_use_them():
    w = leaf(3, 3, 16, 16, name="w")
    attrs = geometry(2)
    one, two = (tanh(conv(leaf(None, 8, 8, 16, name=name), w, **attrs)) for name in "xz")
    back = conv_dx(leaf(None, 8, 8, 16, name="g"), w, sizes=(8, 8), **attrs)
    for number, root in enumerate((one, two, back)):
        root.place = Place(f"out{number}")
    plan = Plan([one, two, back], batch=2)
    assert ops(plan) == ["winograd_weights", "winograd_conv", "winograd_conv", "winograd_weights", "winograd_conv"]
    assert [step.attrs["flip"] for step in plan.steps if step.op.name == "winograd_weights"] == [False, True]


# Pools at the end of a convolution


def pooled(space=(9, 10), kernel=(3, 3), window=(2, 2), strides=None, pool_pads=None, activation="relu"):
    """A convolution that Winograd fits, an activation, a pool."""
    rank = len(space)
    x, w, b = leaf(None, *space, 16, name="x"), leaf(*kernel, 16, 20, name="w"), leaf(20, name="b")
    pads = tuple((k // 2, k // 2) for k in kernel)
    y = fused_conv(x, w, b, **geometry(rank, pads=pads), activation=activation)
    found = max_pool(y, kernel=window, strides=strides or window, pads=pool_pads or ((0, 0),) * rank)
    found.place = Place("out")
    return found


@pytest.mark.parametrize(
    ("space", "kernel", "window"),
    [
        ((9, 10), (3, 3), (2, 2)),
        ((8, 13), (5, 5), (2, 2)),
        ((41,), (3,), (2,)),
        ((4, 24), (1, 3), (1, 2)),
        ((3, 9, 8), (3, 3, 3), (1, 2, 2)),
    ],
)
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_a_pool_of_two_rides_in_the_convolution(space, kernel, window, activation):
    found = pooled(space, kernel, window, activation=activation)
    plan, apart = Plan([found], batch=3, dtype="float64"), Plan([found], batch=3, dtype="float64", passes=())
    assert ops(plan) == ["winograd_weights", "winograd_conv_pool"]
    rng, results = np.random.default_rng(2), []
    arrays = {"x": rng.normal(size=(3, *space, 16)), "w": rng.normal(size=(*kernel, 16, 20)), "b": rng.normal(size=20)}
    for each in (plan, apart):
        out = np.full((3, *found.shape[1:]), np.nan)
        Program(each).run({**arrays, "out": out}, 0, 1, 3, 3)
        results.append(out)
    np.testing.assert_allclose(results[0], results[1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "changes",
    [
        {"window": (3, 3)},
        {"window": (2, 1)},
        {"strides": (1, 1)},
        {"pool_pads": ((1, 1), (0, 0))},
        {"activation": "gelu"},
        {"space": (41,), "kernel": (3,), "window": (4,)},
        {"space": (4, 24), "kernel": (1, 3), "window": (2, 2)},
        {"space": (4, 9, 8), "kernel": (3, 3, 3), "window": (2, 2, 2)},
    ],
)
def test_other_pools_are_steps_of_their_own(changes):
    assert chosen(pooled(**changes)) == ["winograd_weights", "winograd_conv", "max_pool"]


def test_a_convolution_that_somebody_else_reads_is_not_pooled():
    found = pooled()
    other = tanh(found.node.inputs[0])
    other.place = Place("other")
    plan = Plan([found, other], batch=2)
    assert sorted(ops(plan)) == ["max_pool", "tanh", "winograd_conv", "winograd_weights"]


@pytest.mark.parametrize("backend", ["native", "numba"])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (3,), (1, 3)])
def test_pooled_outputs_have_the_same_bits(backend, kernel):
    rng = np.random.default_rng(3)
    rank = len(kernel)
    space = (13, 11)[-rank:]
    x, w, b = (rng.standard_normal(shape) for shape in ((2, *space, 17), (*kernel, 17, 37), (37,)))
    x[0, ..., 3][(2,) * rank] = np.nan
    u = run(backend, "winograd_weights", [w], {"flip": False})
    attrs = {"kernel": kernel, "pads": ((1, 0),) * rank, "filters": 37, "activation": "relu"}
    if kernel == (1, 3):
        attrs["pads"] = ((0, 0), (1, 0))
    y = run(backend, "winograd_conv", [x, u, b], attrs)
    apart = run(backend, "max_pool", [y], pool_attrs(kernel))
    together = run(backend, "winograd_conv_pool", [x, u, b], attrs)
    assert np.isnan(apart).any()
    np.testing.assert_array_equal(together.view(np.uint32), apart.view(np.uint32))


def test_a_model_pools_in_the_convolution_only_for_prediction():
    model = fastnn.Sequential(
        [
            Conv2D(16, 3, padding="same", activation="relu", input_shape=(12, 12, 3)),
            Conv2D(16, 3, padding="same", activation="relu"),
            MaxPooling2D(),
            Flatten(),
            Dense(2, activation="softmax"),
        ]
    )
    model.compile(optimizer="sgd", loss="categorical_crossentropy")
    x = np.random.default_rng(0).standard_normal((8, 12, 12, 3), np.float32)
    assert "winograd_conv_pool" in str(model.plan(training=False))
    assert "winograd_conv_pool" not in str(model.plan())
    assert "max_pool" in str(model.plan())
    by_tiles = model.predict(x, verbose=0)
    fastnn.config.set_winograd(False)
    try:
        directly = model.predict(x, verbose=0)
    finally:
        fastnn.config.set_winograd(True)
    np.testing.assert_allclose(by_tiles, directly, rtol=1e-5, atol=1e-6)


def test_a_plan_may_be_made_without_choosing():
    assert chosen(graph("conv", *SMALL), passes=()) == ["conv"]


# The setting


def model():
    fastnn.set_seed(0)
    layers = [Conv2D(16, 3, activation="relu", input_shape=(9, 9, 3)), Conv2D(17, 3), Conv2D(4, 1), Flatten(), Dense(2)]
    made = fastnn.Sequential(layers)
    made.compile("sgd", "mse")
    return made


@pytest.fixture
def no_winograd():
    fastnn.config.set_winograd(False)
    yield
    fastnn.config.set_winograd(True)


def test_plans_take_winograd_by_default():
    names = ops(model().plan())
    assert names.count("winograd_conv") == 1
    assert names.count("winograd_conv_dx") == 1
    assert names.count("winograd_conv_dw") == 1
    assert names.count("winograd_weights") == 2
    assert names.count("fused_conv") == 1  # the first, with three channels


@pytest.mark.usefixtures("no_winograd")
def test_winograd_can_be_forbidden():
    names = ops(model().plan())
    assert not any("winograd" in name for name in names)
    assert names.count("fused_conv") == 2
    assert names.count("dense") == 2  # products stay products
    assert not fastnn.config.winograd()
    assert fastnn.config.get_config()["winograd"] is False


def test_the_environment_can_forbid_winograd(monkeypatch):
    monkeypatch.setattr(fastnn.config, "_winograd", None)
    monkeypatch.setenv("FASTNN_WINOGRAD", "0")
    assert not fastnn.config.winograd()
    monkeypatch.setattr(fastnn.config, "_winograd", None)
    monkeypatch.setenv("FASTNN_WINOGRAD", "yes")
    with pytest.raises(ValueError, match=r"FASTNN_WINOGRAD: must be 0 or 1\. Received: 'yes'"):
        fastnn.config.winograd()
    monkeypatch.setattr(fastnn.config, "_winograd", None)
    monkeypatch.delenv("FASTNN_WINOGRAD")
    assert fastnn.config.winograd()


def test_only_yes_and_no_are_settings():
    with pytest.raises(TypeError, match=r"set_winograd: allowed must be True or False\. Received: allowed=1"):
        fastnn.config.set_winograd(1)


def test_the_printed_plan_names_the_algorithm():
    lines = [" ".join(line.split()) for line in str(model().plan(training=False)).splitlines()]
    assert lines[2].startswith("c0 winograd_weights (3, 3, 16, 17) -> (36, 1, 16, 32) flip=False constants +0")
    assert lines[3].startswith("0 fused_conv (N, 9, 9, 3) (3, 3, 3, 16) (16) -> (N, 7, 7, 16) activation=relu arena")
    assert lines[4].startswith(
        "1 winograd_conv (N, 7, 7, 16) (36, 1, 16, 32) (17) -> (N, 5, 5, 17) kernel=3x3 filters=17 activation=linear"
    )
    assert lines[5].startswith("2 dense (N, 5, 5, 17) (17, 4) (4) -> (N, 5, 5, 4) activation=linear")


def test_attributes_are_printed_in_short():
    step = Plan([graph("conv", (9, 8), (3, 2), 4, 6, strides=(2, 1), groups=2)], batch=1).steps[0]
    assert step.line().split("  ")[-1] == "strides=2x1 pads=1+1,1+1 groups=2"


def test_all_rows_gathered_are_no_batch():
    y = OPS["gather"](leaf(ALL, 4, 4, 16, name="x"), Tensor((None,), "int64", place=Place("index")))
    y = conv(y, leaf(3, 3, 16, 16, name="w"), **geometry(2))
    y.place = Place("out")
    assert chosen(y) == ["gather", "winograd_weights", "winograd_conv"]
