"""What metrics are: a number made of sums over the rows, which the engine keeps, or of all predictions of an epoch."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnn.configurable import Configurable
from fastnn.ops.declare import Op
from fastnn.ops.loss import pixel_means


class Metric(Configurable):
    """Base class. ``name`` is the key in ``History.history``. Called on arrays it gives the metric.

    >>> from fastnn.metrics import BinaryAccuracy
    >>> BinaryAccuracy()([1, 0, 1, 1], [0.9, 0.2, 0.4, 0.8])
    0.75
    """

    default_name: ClassVar[str] = ""

    def __init__(self, name: str | None = None) -> None:
        if name is not None and not isinstance(name, str):
            raise ValueError(f"{type(self).__name__}: name must be a text. Received: name={name!r:.80}")
        self.name = name or self.default_name

    def __call__(self, y_true: Any, y_pred: Any) -> float:
        p = np.asarray(y_pred, np.float64)
        y = np.asarray(y_true, np.float64)
        p = p[:, None] if p.ndim == 1 else p
        y = y[:, None] if y.ndim == 1 else y
        return self.compute(y, p)

    def compute(self, y: np.ndarray, p: np.ndarray) -> float:
        """The metric for targets ``y`` and predictions ``p``, both (N, ..., C) (labels are (N, ..., 1))."""
        raise NotImplementedError

    def check(self, y: np.ndarray, outputs: int | None) -> None:
        """Before anything runs: whether the metric can be had of targets ``y`` and so many outputs; else ValueError."""


class SummedMetric(Metric):
    """A metric that follows from sums over the rows, which the engine keeps in double precision."""

    def summands(self, y: Any, p: Any) -> Any:
        """What is summed: one or more numbers a row, (N,) or (N, ...)."""
        raise NotImplementedError

    def result(self, sums: np.ndarray, rows: int) -> float:
        """The metric, from the sums of ``summands`` over so many rows."""
        raise NotImplementedError

    def compute(self, y: np.ndarray, p: np.ndarray) -> float:
        return self.result(np.asarray(self.summands(y, p)).sum(axis=0, dtype=np.float64), len(p))


class RowMetric(SummedMetric):
    """The mean of one value a row or pixel, given by ``op(p, y)``."""

    op: ClassVar[Op]

    def rows(self, y: Any, p: Any) -> Any:
        """One value a row or pixel, (N, ...)."""
        return self.op(p, y)

    def summands(self, y: Any, p: Any) -> Any:
        return pixel_means(self.rows(y, p))

    def result(self, sums: np.ndarray, rows: int) -> float:
        return float(sums.sum()) / rows
