"""What operations mean: shape rule, gradient rule and NumPy reference, one declaration each."""

from fastnn.ops import data, loss, matrix, metric, pointwise, random, shape, softmax, update
from fastnn.ops.declare import OPS, Op

__all__ = ["OPS", "Op", "data", "loss", "matrix", "metric", "pointwise", "random", "shape", "softmax", "update"]
