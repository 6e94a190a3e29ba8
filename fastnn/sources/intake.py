"""From what a source gives to rows in the slots of a ring: taken apart, checked, converted, written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastnn.data import all_finite, as_numbers, check_rows, check_weights, joined_weights

Slot = dict[str, np.ndarray]
Parts = tuple[Any, Any, Any]

NAMES = ("x", "y", "weight")
SAID = dict(zip(NAMES, ("x", "y", "sample_weight"), strict=True))  # in errors
GIVEN = {name: f"given {name}" for name in NAMES}  # in slots
ROW = re.compile(r"\[0(, |\])")  # in errors about a single row: its number, which is said otherwise


def unpack(label: str, item: Any, *, targets: bool) -> Parts:
    """``(x, y, sample_weight)`` of an item or a batch, with None for what it does not have or what is not asked for.

    This is the only place that knows how items are put together.

    Raises:
        ValueError: it is nothing of the kind
    """
    if isinstance(item, tuple | list):
        if 2 <= len(item) <= 3 and item[1] is not None:
            x, y, *rest = item
            return (x, y, rest[0] if rest else None) if targets else (x, None, None)
        if not targets and 1 <= len(item) <= 3:
            return item[0], None, None
        kind = f"a {type(item).__name__} of {len(item)}" + (", y being None" if 2 <= len(item) <= 3 else "")
    elif not targets:
        return item, None, None
    else:
        kind = type(item).__name__
    alone = "" if targets else " or x alone"
    raise ValueError(f"{label} must be (x, y) or (x, y, sample_weight){alone}. Received: {kind}")


class Intake:
    """What the rows of a source must be like, and how they are written into slots.

    Args:
        what: who asks, for errors
        first: the first item with a batch axis in front: x, y or None, sample_weight or None
        x_shape: (None, ...) that of the model's inputs
        dtype: of the model
        targets: a function that checks targets (N, ...) and gives them the shape that the loss takes; None without
        class_weight: as in ``fit``
        prepare: what is done to inputs before anything else

    Attributes:
        shapes: the shape of a row in each array of a ring: x, y, weight if there are weights, and "given ..." for what
            the source has, where that needs a place of its own
    """

    def __init__(
        self,
        what: str,
        first: Parts,
        x_shape: tuple[int | None, ...],
        dtype: str,
        targets: Callable[[np.ndarray], np.ndarray] | None = None,
        class_weight: Mapping[Any, float] | None = None,
        prepare: Callable[[Any], Any] | None = None,
    ) -> None:
        self.what, self.dtype, self.targets, self.prepare = what, dtype, targets, prepare
        x, y, weights = first
        self.given: dict[str, tuple[int, ...]] = {"x": x.shape[1:]}  # the rows as the source has them
        self.shapes: dict[str, tuple[int, ...]] = {"x": check_rows(what, x[:1], x_shape).shape[1:]}
        self._parts = 1 if targets is None else 2 + (weights is not None)
        self.asks_weight = weights is not None
        if targets is not None:
            weights = None if weights is None else weights[:1]
            given, self._classes = check_weights(what, 1, weights, class_weight, dtype)
            row = targets(y[:1].astype(dtype))
            self.given["y"] = self.shapes["given y"] = y.shape[1:]
            self.shapes["y"] = row.shape[1:]
            joined = joined_weights(what, row, given, self._classes, "N")
            if joined is not None:
                self.shapes["weight"] = joined.shape[1:]
            if given is not None and joined is not None:
                self.given["weight"] = given.shape[1:]
                if given.size != joined.size:  # weights of rows, which become those of pixels
                    self.shapes["given weight"] = given.shape[1:]

    def slot(self, arrays: Mapping[str, np.ndarray]) -> Slot:
        """These arrays, and as ``given ...`` what a source writes to, with rows of the shape that it has them in."""
        rows = len(arrays["x"])
        slot = dict(arrays)
        slot[GIVEN["x"]] = arrays["x"].reshape(rows, *self.given["x"])
        if "weight" in self.given and "given weight" not in slot:
            slot["given weight"] = arrays["weight"].reshape(rows, *self.given["weight"])
        return slot

    def parts(self, label: str, item: Any) -> Parts:
        """Those of an item, all there that must be there."""
        x, y, weight = unpack(label, item, targets=self.targets is not None)
        if self.targets is not None and (weight is not None) is not self.asks_weight:
            rule = "must" if self.asks_weight else "must not"
            raise ValueError(f"{label} {rule} have a sample_weight, as the first one. Received: {type(item).__name__}")
        return (x if self.prepare is None else self.prepare(x)), y, weight

    def put_item(self, slot: Slot, row: int, label: Callable[[], str], item: Any) -> None:
        """Write one sample; ``label()`` names it for errors."""
        if type(item) is not tuple or len(item) != self._parts or self.prepare is not None:
            item = self.parts(label(), item)
        for name, value in zip(NAMES, item, strict=False):
            if value is None:
                continue
            place = slot[GIVEN[name]]
            if type(value) is np.ndarray and value.dtype is place.dtype and value.shape == self.given[name]:
                place[row] = value
            else:
                array = self._array(label, name, value)
                with np.errstate(over="ignore"):
                    place[row] = array

    def batch(self, label: str, item: Any) -> Parts:
        """The parts of a batch as arrays whose rows are as long and as many as they must be."""
        x, y, weights = (
            None if value is None else as_numbers(label, name, value)
            for name, value in zip(SAID.values(), self.parts(label, item), strict=True)
        )
        assert x is not None
        if weights is not None and weights.ndim == 2 and weights.shape[1] == 1:
            weights = weights[:, 0]
        for name, array in zip(NAMES, (x, y, weights), strict=True):
            if array is None:
                continue
            if array.shape[1:] != self.given[name]:
                self._refuse(label, name, array.shape, ("N", *self.given[name]))
            if len(array) != len(x):
                raise ValueError(
                    f"{label}: x and {SAID[name]} must have the same number of rows. "
                    f"Received: {len(x)} and {len(array)}"
                )
        return x, y, weights

    def put_rows(self, slot: Slot, start: int, parts: Parts, rows: slice) -> None:
        """Write some rows of a batch into the slot from row ``start`` on."""
        for name, array in zip(NAMES, parts, strict=True):
            if array is not None:
                part = array[rows]
                with np.errstate(over="ignore"):
                    slot[f"given {name}"][start : start + len(part)] = part

    def finish(self, slot: Slot, start: int, stop: int, label: Callable[[int], str]) -> None:
        """Check rows ``start`` to ``stop - 1`` of a slot, and make of them what the program takes.

        ``label(row)`` names a row of the slot for errors.
        """
        if start == stop:
            return
        try:
            self._settle(slot, slice(start, stop))
        except ValueError:
            for row in range(start, stop):
                try:
                    self._settle(slot, slice(row, row + 1))
                except ValueError as error:
                    said = ROW.sub(lambda found: "" if found[1] == "]" else "[", str(error).removeprefix(": "), count=1)
                    raise ValueError(f"{label(row)}: {said}") from None
            raise

    def _settle(self, slot: Slot, rows: slice) -> None:
        self._finite("x", slot["given x"][rows])
        if self.targets is None:
            return
        given = slot["given y"][rows]
        self._finite("y", given)
        y = self.targets(given)
        slot["y"][rows] = y
        if "weight" in self.shapes:
            weights = slot["given weight"][rows] if self.asks_weight else None
            weights, _ = check_weights("", len(y), weights, None, self.dtype)
            slot["weight"][rows] = joined_weights("", y, weights, self._classes)  # last: it may be where they are given

    def _finite(self, name: str, rows: np.ndarray) -> None:
        if rows.size and not all_finite(rows):
            position = tuple(np.argwhere(~np.isfinite(rows))[0].tolist())
            place = ", ".join(map(str, position))
            raise ValueError(f"{name} must be finite in {self.dtype}. Received: {name}[{place}] = {rows[position]}")

    def _array(self, label: Callable[[], str], name: str, value: Any) -> np.ndarray:
        """What is written of a sample, if it is like the first one."""
        if np.ma.is_masked(value):
            raise ValueError(f"{label()}: {SAID[name]} must not have masked values. Received: a masked array")
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{label()}: {SAID[name]} must be an array of numbers; {error}") from None
        if array.dtype.kind not in "fiub":
            array = as_numbers(label(), SAID[name], array[None])[0]
        if array.shape != self.given[name]:
            self._refuse(label(), name, array.shape, self.given[name])
        return array

    def _refuse(self, label: str, name: str, shape: tuple[int, ...], wanted: tuple[Any, ...]) -> None:
        rule = str(wanted).replace("'N'", "N")
        raise ValueError(f"{label}: {SAID[name]} must have shape {rule}, as in the first one. Received: shape {shape}")
