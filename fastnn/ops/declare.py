"""How an op is declared: once, by its NumPy body.

The body's signature is the op's: positional parameters are arrays, keyword-only ones attributes. The decorator adds
what cannot be read off the body: the shape rule, the gradient rule, the number of terms, the cases. Called on arrays
an op computes at once; called on Tensors it records a Node. Nothing else in the library says what an op means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastnn.graph import Node, Shape, Tensor, resolved

Case = tuple[tuple[Any, ...], dict[str, Any]]
Cases = Callable[["np.random.Generator"], Iterator[Case]]

#: Stands for the value of an attribute that has no default.
REQUIRED: Any = object()

#: In ``slices``: the output.
OUTPUT = -1

#: Every declared op by name.
OPS: dict[str, Op] = {}

#: Sizes that straddle the vector widths of 4, 8 and 16, for cases.
SIZES = (1, 3, 7, 8, 9, 15, 16, 17, 31, 33)


class Op:
    """A declared operation.

    Attributes:
        name: the body's name, the same in Python, Numba, Cython and C
        reference: the body; arrays in, array out (a tuple of the new values for an op that updates in place)
        shape: ``shape(*input_shapes, **attrs)`` -> output shape (None for an op without output); raises the ValueError
            that the user sees, without the op's name, which is put before it
        gradient: ``gradient(g, y, *inputs, **attrs)`` -> one Tensor or None for each input; None: not differentiable
        terms: ``terms(*input_shapes, **attrs)``: rounded operations behind one output element, for tolerances
        scale: ``scale(*inputs, **attrs)`` -> magnitude of the summed terms of each output element (float64 arrays in)
        flops: ``flops(*input_shapes, **attrs)`` with the batch size filled in
        cases: ``cases(rng)`` yields ``(inputs, attrs)`` for the generated tests
        updates: indices of the inputs which the op overwrites; such an op has no output
        workspace: ``workspace(*input_shapes, **attrs)``, with the largest batch filled in -> floats of memory that the
            native kernel wants for itself while it runs
        view: the output is the input's memory under another shape; the Plan makes no step of it
        elementwise: the inputs of whose elements each output element depends on the same one only: the output may take
            the memory of one of them that is not needed any more. Indices, or True for all inputs
        slices: the arrays that may be a slice of a larger one along the last axis: indices of inputs, and OUTPUT
        python: whether it is computed by a function of the user's, whatever the backend; see ``fastnn.ops.custom``
    """

    python = False

    def __init__(
        self,
        reference: Callable[..., Any],
        *,
        shape: Callable[..., Shape | None],
        gradient: Callable[..., tuple[Tensor | None, ...]] | None,
        terms: Callable[..., float],
        scale: Callable[..., Any] | None,
        flops: Callable[..., float] | None,
        cases: Cases,
        workspace: Callable[..., int],
        updates: tuple[int, ...],
        elementwise: bool | tuple[int, ...],
        view: bool,
        slices: tuple[int, ...],
    ) -> None:
        code, defaults = reference.__code__, reference.__defaults__ or ()  # inspect is slow to import
        self.name = reference.__name__
        self.reference = reference
        self.inputs = code.co_varnames[: code.co_argcount]
        self.optional = defaults.count(None)
        names = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        self.attrs = {name: (reference.__kwdefaults__ or {}).get(name, REQUIRED) for name in names}
        self.shape = shape
        self.gradient = gradient
        self.terms = terms
        self.scale = scale
        self.flops = flops
        self.cases = cases
        self.workspace = workspace
        self.updates = updates
        self.elementwise = tuple(range(len(self.inputs))) if elementwise is True else elementwise or ()
        self.view = view
        self.slices = slices
        self.__doc__ = reference.__doc__

    def __call__(self, *inputs: Any, **attrs: Any) -> Any:
        inputs = resolved(inputs)
        if any(isinstance(i, Tensor) for i in inputs):
            return self.record(*inputs, **attrs)
        return self.reference(*inputs, **attrs)

    def record(self, *inputs: Tensor, **attrs: Any) -> Any:
        """Apply to Tensors: returns the output Tensor, or the Node of an op that updates in place."""
        attrs = self.complete(attrs)
        check_tensors(self.name, inputs)
        if not len(self.inputs) - self.optional <= len(inputs) <= len(self.inputs):
            raise TypeError(f"{self.name}: takes the arrays {', '.join(self.inputs)}. Received: {len(inputs)} arrays")
        shape = self.infer(*(i.shape for i in inputs), **attrs)
        node = Node(self, inputs, attrs, shape)
        return node if node.output is None else node.output

    def infer(self, *shapes: Shape, **attrs: Any) -> Shape | None:
        """The output's shape (None for an op without output); checks the inputs' shapes."""
        try:
            return self.shape(*shapes, **attrs)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    def complete(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """``attrs`` with the defaults filled in; refuses unknown and missing names."""
        unknown = set(attrs) - set(self.attrs)
        complete = {**self.attrs, **attrs}
        missing = [name for name, value in complete.items() if value is REQUIRED]
        if unknown or missing:
            raise TypeError(f"{self.name}: takes the attributes {', '.join(self.attrs)}. Received: {sorted(attrs)}")
        return complete

    def count_flops(self, *shapes: Shape, **attrs: Any) -> float:
        """Floating-point operations for these (fully known) input shapes."""
        if self.flops is not None:
            return self.flops(*shapes, **attrs)
        return float(max((math.prod(float(size) for size in s if size is not None) for s in shapes), default=0.0))

    def __repr__(self) -> str:
        return f"<op {self.name}>"


def check_tensors(name: str, operands: Sequence[Any]) -> None:
    """TypeError for what cannot be used together with Tensors."""
    for operand in operands:
        if not isinstance(operand, Tensor):
            kind = f"an array of shape {operand.shape}" if isinstance(operand, np.ndarray) else repr(operand)
            raise TypeError(
                f"{name}: takes Tensors and weights in a model, no other arrays: for fixed numbers, use "
                f"add_weight(..., trainable=False) and assign. Received: {kind:.200}"
            )


def op(
    *,
    cases: Cases,
    shape: Callable[..., Shape | None],
    gradient: Callable[..., tuple[Any, ...]] | None = None,
    terms: Callable[..., float] = lambda *shapes, **attrs: 1,
    scale: Callable[..., Any] | None = None,
    flops: Callable[..., float] | None = None,
    workspace: Callable[..., int] = lambda *shapes, **attrs: 0,
    updates: tuple[int, ...] = (),
    elementwise: bool | tuple[int, ...] = False,
    view: bool = False,
    slices: tuple[int, ...] = (),
) -> Callable[[Callable[..., Any]], Op]:
    """Declare the decorated NumPy function as an op. See :class:`Op` for the arguments."""

    def declare(reference: Callable[..., Any]) -> Op:
        declared = Op(
            reference,
            shape=shape,
            gradient=gradient,
            terms=terms,
            scale=scale,
            flops=flops,
            cases=cases,
            workspace=workspace,
            updates=updates,
            elementwise=elementwise,
            view=view,
            slices=slices,
        )
        OPS[declared.name] = declared
        return declared

    return declare


def same_shape(first: Shape, *others: Shape, **attrs: Any) -> Shape:
    """Shape rule: all inputs have one shape, and it is the output's."""
    if any(other != first for other in others):
        raise ValueError(f"the inputs must have one shape. Received: {', '.join(map(str, (first, *others)))}")
    return first


def row_shape(p: Shape, y: Shape, **attrs: Any) -> Shape:
    """Shape rule: predictions and targets (..., C) give one value a row, (...)."""
    if len(p) < 2 or p != y:
        raise ValueError(f"prediction and target must have one shape (..., C). Received: {p} and {y}")
    return p[:-1]


def label_shape(p: Shape, y: Shape) -> Shape:
    """Shape rule: predictions (..., C) and labels (..., 1) give one value a row, (...)."""
    if len(p) < 2 or y != (*p[:-1], 1):
        raise ValueError(f"needs predictions (..., C) and labels (..., 1). Received: {p} and {y}")
    return p[:-1]
