"""Fusion: graph in, graph with fewer and better nodes out. Each pass stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastnn.graph import Node, Tensor, consumers, rewrite
from fastnn.ops import depthwise, focal, loss, matrix, merge, pointwise, pool
from fastnn.ops.conv import conv, conv_dx, fused_conv, fused_conv_dx, fused_conv_transpose
from fastnn.ops.declare import OPS, Op
from fastnn.ops.shape import reshape
from fastnn.ops.softmax import softmax

Roots = Sequence[Tensor | Node]

#: (activation, loss on its output) -> loss on the logits
_ON_LOGITS: dict[tuple[Op, Op], Op] = {
    (pointwise.sigmoid, loss.binary_crossentropy): loss.sigmoid_crossentropy,
    (softmax, loss.categorical_crossentropy): loss.softmax_crossentropy,
    (softmax, loss.sparse_categorical_crossentropy): loss.sparse_softmax_crossentropy,
    (pointwise.sigmoid, focal.binary_focal_crossentropy): focal.sigmoid_focal_crossentropy,
    (softmax, focal.categorical_focal_crossentropy): focal.softmax_focal_crossentropy,
}


def losses_on_logits(roots: Roots) -> dict[Tensor | Node, Any]:
    """``binary_crossentropy(sigmoid(z), y)`` becomes ``sigmoid_crossentropy(z, y)``, and so for softmax.

    Comes before differentiation: the gradient is then the short and exact one, ``sigmoid(z) - y``.
    """

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
        maker = inputs[0].node
        fused = _ON_LOGITS.get((maker.op, node.op)) if maker is not None else None
        return None if fused is None or maker is None else fused(maker.inputs[0], inputs[1], **node.attrs)

    return rewrite(roots, rule)


#: what produces -> the same with a bias and an activation at its end
_FORWARD: dict[Op, Op] = {
    matrix.matmul: matrix.dense,
    conv: fused_conv,
    conv_dx: fused_conv_transpose,
    depthwise.depthwise_conv: depthwise.fused_depthwise_conv,
}
#: what carries a gradient back -> the same, times the slope of the activation before it
_BACKWARD: dict[Op, Op] = {matrix.matmul_nt: matrix.dense_dx, conv_dx: fused_conv_dx}


#: gradients of a pool that hand each number on to one pixel, which has the value of the pool's output
_TO_ONE_PIXEL = (pool.max_pool_dx, pool.global_max_pool_dx)


def epilogues(roots: Roots) -> dict[Tensor | Node, Any]:
    """Bias and activation go into the product or convolution that feeds them; an activation's slope into the one that
    brings the gradient, on its way past views and before a maximum is unpooled. A relu goes into a sum, too.
    """
    count = consumers(roots)
    fused_ops = set(_FORWARD.values())

    def alone(tensor: Tensor) -> bool:
        """Whether nobody else reads it."""
        return count.get(id(tensor)) == 1 and tensor.place is None

    def slope(name: str, before: Tensor, g: Tensor, y: Tensor) -> Any:
        """``<name>_dx(g, y)`` where g was ``before`` in the graph as it was; None if it can go nowhere else."""
        maker = g.node
        if maker is None or before.node is None or maker.op is not before.node.op or not alone(before):
            return None
        if maker.op in _BACKWARD:
            return _BACKWARD[maker.op](*maker.inputs, y, **maker.attrs, activation=name)
        if maker.op is pointwise.add and name == "relu":
            return merge.add_relu_dx(*maker.inputs, y)
        if maker.op is reshape:
            further = slope(name, before.node.inputs[0], maker.inputs[0], reshape(y, shape=maker.inputs[0].shape[1:]))
            return None if further is None else reshape(further, **maker.attrs)
        if maker.op in _TO_ONE_PIXEL and maker.inputs[1] is y:
            pooled = maker.inputs[2]
            further = slope(name, before.node.inputs[0], maker.inputs[0], pooled)
            further = OPS[f"{name}_dx"](maker.inputs[0], pooled) if further is None else further
            return maker.op(further, y, pooled, **maker.attrs)
        return None

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> Any:
        maker = inputs[0].node if inputs else None
        if maker is None:
            return None
        if node.op is matrix.sum_rows and maker.op in _TO_ONE_PIXEL:
            return matrix.sum_rows(maker.inputs[0])
        name = node.op.name.removesuffix("_dx")
        if name != node.op.name:
            return slope(name, node.inputs[0], *inputs) if name in pointwise.OUTPUT_GRADIENTS else None
        if not alone(node.inputs[0]):
            return None
        if node.op is matrix.add_bias and maker.op in _FORWARD:
            return _FORWARD[maker.op](*maker.inputs, inputs[1], **maker.attrs, activation="linear")
        if node.op is pointwise.relu and maker.op is pointwise.add:
            return merge.add_relu(*maker.inputs)
        if node.op.name in pointwise.DENSE_ACTIVATIONS:
            if maker.op in _FORWARD:
                return _FORWARD[maker.op](*maker.inputs, **maker.attrs, activation=name)
            if maker.op in fused_ops and maker.attrs["activation"] == "linear":
                return maker.op(*maker.inputs, **{**maker.attrs, "activation": name})
        return None

    return rewrite(roots, rule)
