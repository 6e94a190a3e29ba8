"""Reading stored preprocessing back: each field of an untrusted JSON object is checked before it is used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["Fields"]


class Fields:
    """The fields of a JSON object, taken one by one with a check; ``done`` refuses those nobody asked for.

    Args:
        config: the object; anything but a dict is a ValueError.
        where: what it describes, the beginning of each error message.

    Example:
        >>> fields = Fields({"scale": 2}, "preprocessing")
        >>> fields.number("scale", positive=True)
        2.0
        >>> fields.text("name")
        Traceback (most recent call last):
        ValueError: preprocessing: name must be a string. Received: nothing
    """

    def __init__(self, config: Any, where: str) -> None:
        self.where = where
        self._config: dict[str, Any] = config if isinstance(config, dict) else {}
        if self._config is not config:
            raise ValueError(f"{where} must be an object. Received: {_short(config)}")
        self._taken: set[str] = set()

    def text(self, key: str, choices: Sequence[str] | None = None) -> str:
        """A string, one of ``choices`` if they are given."""
        value = self._take(key)
        self.demand(isinstance(value, str), key, "must be a string")
        self.demand(choices is None or value in choices, key, f"must be one of {', '.join(choices or ())}")
        return str(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of different strings."""
        value = self._take(key)
        right = isinstance(value, list) and all(isinstance(item, str) for item in value)
        self.demand(right, key, "must be a list of strings")
        self.demand(len(set(value)) == len(value), key, "must not hold a string twice")
        return tuple(value)

    def number(self, key: str, positive: bool = False) -> float:
        """A finite number, above zero if ``positive``."""
        number = _number(self._take(key))
        self.demand(math.isfinite(number), key, "must be a finite number")
        self.demand(number > 0 or not positive, key, "must be above zero")
        return number

    def numbers(self, key: str, count: int, positive: bool = False) -> tuple[float, ...]:
        """A list of so many finite numbers, above zero if ``positive``."""
        value = self._take(key)
        self.demand(isinstance(value, list) and len(value) == count, key, f"must be a list of length {count}")
        numbers = tuple(_number(item) for item in value)
        self.demand(all(math.isfinite(number) for number in numbers), key, "must hold finite numbers")
        self.demand(not positive or min(numbers) > 0, key, "must hold numbers above zero")
        return numbers

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._take(key)
        self.demand(isinstance(value, bool), key, "must be true or false")
        return bool(value)

    def items(self, key: str) -> list[Any]:
        """A list that is not empty."""
        value = self._take(key)
        self.demand(isinstance(value, list) and bool(value), key, "must be a list that is not empty")
        return list(value)

    def done(self) -> None:
        """Refuse fields that were not taken."""
        rest = [key for key in self._config if key not in self._taken]
        if rest:
            raise ValueError(f"{self.where}: unknown field {_short(rest[0])}")

    def demand(self, right: bool, key: str, rule: str) -> None:
        """ValueError naming the field, the rule and the value unless ``right``."""
        if not right:
            received = _short(self._config[key]) if key in self._config else "nothing"
            raise ValueError(f"{self.where}: {key} {rule}. Received: {received}")

    def _take(self, key: str) -> Any:
        self._taken.add(key)
        return self._config.get(key)


def _number(value: Any) -> float:
    """NaN for what is no number, infinity for what is too large for one."""
    try:
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.inf


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
