"""Penalties on weights, added to the loss."""

from __future__ import annotations

from typing import Any

from fastnn.configurable import Configurable, choose, number, table
from fastnn.graph import Tensor
from fastnn.ops.pointwise import penalty


class Regularizer(Configurable):
    """``l1 * sum(|w|) + l2 * sum(w^2)``."""

    l1: float = 0.0
    l2: float = 0.0

    def __call__(self, weight: Tensor) -> Tensor:
        """The penalty (1,) of a weight."""
        return penalty(weight, l1=self.l1, l2=self.l2)  # type: ignore[no-any-return]


class L1(Regularizer):
    """``l1 * sum(|w|)``.

    Example:
        >>> L1(0.001)
        L1(l1=0.001)
    """

    def __init__(self, l1: float = 0.01) -> None:
        self.l1 = number("L1", "l1", l1, low=0)


class L2(Regularizer):
    """``l2 * sum(w^2)``.

    Example:
        >>> L2(0.001)
        L2(l2=0.001)
    """

    def __init__(self, l2: float = 0.01) -> None:
        self.l2 = number("L2", "l2", l2, low=0)


class L1L2(Regularizer):
    """``l1 * sum(|w|) + l2 * sum(w^2)``.

    >>> from fastnn.layers import Dense
    >>> Dense(4, kernel_regularizer=L1L2(l1=1e-5, l2=1e-4)).kernel_regularizer
    L1L2(l1=1e-05, l2=0.0001)
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = number("L1L2", "l1", l1, low=0)
        self.l2 = number("L1L2", "l2", l2, low=0)


REGULARIZERS = table([L1, L2, L1L2])
_NAMES = {"l1": L1, "l2": L2, "l1_l2": lambda: L1L2(0.01, 0.01), "l1l2": lambda: L1L2(0.01, 0.01)}

l1, l2, l1_l2 = L1, L2, L1L2


def get(value: Any, what: str = "regularizer") -> Regularizer | None:
    """The regularizer with that name, or the object itself; None stays None."""
    return None if value is None else choose(value, _NAMES, Regularizer, what)
