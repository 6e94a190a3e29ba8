"""JAX: whole epochs in one compiled `lax.scan` with donated state and Adam written by hand, prediction compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fastnn.benchmarking.peers import Case, repeated
from fastnn.benchmarking.workloads import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Net, Workload, table, weights

MANY = 25  # epochs of the setting that puts several into one call


jax.config.update("jax_cpu_enable_async_dispatch", False)  # twice as fast for small calls: no thread to wake


def cases(workload: Workload, threads: int, thorough: bool) -> list[Case]:
    if workload.kind == "predict":
        return predictions(workload)
    found = []
    for gather, note in (("step", ""), ("epoch", ", gather once an epoch")):
        found.append(Case(f"epoch in one scan{note}", training(workload, 1, gather), workload.steps))
        if workload.rows * workload.network.sizes[0] < 1_000_000:  # an epoch of more is long enough by itself
            many = training(workload, MANY, gather)
            found.append(Case(f"{MANY} epochs in one scan{note}", many, MANY * workload.steps))
    return found


def logits_of(params: list[jax.Array], x: jax.Array) -> jax.Array:
    for layer in range(0, len(params) - 2, 2):
        x = jax.nn.relu(x @ params[layer] + params[layer + 1])
    return x @ params[-2] + params[-1]


def loss_of(net: Net, params: list[jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    z = logits_of(params, x)
    if net.last == "sigmoid":
        return jnp.mean(jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z))))
    picked = jnp.take_along_axis(z, y[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(z, axis=1) - picked)


def training(workload: Workload, epochs_a_call: int, gather: str) -> Callable[[int], float]:
    net, rows, batch = workload.network, workload.rows, workload.batch
    full = rows // batch
    features, labels = table(net, rows)
    x = jnp.asarray(features)
    y = jnp.asarray(labels[:, None].astype(np.float32) if net.last == "sigmoid" else labels)

    def step(state: Any, xb: jax.Array, yb: jax.Array) -> tuple[Any, jax.Array]:
        params, m, v, t = state
        loss, grads = jax.value_and_grad(lambda p: loss_of(net, p, xb, yb))(params)
        t = t + 1
        rate = LEARNING_RATE * jnp.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
        m = [BETA_1 * a + (1 - BETA_1) * g for a, g in zip(m, grads, strict=True)]
        v = [BETA_2 * a + (1 - BETA_2) * g * g for a, g in zip(v, grads, strict=True)]
        params = [p - rate * a / (jnp.sqrt(b) + EPSILON) for p, a, b in zip(params, m, v, strict=True)]
        return (params, m, v, t), loss

    def epoch(state: Any, order: jax.Array, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        head, tail = order[: full * batch], order[full * batch :]
        if gather == "epoch":
            xs, ys = x[head].reshape(full, batch, -1), y[head].reshape(full, batch, *y.shape[1:])
            state, losses = lax.scan(lambda s, part: step(s, *part), state, (xs, ys))
        else:
            state, losses = lax.scan(lambda s, part: step(s, x[part], y[part]), state, head.reshape(full, batch))
        total = losses.sum() * batch
        if rows % batch:
            state, last = step(state, x[tail], y[tail])
            total = total + last * (rows % batch)
        return state, total / rows

    def one(state: Any, order: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        return epoch(state, order[0], x, y)

    def many(state: Any, orders: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        return lax.scan(lambda s, order: epoch(s, order, x, y), state, orders)

    call: Any = jax.jit(one if epochs_a_call == 1 else many, donate_argnums=0)
    params = [jnp.asarray(value) for value in weights(net)]
    state = (params, [jnp.zeros_like(p) for p in params], [jnp.zeros_like(p) for p in params], jnp.float32(0))
    rng = np.random.default_rng(17)
    base = np.tile(np.arange(rows, dtype=np.int32), (epochs_a_call, 1))

    def run(n: int) -> float:
        nonlocal state
        loss: Any = None
        for _ in range(n):
            state, losses = call(state, rng.permuted(base, axis=1), x, y)
            loss = np.asarray(losses)
        return float(loss.reshape(-1)[-1])

    return run


def predictions(workload: Workload) -> list[Case]:
    net = workload.network
    x, _ = table(net, workload.rows)
    params = [jnp.asarray(value) for value in weights(net)]
    last = jax.nn.sigmoid if net.last == "sigmoid" else jax.nn.softmax

    def network(params: list[jax.Array], x: jax.Array) -> jax.Array:
        return last(logits_of(params, x))

    given: Any = jax.jit(network)
    baked: Any = jax.jit(partial(network, params))
    resident = jnp.asarray(x)
    return [
        Case("jit, weights as constants", repeated(lambda: np.asarray(baked(resident)))),
        Case("jit, weights as arguments", repeated(lambda: np.asarray(given(params, resident)))),
    ]
