"""Normalization: put into the convolution before it where its statistics are given, fused with the activation after it
where they are those of the batch.
"""

from __future__ import annotations

from typing import Any

from fastnn.graph import Node, Tensor, consumers, rewrite
from fastnn.ops import batch_norm, depthwise, matrix, pointwise
from fastnn.ops.conv import conv
from fastnn.ops.data import fill
from fastnn.ops.declare import Op
from fastnn.ops.shape import reshape_weight
from fastnn.plan.fuse import Roots

#: What can be scaled along its last axis by scaling its weights.
_LINEAR = (matrix.matmul, conv, depthwise.depthwise_conv)

_WITH_ACTIVATION: dict[Op, Op] = {
    batch_norm.batch_norm: batch_norm.fused_batch_norm,
    batch_norm.normalize: batch_norm.fused_normalize,
}


def fold_norms(roots: Roots) -> dict[Tensor | Node, Any]:
    """``normalize(conv(x, w) + b)`` becomes ``conv(x, w') + b'``, with weights that are computed from weights.

    For Plans in which the weights do not change; in others these would be computed at each step.
    """
    count = consumers(roots)

    def alone(tensor: Tensor) -> bool:
        return count.get(id(tensor)) == 1 and tensor.place is None

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> Any:
        if node.op is not batch_norm.normalize or not alone(node.inputs[0]):
            return None
        (y, mean, variance, gamma, beta), epsilon = inputs, node.attrs["epsilon"]
        before, maker, bias = node.inputs[0].node, y.node, None
        if maker is not None and before is not None and maker.op is matrix.add_bias:
            if not alone(before.inputs[0]):
                return None
            bias, maker = maker.inputs[1], maker.inputs[0].node
        if maker is None or maker.op not in _LINEAR:
            return None
        x, w = maker.inputs
        channels = (y.shape[-1],)
        # gamma / sqrt(variance + epsilon) times the weights is what the gradient of normalize computes, too
        flat = reshape_weight(w, shape=w.shape[:-2] + channels) if maker.op is depthwise.depthwise_conv else w
        scaled = batch_norm.normalize_dx(flat, variance, gamma, epsilon=epsilon)
        scaled = scaled if flat is w else reshape_weight(scaled, shape=w.shape)
        bias = fill(mean, fill_value=0.0) if bias is None else bias
        row = reshape_weight(bias, shape=(1, *channels))
        row = batch_norm.normalize(row, mean, variance, gamma, beta, epsilon=epsilon)
        return matrix.add_bias(maker.op(x, scaled, **maker.attrs), reshape_weight(row, shape=channels))

    return rewrite(roots, rule)


def fused_norms(roots: Roots) -> dict[Tensor | Node, Any]:
    """An activation goes into the normalization before it, the slope of relu into the gradients of that one."""
    count = consumers(roots)

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> Any:
        maker = inputs[0].node if inputs else None
        if maker is None:
            return None
        if maker.op in _WITH_ACTIVATION and node.op.name in pointwise.DENSE_ACTIVATIONS:
            if count.get(id(node.inputs[0])) == 1 and node.inputs[0].place is None:
                return _WITH_ACTIVATION[maker.op](*maker.inputs, **maker.attrs, activation=node.op.name)
        if node.op in (batch_norm.batch_norm_sums, batch_norm.batch_norm_dx) and maker.op is pointwise.relu_dx:
            (g, y), (_, x, moments, *rest) = maker.inputs, inputs
            made = y.node
            if made is None or made.op is not batch_norm.fused_batch_norm or made.attrs["activation"] != "relu":
                return None
            if made.inputs[0] is not x or made.inputs[1] is not moments:
                return None
            gamma, beta = made.inputs[2:]
            if node.op is batch_norm.batch_norm_sums:
                return batch_norm.fused_batch_norm_sums(g, x, moments, gamma, beta, **made.attrs)
            return batch_norm.fused_batch_norm_dx(g, x, moments, gamma, beta, rest[1], **made.attrs)
        return None

    return rewrite(roots, rule)
