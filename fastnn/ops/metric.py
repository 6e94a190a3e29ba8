"""Metrics that are one value a row: whether the prediction is right. N batch, C outputs or classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.ops.declare import SIZES, Case, label_shape, op, row_shape


def _cases(kind: str) -> Any:
    def cases(rng: np.random.Generator) -> Iterator[Case]:
        for n, c in zip((*SIZES, 64), (*SIZES[4:], *SIZES[:4], 1), strict=True):
            p = rng.random((n, c)).astype(np.float32).astype(float)
            labels = rng.integers(0, c, (n, 1))
            if kind == "binary":
                yield (p, rng.integers(0, 2, (n, c)).astype(float)), {"threshold": 0.5}
            elif kind == "label":
                yield (p, labels.astype(float)), {}
            else:
                yield (p, (labels == np.arange(c)).astype(float)), {}

    return cases


@op(shape=row_shape, terms=lambda p, y, **attrs: p[1], cases=_cases("binary"))
def binary_accuracy(p, y, *, threshold):
    """The share of outputs in a row with ``(p > threshold) == y``."""
    return ((p > threshold) == y).mean(axis=-1).astype(p.dtype)


@op(shape=row_shape, terms=lambda p, y: 0, cases=_cases("classes"))
def categorical_accuracy(p, y):
    """1 where the largest prediction is at the largest target (the first of equals), else 0."""
    return (p.argmax(axis=-1) == y.argmax(axis=-1)).astype(p.dtype)


@op(shape=label_shape, terms=lambda p, y: 0, cases=_cases("label"))
def sparse_categorical_accuracy(p, y):
    """1 where the largest prediction is at the label (the first of equals), else 0."""
    return (p.argmax(axis=-1) == y[:, 0]).astype(p.dtype)
