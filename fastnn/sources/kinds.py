"""The kinds of data that are not arrays in memory, and how each is read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastnn.configurable import whole
from fastnn.data import as_numbers
from fastnn.sources.dataset import PyDataset
from fastnn.sources.intake import Intake, Parts, Slot, batch_arrays

Take = Callable[[str, Any], Parts]
Said = Callable[[str], str]

ENDLESS = (itertools.count, itertools.cycle, itertools.repeat)


class Stopped(Exception):
    """Nobody wants what is being loaded any more."""


class Source:
    """Something that rows come from.

    Attributes:
        workers: threads that load, unless it is said otherwise
    """

    workers = 1

    def first(self, what: str, take: Take, said: Said) -> dict[str, np.ndarray]:
        """The parts of the first item with a batch axis in front, as arrays of numbers. See ``Wanted``."""
        raise NotImplementedError

    def epoch_begin(self) -> None:
        """Called before each epoch of training."""

    def epoch_end(self) -> None:
        """Called after each epoch of training."""


class Rows(Source):
    """Rows that can be read in any order, by their number.

    Attributes:
        count: how many
        bulk: whether many rows are read at once in less time than one by one
    """

    count: int
    bulk = False

    def read(
        self, what: str, numbers: np.ndarray, slot: Slot, start: int, intake: Intake, stopped: Callable[[], bool]
    ) -> None:
        """Write the rows with these numbers into the slot, from its row ``start`` on."""
        raise NotImplementedError

    def label(self, what: str, number: int) -> str:
        """What a row is called in errors."""
        raise NotImplementedError


class ArrayRows(Rows):
    """Rows of arrays of which not all are in memory: read in slices, never whole.

    Args:
        arrays: by name, with the same number of rows
        said: what users call them
    """

    bulk = True

    def __init__(self, arrays: dict[str, Any], said: Said) -> None:
        self.arrays, self._said = arrays, said
        self.count = int(arrays["x"].shape[0])

    def first(self, what: str, take: Take, said: Said) -> dict[str, np.ndarray]:
        return {name: self._slice(what, name, 0, 1) for name in self.arrays}

    def read(
        self, what: str, numbers: np.ndarray, slot: Slot, start: int, intake: Intake, stopped: Callable[[], bool]
    ) -> None:
        for name, array in self.arrays.items():
            if f"given {name}" not in slot:
                continue
            place = slot[f"given {name}"][start : start + len(numbers)]
            with np.errstate(over="ignore"):
                if isinstance(array, np.ndarray):
                    _gather(array, numbers, place)
                else:
                    self._spans(what, name, numbers, place, stopped)

    def _spans(self, what: str, name: str, numbers: np.ndarray, place: np.ndarray, stopped: Callable[[], bool]) -> None:
        """Read slices, each of neighbouring rows or of rows in one stored chunk, in the order in which they lie."""
        order = np.argsort(numbers, kind="stable")
        rows = numbers[order]
        chunks = getattr(self.arrays[name], "chunks", None)
        group = rows // (chunks[0] if isinstance(chunks, tuple) and chunks and isinstance(chunks[0], int) else 1)
        apart = (np.diff(rows) != 1) & (np.diff(group) != 0)
        edges = [0, *(np.flatnonzero(apart) + 1).tolist(), len(rows)]
        for start, stop in itertools.pairwise(edges):
            at = start
            while at < stop:  # never more rows at once than are asked for
                end = int(np.searchsorted(rows[:stop], rows[at] + len(rows), "left"))
                if stopped():
                    raise Stopped
                low = int(rows[at])
                place[order[at:end]] = self._slice(what, name, low, int(rows[end - 1]) + 1)[rows[at:end] - low]
                at = end

    def _slice(self, what: str, name: str, low: int, high: int) -> Any:
        array, name = self.arrays[name], self._said(name)
        try:
            part = np.asarray(array[low:high])
        except Exception as error:
            raise _unread(f"{what}: rows {low} to {high - 1} of {name}", error) from error
        if part.shape != (high - low, *array.shape[1:]) or part.dtype.kind not in "fiub":
            raise ValueError(
                f"{what}: {name}[{low}:{high}] must be an array of shape {(high - low, *array.shape[1:])}. "
                f"Received: {part.dtype} of shape {part.shape}"
            )
        return part

    def label(self, what: str, number: int) -> str:
        return f"{what}: row {number}"


def _gather(array: np.ndarray, numbers: np.ndarray, place: np.ndarray) -> None:
    """Some rows of an array in memory or a memory map."""
    low = int(numbers[0])
    if numbers[-1] - low == len(numbers) - 1 and (np.diff(numbers) == 1).all():
        place[...] = array[low : low + len(numbers)]
    elif array.dtype == place.dtype and array.flags.c_contiguous and array.flags.aligned:
        np.take(array, numbers, axis=0, out=place, mode="clip")
    else:
        place[...] = array[numbers]


class DatasetRows(Rows):
    """The samples of an object with ``__len__`` and ``__getitem__``."""

    def __init__(self, what: str, data: Any) -> None:
        self.data = data
        self.count = _length(what, data, "one sample")
        self.workers = whole(type(data).__name__, "workers", getattr(data, "workers", 1), low=0)

    def first(self, what: str, take: Take, said: Said) -> dict[str, np.ndarray]:
        label = self.label(what, 0)
        parts = take(label, _load(self.data, label, 0))
        return {name: as_numbers(label, said(name), np.asarray(value)[None]) for name, value in parts.items()}

    def read(
        self, what: str, numbers: np.ndarray, slot: Slot, start: int, intake: Intake, stopped: Callable[[], bool]
    ) -> None:
        data, number = self.data, 0

        def label() -> str:
            return self.label(what, number)

        for row, number in enumerate(numbers.tolist(), start):
            try:
                item = data[number]
            except Exception as error:
                raise _unread(label(), error) from error
            if stopped():
                raise Stopped
            intake.put_item(slot, row, label, item)

    def label(self, what: str, number: int) -> str:
        return f"{what}: item {number}"


class Batches(Source):
    """The batches of a ``PyDataset``.

    Attributes:
        count: how many
    """

    def __init__(self, what: str, data: PyDataset) -> None:
        self.data = data
        self.count: int | None = _length(what, data, "one batch")
        self.workers = whole(type(data).__name__, "workers", data.workers, low=0)

    def first(self, what: str, take: Take, said: Said) -> dict[str, np.ndarray]:
        label = f"{what}: batch 0"
        return batch_arrays(label, take(label, _load(self.data, label, 0)), said)

    def start(self, order: np.ndarray | None, limit: int | None) -> Callable[[str, int], Any]:
        """A function of label and ticket that loads the batches in this order."""
        return lambda label, ticket: _load(self.data, label, ticket if order is None else int(order[ticket]))

    def epoch_begin(self) -> None:
        self.data.on_epoch_begin()

    def epoch_end(self) -> None:
        self.data.on_epoch_end()


class Stream(Batches):
    """The batches of a generator or of anything else that can be iterated over.

    Attributes:
        count: how many, if it says so, or None
        once: whether it can be gone through once only
        endless: whether it is known to have no end
    """

    END = object()

    def __init__(self, what: str, data: Any) -> None:
        self.iterable = data
        self._ahead: tuple[Iterator[Any], Any] | None = None
        iterator = self._iter(what)
        self.once = iterator is data
        self.endless = isinstance(data, ENDLESS)
        try:
            self.count = None if self.once else len(data)
        except TypeError:
            self.count = None
        self._iterator = iterator

    def _iter(self, what: str) -> Iterator[Any]:
        try:
            return iter(self.iterable)
        except Exception as error:
            raise _unread(f"{what}: x", error) from error

    def first(self, what: str, take: Take, said: Said) -> dict[str, np.ndarray]:
        label = f"{what}: batch 0"
        item = self._next(self._iterator, label)
        if item is self.END:
            raise ValueError(f"{what}: {type(self.iterable).__name__} must yield at least one batch. Received: none")
        self._ahead = self._iterator, item
        return batch_arrays(label, take(label, item), said)

    def start(self, order: np.ndarray | None, limit: int | None) -> Callable[[str, int], Any]:
        ahead, self._ahead = self._ahead, None
        iterator, item = ahead if ahead is not None else (iter(self.iterable), self.END)

        def load(label: str, ticket: int) -> Any:
            if ticket == 0 and item is not self.END:
                return item
            return self._next(iterator, label)

        return load

    def _next(self, iterator: Iterator[Any], label: str) -> Any:
        try:
            return next(iterator, self.END)
        except Exception as error:
            raise _unread(label, error) from error

    def epoch_begin(self) -> None:
        """Nobody wants to know."""

    def epoch_end(self) -> None:
        """Nobody wants to know."""


def _unread(label: str, error: Exception) -> RuntimeError:
    return RuntimeError(f"{label} could not be read: {type(error).__name__}: {error}")


def _load(data: Any, label: str, number: int) -> Any:
    try:
        return data[number]
    except Exception as error:
        raise _unread(label, error) from error


def _length(what: str, data: Any, least: str) -> int:
    kind = type(data).__name__
    try:
        count = len(data)
    except Exception as error:
        raise ValueError(f"{what}: x must have a length. Received: a {kind}, {error}") from error
    if not count:
        raise ValueError(f"{what}: x must have at least {least}. Received: a {kind} of length 0")
    return count
