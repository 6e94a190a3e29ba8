"""The Numba backend: kernels in compiled Python, for machines without a C compiler.

Importing this does not import Numba; making the first Program does.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from typing import Any

import numpy as np

from fastnn.backends import numpy as reference
from fastnn.plan import Plan, Step

NAME = "numba"


class Program(reference.Program):
    """A Plan that runs step by step on the kernels of this backend, one thread, results the same for any batch."""

    def __init__(self, plan: Plan) -> None:
        from fastnn.backends.numba.kernels import KERNELS, SHARED

        if plan.dtype != "float32":
            raise ValueError(f"numba: computes in float32. Received: dtype={plan.dtype!r}")
        needed = {step.op.name for step in (*plan.constants, *plan.steps) if not step.op.python}
        missing = needed - KERNELS.keys() - SHARED
        if missing:
            raise NotImplementedError(f"numba: has no kernel for the ops {', '.join(sorted(missing))}")

        def execute(step: Step, outputs: reference.Arrays, inputs: reference.Arrays) -> None:
            if step.op.python or step.op.name in SHARED:
                reference.execute(step, outputs, inputs)
            else:
                whole = outputs  # kernels are compiled for contiguous arrays
                if any(operand.skip for operand in (*step.outputs, *step.inputs)):
                    inputs = tuple(np.ascontiguousarray(array) for array in inputs)
                    outputs = tuple(np.empty(array.shape, array.dtype) for array in outputs)
                KERNELS[step.op.name](outputs, inputs, dict(step.attrs))
                for array, own in zip(whole, outputs, strict=True):
                    if array is not own:
                        array[...] = own

        super().__init__(plan, execute)


def why_not() -> str | None:
    """Why this backend cannot run, or None."""
    return None if importlib.util.find_spec("numba") else "numba is not installed (pip install numba)"


def describe() -> dict[str, Any]:
    """What a person wants to know of it."""
    return {"numba": version("numba")}
