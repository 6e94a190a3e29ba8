"""Which algorithm computes a convolution: a plain product, Winograd's or direct summation.

The shapes decide, without the batch: so a row has the same bits in whatever batch it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from fastnn.graph import Node, Tensor, consumers, rewrite
from fastnn.ops import matrix, pool, winograd
from fastnn.ops.conv import conv, conv_dw, conv_dx, fused_conv, fused_conv_dx, fused_conv_transpose, transposed_pads
from fastnn.ops.declare import Op
from fastnn.ops.shape import reshape_weight
from fastnn.plan.fuse import Roots
from fastnn.plan.schedule import elements

#: With fewer channels or filters, transforming the tiles costs more than it saves.
CHANNELS = 16
#: With so many numbers, transformed weights lie in no cache near a processor: those that change at each step are
#: transformed on the way, and what is gained is more than the time that it takes to write them and read them again.
FAR = 1 << 20
#: So many times fewer multiplications are worth it.
GAIN = 1.5

#: Each convolution with a kernel of one element, and the product that it is.
_PRODUCTS: dict[Op, Op] = {
    conv: matrix.matmul,
    fused_conv: matrix.dense,
    conv_dx: matrix.matmul_nt,
    fused_conv_dx: matrix.dense_dx,
    conv_dw: matrix.matmul_tn,
}
_CONVOLUTIONS = {*_PRODUCTS, fused_conv_transpose}


def worth_winograd(kernel: Sequence[int], channels: int, filters: int, sizes: Sequence[int]) -> bool:
    """Whether Winograd's algorithm pays for a convolution of stride 1 with so many channels and filters to outputs of
    these sizes.
    """
    if not winograd.fits(tuple(kernel)) or min(channels, filters) < CHANNELS:
        return False
    direct = tiled = 1
    for taps, size in zip(kernel[-2:], sizes[-2:], strict=True):
        direct *= size * taps
        if taps > 1:
            tiled *= -(-size // (winograd.POINTS - taps + 1)) * winograd.POINTS
        else:
            tiled *= size
    return direct >= GAIN * tiled


def choose(roots: Roots, use_winograd: bool = True, changing: bool = True) -> dict[Tensor | Node, Any]:
    """Each convolution becomes what computes it fastest.

    Args:
        roots: of the graph
        use_winograd: False leaves Winograd's algorithm out
        changing: whether the weights change at each step
    """
    transformed: dict[tuple[int, bool], Tensor] = {}
    count = consumers(roots)

    def weights(w: Tensor, flip: bool) -> tuple[Tensor, dict[str, bool]]:
        """The transformed weights, made once for all that use them, or the weights, and how they are transformed."""
        key = (id(w), flip)
        if key not in transformed:
            transformed[key] = winograd.winograd_weights(w, flip=flip)
        u = transformed[key]
        return (w, {"flip": flip}) if changing and elements(u.shape, 1) >= FAR else (u, {})

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> Any:
        if node.op is pool.max_pool and count.get(id(node.inputs[0])) == 1 and inputs[0].place is None:
            return _pooled(node, inputs[0].node)
        if node.op not in _CONVOLUTIONS or node.attrs["groups"] != 1 or any(s != 1 for s in node.attrs["strides"]):
            return None
        if node.op is conv_dw:
            return _weights_gradient(node, inputs, use_winograd)
        (first, w, *rest), attrs = inputs, node.attrs
        kernel: Any = w.shape[:-2]
        pads = attrs["pads"]
        extra = {"activation": attrs["activation"]} if "activation" in attrs else {}
        if _is_product(kernel, pads) and node.op in _PRODUCTS:
            return _PRODUCTS[node.op](first, reshape_weight(w, shape=w.shape[-2:]), *rest, **extra)
        assert node.output is not None
        _, *sizes, filters = cast("tuple[int, ...]", node.output.shape)
        channels = cast("int", first.shape[-1])
        backward = "sizes" in attrs
        if backward:
            pads = transposed_pads(kernel, attrs["dilations"], pads)
        if not use_winograd or any(d != 1 for d in attrs["dilations"]) or min(p for pair in pads for p in pair) < 0:
            return None
        if not worth_winograd(kernel, channels, filters, sizes):
            return None
        op = winograd.winograd_conv_dx if node.op is fused_conv_dx else winograd.winograd_conv
        u, how = weights(w, flip=backward)
        return op(first, u, *rest, kernel=kernel, pads=pads, filters=filters, **how, **extra)

    return rewrite(roots, rule)


def _is_product(kernel: Sequence[int], pads: Any) -> bool:
    """Whether a convolution of stride 1 sees one pixel at a time."""
    return math.prod(kernel) == 1 and not any(p for pair in pads for p in pair)


def _pooled(node: Node, maker: Node | None) -> Any:
    """The convolution that ends with the pool, which alone reads it, if there is one."""
    if (
        maker is None
        or maker.op is not winograd.winograd_conv
        or maker.attrs.get("activation") not in (None, *winograd.BEFORE_POOL)
    ):
        return None
    if node.attrs != winograd.pool_attrs(maker.attrs["kernel"]):
        return None
    return winograd.winograd_conv_pool(*maker.inputs, **maker.attrs)


def _weights_gradient(node: Node, inputs: tuple[Tensor, ...], use_winograd: bool) -> Any:
    x, g = inputs
    kernel, pads, dilations = (node.attrs[name] for name in ("kernel", "pads", "dilations"))
    if _is_product(kernel, pads):
        return reshape_weight(matrix.matmul_tn(x, g), shape=(*kernel, x.shape[-1], g.shape[-1]))
    worth = worth_winograd(kernel, x.shape[-1], g.shape[-1], g.shape[1:-1])  # type: ignore[arg-type]
    if not use_winograd or any(d != 1 for d in dilations) or not worth:
        return None
    return winograd.winograd_conv_dw(x, g, kernel=kernel, pads=pads)
