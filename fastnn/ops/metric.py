"""Metrics that are one value a row: whether the prediction is right. C outputs or classes; rows lie along all axes but
the last. And counts of the pixels of each sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import SIZES, Case, label_shape, op, row_shape
from fastnn.ops.loss import PIXELS, one_hot
from fastnn.ops.overlap import class_shape


def _cases(kind: str) -> Any:
    def cases(rng: np.random.Generator) -> Iterator[Case]:
        for shape in (*PIXELS, *zip((*SIZES, 64), (*SIZES[4:], *SIZES[:4], 1), strict=True)):
            c = shape[-1]
            p = rng.random(shape).astype(np.float32).astype(float)
            labels = rng.integers(0, c, (*shape[:-1], 1))
            if kind == "binary":
                yield (p, rng.integers(0, 2, shape).astype(float)), {"threshold": 0.5}
            elif kind == "label":
                yield (p, labels.astype(float)), {}
            else:
                yield (p, (labels == np.arange(c)).astype(float)), {}

    return cases


@op(shape=row_shape, terms=lambda p, y, **attrs: p[-1], cases=_cases("binary"))
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
    return (p.argmax(axis=-1) == y[..., 0]).astype(p.dtype)


# Counts of pixels, from which overlaps of whole epochs are made. Whole numbers: they are exact, whatever their order


def _check_samples(p: Shape) -> None:
    if len(p) < 3:
        raise ValueError(f"needs predictions (N, ..., C) with one or more axes of pixels. Received: {p}")


def _shape_class_counts(p: Shape, y: Shape) -> Shape:
    _check_samples(p)
    class_shape(p, y)
    return (p[0], 3, p[-1])


def _shape_threshold_counts(p: Shape, y: Shape, **attrs: Any) -> Shape:
    _check_samples(p)
    row_shape(p, y)
    return (p[0], 4, p[-1])


def _class_count_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, shape in enumerate((*PIXELS, (3, 40, 31, 4), (7, 33, 2), (4, 5, 9), (9, 4, 5, 16), (5, 6, 33))):
        p = rng.integers(0, 3, shape) / 4.0 if number == 2 else rng.random(shape)  # with equals
        y = rng.integers(0, shape[-1], (*shape[:-1], 1))
        yield (p, (y if number % 2 else one_hot(y, p)).astype(float)), {}


def _threshold_count_cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape in (*PIXELS, (3, 40, 31, 1), (7, 33, 2), (9, 4, 5, 16)):
        p = rng.integers(0, 5, shape) / 4.0
        yield (p, rng.integers(0, 2, shape).astype(float)), {"threshold": 0.5}


def _pixels(counted: np.ndarray, dtype: Any) -> np.ndarray:
    """The number of true pixels of each sample and class: (N, ..., C) -> (N, C)."""
    return counted.sum(axis=tuple(range(1, counted.ndim - 1)), dtype=np.int64).astype(dtype)


def _count_work(p: Shape, y: Shape, **attrs: Any) -> float:
    return 8.0 * math.prod(size for size in p if size is not None)


@op(shape=_shape_class_counts, terms=lambda p, y: 0, flops=_count_work, cases=_class_count_cases)
def class_counts(p, y):
    """Pixels where a class is predicted rightly, wrongly, and where it is missed: (N, 3, C).

    Predicted is the largest of ``p (N, ..., C)``, true the largest of ``y (N, ..., C)`` or the label (N, ..., 1).
    """
    classes = np.arange(p.shape[-1])
    predicted = p.argmax(axis=-1)[..., None] == classes
    true = (y if y.shape != p.shape else y.argmax(axis=-1)[..., None]) == classes
    return np.stack([_pixels(c, p.dtype) for c in (predicted & true, predicted & ~true, ~predicted & true)], axis=1)


@op(shape=_shape_threshold_counts, terms=lambda p, y, **attrs: 0, flops=_count_work, cases=_threshold_count_cases)
def threshold_counts(p, y, *, threshold):
    """True positives, false positives, false negatives and true negatives of each output by itself: (N, 4, C).

    Positive is ``p > threshold``, and ``y > 1/2``.
    """
    predicted, true = p > threshold, y > 0.5
    counted = (predicted & true, predicted & ~true, ~predicted & true, ~predicted & ~true)
    return np.stack([_pixels(c, p.dtype) for c in counted], axis=1)
