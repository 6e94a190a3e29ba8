"""Element by element: activations with their gradients, and plain arithmetic.

A gradient named ``<activation>_dx(g, y)`` reads the activation's output where that is enough: then the input need not
be kept. The few that cannot (gelu, silu, mish, hard_silu) read the input ``x``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape, Tensor
from fastnn.ops.declare import SIZES, Case, Op, op, same_shape

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805

#: Activations that the fused dense op can end with, in the order of the C enumeration.
DENSE_ACTIVATIONS = (
    "linear", "relu", "sigmoid", "tanh", "softplus", "exponential", "softsign", "hard_sigmoid", "relu6", "selu", "gelu",
    "silu", "mish", "hard_silu",
)  # fmt: skip
#: Those whose gradient reads their output: a gradient op may be fused into its producer.
OUTPUT_GRADIENTS = DENSE_ACTIVATIONS[1:10]


def _values(rng: np.random.Generator) -> Iterator[np.ndarray]:
    for n in SIZES:
        yield 3.0 * rng.standard_normal((n, 5))
    yield np.array([[-1e30, -100.0, -88.0, -20.0, -5.0, -1e-3, -1e-20, 0.0, 1e-20, 1e-3, 5.0, 20.0, 87.0, 88.0]])


def _one(rng: np.random.Generator) -> Iterator[Case]:
    for x in _values(rng):
        yield (x,), {}


def _identity_shape(x: Shape, **attrs: Any) -> Shape:
    return x


def activation(gradient: Callable[..., tuple[Tensor | None, ...]], *, terms: float = 8, cases: Any = _one) -> Any:
    """Declare an activation: the shape stays, one input."""
    return op(
        shape=_identity_shape,
        gradient=gradient,
        terms=lambda x, **attrs: terms,
        scale=lambda x, **attrs: np.minimum(abs(x), 1e3) + 1.0,
        cases=cases,
        elementwise=True,
    )


def _finite(values: np.ndarray) -> bool:
    return bool(np.isfinite(values.astype(np.float32)).all())


def _gradient_cases(forward: Callable[[], Op], of_output: bool, **attrs: Any) -> Any:
    def cases(rng: np.random.Generator) -> Iterator[Case]:
        for x in _values(rng):
            x = np.clip(x, -80.0, 80.0)
            value = forward()(x, **attrs) if of_output else x
            if _finite(value):
                yield (rng.standard_normal(x.shape), value.astype(np.float32).astype(float)), attrs

    return cases


def activation_gradient(forward: Callable[[], Op], *, of: str = "y", terms: float = 12, **attrs: Any) -> Any:
    """Declare ``<activation>_dx(g, y)`` or, with ``of="x"``, ``<activation>_dx(g, x)``."""
    return op(
        shape=same_shape,
        terms=lambda *shapes, **attrs: terms,
        scale=lambda g, value, **attrs: abs(g) * (1.0 + abs(value)),
        cases=_gradient_cases(forward, of == "y", **attrs),
        elementwise=True,
    )


# The few functions that NumPy does not spell safely


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0) + np.log1p(np.exp(-abs(x)))


_erf = np.frompyfunc(math.erf, 1, 1)


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    erf = np.asarray(_erf(np.asarray(x) / math.sqrt(2.0)), dtype=float)
    return (0.5 * (1.0 + erf)).astype(x.dtype)


def _exp(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.exp(x)


@activation(lambda g, y, x: (relu_dx(g, y),), terms=0)
def relu(x):
    """``max(x, 0)``; NaN stays NaN."""
    return np.maximum(x, 0.0)


@activation_gradient(lambda: relu, terms=0)
def relu_dx(g, y):
    return np.where(y > 0, g, 0.0)


@activation(lambda g, y, x: (sigmoid_dx(g, y),))
def sigmoid(x):
    """``1 / (1 + exp(-x))``."""
    return _sigmoid(x)


@activation_gradient(lambda: sigmoid)
def sigmoid_dx(g, y):
    return g * y * (1.0 - y)


@activation(lambda g, y, x: (tanh_dx(g, y),))
def tanh(x):
    """The hyperbolic tangent."""
    return np.tanh(x)


@activation_gradient(lambda: tanh)
def tanh_dx(g, y):
    return g * (1.0 - y * y)


@activation(lambda g, y, x: (softplus_dx(g, y),))
def softplus(x):
    """``log(1 + exp(x))``."""
    return _softplus(x)


@activation_gradient(lambda: softplus)
def softplus_dx(g, y):
    return g * -np.expm1(-y)


def _small(rng: np.random.Generator) -> Iterator[Case]:
    for x in _values(rng):
        yield (np.minimum(x, 6.0),), {}
    yield (np.array([[100.0, -200.0]]),), {}


@activation(lambda g, y, x: (exponential_dx(g, y),), cases=_small, terms=512)
def exponential(x):
    """``exp(x)``."""
    return _exp(x)


@activation_gradient(lambda: exponential)
def exponential_dx(g, y):
    return g * y


@activation(lambda g, y, x: (softsign_dx(g, y),))
def softsign(x):
    """``x / (1 + |x|)``."""
    return x / (1.0 + abs(x))


@activation_gradient(lambda: softsign)
def softsign_dx(g, y):
    return g * (1.0 - abs(y)) ** 2


@activation(lambda g, y, x: (hard_sigmoid_dx(g, y),))
def hard_sigmoid(x):
    """``clip(x / 6 + 1/2, 0, 1)``."""
    return np.clip(x / 6.0 + 0.5, 0.0, 1.0)


@activation_gradient(lambda: hard_sigmoid)
def hard_sigmoid_dx(g, y):
    return np.where((y > 0) & (y < 1), g / 6.0, 0.0)


@activation(lambda g, y, x: (relu6_dx(g, y),), terms=0)
def relu6(x):
    """``min(max(x, 0), 6)``."""
    return np.clip(x, 0.0, 6.0)


@activation_gradient(lambda: relu6, terms=0)
def relu6_dx(g, y):
    return np.where((y > 0) & (y < 6), g, 0.0)


@activation(lambda g, y, x: (selu_dx(g, y),))
def selu(x):
    """Scaled exponential linear unit (Klambauer et al. 2017, eq. 2)."""
    return SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0.0)))


@activation_gradient(lambda: selu)
def selu_dx(g, y):
    return g * np.where(y > 0, SELU_SCALE, y + SELU_SCALE * SELU_ALPHA)


@activation(lambda g, y, x: (gelu_dx(g, x),))
def gelu(x):
    """``x * Phi(x)``, Phi the normal distribution function (Hendrycks & Gimpel 2016)."""
    return x * _normal_cdf(x)


@activation_gradient(lambda: gelu, of="x")
def gelu_dx(g, x):
    return g * (_normal_cdf(x) + x * np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi))


@activation(lambda g, y, x: (silu_dx(g, x),))
def silu(x):
    """``x * sigmoid(x)``, also called swish."""
    return x * _sigmoid(x)


@activation_gradient(lambda: silu, of="x")
def silu_dx(g, x):
    return g * _sigmoid(x) * (1.0 + x * (1.0 - _sigmoid(x)))


@activation(lambda g, y, x: (mish_dx(g, x),), terms=16)
def mish(x):
    """``x * tanh(softplus(x))`` (Misra 2019)."""
    return x * np.tanh(_softplus(x))


@activation_gradient(lambda: mish, of="x", terms=24)
def mish_dx(g, x):
    return g * (np.tanh(_softplus(x)) + x * (1.0 - np.tanh(_softplus(x)) ** 2) * _sigmoid(x))


@activation(lambda g, y, x: (hard_silu_dx(g, x),))
def hard_silu(x):
    """``x * hard_sigmoid(x)``."""
    return x * np.clip(x / 6.0 + 0.5, 0.0, 1.0)


@activation_gradient(lambda: hard_silu, of="x")
def hard_silu_dx(g, x):
    return g * np.where(x <= -3.0, 0.0, np.where(x >= 3.0, 1.0, x / 3.0 + 0.5))


def _with(name: str, value: float) -> Any:
    return lambda rng: (((x,), {name: value}) for x in _values(rng))


@activation(
    lambda g, y, x, negative_slope: (leaky_relu_dx(g, y, negative_slope=negative_slope),),
    terms=1,
    cases=_with("negative_slope", 0.2),
)
def leaky_relu(x, *, negative_slope):
    """``x`` where positive, else ``negative_slope * x`` (negative_slope >= 0)."""
    return np.where(x > 0, x, negative_slope * x)


@activation_gradient(lambda: leaky_relu, terms=1, negative_slope=0.2)
def leaky_relu_dx(g, y, *, negative_slope):
    return np.where(y > 0, g, negative_slope * g)


@activation(lambda g, y, x, alpha: (elu_dx(g, y, alpha=alpha),), cases=_with("alpha", 1.3))
def elu(x, *, alpha):
    """``x`` where positive, else ``alpha * (exp(x) - 1)`` (Clevert et al. 2016)."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


