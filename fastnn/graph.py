"""The symbolic graph: what is computed, before anything decides how.

A :class:`Tensor` is a name for an array that does not exist yet, a :class:`Node` one application of an op. Graphs are
immutable: passes build new nodes. The first size of a tensor that varies with the batch is ``None``.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from fastnn.ops.declare import Op

Shape = tuple[int | None, ...]

#: As the first size of a leaf: all rows that its buffer has, however many.
ALL = -1

_order = itertools.count()


class Place(NamedTuple):
    """Where a tensor lives at run time: so many elements into a named buffer.

    A tensor placed in a *stream* buffer moves along it: at step ``k`` of a run it starts ``k`` batches (or, if it has
    no batch axis, ``k`` times its own size) further on.
    """

    buffer: str
    offset: int = 0
    stream: bool = False


class Operand:
    """What Python's operators work on: each is recorded as an op, or computes at once. See ``fastnn.ops``."""

    __slots__ = ()
    __array_ufunc__ = None  # an array on the left leaves the operation to us
    __iter__ = None

    def __add__(self, other: Any) -> Any:
        return _operate("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return _operate("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return _operate("subtract", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _operate("subtract", other, self)

    def __mul__(self, other: Any) -> Any:
        return _operate("multiply", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _operate("multiply", other, self)

    def __truediv__(self, other: Any) -> Any:
        return _operate("divide", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _operate("divide", other, self)

    def __pow__(self, other: Any) -> Any:
        return _operate("power", self, other)

    def __rpow__(self, other: Any) -> Any:
        return _operate("power", other, self)

    def __matmul__(self, other: Any) -> Any:
        return _operate("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return _operate("matmul", other, self)

    def __neg__(self) -> Any:
        return _operate("negative", self)

    def __abs__(self) -> Any:
        return _operate("absolute", self)

    def __getitem__(self, key: Any) -> Any:
        return _operate("sliced", self, key)

    def _compared(self, other: Any) -> Any:
        raise TypeError(
            "Tensors and weights cannot be compared in a model: use fastnn.ops.relu, maximum or minimum, or "
            "fastnn.ops.custom with a NumPy function"
        )

    __lt__ = __le__ = __gt__ = __ge__ = _compared


def _operate(name: str, *operands: Any) -> Any:
    from fastnn import ops  # which know Tensors

    return getattr(ops.public, name)(*operands)


class Variable(Operand):
    """What is a Tensor in graphs and an array beside arrays: a weight.

    Attributes:
        tensor: the Tensor
        value: the array
    """

    __slots__ = ()
    tensor: Tensor
    value: Any


class _Mode(threading.local):
    at_once = 0  # how many layers are computing on arrays, one inside the other


_mode = _Mode()


@contextmanager
def computing() -> Iterator[None]:
    """What is done with variables alone is computed at once."""
    _mode.at_once += 1
    try:
        yield
    finally:
        _mode.at_once -= 1


def resolved(operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """The operands with each variable as its Tensor or as its array, whichever the others are."""
    if not any(isinstance(each, Variable) for each in operands):
        return operands
    if any(isinstance(each, Tensor) for each in operands):
        symbolic = True
    else:
        symbolic = not _mode.at_once and not any(
            getattr(each, "shape", ()) for each in operands if not isinstance(each, Variable)
        )
    return tuple(
        (each.tensor if symbolic else each.value) if isinstance(each, Variable) else each for each in operands
    )


class Tensor(Operand):
    """A symbolic array. ``node`` made it; a leaf has none, and then ``place`` says where it is found."""

    __slots__ = ("shape", "dtype", "node", "place", "name", "source", "order")

    def __init__(
        self,
        shape: Shape,
        dtype: str = "float",
        *,
        node: Node | None = None,
        place: Place | None = None,
        name: str = "",
    ) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype  # "float" is the model's own type; "float64" and "int64" are literal
        self.node = node
        self.place = place
        self.name = name
        self.source: Any = None  # the layer call that a Model finds its way back by
        self.order = next(_order)

    @property
    def rank(self) -> int:
        """How many axes, with the batch."""
        return len(self.shape)

    @property
    def batch(self) -> bool:
        """Whether the first axis is the batch."""
        return bool(self.shape) and self.shape[0] is None

    def __repr__(self) -> str:
        label = self.name or (self.node.op.name if self.node else "leaf")
        return f"<Tensor {label} {format_shape(self.shape)}>"

    def __bool__(self) -> bool:
        raise TypeError("a symbolic Tensor has no value yet, so it has no truth value")


class Node:
    """One op applied to tensors. An op that updates its inputs in place has no output."""

    __slots__ = ("op", "inputs", "attrs", "output", "order")

    def __init__(self, op: Op, inputs: tuple[Tensor, ...], attrs: Mapping[str, Any], shape: Shape | None) -> None:
        self.op = op
        self.inputs = inputs
        self.attrs = dict(attrs)
        self.output = None if shape is None else Tensor(shape, node=self)
        self.order = next(_order)

    def __repr__(self) -> str:
        return f"<Node {self.op.name} -> {self.output}>"


def format_shape(shape: Shape) -> str:
    """The shape as text, N for the batch."""
    return "(" + ", ".join("N" if size is None else "all" if size == ALL else str(size) for size in shape) + ")"


def nodes_behind(roots: Iterable[Tensor | Node]) -> list[Node]:
    """Every node that the roots need, each after the nodes it reads, in the order of creation where free."""
    seen: set[int] = set()
    found: list[Node] = []
    stack: list[tuple[Node, bool]] = []
    for root in roots:
        node = root.node if isinstance(root, Tensor) else root
        if node is not None:
            stack.append((node, False))
    while stack:
        node, done = stack.pop()
        if done:
            found.append(node)
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        stack.append((node, True))
        stack.extend((i.node, False) for i in node.inputs if i.node is not None and id(i.node) not in seen)
    return sorted(found, key=lambda node: node.order)


def rewrite(
    roots: Iterable[Tensor | Node], rule: Callable[[Node, tuple[Tensor, ...]], Tensor | None]
) -> dict[Tensor | Node, Any]:
    """Rebuild the graph behind ``roots`` bottom up.

    ``rule(node, inputs)`` sees each node with its inputs already rebuilt, and returns the tensor that replaces the
    node's output, or None to keep the op. The nodes that it makes take the node's place in the order. Returns what each
    root has become.
    """
    roots = list(roots)
    tensors: dict[int, Tensor] = {}
    nodes: dict[int, Node] = {}
    for node in nodes_behind(roots):
        inputs = tuple(tensors.get(id(i), i) for i in node.inputs)
        before = next(_order)
        replacement = rule(node, inputs)
        if replacement is not None:
            assert node.output is not None and replacement.node is not None
            made = [replacement.node]
            while made:
                new = made.pop()
                if new.order > before:
                    new.order = node.order
                    made.extend(i.node for i in new.inputs if i.node is not None)
            replacement.place = replacement.place or node.output.place
            replacement.name = replacement.name or node.output.name
            tensors[id(node.output)] = replacement
            continue
        unchanged = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
        shape = None if node.output is None else node.output.shape
        rebuilt = node if unchanged else Node(node.op, inputs, node.attrs, shape)
        rebuilt.order = node.order
        nodes[id(node)] = rebuilt
        if node.output is not None:
            assert rebuilt.output is not None
            rebuilt.output.place = node.output.place
            rebuilt.output.name = node.output.name
            tensors[id(node.output)] = rebuilt.output
    return {
        root: tensors.get(id(root), root) if isinstance(root, Tensor) else nodes[id(root)]
        for root in roots
    }


def consumers(roots: Iterable[Tensor | Node]) -> dict[int, int]:
    """How many times each tensor (by id) is read by the nodes behind ``roots``; a root counts as read once more."""
    roots = list(roots)
    count: dict[int, int] = {}
    for node in nodes_behind(roots):
        for tensor in node.inputs:
            count[id(tensor)] = count.get(id(tensor), 0) + 1
    for root in roots:
        if isinstance(root, Tensor):
            count[id(root)] = count.get(id(root), 0) + 1
    return count
