"""The reference backend: each step is the op's own NumPy body. Needs nothing but NumPy, and runs float64."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastnn.graph import ALL
from fastnn.ops.custom import PythonOp
from fastnn.plan import ARENA, CONSTANTS, Operand, Plan, Step, zeros

NAME = "numpy"
Arrays = tuple[np.ndarray, ...]


def execute(step: Step, outputs: Arrays, inputs: Arrays) -> None:
    """Run one step on arrays."""
    if isinstance(step.op, PythonOp):
        step.op.write(outputs[0], inputs)
    elif step.op.updates:
        whole = list(inputs)
        for index, output in zip(step.op.updates, outputs, strict=True):
            whole.insert(index, output)
        for output, value in zip(outputs, step.op.reference(*whole, **step.attrs), strict=True):
            output[...] = value
    else:
        outputs[0][...] = step.op.reference(*inputs, **step.attrs)


class Program:
    """A Plan that runs step by step in Python.

    Args:
        plan: Plan
        execute: runs one step, ``execute(step, outputs, inputs)``
    """

    def __init__(self, plan: Plan, execute: Callable[[Step, Arrays, Arrays], None] = execute) -> None:
        self.plan = plan
        self._execute = execute
        self._own = {ARENA: zeros(plan.arena_size, plan.dtype), CONSTANTS: zeros(plan.constants_size, plan.dtype)}
        self._lock = threading.Lock()
        self._stops = any(step.op.python for step in plan.steps)

    def prepare(self, buffers: Mapping[str, np.ndarray]) -> None:
        """Compute what depends on nothing but the weights. To be called first, and again when they have changed.

        Args:
            buffers: at least those that ``plan.constants`` read
        """
        with self._lock, np.errstate(all="ignore"):
            self._run(self.plan.constants, self._arrays(buffers), 0, 1, 1)

    def run(
        self, buffers: Mapping[str, np.ndarray], first: int, last: int, batch: int, rows: int, seconds: float = 0.0
    ) -> int:
        """Run batches ``first`` to ``last - 1``.

        Args:
            buffers: contiguous arrays for ``plan.buffers``, except the Program's own two
            first: number of the first batch
            last: number of the batch before which it stops
            batch: rows of a batch, at most the plan's
            rows: rows of the data; the last batch may be smaller
            seconds: stop after the batch in which so much time has passed, or after each one if there are custom ops;
                0 for no limit

        Returns:
            The number of the first batch that was not run.
        """
        deadline = time.monotonic() + seconds if seconds > 0 else float("inf")
        arrays = self._arrays(buffers)
        with self._lock, np.errstate(all="ignore"):
            for k in range(first, last):
                self._run(self.plan.steps, arrays, k, batch, min(batch, rows - k * batch))
                if self._stops and seconds > 0:  # should such a step fail, it is known how many batches were done
                    return k + 1
                if time.monotonic() > deadline:
                    return k + 1
        return last

    def time_steps(self, buffers: Mapping[str, np.ndarray], rows: int) -> list[float]:
        """Run the batch of the first ``rows`` rows once; returns the seconds that each step took."""
        arrays, seconds = self._arrays(buffers), []
        with self._lock, np.errstate(all="ignore"):
            for step in self.plan.steps:
                start = time.perf_counter()
                self._run([step], arrays, 0, rows, rows)
                seconds.append(time.perf_counter() - start)
        return seconds

    def _arrays(self, buffers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: array.reshape(-1) for name, array in buffers.items()} | self._own

    def _run(self, steps: Sequence[Step], arrays: Mapping[str, np.ndarray], k: int, batch: int, size: int) -> None:
        for step in steps:
            self._execute(step, *views(step, arrays, k, batch, size))


def views(step: Step, arrays: Mapping[str, np.ndarray], k: int, batch: int, size: int) -> tuple[Arrays, Arrays]:
    """The outputs and inputs of a step in batch ``k``, which has ``size`` rows, by the flat arrays of the buffers."""
    outputs = tuple(_view(o, arrays, k, batch, size) for o in step.outputs)
    return outputs, tuple(_view(i, arrays, k, batch, size) for i in step.inputs)


def _view(operand: Operand, arrays: Mapping[str, np.ndarray], k: int, batch: int, size: int) -> np.ndarray:
    shape = operand.sized(size)
    if shape and shape[0] == ALL:
        return arrays[operand.place.buffer].reshape(shape)
    count = 1
    for extent in shape:
        count *= extent
    start = operand.place.offset
    if operand.place.stream:
        start += k * (count // size * batch if operand.batch else count)
    flat = arrays[operand.place.buffer][start:]
    if not operand.skip:
        return flat[:count].reshape(shape)
    strides = [flat.itemsize]
    for extent in (shape[-1] + operand.skip, *shape[-2:0:-1]):
        strides.append(strides[-1] * extent)
    return np.lib.stride_tricks.as_strided(flat, shape, strides[::-1])


def why_not() -> str | None:
    """Why this backend cannot run, or None."""
    return None


def describe() -> dict[str, Any]:
    """What a person wants to know of it."""
    return {"numpy": np.__version__}
