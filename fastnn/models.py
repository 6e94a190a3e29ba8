"""Sequential and Model: layers with weights, compiled, trained, asked.

Names and meaning are Keras's; one difference by choice: ``validation_split`` shuffles (with the seed) before it splits.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from fastnn import callbacks as callbacks_
from fastnn import config, losses, metrics, optimizers
from fastnn.configurable import describe, number, restore, whole
from fastnn.data import as_rows, check_rows, row_weights
from fastnn.graph import Shape, Tensor
from fastnn.layers import LAYERS, Layer
from fastnn.layers.base import Training, Weight, assign_all, check_name, unique_name
from fastnn.layers.core import InputLayer
from fastnn.plan import Plan, aligned
from fastnn.progress import ProgressBar
from fastnn.training import ROWS, Layout, TestStep, TrainStep, predict_plan, zeros

logger = logging.getLogger(__name__)

#: A call into the engine returns about so often, in seconds, for the progress bar and Ctrl-C.
PULSE = 0.05


class Model:
    """A network from an input Tensor to an output Tensor.

    Parameters
    ----------
    inputs : Tensor from ``Input``
    outputs : Tensor made from it by layers
    name : made up if None

    Attributes
    ----------
    layers : the layers in the order of the data
    input_shape, output_shape : shapes with None for the batch
    optimizer, loss, metric_objects : what ``compile`` was given, as objects
    stop_training : set to True, training ends after the current epoch
    preprocessing : what turns raw rows into inputs; saved with the model

    >>> from fastnn.layers import Dense, Input
    >>> x = Input(shape=(4,))
    >>> model = Model(x, Dense(1)(Dense(8, activation="relu")(x)))
    >>> model.output_shape
    (None, 1)
    """

    def __init__(self, inputs: Tensor, outputs: Tensor, name: str | None = None) -> None:
        self._start(name)
        self._link(inputs, outputs)

    def _start(self, name: str | None) -> None:
        self.name = unique_name(type(self).__name__) if name is None else check_name(type(self).__name__, name)
        self.dtype = config.floatx()
        self.seed = config.next_seed()
        self.preprocessing: Any = None
        self.history: callbacks_.History | None = None
        self.stop_training = False
        self._layers: list[Layer] = []
        self._calls: list[Layer] = []
        self._optimizer: optimizers.Optimizer | None = None
        self._loss: losses.Loss | None = None
        self._asked_metrics: list[Any] = []
        self._epochs = 0
        self._clear()

    def _clear(self) -> None:
        """Forget everything derived from layers and settings."""
        self._programs: dict[Any, Any] = {}
        self._slot_vectors: tuple[Any, list[np.ndarray]] | None = None
        self._answer: Any = None

    def _link(self, inputs: Any, outputs: Any) -> None:
        """Find the layers between two Tensors and give their weights a place."""
        what = type(self).__name__
        for name, tensor in (("inputs", inputs), ("outputs", outputs)):
            if not isinstance(tensor, Tensor) or tensor.source is None:
                raise ValueError(f"{what}: {name} must be a Tensor made by Input and layers. Received: {tensor!r}")
        chain: list[Layer] = []
        tensor = outputs
        while tensor is not inputs:
            layer, before = tensor.source
            chain.append(layer)
            if before is None:
                raise ValueError(f"{what}: outputs must be made from inputs by layers. Received: {outputs!r}")
            tensor = before
        chain.append(inputs.source[0])
        self._calls = chain[::-1]
        self._layers = list(dict.fromkeys(self._calls))
        names = [layer.name for layer in self._layers]
        if len(set(names)) < len(names):
            raise ValueError(f"{what}: layers must have different names. Received: {', '.join(names)}")
        self.input_shape: Shape = inputs.shape
        self.output_shape: Shape = outputs.shape
        self._place_weights()

    def _place_weights(self) -> None:
        """One flat vector for the weights that have no place yet, drawn from this model's seed."""
        size, new = 0, []
        for number_, layer in enumerate(self._layers):
            for index, weight in enumerate(layer.weights):
                if weight.tensor.place is None or not weight.tensor.place.buffer:
                    new.append((weight, size, [self.seed, 2, number_, index]))
                    size += aligned(weight.size)
        vector, buffer = zeros(size, self.dtype), f"{self.name}.weights"
        for weight, offset, key in new:
            drawn = weight.vector is not None  # by calling the layer on an array
            value = weight.value if drawn else weight.initializer(weight.shape, np.random.default_rng(key))
            weight.put(vector, buffer, offset)
            weight.assign(value)
        vectors = self.vectors()
        if any(vectors[w.tensor.place.buffer] is not w.vector for w in self.weights if w.tensor.place):
            raise ValueError(f"{type(self).__name__}: layers come from two models that are both named {self.name!r}")

    # ------------------------------------------------------------------ parts

    def _built(self) -> None:
        """Make sure that the layers have their weights."""

    @property
    def layers(self) -> list[Layer]:
        """The layers, without the input."""
        return [layer for layer in self._layers if not isinstance(layer, InputLayer)]

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer with that name or number."""
        if index is not None:
            return self.layers[index]
        for layer in self._layers:
            if layer.name == name:
                return layer
        raise ValueError(f"get_layer: name must be one of {', '.join(x.name for x in self._layers)}. Received: name={name!r}")

    @property
    def weights(self) -> list[Weight]:
        """All weights, layer after layer."""
        self._built()
        return [weight for layer in self._layers for weight in layer.weights]

    @property
    def trainable_weights(self) -> list[Weight]:
        """The weights that training changes."""
        self._built()
        return [weight for layer in self._layers if layer.trainable for weight in layer.weights]

    def vectors(self) -> dict[str, np.ndarray]:
        """The flat vectors of weights by buffer name."""
        return {w.tensor.place.buffer: w.vector for w in self.weights if w.tensor.place and w.vector is not None}

    def count_params(self) -> int:
        """Number of weights."""
        return sum(weight.size for weight in self.weights)

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all weights, in Keras's order: layer after layer, kernel before bias."""
        return [weight.value.copy() for weight in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Overwrite all weights; shapes are checked before anything is changed."""
        assign_all(self.weights, weights, self.name)

    def trace(self, x: Tensor, training: Training | None) -> Tensor:
        """Record the layers' ops from input ``x`` on; returns the output."""
        for layer in self._calls:
            x = layer.call(x, training)
        return x

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
        """The optimizer's flat vectors for this layout; zeros at first."""
        key = [(w.name, o) for w, o in zip(layout.weights, layout.offsets, strict=True)]
        if self._slot_vectors is None or self._slot_vectors[0] != key:
            self._slot_vectors = key, [zeros(layout.size, self.dtype) for _ in self.optimizer.slots]
        return self._slot_vectors[1]

    # ------------------------------------------------------------------ training

    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "rmsprop",
        loss: str | losses.Loss | None = None,
        metrics: Sequence[str | metrics.Metric | Callable[..., float]] | None = None,
    ) -> None:
        """Say how to train.

        Parameters
        ----------
        optimizer : name ("adam", "adamw", "sgd", "rmsprop") or Optimizer
        loss : name ("binary_crossentropy", "mse", ...) or Loss
        metrics : names ("accuracy", "auc", ...), Metrics or functions ``f(y_true, y_pred)`` of two arrays

        Raises
        ------
        ValueError : one of them is unknown; the model stays as it was
        """
        chosen = optimizers.get(optimizer)
        if loss is None:
            raise ValueError("compile: loss must be given, such as loss='binary_crossentropy'. Received: loss=None")
        chosen_loss = losses.get(loss)
        asked = [metrics] if isinstance(metrics, str) else list(metrics or [])
        self._check_metrics(asked, chosen_loss)
        if self.dtype == "float64" and config.backend() != "numpy":
            raise ValueError(f"compile: float64 models need the numpy backend. Received: backend {config.backend()!r}")
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

        Parameters
        ----------
        x : (N, ...) inputs; y : (N, C) targets or (N,) where C is 1, or labels (N,)
        batch_size : rows of a training step
        epochs : number of the last epoch; training starts with number ``initial_epoch``
        verbose : 0 silent, 1 progress bar, 2 a line an epoch, "auto": bar on a terminal, lines in a file
        callbacks : list of Callback
        validation_split : this share of the rows, chosen by the model's seed, is kept for validation
        validation_data : ``(x, y)`` or ``(x, y, sample_weight)``; goes before ``validation_split``
        shuffle : new order of the rows in each epoch, from the model's seed
        class_weight : {class: weight}, for 0/1 targets, labels or one-hot rows; classes not named weigh 1
        sample_weight : (N,) weights of the rows' losses
        validation_batch_size : accepted; validation gives the same numbers for any

        Returns
        -------
        History : ``history["loss"]``, ``history["val_accuracy"]`` ...: one number an epoch

        Raises
        ------
        ValueError : the data do not fit; nothing has been changed
        FloatingPointError : the loss became NaN or infinite
        KeyboardInterrupt : on Ctrl-C, within a tenth of a second; the model is as after the last whole step

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
        held_out: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None
        if validation_data is not None:
            held_out = self._validation_data(validation_data)
        elif split:
            kept = int(len(x) * (1.0 - split))
            if kept in (0, len(x)):
                raise ValueError(
                    f"fit: validation_split must leave rows on both sides. Received: validation_split={split} "
                    f"for {len(x)} rows"
                )
            order = np.random.default_rng([self.seed, 0]).permutation(len(x))
            take = [np.ascontiguousarray(a[order]) if a is not None else None for a in (x, y, weights)]
            held_out = (take[0][kept:], take[1][kept:], None if weights is None else take[2][kept:])  # type: ignore[index]
            x, y, weights = take[0][:kept], take[1][:kept], None if weights is None else take[2][:kept]  # type: ignore[index]
            batch = min(batch, kept)

        steps = -(-len(x) // batch)
        bar = ProgressBar(epochs, steps, verbose)
        history = callbacks_.History()
        hooks = callbacks_.CallbackList(
            [*(callbacks or []), history],
            model=self,
            params={"epochs": epochs, "steps": steps, "verbose": verbose},
        )
        step = self._program(("train", batch, weights is not None), lambda: TrainStep(self, batch, weights is not None))
        test = None
        if held_out is not None:
            test = self._program(("test", held_out[2] is not None), lambda: TestStep(self, held_out[2] is not None))
        buffers = step.buffers(x, y, weights)
        self.stop_training = False
        logs: dict[str, float] = {}
        try:
            hooks.on_train_begin()
            with _gentle_interrupt() as interrupted:
                for epoch in range(initial_epoch, epochs):
                    start = time.perf_counter()
                    bar.epoch_begin(epoch)
                    hooks.on_epoch_begin(epoch)
                    self._epoch(step, buffers, y, batch, shuffle, hooks, bar, interrupted)
                    logs = step.logs(buffers, len(x), y)
                    if not np.isfinite(logs["loss"]):
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
                    hooks.on_epoch_end(epoch, logs)
                    bar.epoch_end(epoch, logs, time.perf_counter() - start)
                    interrupted()
                    if self.stop_training:
                        break
            hooks.on_train_end(logs)
        finally:
            bar.close()
        self.history = history
        return history

    def _epoch(
        self,
        step: TrainStep,
        buffers: dict[str, np.ndarray],
        y: np.ndarray,
        batch: int,
        shuffle: bool,
        hooks: callbacks_.CallbackList,
        bar: ProgressBar,
        interrupted: Callable[[], None],
    ) -> None:
        """All steps of one epoch."""
        rows = len(y)
        steps = -(-rows // batch)
        if shuffle:
            order = np.random.default_rng([self.seed, 1, self._epochs]).permutation(rows)
        else:
            order = np.arange(rows)
        start = self.optimizer.iterations
        run = {**buffers, **step.streams(order, start, steps)}
        step.totals[:] = 0.0
        done = 0
        while done < steps:
            if hooks.wants_batches:
                hooks.on_train_batch_begin(done)
                step.program.run({**run, **self._rates_now(step, start, steps)}, done, done + 1, batch, rows)
                done += 1
            else:
                done = step.program.run(run, done, steps, batch, rows, PULSE)
            self.optimizer.iterations = start + done
            if hooks.wants_batches:
                hooks.on_train_batch_end(done - 1, step.logs(run, min(done * batch, rows), y))
            if done < steps:
                bar.update(done, step.logs(run, done * batch, y))
                interrupted()
                if self.stop_training and hooks.wants_batches:
                    break

    def _rates_now(self, step: TrainStep, start: int, steps: int) -> dict[str, np.ndarray]:
        """The rates, computed again because a batch callback may have changed the learning rate."""
        return {"rates": self.optimizer.rates(start, steps)}

    def _validation_data(self, given: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            raise ValueError("fit: validation_data must be (x, y) or (x, y, sample_weight). Received: " + type(given).__name__)
        return self._data("fit: validation_data", given[0], given[1], given[2] if len(given) == 3 else None, None)

    def _data(
        self, what: str, x: Any, y: Any, sample_weight: Any, class_weight: Mapping[Any, float] | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Checked arrays: inputs, targets, weights of the rows."""
        x = self._inputs(what, x)
        if y is None:
            raise ValueError(f"{what}: y must be given. Received: y=None")
        y = as_rows(what, "y", y, self.dtype)
        if len(x) != len(y):
            raise ValueError(f"{what}: x and y must have the same number of rows. Received: {len(x)} and {len(y)}")
        weights = row_weights(what, len(x), y, sample_weight, class_weight, self.dtype)
        y = np.ascontiguousarray(self.loss.targets(y, self.output_shape), self.dtype)
        return x, y, weights

    def _inputs(self, what: str, x: Any) -> np.ndarray:
        if self.preprocessing is not None and hasattr(x, "columns"):
            x = self.preprocessing.transform(x)
        rows = as_rows(what, "x", x, self.dtype)
        self._build_for(rows)
        return check_rows(what, rows, self.input_shape)

    def _build_for(self, rows: np.ndarray) -> None:
        self._built()

    def _program(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` makes, kept as long as layers, settings and backend stay the same."""
        key = (key, config.backend(), tuple(layer.trainable for layer in self._layers))
        if key not in self._programs:
            self._programs[key] = make()
        return self._programs[key]

    def train_on_batch(
        self, x: Any, y: Any, sample_weight: Any = None, class_weight: Mapping[Any, float] | None = None
    ) -> float:
        """One training step on these rows; returns their loss before it."""
        self._compiled()
        x, y, weights = self._data("train_on_batch", x, y, sample_weight, class_weight)
        size = max(len(x), self._programs.get("batch size", 1))
        self._programs["batch size"] = size
        step = self._program(("train", size, weights is not None), lambda: TrainStep(self, size, weights is not None))
        start = self.optimizer.iterations
        buffers = {**step.buffers(x, y, weights), **step.streams(np.arange(len(x)), start, 1)}
        step.totals[:] = 0.0
        with _gentle_interrupt():
            step.program.run(buffers, 0, 1, len(x), len(x))
            self.optimizer.iterations = start + 1
        return float(step.totals[0]) / len(x)

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
        test = self._program(("test", weights is not None), lambda: TestStep(self, weights is not None))
        start = time.perf_counter()
        logs = test.run(x, y, weights)
        if verbose:
            bar = ProgressBar(1, -(-len(x) // ROWS), verbose, title="Evaluation")
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
        answer = self._answer
        if answer is not None:
            output = answer(x)
            if output is not None:
                return output
        if isinstance(x, Tensor):
            self._built()
            for layer in self._calls[1:]:
                x = layer(x)
            return x
        rows = as_rows(self.name, "x", x, self.dtype, finite=False)
        self._build_for(rows)
        return self._run(check_rows(self.name, rows, self.input_shape))

    def _run(self, x: np.ndarray) -> np.ndarray:
        out = np.empty((len(x), *self.output_shape[1:]), self.dtype)  # type: ignore[arg-type]
        program = self._program("predict", lambda: config.active_backend().Program(predict_plan(self)))
        buffers = {**self.vectors(), "x": x, "out": out}
        batches = -(-len(x) // ROWS)
        if batches > 1 and hasattr(program, "run_apart"):
            program.run_apart(buffers, batches, ROWS, len(x))
        else:
            program.run(buffers, 0, batches, ROWS, len(x))
        if self._answer is None and hasattr(program, "answer"):
            self._answer = program.answer(buffers, self.input_shape[1:], self.output_shape[1:])
        return out

    # ------------------------------------------------------------------ describing

    def plan(self, training: bool = True, batch_size: int = 32) -> Plan:
        """The Plan of a training step, or of prediction; print it to see what runs."""
        self._built()
        if not training:
            return predict_plan(self, whole("plan", "batch_size", batch_size))
        self._compiled()
        return TrainStep(self, whole("plan", "batch_size", batch_size), weighted=False).plan

    def summary(self, print_fn: Callable[[str], Any] | None = None) -> None:
        """Print a table of the layers: name, output shape, number of weights."""
        self._built()
        rows = [("Layer", "Output shape", "Weights")]
        x = Tensor(self.input_shape, name="x")
        for layer in self._calls:
            x = layer.call(x)
            rows.append((f"{layer.name} ({type(layer).__name__})", str(tuple(x.shape)), f"{layer.count_params():,}"))
        widths = [max(len(row[c]) for row in rows) for c in range(3)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
        lines.insert(1, "-" * len(lines[0]))
        total = self.count_params()
        trained = sum(w.size for w in self.trainable_weights)
        size = total * np.dtype(self.dtype).itemsize
        lines += ["-" * len(lines[0]), f"{self.name}: {total:,} weights ({size / 1e3:,.1f} kB), {trained:,} of them trained"]
        text = "\n".join(lines)
        if print_fn is None:
            sys.stdout.write(text + "\n")
        else:
            print_fn(text)

    def get_config(self) -> dict[str, Any]:
        """The architecture as JSON-able data; ``model_from_config`` reads it."""
        self._built()
        return {
            "class": "Model",
            "config": {
                "name": self.name,
                "dtype": self.dtype,
                "layers": [describe(layer) for layer in self._layers],
                "calls": [layer.name for layer in self._calls],
            },
        }

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that training changes: arrays by name, and JSON-able data. ``restore`` reads them."""
        arrays = {weight.name: weight.value for weight in self.weights}
        data: dict[str, Any] = {"seed": self.seed, "epochs": self._epochs}
        if self._optimizer is not None and self._loss is not None:
            named = [m for m in self._asked_metrics if isinstance(m, str | metrics.Metric)]
            if any(isinstance(m, metrics.FunctionMetric) for m in named) or len(named) < len(self._asked_metrics):
                logger.warning("%s: metrics that are functions are not saved", self.name)
                named = [m for m in named if not isinstance(m, metrics.FunctionMetric)]
            data["compile"] = {
                "optimizer": describe(self._optimizer),
                "loss": describe(self._loss),
                "metrics": [describe(m) for m in named],
            }
            data["iterations"] = self._optimizer.iterations
            layout = Layout.of(self.trainable_weights)
            if self._slot_vectors is not None and self._optimizer.iterations:
                for slot, vector in zip(self._optimizer.slots, self.slots(layout), strict=True):
                    for weight, offset in zip(layout.weights, layout.offsets, strict=True):
                        part = vector[offset : offset + weight.size].reshape(weight.shape)
                        arrays[f"optimizer.{slot}.{weight.name}"] = part
        return arrays, data

    def restore(self, arrays: Mapping[str, np.ndarray], data: Mapping[str, Any]) -> None:
        """Take over what ``state`` gave. Names, shapes and values are checked before anything is changed."""
        what = "model file"
        known = {"seed", "epochs", "compile", "iterations"}
        if not isinstance(data, Mapping) or not {"seed", "epochs"} <= set(data) <= known:
            raise ValueError(f"{what}: state must have seed and epochs, and may have {sorted(known)}")
        seed, epochs = whole(what, "seed", data["seed"], low=0), whole(what, "epochs", data["epochs"], low=0)
        if seed >= 2**64:
            raise ValueError(f"{what}: seed must be below 2**64. Received: {seed}")
        optimizer, loss, asked = self._optimizer, self._loss, self._asked_metrics
        if "compile" in data:
            compiled = data["compile"]
            if not isinstance(compiled, Mapping) or set(compiled) != {"optimizer", "loss", "metrics"}:
                raise ValueError(f"{what}: compile must have optimizer, loss and metrics")
            if not isinstance(compiled["metrics"], list):
                raise ValueError(f"{what}: metrics must be a list")
            optimizer = restore(compiled["optimizer"], optimizers.OPTIMIZERS, "optimizer")
            loss = restore(compiled["loss"], losses.LOSSES, "loss")
            asked = [m if isinstance(m, str) else restore(m, metrics.METRICS, "metric") for m in compiled["metrics"]]
            self._check_metrics(asked, loss)
            optimizer.iterations = whole(what, "iterations", data.get("iterations", 0), low=0)
        elif "iterations" in data:
            raise ValueError(f"{what}: iterations without compile")
        slots = optimizer.slots if optimizer is not None else ()
        layout = Layout.of(self.trainable_weights)
        expected = {weight.name: weight.shape for weight in self.weights}
        trained = {f"optimizer.{slot}.{w.name}": w.shape for slot in slots for w in layout.weights}
        if any(name.startswith("optimizer.") for name in arrays):
            expected |= trained
        if set(arrays) != set(expected):
            missing, extra = sorted(set(expected) - set(arrays)), sorted(set(arrays) - set(expected))
            raise ValueError(f"{what}: its arrays do not fit the model: missing {missing}, not expected {extra}")
        for name, shape in expected.items():
            if arrays[name].shape != shape or arrays[name].dtype != np.dtype(self.dtype):
                raise ValueError(
                    f"{what}: {name} must be {self.dtype} of shape {shape}. "
                    f"Received: {arrays[name].dtype} of shape {arrays[name].shape}"
                )
        self._optimizer, self._loss, self._asked_metrics = optimizer, loss, asked
        self._clear()
        self.seed, self._epochs = seed, epochs
        for weight in self.weights:
            weight.assign(arrays[weight.name])
        if slots and set(trained) <= set(arrays):
            for slot, vector in zip(slots, self.slots(layout), strict=True):
                for weight, offset in zip(layout.weights, layout.offsets, strict=True):
                    vector[offset : offset + weight.size] = arrays[f"optimizer.{slot}.{weight.name}"].reshape(-1)

    def save(self, path: Any, *, allow_nonfinite: bool = False) -> None:
        """Write the model to one file: architecture, weights, optimizer, preprocessing. See ``fastnn.saving``."""
        from fastnn.saving import save_model

        save_model(self, path, allow_nonfinite=allow_nonfinite)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Sequential(Model):
    """Layers one after the other.

    Parameters
    ----------
    layers : list of layers; the first has an ``input_shape``, or is ``Input(shape)``, or the shape is that of the
        first data

    >>> from fastnn.layers import Dense
    >>> model = Sequential([Dense(64, activation="relu", input_shape=(30,)), Dense(1, activation="sigmoid")])
    >>> model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    >>> model.count_params()
    2049
    """

    def __init__(self, layers: Sequence[Any] | None = None, name: str | None = None) -> None:
        self._start(name)
        self._stack: list[Layer] = []
        self._linked = False
        for layer in layers or []:
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Put a layer on top."""
        if isinstance(layer, Tensor) and layer.source is not None and layer.source[1] is None:
            layer = layer.source[0]
        if not isinstance(layer, Layer):
            raise ValueError(f"Sequential: takes layers. Received: {layer!r}")
        if isinstance(layer, InputLayer) and self._stack:
            raise ValueError("Sequential: Input must come first. Received: Input after other layers")
        if layer in self._stack:
            raise ValueError(f"Sequential: each layer can be in it once. Received: {layer.name} again")
        self._stack.append(layer)
        self._linked = False
        self._clear()

    def pop(self) -> Layer:
        """Take the last layer off."""
        if not self._stack:
            raise ValueError("Sequential: has no layer to pop. Received: an empty model")
        self._linked = False
        self._clear()
        return self._stack.pop()

    def build(self, input_shape: Sequence[int | None] | None = None) -> None:
        """Make the weights. ``input_shape`` has the batch axis (None) first, as in Keras."""
        if self._linked:
            return
        if not self._stack:
            raise ValueError("Sequential: needs at least one layer. Received: an empty model")
        first = self._stack[0]
        shape = first.input_shape
        if shape is None and input_shape is not None:
            shape = tuple(int(s) for s in input_shape[1:] if s is not None)
        if shape is None:
            raise ValueError(
                f"{self.name}: the shape of the input is not known yet: give the first layer an input_shape, start with "
                "Input(shape), or call the model on data"
            )
        layer = first if isinstance(first, InputLayer) else InputLayer(shape, name=f"{self.name}_input")
        x = Tensor((None, *shape), name=layer.name)
        x.source = (layer, None)
        y = x
        for layer in self._stack[1:] if isinstance(first, InputLayer) else self._stack:
            y = layer(y)
        if y is x:
            raise ValueError("Sequential: needs a layer besides Input. Received: Input only")
        self._linked = True
        try:
            self._link(x, y)
        except ValueError:
            self._linked = False
            raise

    def _built(self) -> None:
        self.build()

    def _build_for(self, rows: np.ndarray) -> None:
        self.build((None, *rows.shape[1:]))

    @property
    def layers(self) -> list[Layer]:
        """The layers, without the input."""
        return [layer for layer in self._stack if not isinstance(layer, InputLayer)]

    def get_config(self) -> dict[str, Any]:
        """The architecture as JSON-able data; ``model_from_config`` reads it."""
        self._built()
        return {
            "class": "Sequential",
            "config": {
                "name": self.name,
                "dtype": self.dtype,
                "input_shape": list(self.input_shape[1:]),
                "layers": [describe(layer) for layer in self.layers],
            },
        }

    @classmethod
    def from_config(cls, description: Mapping[str, Any]) -> Self:
        """A new model with the architecture that ``get_config`` gave, and new weights."""
        model = model_from_config(description)
        if not isinstance(model, cls):
            raise ValueError(f"{cls.__name__}: the description is of a {type(model).__name__}")
        return model

    def __getattr__(self, name: str) -> Any:
        if name in ("input_shape", "output_shape") and not self.__dict__.get("_linked", True):
            self.build()
            return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def model_from_config(description: Mapping[str, Any]) -> Model:
    """A new model with a described architecture. Everything in the description is checked: it may come from a file.

    Raises
    ------
    ValueError : it is not what ``get_config`` of a Sequential or Model gives
    """
    what = "architecture"
    if not isinstance(description, Mapping) or set(description) != {"class", "config"}:
        raise ValueError(f"{what}: must have class and config. Received: {description!r}"[:300])
    kind, settings = description["class"], description["config"]
    keys = {
        "Sequential": {"name", "dtype", "input_shape", "layers"},
        "Model": {"name", "dtype", "layers", "calls"},
    }
    if kind not in keys or not isinstance(settings, Mapping) or set(settings) != keys[kind]:
        raise ValueError(f"{what}: must be that of a Sequential or a Model with all its parts. Received: {kind!r}")
    if not isinstance(settings["layers"], list) or len(settings["layers"]) > 10_000:
        raise ValueError(f"{what}: layers must be a list of at most 10000")
    before = config.floatx()
    config.set_floatx(settings["dtype"])
    try:
        layers = [restore(layer, LAYERS, "layer") for layer in settings["layers"]]
        name = check_name(what, settings["name"])
        if kind == "Sequential":
            model: Model = Sequential([InputLayer(settings["input_shape"], name=f"{name}_input"), *layers], name=name)
            model._built()
            return model
        calls, by_name = settings["calls"], {layer.name: layer for layer in layers}
        if not isinstance(calls, list) or not calls or not all(isinstance(c, str) and c in by_name for c in calls):
            raise ValueError(f"{what}: calls must name layers. Received: {calls!r}")
        first = by_name[calls[0]]
        if not isinstance(first, InputLayer):
            raise ValueError(f"{what}: the first call must be of an InputLayer. Received: {calls[0]!r}")
        x = Tensor((None, *first.shape), name=first.name)  # type: ignore[misc]
        x.source = (first, None)
        y = x
        for call in calls[1:]:
            y = by_name[call](y)
        return Model(x, y, name=name)
    finally:
        config.set_floatx(before)


def load_model(path: Any, *, allow_nonfinite: bool = False) -> Model:
    """Read a model that ``save`` wrote. See ``fastnn.saving.load_model``."""
    from fastnn.saving import load_model as load

    model: Model = load(path, allow_nonfinite=allow_nonfinite)
    return model


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


__all__ = ["Model", "Sequential", "load_model", "model_from_config"]
