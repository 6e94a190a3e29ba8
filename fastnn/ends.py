"""The ends of a model: how data are passed to its inputs and outputs, and what the arrays of each are called.

A *form* is how several things are passed: one alone (None), in a list (LIST), or in a dict (its keys).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastnn.graph import Shape

LIST = "list"
Form = None | str | tuple[str, ...]

#: What the engine calls the arrays of the first input or output -> what users call them.
KINDS = {"x": "x", "y": "y", "weight": "sample_weight"}


def flatten(given: Any) -> tuple[list[Any], Form]:
    """What is passed alone, in a list or in a dict, one after the other; and the form.

    >>> flatten({"age": 1, "image": 2})
    ([1, 2], ('age', 'image'))
    """
    if isinstance(given, Mapping):
        return list(given.values()), tuple(given)
    if isinstance(given, list | tuple):
        return list(given), LIST
    return [given], None


def in_form(form: Form, values: Sequence[Any]) -> Any:
    """The values as the form says.

    >>> in_form(None, [1]), in_form(LIST, [1, 2]), in_form(("age", "image"), [1, 2])
    (1, [1, 2], {'age': 1, 'image': 2})
    """
    if form is None:
        return values[0]
    return list(values) if form == LIST else dict(zip(form, values, strict=True))


def buffer_name(kind: str, number: int) -> str:
    """What the engine calls the array of an input or output.

    >>> buffer_name("x", 0), buffer_name("x", 1)
    ('x', 'x1')
    """
    return f"{kind}{number or ''}"


class Side:
    """All inputs of a model, or all its outputs.

    Args:
        form: how they are passed
        names: what each is called: the key of a dict, or the name of the layer that makes it
        shapes: (None, ...) each
    """

    def __init__(self, form: Form = None, names: Sequence[str] = ("",), shapes: Sequence[Shape] = ()) -> None:
        self.form, self.shapes = form, list(shapes)
        self.names: list[str] = []
        for name in names:
            distinct, number = name, 0
            while distinct in self.names:  # a shared layer makes several
                number += 1
                distinct = f"{name}_{number}"
            self.names.append(distinct)

    def __len__(self) -> int:
        return len(self.names)

    def buffers(self, kind: str) -> list[str]:
        """What the engine calls the arrays."""
        return [buffer_name(kind, number) for number in range(len(self))]

    def said(self, kind: str, number: int) -> str:
        """What an argument is called in errors: ``y``, or ``y['mask']`` where there are several."""
        return kind if self.form is None else f"{kind}[{self.names[number]!r}]"

    def split(self, what: str, kind: str, given: Any, *, some: bool = False) -> list[Any]:
        """One value for each, of a list in order or a dict by name; None for what is missing, if only ``some`` need be
        there.

        Raises:
            ValueError: there are others, or too few
        """
        if self.form is None and not (isinstance(given, Mapping) and list(given) == self.names):
            return [given]
        if isinstance(given, Mapping):
            unknown = [key for key in given if key not in self.names]
            missing = [name for name in self.names if name not in given]
            if unknown or (missing and not some):
                keys = ", ".join(map(str, given)) or "none"
                raise ValueError(f"{what}: {kind} must have the keys {', '.join(self.names)}. Received: {keys}")
            return [given.get(name) for name in self.names]
        if isinstance(given, list | tuple) and len(given) == len(self):
            return list(given)
        if len(self) == 1 and not isinstance(given, list | tuple):
            return [given]
        count = f" of {len(given)}" if isinstance(given, list | tuple) else ""
        raise ValueError(
            f"{what}: {kind} must be a list of {len(self)}, or a dict with the keys {', '.join(self.names)}. "
            f"Received: {type(given).__name__}{count}"
        )

    def join(self, values: Sequence[Any]) -> Any:
        """The values in the form in which they are passed."""
        return in_form(self.form, values)
