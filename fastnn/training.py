"""Training, testing and predicting: the loop over Plans. It does not know which backend runs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fastnn import callbacks as callbacks_
from fastnn import config
from fastnn.asking import Predictor, TestStep
from fastnn.compiling import Arrays, Compiled
from fastnn.configurable import number, whole
from fastnn.ends import flatten
from fastnn.epochs import InMemory, steps_of
from fastnn.graph import Tensor
from fastnn.interrupt import gentle_interrupt
from fastnn.objectives import RowShapes
from fastnn.order import shuffling
from fastnn.profiling import Profile, profile
from fastnn.progress import ProgressBar
from fastnn.sources import Source, Stream, array_rows, holds_array_like, open_source
from fastnn.steps import Feed, TrainStep
from fastnn.streaming import Streamed

if TYPE_CHECKING:
    from fastnn.models import Model


class Trainable(Compiled):
    """What can be compiled, trained and asked; a Model adds the layers."""

    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = 32,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Sequence[Any] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: Mapping[Any, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        workers: int | None = None,
    ) -> callbacks_.History:
        """Train.

        Args:
            x: (N, ...) inputs, or one of the other kinds of data below
            y: targets, of the outputs' shape (N, ..., C), or labels (N, ...); a last axis of size 1 may be missing;
                None where ``x`` has them in it
            batch_size: rows of a training step
            epochs: number of the last epoch; training starts with number ``initial_epoch``
            verbose: 0 silent, 1 progress bar, 2 a line an epoch, "auto": bar on a terminal, lines in a file
            callbacks: Callback or list of them
            validation_split: this share of the rows, chosen by the model's seed, is kept for validation
            validation_data: ``(x, y)`` or ``(x, y, sample_weight)``, or one of the kinds below that have targets in
                them; goes before ``validation_split``
            shuffle: new order of the rows in each epoch, from the model's seed; "batch" leaves rows together that are
                neighbours in the data, and shuffles batches: for files in which single rows are slow to reach
            class_weight: {class: weight} of rows or, in images, pixels, for 0/1 targets, labels or one-hot targets;
                classes not named weigh 1
            sample_weight: weights of the rows' losses, (N,), or of the pixels', (N, ...)
            initial_epoch: epochs counted as done before, see ``epochs``
            steps_per_epoch: training steps of an epoch, where it is not to have all; a generator needs it
            validation_steps: batches of the validation, likewise
            validation_batch_size: rows of a batch of ``validation_steps``, ``batch_size`` if None; without these,
                validation gives the same numbers for any
            workers: threads that load ahead while the engine computes; None for the ``workers`` of the data, which are
                1 if they do not say; 0 to load between the steps

        Returns:
            History: ``history["loss"]``, ``history["val_accuracy"]`` ...: one number an epoch

        Raises:
            ValueError: the data do not fit; nothing has been changed, or, if they are loaded on the way, the model is
                as after the last step before the item that is named
            RuntimeError: an item could not be loaded; it is named, and the model is as after the last step before it
            FloatingPointError: the loss became NaN or infinite
            KeyboardInterrupt: on Ctrl-C, within a tenth of a second; the model is as after the last whole step

        Metrics are means over the epoch while the weights change, as in Keras; validation comes after the epoch.

        Data larger than memory, for ``x``:

        - memory maps, and objects with ``shape``, ``dtype``, ``ndim`` and slicing such as Zarr's and HDF5's: read a few
          batches at a time, in the same order and with the same results as arrays. ``y`` is an array of any kind.
        - a ``fastnn.utils.Dataset``, or any object with ``__len__`` and ``__getitem__``: item ``i`` is the sample
          ``(x, y)`` or ``(x, y, sample_weight)``. Order and results are those of arrays. Item 0 is loaded once more, at
          the start, to learn its shape.
        - a ``fastnn.utils.PyDataset``: item ``i`` is a batch, and the batches are shuffled.
        - a generator, or anything else that can be iterated over, of batches. An object that can be iterated over anew
          is so in each epoch; a generator goes on where it was, and needs ``steps_per_epoch``. If it ends before that,
          a warning says so, and training ends with that epoch.
        """
        self._compiled()
        batch = whole("fit", "batch_size", 32 if batch_size is None else batch_size)
        epochs = whole("fit", "epochs", epochs, low=0)
        initial_epoch = whole("fit", "initial_epoch", initial_epoch, low=0)
        split = number("fit", "validation_split", validation_split, low=0, below=1)
        shuffle = shuffling("fit", shuffle)
        if workers is not None:
            whole("fit", "workers", workers, low=0)
        steps = None if steps_per_epoch is None else whole("fit", "steps_per_epoch", steps_per_epoch)
        if validation_steps is not None:
            whole("fit", "validation_steps", validation_steps)
        test_batch = (
            batch if validation_batch_size is None else whole("fit", "validation_batch_size", validation_batch_size)
        )
        data = self._given("fit", x, y, sample_weight, class_weight, workers, "steps_per_epoch", steps)
        held_out: InMemory | Streamed | None = None
        places: np.ndarray | None = None  # the rows to train on, where these are not all
        if validation_data is not None:
            held_out = self._validation_data(validation_data, workers, validation_steps)
        elif split:
            places, there = self._split(data, split)
            held_out = data.part(there)
        if data.rows is not None:
            batch = min(batch, data.rows if places is None else len(places))
        run = data.training(batch, shuffle, places, steps)
        test = None
        if held_out is not None:
            test = held_out.testing("fit", "validation_steps", test_batch, validation_steps)
        bar = ProgressBar(epochs, run.steps, verbose)
        hooks = callbacks_.CallbackList(
            callbacks,
            model=cast("Model", self),
            params={"epochs": epochs, "steps": run.steps, "verbose": verbose},
        )
        self.stop_training = False
        logs: dict[str, float] = {}
        if self._trained_by == os.getpid():
            bar.close()
            raise RuntimeError(f"{self.name}: is being trained already, by another thread or from a callback")
        self._trained_by = os.getpid()
        try:
            hooks.on_train_begin()
            with gentle_interrupt() as interrupted:
                for epoch in range(initial_epoch, epochs):
                    start = time.perf_counter()
                    bar.epoch_begin(epoch)
                    hooks.on_epoch_begin(epoch)
                    done = run.run(hooks, bar, interrupted)
                    if done is None:
                        break
                    logs = done
                    if not math.isfinite(logs["loss"]) and not hooks.ends_on_nan:
                        raise FloatingPointError(
                            f"fit: the loss became {logs['loss']} in epoch {epoch + 1}. A smaller learning rate, or "
                            "standardized inputs, may help"
                        )
                    if test is not None:
                        hooks.on_test_begin()
                        val_logs = test.run(interrupted)
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

    def _split(self, data: InMemory | Streamed, split: float) -> tuple[np.ndarray, np.ndarray]:
        """The rows to train on and those to validate with."""
        if data.rows is None:
            raise ValueError(
                "fit: validation_split needs rows that have numbers, as those of arrays and of a Dataset; with batches "
                f"give validation_data. Received: validation_split={split}"
            )
        kept = int(round(data.rows * (1.0 - split), 6))  # 1 - 0.3 is a little less than 0.7
        if kept in (0, data.rows):
            raise ValueError(
                f"fit: validation_split must leave rows on both sides. Received: validation_split={split} "
                f"for {data.rows} rows"
            )
        order = np.random.default_rng([self.seed, 0]).permutation(data.rows)
        return order[:kept], order[kept:]

    def _given(
        self,
        what: str,
        x: Any,
        y: Any,
        sample_weight: Any,
        class_weight: Mapping[Any, float] | None,
        workers: int | None,
        needs: str | None = None,
        steps: int | None = None,
    ) -> InMemory | Streamed:
        """Data of any kind with targets; a generator needs the argument with that name."""
        source = self._source(what, x, y, sample_weight, targets=True)
        if source is None:
            return InMemory(self, self._data(what, x, y, sample_weight, class_weight))
        if needs is not None and steps is None and isinstance(source, Stream) and source.once:
            raise ValueError(
                f"{what}: {needs} must be given for a generator, which may have no end. Received: {needs}=None"
            )
        return Streamed(self, what, source, class_weight, workers)

    def _source(self, what: str, x: Any, y: Any = None, sample_weight: Any = None, *, targets: bool) -> Source | None:
        """Data that are not arrays in memory, or None."""
        if holds_array_like(x, y, sample_weight):
            return array_rows(what, self._parted(what, x, y, sample_weight, targets=targets), self._said, self.dtype)
        return open_source(what, x, y, sample_weight)

    def _validation_data(self, given: Any, workers: int | None, steps: int | None) -> InMemory | Streamed:
        what = "fit: validation_data"
        if not isinstance(given, tuple | list):
            if not holds_array_like(given) and open_source(what, given) is not None:
                return self._given(what, given, None, None, None, workers, "validation_steps", steps)
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            kind = type(given).__name__
            raise ValueError(f"fit: validation_data must be (x, y) or (x, y, sample_weight). Received: {kind}")
        return self._given(what, given[0], given[1], given[2] if len(given) == 3 else None, None, workers)

    def _train_step(self, batch: int, shapes: RowShapes) -> TrainStep:
        """The training step for batches of so many rows, whose targets and weights have these shapes."""
        step: TrainStep = self._program(("train", batch, shapes), lambda: TrainStep(self, batch, shapes))
        return step

    def _test_step(self, shapes: RowShapes) -> TestStep:
        """The test step for rows whose targets and weights have these shapes."""
        test: TestStep = self._program(("test", shapes), lambda: TestStep(self, shapes))
        return test

    def train_on_batch(
        self, x: Any, y: Any, sample_weight: Any = None, class_weight: Mapping[Any, float] | None = None
    ) -> float:
        """One training step on these rows; returns their loss before it."""
        self._compiled()
        data = InMemory(self, self._data("train_on_batch", x, y, sample_weight, class_weight))
        rows = len(data.arrays["x"])
        size = max(rows, self._programs.get("batch size", 1))
        self._programs["batch size"] = size
        step = self._train_step(size, data.shapes)
        start = self.optimizer.iterations
        feed = Feed(self, rows, rows, shuffle=False)
        buffers = {**step.buffers(data.arrays, self.slots(step.layout)), **feed.epoch(0)}
        step.totals.array.fill(0.0)
        with gentle_interrupt():
            step.run(buffers, 0, 1, rows, rows)
            self.optimizer.iterations = start + 1
        return float(step.totals.array[0]) / rows

    # ------------------------------------------------------------------ asking

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = 0,
        sample_weight: Any = None,
        return_dict: bool = False,
        steps: int | None = None,
        workers: int | None = None,
    ) -> Any:
        """Loss and metrics on these rows: the loss if there are no metrics, else a list (or a dict by name).

        ``x`` and ``y`` are any data that ``fit`` takes; a generator is used up to its end if there are no ``steps``.
        The numbers are the same for any ``batch_size``; it counts (32 if None) where only the first ``steps`` batches
        are asked for. ``workers`` is as in ``fit``.
        """
        self._compiled()
        batch, steps = _batches("evaluate", batch_size, steps, workers)
        data = self._given("evaluate", x, y, sample_weight, None, workers)
        test = data.testing("evaluate", "steps", batch, steps)
        start = time.perf_counter()
        if isinstance(data, Streamed):
            with gentle_interrupt() as interrupted:
                logs = test.run(interrupted)
        else:
            logs = test.run(_nothing)
        if verbose:
            bar = ProgressBar(1, test.steps, verbose, title="Evaluation")
            bar.epoch_end(0, logs, time.perf_counter() - start)
            bar.close()
        if return_dict:
            return logs
        return logs["loss"] if len(logs) == 1 else list(logs.values())

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = 0,
        steps: int | None = None,
        workers: int | None = None,
    ) -> Any:
        """The outputs (N, C) for inputs (N, ...), or for other data that ``fit`` takes, with targets or without.

        Row i of the result has the same bits whatever other rows are asked with it, and for any number of threads.
        Memory is bounded for any ``batch_size``; it counts (32 if None) where only the first ``steps`` batches are
        asked for. A generator is used up to its end if there are no ``steps``. ``verbose`` is accepted; ``workers`` is
        as in ``fit``.
        """
        batch, steps = _batches("predict", batch_size, steps, workers)
        source = self._source("predict", x, targets=False)
        if source is None:
            arrays = self._inputs("predict", x)
            if steps is not None:
                rows = batch * steps_of("predict", "steps", -(-len(arrays["x"]) // batch), steps)
                arrays = {name: array[:rows] for name, array in arrays.items()}
            return self._run(arrays)
        data = Streamed(self, "predict", source, None, workers, targets=False)
        with gentle_interrupt() as interrupted:
            return self.output_side.join(data.predict(self._predictor(), batch, steps, interrupted))

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
        parted = self._parted(self.name, x, None, None, targets=False)
        return self._run(self._fitting(self.name, self._inputs_of(self.name, parted, finite=False)))

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
            return profile(self, self._inputs("profile", x), batch, limit, training=False)
        self._compiled()
        return profile(self, self._data("profile", x, y, None, None), batch, limit, training=True)

    def _run(self, arrays: Arrays) -> Any:
        return self.output_side.join(self._predictor().run(arrays))

    def _predictor(self) -> Predictor:
        predictor: Predictor = self._program("predict", lambda: Predictor(self))
        self._answer = predictor.answer
        return predictor


def _batches(what: str, batch_size: int | None, steps: int | None, workers: int | None) -> tuple[int, int | None]:
    """Rows of a batch and how many batches, all three arguments checked."""
    if workers is not None:
        whole(what, "workers", workers, low=0)
    batch = 32 if batch_size is None else whole(what, "batch_size", batch_size)
    return batch, None if steps is None else whole(what, "steps", steps)


def _nothing() -> None:
    """Ctrl-C comes through by itself."""
