"""Fusion: graph in, graph with fewer and better nodes out. Each pass stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastnn.graph import Node, Tensor, consumers, rewrite
from fastnn.ops import loss, matrix, pointwise, softmax
from fastnn.ops.declare import Op

Roots = Sequence[Tensor | Node]

#: (activation, loss on its output) -> loss on the logits
_ON_LOGITS: dict[tuple[Op, Op], Op] = {
    (pointwise.sigmoid, loss.binary_crossentropy): loss.sigmoid_crossentropy,
    (softmax.softmax, loss.categorical_crossentropy): loss.softmax_crossentropy,
    (softmax.softmax, loss.sparse_categorical_crossentropy): loss.sparse_softmax_crossentropy,
}


def losses_on_logits(roots: Roots) -> dict[Tensor | Node, Any]:
    """``binary_crossentropy(sigmoid(z), y)`` becomes ``sigmoid_crossentropy(z, y)``, and so for softmax.

    Comes before differentiation: the gradient is then the short and exact one, ``sigmoid(z) - y``.
    """

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
        maker = inputs[0].node
        fused = _ON_LOGITS.get((maker.op, node.op)) if maker is not None else None
        return None if fused is None or maker is None else fused(maker.inputs[0], inputs[1])

    return rewrite(roots, rule)


def dense_layers(roots: Roots) -> dict[Tensor | Node, Any]:
    """Bias and activation go into the product that feeds them; an activation's slope into the gradient's product."""
    count = consumers(roots)

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> Any:
        maker = inputs[0].node if inputs else None
        if maker is None or count.get(id(node.inputs[0])) != 1 or node.inputs[0].place is not None:
            return None
        if node.op is matrix.add_bias and maker.op is matrix.matmul:
            return matrix.dense(*maker.inputs, inputs[1], activation="linear")
        if node.op.name in pointwise.DENSE_ACTIVATIONS:
            if maker.op is matrix.matmul or (maker.op is matrix.dense and maker.attrs["activation"] == "linear"):
                return matrix.dense(*maker.inputs, activation=node.op.name)
        name = node.op.name.removesuffix("_dx")
        if maker.op is matrix.matmul_nt and name != node.op.name and name in pointwise.OUTPUT_GRADIENTS:
            return matrix.dense_dx(*maker.inputs, inputs[1], activation=name)
        return None

    return rewrite(roots, rule)


PASSES = (dense_layers,)
