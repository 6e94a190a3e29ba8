"""Updates, in place: of the optimizers, on flat vectors of all parameters, and of moving averages.

``rates`` holds what changes from step to step; the optimizer computes it ahead for all steps of an epoch, in double
precision: ``[learning rate]``, and for the Adam family ``[learning rate, learning rate * sqrt(1 - beta_2^t) / (1 -
beta_1^t)]``. Formulas are Keras's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import SIZES, Case, op


def _cases(slots: int, rates: int, attrs: list[dict[str, Any]], squared: tuple[int, ...] = ()) -> Any:
    def cases(rng: np.random.Generator) -> Iterator[Case]:
        for n in (*SIZES, 100):
            for attr in attrs:
                state = [rng.standard_normal(n) for _ in range(slots + 1)]
                for slot in squared:
                    state[slot] = np.square(state[slot]) + 0.1
                yield (*state, rng.standard_normal(n), np.array([0.01, 0.02][:rates])), attr

    return cases


def _update(slots: int, rates: int, attrs: list[dict[str, Any]], squared: tuple[int, ...] = ()) -> Any:
    def rule(*shapes: Shape, **attrs: Any) -> None:
        if len({*shapes[:-1]}) > 1 or len(shapes[0]) != 1 or shapes[-1] != (rates,):
            raise ValueError(f"needs vectors of one size, then {rates} rates. Received: {', '.join(map(str, shapes))}")

    return op(
        shape=rule,
        updates=tuple(range(slots + 1)),
        terms=lambda *shapes, **attrs: 12,
        scale=lambda *arrays, **attrs: 1.0 + sum(abs(a) for a in arrays[:-1]) ** 2,
        flops=lambda p, *rest, **attrs: 4.0 * (slots + 1) * p[0],
        cases=_cases(slots, rates, attrs, squared),
    )


@_update(0, 1, [{}])
def sgd(p, g, rates):
    """``p -= rate * g``."""
    return (p - rates[0] * g,)


@_update(1, 1, [{"momentum": 0.9, "nesterov": nesterov} for nesterov in (False, True)])
def momentum(p, v, g, rates, *, momentum, nesterov):
    """``v = momentum * v - rate * g``; ``p += v``, or with Nesterov ``p += momentum * v - rate * g``."""
    v = momentum * v - rates[0] * g
    return (p + momentum * v - rates[0] * g if nesterov else p + v), v


@_update(2, 2, [{"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}], squared=(2,))
def adam(p, m, v, g, rates, *, beta_1, beta_2, epsilon):
    """Kingma & Ba 2015, the efficient form at the end of section 2."""
    m = m + (g - m) * (1.0 - beta_1)
    v = v + (g * g - v) * (1.0 - beta_2)
    return p - rates[1] * m / (np.sqrt(v) + epsilon), m, v


@_update(2, 2, [{"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.04}], squared=(2,))
def adamw(p, m, v, g, rates, *, beta_1, beta_2, epsilon, weight_decay):
    """Loshchilov & Hutter 2019: Adam with the weights decayed apart from the gradient."""
    p = p - p * (rates[0] * weight_decay)
    return adam(p, m, v, g, rates, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


@_update(1, 1, [{"rho": 0.9, "epsilon": 1e-7}], squared=(1,))
def rmsprop(p, v, g, rates, *, rho, epsilon):
    """Tieleman & Hinton 2012."""
    v = rho * v + (1.0 - rho) * g * g
    return p - rates[0] * g / np.sqrt(v + epsilon), v


@_update(2, 1, [{"rho": 0.9, "momentum": 0.8, "epsilon": 1e-7}], squared=(1,))
def rmsprop_momentum(p, v, b, g, rates, *, rho, momentum, epsilon):
    """rmsprop with heavy-ball momentum in ``b``."""
    v = rho * v + (1.0 - rho) * g * g
    b = momentum * b + rates[0] * g / np.sqrt(v + epsilon)
    return p - b, v, b


def _shape_moving_average(m: Shape, new: Shape, **attrs: Any) -> None:
    if m != new:
        raise ValueError(f"needs an average and a new value of one shape. Received: {m} and {new}")


def _moving_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n in (*SIZES, 100):
        yield (rng.standard_normal(n), rng.standard_normal(n)), {"momentum": 0.99}


@op(
    shape=_shape_moving_average,
    updates=(0,),
    terms=lambda m, new, **attrs: 3,
    scale=lambda m, new, momentum: momentum * abs(m) + (1.0 - momentum) * abs(new),
    cases=_moving_cases,
)
def moving_average(m, new, *, momentum):
    """``m = momentum * m + (1 - momentum) * new``."""
    return (momentum * m + (1.0 - momentum) * new,)
