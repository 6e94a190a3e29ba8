"""The Plan of a training step, and the arrays that it runs over.

A training step is one Plan: gather the batch, forward, loss, backward, update, running totals. Its buffers:

    x, y, weight   all rows, as given
    index          stream: the rows of each batch
    rates, step    streams: what the optimizer and dropout need at each step
    weights<i>     the flat weights; one buffer for each model that the layers come from
    grads, slot<i> the gradients that are not in the arena, and the optimizer's memory, flat
    totals         running sums of the loss and the metrics, in double precision
    predictions    the epoch's predictions, for metrics that need them all
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import config
from fastnn.autodiff import gradients
from fastnn.graph import ALL, Node, Place, Shape, Tensor
from fastnn.layers.base import Training
from fastnn.metrics import Metric, SummedMetric
from fastnn.ops import data, loss
from fastnn.order import Orders
from fastnn.plan import Pass, Plan, choose, epilogues, fused_norms, losses_on_logits, zeros
from fastnn.updating import Layout, updates

if TYPE_CHECKING:
    from fastnn.training import Trainable

#: A call into the engine returns about so often, in seconds, for the progress bar and Ctrl-C.
PULSE = 0.05


def leaf(shape: Sequence[int | None], buffer: str, dtype: str = "float", *, stream: bool = False) -> Tensor:
    """A Tensor found in a buffer."""
    return Tensor(tuple(shape), dtype, place=Place(buffer, 0, stream), name=buffer)


class Totals:
    """Running sums of the loss and of the metrics that are made of sums: double precision, cache lines of their own."""

    def __init__(self, metrics: Sequence[Metric], shapes: Sequence[Sequence[int]]) -> None:
        """``shapes`` are those of what a row adds to the loss and to each metric made of sums."""
        self.metrics, self.shapes = metrics, shapes
        self.summed = [m for m in metrics if isinstance(m, SummedMetric)]
        self.stored = len(self.summed) < len(metrics)  # whether some metric needs all predictions
        self.starts = [0]
        for shape in shapes:
            self.starts.append(self.starts[-1] + -(-math.prod(shape) // 8) * 8)
        self.array = np.zeros(self.starts[-1], np.float64)
        self._sums = [
            self.array[start : start + math.prod(shape)].reshape(shape)
            for shape, start in zip(shapes, self.starts[:-1], strict=True)
        ]

    @classmethod
    def record(cls, metrics: Sequence[Metric], rows: Tensor, y: Tensor, p: Tensor) -> tuple[Totals, list[Node]]:
        """The sums, and the nodes that add a batch's values to them: ``rows`` are its losses (N,)."""
        values = [rows, *(m.summands(y, p) for m in metrics if isinstance(m, SummedMetric))]
        totals = cls(metrics, [[size for size in v.shape[1:] if size is not None] or [1] for v in values])
        leaves = [
            Tensor(tuple(shape), "float64", place=Place("totals", start))
            for shape, start in zip(totals.shapes, totals.starts[:-1], strict=True)
        ]
        return totals, [loss.accumulate(total, v) for total, v in zip(leaves, values, strict=True)]

    def fresh(self) -> Totals:
        """Sums of the same shapes, all 0."""
        return Totals(self.metrics, self.shapes)

    def logs(self, rows: int, y: np.ndarray, predictions: np.ndarray | None) -> dict[str, float]:
        """Loss and metrics over ``rows`` rows, in their order; with predictions, also the metrics that need them."""
        found = {m.name: m.result(part, rows) for m, part in zip(self.summed, self._sums[1:], strict=True)}
        found["loss"] = float(self.array[0]) / rows
        if self.stored and predictions is not None:
            found |= {m.name: m.compute(y, predictions) for m in self.metrics if not isinstance(m, SummedMetric)}
        return {name: found[name] for name in ("loss", *(m.name for m in self.metrics)) if name in found}


class TrainStep:
    """The training step of a compiled model: its Plan, its Program, its vectors.

    Args:
        batch: rows of a full batch
        target: shape of a row's target; the usual one of the loss if None
        weight: shape of a row's weights: () is one number, (H, W), say, one a pixel; None if there are none
    """

    def __init__(
        self, model: Trainable, batch: int, target: Sequence[int] | None = None, weight: Sequence[int] | None = None
    ) -> None:
        self.model = model
        self.dtype = model.dtype
        self.layout = Layout.of(model.trainable_weights)
        roots = self._record(target, weight)
        name = f"{model.name}: training step"
        self.plan = Plan(roots, batch=batch, dtype=self.dtype, name=name, passes=passes(), recompute=model.recompute)
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

    def _record(self, target: Sequence[int] | None, weight: Sequence[int] | None) -> list[Tensor | Node]:
        model = self.model
        index = leaf((None,), "index", "int64", stream=True)
        step = leaf((1,), "step", "int64", stream=True)
        x = data.gather(leaf((ALL, *model.input_shape[1:]), "x"), index)
        y = data.gather(leaf((ALL, *target_row(model, target)), "y"), index)
        training = Training(model.seed, step)
        (p,) = model.trace([x], training)
        weights = None if weight is None else data.gather(leaf((ALL, *weight), "weight"), index)
        rows = row_loss(model, y, p, weights)
        fused = losses_on_logits([rows, p])
        rows, p = fused[rows], fused[p]

        optimizer = model.optimizer
        found = gradients(rows, [w.tensor for w in self.layout.weights])
        rates = leaf((optimizer.rate_count,), "rates", stream=True)
        roots, self._grads_size = updates(optimizer, self.layout, found, rates)
        roots += training.updates
        self.totals, sums = Totals.record(model.metric_objects, rows, y, p)
        roots += sums
        if self.totals.stored:
            roots.append(data.scatter(leaf((ALL, *p.shape[1:]), "predictions"), p, index))
        return roots

    def buffers(
        self, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None, slots: Sequence[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The buffers that stay the same for all epochs over this data; ``slots`` are the optimizer's vectors."""
        found = {**self.state(slots), "x": x, "y": y}
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


def passes() -> list[Pass]:
    """What is done to each graph of a model before it becomes a Plan."""
    return [fused_norms, epilogues, partial(choose, use_winograd=config.winograd())]


def target_row(model: Trainable, target: Sequence[int] | None) -> Sequence[int | None]:
    """The shape of a row's target: ``target``, or the usual one of the loss."""
    return model.loss.target_shape(model.output_shape)[1:] if target is None else target


def empty_rows(rows: int, shape: Shape, dtype: str) -> np.ndarray:
    """An array for so many rows of a shape (None, ...)."""
    return np.empty([rows, *(size for size in shape[1:] if size is not None)], dtype)


def row_loss(model: Trainable, y: Tensor, p: Tensor, weights: Tensor | None) -> Tensor:
    """The loss of each row, weighted, with the weights' penalties added."""
    rows: Tensor = model.loss.rows(y, p, weights)
    for weight in model.weights:
        if weight.regularizer is not None:
            rows = loss.add_rows(rows, weight.regularizer(weight.tensor))
    return rows
