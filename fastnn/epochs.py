"""Training and testing on arrays in memory: an epoch is one walk of the engine over them.

The same for data that come from elsewhere is in ``fastnn.streaming``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastnn.callback_base import CallbackList
from fastnn.ends import buffer_name
from fastnn.progress import ProgressBar
from fastnn.steps import PULSE, Feed, row_shapes

if TYPE_CHECKING:
    from fastnn.compiling import Arrays
    from fastnn.training import Trainable

Beat = Callable[[], None]


class Testing(NamedTuple):
    """A function that gives the loss and the metrics, and how many batches that takes, or None if nobody knows."""

    run: Callable[[Beat], dict[str, float]]
    steps: int | None


def steps_of(what: str, name: str, batches: int, asked: int | None) -> int:
    """The batches of an epoch: all, or as many of them as were asked for."""
    if asked is not None and asked > batches:
        raise ValueError(f"{what}: {name} must be at most the {batches} batches of the data. Received: {name}={asked}")
    return batches if asked is None else asked


class InMemory:
    """Checked arrays: inputs, targets, weights of the rows or pixels, by the names of the engine's buffers.

    Attributes:
        rows: how many
        shapes: those of a row's targets and of its weights, if there are any
    """

    def __init__(self, model: Trainable, arrays: Arrays) -> None:
        self.model, self.arrays = model, arrays
        self.rows: int | None = len(arrays["x"])
        self.shapes = row_shapes({name: array.shape[1:] for name, array in arrays.items()})

    def part(self, places: np.ndarray | slice) -> InMemory:
        """Some of the rows."""
        return InMemory(self.model, {name: array[places] for name, array in self.arrays.items()})

    def training(
        self, batch: int, shuffle: bool | str, places: np.ndarray | None = None, steps: int | None = None
    ) -> ArrayEpochs:
        """Epochs over the rows at ``places``, or all."""
        return ArrayEpochs(self, batch, shuffle, places, steps)

    def testing(self, what: str, name: str, batch: int = 1, steps: int | None = None) -> Testing:
        """How to get the losses and the metrics; of the first ``steps`` batches if that is given."""
        assert self.rows is not None
        rows = min(self.rows, batch * steps_of(what, name, -(-self.rows // batch), steps))
        test = self.model._test_step(self.shapes)
        data = self if rows == self.rows else self.part(slice(0, rows))
        return Testing(lambda beat: test.run(data.arrays), -(-rows // test.plan.batch))


class ArrayEpochs:
    """Training on arrays, epoch after epoch.

    Attributes:
        steps: training steps of an epoch
    """

    def __init__(
        self, data: InMemory, batch: int, shuffle: bool | str, places: np.ndarray | None, steps: int | None
    ) -> None:
        model = data.model
        self.model, self.batch, self.places = model, batch, places
        rows = self.all_rows = len(data.arrays["x"]) if places is None else len(places)
        self.steps: int | None = steps_of("fit", "steps_per_epoch", -(-rows // batch), steps)
        self.rows = min(rows, self.steps * batch)
        self.step = model._train_step(batch, data.shapes)
        self.feed: Feed = model._program(
            ("feed", data.rows, rows, batch, shuffle), lambda: Feed(model, rows, batch, shuffle, places)
        )
        self.buffers = self.step.buffers(data.arrays, model.slots(self.step.layout))

    def run(self, hooks: CallbackList, bar: ProgressBar, beat: Beat) -> dict[str, float] | None:
        """All steps of one epoch, or as many as a callback wants; returns the logs of the epoch."""
        step, batch, rows, optimizer = self.step, self.batch, self.all_rows, self.model.optimizer
        steps, start = self.steps or 0, optimizer.iterations
        run = {**self.buffers, **self.feed.epoch(self.model._epochs)}
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
                hooks.on_train_batch_end(done - 1, self._logs(run, done))
            if done < steps:
                bar.update(done, self._logs(run, done))
                beat()
                if self.model.stop_training and hooks.wants_batches:
                    break
        return self._logs(run, done)

    def _logs(self, run: dict[str, np.ndarray], done: int) -> dict[str, float]:
        """Means over the first ``done`` steps; at the end of the epoch also the metrics that need all predictions."""
        rows = min(done * self.batch, self.all_rows)
        totals = self.step.totals
        if rows < self.rows or not totals.stored:
            return totals.logs(rows, None)
        chosen = self.places
        if rows < self.all_rows:
            chosen = np.sort(run["index"][:rows])
        kept = {buffer_name(kind, n): run[buffer_name(kind, n)] for kind in ("y", "predictions") for n in totals.stored}
        return totals.logs(rows, kept if chosen is None else {name: array[chosen] for name, array in kept.items()})
