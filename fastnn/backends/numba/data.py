"""Bringing data in: all but the first axis count as one. Parts of small arrays."""

from __future__ import annotations

from typing import Any

from fastnn.backends.numba.jit import IN2, INDEX, OUT2, Arrays, compiled, kernel


@compiled(OUT2, IN2, INDEX)
def _gather(y, x, index):  # type: ignore[no-untyped-def]
    for n in range(len(index)):
        for f in range(x.shape[1]):
            y[n, f] = x[index[n], f]


@compiled(OUT2, IN2, INDEX)
def _scatter(store, rows, index):  # type: ignore[no-untyped-def]
    for n in range(len(index)):
        for f in range(rows.shape[1]):
            store[index[n], f] = rows[n, f]


def _matrix(array: Any) -> Any:
    return array if array.ndim == 2 else array.reshape(len(array), -1)


@kernel
def gather(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _gather.run(_matrix(outputs[0]), _matrix(inputs[0]), inputs[1])


@kernel
def scatter(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _scatter.run(_matrix(outputs[0]), _matrix(inputs[0]), inputs[1])


@kernel
def take(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    outputs[0][...] = inputs[0][..., attrs["index"], :]


@kernel
def fill(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    outputs[0].fill(attrs["fill_value"])
