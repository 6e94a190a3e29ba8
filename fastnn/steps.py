"""The Plans of a training step, a test step and prediction, and the arrays that they run over.

A training step is one Plan: gather the batch, forward, loss, backward, update, running totals. Its buffers:

    x, y, weight   all rows, as given
    target         the targets as the loss takes them, where they are not y: labels smoothed
    index          stream: the rows of each batch
    rates, step    streams: what the optimizer and dropout need at each step
    weights<i>     the flat weights; one buffer for each model that the layers come from
    grads, slot<i> the gradients and the optimizer's memory, flat
    totals         running sums of the loss and the metrics, in double precision
    predictions    the epoch's predictions, for metrics that need them all
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastnn import config
from fastnn.autodiff import gradients
from fastnn.graph import ALL, Node, Place, Shape, Tensor
from fastnn.layers.base import Training, Weight
from fastnn.metrics import Metric, RowMetric
from fastnn.ops import data, loss, pointwise
from fastnn.plan import Plan, aligned, losses_on_logits, zeros

if TYPE_CHECKING:
    from fastnn.training import Trainable

#: A weight with so many elements is updated by itself, right after its gradient, while both are in the cache.
LARGE = 1 << 15
#: Rows that testing and predicting take at a time: results do not depend on it, speed does.
ROWS = 256
#: A call into the engine returns about so often, in seconds, for the progress bar and Ctrl-C.
PULSE = 0.05


def leaf(shape: Sequence[int | None], buffer: str, dtype: str = "float", *, stream: bool = False) -> Tensor:
    """A Tensor found in a buffer."""
    return Tensor(tuple(shape), dtype, place=Place(buffer, 0, stream), name=buffer)


class Layout(NamedTuple):
    """Which weights are trained, and where their gradients and slots lie in the flat vectors."""

    weights: list[Weight]
    offsets: list[int]
    size: int

    @classmethod
    def of(cls, weights: Sequence[Weight]) -> Layout:
        """Place the weights one after the other."""
        offsets, size = [], 0
        for weight in weights:
            offsets.append(size)
            size += aligned(weight.size)
        return cls(list(weights), offsets, size)

    def runs(self, apart: bool) -> list[tuple[Weight, int, int]]:
        """Stretches that lie side by side in the weights' vector too: first weight, offset, size.

        With ``apart``, large weights are stretches of their own.
        """
        runs: list[tuple[Weight, int, int]] = []
        before: Weight | None = None
        for weight, offset in zip(self.weights, self.offsets, strict=True):
            size = aligned(weight.size)
            joins = (
                before is not None
                and before.vector is weight.vector
                and before.offset + aligned(before.size) == weight.offset
                and not (apart and max(before.size, weight.size) >= LARGE)
            )
            if joins:
                first, start, so_far = runs[-1]
                runs[-1] = (first, start, so_far + size)
            else:
                runs.append((weight, offset, size))
            before = weight
        return runs


class Totals:
    """Running sums of the loss and of the metrics that are one value a row: double precision, a cache line each."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = metrics
        self.summed = [m for m in metrics if isinstance(m, RowMetric)]
        self.stored = len(self.summed) < len(metrics)  # whether some metric needs all predictions
        self.array = np.zeros(8 * (1 + len(self.summed)), np.float64)
        self._sums = self.array[::8]
        self._names = ["loss", *(m.name for m in self.summed)]

    def record(self, rows: Tensor, y: Tensor, p: Tensor) -> list[Tensor | Node]:
        """The nodes that add a batch's values: ``rows`` are its losses (N,)."""
        values = [rows, *(metric.rows(y, p) for metric in self.summed)]
        places = [Place("totals", 8 * number) for number in range(len(values))]
        return [loss.accumulate(Tensor((1,), "float64", place=at), v) for at, v in zip(places, values, strict=True)]

    def logs(self, rows: int, y: np.ndarray, predictions: np.ndarray | None) -> dict[str, float]:
        """Means over ``rows`` rows, in the order of the metrics; with predictions, also the metrics that need them."""
        means = dict(zip(self._names, [value / rows for value in self._sums.tolist()], strict=True))
        if not self.stored or predictions is None:
            return means
        computed = {m.name: m.compute(y, predictions) for m in self.metrics if not isinstance(m, RowMetric)}
        return {name: {**means, **computed}[name] for name in ("loss", *(m.name for m in self.metrics))}


