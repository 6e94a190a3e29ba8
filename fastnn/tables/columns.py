"""The columns of a table: reading their values, and coding them as network inputs.

Values come from people's files, so each function here names the column, the row label and the value that it refuses.
pandas is used through the Series it is given; importing this module needs NumPy alone. N rows, C categories.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.jobs.stored import Fields
from fastnn.jobs.words import listed, near_misses, rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CategoryColumn", "Column", "NumberColumn"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """How values are read: texts that mean "missing", and what to do about missing values and unknown categories."""

    na_values: tuple[str, ...] = ()
    missing: str = "drop"
    unknown: str = "error"


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers: one feature, ``(value - mean) / scale``; ``fill`` stands in for a missing value."""

    name: str
    fill: float
    mean: float
    scale: float

    @classmethod
    def learn(cls, series: pd.Series, reading: Reading) -> NumberColumn:
        """Median, mean and population standard deviation of the N values; a constant column gets scale 1."""
        values = read_numbers(series, reading.na_values)
        present = values[~np.isnan(values)]
        if not present.size:
            raise ValueError(f"column {series.name!r} has no value in the {rows(len(values))} used for training")
        fill = float(np.median(present))
        mean, scale = moments(np.where(np.isnan(values), fill, values), str(series.name))
        return cls(str(series.name), fill, mean, scale)

    @property
    def feature_names(self) -> list[str]:
        """One name for each feature."""
        return [self.name]

    def encode(self, series: pd.Series, out: np.ndarray, reading: Reading) -> None:
        """Overwrite ``out`` (N, 1) with the standardized values."""
        values = read_numbers(series, reading.na_values)
        absent = np.isnan(values)
        if reading.missing == "drop":
            refuse_missing(series, absent, "only a model trained with missing='impute' fills it in")
        values = np.where(absent, self.fill, values)
        with np.errstate(over="ignore"):
            out[:, 0] = (values - self.mean) / self.scale
        far = ~np.isfinite(out[:, 0])
        if far.any():
            row, value = first(series, far)
            raise ValueError(f"column {self.name!r}, row {row}: {value!r} is out of range (mean {self.mean:g})")

    def describe(self) -> str:
        """What it is, in words."""
        return f"number, mean {self.mean:g}, deviation {self.scale:g}, median {self.fill:g}"

    def to_config(self) -> dict[str, Any]:
        """JSON-able data."""
        return {"kind": "number", "name": self.name, "fill": self.fill, "mean": self.mean, "scale": self.scale}


@dataclass(frozen=True)
class CategoryColumn:
    """A column of categories: one 0/1 feature for each; ``fill`` stands in for a missing value."""

    name: str
    fill: str
    categories: tuple[str, ...]

    @classmethod
    def learn(cls, series: pd.Series, reading: Reading) -> CategoryColumn:
        """The sorted categories and the most frequent of them (the first in order among equals)."""
        texts = read_texts(series, reading.na_values)
        present = texts[is_present(texts)]
        if not present.size:
            raise ValueError(f"column {series.name!r} has no value in the {rows(len(texts))} used for training")
        categories, counts = np.unique(present.astype(str), return_counts=True)
        return cls(str(series.name), str(categories[np.argmax(counts)]), tuple(categories.tolist()))

    @property
    def feature_names(self) -> list[str]:
        """One name for each feature."""
        return [f"{self.name}={category}" for category in self.categories]

    def encode(self, series: pd.Series, out: np.ndarray, reading: Reading) -> None:
        """Write a 1 into each row of ``out`` (N, C), zeros so far; an ignored unknown category leaves its row zero."""
        texts = read_texts(series, reading.na_values)
        absent = ~is_present(texts)
        if reading.missing == "drop":
            refuse_missing(series, absent, "only a model trained with missing='impute' fills it in")
        codes = positions(np.where(absent, self.fill, texts), self.categories)
        strange = codes < 0
        if strange.any():
            row, value = first(series, strange)
            if reading.unknown == "error":
                raise ValueError(
                    f"column {self.name!r}, row {row}: category {value!r} was never seen in training"
                    f"{near_misses(str(value), self.categories)}; --unknown ignore (unknown='ignore') accepts it"
                )
            count = rows(int(np.count_nonzero(strange)))
            logger.warning("column %r: unknown category in %s, first in row %s (%r)", self.name, count, row, value)
        known = np.flatnonzero(~strange)
        out[known, codes[known]] = 1.0

    def describe(self) -> str:
        """What it is, in words."""
        return f"{len(self.categories)} categories: {listed(self.categories)}"

    def to_config(self) -> dict[str, Any]:
        """JSON-able data."""
        return {"kind": "category", "name": self.name, "fill": self.fill, "categories": list(self.categories)}


Column = NumberColumn | CategoryColumn


