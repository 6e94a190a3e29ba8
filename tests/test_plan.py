"""From a graph without redundancy to a program: order, memory; then the Plan and its print."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import leaf, ops, placed

import fastnn
from fastnn.backends.numpy import Program
from fastnn.graph import ALL, Place, Tensor
from fastnn.layers import Activation, Conv2D, Dense, Dropout, Flatten
from fastnn.ops import OPS
from fastnn.ops.loss import accumulate
from fastnn.ops.matrix import add_bias, matmul, matmul_nt, sum_rows
from fastnn.ops.pointwise import add, multiply, relu, sigmoid, tanh
from fastnn.ops.shape import reshape
from fastnn.ops.softmax import softmax
from fastnn.ops.update import sgd
from fastnn.optimizers import Adam
from fastnn.plan import ARENA, Plan, aligned
from fastnn.plan.memory import Lifetime, assign
from fastnn.plan.schedule import schedule

# Order


def order(*roots):
    return [node.op.name for node in schedule(roots)]


def test_an_update_runs_right_after_what_it_waits_for():
    w = leaf(6, name="w")
    gradient = sum_rows(leaf(None, 6))
    later = placed(tanh(leaf(None, 6)))
    update = sgd(w, gradient, leaf(1, name="rates"))
    assert order(gradient, later, update) == ["sum_rows", "sgd", "tanh"]


def test_an_update_waits_for_readers_of_what_it_overwrites():
    w = leaf(6, name="w")
    gradient = sum_rows(leaf(None, 6))
    reader = placed(matmul_nt(leaf(None, 3), leaf(2, 3, name="w")))  # the same memory under another shape
    other = placed(tanh(leaf(None, 6)), "other")
    update = sgd(w, gradient, leaf(1, name="rates"))
    assert order(reader, other, update) == ["matmul_nt", "sum_rows", "sgd", "tanh"]


def test_what_one_update_alone_needs_is_made_right_before_it():
    x, w, rates = leaf(None, 6), leaf(6, name="w"), leaf(1, name="rates")
    update = sgd(w, sum_rows(relu(x)), rates)
    later = matmul_nt(leaf(None, 3), leaf(2, 3, name="w"))
    assert order(placed(tanh(later)), update) == ["matmul_nt", "relu", "sum_rows", "sgd", "tanh"]
    shared = relu(x)
    update = sgd(w, sum_rows(shared), rates)
    later = matmul_nt(leaf(None, 3), leaf(2, 3, name="w"))
    assert order(placed(tanh(later)), placed(tanh(shared)), update) == [
        "relu", "matmul_nt", "sum_rows", "sgd", "tanh", "tanh"
    ]  # fmt: skip


@pytest.mark.parametrize(("offset", "waits"), [(0, True), (5, True), (6, False), (100, False)])
def test_only_memory_that_overlaps_makes_an_update_wait(offset, waits):
    update = sgd(leaf(6, name="w"), leaf(6, name="grads"), leaf(1, name="rates"))
    reader = placed(relu(leaf(4, name="w", offset=offset)))
    assert order(update, reader) == (["relu", "sgd"] if waits else ["sgd", "relu"])


@pytest.mark.parametrize("rows", [None, ALL])
def test_rows_without_a_limit_reach_to_the_end_of_the_buffer(rows):
    update = sgd(leaf(6, name="w", offset=1000), leaf(6, name="grads"), leaf(1, name="rates"))
    reader = placed(relu(leaf(rows, 2, name="w")))
    assert order(update, reader) == ["relu", "sgd"]


def test_an_update_waits_for_what_is_written_where_it_reads():
    update = sgd(leaf(6, name="w"), leaf(6, name="grads"), leaf(1, name="rates"))
    parts = [placed(sum_rows(leaf(None, 3)), "grads", offset) for offset in (0, 3)]
    elsewhere = placed(sum_rows(leaf(None, 3)), "grads", 6)
    assert order(update, *parts, elsewhere) == ["sum_rows", "sum_rows", "sgd", "sum_rows"]


def test_updates_of_one_total_keep_their_order():
    total = leaf(1, name="total", dtype="float64")
    first, second = accumulate(total, relu(leaf(None))), accumulate(total, tanh(leaf(None)))
    assert order(first, second) == ["relu", "accumulate", "tanh", "accumulate"]


# Memory


@pytest.mark.parametrize("seed", range(40))
def test_tensors_alive_together_never_overlap(seed):
    rng = np.random.default_rng(seed)
    lifetimes = []
    for _ in range(rng.integers(1, 60)):
        first = int(rng.integers(0, 40))
        lifetimes.append(Lifetime(int(rng.integers(1, 200)), first, first + int(rng.integers(0, 12))))
    offsets, total = assign(lifetimes)
    for i, (a, at) in enumerate(zip(lifetimes, offsets, strict=True)):
        assert at >= 0 and at % 16 == 0 and at + a.size <= total
        for b, other in zip(lifetimes[:i], offsets[:i], strict=True):
            in_time = a.first <= b.last and b.first <= a.last
            in_memory = at < other + b.size and other < at + a.size
            assert not (in_time and in_memory)
    together = [sum(aligned(a.size) for a in lifetimes if a.first <= t <= a.last) for t in range(60)]
    assert max(together) <= total <= sum(aligned(a.size) for a in lifetimes)


def test_nothing_needs_no_memory():
    assert assign([]) == ([], 0)


def test_a_chain_of_products_needs_two_places():
    x = leaf(None, 16)
    for number in range(6):
        x = matmul(x, leaf(16, 16, name=f"w{number}"))
    assert Plan([placed(x)], batch=3).arena_size == 2 * 48


def test_an_elementwise_op_takes_the_memory_of_an_input_that_dies():
    a = matmul(leaf(None, 16), leaf(16, 16, name="w"))
    b = multiply(OPS["gelu"](a), leaf(None, 16, name="mask"))
    plan = Plan([placed(matmul(b, leaf(16, 4, name="v")))], batch=3)
    assert ops(plan) == ["dense", "multiply", "matmul"]
    assert plan.steps[0].outputs[0].place == plan.steps[1].outputs[0].place
    assert plan.arena_size == 48


def test_an_input_that_is_read_again_keeps_its_memory():
    a = softmax(leaf(None, 16))
    b = tanh(a)
    plan = Plan([placed(add(a, b))], batch=3)
    assert plan.steps[0].outputs[0].place != plan.steps[1].outputs[0].place


def test_an_input_of_another_size_is_not_shared():
    b = sum_rows(leaf(None, 16))
    plan = Plan([placed(matmul(add_bias(leaf(None, 16, name="z"), b), leaf(16, 2, name="w")))], batch=3)
    first, second = (step.outputs[0].place for step in plan.steps[:2])
    assert first != second


def test_memory_given_from_outside_is_never_written_by_sharing():
    x = leaf(None, 16)
    plan = Plan([placed(matmul(relu(x), leaf(16, 2, name="w")))], batch=3)
    assert plan.steps[0].outputs[0].place.buffer == ARENA


def test_random_graphs_compute_in_shared_memory_what_they_compute_apart():
    rng = np.random.default_rng(5)
    for _ in range(30):
        x = leaf(None, 5)
        data = rng.normal(size=(4, 5))
        tensors, arrays = [x], [data]
        for _ in range(rng.integers(2, 14)):
            a, b = rng.integers(0, len(tensors), 2)
            op = [relu, tanh, sigmoid, softmax, add, multiply][rng.integers(0, 6)]
            pick = (a,) if op in (relu, tanh, sigmoid, softmax) else (a, b)
            tensors.append(op(*(tensors[i] for i in pick)))
            arrays.append(op(*(arrays[i] for i in pick)))
        buffers = {"x": data.copy(), "out": np.full((4, 5), np.nan)}
        Program(Plan([placed(tensors[-1])], batch=6, dtype="float64")).run(buffers, 0, 1, 4, 4)
        np.testing.assert_array_equal(buffers["out"], arrays[-1])
        np.testing.assert_array_equal(buffers["x"], data)


# Plans


def test_a_view_is_no_step():
    x = leaf(None, 2, 3)
    plan = Plan([placed(matmul(reshape(x, shape=(6,)), leaf(6, 4, name="w")))], batch=5)
    assert ops(plan) == ["matmul"]
    assert plan.steps[0].inputs[0].place == Place("x")
    assert plan.steps[0].inputs[0].shape == (None, 6)


def test_a_view_keeps_the_memory_behind_it_alive():
    a = softmax(leaf(None, 16))
    v = reshape(a, shape=(4, 4))
    c = matmul(leaf(None, 8, name="z"), leaf(8, 16, name="w"))
    plan = Plan([placed(add(reshape(v, shape=(16,)), c))], batch=3)
    assert ops(plan) == ["softmax", "matmul", "add"]
    assert plan.steps[0].outputs[0].place != plan.steps[1].outputs[0].place
    assert plan.steps[2].inputs[0].place == plan.steps[0].outputs[0].place


def test_a_view_wanted_in_its_own_place_is_copied_there():
    plan = Plan([placed(reshape(leaf(None, 2, 3), shape=(6,)))], batch=4)
    assert ops(plan) == ["reshape"]


def test_what_is_wanted_under_another_shape_is_made_in_its_place():
    product = matmul(leaf(None, 4), leaf(4, 6, name="w"))
    y = placed(reshape(product, shape=(2, 3)))
    plan = Plan([y, placed(tanh(product), "other")], batch=4)
    assert ops(plan) == ["matmul", "tanh"]
    assert plan.steps[0].outputs[0].place == plan.steps[1].inputs[0].place == Place("out")
    assert plan.arena_size == 0
    plan = Plan([y, placed(reshape(product, shape=(3, 2)), "other")], batch=4)
    assert ops(plan) == ["matmul", "reshape"]  # only one of two places can be the first
    product = placed(matmul(leaf(None, 4), leaf(4, 6, name="w")), "kept")
    plan = Plan([product, placed(reshape(product, shape=(2, 3)))], batch=4)
    assert [step.outputs[0].place.buffer for step in plan.steps] == ["kept", "out"]


def test_flatten_costs_no_step():
    model = fastnn.Sequential([Flatten(input_shape=(2, 3)), Dense(2), Activation("softmax")])
    assert ops(model.plan(training=False)) == ["dense", "softmax"]
    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    flat = fastnn.Sequential([Dense(2, input_shape=(6,)), Activation("softmax")])
    flat.set_weights(model.get_weights())
    np.testing.assert_array_equal(model.predict(x), flat.predict(x.reshape(2, 6)))


def test_dead_code_is_left_out():
    x = leaf(None, 3)
    y = placed(relu(x))
    softmax(y)
    tanh(x)
    assert ops(Plan([y], batch=2)) == ["relu"]


def test_an_input_without_a_place_is_refused():
    with pytest.raises(ValueError, match="no place"):
        Plan([placed(relu(Tensor((None, 3), name="x")))], batch=2)


def article():
    fastnn.set_seed(0)
    model = fastnn.Sequential(
        [Dense(64, activation="relu", input_shape=(30,)), Dense(32, activation="relu"), Dense(1, activation="sigmoid")],
        name="article",
    )
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return model


def test_the_first_layers_input_gets_no_gradient():
    plan = article().plan()
    assert ops(plan).count("dense_dx") == 2
    assert not any(o.shape == (None, 30) for step in plan.steps[1:] for o in step.outputs)


def test_a_layer_before_the_first_trained_one_gets_no_gradient():
    model = article()
    model.layers[0].trainable = False
    assert ops(model.plan()).count("dense_dx") == 1
    assert ops(model.plan()).count("matmul_tn") == 2
    model.layers[1].trainable = False
    assert ops(model.plan()).count("dense_dx") == 0


def test_dropout_is_in_training_only():
    model = fastnn.Sequential([Dropout(0.5, input_shape=(4,)), Dense(1)])
    model.compile("sgd", "mse")
    assert ops(model.plan()).count("dropout") == 1
    assert ops(model.plan(training=False)) == ["dense"]


ARTICLE = """
Plan article: training step: 21 steps, batch 32, float32, 0.700 MFLOP, arena 24.3 kB
step result in kFLOP kB
0 gather (all, 30) (N) -> (N, 30) arena +5120 1.0 7.8
1 dense (N, 30) (30, 64) (64) -> (N, 64) activation=relu arena +0 122.9 20.0
2 dense (N, 64) (64, 32) (32) -> (N, 32) activation=relu arena +2048 131.1 20.6
3 dense (N, 32) (32, 1) (1) -> (N, 1) activation=linear arena +3072 2.0 4.4
4 gather (all, 1) (N) -> (N, 1) arena +3104 0.0 0.4
5 sigmoid (N, 1) -> (N, 1) arena +3136 0.0 0.3
6 binary_accuracy (N, 1) (N, 1) -> (N) threshold=0.5 arena +3168 0.0 0.4
7 accumulate (N) -> (1) totals +8 0.0 0.1
8 sigmoid_crossentropy (N, 1) (N, 1) -> (N) arena +3136 0.8 0.4
9 accumulate (N) -> (1) totals +0 0.0 0.1
10 mean_seed (N) -> (N) arena +3168 0.0 0.3
11 sigmoid_crossentropy_dx (N) (N, 1) (N, 1) -> (N, 1) arena +3136 0.8 0.5
12 sum_rows (N, 1) -> (1) grads +4096 0.0 0.1
13 matmul_tn (N, 32) (N, 1) -> (32, 1) grads +4064 2.0 4.4
14 dense_dx (N, 1) (32, 1) (N, 32) -> (N, 32) activation=relu arena +4096 2.0 8.4
15 sum_rows (N, 32) -> (32) grads +4032 1.0 4.2
16 matmul_tn (N, 64) (N, 32) -> (64, 32) grads +1984 131.1 20.5
17 dense_dx (N, 32) (64, 32) (N, 64) -> (N, 64) activation=relu arena +2048 131.1 28.7
18 sum_rows (N, 64) -> (64) grads +1920 2.0 8.4
19 matmul_tn (N, 30) (N, 64) -> (30, 64) grads +0 122.9 19.7
20 adam (4112) (2) -> (4112) (4112) (4112) beta_1=0.9 beta_2=0.999 epsilon=1e-07 article.weights +0 49.3 115.1
"""


def test_the_articles_plan_is_printed():
    lines = [" ".join(line.split()) for line in str(article().plan()).splitlines()]
    assert lines == ARTICLE.strip().splitlines()


def test_the_columns_of_a_printed_plan_are_aligned():
    lines = str(article().plan()).splitlines()[1:]
    assert len({len(line) for line in lines}) == 1
    at = lines[0].index("result in")
    assert all(line[at - 2 : at] == "  " and line[at] != " " for line in lines)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (2, ["winograd_weights", "winograd_conv_dx", "winograd_conv_dw", "sgd"]),
        (16, ["winograd_weights", "winograd_conv_dw", "sgd", "winograd_conv_dx"]),
    ],
)
def test_what_is_larger_is_not_there_with_the_gradient_of_the_weights(batch, expected):
    """Transformed weights, 147456 numbers here, or the gradient that they carry back, 16384 a row."""
    layers = [Conv2D(64, 3, padding="same", input_shape=(16, 16, 64), activation="relu") for _ in range(2)]
    model = fastnn.Sequential(layers)
    model.compile("sgd", "mse")
    names = ops(model.plan(batch_size=batch))
    start = max(n for n, name in enumerate(names) if name == "winograd_weights")
    assert names[start : start + 4] == expected


def test_memory_is_packed_without_a_gap_where_the_largest_first_would_leave_one():
    lifetimes = [Lifetime(size * 16, first, last) for size, first, last in ((3, 2, 2), (2, 4, 5), (2, 2, 5), (2, 4, 6))]
    assert assign(lifetimes)[1] == 6 * 16


@pytest.mark.parametrize("clip", [{}, {"clipvalue": 0.01}, {"clipnorm": 0.1}, {"global_clipnorm": 0.1}])
def test_the_gradient_of_a_product_in_slices_is_the_gradient(clip, monkeypatch):
    def trained():
        fastnn.set_seed(3)
        model = fastnn.Sequential([Dense(300, activation="relu", input_shape=(210,)), Dropout(0.5), Dense(3)])
        model.compile(Adam(0.01, **clip), "mse")
        rng = np.random.default_rng(1)
        model.fit(rng.standard_normal((40, 210)), rng.standard_normal((40, 3)), batch_size=16, epochs=2, verbose=0)
        return model

    whole = trained()
    monkeypatch.setattr("fastnn.updating.SLICE", 7000)
    sliced = trained()
    assert ops(sliced.plan()).count("adam") == (11 if not clip else ops(whole.plan()).count("adam"))
    for a, b in zip(whole.get_weights(), sliced.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_a_large_weight_is_updated_right_after_its_gradient():
    model = fastnn.Sequential([Dense(300, activation="relu", input_shape=(200,)), Dense(200), Dense(3)])
    model.compile("sgd", "mse")
    steps = model.plan().steps
    large = [step for step in steps if step.op.name == "sgd" and step.outputs[0].shape == (60000,)]
    assert len(large) == 2
    for update in large:
        weight, gradient = update.outputs[0].place, update.inputs[0].place
        at = steps.index(update)
        read = max(n for n, step in enumerate(steps) if any(i.place == weight for i in step.inputs))
        assert steps[at - 1].outputs[0].place == gradient and read < at - 1
        assert gradient.buffer == "arena"
    assert (
        len([step for step in steps if step.op.name == "sgd"]) == 4
    )  # the small ones together where they are neighbours


def test_floating_point_operations_are_counted():
    plan = article().plan(training=False, batch_size=10)
    assert plan.flops == 2 * 10 * (30 * 64 + 64 * 32 + 32)
    assert "Plan article: prediction: 3 steps, batch 10, float32" in str(plan)
