"""Ops of the user's own: NumPy functions that run inside a model, on every backend.

The engine runs its steps up to such an op, returns to Python for it, and goes on. Its gradient is one more op for each
input that a gradient is wanted of; the first of them to run calls the user's function, the others take what it gave.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fastnn.graph import Node, Shape, Tensor
from fastnn.ops.declare import Op, check_tensors


class PythonOp(Op):
    """An op that ``compute(*arrays)`` computes, in Python, whatever the backend. It takes any number of arrays.

    What ``compute`` returns is checked; an error that it raises gets a note which says where it came up.

    Args:
        name: for printing
        label: for errors
        compute: as many arrays as there are inputs -> an array, of any type of real numbers
        shape: as many shapes -> the shape of that array
        gradient: see ``Op``
    """

    python = True

    def __init__(
        self,
        name: str,
        label: str,
        compute: Callable[..., Any],
        shape: Callable[..., Any],
        gradient: Callable[..., tuple[Any, ...]] | None = None,
    ) -> None:
        def at_once(*arrays: Any) -> np.ndarray:
            return self._at_once([np.asarray(array) for array in arrays])

        super().__init__(
            at_once,
            shape=shape,
            gradient=gradient,
            terms=lambda *shapes: 1,
            scale=None,
            flops=None,
            cases=lambda rng: iter(()),
            workspace=lambda *shapes: 0,
            updates=(),
            elementwise=False,
            view=False,
            slices=(),
        )
        self.name = name
        self.label = label
        self._compute = compute
        self.__doc__ = compute.__doc__

    def record(self, *inputs: Tensor, **attrs: Any) -> Any:
        check_tensors(self.label, inputs)
        return Node(self, inputs, self.complete(attrs), self.infer(*(i.shape for i in inputs))).output

    def infer(self, *shapes: Shape, **attrs: Any) -> Shape:
        if not shapes:
            raise TypeError(f"{self.label}: takes one array or more. Received: none")
        try:
            shape = self._noted(self.shape, shapes)
        except ValueError as error:
            raise ValueError(f"{self.label}: {error}") from None
        listed = isinstance(shape, tuple | list)
        if not listed or not all(_is_size(size) or (size is None and not axis) for axis, size in enumerate(shape)):
            raise TypeError(
                f"{self.label}: shape must make of the shapes of the inputs a tuple of positive integers, the first of "
                f"which is None for the batch. Received: {shape!r}"
            )
        return tuple(None if size is None else int(size) for size in shape)

    def write(self, out: np.ndarray, inputs: Sequence[np.ndarray]) -> None:
        """Overwrite ``out`` with the result for these inputs, which the function cannot change."""
        for array in inputs:
            array.flags.writeable = False
        out[...] = self._checked(self._noted(self._compute, inputs), out.shape)

    def _at_once(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """The result for arrays, of the type of the first if that has floats."""
        shape = self.infer(*(array.shape for array in arrays))
        if shape[:1] == (None,):
            shape = (*arrays[0].shape[:1], *shape[1:])
        result = self._checked(self._noted(self._compute, arrays), shape)
        kind = arrays[0].dtype if arrays[0].dtype.kind == "f" else np.dtype(np.float64)
        return np.array(result, kind)

    def _noted(self, function: Callable[..., Any], arguments: Iterable[Any]) -> Any:
        """What a function of the user's returns."""
        try:
            return function(*arguments)
        except Exception as error:
            error.add_note(f"This happened in the {self.label}.")
            raise

    def _checked(self, result: Any, shape: Shape) -> np.ndarray:
        """A result as an array of real numbers of this shape."""
        try:
            array = np.asarray(result)
        except ValueError as error:  # lists of several lengths
            raise TypeError(f"{self.label}: must return an array of shape {shape}. Received: {error}") from None
        if array.dtype.kind not in "fiub":
            kind = type(result).__name__ if array.dtype.kind == "O" else f"an array of {array.dtype}"
            raise TypeError(f"{self.label}: must return an array of real numbers, of shape {shape}. Received: {kind}")
        if array.shape != shape:
            raise ValueError(f"{self.label}: must return an array of shape {shape}. Received: shape {array.shape}")
        return array


class Custom(PythonOp):
    """What ``custom`` makes."""

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        gradient: Callable[..., Any] | None,
        shape: Callable[..., Any],
    ) -> None:
        super().__init__(
            f"custom {name}", f"custom op {name!r}", forward, shape, None if gradient is None else self._gradients
        )
        self._short = name
        self._backward = gradient

    def _gradients(self, g: Any, y: Any, *inputs: Any) -> tuple[Any, ...]:
        """The gradient rule: an op for each input."""
        assert self._backward is not None
        label = f"gradient of the {self.label}"
        parts = _Parts(label, self._backward)
        return tuple(
            PythonOp(
                f"custom {self._short}_dx{number + 1 if len(inputs) > 1 else ''}",
                label,
                parts.taker(number),
                lambda g, y, *shapes, number=number: shapes[number],
            )(g, y, *inputs)
            for number in range(len(inputs))
        )