@activation_gradient(lambda: elu, alpha=1.3)
def elu_dx(g, y, *, alpha):
    return g * np.where(y > 0, 1.0, y + alpha)


# Arithmetic


def _two(rng: np.random.Generator) -> Iterator[Case]:
    for n in SIZES:
        yield (rng.standard_normal((n, 3)), rng.standard_normal((n, 3))), {}


@op(
    shape=same_shape,
    gradient=lambda g, y, a, b: (g, g),
    scale=lambda a, b: abs(a) + abs(b),
    cases=_two,
    elementwise=True,
)
def add(a, b):
    """``a + b``."""
    return a + b


@op(
    shape=same_shape,
    gradient=lambda g, y, a, b: (multiply(g, b), multiply(g, a)),
    scale=lambda a, b: abs(a * b),
    cases=_two,
    elementwise=True,
)
def multiply(a, b):
    """``a * b``, element by element."""
    return a * b


@op(
    shape=_identity_shape,
    gradient=lambda g, y, x, scale, **offset: (affine(g, scale=scale),),
    terms=lambda x, **attrs: 2,
    scale=lambda x, *, scale, offset=0.0: abs(scale * x) + abs(offset),
    cases=lambda rng: (((x,), a) for x in _values(rng) for a in ({"scale": 0.9, "offset": 0.25}, {"scale": -0.3})),
    elementwise=True,
)
def affine(x, *, scale, offset=-0.0):  # x + -0.0 is x, even if x is 0.0 or -0.0
    """``scale * x + offset``."""
    return x * x.dtype.type(scale) + x.dtype.type(offset)


