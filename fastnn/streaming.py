"""Training, testing and predicting on data that are loaded while the engine computes. See ``fastnn.sources``."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.asking import Predictor
from fastnn.callback_base import CallbackList
from fastnn.data import check_weights
from fastnn.ends import buffer_name
from fastnn.epochs import Beat, Testing, steps_of
from fastnn.objectives import RowShapes
from fastnn.order import Orders
from fastnn.progress import ProgressBar
from fastnn.sources import (
    ArrayRows,
    Batches,
    BatchesJob,
    Intake,
    Loader,
    Ring,
    Rows,
    Source,
    Stream,
    Stretch,
    buffers_for,
    rows_job,
)
from fastnn.steps import PULSE, Numbers, Totals, TrainStep, empty_rows, row_shapes

if TYPE_CHECKING:
    from fastnn.training import Trainable


class Streamed:
    """Data that are loaded, and how.

    Args:
        what: who asks, for errors
        source: of the rows
        class_weight: as in ``fit``
        workers: threads that load; None for what the source says
        targets: whether there are targets

    Attributes:
        rows: how many, or None if that is not known

    Raises:
        ValueError: the first item does not fit the model; nothing has been changed
    """

    def __init__(
        self,
        model: Trainable,
        what: str,
        source: Source,
        class_weight: Any = None,
        workers: int | None = None,
        *,
        targets: bool = True,
    ) -> None:
        self.model, self.what, self.source = model, what, source
        count = source.workers if workers is None else workers
        self.workers = min(count, 1) if isinstance(source, Stream) else count
        self.places: np.ndarray | None = None
        first = source.first(what, partial(model._taken, targets=targets), model._said)
        self.size = len(first["x"])  # rows of the first batch
        model._fitting(what, {name: first[name][:1] for name in model.input_side.buffers("x")})
        self.intake = Intake(what, first, model._wanted(what, class_weight, targets=targets))
        if targets and isinstance(source, ArrayRows):
            self._check_memory(source)

    def _check_memory(self, source: ArrayRows) -> None:
        """Check those arrays at once that are in memory."""
        for name, array in source.arrays.items():
            if isinstance(array, np.memmap) or not isinstance(array, np.ndarray):
                continue
            if name in self.intake.wanted.targets:
                self.intake.wanted.targets[name](array)
            elif name.startswith("weight"):
                check_weights(self.what, source.count, array, None, self.model.dtype)

    @property
    def rows(self) -> int | None:
        """How many, or None if that is not known."""
        if not isinstance(self.source, Rows):
            return None
        return self.source.count if self.places is None else len(self.places)

    @property
    def shapes(self) -> RowShapes:
        """Those of a row's targets and of its weights, if there are any."""
        return row_shapes(self.intake.shapes)

    def part(self, places: np.ndarray) -> Streamed:
        """Some of the rows."""
        part = copy.copy(self)
        part.places = places
        return part

    def training(
        self, batch: int, shuffle: bool | str, places: np.ndarray | None = None, steps: int | None = None
    ) -> SourceEpochs:
        """Epochs over the rows at ``places``, or all."""
        return SourceEpochs(self if places is None else self.part(places), batch, shuffle, steps)

    def testing(self, what: str, name: str, batch: int = 1, steps: int | None = None) -> Testing:
        """How to get the loss and the metrics; of the first ``steps`` batches if that is given."""
        model = self.model
        test = model._test_step(self.shapes)
        walk = self._asked(test.plan.batch, what, name, batch, steps)
        out = test.predictions(len(walk.ring.arrays["x"]))

        def run(beat: Beat) -> dict[str, float]:
            totals, kept, seen = test.totals.fresh(), Kept(self, test.totals, walk.rows), 0
            with walk.loader() as loader:
                for stretch in loader.stretches(beat):
                    rows = slice(stretch.start, stretch.start + stretch.rows)
                    data = {name: array[rows] for name, array in stretch.ring.arrays.items()}
                    data |= {name: array[: stretch.rows] for name, array in out.items()}
                    test.add(totals, data, stretch.rows, beat)
                    kept.add(data, slice(0, stretch.rows))
                    seen += stretch.rows
            self._check_steps(walk, seen)
            return totals.logs(seen, kept.arrays)

        return Testing(run, None if walk.rows is None else -(-walk.rows // test.plan.batch))

    def predict(self, predictor: Predictor, batch: int, steps: int | None, beat: Beat) -> list[np.ndarray]:
        """The outputs for all rows, or for those of the first ``steps`` batches."""
        walk = self._asked(predictor.plan.batch, self.what, "steps", batch, steps)
        out: list[np.ndarray] | None = None if walk.rows is None else predictor.room(walk.rows)
        parts: list[list[np.ndarray]] = []
        seen = 0
        with walk.loader() as loader:
            for stretch in loader.stretches(beat):
                rows = slice(stretch.start, stretch.start + stretch.rows)
                x = {name: array[rows] for name, array in stretch.ring.arrays.items()}
                place = None if out is None else [array[seen : seen + stretch.rows] for array in out]
                part = predictor.run(x, place)
                if out is None:
                    parts.append(part)
                seen += stretch.rows
                beat()
        self._check_steps(walk, seen)
        return [np.concatenate(each) for each in zip(*parts, strict=True)] if out is None else out

    def _asked(self, rows: int, what: str, name: str, batch: int, steps: int | None) -> Walk:
        """A walk over the rows in their order, so many at a time, for testing and predicting."""
        source = self.source
        if isinstance(source, Rows):
            known = self.rows or 0
            order = np.arange(known) if self.places is None else self.places
            order = order[: batch * steps_of(what, name, -(-known // batch), steps)]
            return Walk(self, rows, order, None, together=True)
        assert isinstance(source, Batches)
        if isinstance(source, Stream) and steps is None and source.endless:
            raise ValueError(f"{what}: {name} must be given for data without an end. Received: {name}=None")
        limit = steps if source.count is None else steps_of(what, name, source.count, steps)
        return Walk(self, rows, None, steps if isinstance(source, Stream) else limit, together=True)

    def _check_steps(self, walk: Walk, seen: int) -> None:
        """After the last row."""
        if not seen:
            raise ValueError(f"{self.what}: there must be at least one batch. Received: data that have ended")
        if walk.limit is not None and walk.done < walk.limit:
            warn_short(self.what, walk.done, walk.limit, "the result is that of these", 5)


def warn_short(what: str, done: int, asked: int | None, result: str, level: int) -> None:
    """Say that there were fewer batches than asked for; the user's call is so many calls above."""
    of = "" if asked is None else f" of {asked}"
    warnings.warn(f"{what}: the data ended after {done}{of} batches; {result}", UserWarning, stacklevel=level)


class Walk:
    """How a source is read into a ring, once or again and again.

    Args:
        batch: rows of a batch of the program
        order: the numbers of the rows, or of the batches if it has batches; see ``loader``
        limit: batches that are taken of a source of batches; None for all
        together: whether batches of the source are put together to those of the program
    """

    def __init__(
        self, data: Streamed, batch: int, order: np.ndarray | None, limit: int | None, *, together: bool
    ) -> None:
        self.data, self.order, self.limit, self.together = data, order, limit, together
        self.rows = len(order) if isinstance(data.source, Rows) and order is not None else None
        most = limit if self.rows is None and not together else None
        if self.rows is not None:
            most = -(-self.rows // batch)
        bulk = isinstance(data.source, ArrayRows)
        self.batches, slots = buffers_for(data.intake, batch, data.workers, bulk=bulk, most=most)
        self.ring = Ring(data.intake, self.batches * batch, slots)
        self.parts = 1 if bulk else max(1, data.workers)
        self._job: BatchesJob | None = None

    def loader(self) -> Loader:
        """What fills the ring, once; in the present ``order``."""
        data = self.data
        if isinstance(data.source, Rows):
            assert self.order is not None
            job = partial(rows_job, data.source, data.what, self.order)
            return Loader(self.ring, job, data.workers, -(-len(self.order) // self.ring.rows), self.parts)
        assert isinstance(data.source, Batches)
        self._job = BatchesJob(data.source, data.what, self.order, self.limit, together=self.together)
        return Loader(self.ring, self._job, data.workers)

    @property
    def done(self) -> int:
        """Batches of the source that were used by the last loader."""
        return 0 if self._job is None else self._job.done


class Kept:
    """Targets and predictions, row after row, for metrics that need them all."""

    def __init__(self, data: Streamed, totals: Totals, rows: int | None) -> None:
        side, given = data.model.output_side, dict(data.shapes)
        self._shapes: dict[str, tuple[int | None, ...]] = {}
        for output in totals.stored:
            self._shapes[buffer_name("y", output)] = None, *given[buffer_name("y", output)]
            self._shapes[buffer_name("predictions", output)] = side.shapes[output]
        self._dtype = data.model.dtype
        self._arrays: dict[str, np.ndarray] = {}
        self._room, self._rows = rows or 0, 0

    def add(self, arrays: Mapping[str, np.ndarray], place: slice) -> None:
        """Keep some rows more, those at this place."""
        if not self._shapes:
            return
        rows = self._rows + place.stop - place.start
        if not self._arrays or rows > self._room:
            self._room = max(self._room, rows if not self._arrays else 2 * rows)
            before = self._arrays
            self._arrays = {name: empty_rows(self._room, s, self._dtype) for name, s in self._shapes.items()}
            for name, old in before.items():
                self._arrays[name][: self._rows] = old[: self._rows]
        for name, array in self._arrays.items():
            array[self._rows : rows] = arrays[name][place]
        self._rows = rows

    def restart(self) -> None:
        """Forget all rows."""
        self._rows = 0

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Targets and predictions (N, ...), by the names of the engine's buffers."""
        return {name: array[: self._rows] for name, array in self._arrays.items()}


class SourceEpochs:
    """Training on a source, epoch after epoch.

    Attributes:
        steps: training steps of an epoch, or None if that is not known
    """

    def __init__(self, data: Streamed, batch: int, shuffle: bool | str, steps: int | None) -> None:
        model, source = data.model, data.source
        self.model, self.data = model, data
        self.orders: Orders | None = None
        self.rows: int | None = None
        self.steps: int | None
        limit: int | None = None
        order: np.ndarray | None = None
        if isinstance(source, Rows):
            rows = data.rows or 0
            self.steps = steps_of("fit", "steps_per_epoch", -(-rows // batch), steps)
            self.rows = min(rows, self.steps * batch)
            self.orders = Orders(model, rows, shuffle, data.places, batch)
            order = np.arange(self.rows)
        else:
            assert isinstance(source, Batches)
            batch = data.size
            known = source.count
            self.steps = steps if known is None else steps_of("fit", "steps_per_epoch", known, steps)
            if isinstance(source, Stream):
                limit = steps
            else:
                limit = self.steps
                self.orders = Orders(model, known or 0, bool(shuffle))
        self.walk = Walk(data, batch, order, limit, together=False)
        self.step = model._train_step(batch, data.shapes)
        self.kept = Kept(data, self.step.totals, self.rows)
        self.numbers = Numbers(model, max(1024, self.walk.ring.count * self.walk.batches))
        self._bound: tuple[Ring, TrainStep, dict[str, np.ndarray]] | None = None

    def run(self, hooks: CallbackList, bar: ProgressBar, beat: Beat) -> dict[str, float] | None:
        """All steps of one epoch, or as many as a callback wants; returns the logs, or None if there were no data."""
        self.step.totals.array.fill(0.0)
        self.kept.restart()
        walk, seen, done, cut = self.walk, 0, 0, False
        self.data.source.epoch_begin()
        if self.orders is not None:
            walk.order = self.orders.of(self.model._epochs)[: self.rows]
        with walk.loader() as loader:
            for stretch in loader.stretches(beat):
                done, seen, cut = self._train(stretch, done, seen, hooks, bar, beat)
                if cut:
                    break
        walk.ring = loader.ring
        self.data.source.epoch_end()
        if not cut and (not done or (walk.limit is not None and done < walk.limit)):
            warn_short("fit", done, walk.limit, "training ends with them", 4)
            self.model.stop_training = True
        if not done:
            return None
        if self.steps is None:
            self.steps = done
        return self._logs(seen, complete=not cut)

    def _train(
        self, stretch: Stretch, done: int, seen: int, hooks: CallbackList, bar: ProgressBar, beat: Beat
    ) -> tuple[int, int, bool]:
        """The steps of a stretch; returns the steps and rows of the epoch so far, and whether a callback ends it."""
        optimizer = self.model.optimizer
        batch = stretch.ring.rows // self.walk.batches
        run = self._buffers(stretch.ring, batch)
        at, end_row = stretch.start // batch, stretch.start + stretch.rows
        last = -(-end_row // batch)
        run["rates"][at:last], run["step"][at:last] = self.numbers.next(last - at)
        while at < last:
            if hooks.wants_batches:
                hooks.on_train_batch_begin(done)
                run["rates"][at] = optimizer.rates(optimizer.iterations, 1)  # a callback may have changed them
                end = self.step.run(run, at, at + 1, batch, end_row)
            else:
                end = self.step.run(run, at, last, batch, end_row, PULSE)
            optimizer.iterations += end - at
            done += end - at
            rows = slice(at * batch, min(end * batch, end_row))
            seen += rows.stop - rows.start
            self.kept.add(run, rows)
            at = end
            if hooks.wants_batches:
                hooks.on_train_batch_end(done - 1, self._logs(seen, complete=seen == self.rows))
            if self.steps is None or done < self.steps:
                bar.update(done, self._logs(seen, complete=False))
                beat()
                if self.model.stop_training and hooks.wants_batches:
                    return done, seen, True
        return done, seen, False

    def _buffers(self, ring: Ring, batch: int) -> dict[str, np.ndarray]:
        """What the program runs over. A batch larger than those before takes a larger program."""
        if batch > self.step.plan.batch:
            larger = self.model._train_step(batch, self.data.shapes)
            larger.totals.array[...] = self.step.totals.array
            self.step = larger
        if self._bound is None or self._bound[:2] != (ring, self.step):
            model, batches = self.model, ring.count * self.walk.batches
            rates = np.empty((batches, model.optimizer.rate_count), np.float32)
            run = {**self.step.state(model.slots(self.step.layout)), **ring.arrays, "rates": rates}
            run |= {"step": np.empty(batches, np.int64), "index": np.arange(ring.count * ring.rows)}
            run |= self.step.predictions(len(run["index"]))
            self._bound = ring, self.step, run
        return self._bound[2]

    def _logs(self, seen: int, *, complete: bool) -> dict[str, float]:
        """Means over the rows so far; at the end of the epoch also the metrics that need all predictions."""
        totals: Totals = self.step.totals
        if not totals.stored or not complete:
            return totals.logs(seen, None)
        kept = self.kept.arrays
        if self.rows is not None and self.walk.order is not None:  # as if they had been in an array
            back = np.argsort(self.walk.order)
            if self.data.places is not None and self.rows == len(self.data.places):
                back = back[np.argsort(np.argsort(self.data.places))]
            kept = {name: array[back] for name, array in kept.items()}
        return totals.logs(seen, kept)
