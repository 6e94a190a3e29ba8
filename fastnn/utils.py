"""Small helpers that Keras scripts import."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.configurable import whole
from fastnn.sources.dataset import Dataset, PyDataset

#: Its older name in Keras.
Sequence = PyDataset

__all__ = ["Dataset", "PyDataset", "Sequence", "to_categorical"]


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Integer labels as one-hot rows.

    Args:
        x: (N,) or (N, 1) integers 0 .. num_classes-1
        num_classes: number of columns; the largest label plus 1 if None

    Returns:
        float32 (N, num_classes)

    Raises:
        ValueError: a label is not an integer, or not in the range

    Example:
        >>> to_categorical([0, 2, 1])
        array([[1., 0., 0.],
               [0., 0., 1.],
               [0., 1., 0.]], dtype=float32)
    """
    labels = np.asarray(x)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iufb" or not len(labels) or (labels != np.round(labels)).any():
        raise ValueError(f"to_categorical: x must hold integer labels (N,). Received: x={x!r}"[:300])
    classes = int(labels.max()) + 1 if num_classes is None else whole("to_categorical", "num_classes", num_classes)
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"to_categorical: x must be 0 to {classes - 1}. Received: {labels.min()} to {labels.max()}")
    return np.eye(classes, dtype=np.float32)[labels.astype(np.int64)]
