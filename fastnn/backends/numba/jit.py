"""How the kernels are compiled: when first called, once, kept on disk.

A kernel is compiled for one list of types only. Its inputs are declared read-only, which takes writable arrays too, so
that neither flags nor the Python type of a number ever lead to a second version.

Numba looks for changes in the file of a kernel, not in the files of the helpers which it calls: after editing
``jit.py``, ``vector.py``, ``elementary.py`` or an ``@inner`` function used from another file, delete ``__pycache__``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types

Arrays = tuple[np.ndarray, ...]
Kernel = Callable[[Arrays, Arrays, dict[str, Any]], None]

#: The kernels by the name of their op: ``kernel(outputs, inputs, attrs)``.
KERNELS: dict[str, Kernel] = {}
#: The compiled functions behind them.
COMPILED: list[Compiled] = []

OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": False,
    "error_model": "numpy",
    "boundscheck": False,
}

OUT1, OUT2, OUT3 = (types.Array(types.float32, rank, "C") for rank in (1, 2, 3))
IN1, IN2, IN3 = (types.Array(types.float32, rank, "C", readonly=True) for rank in (1, 2, 3))
INDEX = types.Array(types.int64, 1, "C", readonly=True)
TOTAL = types.Array(types.float64, 1, "C")
REAL = types.float64
INTEGER = types.int64

_log = logging.getLogger(__name__)


def inner(function: Callable[..., Any]) -> Any:
    """A function for kernels to call, always inlined: a call keeps the loop around it from becoming vector code."""
    return _njit(function, forceinline=True)


def _njit(function: Callable[..., Any], **options: Any) -> Any:
    try:
        return njit(**OPTIONS, cache=True, **options)(function)
    except RuntimeError:  # neither the package's directory nor the user's cache can be written
        _log.info("no directory for compiled kernels: %s is compiled anew in each process", function.__name__)
        return njit(**OPTIONS, **options)(function)


class Compiled:
    """A function that is compiled for ``signature`` when ``run`` is called the first time.

    ``run`` is then the compiled function itself: nothing stands between.
    """

    def __init__(self, function: Callable[..., None], signature: tuple[Any, ...]) -> None:
        self.dispatcher = _njit(function)
        self.signature = signature
        self.run: Callable[..., None] = self._first
        COMPILED.append(self)

    def _first(self, *arguments: Any) -> None:
        self.dispatcher.compile(self.signature)
        self.dispatcher.disable_compile()
        self.run = self.dispatcher
        self.run(*arguments)


def compiled(*signature: Any) -> Callable[[Callable[..., None]], Compiled]:
    """Compile the decorated function for arguments of these types: outputs, inputs, attributes."""
    return lambda function: Compiled(function, signature)


def kernel(function: Kernel) -> Kernel:
    """The decorated function is the kernel of the op of the same name."""
    KERNELS[function.__name__] = function
    return function


def define(name: str, function: Compiled, *attrs: str, constants: tuple[Any, ...] = (), flat: bool = False) -> None:
    """``function(*outputs, *inputs, *attributes, *constants)`` is the kernel of the op ``name``.

    ``flat``: it takes all arrays as vectors.
    """

    def call(outputs: Arrays, inputs: Arrays, attributes: dict[str, Any]) -> None:
        function.run(*outputs, *inputs, *[attributes[attr] for attr in attrs], *constants)

    def call_flat(outputs: Arrays, inputs: Arrays, attributes: dict[str, Any]) -> None:
        arrays = [array.reshape(-1) for array in (*outputs, *inputs)]
        function.run(*arrays, *[attributes[attr] for attr in attrs], *constants)

    KERNELS[name] = call_flat if flat else call
