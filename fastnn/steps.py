"""The Plan of a training step, and the arrays that it runs over.

A training step is one Plan: gather the batch, forward, loss, backward, update, running totals. Its buffers:

    x, y, weight   all rows, as given; x1, y1 ... where the model has several inputs or outputs
    index          stream: the rows of each batch
    rates, step    streams: what the optimizer and dropout need at each step
    weights<i>     the flat weights; one buffer for each model that the layers come from
    grads, slot<i> the gradients that are not in the arena, and the optimizer's memory, flat
    totals         running sums of the loss and the metrics, in double precision
    predictions    the epoch's predictions, for metrics that need them all; predictions1 ... of other outputs
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import config
from fastnn.autodiff import gradients
from fastnn.ends import buffer_name
from fastnn.graph import ALL, Node, Place, Shape, Tensor
from fastnn.layers.base import Training
from fastnn.metrics import SummedMetric
from fastnn.objectives import Judged, Measure, RowShapes
from fastnn.ops import data, loss
from fastnn.order import Orders
from fastnn.plan import Pass, Plan, choose, epilogues, fused_norms, zeros
from fastnn.updating import Layout, updates

if TYPE_CHECKING:
    from fastnn.training import Trainable

#: A call into the engine returns about so often, in seconds, for the progress bar and Ctrl-C.
PULSE = 0.05


def leaf(shape: Sequence[int | None], buffer: str, dtype: str = "float", *, stream: bool = False) -> Tensor:
    """A Tensor found in a buffer."""
    return Tensor(tuple(shape), dtype, place=Place(buffer, 0, stream), name=buffer)


class Totals:
    """Running sums of the losses and of the metrics that are made of sums: double precision, cache lines of their own.

    Attributes:
        stored: numbers of the outputs that have metrics which need all predictions
    """

    def __init__(self, measures: Sequence[Measure], shapes: Sequence[Sequence[int]]) -> None:
        """``shapes`` are those of what a row adds to each measure that is made of sums."""
        self.measures, self.shapes = measures, shapes
        self.stored = sorted({m.output for m in measures if m.stored and m.output is not None})
        self.starts = [0]
        for shape in shapes:
            self.starts.append(self.starts[-1] + -(-math.prod(shape) // 8) * 8)
        self.array = np.zeros(self.starts[-1], np.float64)
        self._sums = [
            self.array[start : start + math.prod(shape)].reshape(shape)
            for shape, start in zip(shapes, self.starts[:-1], strict=True)
        ]

    @classmethod
    def record(cls, measures: Sequence[Measure], judged: Judged) -> tuple[Totals, list[Node]]:
        """The sums, and the nodes that add a batch's values to them."""
        values = [_summands(measure, judged) for measure in measures if not measure.stored]
        totals = cls(measures, [[size for size in v.shape[1:] if size is not None] or [1] for v in values])
        leaves = [
            Tensor(tuple(shape), "float64", place=Place("totals", start))
            for shape, start in zip(totals.shapes, totals.starts[:-1], strict=True)
        ]
        return totals, [loss.accumulate(total, v) for total, v in zip(leaves, values, strict=True)]

    def fresh(self) -> Totals:
        """Sums of the same shapes, all 0."""
        return Totals(self.measures, self.shapes)

    def logs(self, rows: int, kept: Mapping[str, np.ndarray] | None) -> dict[str, float]:
        """Losses and metrics over ``rows`` rows; with their targets and predictions, in buffers of these names, also
        the metrics that need them.
        """
        found, sums = {}, iter(self._sums)
        for measure in self.measures:
            if measure.stored:
                if kept is not None:
                    assert measure.metric is not None and measure.output is not None
                    y, p = (kept[buffer_name(kind, measure.output)] for kind in ("y", "predictions"))
                    found[measure.name] = measure.metric.compute(y, p)
                continue
            part, metric = next(sums), measure.metric
            if isinstance(metric, SummedMetric):
                found[measure.name] = metric.result(part, rows)
            else:
                found[measure.name] = float(part[0]) / rows
        return found


def _summands(measure: Measure, judged: Judged) -> Tensor:
    """What the rows add to a measure."""
    if measure.output is None:
        return judged.rows
    if measure.metric is None:
        return judged.losses[measure.output]
    assert isinstance(measure.metric, SummedMetric)
    found: Tensor = measure.metric.summands(judged.targets[measure.output], judged.predictions[measure.output])
    return found


