"""Reverse-mode differentiation: a graph in, the same graph with its gradients out.

Each op's gradient rule calls other ops, so gradients are ordinary nodes; nothing here knows an op by name but the sum
that joins the gradients of a tensor read twice, and the seed.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.graph import Tensor, nodes_behind
from fastnn.ops.loss import mean_seed
from fastnn.ops.pointwise import add


def gradients(rows: Tensor, wrt: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of ``mean(rows)`` with respect to ``wrt``.

    Args:
        rows: Tensor of shape (N,), one loss value a row
        wrt: the leaves to differentiate by

    Returns:
        One Tensor, of the leaf's shape, for each of ``wrt``; None where the loss does not depend on it.
    """
    return pullback(rows, mean_seed(rows), wrt)


def pullback(y: Tensor, g: Tensor, wrt: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of ``sum(y * g)`` with respect to ``wrt``: ``g`` taken back through the ops behind ``y``.

    Args:
        y: any Tensor
        g: Tensor of its shape
        wrt: the leaves to differentiate by

    Returns:
        One Tensor, of the leaf's shape, for each of ``wrt``; None where ``y`` does not depend on it.
    """
    wanted = {id(leaf) for leaf in wrt}
    nodes = nodes_behind([y])
    relevant = set(wanted)  # tensors through which y depends on a leaf we want
    for node in nodes:
        if node.output is not None and any(id(i) in relevant for i in node.inputs):
            relevant.add(id(node.output))

    found: dict[int, Tensor] = {id(y): g}
    for node in reversed(nodes):
        if node.output is None or id(node.output) not in relevant or id(node.output) not in found:
            continue
        if node.op.gradient is None:
            raise ValueError(f"{node.op.name}: has no gradient, so nothing before it can be trained")
        parts = node.op.gradient(found[id(node.output)], node.output, *node.inputs, **node.attrs)
        for tensor, part in zip(node.inputs, parts, strict=True):
            if part is None or id(tensor) not in relevant:
                continue
            before = found.get(id(tensor))
            found[id(tensor)] = part if before is None else add(before, part)
    return [found.get(id(leaf)) for leaf in wrt]
