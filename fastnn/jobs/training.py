"""The training of a job's network: its settings, the fit, scores of each part, and the files that a run leaves."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.jobs.files import staged_files
from fastnn.jobs.preprocessor import Preprocessor
from fastnn.jobs.reports import best_epoch, learning_curve
from fastnn.jobs.words import counted
from fastnn.progress import Verbose

if TYPE_CHECKING:
    from fastnn.models import Model
    from fastnn.optimizers import Optimizer

__all__ = ["RUN_FILES", "Part", "Run", "TrainingSettings", "compiled", "finite_outputs", "train", "write_run"]

RUN_FILES = ("model.fnn", "history.csv", "metrics.json", "learning_curve.png")
CURVE_NAMES = {
    "binary": {"loss": "loss (binary cross-entropy)"},
    "multiclass": {"loss": "loss (cross-entropy)"},
    "regression": {"loss": "loss (squared error, standardized)", "mae": "absolute error, standardized"},
}


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How to split and to train; the defaults are those of ``fastnn train``."""

    positive: str | None = None
    group: str | None = None
    test_size: float = 0.2
    validation_size: float = 0.2
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
class Part:
    """The rows of a part of the split: inputs (N, ...), the network's targets (N,), the truth for scores (N,)."""

    inputs: np.ndarray
    targets: np.ndarray
    truth: np.ndarray


@dataclass
class Run:
    """A trained model (its preprocessing inside), the history of its training, and the metrics of each part.

    ``title`` stands above the learning curve.
    """

    model: Model
    history: dict[str, list[float]]
    metrics: dict[str, Any]
    title: str = ""


def compiled(layers: list[Any], pre: Preprocessor, settings: TrainingSettings) -> Model:
    """The network, compiled, with its output layer and its preprocessing.

    Args:
        layers: all of it but the output layer, from ``Input`` on.
        pre: what makes the inputs; it knows the outputs.
        settings: say how to train.

    Raises:
        ValueError: bad settings.
    """
    from fastnn.layers import Dense
    from fastnn.models import Sequential

    output, loss, metric = {
        "binary": ("sigmoid", "binary_crossentropy", "accuracy"),
        "multiclass": ("softmax", "sparse_categorical_crossentropy", "accuracy"),
        "regression": ("linear", "mean_squared_error", "mae"),
    }[pre.kind]
    model = Sequential([*layers, Dense(pre.outputs, activation=output)])
    model.compile(optimizer=_optimizer(settings), loss=loss, metrics=[metric])
    model.preprocessing = pre
    return model


def train(model: Model, parts: Mapping[str, Part], settings: TrainingSettings, verbose: Verbose) -> Run:
    """Train and evaluate a network.

    Args:
        model: from ``compiled``.
        parts: "train", "validation" (or none) and "test".
        settings: how.
        verbose: as in ``Model.fit``.

    Returns:
        The run, not written yet; its metrics are what was found out here, for the job to add to.

    Raises:
        ValueError: bad settings.
        FloatingPointError: the loss is no longer a finite number.
    """
    pre: Preprocessor = model.preprocessing
    start = time.perf_counter()
    history = _fit(model, parts, pre, settings, verbose)
    seconds = time.perf_counter() - start
    metrics = {
        "kind": pre.kind,
        "classes": list(pre.classes),
        "positive": pre.classes[1] if pre.kind == "binary" else None,
        "parameters": int(model.count_params()),
        "epochs": len(history["loss"]),
        "best_epoch": best_epoch(history) + 1,
        "seconds": seconds,
        "settings": asdict(settings),
        **{name: pre.score(part.truth, finite_outputs(model, part.inputs)) for name, part in parts.items()},
    }
    return Run(model, history, metrics)


def write_run(directory: str | Path, make: Callable[[], Run]) -> Run:
    """Write the files of the run that ``make`` makes to ``directory``; after an error nothing in it has changed."""
    with staged_files(directory, RUN_FILES) as place:
        run = make()
        run.model.save(str(place / "model.fnn"))
        with open(place / "history.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["epoch", *run.history])
            writer.writerows([i, *values] for i, values in enumerate(zip(*run.history.values(), strict=True), start=1))
        text = json.dumps(run.metrics, indent=2, allow_nan=False, ensure_ascii=False)
        (place / "metrics.json").write_text(text + "\n", encoding="utf-8")
        labels = CURVE_NAMES[run.metrics["kind"]]
        learning_curve(run.history, place / "learning_curve.png", title=run.title, labels=labels)
    return run


def finite_outputs(model: Model, inputs: np.ndarray) -> np.ndarray:
    """``model.predict``, and a ValueError where it is not a finite number."""
    output: np.ndarray = np.asarray(model.predict(inputs, verbose=0))
    bad = ~np.isfinite(output).all(axis=1)
    if bad.any():
        count = counted(int(bad.sum()), "row")
        raise ValueError(f"the network's output is not a finite number for {count} of {len(output)}")
    return output


def _optimizer(settings: TrainingSettings) -> Optimizer:
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
    model: Model, parts: Mapping[str, Part], pre: Preprocessor, settings: TrainingSettings, verbose: Verbose
) -> dict[str, list[float]]:
    from fastnn.callbacks import EarlyStopping

    callbacks = []
    if settings.patience:
        monitor = "val_loss" if "validation" in parts else "loss"
        callbacks.append(EarlyStopping(monitor=monitor, patience=settings.patience, restore_best_weights=True))
    held_out, rows = parts.get("validation"), parts["train"]
    history = model.fit(
        rows.inputs,
        rows.targets,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        verbose=verbose,
        callbacks=callbacks,
        validation_data=None if held_out is None else (held_out.inputs, held_out.targets),
        class_weight=_balance(rows.targets, len(pre.classes)) if settings.class_weight == "balanced" else None,
    )
    for name, values in history.history.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise FloatingPointError(f"{name} became {values[bad[0]]} in epoch {bad[0] + 1}; try a lower learning rate")
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def _balance(targets: np.ndarray, classes: int) -> dict[int, float]:
    """A weight for each class, such that each counts as much as the others: N / (K * rows of the class)."""
    if not classes:
        raise ValueError("class weights have no meaning: the target is a number")
    counts = np.bincount(targets.astype(np.int64), minlength=classes)
    return {k: len(targets) / (classes * int(count)) for k, count in enumerate(counts)}
