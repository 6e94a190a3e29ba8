"""What kind of data somebody has given."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastnn.data import as_rows
from fastnn.sources.dataset import Dataset, PyDataset
from fastnn.sources.intake import Parts
from fastnn.sources.kinds import ArrayRows, Batches, DatasetRows, Source, Stream

#: What is seen at a glance to be no source.
IN_MEMORY = (np.ndarray, type(None))
#: A list of more entries is not looked through for arrays that are not in memory: no model has so many inputs.
MANY = 64


def is_array_like(data: Any) -> bool:
    """Whether it is an array that is read in slices.

    That is a memory map, or an object with shape, dtype and slicing that does not have its numbers in memory as
    NumPy's, Torch's and Pandas's have.
    """
    if isinstance(data, np.ndarray):
        return isinstance(data, np.memmap)
    if any(hasattr(data, name) for name in ("iloc", "__array_interface__", "__dlpack__")):
        return False
    if isinstance(data, Dataset | PyDataset) or not all(hasattr(data, n) for n in ("shape", "dtype", "__getitem__")):
        return False
    try:
        np.dtype(data.dtype)
        # the shape of a data set may be that of its samples
        return isinstance(data.shape, tuple) and (not hasattr(data, "__len__") or len(data) == (*data.shape, 0)[0])
    except TypeError:
        return False


def holds_array_like(*given: Any) -> bool:
    """Whether one of these is an array that is read in slices, or a list or dict that has such."""
    return any(is_array_like(each) for value in given if type(value) not in IN_MEMORY for each in _each(value))


def open_source(what: str, x: Any, y: Any = None, sample_weight: Any = None) -> Source | None:
    """The source that data are, or None if they are arrays, or become such.

    ``x``, ``y`` and ``sample_weight`` are as ``fit`` takes them.

    Raises:
        ValueError: they are a source that cannot be used so
    """
    if type(x) in IN_MEMORY:
        return None
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


def _each(given: Any) -> Iterable[Any]:
    """What is in a short list or a dict, or that which is given itself."""
    if isinstance(given, abc.Mapping):
        return given.values()
    return given if isinstance(given, list | tuple) and len(given) <= MANY else (given,)


def array_rows(what: str, given: Parts, said: Callable[[str], str], dtype: str) -> ArrayRows:
    """Arrays of which some are read in slices.

    Args:
        what: who asks, for errors
        given: the parts
        said: what users call a part
        dtype: of the model

    Raises:
        ValueError: they are not alike, or no numbers
    """
    arrays: dict[str, Any] = {}
    for name, data in given.items():
        called, array = said(name), data
        if is_array_like(data):
            kind = np.dtype(data.dtype).kind
            if kind not in "fiub":
                raise ValueError(f"{what}: {called} must hold numbers only. Received: dtype {data.dtype}")
            if not data.shape or data.shape[0] == 0:
                raise ValueError(f"{what}: {called} must have at least one row. Received: shape {data.shape}")
        else:
            array = as_rows(what, called, data, dtype)
        rows = array.shape[0] if not arrays else arrays["x"].shape[0]
        if name.startswith("weight"):
            if array.shape[0] != rows:
                raise ValueError(f"{what}: {called} must have shape ({rows},). Received: shape {array.shape}")
        elif array.shape[0] != rows:
            raise ValueError(
                f"{what}: {said('x')} and {called} must have the same number of rows. "
                f"Received: {rows} and {array.shape[0]}"
            )
        arrays[name] = array
    return ArrayRows(arrays, said)
