"""The whole job on a table, what ``fastnn train`` does: clean, split, standardize, train, evaluate, write."""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastnn.evaluation import binary_metrics, multiclass_metrics, regression_metrics
from fastnn.tables.columns import listed, near_misses, rows
from fastnn.tables.files import staged_files
from fastnn.tables.preprocessor import TablePreprocessor, named
from fastnn.tables.reading import Split, split_rows
from fastnn.tables.reports import best_epoch, learning_curve

if TYPE_CHECKING:
    import pandas as pd

    from fastnn.models import Model
    from fastnn.optimizers import Optimizer

__all__ = ["RUN_FILES", "Settings", "TableRun", "evaluate_table", "predict_table", "score", "train_table", "write_run"]

logger = logging.getLogger(__name__)

RUN_FILES = ("model.fnn", "history.csv", "metrics.json", "learning_curve.png")
CURVE_NAMES = {
    "binary": {"loss": "loss (binary cross-entropy)"},
    "multiclass": {"loss": "loss (cross-entropy)"},
    "regression": {"loss": "loss (squared error, standardized)", "mae": "absolute error, standardized"},
}


@dataclass(frozen=True)
class Settings:
    """How to train on a table; the defaults are those of ``fastnn train``."""

    target: str
    task: str = "auto"
    positive: str | None = None
    missing: str = "drop"
    unknown: str = "error"
    group: str | None = None
    drop: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    na_values: tuple[str, ...] = ()
    test_size: float = 0.2
    validation_size: float = 0.2
    layers: tuple[int, ...] = (64, 32)
    activation: str = "relu"
    dropout: float = 0.0
    optimizer: str = "adam"
    learning_rate: float | None = None
    epochs: int = 100
    batch_size: int = 32
    patience: int = 20  # 0: never stop early
    class_weight: str | None = None
    seed: int = 0


@dataclass
class TableRun:
    """A trained model (its preprocessing inside), the history of its training and the metrics of each part."""

    model: Model
    history: dict[str, list[float]]
    metrics: dict[str, Any] = field(default_factory=dict)


def train_table(
    frame: pd.DataFrame, settings: Settings, verbose: Literal["auto", 0, 1, 2] = "auto", data: str = "table"
) -> TableRun:
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

    parts = {name: places for name, places in split._asdict().items() if len(places)}
    inputs = {name: pre.transform(frame.iloc[p], unknown="ignore") for name, p in parts.items()}
    targets = {name: pre.transform_target(frame[settings.target].iloc[p]) for name, p in parts.items()}
    set_seed(settings.seed)
    model = _build(pre, settings)
    start = time.perf_counter()
    history = _fit(model, inputs, targets, pre, settings, verbose)
    seconds = time.perf_counter() - start
    scores = {name: score(pre, truth[parts[name]], _predict(model, inputs[name])) for name in parts}
    metrics = {
        "data": data,
        "target": settings.target,
        "kind": pre.kind,
        "classes": list(pre.classes),
        "positive": pre.classes[1] if pre.kind == "binary" else None,
        "rows": {"read": read, "used": len(frame), **{name: len(places) for name, places in parts.items()}},
        "features": pre.features,
        "parameters": int(model.count_params()),
        "epochs": len(history["loss"]),
        "best_epoch": best_epoch(history) + 1,
        "seconds": seconds,
        "settings": asdict(settings),
        **scores,
    }
    return TableRun(model, history, metrics)


def write_run(run: TableRun, directory: str | Path, place: Path) -> list[Path]:
    """Write the four files of a run into ``place``, a directory of ``staged_files``; return where they will be."""
    metrics = run.metrics
    run.model.save(str(place / "model.fnn"))
    with open(place / "history.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", *run.history])
        writer.writerows([i, *values] for i, values in enumerate(zip(*run.history.values(), strict=True), start=1))
    text = json.dumps(metrics, indent=2, allow_nan=False, ensure_ascii=False)
    (place / "metrics.json").write_text(text + "\n", encoding="utf-8")
    counts = metrics["rows"]
    validation = f" and {counts['validation']} validation" if "validation" in counts else ""
    title = f"{metrics['target']}: {counts['train']} training{validation} rows"
    learning_curve(run.history, place / "learning_curve.png", title=title, labels=CURVE_NAMES[metrics["kind"]])
    return [Path(directory) / name for name in RUN_FILES]


def train_and_write(
    frame: pd.DataFrame,
    settings: Settings,
    directory: str | Path,
    verbose: Literal["auto", 0, 1, 2] = "auto",
    data: str = "table",
) -> TableRun:
    """``train_table``, then ``write_run`` into ``directory``; after an error nothing in it has changed."""
    with staged_files(directory, RUN_FILES) as place:
        run = train_table(frame, settings, verbose, data)
        write_run(run, directory, place)
    return run


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

    pre = preprocessing_of(model)
    frame = named(frame)
    for name in ids:
        if name not in frame.columns:
            raise ValueError(f"the id column {name!r} is not in the table{near_misses(name, frame.columns)}")
    known = {column.name for column in pre.columns}
    output = _predict(model, pre.transform(frame.drop(columns=[name for name in ids if name not in known])))
    columns: dict[str, Any] = {name: frame[name] for name in ids}
    columns["prediction"] = pre.to_units(output) if pre.kind == "regression" else pre.to_classes(output, threshold)
    if pre.kind == "binary":
        columns[f"probability_{pre.classes[1]}"] = output.reshape(-1)
    elif pre.kind == "multiclass":
        columns.update({f"probability_{name}": output[:, k] for k, name in enumerate(pre.classes)})
    return pd.DataFrame(columns, index=frame.index)


