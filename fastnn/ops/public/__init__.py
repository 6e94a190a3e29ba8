"""The ops as users call them: on arrays at once, on Tensors recorded; with numbers, weights and repeated axes.

They are made of the ops of ``fastnn.ops``, which the library itself uses and which take exactly what their kernels do.
"""

from fastnn.ops.public.arranging import (
    broadcast_to,
    concatenate,
    expand_dims,
    pad,
    reshape,
    sliced,
    split,
    squeeze,
    transpose,
)
from fastnn.ops.public.elementwise import (
    absolute,
    add,
    clip,
    divide,
    elu,
    leaky_relu,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    rsqrt,
    softmax,
    square,
    subtract,
)
from fastnn.ops.public.products import average_pool, conv, depthwise_conv, matmul, max_pool
from fastnn.ops.public.reducing import reduce_max, reduce_mean, reduce_min, reduce_sum

__all__ = [
    "absolute",
    "add",
    "average_pool",
    "broadcast_to",
    "clip",
    "concatenate",
    "conv",
    "depthwise_conv",
    "divide",
    "elu",
    "expand_dims",
    "leaky_relu",
    "matmul",
    "max_pool",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "pad",
    "power",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_sum",
    "reshape",
    "rsqrt",
    "sliced",
    "softmax",
    "split",
    "square",
    "squeeze",
    "subtract",
    "transpose",
]
