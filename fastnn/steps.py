"""The Plan of a training step, and the arrays that it runs over.

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
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastnn import config
from fastnn.autodiff import gradients
from fastnn.graph import ALL, Node, Place, Shape, Tensor
from fastnn.layers.base import Training, Weight
from fastnn.metrics import Metric, RowMetric
from fastnn.ops import data, loss, pointwise
from fastnn.order import Orders
from fastnn.plan import Pass, Plan, aligned, choose, epilogues, fused_norms, losses_on_logits, zeros

if TYPE_CHECKING:
    from fastnn.training import Trainable

#: A weight with so many elements is updated by itself, right after its gradient, while both are in the cache.
LARGE = 1 << 15
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
        name = f"{model.name}: training step"
        self.plan = Plan(roots, batch=batch, dtype=self.dtype, name=name, passes=passes())
        self._versions = list(dict.fromkeys(weight.version for weight in model.weights))

    @cached_property
    def program(self) -> Any:
        """The Program: what needs memory waits until it is asked for."""
        return config.active_backend().Program(self.plan)

    @cached_property
    def grads(self) -> np.ndarray:
        """The flat vector of gradients."""
        return zeros(self.layout.size, self.dtype)

    def run(
        self, buffers: dict[str, np.ndarray], first: int, last: int, batch: int, rows: int, seconds: float = 0.0
    ) -> int:
        """Run the Program; see there. The weights are then known to have changed."""
        try:
            return int(self.program.run(buffers, first, last, batch, rows, seconds))
        finally:
            for version in self._versions:
                version.advance()

    def _record(self, weighted: bool) -> list[Tensor | Node]:
        model = self.model
        index = leaf((None,), "index", "int64", stream=True)
        step = leaf((1,), "step", "int64", stream=True)
        x = data.gather(leaf((ALL, *model.input_shape[1:]), "x"), index)
        y = data.gather(leaf((ALL, *model.loss.target_shape(model.output_shape)[1:]), "y"), index)
        training = Training(model.seed, step)
        p = model.trace(x, training)
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
        roots += training.updates
        roots += self.totals.record(rows, y, p)
        if self.totals.stored:
            roots.append(data.scatter(leaf((ALL, *p.shape[1:]), "predictions"), p, index))
        return roots

    def buffers(
        self, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None, slots: Sequence[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The buffers that stay the same for all epochs over this data; ``slots`` are the optimizer's vectors."""
        found = self.state(slots) | data_buffers(self.model, x, y)
        if weights is not None:
            found["weight"] = weights
        if self.totals.stored:
            found["predictions"] = empty_rows(len(x), self.model.output_shape, self.dtype)
        return found

    def state(self, slots: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Those of them that are not data."""
        found = {**self.model.vectors(), "grads": self.grads, "totals": self.totals.array}
        found |= {f"slot{i}": vector for i, vector in enumerate(slots)}
        if "clipped" in self.plan.buffers:
            found["clipped"] = zeros(self.layout.size, self.dtype)
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


def passes() -> list[Pass]:
    """What is done to each graph of a model before it becomes a Plan."""
    return [fused_norms, epilogues, partial(choose, use_winograd=config.winograd())]


def data_buffers(model: Trainable, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """The buffers of the data: inputs, targets, and the targets as the loss takes them where those differ."""
    found = {"x": x, "y": y}
    if model.loss.label_smoothing:
        found["target"] = np.ascontiguousarray(model.loss.smooth(y), model.dtype)
    return found


def empty_rows(rows: int, shape: Shape, dtype: str) -> np.ndarray:
    """An array for so many rows of a shape (None, ...)."""
    return np.empty([rows, *(size for size in shape[1:] if size is not None)], dtype)


def row_loss(model: Trainable, y: Tensor, p: Tensor, weights: Tensor | None) -> Tensor:
    """The loss of each row, weighted, with the weights' penalties added."""
    rows: Tensor = model.loss.rows(y, p)
    if weights is not None:
        rows = pointwise.multiply(rows, weights)
    for weight in model.weights:
        if weight.regularizer is not None:
            rows = loss.add_rows(rows, weight.regularizer(weight.tensor))
    return rows
