"""The Plan: a graph made into a list of steps over planned memory. A backend turns it into a Program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastnn.graph import ALL, Node, Place, Shape, Tensor, format_shape
from fastnn.ops.declare import Op
from fastnn.plan import fuse
from fastnn.plan.memory import Lifetime, assign
from fastnn.plan.schedule import schedule

#: The buffer that the Plan lays out for itself; the others are handed in at run time.
ARENA = "arena"


class Operand(NamedTuple):
    """An array of a step: symbolic shape (None: the batch), type, place."""

    shape: Shape
    dtype: str
    place: Place

    @property
    def batch(self) -> bool:
        return bool(self.shape) and self.shape[0] is None

    def sized(self, batch: int) -> tuple[int, ...]:
        """The shape with the batch size filled in."""
        return tuple(batch if size is None else size for size in self.shape)


class Step(NamedTuple):
    """One op on arrays whose places are known. An update's outputs are the arrays that it overwrites."""

    op: Op
    outputs: tuple[Operand, ...]
    inputs: tuple[Operand, ...]
    attrs: Mapping[str, Any]
    flops: float
    elements: int  # numbers read and written

    def line(self) -> str:
        shapes = " ".join(format_shape(i.shape) for i in self.inputs)
        results = " ".join(format_shape(o.shape) for o in self.outputs)
        shown = {k: v for k, v in self.attrs.items() if k not in ("seed", "stream")}
        attrs = " ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in shown.items())
        return f"{self.op.name:<26} {shapes} -> {results}{'  ' + attrs if attrs else ''}"


class Plan:
    """What runs, in which order, and where everything lives.

    Args:
        roots: the tensors and in-place updates that are wanted. Tensors among them have a ``place``
        batch: the largest batch; smaller ones run the same Plan on fewer rows
        dtype: "float32" or "float64"
        name: for printing

    Attributes:
        steps: list of Step
        buffers: names of the buffers that the steps use, the arena first
        arena_size: elements of the arena
    """

    def __init__(self, roots: Sequence[Tensor | Node], *, batch: int, dtype: str = "float32", name: str = "") -> None:
        for fusion in fuse.PASSES:
            rewritten = fusion(roots)
            roots = [rewritten[root] for root in roots]
        self.name = name
        self.batch = batch
        self.dtype = dtype
        nodes = schedule(roots)
        places, self.arena_size = _lay_out(nodes, batch)
        self.steps = [self._step(node, places) for node in nodes if not _is_view(node)]
        used = {o.place.buffer for step in self.steps for o in (*step.outputs, *step.inputs)}
        self.buffers = (ARENA, *sorted(used - {ARENA}))

    def _step(self, node: Node, places: Mapping[int, Place]) -> Step:
        def operand(tensor: Tensor) -> Operand:
            return Operand(tensor.shape, tensor.dtype, places.get(id(tensor)) or _given(tensor))

        if node.output is None:
            outputs = [node.inputs[i] for i in node.op.updates]
            inputs = [t for i, t in enumerate(node.inputs) if i not in node.op.updates]
        else:
            outputs, inputs = [node.output], list(node.inputs)
        shapes = [tuple(self.batch if size in (None, ALL) else size for size in t.shape) for t in node.inputs]
        touched = sum(_elements(t.shape, self.batch) for t in (*outputs, *inputs))
        if node.op.updates:
            touched += sum(_elements(t.shape, self.batch) for t in outputs)
        return Step(
            node.op,
            tuple(map(operand, outputs)),
            tuple(map(operand, inputs)),
            node.attrs,
            node.op.count_flops(*shapes, **node.attrs),
            touched,
        )

    @property
    def flops(self) -> float:
        """Floating-point operations of one run at the full batch."""
        return sum(step.flops for step in self.steps)

    def __str__(self) -> str:
        """One line a step: op, shapes, attributes; where the result goes; floating-point operations and bytes."""
        width = 4 if self.dtype == "float32" else 8
        rows = [
            (str(i), step.line(), _where(step), f"{step.flops / 1e3:,.1f}", f"{width * step.elements / 1e3:,.1f}")
            for i, step in enumerate(self.steps)
        ]
        table = [("", "step", "result in", "kFLOP", "kB"), *rows]
        widths = [max(len(row[c]) for row in table) for c in range(5)]
        head = f"Plan {self.name}: {len(self.steps)} steps, batch {self.batch}, {self.dtype}, " + (
            f"{self.flops / 1e6:.3f} MFLOP, arena {width * self.arena_size / 1e3:,.1f} kB"
        )
        lines = [
            f"{n:>{widths[0]}}  {line:<{widths[1]}}  {place:<{widths[2]}}  {flops:>{widths[3]}}  {size:>{widths[4]}}"
            for n, line, place, flops, size in table
        ]
        return "\n".join([head, *lines])


def _lay_out(nodes: Sequence[Node], batch: int) -> tuple[dict[int, Place], int]:
    """Places for the tensors that have none."""
    alias = {id(node.output): node.inputs[0] for node in nodes if _is_view(node)}

    def base(tensor: Tensor) -> Tensor:
        while id(tensor) in alias:
            tensor = alias[id(tensor)]
        return tensor

    last: dict[int, int] = {}
    for position, node in enumerate(nodes):
        for tensor in node.inputs:
            last[id(base(tensor))] = position
    groups: list[Lifetime] = []  # tensors that share memory: an elementwise op's output with an input that dies there
    group_of: dict[int, int] = {}
    for position, node in enumerate(nodes):
        output = node.output
        if output is None or output.place is not None or id(output) in alias:
            continue
        size = _elements(output.shape, batch)
        end = last.get(id(output), position)
        shared = None
        if node.op.elementwise:
            for tensor in node.inputs:
                group = group_of.get(id(base(tensor)))
                if group is not None and groups[group].last == position and groups[group].size == size:
                    shared = group
                    break
        if shared is None:
            shared = len(groups)
            groups.append(Lifetime(size, position, end))
        groups[shared].last = end
        group_of[id(output)] = shared
    offsets, total = assign(groups)
    places = {tensor: Place(ARENA, offsets[group]) for tensor, group in group_of.items()}
    for node in nodes:
        if _is_view(node):
            source = base(node.inputs[0])
            places[id(node.output)] = places.get(id(source)) or _given(source)
    return places, total


def _is_view(node: Node) -> bool:
    """Whether a node costs nothing: its output is its input's memory (unless it is wanted in a place of its own)."""
    return node.op.view and node.output is not None and node.output.place is None


def _elements(shape: Shape, batch: int) -> int:
    size = 1
    for extent in shape:
        size *= batch if extent in (None, ALL) else extent
    return size


def _given(tensor: Tensor) -> Place:
    if tensor.place is None:
        raise ValueError(f"plan: the input {tensor!r} has no place")
    return tensor.place


def _where(step: Step) -> str:
    place = step.outputs[0].place
    return f"{place.buffer} {'stream' if place.stream else f'+{place.offset}'}"


