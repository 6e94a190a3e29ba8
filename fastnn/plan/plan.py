"""The Plan: a graph made into a list of steps over planned memory. A backend turns it into a Program."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from fastnn.graph import Node, Place, Shape, Tensor, format_shape
from fastnn.ops.declare import Op
from fastnn.plan.algorithms import choose
from fastnn.plan.fuse import epilogues
from fastnn.plan.joins import parted
from fastnn.plan.layout import ARENA, CONSTANTS, Layout, sized_inputs
from fastnn.plan.norms import fused_norms
from fastnn.plan.recompute import Unreachable, recomputed, slimmed
from fastnn.plan.schedule import elements, schedule

#: Copies are made for memory where it falls to this share.
WORTH = 0.97

#: From roots to what each root becomes.
Pass = Callable[[Sequence[Tensor | Node]], Mapping[Tensor | Node, Any]]


class Operand(NamedTuple):
    """An array of a step: symbolic shape (None: the batch), type, place, elements after each row that are another's."""

    shape: Shape
    dtype: str
    place: Place
    skip: int = 0

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
    workspace: int  # where in the arena the kernel finds memory for itself

    def line(self) -> str:
        shapes = " ".join(format_shape(i.shape) for i in self.inputs)
        results = " ".join(format_shape(o.shape) for o in self.outputs)
        shown = {k: v for k, v in self.attrs.items() if k not in ("seed", "stream")}
        attrs = " ".join(filter(None, (_shown(k, v) for k, v in shown.items())))
        return f"{self.op.name:<26} {shapes} -> {results}{'  ' + attrs if attrs else ''}"


class Plan:
    """What runs, in which order, and where everything lives.

    Args:
        roots: the tensors and in-place updates that are wanted. Tensors among them have a ``place``
        batch: the largest batch; smaller ones run the same Plan on fewer rows
        dtype: "float32" or "float64"
        name: for printing
        passes: what is done to the graph first
        weights: names of buffers that seldom change. What depends on them alone is computed when a Program is told to
            ``prepare``, and kept
        recompute: True to keep as little as possible of what can be computed again when it is needed, or the most bytes
            that the arena may have; None for what costs next to no time, False for nothing

    Raises:
        ValueError: so few bytes are not enough

    Attributes:
        constants: list of Step, those of ``prepare``
        steps: list of Step, those of each batch
        buffers: names of the buffers that the steps use, the Program's own two first
        arena_size, constants_size: elements of these two
        repeated: number of the steps that are there to compute something again
    """

    def __init__(
        self,
        roots: Sequence[Tensor | Node],
        *,
        batch: int,
        dtype: str = "float32",
        name: str = "",
        passes: Sequence[Pass] = (fused_norms, epilogues, choose),
        weights: Collection[str] = (),
        recompute: bool | int | None = False,
    ) -> None:
        for improve in passes:
            rewritten = improve(roots)
            roots = [rewritten[root] for root in roots]
        self.name = name
        self.batch = batch
        self.dtype = dtype
        nodes = schedule(roots, batch)
        layout = Layout(nodes, batch, weights)
        orders = [nodes]
        if len(other := parted(nodes)) > len(nodes):
            orders.append(other)
            less = Layout(other, batch, weights)
            if less.arena_size < WORTH * layout.arena_size:
                nodes, layout = other, less
        once = len(layout.steps)
        if recompute is None:
            layout = slimmed(nodes, layout, weights)
        elif recompute is not False:
            try:
                limit = None if recompute is True else recompute // self._width
                layout = recomputed(orders, batch, limit, weights)
            except Unreachable as error:
                raise ValueError(
                    f"{name}: a batch of {batch} rows needs {self._width * error.elements} bytes at least, besides "
                    f"weights and optimizer. Received: recompute={recompute}"
                ) from None
        self.repeated = max(0, len(layout.steps) - once)
        self.constants = [self._step(node, layout) for node in layout.constants]
        self.steps = [self._step(node, layout) for node in layout.steps]
        self.arena_size, self.constants_size = layout.arena_size, layout.constants_size
        used = {o.place.buffer for step in (*self.constants, *self.steps) for o in (*step.outputs, *step.inputs)}
        self.buffers = (ARENA, CONSTANTS, *sorted(used - {ARENA, CONSTANTS}))

    def _step(self, node: Node, layout: Layout) -> Step:
        def operand(tensor: Tensor) -> Operand:
            return Operand(tensor.shape, tensor.dtype, layout.place(tensor), layout.skip(tensor))

        if node.output is None:
            outputs = [node.inputs[i] for i in node.op.updates]
            inputs = [t for i, t in enumerate(node.inputs) if i not in node.op.updates]
        else:
            outputs, inputs = [node.output], list(node.inputs)
        shapes = sized_inputs(node, self.batch)
        touched = sum(elements(t.shape, self.batch) for t in (*outputs, *inputs))
        if node.op.updates:
            touched += sum(elements(t.shape, self.batch) for t in outputs)
        return Step(
            node.op,
            tuple(map(operand, outputs)),
            tuple(map(operand, inputs)),
            node.attrs,
            node.op.count_flops(*shapes, **node.attrs),
            touched,
            layout.workspace(node),
        )

    @property
    def flops(self) -> float:
        """Floating-point operations of one run at the full batch."""
        return sum(step.flops for step in self.steps)

    @property
    def _width(self) -> int:
        """Bytes of an element."""
        return 4 if self.dtype == "float32" else 8

    def __str__(self) -> str:
        """One line a step: op, shapes, attributes; where the result goes; floating-point operations and bytes.

        The steps of ``prepare`` have numbers with a c.
        """
        width = self._width
        numbered = [(f"c{i}", step) for i, step in enumerate(self.constants)]
        numbered += [(str(i), step) for i, step in enumerate(self.steps)]
        rows = [
            (number, step.line(), _where(step), f"{step.flops / 1e3:,.1f}", f"{width * step.elements / 1e3:,.1f}")
            for number, step in numbered
        ]
        table = [("", "step", "result in", "kFLOP", "kB"), *rows]
        widths = [max(len(row[c]) for row in table) for c in range(5)]
        head = f"Plan {self.name}: {len(self.steps)} steps, batch {self.batch}, {self.dtype}, " + (
            f"{self.flops / 1e6:.3f} MFLOP, arena {width * self.arena_size / 1e3:,.1f} kB"
        )
        if self.repeated:
            head += f", {self.repeated} steps to compute something again"
        if self.constants:
            head += f", constants {width * self.constants_size / 1e3:,.1f} kB"
        lines = [
            f"{n:>{widths[0]}}  {line:<{widths[1]}}  {place:<{widths[2]}}  {flops:>{widths[3]}}  {size:>{widths[4]}}"
            for n, line, place, flops, size in table
        ]
        return "\n".join([head, *lines])


#: Attributes with one number for each axis, and the number that does nothing.
_AXES = {"strides": 1, "dilations": 1, "pads": (0, 0)}


def _shown(name: str, value: Any) -> str:
    """An attribute as text; nothing where it does nothing."""
    if value is None or (name, value) == ("groups", 1) or (name in _AXES and all(v == _AXES[name] for v in value)):
        return ""
    if name == "pads":
        return "pads=" + ",".join(f"{before}+{after}" for before, after in value)
    if isinstance(value, tuple):
        return f"{name}=" + "x".join(map(str, value))
    return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"


def _where(step: Step) -> str:
    place = step.outputs[0].place
    return f"{place.buffer} {'stream' if place.stream else f'+{place.offset}'}"
