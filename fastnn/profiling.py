"""Where the time goes: every step of a Plan timed by itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastnn import config
from fastnn.asking import asking_plan, prediction
from fastnn.plan import Plan, Step, zeros
from fastnn.steps import Feed, TrainStep, empty_rows, row_shapes

if TYPE_CHECKING:
    from fastnn.training import Trainable

#: A step is timed so many times at least and at most.
LEAST, MOST = 3, 1000
#: What the machine can do is the best of so many tries of so many seconds.
RACES, RACE = 5, 0.02
#: Ops whose floating-point operations are multiply-adds, and as many as direct summation takes. The others move data.
_PRODUCTS = ("matmul", "dense", "conv", "fused_conv", "depthwise", "fused_depthwise", "winograd_conv")


class StepTime(NamedTuple):
    """What one step of a Plan took.

    Attributes:
        step: as ``print(plan)`` shows it: op, shapes, attributes
        seconds: median of all runs
        share: of the total
        gflops: GFLOP/s for products and convolutions, counted as for direct summation; else None
        peak_share: ``gflops`` by what the machine can do; above 1 where an algorithm needs fewer multiplications; None
            on backends that have no measure for it
        gbytes: GB/s, each array that is read or written counted once
    """

    step: str
    seconds: float
    share: float
    gflops: float | None
    peak_share: float | None
    gbytes: float


class Profile:
    """The times of all steps of a Plan; prints as a table. ``Model.profile`` makes it.

    Attributes:
        steps: list of StepTime, in the order in which they run
        seconds: the sum of their times
        rows: rows of the batch
        runs: how often each step was timed
        peak_gflops: GFLOP/s that the threads reach together with multiply-adds in registers; None if not known
    """

    def __init__(self, plan: Plan, rows: int, times: list[list[float]], peak_gflops: float | None) -> None:
        medians = [statistics.median(column) for column in zip(*times, strict=True)]
        self.name = plan.name
        self.rows = rows
        self.runs = len(times)
        self.peak_gflops = peak_gflops
        self.seconds = sum(medians)
        self._kept = len(plan.constants)
        threads = config.get_num_threads()
        self._engine = f"{config.backend()}, {threads} thread{'s' * (threads > 1)}"
        width = np.dtype(plan.dtype).itemsize
        products = sum(step.flops for step in plan.steps if _is_product(step))
        self.steps = [self._row(step, seconds, width) for step, seconds in zip(plan.steps, medians, strict=True)]
        self._total = self._rates(products, sum(step.elements for step in plan.steps) * width, self.seconds)

    def _row(self, step: Step, seconds: float, width: int) -> StepTime:
        share = seconds / self.seconds if self.seconds else 0.0
        rates = self._rates(step.flops if _is_product(step) else 0.0, step.elements * width, seconds)
        return StepTime(step.line(), seconds, share, *rates)

    def _rates(self, flops: float, size: float, seconds: float) -> tuple[float | None, float | None, float]:
        seconds = max(seconds, 1e-9)  # as fine as clocks are
        gflops = flops / seconds / 1e9 if flops else None
        peak = None if gflops is None or self.peak_gflops is None else gflops / self.peak_gflops
        return gflops, peak, size / seconds / 1e9

    def __str__(self) -> str:
        head = ("", "step", "time in us", "share", "GFLOP/s", "of peak", "GB/s")
        rows = [(str(i), *_cells(step)) for i, step in enumerate(self.steps)]
        rows.append(("", *_cells(StepTime("total", self.seconds, 1.0, *self._total))))
        widths = [max(len(row[c]) for row in (head, *rows)) for c in range(len(head))]
        lines = []
        for row in (head, *rows):
            number, step, *cells = row
            right = [cell.rjust(width) for cell, width in zip(cells, widths[2:], strict=True)]
            lines.append("  ".join([number.rjust(widths[0]), step.ljust(widths[1]), *right]))
        peak = "" if self.peak_gflops is None else f", peak {self.peak_gflops:.0f} GFLOP/s"
        title = f"Profile {self.name}: batch {self.rows}, {self._engine}{peak}, median of {self.runs} runs"
        if self._kept:
            title += f"; without {self._kept} steps that run only when the weights have changed"
        return "\n".join([title, *lines])

    __repr__ = __str__


def _cells(step: StepTime) -> tuple[str, ...]:
    return (
        step.step,
        f"{step.seconds * 1e6:,.1f}",
        f"{step.share:.1%}",
        "-" if step.gflops is None else f"{step.gflops:,.1f}",
        "-" if step.peak_share is None else f"{step.peak_share:.0%}",
        f"{step.gbytes:,.1f}",
    )


def _is_product(step: Step) -> bool:
    return step.op.name.startswith(_PRODUCTS)


def profile(
    model: Trainable, arrays: Mapping[str, np.ndarray], batch: int, limit: float, *, training: bool
) -> Profile:
    """See ``Model.profile``; the arrays are checked."""
    rows = min(batch, len(arrays["x"]))
    arrays = {name: array[:rows] for name, array in arrays.items()}
    if not training:
        plan = asking_plan(model, prediction(model), rows, "prediction")
        program = config.active_backend().Program(plan)
        vectors = model.vectors()
        program.prepare(vectors)
        outputs = zip(model.output_side.buffers("out"), model.output_side.shapes, strict=True)
        buffers = {**vectors, **arrays, **{name: empty_rows(rows, shape, model.dtype) for name, shape in outputs}}
    else:
        step = TrainStep(model, rows, row_shapes({name: array.shape[1:] for name, array in arrays.items()}))
        plan, program = step.plan, step.program
        given = step.buffers(arrays, model.slots_for(step.layout))
        buffers = _copies(given) | Feed(model, rows, rows, shuffle=False).epoch(0)
    peak = getattr(config.active_backend(), "peak_gflops", None)
    times: list[list[float]] = []
    program.time_steps(buffers, rows)  # what is slower the first time
    start = time.perf_counter()
    while len(times) < LEAST or (len(times) < MOST and time.perf_counter() - start < limit):
        times.append(program.time_steps(buffers, rows))
    return Profile(plan, rows, times, None if peak is None else max(float(peak(RACE)) for _ in range(RACES)))


def _copies(buffers: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The same numbers elsewhere, so that the model stays as it is."""
    copies = {}
    for name, array in buffers.items():
        copies[name] = zeros(array.size, array.dtype).reshape(array.shape)
        copies[name][...] = array
    return copies
