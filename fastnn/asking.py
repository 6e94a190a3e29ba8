"""Testing and predicting: Plans that change no weight, and their Programs.

What depends on nothing but the weights, such as those of a convolution made ready for Winograd's algorithm, is computed
once and kept until the weights change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import config
from fastnn.ends import buffer_name
from fastnn.graph import Node, Place, Tensor
from fastnn.objectives import Judged, RowShapes
from fastnn.ops import pointwise
from fastnn.plan import Plan, fold_norms
from fastnn.steps import PULSE, Totals, empty_rows, leaf, passes, stored_rows

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
    """Losses and metrics without training. ``shapes`` as in ``TrainStep``."""

    __test__ = False  # not a test case, whatever its name

    def __init__(self, model: Trainable, shapes: RowShapes = ()) -> None:
        self.model = model
        outputs = model.trace(input_leaves(model), None)
        judged = Judged(model.objectives, model.output_side, outputs, shapes, _stream, model.weights)
        roots: list[Tensor | Node] = []
        self.totals, sums = Totals.record(model.measures, judged)
        roots += sums
        for output in self.totals.stored:
            roots.append(_placed(judged.predictions[output], buffer_name("predictions", output)))
        super().__init__(model, roots, "test step")

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Losses and metrics for these rows."""
        totals = self.totals.fresh()  # of this call alone: several threads may be evaluating
        rows = len(arrays["x"])
        data = {**arrays, **self.predictions(rows)}
        self.add(totals, data, rows)
        return totals.logs(rows, data)

    def predictions(self, rows: int) -> dict[str, np.ndarray]:
        """Room for the predictions of so many rows, of the outputs whose metrics need them."""
        return stored_rows(self.model, self.totals, "predictions", rows)

    def add(
        self, totals: Totals, data: Mapping[str, np.ndarray], count: int, beat: Callable[[], object] = bool
    ) -> None:
        """Add the losses and metrics of so many rows to the totals, a multiple of the Plan's batch if not the last."""
        buffers = {**self.vectors, **data, "totals": totals.array}
        rows = self.plan.batch
        done, batches = 0, -(-count // rows)
        while done < batches:
            self.refresh()
            done = self.program.run(buffers, done, batches, rows, count, PULSE)
            beat()


class Predictor(Question):
    """Rows in, predictions out.

    Attributes:
        answer: None, or the setting in which it holds and a function that predicts with next to nothing around it, or
            returns None for what must go the long way
    """

    def __init__(self, model: Trainable) -> None:
        super().__init__(model, prediction(model), "prediction")
        self._sides = model.input_side, model.output_side
        self._work = sum(max(step.flops, MOVING * step.elements) for step in self.plan.steps)
        short = self._short_way()
        self.answer = None if short is None else (config.engine(), short)

    def room(self, rows: int) -> list[np.ndarray]:
        """Arrays for the outputs of so many rows."""
        return [empty_rows(rows, shape, self.plan.dtype) for shape in self._sides[1].shapes]

    def run(self, x: Mapping[str, np.ndarray], out: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """The outputs for these rows, written to ``out`` if that is given."""
        total = len(x["x"])
        out = self.room(total) if out is None else list(out)
        arrays = {**x, **dict(zip(self._sides[1].buffers("out"), out, strict=True))}
        lanes = config.get_num_threads()
        calls = lanes * max(1, int(CALL / max(self._work, 1.0)) // lanes)  # batches of a call
        part = self.plan.batch * calls
        for start in range(0, total, part):  # so that Ctrl-C is heard
            rows = slice(start, start + part)
            buffers = {**self.vectors, **{name: array[rows] for name, array in arrays.items()}}
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
        inputs, outputs = self._sides
        if not hasattr(self.program, "answer") or inputs.form is not None or outputs.form is not None:
            return None
        shapes = inputs.shapes[0], outputs.shapes[0]
        one = {name: empty_rows(1, shape, self.plan.dtype) for name, shape in zip(("x", "out"), shapes, strict=True)}
        fast: Any = self.program.answer({**self.vectors, **one}, shapes[0][1:], shapes[1][1:])
        if not self.plan.constants:
            return fast  # type: ignore[no-any-return]

        def answer(x: Any) -> Any:
            self.refresh()
            return fast(x)

        return answer


def _stream(name: str, row: Sequence[int | None]) -> Tensor:
    """A Tensor for the rows in a buffer, batch after batch."""
    return leaf((None, *row), name, stream=True)


def _placed(p: Tensor, buffer: str) -> Tensor:
    """An output that goes to that buffer, batch after batch."""
    if p.place is not None:  # it is an input, or goes elsewhere, too
        p = pointwise.clip(p, limit=float("inf"))
    p.place = Place(buffer, 0, stream=True)
    return p


def input_leaves(model: Trainable) -> list[Tensor]:
    """Tensors for the inputs, batch after batch."""
    return [_stream(buffer_name("x", i), shape[1:]) for i, shape in enumerate(model.input_side.shapes)]


def prediction(model: Trainable) -> list[Tensor | Node]:
    """The outputs of the model as streams, from the streams of its inputs."""
    outputs = model.trace(input_leaves(model), None)
    return [_placed(p, buffer_name("out", number)) for number, p in enumerate(outputs)]


def asking_plan(model: Trainable, roots: Sequence[Tensor | Node], rows: int, name: str) -> Plan:
    """A Plan in which the weights do not change."""
    return Plan(
        roots,
        batch=rows,
        dtype=model.dtype,
        name=f"{model.name}: {name}",
        passes=[fold_norms, *passes(training=False)],
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
