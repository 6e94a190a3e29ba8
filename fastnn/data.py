"""Arrays from what users have: checked, converted once, before anything is changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np


def as_numbers(what: str, name: str, data: Any) -> np.ndarray:
    """``data`` as an array of real numbers with a batch axis and at least one row, in the layout and type it has.

    Takes arrays, data frames, lists.

    Raises:
        ValueError: it holds no numbers, has no rows or no batch axis, is ragged or masked
    """
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ValueError(f"{what}: {name} must be an array of numbers; {error}") from None
    if array is not data and hasattr(data, "mask") and np.ma.is_masked(data):
        raise ValueError(f"{what}: {name} must not have masked values. Received: a masked array")
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{what}: {name} must hold numbers only. Received: {error}") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{what}: {name} must hold numbers only. Received: dtype {array.dtype}")
    if array.ndim == 0:
        raise ValueError(f"{what}: {name} must have rows. Received: the single value {array[()]!r}")
    if len(array) == 0:
        raise ValueError(f"{what}: {name} must have at least one row. Received: shape {array.shape}")
    return array


def as_rows(what: str, name: str, data: Any, dtype: str, *, finite: bool = True) -> np.ndarray:
    """``data`` as a C-contiguous array of ``dtype`` with a batch axis; from any real dtype, layout, byte order.

    Raises:
        ValueError: as ``as_numbers``, or (``finite``) it holds NaN or infinity
    """
    array = as_numbers(what, name, data)
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(array, dtype=dtype)
    if finite and array.dtype.kind == "f" and rows.size and not all_finite(rows):
        position = tuple(int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        place = ", ".join(map(str, position))
        raise ValueError(f"{what}: {name} must be finite in {dtype}. Received: {name}[{place}] = {array[position]}")
    return rows


def all_finite(rows: np.ndarray) -> bool:
    """Without an array of as many booleans: NaN comes through both."""
    return math.isfinite(rows.min()) and math.isfinite(rows.max())


def check_rows(what: str, x: np.ndarray, shape: tuple[int | None, ...], name: str = "x") -> np.ndarray:
    """``x`` if its rows fit the model's input; one axis of size 1 is added where only that is missing."""
    wanted = tuple(shape[1:])
    if (*x.shape[1:], 1) == wanted:
        x = x[..., None]
    if x.shape[1:] != wanted:
        rule = f"{what}: {name} must have shape {('N', *wanted)}".replace("'N'", "N")
        raise ValueError(f"{rule}. Received: shape {x.shape}")
    return x


def check_weights(
    what: str, rows: int, sample_weight: Any, class_weight: Mapping[Any, Any] | None, dtype: str
) -> tuple[np.ndarray | None, dict[float, float] | None]:
    """``sample_weight`` as an array, ``class_weight`` as a dict, each None if it is not given; their values checked."""
    given = None
    if sample_weight is not None:
        given = as_rows(what, "sample_weight", sample_weight, dtype)
        if len(given) != rows:
            raise ValueError(f"{what}: sample_weight must have shape ({rows},). Received: shape {given.shape}")
        if given.size and given.min() < 0:
            raise ValueError(f"{what}: sample_weight must not be negative. Received: {given.min()}")
    if class_weight is None:
        return given, None
    if not isinstance(class_weight, Mapping):
        raise ValueError(f"{what}: class_weight must map classes to weights. Received: class_weight={class_weight!r}")
    table: dict[float, float] = {}
    for key, value in class_weight.items():
        if not isinstance(key, Real) or not isinstance(value, Real) or not np.isfinite(float(value)) or value < 0:
            raise ValueError(
                f"{what}: class_weight must map numbers of classes to weights, finite and not negative. "
                f"Received: {{{key!r}: {value!r}}}"
            )
        table[float(key)] = float(value)
    return given, table


def joined_weights(
    what: str,
    y: np.ndarray,
    given: np.ndarray | None,
    table: Mapping[float, float] | None,
    count: int | str | None = None,
    *,
    regions: bool = False,
) -> np.ndarray | None:
    """The weight of each row, (N,), or of each pixel, (N, ...), or of both, (N, 1 + pixels); None if all weigh 1.

    Args:
        what: whose arguments they are
        y: targets (N, ..., C), or labels (N, ..., 1)
        given: weights of rows, (N,) or (N, 1), or of pixels, (N, ...) or (N, ..., 1)
        table: weights of classes
        count: what errors call the number of rows, if not by its name
        regions: whether the loss is one of regions, in whose sums of pixels the weight of a row would cancel: it has
            both then, that of the row first

    Raises:
        ValueError: the weights have another shape, or cannot be joined
    """
    rows, pixels = (len(y),), y.shape[:-1]
    if given is not None:
        if given.shape[-1] == 1 and given.shape[:-1] in (rows, pixels):
            given = given.reshape(given.shape[:-1])
        if given.shape not in (rows, pixels):
            shapes = [(len(y) if count is None else count, *shape[1:]) for shape in dict.fromkeys((rows, pixels))]
            rule = " or ".join(map(str, shapes)).replace("'", "")
            raise ValueError(f"{what}: sample_weight must have shape {rule}. Received: shape {given.shape}")
    if table is None:
        return given
    if regions and len(pixels) == 1 and y.shape[-1] > 1:
        raise ValueError(
            f"{what}: class_weight, with a loss of regions, must be for masks (N, ..., C) or (N, ..., 1). "
            f"Received: y of shape {y.shape}"
        )
    classes = y[..., 0] if y.shape[-1] == 1 else y.argmax(axis=-1)
    weights = np.ones(pixels, y.dtype)
    for number, weight in table.items():
        weights[classes == number] = weight
    if regions and given is not None and given.shape == rows != pixels:
        return np.concatenate([given[:, None], weights.reshape(len(y), -1)], axis=1)
    if given is not None:
        weights *= given.reshape(len(y), *given.shape[1:], *(1,) * (len(pixels) - given.ndim))
    return weights
