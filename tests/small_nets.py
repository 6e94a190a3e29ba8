"""Small nets and data that several test files train."""

from __future__ import annotations

import numpy as np

import fastnn
from fastnn.layers import Dense, Input


def data(rows=90, seed=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 6)).astype(np.float32)
    return x, (x[:, :1] - x[:, 1:2] + 0.5 * x[:, 2:3] ** 2 > 0.3).astype(np.float32)


def build(*layers, optimizer="adam", loss="binary_crossentropy", metrics=(), seed=7):
    fastnn.set_seed(seed)
    chosen = layers or (Dense(12, "relu"), Dense(1, "sigmoid"))
    model = fastnn.Sequential([Input((6,)), *chosen])
    model.compile(optimizer=optimizer, loss=loss, metrics=list(metrics))
    return model


def same_bits(one, other):
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def assert_close(one, other, tolerance=1e-5):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def fit(model, x, y, **options):
    return model.fit(x, y, **{"verbose": 0, **options})
