"""Callbacks: code that `fit` runs between epochs, and if asked between batches.

The names and their meaning are Keras's. One thing differs on purpose: a `monitor` that training does not report is an
error at the end of the first epoch, not a warning, since the callback would never do its work.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from fastnn.callback_base import Callback, CallbackList, History, LambdaCallback, Logs, count, number
from fastnn.progress import say

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]

Mode = Literal["auto", "min", "max"]

FALLING = {
    "loss",
    "error",
    "mse",
    "mae",
    "rmse",
    "mape",
    "msle",
    "crossentropy",
    "hinge",
    "logcosh",
    "divergence",
    "brier",
}
RISING = {
    "acc",
    "accuracy",
    "auc",
    "precision",
    "recall",
    "f1",
    "score",
    "r2",
    "sensitivity",
    "specificity",
    "dice",
    "iou",
}


class _Monitor:
    """One reported number that should fall ("min") or rise ("max")."""

    def __init__(self, owner: str, monitor: str, mode: Mode, min_delta: float = 0.0) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"{owner}: monitor must be a text such as 'val_loss'. Received: monitor={monitor!r}")
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{owner}: mode must be 'auto', 'min' or 'max'. Received: mode={mode!r}")
        self.owner, self.name, self.mode = owner, monitor, mode
        self.min_delta = abs(number(owner, "min_delta", min_delta))
        self.rises = self._direction()

    def value(self, logs: Mapping[str, float] | None) -> float:
        if self.name not in (logs or {}):
            known = ", ".join(logs or {}) or "nothing"
            hint = ". Names with val_ need validation_data or validation_split" if self.name.startswith("val_") else ""
            raise ValueError(f"{self.owner}: monitor={self.name!r} is not reported. Reported are: {known}{hint}")
        return float((logs or {})[self.name])

    def improves(self, value: float, reference: float | None) -> bool:
        """Whether `value` is better than `reference` by more than min_delta. NaN is never better."""
        if math.isnan(value):
            return False
        if reference is None:
            return True
        if self.rises:
            return value - self.min_delta > reference
        return value + self.min_delta < reference

    def _direction(self) -> bool:
        if self.mode != "auto":
            return self.mode == "max"
        words = set(self.name.lower().split("_"))
        if words & FALLING:
            return False
        if words & RISING:
            return True
        raise ValueError(
            f"{self.owner}: pass mode='min' or mode='max': whether {self.name!r} should fall or rise is not known"
        )


class EarlyStopping(Callback):
    """Stops training when a number has not improved for `patience` epochs.

    Args:
        monitor: the name of the number, such as "val_loss" or "accuracy".
        min_delta: the smallest change that counts as an improvement.
        patience: epochs without improvement after which training stops.
        verbose: 1 says when it stops and what it restores.
        mode: "min", "max", or "auto" to tell by the name.
        baseline: only improvements past this value restart the patience.
        restore_best_weights: at the end set the weights of the best epoch, also when training was not stopped.
        start_from_epoch: epochs (from 0) before this one are not looked at.

    Raises:
        ValueError: "auto" cannot tell the direction, or, at the end of the first epoch, `monitor` is not reported.

    Attributes:
        best: the best value, None before the first.
        best_epoch: its epoch, from 0.
        stopped_epoch: the epoch after which training was stopped, 0 if it was not.

    Example:
        >>> early = EarlyStopping(monitor="val_loss", patience=10, restore_best_weights=True)
        >>> early.best is None
        True
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: Mode = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__()
        self.monitor = monitor
        self.patience = count("EarlyStopping", "patience", patience)
        self.verbose = verbose
        self.baseline = None if baseline is None else number("EarlyStopping", "baseline", baseline)
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = count("EarlyStopping", "start_from_epoch", start_from_epoch)
        self._monitor = _Monitor("EarlyStopping", monitor, mode, min_delta)
        self._reset()

    def _reset(self) -> None:
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best: float | None = None
        self.best_weights: list[np.ndarray] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        current = self._monitor.value(logs)
        if epoch < self.start_from_epoch:
            return
        self.wait += 1
        if self._monitor.improves(current, self.best):
            self.best, self.best_epoch = current, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self._monitor.improves(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.stopped_epoch and self.verbose:
            say(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            if self.verbose:
                say(f"Restoring the weights of the best epoch: {self.best_epoch + 1}")
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(Callback):
    """Saves the whole model after epochs or batches.

    Args:
        filepath: the name of the file. ``{epoch:02d}`` and the reported names, as in ``{val_loss:.2f}``, are filled in;
            epochs count from 1 there. Its directory must exist.
        monitor: the number that decides what is best, for `save_best_only`.
        verbose: 1 says what is saved.
        save_best_only: save only when `monitor` improved.
        save_weights_only: must be False: a file is always a whole model.
        mode: "min", "max", or "auto" to tell by the name.
        save_freq: "epoch", or a number of batches (which makes `fit` come back to Python for every batch). Training
            resumes exactly from files of whole epochs; one from within an epoch begins that epoch again.
        initial_value_threshold: with `save_best_only`, save only what is better than this from the start.

    Raises:
        ValueError: an argument is wrong, or `filepath` or `monitor` needs a name that is not reported.
        OSError: the directory is missing (seen before training starts) or the file cannot be written.

    Example:
        >>> best = ModelCheckpoint("best-{epoch:02d}.fnn", monitor="val_accuracy", save_best_only=True)
        >>> best.wants_batches
        False
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: Mode = "auto",
        save_freq: Literal["epoch"] | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__()
        if save_weights_only:
            raise ValueError("ModelCheckpoint: save_weights_only must be False: a file holds the whole model")
        from fastnn.tensorfile import file_name

        self.filepath = file_name(filepath, "ModelCheckpoint")
        self.monitor = monitor
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_freq = (
            save_freq if save_freq == "epoch" else count("ModelCheckpoint", "save_freq", save_freq, least=1)
        )
        threshold = initial_value_threshold
        self.best = None if threshold is None else number("ModelCheckpoint", "initial_value_threshold", threshold)
        self._monitor = _Monitor("ModelCheckpoint", monitor, mode) if save_best_only else None
        self._epoch = self._batches = 0

    @property
    def wants_batches(self) -> bool:
        return self.save_freq != "epoch"

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._batches = 0
        directory = os.path.dirname(self.filepath)
        if directory and "{" not in directory and not os.path.isdir(directory):
            raise FileNotFoundError(f"ModelCheckpoint: the directory {directory!r} does not exist")

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch":
            return
        self._batches += 1
        if self._batches >= self.save_freq:
            self._batches = 0
            self._save(self._epoch, batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, None, logs or {})

    def _save(self, epoch: int, batch: int | None, logs: Logs) -> None:
        fields: dict[str, Any] = {**logs, "epoch": epoch + 1} | ({} if batch is None else {"batch": batch + 1})
        try:
            path = self.filepath.format(**fields)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"ModelCheckpoint: filepath={self.filepath!r} cannot be filled in ({error!r}). "
                f"Known are: {', '.join(fields)}"
            ) from error
        best = self.best
        if self._monitor:
            best = self._monitor.value(logs)
            if not self._monitor.improves(best, self.best):
                if self.verbose:
                    say(f"Epoch {epoch + 1}: {self.monitor} did not improve from {_short(self.best)}")
                return
            if self.verbose:
                before = "" if self.best is None else f" from {_short(self.best)}"
                say(f"Epoch {epoch + 1}: {self.monitor} improved{before} to {_short(best)}")
        self.model.save(path)
        self.best = best
        if self.verbose:
            say(f"Epoch {epoch + 1}: saved the model to {path}")


class ReduceLROnPlateau(Callback):
    """Multiplies the learning rate by `factor` when a number has not improved for `patience` epochs.

    Args:
        monitor: the name of the number.
        factor: below 1.
        patience: epochs without improvement before the rate is reduced.
        verbose: 1 says when.
        mode: "min", "max", or "auto" to tell by the name.
        min_delta: the smallest change that counts as an improvement.
        cooldown: epochs after a reduction in which none are counted.
        min_lr: the rate does not fall below this.

    The rate of each epoch is added to its logs as "learning_rate".
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: Mode = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__()
        self.factor = number("ReduceLROnPlateau", "factor", factor)
        if not 0 < self.factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be between 0 and 1. Received: factor={factor!r}")
        self.monitor = monitor
        self.patience = count("ReduceLROnPlateau", "patience", patience)
        self.verbose = verbose
        self.cooldown = count("ReduceLROnPlateau", "cooldown", cooldown)
        self.min_lr = number("ReduceLROnPlateau", "min_lr", min_lr)
        self._monitor = _Monitor("ReduceLROnPlateau", monitor, mode, min_delta)
        self._reset()

    def _reset(self) -> None:
        self.best: float | None = None
        self.wait = self.cooldown_counter = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        current = self._monitor.value(logs)
        rate = _rate(self)
        if logs is not None:
            logs["learning_rate"] = rate
        if self.cooldown_counter:
            self.cooldown_counter -= 1
            self.wait = 0
        if self._monitor.improves(current, self.best):
            self.best, self.wait = current, 0
        elif not self.cooldown_counter:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                self.model.optimizer.learning_rate = max(rate * self.factor, self.min_lr)
                self.cooldown_counter, self.wait = self.cooldown, 0
                if self.verbose:
                    say(f"Epoch {epoch + 1}: the learning rate falls to {self.model.optimizer.learning_rate:g}")


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch.

    Args:
        schedule: a function of the epoch (from 0) and the current rate, or of the epoch alone, that returns the rate.
        verbose: 1 says the rate.

    The rate of each epoch is added to its logs as "learning_rate".

    Example:
        >>> halve = LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch and epoch % 10 == 0 else rate)
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        super().__init__()
        if not callable(schedule):
            raise TypeError(f"LearningRateScheduler: schedule must be a function. Received: {schedule!r:.80}")
        self.schedule = schedule
        self.verbose = verbose
        import inspect

        try:
            inspect.signature(schedule).bind(0, 0.1)
        except TypeError:
            self._takes_rate = False
        except ValueError:  # a built-in function that does not tell
            self._takes_rate = True
        else:
            self._takes_rate = True

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        current = _rate(self)
        rate = number(
            "LearningRateScheduler", "the schedule's result", self.schedule(*(epoch, current)[: 1 + self._takes_rate])
        )
        if not 0 <= rate < math.inf:
            raise ValueError(
                f"LearningRateScheduler: the schedule must return a rate of at least 0. Received: {rate!r}"
            )
        self.model.optimizer.learning_rate = rate
        if self.verbose:
            say(f"Epoch {epoch + 1}: the learning rate is {rate:g}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = _rate(self)


class CSVLogger(Callback):
    """Writes a line for each epoch to a CSV file: the epoch (from 0), then the reported names in alphabetical order.

    Args:
        filename: the file.
        separator: between two fields.
        append: add to an existing file, whose columns must be the same, instead of starting anew.
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        super().__init__()
        from fastnn.tensorfile import file_name

        self.filename = file_name(filename, "CSVLogger")
        if len(separator) != 1:
            raise ValueError(f"CSVLogger: separator must be one character. Received: separator={separator!r}")
        self.separator = separator
        self.append = append
        self._names: list[str] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._names = []
        if self.append and os.path.exists(self.filename):
            import csv

            with open(self.filename, newline="", encoding="utf-8") as file:
                self._names = next(csv.reader(file, delimiter=self.separator), [])[1:]
        else:
            self._write([])

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        row, rows = logs or {}, []
        if not self._names:
            self._names = sorted(row)
            rows.append(["epoch", *self._names])
        if set(self._names) != set(row):
            raise ValueError(
                f"CSVLogger: {self.filename!r} has the columns {', '.join(self._names)}. Reported are: {', '.join(row)}"
            )
        self._write([*rows, [epoch, *(row[name] for name in self._names)]])

    def _write(self, rows: list[list[Any]]) -> None:
        """Add rows; with none, start an empty file. Nothing stays open that an interrupted training could leave."""
        import csv

        with open(self.filename, "a" if rows else "w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=self.separator, lineterminator="\n").writerows(rows)


class TerminateOnNaN(Callback):
    """Stops training quietly after an epoch whose loss is NaN or infinite; without it, `fit` raises an error.

    Keras looks after every batch; a NaN stays in the mean of the epoch, so looking once finds it too and costs nothing.
    """

    ends_on_nan = True

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            say(f"Epoch {epoch + 1}: the loss is {loss}, training stops")
            self.model.stop_training = True


def _rate(callback: Callback) -> float:
    rate = callback.model.optimizer.learning_rate
    if not isinstance(rate, (int, float)):
        raise ValueError(
            f"{type(callback).__name__}: the optimizer's learning rate is a schedule of its own. Received: {rate!r:.80}"
        )
    return float(rate)


def _short(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.5f}"
