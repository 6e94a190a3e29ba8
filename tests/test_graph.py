"""The symbolic graph: order, rewriting, counting; what Tensors refuse."""

from __future__ import annotations

import pytest

from fastnn.graph import ALL, Node, Place, Tensor, consumers, format_shape, nodes_behind, rewrite
from fastnn.ops import OPS
from fastnn.ops.loss import accumulate
from fastnn.ops.pointwise import add, clip, multiply, relu, sigmoid, tanh


def leaf(*shape, name="leaf"):
    return Tensor(shape, place=Place(name), name=name)


def names(nodes):
    return [node.op.name for node in nodes]


def test_an_op_called_on_a_tensor_records_a_node():
    x = leaf(None, 3)
    y = clip(x, limit=2.0)
    assert isinstance(y, Tensor)
    assert (y.shape, y.rank, y.batch, y.dtype) == ((None, 3), 2, True, "float")
    assert (y.node.op, y.node.inputs, y.node.attrs) == (OPS["clip"], (x,), {"limit": 2.0})
    assert not leaf(3).batch and not leaf().batch


def test_an_update_is_a_node_without_output():
    node = accumulate(Tensor((1,), "float64", place=Place("total")), leaf(None))
    assert isinstance(node, Node)
    assert node.output is None


def test_a_tensor_has_no_truth_value():
    with pytest.raises(TypeError, match="truth value"):
        bool(leaf(3))


def test_shapes_are_written_for_people():
    assert format_shape((None, 3)) == "(N, 3)"
    assert format_shape((ALL, 3)) == "(all, 3)"
    assert repr(relu(leaf(None, 2))) == "<Tensor relu (N, 2)>"
    assert repr(leaf(4, name="kernel")) == "<Tensor kernel (4)>"


def test_nodes_come_once_and_after_what_they_read():
    x = leaf(None, 3)
    a = relu(x)
    b, c = sigmoid(a), tanh(a)
    d = add(b, c)
    assert names(nodes_behind([d, a])) == ["relu", "sigmoid", "tanh", "add"]
    assert names(nodes_behind([c.node])) == ["relu", "tanh"]
    assert nodes_behind([x]) == []


def test_nodes_that_no_root_needs_are_left_out():
    a = relu(leaf(None, 3))
    sigmoid(a)
    assert names(nodes_behind([a])) == ["relu"]


def test_a_very_deep_graph_needs_no_recursion():
    x = leaf(None, 1)
    for _ in range(20_000):
        x = relu(x)
    assert len(nodes_behind([x])) == 20_000


def test_consumers_counts_every_read_and_every_root():
    x = leaf(None, 3)
    a = relu(x)
    b = multiply(a, a)
    c = add(b, x)
    count = consumers([c, b])
    assert [count.get(id(t)) for t in (x, a, b, c)] == [2, 2, 2, 1]


def test_rewrite_without_a_rule_keeps_every_object():
    y = sigmoid(relu(leaf(None, 3)))
    before = nodes_behind([y])
    result = rewrite([y], lambda node, inputs: None)
    assert result[y] is y
    assert all(a is b for a, b in zip(nodes_behind([result[y]]), before, strict=True))


def test_rewrite_replaces_bottom_up_and_leaves_the_old_graph_alone():
    x = leaf(None, 3)
    y = add(relu(x), relu(sigmoid(x)))
    seen = []

    def rule(node, inputs):
        seen.append((node.op.name, [i.node.op.name if i.node else "leaf" for i in inputs]))
        return tanh(*inputs) if node.op.name == "relu" else None

    new = rewrite([y], rule)[y]
    assert names(nodes_behind([new])) == ["tanh", "sigmoid", "tanh", "add"]
    assert names(nodes_behind([y])) == ["relu", "sigmoid", "relu", "add"]
    assert seen[-1] == ("add", ["tanh", "tanh"])  # inputs come rebuilt


def test_rewrite_hands_place_and_name_on():
    y = relu(leaf(None, 3))
    y.place, y.name = Place("out", 4, stream=True), "prediction"
    new = rewrite([y], lambda node, inputs: tanh(*inputs))[y]
    assert (new.place, new.name) == (Place("out", 4, stream=True), "prediction")
    z = add(relu(leaf(None, 3)), leaf(None, 3))
    z.place = Place("sum")
    new = rewrite([z], lambda node, inputs: tanh(*inputs) if node.op.name == "relu" else None)[z]
    assert new is not z
    assert new.place == Place("sum")


def test_rewrite_keeps_updates_and_their_order():
    rows = relu(leaf(None))
    total = Tensor((1,), "float64", place=Place("total"))
    first, second = accumulate(total, rows), accumulate(total, sigmoid(rows))
    result = rewrite([first, second], lambda node, inputs: tanh(*inputs) if node.op.name == "relu" else None)
    assert names(nodes_behind([result[first], result[second]])) == ["tanh", "accumulate", "sigmoid", "accumulate"]
    assert result[first].inputs[0] is total
