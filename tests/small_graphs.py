"""Small graphs that several test files make by hand."""

from __future__ import annotations

from fastnn.graph import Place, Tensor, nodes_behind


def leaf(*shape, name="x", offset=0, dtype="float"):
    return Tensor(shape, dtype, place=Place(name, offset), name=name)


def placed(tensor, name="out", offset=0):
    tensor.place = Place(name, offset)
    return tensor


def names(roots):
    return [node.op.name for node in nodes_behind(roots)]


def ops(plan):
    return [step.op.name for step in plan.steps]
