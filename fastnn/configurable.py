"""Objects that are described by the arguments of their constructor.

A constructor stores each argument under its own name; everything else follows from its signature: ``get_config``,
``from_config``, ``repr``. A description is data: ``{"class": name, "config": {argument: value}}``, and is read back
through a closed table of the classes that it may name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self


class Configurable:
    """Base of layers, losses, metrics, optimizers, initializers, regularizers and schedules."""

    #: For each argument that takes such an object: the table of the classes it may be. Filled in by the classes.
    parts: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def arguments(cls) -> list[str]:
        """Names of the constructor's arguments."""
        parameters = _signature(cls)
        return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON-able data."""
        return {name: describe(getattr(self, name)) for name in self.arguments()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The object that ``get_config`` described.

        Raises:
            ValueError: a name is not an argument, or a value is not allowed
        """
        if not isinstance(config, Mapping):
            raise ValueError(f"{cls.__name__}: config must be a mapping. Received: {config!r}")
        unknown = set(config) - set(cls.arguments())
        if unknown:
            raise ValueError(f"{cls.__name__}: has no arguments named {', '.join(sorted(map(str, unknown)))}")
        values = {name: cls._read(name, value) for name, value in config.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"{cls.__name__}: cannot be made from {config!r} ({error})") from None

    @classmethod
    def _read(cls, name: str, value: Any) -> Any:
        if isinstance(value, Mapping) and name in cls.parts:
            return restore(value, cls.parts[name](), name)
        if isinstance(value, list | tuple) and name in cls.parts:
            return [restore(v, cls.parts[name](), name) for v in value]
        return tuple(value) if isinstance(value, list) else value

    def __repr__(self) -> str:
        config = self.get_config()
        defaults = {p.name: p.default for p in _signature(type(self))}
        shown = [f"{k}={v!r}" for k, v in config.items() if v != describe(defaults.get(k))]
        return f"{type(self).__name__}({', '.join(shown)})"


def _signature(cls: type[Any]) -> list[Any]:
    """The parameters of the constructor; with those of the class above if it hands on what it does not know."""
    import inspect  # here: it takes as long to import as all of this package

    own = list(inspect.signature(cls).parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in own):
        above = next(each for each in cls.__mro__ if "__init__" in vars(each)).__mro__[1:2]
        known = {p.name for p in own}
        own += [p for each in above if each is not object for p in _signature(each) if p.name not in known]
    return own


def describe(value: Any) -> Any:
    """``value`` as JSON-able data."""
    if isinstance(value, Configurable):
        return {"class": type(value).__name__, "config": value.get_config()}
    if isinstance(value, list | tuple):
        return [describe(v) for v in value]
    return value


def restore(description: Any, table: Mapping[str, type[Any]], what: str) -> Any:
    """The object behind a description; its class must be in ``table``."""
    if not isinstance(description, Mapping) or set(description) != {"class", "config"}:
        raise ValueError(f"{what}: must be described by its class and config. Received: {description!r}")
    name = description["class"]
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"{what}: the class must be one of {', '.join(table)}. Received: {name!r}")
    return table[name].from_config(description["config"])


def table(classes: Iterable[type[Any]]) -> dict[str, type[Any]]:
    """A closed table of classes by name."""
    return {cls.__name__: cls for cls in classes}


def choose(value: Any, names: Mapping[str, Any], base: type[Any], what: str) -> Any:
    """The object for an argument that takes a name or an object.

    ``names`` maps each name to a class or to a function without arguments that makes the object.
    """
    if isinstance(value, base):
        return value
    if isinstance(value, type) and issubclass(value, base):
        return value()
    if isinstance(value, str):  # "binary_crossentropy" or "BinaryCrossentropy"
        for name, make in names.items():
            if value.lower().replace("_", "") == name.replace("_", ""):
                return make()
    known = ", ".join(repr(name) for name in names)
    article = "an" if base.__name__[0] in "AEIOU" else "a"
    raise ValueError(f"{what}: must be {article} {base.__name__} or one of {known}. Received: {value!r}")


def number(what: str, name: str, value: Any, *, low: float | None = None, high: float | None = None,
           above: float | None = None, below: float | None = None) -> float:  # fmt: skip
    """``value`` as a float, checked: ``low <= value <= high``, ``above < value < below``, and finite."""
    bounds = [(">=", low), ("<=", high), (">", above), ("<", below)]
    rule = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None) or "finite"
    ok = isinstance(value, int | float) or (hasattr(value, "__float__") and getattr(value, "shape", None) == ())
    if ok and not isinstance(value, bool):
        x = float(value)
        if (
            x - x == 0.0
            and (low is None or x >= low)
            and (high is None or x <= high)
            and (above is None or x > above)
            and (below is None or x < below)
        ):
            return x
    raise ValueError(f"{what}: {name} must be a number {rule}. Received: {name}={value!r}")


def whole(what: str, name: str, value: Any, *, low: int = 1) -> int:
    """``value`` as an int, checked: ``value >= low``."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < low:
        rule = {0: "a non-negative integer", 1: "a positive integer"}.get(low, f"an integer >= {low}")
        raise ValueError(f"{what}: {name} must be {rule}. Received: {name}={value!r}")
    return int(value.__index__())