class TrainStep:
    """The training step of a compiled model: its Plan, its Program, its vectors.

    Args:
        batch: rows of a full batch
        weighted: whether rows have weights
    """

    def __init__(self, model: Trainable, batch: int, weighted: bool) -> None:
        self.model = model
        self.dtype = model.dtype
        self.layout = Layout.of(model.trainable_weights)
        self.totals = Totals(model.metric_objects)
        roots = self._record(weighted)
        self.plan = Plan(roots, batch=batch, dtype=self.dtype, name=f"{model.name}: training step")
        self.program = config.active_backend().Program(self.plan)
        self.grads = zeros(self.layout.size, self.dtype)

    def _record(self, weighted: bool) -> list[Tensor | Node]:
        model = self.model
        index = leaf((None,), "index", "int64", stream=True)
        step = leaf((1,), "step", "int64", stream=True)
        x = data.gather(leaf((ALL, *model.input_shape[1:]), "x"), index)
        y = data.gather(leaf((ALL, *model.loss.target_shape(model.output_shape)[1:]), "y"), index)
        p = model.trace(x, Training(model.seed, step))
        unit = data.gather(leaf((ALL,), "weight"), index) if weighted else None
        target = data.gather(leaf((ALL, *y.shape[1:]), "target"), index) if model.loss.label_smoothing else y
        rows = row_loss(model, target, p, unit)
        fused = losses_on_logits([rows, p])
        rows, p = fused[rows], fused[p]

        optimizer = model.optimizer
        found = gradients(rows, [w.tensor for w in self.layout.weights])
        roots: list[Tensor | Node] = []
        for weight, offset, gradient in zip(self.layout.weights, self.layout.offsets, found, strict=True):
            if gradient is None:
                continue
            gradient = optimizer.clip(gradient, whole=False)
            if gradient.place is not None:
                raise AssertionError(f"{weight.name}: its gradient already has a place")
            gradient.place, gradient.name = Place("grads", offset), f"gradient of {weight.name}"
            roots.append(gradient)
        whole = leaf((self.layout.size,), "grads")
        clipped = optimizer.clip(whole, whole=True)
        if clipped is not whole:
            clipped.place = Place("clipped")
        rates = leaf((optimizer.rate_count,), "rates", stream=True)
        for first, offset, size in self.layout.runs(apart=clipped is whole):
            assert first.tensor.place is not None
            flat = Tensor((size,), place=Place(first.tensor.place.buffer, first.offset), name="weights")
            slots = [Tensor((size,), place=Place(f"slot{i}", offset)) for i in range(len(optimizer.slots))]
            part = Tensor((size,), place=Place(clipped.place.buffer if clipped.place else "grads", offset))
            if clipped is not whole:
                roots.append(clipped)
            roots.append(optimizer.update(flat, slots, part, rates))
        roots += self.totals.record(rows, y, p)
        if self.totals.stored:
            roots.append(data.scatter(leaf((ALL, *p.shape[1:]), "predictions"), p, index))
        return roots

    def buffers(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> dict[str, np.ndarray]:
        """The buffers that stay the same for all epochs over this data."""
        found = {**self.model.vectors(), **data_buffers(self.model, x, y)}
        found |= {"grads": self.grads, "totals": self.totals.array}
        found |= {f"slot{i}": vector for i, vector in enumerate(self.model.slots(self.layout))}
        if weights is not None:
            found["weight"] = weights
        if self.totals.stored:
            found["predictions"] = empty_rows(len(x), self.model.output_shape, self.dtype)
        if "clipped" in self.plan.buffers:
            found["clipped"] = zeros(self.layout.size, self.dtype)
        return found

    def logs(self, buffers: dict[str, np.ndarray], rows: int, y: np.ndarray) -> dict[str, float]:
        """Loss and metrics of the ``rows`` rows since the totals were last 0. Stored metrics need a whole epoch."""
        return self.totals.logs(rows, y, buffers.get("predictions") if rows == len(y) else None)


class Feed:
    """The streams of each epoch: the order of the rows, and the numbers of its steps. Made for BLOCK epochs at a time.

    The order depends on the model's seed and on how many epochs it was trained, the rates on the optimizer's
    iterations: so training that was saved goes on as if it had not stopped.
    """

    BLOCK = 64  # part of what a seed means: with another number the orders are others

    def __init__(self, model: Trainable, rows: int, batch: int, shuffle: bool) -> None:
        self.model, self.rows, self.shuffle = model, rows, shuffle
        self.steps = -(-rows // batch)
        self.block = max(1, min(self.BLOCK, 65536 // rows))  # not too much memory
        self._key: Any = None
        self._orders: np.ndarray = np.arange(rows)[None]
        self._numbers: tuple[Any, int, np.ndarray, np.ndarray] = (None, 0, np.empty(0), np.empty(0))

    def epoch(self, number: int) -> dict[str, np.ndarray]:
        """The streams of the epoch with that number, counted from the model's first."""
        optimizer = self.model.optimizer
        rate, first = optimizer.learning_rate, optimizer.iterations
        known, start, rates, steps = self._numbers
        if known != rate or not start <= first <= first + self.steps <= start + len(steps):
            size = self.steps * self.block
            start, rates, steps = first, optimizer.rates(first, size), np.arange(first, first + size, dtype=np.int64)
            self._numbers = rate, start, rates, steps
        part = slice(first - start, first - start + self.steps)
        return {"index": self._order(number), "rates": rates[part], "step": steps[part]}

    def _order(self, number: int) -> Any:
        if not self.shuffle:
            return self._orders[0]
        block, index = divmod(number, self.block)
        if self._key != (self.model.seed, block):
            rng = np.random.default_rng([self.model.seed, 1, block])
            rows = np.tile(np.arange(self.rows), (self.block, 1))
            self._key, self._orders = (self.model.seed, block), rng.permuted(rows, axis=1, out=rows)
        return self._orders[index]


class TestStep:
    """Loss and metrics without training; or, without a loss, prediction."""

    __test__ = False  # not a test case, whatever its name

    def __init__(self, model: Trainable, weighted: bool) -> None:
        self.model = model
        self.totals = Totals(model.metric_objects)
        x = leaf((None, *model.input_shape[1:]), "x", stream=True)
        y = leaf((None, *model.loss.target_shape(model.output_shape)[1:]), "y", stream=True)
        p = model.trace(x, None)
        target = leaf(y.shape, "target", stream=True) if model.loss.label_smoothing else y
        rows = row_loss(model, target, p, leaf((None,), "weight", stream=True) if weighted else None)
        fused = losses_on_logits([rows, p])
        rows, p = fused[rows], fused[p]
        roots = self.totals.record(rows, y, p)
        if self.totals.stored:
            p.place = Place("out", 0, stream=True)
            roots.append(p)
        self.plan = Plan(roots, batch=ROWS, dtype=model.dtype, name=f"{model.name}: test step")
        self.program = config.active_backend().Program(self.plan)

    def run(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> dict[str, float]:
        """Loss and metrics for these rows."""
        totals = Totals(self.totals.metrics)  # of this call alone: several threads may be evaluating
        buffers = {**self.model.vectors(), **data_buffers(self.model, x, y), "totals": totals.array}
        if weights is not None:
            buffers["weight"] = weights
        if self.totals.stored:
            buffers["out"] = empty_rows(len(x), self.model.output_shape, self.model.dtype)
        done, batches = 0, -(-len(x) // ROWS)
        while done < batches:
            done = self.program.run(buffers, done, batches, ROWS, len(x), PULSE)
        return totals.logs(len(x), y, buffers.get("out"))


def data_buffers(model: Trainable, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """The buffers of the data: inputs, targets, and the targets as the loss takes them where those differ."""
    found = {"x": x, "y": y}
    if model.loss.label_smoothing:
        found["target"] = np.ascontiguousarray(model.loss.smooth(y), model.dtype)
    return found


def empty_rows(rows: int, shape: Shape, dtype: str) -> np.ndarray:
    """An array for so many rows of a shape (None, ...)."""
    return np.empty([rows, *(size for size in shape[1:] if size is not None)], dtype)


def predict_plan(model: Trainable, batch: int = ROWS) -> Plan:
    """Rows in, predictions out; both are streams."""
    p = model.trace(leaf((None, *model.input_shape[1:]), "x", stream=True), None)
    if p.place is not None:  # a model without an op: its output is its input
        p = pointwise.clip(p, limit=float("inf"))
    p.place = Place("out", 0, stream=True)
    return Plan([p], batch=batch, dtype=model.dtype, name=f"{model.name}: prediction")


def row_loss(model: Trainable, y: Tensor, p: Tensor, weights: Tensor | None) -> Tensor:
    """The loss of each row, weighted, with the weights' penalties added."""
    rows: Tensor = model.loss.rows(y, p)
    if weights is not None:
        rows = pointwise.multiply(rows, weights)
    for weight in model.weights:
        if weight.regularizer is not None:
            rows = loss.add_rows(rows, weight.regularizer(weight.tensor))
    return rows
