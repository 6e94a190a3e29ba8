"""What every callback is, the list of them that `fit` calls, and the two that do nothing but pass on or record.

The public door is `fastnn.callbacks`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastnn.models import Model

__all__ = ["Callback", "CallbackList", "History", "LambdaCallback", "Logs"]

Logs = dict[str, float]

BATCH_HOOKS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
HOOKS = (
    "on_train_begin",
    "on_train_end",
    "on_epoch_begin",
    "on_epoch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_begin",
    "on_test_end",
)
NEVER_CALLED = (
    "on_test_batch_begin",
    "on_test_batch_end",
    "on_predict_begin",
    "on_predict_end",
    "on_predict_batch_begin",
    "on_predict_batch_end",
)

logger = logging.getLogger(__name__)


class Callback:
    """Base class: override the moments you need.

    `self.model` is the model, `self.params` has "epochs", "steps" (None if not known) and "verbose". Setting
    `self.model.stop_training` to True ends training after the current epoch, or after the current batch from a batch
    method. `logs` holds the loss and the metrics by name; what one callback adds to it is seen by those after it and by
    `History`.

    Overriding a batch method costs a return to Python for every batch, which for a small network takes more time than
    the batch; all others are free.

    Example:
        >>> class Note(Callback):
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         print(epoch, logs)
        >>> CallbackList([Note()]).on_epoch_end(0, {"loss": 0.5})
        0 {'loss': 0.5}
        >>> Note().wants_batches
        False
    """

    model: Any = None
    params: dict[str, Any]
    #: Whether it deals with a loss that is no number itself; `fit` raises otherwise.
    ends_on_nan = False

    def __init__(self) -> None:
        self.params = {}

    def set_model(self, model: Model | None) -> None:
        """Called by `fit` before anything else."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Called by `fit` with "epochs", "steps" and "verbose"."""
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch; `logs` are those of that epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before epoch number `epoch` (from 0)."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After epoch number `epoch` (from 0) and its validation."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before batch number `batch` (from 0) of the epoch."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After batch number `batch`; `logs` has the means over the epoch so far."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Older name of `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Older name of `on_train_batch_end`."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before the validation of an epoch."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After the validation of an epoch."""

    @property
    def wants_batches(self) -> bool:
        """Whether a batch method is overridden, so that `fit` has to come back for every batch."""
        return any(_overrides(self, hook) for hook in BATCH_HOOKS)


def _overrides(callback: Callback, hook: str) -> bool:
    return getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook)


class CallbackList:
    """The callbacks of one `fit`, called as one. Adds a `History` at the end if there is none.

    Args:
        callbacks: a callback, several, or None.
        model: given to each by `set_model`.
        params: given to each by `set_params`.

    Raises:
        TypeError: something in `callbacks` is not a `Callback`.
    """

    def __init__(
        self,
        callbacks: Callback | CallbackList | Iterable[Callback] | None = None,
        model: Model | None = None,
        params: dict[str, Any] | None = None,
    ) -> None:
        self.callbacks = _as_list(callbacks)
        for callback in self.callbacks:
            for hook in NEVER_CALLED:
                if hasattr(callback, hook):
                    logger.warning("%s.%s is never called by fastnn", type(callback).__name__, hook)
        histories = [callback for callback in self.callbacks if isinstance(callback, History)]
        self.history = histories[0] if histories else History()
        if not histories:
            self.callbacks.append(self.history)
        self.wants_batches = any(callback.wants_batches for callback in self.callbacks)
        self.custom = any(_is_custom(callback) for callback in self.callbacks)
        self.ends_on_nan = any(callback.ends_on_nan for callback in self.callbacks)
        self._calls: dict[str, list[Callable[..., None]]] = {hook: self._methods(hook) for hook in HOOKS}
        self.set_model(model)
        self.set_params(params or {})

    def _methods(self, hook: str) -> list[Callable[..., None]]:
        older = hook.replace("train_batch", "batch")
        return [
            getattr(c, hook) for c in self.callbacks if _overrides(c, hook) or (older != hook and _overrides(c, older))
        ]

    def set_model(self, model: Model | None) -> None:
        for callback in self.callbacks:
            callback.set_model(model)

    def set_params(self, params: dict[str, Any]) -> None:
        for callback in self.callbacks:
            callback.set_params(params)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        for call in self._calls["on_train_begin"]:
            call(logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        for call in self._calls["on_train_end"]:
            call(logs)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        for call in self._calls["on_epoch_begin"]:
            call(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        for call in self._calls["on_epoch_end"]:
            call(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        for call in self._calls["on_train_batch_begin"]:
            call(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        for call in self._calls["on_train_batch_end"]:
            call(batch, logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        for call in self._calls["on_test_begin"]:
            call(logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        for call in self._calls["on_test_end"]:
            call(logs)


def _as_list(given: Any) -> list[Callback]:
    if isinstance(given, CallbackList):
        given = given.callbacks
    if given is None or isinstance(given, Callback):
        given = [] if given is None else [given]
    if not isinstance(given, Iterable):
        raise TypeError(f"callbacks must be a Callback or a list of them. Received: {given!r:.80}")
    callbacks = list(given)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            hint = " (a class: add parentheses)" if isinstance(callback, type) else ""
            raise TypeError(f"callbacks must be fastnn.callbacks.Callback objects. Received: {callback!r:.80}{hint}")
    return callbacks


def _is_custom(callback: Callback) -> bool:
    """Whether code of the user may run, and print."""
    return isinstance(callback, LambdaCallback) or not type(callback).__module__.startswith("fastnn.callback")


class History(Callback):
    """Records what each epoch reported; `fit` returns one.

    Attributes:
        history: a list of one number an epoch for each name, for instance ``{"loss": [0.7, 0.6], "val_loss": [...]}``.
        epoch: the numbers of the epochs, from 0.

    Example:
        >>> history = History()
        >>> CallbackList(history).on_epoch_end(0, {"loss": 0.7})
        >>> history.history, history.epoch
        ({'loss': [0.7]}, [0])
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.history, self.epoch = {}, []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class LambdaCallback(Callback):
    """A callback made of functions, each with the arguments of the method that it stands for.

    Example:
        >>> callback = LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))
        >>> CallbackList([callback]).on_epoch_end(3, {"loss": 0.25})
        3 0.25
    """

    def __init__(
        self,
        on_epoch_begin: Callable[[int, Logs | None], Any] | None = None,
        on_epoch_end: Callable[[int, Logs | None], Any] | None = None,
        on_train_begin: Callable[[Logs | None], Any] | None = None,
        on_train_end: Callable[[Logs | None], Any] | None = None,
        on_train_batch_begin: Callable[[int, Logs | None], Any] | None = None,
        on_train_batch_end: Callable[[int, Logs | None], Any] | None = None,
        **others: Callable[..., Any] | None,
    ) -> None:
        super().__init__()
        functions = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **others,
        }
        for hook, function in functions.items():
            if hook not in HOOKS and hook not in BATCH_HOOKS:
                raise ValueError(f"LambdaCallback: {hook!r} is never called. Known are: {', '.join(HOOKS)}")
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"LambdaCallback: {hook} must be a function. Received: {function!r:.80}")
            setattr(self, hook, function)


# ---------------------------------------------------------------- arguments


def number(owner: str, name: str, value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{owner}: {name} must be a number. Received: {value!r:.80}")
    if math.isnan(value):
        raise ValueError(f"{owner}: {name} must be a number. Received: {value!r}")
    return float(value)


def count(owner: str, name: str, value: Any, least: int = 0) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{owner}: {name} must be an integer. Received: {name}={value!r:.80}")
    if value < least:
        raise ValueError(f"{owner}: {name} must be at least {least}. Received: {name}={value!r}")
    return int(value)
