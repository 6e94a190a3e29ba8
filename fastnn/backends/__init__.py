"""How Programs run: native (C), numba, numpy. One backend runs a Program as a whole; none falls back op by op.

A backend is a module with ``NAME``, ``Program(plan)``, ``why_not()`` and ``describe()``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from fastnn.graph import Place, Tensor
from fastnn.ops.declare import OPS
from fastnn.plan import Plan, zeros

#: Best first.
NAMES = ("native", "numba", "numpy")


def load(name: str) -> ModuleType:
    """The module of a backend."""
    if name not in NAMES:
        raise ValueError(f"backend: must be one of {', '.join(NAMES)}. Received: {name!r}")
    return importlib.import_module(f"fastnn.backends.{name}")


def single(
    backend: str, op: str, inputs: Sequence[np.ndarray], attrs: dict[str, Any] | None = None
) -> tuple[list[np.ndarray], Callable[[], None]]:
    """One op as a Program of one step, for tests and benchmarks.

    Args:
        backend: name of the backend
        op: name of the op
        inputs: arrays; floats are converted to float32. The first axis of the first is the batch where the op has one
        attrs: attributes

    Returns:
        outputs: the arrays that ``run`` overwrites, filled with NaN; copies of the inputs for an op that updates them
        run: runs the op once

    Example:
        >>> import numpy as np
        >>> (y,), run = single("numpy", "relu", [np.array([[-1.0, 2.0]])])
        >>> run()
        >>> y
        array([[0., 2.]], dtype=float32)
    """
    declared = OPS[op]
    leaves, buffers = [], {}
    for number, array in enumerate(inputs):
        dtype = "int64" if array.dtype.kind in "iu" else "float"
        if declared.updates and op == "accumulate" and number == 0:
            dtype = "float64"
        kind = {"float": np.float32, "float64": np.float64, "int64": np.int64}[dtype]
        name = f"in{number}"
        buffers[name] = zeros(array.size, kind).reshape(array.shape)  # aligned like the arrays of a model
        buffers[name][...] = array
        leaves.append(Tensor(array.shape, dtype, place=Place(name)))
    node = declared.record(*leaves, **(attrs or {}))
    if declared.updates:
        outputs = [buffers[f"in{i}"] for i in declared.updates]
    else:
        node.place = Place("out")
        outputs = [zeros(int(np.prod(node.shape)), np.float32).reshape(node.shape)]
        outputs[0][...] = np.nan
        buffers["out"] = outputs[0]
    for number in range(len(inputs)):
        buffers[f"in{number}"].flags.writeable = number in declared.updates
    program = load(backend).Program(Plan([node], batch=1, passes=()))

    def run() -> None:
        program.run(buffers, 0, 1, 1, 1)

    return outputs, run
