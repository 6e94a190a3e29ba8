"""What kind of data somebody has given."""

from __future__ import annotations

from collections import abc
from typing import Any

import numpy as np

from fastnn.data import as_rows
from fastnn.sources.dataset import Dataset, PyDataset
from fastnn.sources.kinds import ArrayRows, Batches, DatasetRows, Source, Stream

#: What is seen at a glance to be no source.
IN_MEMORY = (np.ndarray, list, type(None))


def is_array_like(data: Any) -> bool:
    """Whether it is an array that is read in slices.

    That is a memory map, or an object with shape, dtype, ndim and slicing that does not have its numbers in memory as
    NumPy's, Torch's and Pandas's have.
    """
    if isinstance(data, np.ndarray):
        return isinstance(data, np.memmap)
    if any(hasattr(data, name) for name in ("iloc", "__array_interface__", "__dlpack__")):
        return False
    if not all(hasattr(data, name) for name in ("shape", "dtype", "ndim", "__getitem__")):
        return False
    try:
        np.dtype(data.dtype)
    except TypeError:
        return False
    return isinstance(data.shape, tuple)


def open_source(
    what: str, x: Any, y: Any = None, sample_weight: Any = None, dtype: str = "float32", *, targets: bool = True
) -> Source | None:
    """The source that data are, or None if they are arrays in memory, or become such.

    ``x``, ``y`` and ``sample_weight`` are as ``fit`` takes them, ``dtype`` is the model's; without ``targets``, there
    need not be any.

    Raises:
        ValueError: they are a source that cannot be used so
    """
    if type(x) in IN_MEMORY and type(y) in IN_MEMORY and type(sample_weight) in IN_MEMORY:
        return None
    if is_array_like(x) or is_array_like(y) or is_array_like(sample_weight):
        return _array_rows(what, x, y, sample_weight, dtype, targets)
    if isinstance(x, np.ndarray | abc.Sequence | abc.Set | abc.Mapping | int | float) or x is None:
        return None
    if not isinstance(x, Dataset | PyDataset):
        if any(hasattr(x, name) for name in ("columns", "__array__", "__array_interface__", "__buffer__")):
            return None
        if not hasattr(x, "__getitem__") and not hasattr(x, "__iter__"):
            return None
        try:
            memoryview(x)
        except TypeError:
            pass
        else:
            return None
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            kind = type(x).__name__
            raise ValueError(
                f"{what}: {name} must not be given with a {kind}, which has it in its items: (x, y) or "
                f"(x, y, sample_weight). Received: {name} of type {type(value).__name__}"
            )
    if isinstance(x, PyDataset):
        return Batches(what, x)
    if isinstance(x, Dataset) or (hasattr(x, "__getitem__") and not isinstance(x, abc.Iterator)):
        return DatasetRows(what, x)
    return Stream(what, x)


def _array_rows(what: str, x: Any, y: Any, sample_weight: Any, dtype: str, targets: bool) -> ArrayRows:
    given = {"x": x, "y": y, "sample_weight": sample_weight}
    if targets and y is None:
        raise ValueError(f"{what}: y must be given. Received: y=None")
    arrays: dict[str, Any] = {}
    for name, data in given.items():
        if data is None:
            continue
        array = data
        if is_array_like(data):
            kind = np.dtype(data.dtype).kind
            if kind not in "fiub":
                raise ValueError(f"{what}: {name} must hold numbers only. Received: dtype {data.dtype}")
            if data.ndim == 0 or data.shape[0] == 0:
                raise ValueError(f"{what}: {name} must have at least one row. Received: shape {data.shape}")
        else:
            array = as_rows(what, name, data, dtype)
        rows = array.shape[0] if name == "x" else arrays["x"].shape[0]
        if name == "sample_weight":
            if array.shape[0] != rows:
                raise ValueError(f"{what}: {name} must have shape ({rows},). Received: shape {array.shape}")
        elif array.shape[0] != rows:
            raise ValueError(
                f"{what}: x and y must have the same number of rows. Received: {rows} and {array.shape[0]}"
            )
        arrays["weight" if name == "sample_weight" else name] = array
    return ArrayRows(arrays)
