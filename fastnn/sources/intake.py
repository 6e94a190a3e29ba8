"""From what a source gives to rows in the slots of a ring: taken apart, checked, converted, written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastnn.data import all_finite, as_numbers, check_rows, check_weights, joined_weights

Slot = dict[str, np.ndarray]
#: What belongs to each input, target and weight: "x", "y", "weight", and "x1" ... where a model has several.
Parts = dict[str, Any]

NAMES = ("x", "y", "weight")
ROW = re.compile(r"\[0(, |\])")  # in errors about a single row: its number, which is said otherwise


def unpack(label: str, item: Any, *, targets: bool, inputs: int = 1) -> tuple[Any, Any, Any]:
    """``(x, y, sample_weight)`` of an item or a batch, with None for what it does not have or what is not asked for.

    This is the only place that knows how items are put together. ``x`` alone may be a list, one entry for each of
    several ``inputs``.

    Raises:
        ValueError: it is nothing of the kind
    """
    if isinstance(item, list) and not targets and len(item) == inputs > 1:
        return item, None, None
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


class Wanted(NamedTuple):
    """What a model wants of an item.

    Attributes:
        take: the parts of an item; called with what it is called in errors, and the item
        said: what users call a part
        inputs: the shape (None, ...) of each input
        targets: for each target a function that checks arrays (N, ...) and gives them the shape that the loss takes
        classes: for each target the weights of its classes, as ``fit`` takes them
        regions: for each target whether its loss is one of regions
        dtype: of the model
        plain: whether there is one input and one target, and items are used as they are: (x, y) or (x, y, weight)
    """

    take: Callable[[str, Any], Parts]
    said: Callable[[str], str]
    inputs: Mapping[str, tuple[int | None, ...]]
    targets: Mapping[str, Callable[[np.ndarray], np.ndarray]]
    classes: Mapping[str, Mapping[Any, float] | None]
    regions: Mapping[str, bool]
    dtype: str
    plain: bool


def weight_of(target: str) -> str:
    """The part with the weights of a target.

    >>> weight_of("y"), weight_of("y1")
    ('weight', 'weight1')
    """
    return f"weight{target[1:]}"


class Intake:
    """What the rows of a source must be like, and how they are written into slots.

    Args:
        what: who asks, for errors
        first: the parts of the first item with a batch axis in front
        wanted: by the model

    Attributes:
        dtype: of the model
        shapes: the shape of a row in each array of a ring: inputs, targets, weights if there are any, and "given ..."
            for what the source has, where that needs a place of its own
    """

    def __init__(self, what: str, first: Mapping[str, np.ndarray], wanted: Wanted) -> None:
        self.what, self.wanted, self.dtype = what, wanted, wanted.dtype
        self.given = {name: array.shape[1:] for name, array in first.items()}  # the rows as the source has them
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._classes: dict[str, Any] = {}
        for name, shape in wanted.inputs.items():
            self.shapes[name] = check_rows(what, first[name][:1], shape, wanted.said(name)).shape[1:]
        for name, check in wanted.targets.items():
            weight = weight_of(name)
            given = first[weight][:1] if weight in first else None
            given, self._classes[name] = check_weights(what, 1, given, wanted.classes[name], self.dtype)
            row = check(first[name][:1].astype(self.dtype))
            self.shapes[f"given {name}"], self.shapes[name] = first[name].shape[1:], row.shape[1:]
            joined = joined_weights(what, row, given, self._classes[name], "N", regions=wanted.regions[name])
            if joined is not None:
                self.shapes[weight] = joined.shape[1:]
                if given is not None and given.size != joined.size:  # weights of rows, which become those of pixels
                    self.shapes[f"given {weight}"] = given.shape[1:]

    def slot(self, arrays: Mapping[str, np.ndarray]) -> Slot:
        """These arrays, and as ``given ...`` what a source writes to, with rows of the shape that it has them in."""
        slot = dict(arrays)
        for name, shape in self.given.items():
            if f"given {name}" not in slot:
                slot[f"given {name}"] = arrays[name].reshape(len(arrays[name]), *shape)
        return slot

    def parts(self, label: str, item: Any) -> Parts:
        """Those of an item, all there that must be there."""
        parts = self.wanted.take(label, item)
        for name in dict.fromkeys([*self.given, *parts]):
            if (name in parts) is not (name in self.given):
                rule = "must" if name in self.given else "must not"
                said = self.wanted.said(name)
                raise ValueError(f"{label} {rule} have a {said}, as the first one. Received: {type(item).__name__}")
        return parts

    def put_item(self, slot: Slot, row: int, label: Callable[[], str], item: Any) -> None:
        """Write one sample; ``label()`` names it for errors."""
        if self.wanted.plain and type(item) is tuple and len(item) == len(self.given) and item[-1] is not None:
            named: Iterable[tuple[str, Any]] = zip(NAMES, item, strict=False)
        else:
            named = self.parts(label(), item).items()
        for name, value in named:
            place = slot[f"given {name}"]
            if type(value) is np.ndarray and value.dtype is place.dtype and value.shape == self.given[name]:
                place[row] = value
            else:
                array = self._array(label, name, value)
                with np.errstate(over="ignore"):
                    place[row] = array

    def batch(self, label: str, item: Any) -> dict[str, np.ndarray]:
        """The parts of a batch as arrays whose rows are as long and as many as they must be."""
        parts = batch_arrays(label, self.parts(label, item), self.wanted.said)
        for name, array in parts.items():
            if array.shape[1:] != self.given[name]:
                self._refuse(label, name, array.shape, ("N", *self.given[name]))
            if len(array) != len(parts["x"]):
                said = self.wanted.said
                raise ValueError(
                    f"{label}: {said('x')} and {said(name)} must have the same number of rows. "
                    f"Received: {len(parts['x'])} and {len(array)}"
                )
        return parts

    def put_rows(self, slot: Slot, start: int, parts: Mapping[str, np.ndarray], rows: slice) -> None:
        """Write some rows of a batch into the slot from row ``start`` on."""
        for name, array in parts.items():
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
        for name in self.wanted.inputs:
            self._finite(name, slot[f"given {name}"][rows])
        for name, check in self.wanted.targets.items():
            weight, given = weight_of(name), slot[f"given {name}"][rows]
            self._finite(name, given)
            y = check(given)
            slot[name][rows] = y
            if weight in self.shapes:
                weights = slot[f"given {weight}"][rows] if weight in self.given else None
                weights, _ = check_weights("", len(y), weights, None, self.dtype)
                joined = joined_weights("", y, weights, self._classes[name], regions=self.wanted.regions[name])
                slot[weight][rows] = joined  # last: it may be where they are given

    def _finite(self, name: str, rows: np.ndarray) -> None:
        if rows.size and not all_finite(rows):
            position = tuple(np.argwhere(~np.isfinite(rows))[0].tolist())
            place = ", ".join(map(str, position))
            said = self.wanted.said(name)
            raise ValueError(f"{said} must be finite in {self.dtype}. Received: {said}[{place}] = {rows[position]}")

    def _array(self, label: Callable[[], str], name: str, value: Any) -> np.ndarray:
        """What is written of a sample, if it is like the first one."""
        said = self.wanted.said(name)
        if np.ma.is_masked(value):
            raise ValueError(f"{label()}: {said} must not have masked values. Received: a masked array")
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{label()}: {said} must be an array of numbers; {error}") from None
        if array.dtype.kind not in "fiub":
            array = as_numbers(label(), said, array[None])[0]
        if array.shape != self.given[name]:
            self._refuse(label(), name, array.shape, self.given[name])
        return array

    def _refuse(self, label: str, name: str, shape: tuple[int, ...], wanted: tuple[Any, ...]) -> None:
        rule, said = str(wanted).replace("'N'", "N"), self.wanted.said(name)
        raise ValueError(f"{label}: {said} must have shape {rule}, as in the first one. Received: shape {shape}")


def batch_arrays(label: str, parts: Parts, said: Callable[[str], str]) -> dict[str, np.ndarray]:
    """The parts of a batch as arrays of numbers; weights of rows (N,)."""
    arrays = {name: as_numbers(label, said(name), value) for name, value in parts.items()}
    for name, array in arrays.items():
        if name.startswith("weight") and array.ndim == 2 and array.shape[1] == 1:
            arrays[name] = array[:, 0]
    return arrays