class TrainStep:
    """The training step of a compiled model: its Plan, its Program, its vectors.

    Args:
        batch: rows of a full batch
        shapes: of the rows of targets, the usual ones of the losses if they are missing, and of weights, if there are
            any: () is one number, (H, W), say, one a pixel
    """

    def __init__(self, model: Trainable, batch: int, shapes: RowShapes = ()) -> None:
        self.model = model
        self.dtype = model.dtype
        self.layout = Layout.of(model.trainable_weights)
        roots = self._record(shapes)
        name = f"{model.name}: training step"
        improved = passes(training=True)
        self.plan = Plan(roots, batch=batch, dtype=self.dtype, name=name, passes=improved, recompute=model.recompute)
        self._versions = list(dict.fromkeys(weight.version for weight in model.weights))

    @cached_property
    def program(self) -> Any:
        """The Program: what needs memory waits until it is asked for."""
        return config.active_backend().Program(self.plan)

    @cached_property
    def grads(self) -> np.ndarray:
        """The flat vector of the gradients of small weights; those of large ones are in the arena."""
        return zeros(self._grads_size, self.dtype)

    def run(
        self, buffers: dict[str, np.ndarray], first: int, last: int, batch: int, rows: int, seconds: float = 0.0
    ) -> int:
        """Run the Program; see there. The weights are then known to have changed."""
        try:
            return int(self.program.run(buffers, first, last, batch, rows, seconds))
        finally:
            for version in self._versions:
                version.advance()

    def _record(self, shapes: RowShapes) -> list[Tensor | Node]:
        model = self.model
        index = leaf((None,), "index", "int64", stream=True)
        step = leaf((1,), "step", "int64", stream=True)

        def read(name: str, row: Sequence[int | None]) -> Tensor:
            gathered: Tensor = data.gather(leaf((ALL, *row), name), index)
            return gathered

        training = Training(model.seed, step)
        inputs = [read(buffer_name("x", i), shape[1:]) for i, shape in enumerate(model.input_side.shapes)]
        outputs = model.trace(inputs, training)
        judged = Judged(model.objectives, model.output_side, outputs, shapes, read, model.weights)

        optimizer = model.optimizer
        found = gradients(judged.rows, [w.tensor for w in self.layout.weights])
        rates = leaf((optimizer.rate_count,), "rates", stream=True)
        roots, self._grads_size = updates(optimizer, self.layout, found, rates)
        roots += training.updates
        self.totals, sums = Totals.record(model.measures, judged)
        roots += sums
        for output in self.totals.stored:
            p = judged.predictions[output]
            roots.append(data.scatter(leaf((ALL, *p.shape[1:]), buffer_name("predictions", output)), p, index))
        return roots

    def buffers(self, arrays: Mapping[str, np.ndarray], slots: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """The buffers that stay the same for all epochs over this data; ``slots`` are the optimizer's vectors."""
        return {**self.state(slots), **arrays, **self.predictions(len(arrays["x"]))}

    def predictions(self, rows: int) -> dict[str, np.ndarray]:
        """Room for the predictions of so many rows, of the outputs whose metrics need them."""
        return stored_rows(self.model, self.totals, "predictions", rows)

    def state(self, slots: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Those of them that are not data."""
        found = {**self.model.vectors(), "grads": self.grads, "totals": self.totals.array}
        found |= {f"slot{i}": vector for i, vector in enumerate(slots)}
        if "clipped" in self.plan.buffers:
            found["clipped"] = zeros(self._grads_size, self.dtype)
        return found


class Numbers:
    """The numbers of training steps: the optimizer's rates and the steps' own. Made for ``size`` steps at a time.

    The rates depend on the optimizer's iterations: training that was saved goes on as if it had not stopped.
    """

    def __init__(self, model: Trainable, size: int) -> None:
        self.model, self.size = model, size
        self._known: tuple[Any, int, np.ndarray, np.ndarray] = (None, 0, np.empty(0), np.empty(0))

    def next(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rates and numbers of the next ``count`` steps, at most ``size``."""
        optimizer = self.model.optimizer
        rate, first = optimizer.learning_rate, optimizer.iterations
        known, start, rates, steps = self._known
        if known != rate or not start <= first <= first + count <= start + len(steps):
            size = self.size
            start, rates, steps = first, optimizer.rates(first, size), np.arange(first, first + size, dtype=np.int64)
            self._known = rate, start, rates, steps
        part = slice(first - start, first - start + count)
        return rates[part], steps[part]


class Feed:
    """The streams of each epoch over arrays: the order of the rows, and the numbers of its steps.

    Args:
        rows: how many
        batch: rows of a batch
        shuffle: whether each epoch has another order; see ``Orders``
        places: the numbers of the rows in the data; 0, 1, ... if None
    """

    def __init__(
        self, model: Trainable, rows: int, batch: int, shuffle: bool | str, places: np.ndarray | None = None
    ) -> None:
        self.steps = -(-rows // batch)
        self.orders = Orders(model, rows, shuffle, places, batch)
        self._numbers = Numbers(model, self.steps * self.orders.block)

    def epoch(self, number: int) -> dict[str, np.ndarray]:
        """The streams of the epoch with that number, counted from the model's first."""
        rates, steps = self._numbers.next(self.steps)
        return {"index": self.orders.of(number), "rates": rates, "step": steps}


def passes(*, training: bool) -> list[Pass]:
    """What is done to each graph of a model before it becomes a Plan."""
    return [fused_norms, epilogues, partial(choose, use_winograd=config.winograd(), changing=training)]


def row_shapes(shapes: Mapping[str, Sequence[int]]) -> RowShapes:
    """Those of targets and weights among the shapes of rows."""
    return tuple((n, tuple(shapes[n])) for n in sorted(shapes) if n.startswith(("y", "weight")))


def empty_rows(rows: int, shape: Shape, dtype: str) -> np.ndarray:
    """An array for so many rows of a shape (None, ...)."""
    return np.empty([rows, *(size for size in shape[1:] if size is not None)], dtype)


def stored_rows(model: Trainable, totals: Totals, kind: str, rows: int) -> dict[str, np.ndarray]:
    """Room in buffers of this kind for so many predictions, of the outputs whose metrics need them all."""
    shapes = model.output_side.shapes
    return {buffer_name(kind, output): empty_rows(rows, shapes[output], model.dtype) for output in totals.stored}