def column_from_config(config: Any) -> Column:
    """The way back from ``to_config``, each field checked."""
    fields = Fields(config, "preprocessing column")
    kind, name = fields.text("kind", ("number", "category")), fields.text("name")
    column: Column
    if kind == "number":
        column = NumberColumn(name, fields.number("fill"), fields.number("mean"), fields.number("scale", positive=True))
    else:
        column = CategoryColumn(name, fields.text("fill"), fields.texts("categories"))
        fields.demand(column.fill in column.categories, "fill", "must be one of the categories")
    fields.done()
    return column


# -------------------------------------------------------------------- reading values


def parse_numbers(series: pd.Series, na_values: Iterable[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """float64 (N,) with NaN where missing, and a bool mask (N,) of the values that are no numbers."""
    import pandas as pd

    if is_category(series):
        return np.full(len(series), np.nan), np.asarray(series.notna())
    if pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_complex_dtype(series.dtype):
        values = series.to_numpy(dtype=np.float64, na_value=np.nan).copy()
        for word in na_values:
            marker = pd.to_numeric(word, errors="coerce")
            values[values == marker] = np.nan
        return values, np.zeros(len(series), bool)
    texts = read_texts(series, na_values)
    values = np.asarray(pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce"), np.float64)
    return values, np.isnan(values) & is_present(texts)


def read_numbers(series: pd.Series, na_values: Iterable[str] = ()) -> np.ndarray:
    """float64 (N,), NaN where missing; text and infinities are refused."""
    values, wrong = parse_numbers(series, na_values)
    if wrong.any():
        row, value = first(series, wrong)
        raise ValueError(f"column {series.name!r}, row {row}: {value!r} is not a number")
    refuse_infinite(series, values)
    return values


def read_texts(series: pd.Series, na_values: Iterable[str] = ()) -> np.ndarray:
    """Object array (N,) of str, None where missing: stripped, whole numbers without a point, "True" and "False"."""
    import pandas as pd

    try:
        codes, uniques = pd.factorize(series)
    except TypeError as error:
        raise ValueError(f"column {series.name!r} holds values that are neither numbers nor text ({error})") from None
    missing = {"", *na_values}
    names = [text_of(value) for value in uniques]
    table = np.empty(len(names) + 1, object)
    table[:-1] = [None if name in missing else name for name in names]
    return table[codes]


def text_of(value: Any) -> str:
    """The one spelling of a value as text.

    Example:
        >>> [text_of(v) for v in (3, 3.0, 2.5, True, " TRUE ", "m ")]
        ['3', '3', '2.5', 'True', 'True', 'm']
    """
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
    text = str(value).strip()
    return text.capitalize() if text.lower() in ("true", "false") else text


def is_present(texts: np.ndarray) -> np.ndarray:
    """Bool mask (N,) of the entries of an object array that are not None."""
    return np.fromiter((text is not None for text in texts), bool, len(texts))


def is_category(series: pd.Series) -> bool:
    """Whether the type says "category" whatever the values look like: bool and pandas's category type."""
    import pandas as pd

    return bool(pd.api.types.is_bool_dtype(series.dtype)) or isinstance(series.dtype, pd.CategoricalDtype)


def positions(texts: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """int64 (N,): the place of each text in ``names``, -1 where it is none of them."""
    place = {name: i for i, name in enumerate(names)}
    return np.fromiter((place.get(text, -1) for text in texts), np.int64, len(texts))


def moments(values: np.ndarray, name: str) -> tuple[float, float]:
    """Mean and population standard deviation; 1 for the deviation of a constant."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low, 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = float(values.mean()), float(values.std())
    if not (math.isfinite(mean) and math.isfinite(scale)):
        raise ValueError(f"column {name!r} has values too large to standardize (from {low:g} to {high:g})")
    return mean, scale or 1.0


# -------------------------------------------------------------------- saying what is wrong


def first(series: pd.Series, mask: np.ndarray) -> tuple[Any, Any]:
    """Row label and value of the first entry that ``mask`` (N,) marks."""
    i = int(np.argmax(mask))
    value = series.iloc[i]
    return series.index[i], value.item() if isinstance(value, np.generic) else value


def refuse_infinite(series: pd.Series, values: np.ndarray) -> None:
    """ValueError for the first infinity."""
    infinite = np.isinf(values)
    if infinite.any():
        row, value = first(series, infinite)
        raise ValueError(f"column {series.name!r}, row {row}: {value!r} is not a finite number")


def refuse_missing(series: pd.Series, absent: np.ndarray, remark: str = "") -> None:
    """ValueError that names the first rows without a value."""
    if absent.any():
        where = np.flatnonzero(absent)
        labels = ", ".join(str(series.index[i]) for i in where[:5]) + (", ..." if len(where) > 5 else "")
        told = f" ({remark})" if remark else ""
        raise ValueError(f"column {series.name!r}: no value in row{'s' if len(where) > 1 else ''} {labels}{told}")
