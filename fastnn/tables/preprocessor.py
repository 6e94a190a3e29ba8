"""From raw table rows to network inputs and back: the preprocessing that is stored inside a model file.

A ``TablePreprocessor`` learns from a pandas DataFrame which columns are numbers and which are categories, what
the target is, and the statistics of the training rows. Afterwards it turns raw rows into a float32 array, and
predictions into class names or original units. N rows, F features (network inputs), K classes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.evaluation import regression_metrics
from fastnn.jobs.preprocessor import Preprocessor
from fastnn.jobs.stored import Fields
from fastnn.jobs.words import listed, near_misses, rows
from fastnn.tables.columns import (
    CategoryColumn,
    Column,
    NumberColumn,
    Reading,
    column_from_config,
    first,
    is_category,
    is_present,
    moments,
    parse_numbers,
    positions,
    read_numbers,
    read_texts,
    refuse_infinite,
    refuse_missing,
    text_of,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TablePreprocessor"]

logger = logging.getLogger(__name__)

TASKS = ("auto", "classification", "regression")
MISSING = ("drop", "impute")
UNKNOWN = ("error", "ignore")
FORMAT = 1
MAX_CATEGORIES = 100  # a text column with more of them is left out unless it is asked for
MAX_INTEGER_CLASSES = 10  # a whole-number target with at most so many different values is a set of classes
MAX_CLASSES = 1000
MOST_TOLD = 50  # columns in a description


class TablePreprocessor(Preprocessor):
    """Turn raw table rows into network inputs, with what was learnt from the training rows.

    Numbers are standardized with the mean and the population standard deviation of the training rows (a constant column
    gets scale 1); text, bool and category columns are one-hot encoded. The target becomes 0/1 (two classes),
    0..K-1 (several classes) or a standardized number.

    Args:
        target: name of the column to predict.
        task: "auto", "classification" or "regression". "auto" takes text, bool and two different values for classes,
            whole numbers with at most 10 different values too, and anything else for a number.
        missing: "drop" leaves out training rows with a missing value and refuses such rows at predict time;
            "impute" fills in the median (numbers) or the most frequent category of the training rows.
        unknown: a category never seen in training is an "error" at predict time, or "ignore" gives it all zeros.
        ignore: columns that are no features.
        categorical: columns of numbers that are to be taken as categories.
        positive: name of the positive class of two; the second in sorted order unless given.
        na_values: texts that mean "missing", besides the empty one, such as "?".

    Attributes:
        kind: "binary", "multiclass" or "regression", once learnt.
        classes: class names in the order of the network's outputs; () for a number.
        columns: what each feature column is, in the order of the inputs.

    Raises:
        ValueError: an option that is none of those above; later, data that do not fit (column and row are named).

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"age": [40, 50, 60], "sex": ["f", "m", "f"], "ill": ["no", "yes", "no"]})
        >>> pre = TablePreprocessor(target="ill").fit(table)
        >>> pre.transform(table)
        array([[-1.2247449,  1.       ,  0.       ],
               [ 0.       ,  0.       ,  1.       ],
               [ 1.2247449,  1.       ,  0.       ]], dtype=float32)
        >>> pre.feature_names, pre.kind, pre.classes
        (['age', 'sex=f', 'sex=m'], 'binary', ('no', 'yes'))
        >>> pre.transform_target(table["ill"]).tolist()
        [0.0, 1.0, 0.0]
    """

    def __init__(
        self,
        *,
        target: str,
        task: str = "auto",
        missing: str = "drop",
        unknown: str = "error",
        ignore: Iterable[str] = (),
        categorical: Iterable[str] = (),
        positive: str | None = None,
        na_values: Iterable[str] = (),
    ) -> None:
        _require("task", task, TASKS)
        _require("missing", missing, MISSING)
        _require("unknown", unknown, UNKNOWN)
        self.target = target
        self.task = task
        self.missing = missing
        self.unknown = unknown
        self.ignore = tuple(ignore)
        self.categorical = tuple(categorical)
        self.positive = positive
        self.na_values = tuple(na_values)
        self.columns: tuple[Column, ...] = ()
        self.target_is_number = False
        self.target_mean = 0.0
        self.target_scale = 1.0
        self._learners: dict[str, type[NumberColumn | CategoryColumn]] = {}

    # ---------------------------------------------------------------- learning

    def fit(self, frame: pd.DataFrame) -> TablePreprocessor:
        """Learn the columns and the statistics from the training rows ``frame`` (N rows, target included)."""
        self.learn_columns(frame)
        return self.learn_statistics(frame[self.usable_rows(frame)])

    def learn_columns(self, frame: pd.DataFrame) -> TablePreprocessor:
        """Decide from the whole table what each column is; the statistics come later, from the training rows alone."""
        frame = named(frame)
        names = list(frame.columns)
        for role, wanted in (("target", [self.target]), ("dropped", self.ignore), ("categorical", self.categorical)):
            for name in wanted:
                if name not in names:
                    raise ValueError(f"the {role} column {name!r} is not in the table{near_misses(name, names)}")
        if self.target in self.ignore:
            raise ValueError(f"the target column {self.target!r} cannot be left out")
        self._learn_target(frame[self.target])
        self._learners = {}
        for name in names:
            if name != self.target and name not in self.ignore:
                learner = self._learner(frame[name])
                if learner is not None:
                    self._learners[name] = learner
        if not self._learners:
            raise ValueError(f"no column is left to predict {self.target!r} from")
        self.ignore = tuple(name for name in names if name != self.target and name not in self._learners)
        return self

    def usable_rows(self, frame: pd.DataFrame) -> np.ndarray:
        """Bool mask (N,) of the rows that training can use: the target is there, and with "drop" all features too."""
        frame = named(frame)
        usable: np.ndarray = ~self._absent(frame[self.target], self.target_is_number)
        if not usable.any():
            raise ValueError(f"no row has a value of the target {self.target!r}")
        untold = int(np.count_nonzero(~usable))
        if untold:
            logger.info("dropped %s of %d without a value of the target %r", rows(untold), len(frame), self.target)
        if self.missing == "impute":
            return usable
        absent = {name: self._absent(frame[name], learner is NumberColumn) for name, learner in self._learners.items()}
        complete: np.ndarray = usable & ~np.any(list(absent.values()), axis=0)
        dropped = int(np.count_nonzero(usable) - np.count_nonzero(complete))
        if dropped:
            worst = max(absent, key=lambda name: int(np.count_nonzero(absent[name])))
            told = f"{np.count_nonzero(absent[worst])} of them in column {worst!r}"
            if not complete.any():
                raise ValueError(
                    f"each of the {rows(len(frame))} has a missing value, {told}; --missing impute fills them in"
                )
            logger.info("dropped %s of %d with missing values, %s", rows(dropped), len(frame), told)
        return complete

    def learn_statistics(self, frame: pd.DataFrame) -> TablePreprocessor:
        """Learn means, scales, medians and categories from the training rows ``frame`` alone."""
        if not self._learners:
            raise ValueError("TablePreprocessor: learn_columns must come before learn_statistics")
        frame = named(frame)
        self.columns = tuple(learner.learn(frame[name], self._reading) for name, learner in self._learners.items())
        if self.kind == "regression":
            self.target_mean, self.target_scale = moments(read_numbers(frame[self.target], self.na_values), self.target)
        return self

    def _learner(self, series: pd.Series) -> type[NumberColumn | CategoryColumn] | None:
        """What kind of column this is; None (and a line in the log) if it is left out."""
        name = str(series.name)
        values, wrong = parse_numbers(series, self.na_values)
        present, bad = int(np.count_nonzero(wrong | ~np.isnan(values))), int(np.count_nonzero(wrong))
        if not present:
            logger.warning("column %r has no values: left out", name)
            return None
        if name not in self.categorical and not is_category(series):
            if not bad:
                refuse_infinite(series, values)
                if _looks_like_identifier(name, values):
                    logger.warning("column %r looks like an identifier, --drop leaves it out", name)
                return NumberColumn
            if bad < present - bad:
                row, value = first(series, wrong)
                raise ValueError(
                    f"column {name!r}, row {row}: {value!r} is not a number, as {present - bad} of {present} are;"
                    f" correct it, or say --na {str(value).strip()!r} (missing) or --categorical {name!r}"
                )
        texts = read_texts(series, self.na_values)
        levels = len(set(texts[is_present(texts)]))
        if name not in self.categorical and levels > min(MAX_CATEGORIES, max(10, present // 2)):
            logger.warning("column %r has %d different texts in %s: left out", name, levels, rows(present))
            return None
        return CategoryColumn

    def _learn_target(self, series: pd.Series) -> None:
        name = self.target
        values, wrong = parse_numbers(series, self.na_values)
        is_number = not is_category(series) and not wrong.any()
        if not is_number and self.task == "regression":
            row, value = first(series, wrong)
            raise ValueError(f"the target column {name!r}, row {row}: {value!r} is not a number")
        if is_number:
            refuse_infinite(series, values)
            present = values[~np.isnan(values)]
            distinct = np.unique(present)
            levels = [text_of(value) for value in distinct]
            whole = bool(np.all(distinct == np.floor(distinct)))
            few = len(levels) == 2 or (whole and len(levels) <= min(MAX_INTEGER_CLASSES, len(present) // 2))
        else:
            texts = read_texts(series, self.na_values)
            present = texts[is_present(texts)]
            levels, few = sorted(set(present)), True
        if not levels:
            raise ValueError(f"the target column {name!r} has no values")
        if len(levels) == 1:
            raise ValueError(f"the target column {name!r} has one value only, {levels[0]!r}: there is nothing to learn")
        self.target_is_number = is_number
        if self.task == "regression" or (self.task == "auto" and not few):
            if self.positive is not None:
                raise ValueError(f"a positive class ({self.positive!r}) needs classes: target {name!r} is a number")
            self.kind, self.classes = "regression", ()
        else:
            if len(levels) > min(MAX_CLASSES, max(10, len(present) // 2)):
                raise ValueError(f"the target {name!r} has too many classes: {len(levels)} in {rows(len(present))}")
            self.learn_classes(levels, self.positive, f"the target column {name!r}")
        choice = " (choose with --positive)" if self.kind == "binary" and self.positive is None else ""
        logger.info("target %r: %s%s", name, self.describe_target(), choice)

    # ---------------------------------------------------------------- using

    @property
    def features(self) -> int:
        """Number of network inputs F."""
        return len(self.feature_names)

    @property
    def feature_names(self) -> list[str]:
        """A name for each of the F network inputs: ``age``, ``sex=f``, ``sex=m``."""
        return [name for column in self.columns for name in column.feature_names]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(F,)``."""
        return (self.features,)

    @property
    def text_columns(self) -> list[str]:
        """Columns whose values are to be read as text, so that "01" stays "01"."""
        names = [column.name for column in self.columns if isinstance(column, CategoryColumn)]
        return names if self.target_is_number else [*names, self.target]

    def describe(self) -> str:
        """What it does, in lines of text, one for each of the first columns."""
        lines = [
            f"target {self.target!r}: {self.describe_target()}",
            f"{len(self.columns)} columns, {self.features} features",
            f"missing values: {self.missing}; unknown categories: {self.unknown}",
        ]
        if self.kind == "regression":
            lines[0] += f", mean {self.target_mean:g}, deviation {self.target_scale:g}"
        width = max(len(column.name) for column in self.columns[:MOST_TOLD])
        lines += [f"  {column.name:<{width}}  {column.describe()}" for column in self.columns[:MOST_TOLD]]
        if len(self.columns) > MOST_TOLD:
            lines.append(f"  and {len(self.columns) - MOST_TOLD} more")
        return "\n".join(lines)

    def transform(self, frame: pd.DataFrame, *, unknown: str | None = None) -> np.ndarray:
        """Raw rows to network inputs.

        Args:
            frame: N rows with the columns seen in training, in any order. Others are ignored, with a warning.
            unknown: overrides the preprocessor's own ``unknown``.

        Returns:
            float32 array (N, F).

        Raises:
            ValueError: no rows, a column that is not there, a missing, infinite or non-numeric value, an unknown
                category; the message names column, row label and value.
        """
        self._require_learnt()
        reading = self._reading if unknown is None else replace(self._reading, unknown=unknown)
        _require("unknown", reading.unknown, UNKNOWN)
        frame = self.select(frame)
        out = np.zeros((len(frame), self.features), np.float32)
        start = 0
        for column in self.columns:
            stop = start + len(column.feature_names)
            column.encode(frame[column.name], out[:, start:stop], reading)
            start = stop
        return out

    def select(self, frame: pd.DataFrame, *, target: bool = False) -> pd.DataFrame:
        """The columns of ``frame`` that are needed, in the order of training, with the target as the last if asked for.

        Raises:
            ValueError: no rows, a column twice, or one that is not there (the message names the near misses).
        """
        self._require_learnt()
        frame = named(frame)
        names = list(frame.columns)
        wanted = [column.name for column in self.columns] + [self.target] * target
        lost = [name for name in wanted if name not in names]
        extra = [name for name in names if name not in wanted and name != self.target and name not in self.ignore]
        if lost:
            told = ", ".join(f"{name!r}{near_misses(name, extra)}" for name in lost[:3])
            more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
            raise ValueError(f"the table lacks column{'s' if len(lost) > 1 else ''} {told}{more}")
        if extra:
            logger.warning("ignored column%s not seen in training: %s", "s" if len(extra) > 1 else "", listed(extra))
        return frame[wanted]

    def transform_target(self, series: pd.Series) -> np.ndarray:
        """Target values (N,) to what the network is trained on.

        Returns:
            (N,): float32 0 and 1 for two classes, int64 0..K-1 for several, float32, standardized, for a number.

        Raises:
            ValueError: a missing value, or one that is no number or no class of the training data.
        """
        self._require_learnt()
        if self.kind == "regression":
            return ((self.target_values(series) - self.target_mean) / self.target_scale).astype(np.float32)
        codes = self.target_values(series)
        return codes.astype(np.float32) if self.kind == "binary" else codes

    def target_values(self, series: pd.Series) -> np.ndarray:
        """The truth as metrics want it: class numbers, int64 (N,), or the number itself, float64 (N,)."""
        if not self.kind:
            raise ValueError("TablePreprocessor: nothing was learnt yet; call fit first")
        if self.kind == "regression" or self.target_is_number:
            values = read_numbers(series, self.na_values)
            refuse_missing(series, np.isnan(values))
            if self.kind == "regression":
                return values
            texts = np.array([text_of(value) for value in values], object)
        else:
            texts = read_texts(series, self.na_values)
            refuse_missing(series, ~is_present(texts))
        codes = positions(texts, self.classes)
        if (codes < 0).any():
            row, value = first(series, codes < 0)
            near = near_misses(str(value), self.classes)
            raise ValueError(f"the target column {series.name!r}, row {row}: {value!r} is none of the classes{near}")
        return codes

    def to_units(self, prediction: np.ndarray) -> np.ndarray:
        """Network outputs (N, 1) of a regression to the target's own units, float64 (N,)."""
        values: np.ndarray = np.asarray(prediction, np.float64).reshape(-1) * self.target_scale + self.target_mean
        return values

    def prediction_columns(self, output: np.ndarray, threshold: float = 0.5) -> dict[str, np.ndarray]:
        """What is told of network outputs: for a number, the prediction in its own units."""
        if self.kind == "regression":
            return {"prediction": self.to_units(output)}
        return super().prediction_columns(output, threshold)

    def score(self, truth: np.ndarray, output: np.ndarray, threshold: float = 0.5) -> dict[str, Any]:
        """Metrics of network outputs, (N, 1) or (N, K), against ``target_values`` (N,)."""
        if self.kind == "regression":
            return regression_metrics(truth, self.to_units(output))
        return super().score(truth, output, threshold)

    @property
    def _reading(self) -> Reading:
        return Reading(self.na_values, self.missing, self.unknown)

    def _absent(self, series: pd.Series, is_number: bool) -> np.ndarray[Any, np.dtype[np.bool_]]:
        absent: np.ndarray[Any, np.dtype[np.bool_]]
        if is_number:
            absent = np.isnan(read_numbers(series, self.na_values))
        else:
            absent = ~is_present(read_texts(series, self.na_values))
        return absent

    def _require_learnt(self) -> None:
        if not self.columns:
            raise ValueError("TablePreprocessor: nothing was learnt yet; call fit first")

    # ---------------------------------------------------------------- storing

    def to_config(self) -> dict[str, Any]:
        """All that was learnt, as JSON-able data; ``from_config`` is the way back, bit for bit."""
        self._require_learnt()
        return {
            "data": "table",
            "format": FORMAT,
            "target": self.target,
            "kind": self.kind,
            "classes": list(self.classes),
            "target_is_number": self.target_is_number,
            "target_mean": self.target_mean,
            "target_scale": self.target_scale,
            "missing": self.missing,
            "unknown": self.unknown,
            "na_values": list(self.na_values),
            "ignore": list(self.ignore),
            "columns": [column.to_config() for column in self.columns],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TablePreprocessor:
        """Rebuild from ``to_config``'s data, which may come from an untrusted file: everything is checked.

        Raises:
            ValueError: anything missing, unknown, of the wrong type or out of range; the message names it.
        """
        fields = Fields(config, "preprocessing")
        fields.text("data", ("table",))
        fields.demand(fields.number("format") == FORMAT, "format", f"must be {FORMAT} in this version of fastnn")
        pre = cls(
            target=fields.text("target"),
            missing=fields.text("missing", MISSING),
            unknown=fields.text("unknown", UNKNOWN),
            na_values=fields.texts("na_values"),
            ignore=fields.texts("ignore"),
        )
        pre.kind = fields.text("kind", ("binary", "multiclass", "regression"))
        pre.task = "regression" if pre.kind == "regression" else "classification"
        pre.classes = fields.texts("classes")
        pre.target_is_number = fields.flag("target_is_number")
        pre.target_mean, pre.target_scale = fields.number("target_mean"), fields.number("target_scale", positive=True)
        pre.columns = tuple(column_from_config(item) for item in fields.items("columns"))
        fields.done()
        count = len(pre.classes)
        fits = {"binary": count == 2, "multiclass": count > 2, "regression": count == 0 and pre.target_is_number}
        fields.demand(fits[pre.kind], "classes", f"do not fit the kind {pre.kind}")
        names = {column.name for column in pre.columns} | {pre.target}
        fields.demand(len(names) == len(pre.columns) + 1, "columns", "must have different names")
        pre._learners = {column.name: type(column) for column in pre.columns}
        return pre


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with stripped text for column names, all different, and at least one row."""
    names = [str(name).strip() for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"column name {twice[0]!r} is used {names.count(twice[0])} times")
    if not len(frame):
        raise ValueError("the table has no rows")
    return frame.set_axis(names, axis=1)


def _looks_like_identifier(name: str, values: np.ndarray) -> bool:
    words = name.casefold().replace("-", "_").replace(" ", "_").split("_")
    distinct = len(values) > 20 and len(np.unique(values)) == len(values)
    return distinct and bool({"id", "identifier", "uid", "patientid"} & set(words)) and not np.any(values % 1)


def _require(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"TablePreprocessor: {name} must be one of {', '.join(choices)}. Received: {name}={value!r}")