class _Parts:
    """What the gradient function of the user's returns for one use of a custom op in a graph, and who has taken it.

    In each batch the ops that take the parts run in the same order, and the first finds nothing for itself: it calls
    the function.
    """

    def __init__(self, label: str, function: Callable[..., Any]) -> None:
        self._label, self._function = label, function
        self._kept = threading.local()  # several Programs may run the same graph

    def taker(self, number: int) -> Callable[..., Any]:
        """A function of g, y and the inputs that returns the gradient for the input of that number."""

        def take(g: np.ndarray, y: np.ndarray, *inputs: np.ndarray) -> Any:
            kept: dict[int, Any] = self._kept.__dict__.setdefault("parts", {})
            if number not in kept:
                result = self._function(g, y, *inputs)
                several = result if isinstance(result, tuple if len(inputs) == 1 else tuple | list) else (result,)
                if len(several) != len(inputs):
                    raise ValueError(
                        f"{self._label}: must return one array, or None, for each of the {len(inputs)} inputs. "
                        f"Received: {len(several)}"
                    )
                kept.update(enumerate(several))
            part = kept.pop(number)
            return np.zeros(inputs[number].shape) if part is None else part

        return take


def custom(
    forward: Callable[..., Any],
    gradient: Callable[..., Any] | None = None,
    *,
    shape: Callable[..., Any] | None = None,
    name: str | None = None,
) -> Custom:
    """Make an op of a NumPy function, for use in the ``call`` of a layer or on arrays.

    In a model the engine returns to Python for this op only, on the thread that called ``fit`` or ``predict``.

    Args:
        forward: ``forward(*arrays)`` -> array. The arrays are those of one batch, rows first, or weights. They are read
            only, and their memory is used for something else afterwards: copy what is to be kept. Training passes
            batches of ``batch_size`` rows, prediction and evaluation batches of the engine's choice: what a row becomes
            should not depend on the other rows, and nothing on how often the function is called
        gradient: ``gradient(g, y, *arrays)`` -> the gradient for the array, or a tuple with one for each array, or None
            where nothing depends on it. ``g`` is the gradient of the loss for the result ``y`` and has its shape, a
            gradient that of its array. Without it, nothing before the op can be trained
        shape: function of the shapes of the arrays to that of the result, the batch being None:
            ``shape=lambda x: (x[0], 1)``. Without it, the result has the shape of the first array
        name: for printing and errors; that of ``forward`` if None

    Returns:
        A function of arrays, Tensors and weights. The result has the type of the model, or of the first array.

    Raises:
        TypeError, ValueError: when it runs, if a function returns something of another shape or no real numbers

    Whatever the functions raise comes out of ``fit`` or ``predict``, with a note that names the op; the model is then
    as after the last whole step.

    Example:
        Zeros and ones, with the gradient of the identity: a straight-through estimator (Bengio et al. 2013,
        https://arxiv.org/abs/1308.3432).

        >>> import numpy as np
        >>> import fastnn
        >>> binarize = fastnn.ops.custom(lambda x: x > 0, lambda g, y, x: g, name="binarize")
        >>> binarize(np.array([[-0.5, 2.0]]))
        array([[0., 1.]])
        >>> class Binarize(fastnn.layers.Layer):
        ...     def call(self, x, training=None):
        ...         return binarize(x)
        >>> model = fastnn.Sequential([fastnn.layers.Dense(8, input_shape=(3,)), Binarize(), fastnn.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> x = np.random.default_rng(0).normal(size=(64, 3))
        >>> history = model.fit(x, x[:, :1], epochs=2, verbose=0)
        >>> model.predict(x).shape
        (64, 1)
    """
    for argument, value in (("forward", forward), ("gradient", gradient), ("shape", shape)):
        if not callable(value) and not (value is None and argument != "forward"):
            raise TypeError(f"custom: {argument} must be a function. Received: {argument}={value!r:.100}")
    if name is None:
        name = getattr(forward, "__name__", type(forward).__name__)
    if not isinstance(name, str) or not name or len(name) > 100 or not name.isprintable():
        raise ValueError(f"custom: name must be a short text in one line. Received: name={name!r:.120}")
    return Custom(name, forward, gradient, _first if shape is None else shape)


def _first(x: Shape, *others: Shape) -> Shape:
    return x


def _is_size(size: Any) -> bool:
    return isinstance(size, int | np.integer) and not isinstance(size, bool) and int(size) >= 0
