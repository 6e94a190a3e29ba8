"""Optimizer updates in place, on flat vectors of all parameters.

Coefficients such as ``1 - beta_1`` are computed in double precision and rounded once, like the reference's.
"""

from __future__ import annotations

import math

import numpy as np

from fastnn.backends.numba.jit import IN1, INTEGER, OUT1, REAL, compiled, define


@compiled(OUT1, IN1, IN1)
def _sgd(p, g, rates):  # type: ignore[no-untyped-def]
    rate = rates[0]
    for i in range(p.size):
        p[i] -= rate * g[i]


@compiled(OUT1, OUT1, IN1, IN1, REAL, INTEGER)
def _momentum(p, v, g, rates, momentum, nesterov):  # type: ignore[no-untyped-def]
    rate, keep = rates[0], np.float32(momentum)
    if nesterov:
        for i in range(p.size):
            v[i] = keep * v[i] - rate * g[i]
            p[i] = p[i] + keep * v[i] - rate * g[i]
    else:
        for i in range(p.size):
            v[i] = keep * v[i] - rate * g[i]
            p[i] += v[i]


@compiled(OUT1, OUT1, OUT1, IN1, IN1, REAL, REAL, REAL, REAL)
def _adamw(p, m, v, g, rates, beta_1, beta_2, epsilon, weight_decay):  # type: ignore[no-untyped-def]
    new_1, new_2, small = np.float32(1.0 - beta_1), np.float32(1.0 - beta_2), np.float32(epsilon)
    decay, rate = rates[0] * np.float32(weight_decay), rates[1]
    for i in range(p.size):
        m[i] += (g[i] - m[i]) * new_1
        v[i] += (g[i] * g[i] - v[i]) * new_2
        p[i] = p[i] - p[i] * decay - rate * m[i] / (math.sqrt(v[i]) + small)


@compiled(OUT1, OUT1, IN1, IN1, REAL, REAL)
def _rmsprop(p, v, g, rates, rho, epsilon):  # type: ignore[no-untyped-def]
    keep, new, small, rate = np.float32(rho), np.float32(1.0 - rho), np.float32(epsilon), rates[0]
    for i in range(p.size):
        v[i] = keep * v[i] + new * g[i] * g[i]
        p[i] -= rate * g[i] / math.sqrt(v[i] + small)


@compiled(OUT1, OUT1, OUT1, IN1, IN1, REAL, REAL, REAL)
def _rmsprop_momentum(p, v, b, g, rates, rho, momentum, epsilon):  # type: ignore[no-untyped-def]
    keep, new, small, rate = np.float32(rho), np.float32(1.0 - rho), np.float32(epsilon), rates[0]
    inertia = np.float32(momentum)
    for i in range(p.size):
        v[i] = keep * v[i] + new * g[i] * g[i]
        b[i] = inertia * b[i] + rate * g[i] / math.sqrt(v[i] + small)
        p[i] -= b[i]


@compiled(OUT1, IN1, REAL)
def _moving_average(m, new, momentum):  # type: ignore[no-untyped-def]
    keep, share = np.float32(momentum), np.float32(1.0 - momentum)
    for i in range(m.size):
        m[i] = keep * m[i] + share * new[i]


define("sgd", _sgd)
define("momentum", _momentum, "momentum", "nesterov")
define("adam", _adamw, "beta_1", "beta_2", "epsilon", constants=(0.0,))
define("adamw", _adamw, "beta_1", "beta_2", "epsilon", "weight_decay")
define("rmsprop", _rmsprop, "rho", "epsilon")
define("rmsprop_momentum", _rmsprop_momentum, "rho", "momentum", "epsilon")
define("moving_average", _moving_average, "momentum", flat=True)
