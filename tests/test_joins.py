"""What is joined is written where the whole has it, or not kept a second time."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import leaf, ops, placed

import fastnn
from fastnn.applications import GoogLeNet, UNet
from fastnn.layers import Concatenate, Conv2D, Input
from fastnn.ops.join import concatenate
from fastnn.ops.matrix import dense, matmul
from fastnn.ops.pointwise import multiply, tanh
from fastnn.ops.pool import max_pool
from fastnn.ops.shape import reshape
from fastnn.plan import Plan, layout
from fastnn.plan import plan as planning
from fastnn.plan.joins import parted
from fastnn.plan.schedule import schedule


def names(nodes):
    return [node.op.name for node in nodes]


def joined(later):
    """The nodes of a join whose first input is read again, before the whole is read for the last time or after."""
    x, w, v = leaf(None, 16), leaf(16, 16, name="w"), leaf(32, 16, name="v")
    a, b = matmul(x, w), tanh(matmul(x, w))
    whole = concatenate(a, b, axis=1)
    y = tanh(matmul(whole, v))
    if later:
        y = multiply(y, matmul(tanh(whole), v))
        return schedule([placed(multiply(y, a))])
    return schedule([placed(multiply(multiply(y, a), matmul(tanh(whole), v)))])


def test_a_part_that_is_read_after_the_whole_is_taken_out_before_the_whole_is_gone():
    assert names(parted(joined(True))) == [
        "matmul", "matmul", "tanh", "concatenate", "matmul", "tanh", "tanh", "part", "matmul", "multiply", "multiply"
    ]  # fmt: skip


def test_a_part_that_is_read_before_is_taken_out_there():
    order = names(parted(joined(False)))
    assert order[order.index("part") + 1] == "multiply"
    assert order.count("part") == 1


def test_nothing_changes_where_nothing_joined_is_read_again():
    x, w = leaf(None, 16), leaf(16, 16, name="w")
    whole = concatenate(matmul(x, w), tanh(matmul(x, w)), axis=1)
    nodes = schedule([placed(tanh(matmul(whole, leaf(32, 16, name="v"))))])
    assert parted(nodes) == nodes
    read_at_once = concatenate(a := matmul(x, w), tanh(a), axis=1)
    nodes = schedule([placed(multiply(matmul(read_at_once, leaf(32, 16, name="v")), tanh(tanh(x))))])
    assert parted(nodes) == nodes


def trained():
    fastnn.set_seed(2)
    model = UNet((32, 32, 1), 1, base_filters=16, depth=2)
    model.compile("adam", "dice")
    rng = np.random.default_rng(1)
    y = (rng.random((9, 32, 32, 1)) > 0.5).astype(np.float32)
    model.fit(rng.standard_normal((9, 32, 32, 1), np.float32), y, batch_size=4, epochs=2, verbose=0)
    return model


def test_a_u_net_needs_less_memory_and_keeps_its_bits(backend, monkeypatch):
    model = trained()
    plan = model.plan(batch_size=32)
    monkeypatch.setattr(planning, "parted", lambda nodes: nodes)
    plain = trained()
    kept = plain.plan(batch_size=32)
    assert plan.arena_size < 0.92 * kept.arena_size
    assert ops(plan).count("part") == ops(kept).count("part") + 2
    for a, b in zip(model.get_weights(), plain.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0)])
def test_joins_of_joins_keep_their_bits(order, monkeypatch):
    def weights():
        fastnn.set_seed(4)
        x = entry = Input((10, 10, 3))
        for _ in range(3):
            pair = (x, Conv2D(8, 3, padding="same", activation="tanh")(x))
            x = Concatenate()([pair[order[0]], pair[order[1]]])
        model = fastnn.Model(entry, Conv2D(1, 1)(x))
        model.compile("sgd", "mse")
        rng = np.random.default_rng(0)
        model.fit(rng.standard_normal((6, 10, 10, 3)), rng.standard_normal((6, 10, 10, 1)), batch_size=4, verbose=0)
        return [weight.tobytes() for weight in model.get_weights()]

    monkeypatch.setattr(planning, "WORTH", 10.0)
    found = weights()
    monkeypatch.setattr(planning, "parted", lambda nodes: nodes)
    assert found == weights()


# Slices


@pytest.mark.parametrize(
    "make",
    [
        lambda: UNet((32, 48, 1), 2, base_filters=16, depth=3),
        lambda: UNet((16, 24, 2), 1, base_filters=5, depth=2, batch_norm=True),
        lambda: UNet((8, 8, 16, 1), 1, base_filters=4, depth=2),
        lambda: GoogLeNet((48, 64, 3), 4),
    ],
)
def test_predictions_copy_nothing_that_is_joined_and_keep_their_bits(make, backend, monkeypatch):
    fastnn.set_seed(7)
    model = make()
    x = np.random.default_rng(2).standard_normal((3, *model.input_shape[1:]), np.float32)
    found = model.predict(x, verbose=0)
    assert "concatenate" not in ops(model.plan(training=False))
    monkeypatch.setattr(layout, "slices", lambda *args: ({}, set()))
    fastnn.set_seed(7)
    copying = make()
    assert "concatenate" in ops(copying.plan(training=False))
    assert copying.predict(x, verbose=0).tobytes() == found.tobytes()


def whole_of(*parts, axis=1):
    return placed(dense(concatenate(*parts, axis=axis), leaf(sum(p.shape[axis] for p in parts), 4, name="v")))


def copies(root):
    plan = Plan([root], batch=8, weights=["w", "v"], passes=())
    return "concatenate" in ops(plan), plan


def test_slices_lie_side_by_side_in_the_whole():
    x, w = leaf(None, 16), leaf(16, 16, name="w")
    copied, plan = copies(whole_of(matmul(x, w), dense(x, w), matmul(x, w)))
    assert not copied
    offsets = [step.outputs[0].place.offset - plan.steps[-1].inputs[0].place.offset for step in plan.steps[:3]]
    assert offsets == [0, 16, 32]
    assert [step.outputs[0].skip for step in plan.steps] == [32, 32, 32, 0]
    assert plan.arena_size == 8 * 48


def test_what_cannot_be_a_slice_is_copied():
    x, w = leaf(None, 16), leaf(16, 16, name="w")
    a, b = matmul(x, w), matmul(x, w)
    assert not copies(whole_of(a, b))[0]
    assert copies(whole_of(x, b))[0]  # given
    assert copies(whole_of(a, a))[0]  # in two places
    assert copies(whole_of(tanh(a), b))[0]  # tanh writes whole arrays
    assert copies(whole_of(a, multiply(b, tanh(a))))[0]  # tanh reads whole arrays
    assert copies(whole_of(reshape(a, shape=(4, 4)), reshape(b, shape=(4, 4)), axis=2))[0]  # views
    rows = leaf(None, 4, 16)
    above = concatenate(matmul(rows, w), matmul(rows, w), axis=1)
    assert copies(placed(dense(above, leaf(16, 4, name="v"))))[0]  # not along the last axis
    assert copies(placed(concatenate(a, b, axis=1)))[0]  # wanted elsewhere
    both = concatenate(a, b, axis=1)
    assert copies(placed(multiply(dense(both, leaf(32, 4, name="v")), whole_of(b, a))))[0]


def test_training_copies():
    x, w = leaf(None, 16), leaf(16, 16, name="w")
    assert "concatenate" in ops(Plan([whole_of(matmul(x, w), matmul(x, w))], batch=8))


def test_the_whole_is_there_from_its_first_slice_to_its_last_reader():
    x, w = leaf(None, 8, 8, 16), leaf(16, 16, name="w")
    skip = matmul(x, w)
    small = matmul(tanh(max_pool(skip, kernel=(2, 2), strides=(2, 2), pads=((0, 0), (0, 0)))), w)
    other = reshape(dense(reshape(small, shape=(256,)), leaf(256, 1024, name="u")), shape=(8, 8, 16))
    up = matmul(tanh(other), w)
    copied, plan = copies(whole_of(skip, up, axis=3))
    assert not copied
    whole = plan.steps[-1].inputs[0].place.offset
    assert plan.steps[0].outputs[0].place.offset == whole
    size = 8 * 8 * 8 * 32
    between = [o.place.offset for step in plan.steps[1:-2] for o in step.outputs]
    assert len(between) >= 4
    assert not any(whole <= offset < whole + size for offset in between)
