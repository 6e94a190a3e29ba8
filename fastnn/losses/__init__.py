"""Losses. Each gives one value a row; the loss of a batch is their mean, weighted rows counted with their weight.

For images, (N, ..., C) with spatial axes between, the value of a row is the mean over its pixels, or, for losses that
compare regions, such as Dice, one value of the whole.
"""

from __future__ import annotations

from typing import Any

from fastnn.configurable import choose, table
from fastnn.losses.base import Loss, Sum
from fastnn.losses.focal import BinaryFocalCrossentropy, CategoricalFocalCrossentropy
from fastnn.losses.overlap import Dice, Jaccard, Tversky
from fastnn.losses.rowwise import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    MeanAbsoluteError,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)

__all__ = [
    "LOSSES",
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "Dice",
    "Jaccard",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "Sum",
    "Tversky",
    "get",
]

LOSSES = table(
    [
        MeanSquaredError,
        MeanAbsoluteError,
        BinaryCrossentropy,
        CategoricalCrossentropy,
        SparseCategoricalCrossentropy,
        BinaryFocalCrossentropy,
        CategoricalFocalCrossentropy,
        Dice,
        Jaccard,
        Tversky,
        Sum,
    ]
)
_NAMES = {
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "binary_crossentropy": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "binary_focal_crossentropy": BinaryFocalCrossentropy,
    "categorical_focal_crossentropy": CategoricalFocalCrossentropy,
    "dice": Dice,
    "jaccard": Jaccard,
    "tversky": Tversky,
}


def get(value: Any) -> Loss:
    """The loss with that name, or the object itself."""
    chosen: Loss = choose(value, _NAMES, Loss, "loss")
    return chosen
