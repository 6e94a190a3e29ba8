"""The whole job on a table, what ``fastnn train`` does: clean, split, standardize, train, evaluate, write."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.jobs.preprocessor import preprocessing_of
from fastnn.jobs.split import Split, split_rows
from fastnn.jobs.training import Part, Run, TrainingSettings, compiled, finite_outputs, train, write_run
from fastnn.jobs.words import near_misses, rows
from fastnn.progress import Verbose
from fastnn.tables.preprocessor import TablePreprocessor, named

if TYPE_CHECKING:
    import pandas as pd

    from fastnn.models import Model

__all__ = ["Settings", "evaluate_table", "predict_table", "table_preprocessing", "train_and_write", "train_table"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Settings(TrainingSettings):
    """How to train on a table; the defaults are those of ``fastnn train``."""

    target: str
    task: str = "auto"
    missing: str = "drop"
    unknown: str = "error"
    drop: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    na_values: tuple[str, ...] = ()
    layers: tuple[int, ...] = (64, 32)


def train_table(frame: pd.DataFrame, settings: Settings, verbose: Verbose = "auto", data: str = "table") -> Run:
    """Train and evaluate a network on a table.

    Args:
        frame: N rows, raw; the target is one of the columns.
        settings: what to do.
        verbose: as in ``Model.fit``.
        data: where the table is from, for the record.

    Returns:
        The run, not written yet.

    Raises:
        ValueError: bad data or settings.
        FloatingPointError: the loss is no longer a finite number.
    """
    from fastnn.config import set_seed

    frame = named(frame)
    pre = TablePreprocessor(
        target=settings.target,
        task=settings.task,
        missing=settings.missing,
        unknown=settings.unknown,
        ignore=_left_out(frame, settings),
        categorical=settings.categorical,
        positive=settings.positive,
        na_values=settings.na_values,
    ).learn_columns(frame)
    read = len(frame)
    frame = frame[pre.usable_rows(frame)]
    if settings.group is not None:
        grouped = np.asarray(frame[settings.group].notna())
        if not grouped.all():
            logger.info("dropped %s without a value of the group %r", rows(int((~grouped).sum())), settings.group)
            frame = frame[grouped]
    truth = pre.target_values(frame[settings.target])
    split = _split(frame, pre, truth, settings)
    pre.learn_statistics(frame.iloc[split.train])

    places = {name: at for name, at in split._asdict().items() if len(at)}
    target = frame[settings.target]
    parts = {
        name: Part(pre.transform(frame.iloc[at], unknown="ignore"), pre.transform_target(target.iloc[at]), truth[at])
        for name, at in places.items()
    }
    set_seed(settings.seed)
    run = train(compiled(_layers(pre, settings), pre, settings), parts, settings, verbose)
    counts = {"read": read, "used": len(frame), **{name: len(at) for name, at in places.items()}}
    told = {"data": data, "target": settings.target, "rows": counts, "features": pre.features}
    run.metrics = {**told, **run.metrics}
    validation = f" and {counts['validation']} validation" if "validation" in counts else ""
    run.title = f"{settings.target}: {counts['train']} training{validation} rows"
    return run


def train_and_write(
    frame: pd.DataFrame, settings: Settings, directory: str | Path, verbose: Verbose = "auto", data: str = "table"
) -> Run:
    """``train_table``, and the run's files in ``directory``; after an error nothing in it has changed."""
    return write_run(directory, lambda: train_table(frame, settings, verbose, data))


def predict_table(model: Model, frame: pd.DataFrame, threshold: float = 0.5, ids: Sequence[str] = ()) -> pd.DataFrame:
    """Predict raw rows with a model that holds its preprocessing.

    Args:
        model: a model of ``train_table``, or loaded from its file.
        frame: N raw rows.
        threshold: of two classes the positive one is predicted above this probability.
        ids: columns to copy through.

    Returns:
        A DataFrame with the labels of ``frame``: the ids, "prediction", and for two classes
        ``probability_<positive>``, for several one ``probability_<class>`` each.

    Raises:
        ValueError: the model has no preprocessing, or the rows do not fit it.
    """
    import pandas as pd

    pre = table_preprocessing(model)
    frame = named(frame)
    for name in ids:
        if name not in frame.columns:
            raise ValueError(f"the id column {name!r} is not in the table{near_misses(name, frame.columns)}")
    known = {column.name for column in pre.columns}
    output = finite_outputs(model, pre.transform(frame.drop(columns=[name for name in ids if name not in known])))
    columns: dict[str, Any] = {name: frame[name] for name in ids}
    columns.update(pre.prediction_columns(output, threshold))
    return pd.DataFrame(columns, index=frame.index)


def evaluate_table(model: Model, frame: pd.DataFrame, threshold: float = 0.5) -> dict[str, Any]:
    """Metrics of a model on raw rows with a known target; rows that training would have dropped are left out.

    Returns:
        "rows", "kind", "classes", "threshold" (two classes) and the metrics of ``fastnn.evaluation``.

    Raises:
        ValueError: the model has no preprocessing, the rows do not fit it, or the target is not in the table.
    """
    pre = table_preprocessing(model)
    frame = pre.select(frame, target=True)
    frame = frame[pre.usable_rows(frame)]
    truth = pre.target_values(frame[pre.target])
    found = pre.evaluation(truth, finite_outputs(model, pre.transform(frame)), threshold)
    return {"target": pre.target, "rows": len(frame), **found}


def table_preprocessing(model: Model) -> TablePreprocessor:
    """The preprocessing inside a model of tables, known to fit its inputs and outputs."""
    return preprocessing_of(model, TablePreprocessor, "raw rows")


def _left_out(frame: pd.DataFrame, settings: Settings) -> list[str]:
    names = [str(name) for name in frame.columns]
    if settings.group is None:
        return list(settings.drop)
    if settings.group not in names:
        raise ValueError(f"the group column {settings.group!r} is not in the table{near_misses(settings.group, names)}")
    if settings.group == settings.target:
        raise ValueError(f"the column {settings.group!r} cannot be both target and group")
    return [*settings.drop, settings.group]


def _split(frame: pd.DataFrame, pre: TablePreprocessor, truth: np.ndarray, settings: Settings) -> Split:
    return split_rows(
        np.array(pre.classes)[truth] if pre.classes else None,
        len(frame),
        test_size=settings.test_size,
        validation_size=settings.validation_size,
        groups=None if settings.group is None else frame[settings.group].astype(str).to_numpy(),
        seed=settings.seed,
    )


def _layers(pre: TablePreprocessor, settings: Settings) -> list[Any]:
    from fastnn.layers import Dense, Dropout, Input

    layers: list[Any] = [Input(shape=pre.input_shape)]
    for units in settings.layers:
        layers.append(Dense(units, activation=settings.activation))
        if settings.dropout:
            layers.append(Dropout(settings.dropout))
    return layers