@op(
    shape=_identity_shape,
    scale=lambda x, **attrs: abs(x),
    terms=lambda x, **attrs: 0,
    cases=lambda rng: (((x,), {"limit": 1.5}) for x in _values(rng)),
    elementwise=True,
)
def clip(x, *, limit):
    """``x`` limited to ``[-limit, limit]``; NaN stays NaN."""
    return np.clip(x, -limit, limit)


@op(
    shape=_identity_shape,
    terms=lambda x, **attrs: np.prod(x, dtype=float) + 4,
    scale=lambda x, **attrs: abs(x),
    cases=lambda rng: (((scale * x,), {"limit": 1.5}) for x in _values(rng) for scale in (0.01, 1.0)),
)
def clip_norm(x, *, limit):
    """``x`` scaled down, if need be, to the Euclidean norm ``limit``."""
    norm = np.sqrt(np.sum(np.square(x.astype(np.float64))))
    return x * np.asarray(limit / norm if norm > limit else 1.0, x.dtype)


def _penalty_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n in SIZES:
        yield (rng.standard_normal((n, 7)),), {"l1": 0.01, "l2": 0.02}


@op(
    shape=lambda w, **attrs: (1,),
    gradient=lambda g, y, w, l1, l2: (penalty_dx(g, w, l1=l1, l2=l2),),
    terms=lambda w, **attrs: np.prod(w, dtype=float) + 2,
    scale=lambda w, l1, l2: np.sum(l1 * abs(w) + l2 * w * w, keepdims=True).reshape(1),
    cases=_penalty_cases,
)
def penalty(w, *, l1, l2):
    """``l1 * sum|w| + l2 * sum w^2 -> (1,)``: the regularization term of one weight."""
    return np.asarray(l1 * abs(w).sum() + l2 * np.square(w).sum(), w.dtype).reshape(1)


def _shape_penalty_dx(g: Shape, w: Shape, **attrs: Any) -> Shape:
    if g != (1,):
        raise ValueError(f"needs the gradient of one number, of shape (1,). Received: {g}")
    return w


@op(
    shape=_shape_penalty_dx,
    scale=lambda g, w, l1, l2: abs(g) * (l1 + 2.0 * l2 * abs(w)),
    terms=lambda g, w, **attrs: 3,
    cases=lambda rng: (((rng.standard_normal(1), w), attrs) for (w,), attrs in _penalty_cases(rng)),
)
def penalty_dx(g, w, *, l1, l2):
    return g * (l1 * np.sign(w) + 2.0 * l2 * w)
