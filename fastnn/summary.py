"""A model as a table of its layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fastnn.graph import Tensor

if TYPE_CHECKING:
    from fastnn.models import Model


def summary(model: Model) -> str:
    """A line for each call of a layer: output shape, weights (where the layer is called first), bytes of the outputs
    for one row; and what it takes, unless that is always the output of the line before.
    """
    network, width = model.network, np.dtype(model.dtype).itemsize
    name_of: dict[int, str] = {}
    rows = [["Layer", "Output shape", "Weights", "Output", "Takes"]]
    counted = set()
    whole = 0
    for index, call in enumerate(network.calls):
        takes = ", ".join(name_of[id(tensor)] for tensor in call.inputs)
        for tensor in network.inputs[index : index + 1] or call.outputs:  # the first calls are those of the inputs
            name_of[id(tensor)] = call.layer.name
        weights = 0 if call.layer in counted else call.layer.count_params()
        counted.add(call.layer)
        size = width * sum(elements(tensor) for tensor in call.outputs)
        whole += size
        shapes = ", ".join(str(tensor.shape) for tensor in call.outputs)
        rows.append([f"{call.layer.name} ({type(call.layer).__name__})", shapes, f"{weights:,}", data(size), takes])
    if network.chain:
        rows = [row[:-1] for row in rows]
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    lines = [
        "  ".join(
            f"{cell:>{w}}" if c in (2, 3) else f"{cell:<{w}}"
            for c, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    line = "-" * max(map(len, lines))
    total, trained = model.count_params(), sum(weight.size for weight in model.trainable_weights)
    foot = (
        f"{model.name}: {total:,} weights ({data(total * width)}), {trained:,} of them trained; outputs of all layers: "
        f"{data(whole)} a row"
    )
    return "\n".join([lines[0], line, *lines[1:], line, foot])


def elements(tensor: Tensor) -> int:
    """Numbers of one row."""
    return math.prod(size for size in tensor.shape[1:] if size is not None)


def data(size: float) -> str:
    """So many bytes, readable.

    >>> data(900), data(12_345), data(3.2e6), data(4.56e9)
    ('900 B', '12.3 kB', '3.2 MB', '4.6 GB')
    """
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
