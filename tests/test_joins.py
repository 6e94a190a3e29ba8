"""What is joined is not kept a second time."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import leaf, ops, placed

import fastnn
from fastnn.applications import UNet
from fastnn.layers import Concatenate, Conv2D, Input
from fastnn.ops.join import concatenate
from fastnn.ops.matrix import matmul
from fastnn.ops.pointwise import multiply, tanh
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
