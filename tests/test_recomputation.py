"""Recomputation: less memory, the same bits."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from small_graphs import leaf, ops, placed

import fastnn
from fastnn.applications import GoogLeNet, ResNet18, UNet
from fastnn.backends.numpy import Program
from fastnn.graph import Place, Tensor, nodes_behind
from fastnn.layers import (
    Add,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Input,
    MaxPooling2D,
    UpSampling2D,
)
from fastnn.ops.matrix import dense, matmul, matmul_tn
from fastnn.ops.pointwise import add, multiply, tanh
from fastnn.ops.random import dropout
from fastnn.ops.shape import reshape_weight
from fastnn.ops.update import sgd
from fastnn.plan import Plan
from fastnn.plan.recompute import Steps


def small_net():
    """Batch normalization, dropout, a sum, a join, a layer that is used twice, and products with small weights."""
    fastnn.set_seed(11)
    x = entry = Input((12, 12, 3))
    shared = Conv2D(16, 3, padding="same", activation="relu")
    x = BatchNormalization()(Conv2D(16, 3, padding="same", use_bias=False, activation="relu")(x))
    skip = x = Dropout(0.3)(shared(x))
    x = MaxPooling2D(2)(shared(x))
    x = Add()([x, BatchNormalization()(Conv2D(16, 1)(x))])
    x = Concatenate()([skip, UpSampling2D(2)(x)])
    x = Dropout(0.2)(Conv2D(8, 3, padding="same", activation="tanh")(x))
    x = Dense(2)(Dense(16, activation="gelu")(Flatten()(x)))
    return fastnn.Model(entry, x)


def data(rows=22):
    rng = np.random.default_rng(5)
    return rng.standard_normal((rows, 12, 12, 3), np.float32), rng.standard_normal((rows, 2), np.float32)


def trained(recompute, optimizer="adam"):
    model = small_net()
    model.compile(optimizer, "mse", metrics=["mae"], recompute=recompute)
    history = model.fit(*data(), batch_size=8, epochs=2, verbose=0)
    return model, history.history


def test_every_bit_of_training_stays(backend):
    model, history = trained(False)
    kept = model.plan(batch_size=8)
    for recompute in (True, 4 * kept.arena_size * 3 // 4):
        again, same = trained(recompute)
        plan = again.plan(batch_size=8)
        assert plan.repeated > 0 and plan.arena_size <= kept.arena_size * 3 // 4
        assert ops(plan).count("moving_average") == ops(kept).count("moving_average")
        assert same == history
        for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_are_those_for_any_number_of_threads(threads):
    before = fastnn.config.get_num_threads()
    try:
        fastnn.set_num_threads(threads)
        weights = [weight.tobytes() for weight in trained(True)[0].get_weights()]
    finally:
        fastnn.set_num_threads(before)
    assert weights == [weight.tobytes() for weight in trained(None)[0].get_weights()]


@pytest.mark.parametrize("share", [0.9, 0.8, 0.7])
@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda: UNet((128, 128, 1), 1, base_filters=8, depth=3), 1.5),
        (lambda: UNet((64, 64, 1), 1, base_filters=8, depth=3, batch_norm=True), 1.3),
        (lambda: ResNet18((64, 64, 3), 10), 1.25),
        (lambda: GoogLeNet((96, 96, 3), 10), 1.1),
    ],
)
def test_a_bound_is_held_for_few_operations(make, most, share):
    model = make()
    loss = "binary_crossentropy" if model.output_shape[-1] == 1 else "sparse_categorical_crossentropy"
    model.compile("adam", loss, recompute=False)
    kept = model.plan(batch_size=8)
    model.compile("adam", loss, recompute=int(4 * share * kept.arena_size))
    plan = model.plan(batch_size=8)
    assert plan.arena_size <= share * kept.arena_size
    assert plan.flops <= most * kept.flops


def test_what_takes_next_to_no_time_is_done_again_unasked():
    model = ResNet18((128, 128, 3), 10)
    model.compile("adam", "sparse_categorical_crossentropy", recompute=False)
    kept = model.plan(batch_size=16)
    model.compile("adam", "sparse_categorical_crossentropy")
    plan = model.plan(batch_size=16)
    assert plan.arena_size < 0.75 * kept.arena_size
    assert plan.flops < 1.002 * kept.flops
    assert kept.repeated == 0 < plan.repeated


def test_nothing_is_done_again_for_a_bound_that_holds_anyway():
    model = small_net()
    model.compile("adam", "mse")
    kept = model.plan(batch_size=8)
    model.compile("adam", "mse", recompute=4 * kept.arena_size)
    assert str(model.plan(batch_size=8)) == str(kept)


def test_a_bound_that_cannot_be_held_names_the_least_and_changes_nothing():
    model = small_net()
    model.compile("adam", "mse", recompute=True)
    some = 4 * model.plan(batch_size=8).arena_size
    weights = [weight.copy() for weight in model.get_weights()]
    model.compile("adam", "mse", recompute=1000)
    with pytest.raises(ValueError, match=r"a batch of 8 rows needs \d+ bytes at least.*recompute=1000") as error:
        model.fit(*data(8), batch_size=8, verbose=0)
    fewest = int(re.search(r"(\d+) bytes", str(error.value))[1])
    assert fewest <= some
    for a, b in zip(weights, model.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()
    model.compile("adam", "mse", recompute=fewest)
    assert 4 * model.plan(batch_size=8).arena_size <= fewest


@pytest.mark.parametrize("value", [0, -1, 1.5, "all"])
def test_a_bound_is_a_positive_integer(value):
    model = small_net()
    with pytest.raises(ValueError, match="compile: recompute must be a positive integer"):
        model.compile("adam", "mse", recompute=value)
    assert model.recompute is None


def test_a_printed_plan_says_how_many_steps_compute_something_again():
    model = small_net()
    model.compile("adam", "mse", recompute=True)
    plan = model.plan(batch_size=8)
    assert f", {plan.repeated} steps to compute something again" in str(plan).splitlines()[0]
    model.compile("adam", "mse")
    assert "again" not in str(model.plan(batch_size=8))


def test_a_saved_model_keeps_its_bound(tmp_path):
    model, _ = trained(True)
    model.save(tmp_path / "model.fnn")
    loaded = fastnn.load_model(tmp_path / "model.fnn")
    assert loaded.recompute is True
    assert str(loaded.plan(batch_size=8)) == str(model.plan(batch_size=8))
    for value in (None, False, 10**9):
        plain, _ = trained(value)
        plain.save(tmp_path / "plain.fnn")
        assert fastnn.load_model(tmp_path / "plain.fnn").recompute is value or value == 10**9


def test_a_chain_is_kept_in_segments():
    """The backward pass of n layers needs n tensors, or about the root of that with one more forward pass."""
    model = fastnn.Sequential([Dense(256, activation="tanh", input_shape=(256,)) for _ in range(36)])
    model.compile("sgd", "mse")
    kept = model.plan(batch_size=1024)
    model.compile("sgd", "mse", recompute=True)
    plan = model.plan(batch_size=1024)
    one = 1024 * 256
    assert kept.arena_size > 36 * one
    assert plan.arena_size < 14 * one
    assert plan.flops < 1.36 * kept.flops


@pytest.mark.parametrize("changes", [True, False])
def test_nothing_is_computed_again_from_weights_that_have_changed(changes):
    x, w, v = leaf(None, 16), leaf(16, 16, name="w"), leaf(16, 16, name="v")
    y = tanh(matmul(x, w))
    update = sgd(leaf(256, name="w"), reshape_weight(matmul_tn(y, y), shape=(256,)), leaf(1, name="rates"))
    z = y
    for _ in range(4):
        z = multiply(z, matmul(z, v))
    nodes = [node for node in nodes_behind([placed(add(z, y)), update]) if not node.op.updates]
    made = next(n for n, node in enumerate(nodes) if node.op is reshape_weight)
    if changes:
        nodes.insert(made + 1, update)
    again = {id(choice.tensor) for choice in Steps(nodes, 64).choices(0) if len(choice.group) == 2}
    assert (id(y) in again) is not changes


def test_dropout_draws_the_same_numbers_again():
    step = Tensor((1,), "int64", place=Place("step", 0, True))
    x, w = leaf(None, 64), leaf(64, 64, name="w")
    y = dropout(matmul(x, w), step, rate=0.5, seed=3, stream=1)
    z = y
    for _ in range(3):
        z = tanh(matmul(dense(z, w, leaf(64, name="b"), activation="tanh"), w))
    roots = [placed(add(z, y), "out")]
    rng = np.random.default_rng(0)
    results = []
    for recompute in (None, True):
        plan = Plan(roots, batch=8, recompute=recompute)
        buffers = {
            name: rng.standard_normal(4096).astype(np.float32) for name in plan.buffers if name not in ("out", "step")
        }
        rng = np.random.default_rng(0)
        buffers = {name: np.linspace(-1, 1, 4096, dtype=np.float32) for name in buffers}
        buffers |= {"out": np.zeros(512, np.float32), "step": np.array([7])}
        Program(plan).run(buffers, 0, 1, 8, 8)
        results.append(buffers["out"].tobytes())
    assert results[0] == results[1]


def test_what_is_alive_is_counted():
    x, w = leaf(None, 16), leaf(16, 16, name="w")
    y = matmul(x, w)
    z = placed(matmul(tanh(y), w))
    nodes = [y.node, z.node.inputs[0].node, z.node]
    steps = Steps(nodes, 4)
    assert steps.live.tolist() == [64, 64, 64] and steps.peak == 64
    assert math.isclose(steps.above(60), 12)
