"""Testing and predicting: Plans that change no weight, and their Programs.

What depends on nothing but the weights, such as those of a convolution made ready for Winograd's algorithm, is computed
once and kept until the weights change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import config
from fastnn.graph import Node, Place, Tensor
from fastnn.ops import pointwise
from fastnn.plan import Plan, fold_norms, losses_on_logits
from fastnn.steps import PULSE, Totals, empty_rows, leaf, passes, row_loss, target_row

if TYPE_CHECKING:
    from fastnn.training import Trainable

#: Testing and predicting take so many rows at a time, or fewer if these need more memory than so many bytes for each
#: thread: results do not depend on it, speed does.
ROWS = 256
MEMORY = 64 << 20
#: So many floating-point operations are about one call into the engine where there is no clock to return by. To read or
#: write a number counts as MOVING.
CALL = 1e10
MOVING = 10.0


class Question:
    """A Plan without updates of weights, for as many rows as are good at a time, and its Program.

    Args:
        model: whose weights it reads
        roots: what is wanted
        name: for printing
    """

    def __init__(self, model: Trainable, roots: Sequence[Tensor | Node], name: str) -> None:
        self.vectors = model.vectors()
        self.plan = within_memory(lambda rows: asking_plan(model, roots, rows, name))
        self.program = config.active_backend().Program(self.plan)
        self._versions = list(dict.fromkeys(weight.version for weight in model.weights))
        self._prepared: list[int] | None = None

    def refresh(self) -> None:
        """Compute the constants if the weights have changed since the last time."""
        if not self.plan.constants:
            return
        numbers = [version.number for version in self._versions]  # before the weights are read: they may be changing
        if numbers != self._prepared:
            self.program.prepare(self.vectors)
            self._prepared = numbers


class TestStep(Question):
    """Loss and metrics without training. ``target`` and ``weight`` as in ``TrainStep``."""

    __test__ = False  # not a test case, whatever its name

    def __init__(
        self, model: Trainable, target: Sequence[int] | None = None, weight: Sequence[int] | None = None
    ) -> None:
        self.model = model
        x = leaf((None, *model.input_shape[1:]), "x", stream=True)
        y = leaf((None, *target_row(model, target)), "y", stream=True)
        (p,) = model.trace([x], None)
        rows = row_loss(model, y, p, None if weight is None else leaf((None, *weight), "weight", stream=True))
        fused = losses_on_logits([rows, p])
        rows, p = fused[rows], fused[p]
        roots: list[Tensor | Node] = []
        self.totals, sums = Totals.record(model.metric_objects, rows, y, p)
        roots += sums
        if self.totals.stored:
            p.place = Place("out", 0, stream=True)
            roots.append(p)
        super().__init__(model, roots, "test step")

    def run(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> dict[str, float]:
        """Loss and metrics for these rows."""
        totals = self.totals.fresh()  # of this call alone: several threads may be evaluating
        buffers = {**self.vectors, "x": x, "y": y, "totals": totals.array}
        if weights is not None:
            buffers["weight"] = weights
        if self.totals.stored:
            buffers["out"] = empty_rows(len(x), self.model.output_shape, self.model.dtype)
        rows = self.plan.batch
        done, batches = 0, -(-len(x) // rows)
        while done < batches:
            self.refresh()
            done = self.program.run(buffers, done, batches, rows, len(x), PULSE)
        return totals.logs(len(x), y, buffers.get("out"))


class Predictor(Question):
    """Rows in, predictions out.

    Attributes:
        answer: None, or the setting in which it holds and a function that predicts with next to nothing around it, or
            returns None for what must go the long way
    """

    def __init__(self, model: Trainable) -> None:
        super().__init__(model, prediction(model), "prediction")
        self._shapes = {"x": model.input_shape, "out": model.output_shape}
        self._work = sum(max(step.flops, MOVING * step.elements) for step in self.plan.steps)
        short = self._short_way()
        self.answer = None if short is None else (config.engine(), short)

    def run(self, x: np.ndarray) -> np.ndarray:
        """The outputs for these rows."""
        out = empty_rows(len(x), self._shapes["out"], self.plan.dtype)
        lanes = config.get_num_threads()
        calls = lanes * max(1, int(CALL / max(self._work, 1.0)) // lanes)  # batches of a call
        part = self.plan.batch * calls
        for start in range(0, len(x), part):  # so that Ctrl-C is heard
            rows = slice(start, start + part)
            buffers = {**self.vectors, "x": x[rows], "out": out[rows]}
            self.refresh()
            count = len(buffers["x"])
            batches = -(-count // self.plan.batch)
            if batches > 1 and hasattr(self.program, "run_apart"):
                batches = -(-batches // lanes) * lanes  # the same share for each
                size = -(-count // batches)
                self.program.run_apart(buffers, -(-count // size), size, count)
            else:
                self.program.run(buffers, 0, batches, self.plan.batch, count)
        return out

    def _short_way(self) -> Callable[[Any], np.ndarray | None] | None:
        if not hasattr(self.program, "answer"):
            return None
        one = {name: empty_rows(1, shape, self.plan.dtype) for name, shape in self._shapes.items()}
        fast: Any = self.program.answer({**self.vectors, **one}, self._shapes["x"][1:], self._shapes["out"][1:])
        if not self.plan.constants:
            return fast  # type: ignore[no-any-return]

        def answer(x: Any) -> Any:
            self.refresh()
            return fast(x)

        return answer


def prediction(model: Trainable) -> list[Tensor | Node]:
    """The output of the model as a stream, from the stream of its input."""
    (p,) = model.trace([leaf((None, *model.input_shape[1:]), "x", stream=True)], None)
    if p.place is not None:  # a model without an op: its output is its input
        p = pointwise.clip(p, limit=float("inf"))
    p.place = Place("out", 0, stream=True)
    return [p]


def asking_plan(model: Trainable, roots: Sequence[Tensor | Node], rows: int, name: str) -> Plan:
    """A Plan in which the weights do not change."""
    return Plan(
        roots,
        batch=rows,
        dtype=model.dtype,
        name=f"{model.name}: {name}",
        passes=[fold_norms, *passes()],
        weights=model.vectors(),
    )


def within_memory(make: Callable[[int], Plan]) -> Plan:
    """``make(rows)`` with ROWS, or fewer if that is more than MEMORY. Plans allocate nothing, Programs do."""

    def size(plan: Plan) -> int:
        return plan.arena_size * np.dtype(plan.dtype).itemsize

    plan = make(ROWS)
    if size(plan) <= MEMORY:
        return plan
    one = size(make(1))
    return make(max(1, min(ROWS, 1 + (MEMORY - one) * (ROWS - 1) // max(size(plan) - one, 1))))