def evaluate_table(model: Model, frame: pd.DataFrame, threshold: float = 0.5) -> dict[str, Any]:
    """Metrics of a model on raw rows with a known target; rows that training would have dropped are left out.

    Returns:
        "rows", "kind", "classes", "threshold" (two classes) and the metrics of ``fastnn.evaluation``.

    Raises:
        ValueError: the model has no preprocessing, the rows do not fit it, or the target is not in the table.
    """
    pre = preprocessing_of(model)
    frame = pre.select(frame, target=True)
    frame = frame[pre.usable_rows(frame)]
    truth = pre.target_values(frame[pre.target])
    scores = score(pre, truth, _predict(model, pre.transform(frame)), threshold)
    limit = {"threshold": threshold} if pre.kind == "binary" else {}
    return {"target": pre.target, "kind": pre.kind, "classes": list(pre.classes), "rows": len(frame), **limit, **scores}


def score(pre: TablePreprocessor, truth: np.ndarray, output: np.ndarray, threshold: float = 0.5) -> dict[str, Any]:
    """Metrics of network outputs (N, 1) or (N, K) against ``TablePreprocessor.target_values``, (N,)."""
    if pre.kind == "regression":
        return regression_metrics(truth, pre.to_units(output))
    if pre.kind == "binary":
        return binary_metrics(truth, output, threshold)
    return multiclass_metrics(truth, output)


def preprocessing_of(model: Model) -> TablePreprocessor:
    """The preprocessing inside a model, known to fit its inputs and outputs."""
    pre = getattr(model, "preprocessing", None)
    if not isinstance(pre, TablePreprocessor):
        raise ValueError("the model holds no preprocessing, so it cannot take raw rows")
    inputs, outputs = tuple(model.input_shape)[1:], tuple(model.output_shape)[1:]
    if inputs != (pre.features,) or outputs != (pre.outputs,):
        raise ValueError(
            f"the model takes {inputs} and gives {outputs}, but its preprocessing makes {pre.features} features"
            f" and needs {pre.outputs} outputs"
        )
    return pre


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
    labels = np.array(pre.classes)[truth] if pre.classes else None
    groups = None if settings.group is None else frame[settings.group].astype(str).to_numpy()
    split = split_rows(
        labels,
        len(frame),
        test_size=settings.test_size,
        validation_size=settings.validation_size,
        groups=groups,
        seed=settings.seed,
    )
    if labels is not None:
        lost = [name for name in pre.classes if name not in labels[split.train]]
        if lost:
            raise ValueError(f"no row of class {listed(lost)} is among the {rows(len(split.train))} to train on")
    return split


def _build(pre: TablePreprocessor, settings: Settings) -> Model:
    from fastnn.layers import Dense, Dropout, Input
    from fastnn.models import Sequential

    layers: list[Any] = [Input(shape=(pre.features,))]
    for units in settings.layers:
        layers.append(Dense(units, activation=settings.activation))
        if settings.dropout:
            layers.append(Dropout(settings.dropout))
    output = {"binary": "sigmoid", "multiclass": "softmax", "regression": "linear"}[pre.kind]
    layers.append(Dense(pre.outputs, activation=output))
    model = Sequential(layers)
    loss, metric = {
        "binary": ("binary_crossentropy", "accuracy"),
        "multiclass": ("sparse_categorical_crossentropy", "accuracy"),
        "regression": ("mean_squared_error", "mae"),
    }[pre.kind]
    model.compile(optimizer=_optimizer(settings), loss=loss, metrics=[metric])
    model.preprocessing = pre
    return model


def _optimizer(settings: Settings) -> Optimizer:
    from fastnn import optimizers

    makers: dict[str, Callable[..., Optimizer]] = {
        "adam": optimizers.Adam,
        "adamw": optimizers.AdamW,
        "rmsprop": optimizers.RMSprop,
        "sgd": optimizers.SGD,
    }
    if settings.optimizer not in makers:
        raise ValueError(f"optimizer must be one of {', '.join(makers)}. Received: {settings.optimizer!r}")
    options = {} if settings.learning_rate is None else {"learning_rate": settings.learning_rate}
    return makers[settings.optimizer](**options)


def _fit(
    model: Model,
    inputs: Mapping[str, np.ndarray],
    targets: Mapping[str, np.ndarray],
    pre: TablePreprocessor,
    settings: Settings,
    verbose: Literal["auto", 0, 1, 2],
) -> dict[str, list[float]]:
    from fastnn.callbacks import EarlyStopping

    callbacks = []
    if settings.patience:
        monitor = "val_loss" if "validation" in inputs else "loss"
        callbacks.append(EarlyStopping(monitor=monitor, patience=settings.patience, restore_best_weights=True))
    weights = None
    if settings.class_weight == "balanced":
        if not pre.classes:
            raise ValueError(f"class weights have no meaning: the target {pre.target!r} is a number")
        counts = np.bincount(targets["train"].astype(np.int64), minlength=len(pre.classes))
        weights = {k: len(targets["train"]) / (len(counts) * int(count)) for k, count in enumerate(counts)}
    history = model.fit(
        inputs["train"],
        targets["train"],
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        verbose=verbose,
        callbacks=callbacks,
        validation_data=(inputs["validation"], targets["validation"]) if "validation" in inputs else None,
        class_weight=weights,
    )
    for name, values in history.history.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise FloatingPointError(f"{name} became {values[bad[0]]} in epoch {bad[0] + 1}; try a lower learning rate")
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def _predict(model: Model, inputs: np.ndarray) -> np.ndarray:
    output: np.ndarray = np.asarray(model.predict(inputs, verbose=0))
    bad = ~np.isfinite(output).all(axis=1)
    if bad.any():
        raise ValueError(f"the network's output is not a finite number for {rows(int(bad.sum()))} of {len(output)}")
    return output
