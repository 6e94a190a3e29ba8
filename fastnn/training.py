"""Training, testing and predicting: the loop over Plans. It does not know which backend runs."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fastnn import callbacks as callbacks_
from fastnn import config, losses, metrics, optimizers
from fastnn.asking import Predictor, TestStep
from fastnn.configurable import number, whole
from fastnn.data import as_rows, check_rows, check_weights, joined_weights
from fastnn.graph import Tensor
from fastnn.layers import Layer
from fastnn.layers.base import Training, Weight
from fastnn.network import flatten
from fastnn.plan import zeros
from fastnn.profiling import Profile, profile
from fastnn.progress import ProgressBar
from fastnn.steps import PULSE, Feed, Layout, TrainStep

if TYPE_CHECKING:
    from fastnn.models import Model

#: A model keeps so many Programs and what belongs to them.
PROGRAMS = 12

Rows = tuple[np.ndarray, np.ndarray, np.ndarray | None]


class Trainable:
    """What can be compiled, trained and asked; a Model adds the layers."""

    name: str
    dtype: str
    seed: int
    preprocessing: Any
    input_shape: Any
    output_shape: Any
    _layers: list[Layer]

    def _start_training(self) -> None:
        self.history: callbacks_.History | None = None
        self.stop_training = False
        self._optimizer: optimizers.Optimizer | None = None
        self._loss: losses.Loss | None = None
        self._asked_metrics: list[Any] = []
        self._epochs = 0
        self._trained_by: int | None = None  # the process in which a fit is running; a forked child is free
        self._clear()

    def _clear(self) -> None:
        """Forget everything derived from layers and settings."""
        self._programs: dict[Any, Any] = {}
        self._slot_vectors: tuple[Layout, list[np.ndarray]] | None = None
        self._answer: Any = None

    def _built(self) -> None:
        """Make sure that the layers have their weights."""

    def _build_for(self, rows: np.ndarray) -> None:
        """Make sure of it, the shape of the input being that of these rows if it is not known otherwise."""
        self._built()

    @property
    def weights(self) -> list[Weight]:
        """All weights, layer after layer."""
        raise NotImplementedError

    @property
    def trainable_weights(self) -> list[Weight]:
        """The weights that training changes."""
        raise NotImplementedError

    def trace(self, inputs: Sequence[Tensor], training: Training | None) -> list[Tensor]:
        """Record the layers' ops from these inputs on; returns the outputs."""
        raise NotImplementedError

    def _repeat(self, x: Any) -> Any:
        """The outputs of the layers called again on other Tensors."""
        raise NotImplementedError

    def vectors(self) -> dict[str, np.ndarray]:
        """The flat vectors of weights by buffer name."""
        raise NotImplementedError

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """The optimizer."""
        return self._compiled()[0]

    @property
    def loss(self) -> losses.Loss:
        """The loss."""
        return self._compiled()[1]

    def _compiled(self) -> tuple[optimizers.Optimizer, losses.Loss]:
        if self._optimizer is None or self._loss is None:
            raise RuntimeError(f"{self.name}: must be compiled first: model.compile(optimizer=..., loss=...)")
        return self._optimizer, self._loss

    @property
    def metric_objects(self) -> list[metrics.Metric]:
        """The metrics, once the shapes are known."""
        if "metrics" not in self._programs:
            outputs = self.output_shape[-1]
            self._programs["metrics"] = [metrics.get(m, self.loss, outputs) for m in self._asked_metrics]
        found: list[metrics.Metric] = self._programs["metrics"]
        return found

    @property
    def metrics_names(self) -> list[str]:
        """Names of what ``evaluate`` returns."""
        return ["loss", *(m.name for m in self.metric_objects)]

    def slots(self, layout: Layout) -> list[np.ndarray]:
        """The optimizer's flat vectors for this layout, kept; zeros at first."""
        self._slot_vectors = layout, self.slots_for(layout)
        return self._slot_vectors[1]

    def slots_for(self, layout: Layout) -> list[np.ndarray]:
        """The same, not kept. What is known of a weight comes along when other weights are frozen or set free."""
        if self._slot_vectors is not None and self._slot_vectors[0] == layout:
            return self._slot_vectors[1]
        vectors = [zeros(layout.size, self.dtype) for _ in self.optimizer.slots]
        before, known = self._slot_vectors or (Layout([], [], 0), vectors)
        places = dict(zip(before.weights, before.offsets, strict=True))
        for weight, offset in zip(layout.weights, layout.offsets, strict=True):
            if weight in places:
                for vector, old in zip(vectors, known, strict=True):
                    part = slice(places[weight], places[weight] + weight.size)
                    vector[offset : offset + weight.size] = old[part]
        return vectors

    # ------------------------------------------------------------------ training

    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "rmsprop",
        loss: str | losses.Loss | None = None,
        metrics: str | metrics.Metric | Sequence[str | metrics.Metric | Callable[..., float]] | None = None,
    ) -> None:
        """Say how to train.

        Args:
            optimizer: name ("adam", "adamw", "sgd", "rmsprop") or Optimizer
            loss: name ("binary_crossentropy", "mse", "dice", ...) or Loss, also a sum of them
            metrics: names ("accuracy", "dice", ...), Metrics or functions ``f(y_true, y_pred)`` of two arrays, or one

        Raises:
            ValueError: one of them is unknown; the model stays as it was
        """
        chosen = optimizers.get(optimizer)
        if loss is None:
            raise ValueError("compile: loss must be given, such as loss='binary_crossentropy'. Received: loss=None")
        chosen_loss = losses.get(loss)
        several = isinstance(metrics, Sequence) and not isinstance(metrics, str)
        asked: list[Any] = [] if metrics is None else list(metrics) if several else [metrics]  # type: ignore[arg-type]
        asked = [m() if isinstance(m, type) else m for m in asked]
        self._check_metrics(asked, chosen_loss)
        if self.dtype == "float64" and config.backend() != "numpy":
            raise ValueError(f"compile: float64 models need the numpy backend. Received: backend {config.backend()!r}")
        if chosen.owner is not None and chosen.owner() not in (None, self):
            raise ValueError(
                f"compile: each model needs an optimizer of its own. Received: the optimizer of {chosen.owner()!r}"
            )
        chosen.owner, chosen.iterations = weakref.ref(self), 0
        self._optimizer, self._loss, self._asked_metrics = chosen, chosen_loss, asked
        self._clear()

    def _check_metrics(self, asked: list[Any], loss: losses.Loss) -> None:
        names = [metrics.get(m, loss, None).name for m in asked]
        if len({*names, "loss"}) < len(names) + 1:
            raise ValueError(f"compile: metrics must have different names, none of them 'loss'. Received: {names}")

    def fit(
        self,
        x: Any,
        y: Any,
        batch_size: int | None = 32,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Sequence[Any] | None = None,
        validation_split: float = 0.0,
        validation_data: Sequence[Any] | None = None,
        shuffle: bool = True,
        class_weight: Mapping[Any, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        validation_batch_size: int | None = None,
    ) -> callbacks_.History:
        """Train.

        Args:
            x: (N, ...) inputs
            y: targets, of the outputs' shape (N, ..., C), or labels (N, ...); a last axis of size 1 may be missing
            batch_size: rows of a training step
            epochs: number of the last epoch; training starts with number ``initial_epoch``
            verbose: 0 silent, 1 progress bar, 2 a line an epoch, "auto": bar on a terminal, lines in a file
            callbacks: Callback or list of them
            validation_split: this share of the rows, chosen by the model's seed, is kept for validation
            validation_data: ``(x, y)`` or ``(x, y, sample_weight)``; goes before ``validation_split``
            shuffle: new order of the rows in each epoch, from the model's seed
            class_weight: {class: weight} of rows or, in images, pixels, for 0/1 targets, labels or one-hot targets;
                classes not named weigh 1
            sample_weight: weights of the rows' losses, (N,), or of the pixels', (N, ...)
            initial_epoch: epochs counted as done before, see ``epochs``
            validation_batch_size: accepted; validation gives the same numbers for any

        Returns:
            History: ``history["loss"]``, ``history["val_accuracy"]`` ...: one number an epoch

        Raises:
            ValueError: the data do not fit; nothing has been changed
            FloatingPointError: the loss became NaN or infinite
            KeyboardInterrupt: on Ctrl-C, within a tenth of a second; the model is as after the last whole step

        Metrics are means over the epoch while the weights change, as in Keras; validation comes after the epoch.
        """
        self._compiled()
        x, y, weights = self._data("fit", x, y, sample_weight, class_weight)
        batch = min(whole("fit", "batch_size", 32 if batch_size is None else batch_size), len(x))
        epochs = whole("fit", "epochs", epochs, low=0)
        initial_epoch = whole("fit", "initial_epoch", initial_epoch, low=0)
        split = number("fit", "validation_split", validation_split, low=0, below=1)
        if validation_batch_size is not None:
            whole("fit", "validation_batch_size", validation_batch_size)
        held_out: Rows | None = None
        places: np.ndarray | None = None  # the rows to train on, where these are not all
        if validation_data is not None:
            held_out = self._validation_data(validation_data)
        elif split:
            kept = int(round(len(x) * (1.0 - split), 6))  # 1 - 0.3 is a little less than 0.7
            if kept in (0, len(x)):
                raise ValueError(
                    f"fit: validation_split must leave rows on both sides. Received: validation_split={split} "
                    f"for {len(x)} rows"
                )
            order = np.random.default_rng([self.seed, 0]).permutation(len(x))
            places, there = order[:kept], order[kept:]
            held_out = (x[there], y[there], None if weights is None else weights[there])
            batch = min(batch, kept)
        targets = y if places is None else y[places]
        rows = len(targets)

        steps = -(-rows // batch)
        bar = ProgressBar(epochs, steps, verbose)
        hooks = callbacks_.CallbackList(
            callbacks,
            model=cast("Model", self),
            params={"epochs": epochs, "steps": steps, "verbose": verbose},
        )
        step = self._train_step(batch, y, weights)
        test = None if held_out is None else self._test_step(*held_out[1:])
        feed = self._program(
            ("feed", len(x), rows, batch, bool(shuffle)), lambda: Feed(self, rows, batch, bool(shuffle), places)
        )
        buffers = step.buffers(x, y, weights, self.slots(step.layout))
        self.stop_training = False
        logs: dict[str, float] = {}
        if self._trained_by == os.getpid():
            bar.close()
            raise RuntimeError(f"{self.name}: is being trained already, by another thread or from a callback")
        self._trained_by = os.getpid()
        try:
            hooks.on_train_begin()
            with _gentle_interrupt() as interrupted:
                for epoch in range(initial_epoch, epochs):
                    start = time.perf_counter()
                    bar.epoch_begin(epoch)
                    hooks.on_epoch_begin(epoch)
                    done = self._epoch(step, buffers, targets, batch, feed, hooks, bar, interrupted)
                    logs = step.logs(buffers, min(done * batch, rows), targets, places)
                    if not math.isfinite(logs["loss"]) and not hooks.ends_on_nan:
                        raise FloatingPointError(
                            f"fit: the loss became {logs['loss']} in epoch {epoch + 1}. A smaller learning rate, or "
                            "standardized inputs, may help"
                        )
                    if test is not None and held_out is not None:
                        hooks.on_test_begin()
                        val_logs = test.run(*held_out)
                        hooks.on_test_end(val_logs)
                        logs |= {f"val_{name}": value for name, value in val_logs.items()}
                    self._epochs += 1
                    bar.epoch_end(epoch, logs, time.perf_counter() - start)
                    if hooks.custom:
                        bar.flush()  # what a callback prints comes after the line of its epoch
                    hooks.on_epoch_end(epoch, logs)
                    interrupted()
                    if self.stop_training:
                        break
            hooks.on_train_end(logs)
        finally:
            self._trained_by = None
            bar.close()
        self.history = hooks.history
        return hooks.history

    def _epoch(
        self,
        step: TrainStep,
        buffers: dict[str, np.ndarray],
        y: np.ndarray,
        batch: int,
        feed: Feed,
        hooks: callbacks_.CallbackList,
        bar: ProgressBar,
        interrupted: Callable[[], None],
    ) -> int:
        """All steps of one epoch, or as many as a callback wants; returns their number."""
        rows, steps, optimizer = len(y), feed.steps, self.optimizer
        start = optimizer.iterations
        run = {**buffers, **feed.epoch(self._epochs)}
        if hooks.wants_batches:
            run["rates"] = run["rates"].copy()
        step.totals.array.fill(0.0)
        done = 0
        while done < steps:
            if hooks.wants_batches:
                hooks.on_train_batch_begin(done)
                run["rates"][done] = optimizer.rates(start + done, 1)  # a callback may have changed them
                done = step.run(run, done, done + 1, batch, rows)
            else:
                done = step.run(run, done, steps, batch, rows, PULSE)
            optimizer.iterations = start + done
            if hooks.wants_batches:
                hooks.on_train_batch_end(done - 1, step.logs(run, min(done * batch, rows), y, feed.places))
            if done < steps:
                bar.update(done, step.logs(run, done * batch, y, feed.places))
                interrupted()
                if self.stop_training and hooks.wants_batches:
                    break
        return done

    def _validation_data(self, given: Sequence[Any]) -> Rows:
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            kind = type(given).__name__
            raise ValueError(f"fit: validation_data must be (x, y) or (x, y, sample_weight). Received: {kind}")
        return self._data("fit: validation_data", given[0], given[1], given[2] if len(given) == 3 else None, None)

    def _data(
        self, what: str, x: Any, y: Any, sample_weight: Any, class_weight: Mapping[Any, float] | None
    ) -> Rows:
        """Checked arrays: inputs, targets, weights of the rows."""
        x = self._rows(what, x)
        if y is None:
            raise ValueError(f"{what}: y must be given. Received: y=None")
        y = as_rows(what, "y", y, self.dtype)
        if len(x) != len(y):
            raise ValueError(f"{what}: x and y must have the same number of rows. Received: {len(x)} and {len(y)}")
        given, classes = check_weights(what, len(x), sample_weight, class_weight, self.dtype)
        x = self._fitting(what, x)
        y = np.ascontiguousarray(self.loss.targets(y, self.output_shape), self.dtype)
        weights = joined_weights(what, y, given, classes)
        for metric in self.metric_objects:
            metric.check(y, self.output_shape[-1])
        return x, y, weights

    def _inputs(self, what: str, x: Any) -> np.ndarray:
        return self._fitting(what, self._rows(what, x))

    def _rows(self, what: str, x: Any) -> np.ndarray:
        if self.preprocessing is not None and hasattr(x, "columns"):
            x = self.preprocessing.transform(x)
        return as_rows(what, "x", x, self.dtype)

    def _fitting(self, what: str, rows: np.ndarray) -> np.ndarray:
        self._build_for(rows)
        return check_rows(what, rows, self.input_shape)

    def _program(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` makes, kept as long as layers, settings and backend stay the same."""
        key = (key, config.engine(), tuple(layer.trainable for layer in self._layers))
        if key not in self._programs:
            kept = [k for k in self._programs if isinstance(k, tuple)]
            for oldest in kept[: len(kept) - PROGRAMS + 1]:  # of other batch sizes, say
                del self._programs[oldest]
            self._programs[key] = make()
        return self._programs[key]

    def _train_step(self, batch: int, y: np.ndarray, weights: np.ndarray | None) -> TrainStep:
        """The training step for batches of so many rows of such targets and weights."""
        row, weight = y.shape[1:], None if weights is None else weights.shape[1:]
        step: TrainStep = self._program(("train", batch, row, weight), lambda: TrainStep(self, batch, row, weight))
        return step

    def _test_step(self, y: np.ndarray, weights: np.ndarray | None) -> TestStep:
        """The test step for such targets and weights."""
        row, weight = y.shape[1:], None if weights is None else weights.shape[1:]
        test: TestStep = self._program(("test", row, weight), lambda: TestStep(self, row, weight))
        return test

    def train_on_batch(
        self, x: Any, y: Any, sample_weight: Any = None, class_weight: Mapping[Any, float] | None = None
    ) -> float:
        """One training step on these rows; returns their loss before it."""
        self._compiled()
        x, y, weights = self._data("train_on_batch", x, y, sample_weight, class_weight)
        size = max(len(x), self._programs.get("batch size", 1))
        self._programs["batch size"] = size
        step = self._train_step(size, y, weights)
        start = self.optimizer.iterations
        feed = Feed(self, len(x), len(x), shuffle=False)
        buffers = {**step.buffers(x, y, weights, self.slots(step.layout)), **feed.epoch(0)}
        step.totals.array.fill(0.0)
        with _gentle_interrupt():
            step.run(buffers, 0, 1, len(x), len(x))
            self.optimizer.iterations = start + 1
        return float(step.totals.array[0]) / len(x)

    # ------------------------------------------------------------------ asking

    def evaluate(
        self,
        x: Any,
        y: Any,
        batch_size: int | None = None,
        verbose: Any = 0,
        sample_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Loss and metrics on these rows: the loss if there are no metrics, else a list (or a dict by name).

        ``batch_size`` is accepted; the numbers are the same for any.
        """
        self._compiled()
        x, y, weights = self._data("evaluate", x, y, sample_weight, None)
        test = self._test_step(y, weights)
        start = time.perf_counter()
        logs = test.run(x, y, weights)
        if verbose:
            bar = ProgressBar(1, -(-len(x) // test.plan.batch), verbose, title="Evaluation")
            bar.epoch_end(0, logs, time.perf_counter() - start)
            bar.close()
        if return_dict:
            return logs
        return logs["loss"] if len(logs) == 1 else list(logs.values())

    def predict(self, x: Any, batch_size: int | None = None, verbose: Any = 0) -> np.ndarray:
        """The outputs (N, C) for inputs (N, ...).

        Row i of the result has the same bits whatever other rows are asked with it, and for any number of threads.
        ``batch_size`` and ``verbose`` are accepted; memory is bounded anyway.
        """
        return self._run(self._inputs("predict", x))

    def predict_on_batch(self, x: Any) -> np.ndarray:
        """The same as ``predict``, with as little as possible before and after the arithmetic."""
        return self(x)  # type: ignore[no-any-return]

    def __call__(self, x: Any, training: Any = None) -> Any:
        """Fast inference on an array (N, ...); on a Tensor, apply the model like a layer.

        Rows are checked for their shape only: NaN in, NaN out.
        """
        if self._answer is not None:
            engine, answer = self._answer
            if engine is config.engine():
                output = answer(x)
                if output is not None:
                    return output
        if any(isinstance(each, Tensor) for each in flatten(x)[0]):
            return self._repeat(x)
        rows = as_rows(self.name, "x", x, self.dtype, finite=False)
        self._build_for(rows)
        return self._run(check_rows(self.name, rows, self.input_shape))

    def profile(self, x: Any, y: Any = None, batch_size: int = 32, seconds: float = 1.0) -> Profile:
        """Time every step of training (``y`` given) or prediction, many times, on the first rows of ``x``.

        The model stays as it is: training runs on copies of its weights.

        Args:
            x: (N, ...) inputs
            y: targets as for ``fit``; None for prediction
            batch_size: rows of the batch; all rows if there are fewer
            seconds: go on for about so long

        Returns:
            Profile: prints as a table of each step's op, shapes, time, share of the total, GFLOP/s (those of direct
            summation, whatever the algorithm) also as a share of what the machine can do, and GB/s

        Raises:
            ValueError: an argument is out of its range, or the data do not fit

        Example:
            >>> import numpy as np
            >>> from fastnn import Sequential
            >>> from fastnn.layers import Dense
            >>> model = Sequential([Dense(64, activation="relu", input_shape=(30,)), Dense(1)])
            >>> profile = model.profile(np.ones((32, 30)), seconds=0.1)
            >>> print(profile)
            Profile sequential...: prediction: batch 32, ...
                step                                          time in us  share ...
            0   dense (N, 30) (30, 64) (64) -> (N, 64) activation=relu ...
            1   dense (N, 64) (64, 1) (1) -> (N, 1) activation=linear ...
                total ...
            >>> len(profile.steps)
            2
        """
        batch = whole("profile", "batch_size", batch_size)
        limit = number("profile", "seconds", seconds, low=0)
        if y is None:
            return profile(self, self._inputs("profile", x), None, batch, limit)
        self._compiled()
        x, y, _ = self._data("profile", x, y, None, None)
        return profile(self, x, y, batch, limit)

    def _run(self, x: np.ndarray) -> np.ndarray:
        predictor: Predictor = self._program("predict", lambda: Predictor(self))
        self._answer = predictor.answer
        return predictor.run(x)


@contextmanager
def _gentle_interrupt() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until the function it yields is called, or the block ends; a second one comes through at once.

    A training step is never cut in two. Where somebody else handles the signal, or in other threads, nothing is done.
    """
    pressed = False

    def remember(number: int, frame: Any) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    def raise_if_pressed() -> None:
        if pressed:
            raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, remember)
    try:
        yield raise_if_pressed
        raise_if_pressed()
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
