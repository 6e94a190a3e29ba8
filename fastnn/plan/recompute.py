"""Recomputation: what the backward pass needs of the forward pass is computed again there instead of being kept.

Time for memory (Chen et al. 2016, "Training deep nets with sublinear memory cost"). The same kernels run on the same
numbers, so all results keep their bits.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastnn.graph import Node, Tensor
from fastnn.plan.layout import Layout, lifetimes, sized_inputs
from fastnn.plan.memory import aligned
from fastnn.plan.schedule import elements, sources_of, stretch, views

#: What may be done again for as little memory as possible, as a share of all operations: about one more forward pass.
#: And for a limit that is asked for.
SHARE, LARGEST_SHARE = 0.35, 2.0
#: What may be done again without being asked for: it takes next to no time. And the share of the memory that it has to
#: leave free, of an arena of so many elements or more, to be worth a thought.
UNASKED, FREED, THOUGHT = 0.0015, 0.1, 1 << 22
#: How closely the least memory is looked for: to one part in two to this power.
ROUNDS = 8


class Choice(NamedTuple):
    """A tensor that could be made again before its use at ``again``, instead of being kept from ``first`` on."""

    tensor: Tensor
    first: int
    again: int
    size: int
    group: tuple[Tensor, ...]  # what is made again: the tensor, and inputs that are not there any more
    longer: tuple[tuple[int, int], ...]  # sizes of inputs that live longer for it instead, and until when they live now
    flops: float

    def shift(self, live: np.ndarray) -> None:
        """Change the number of elements alive at each position."""
        live[self.first + 1 : self.again] -= self.size
        for size, last in self.longer:
            live[last + 1 : self.again] += size

    def worth(self, live: np.ndarray, limit: int) -> float:
        """By how much there is less above ``limit`` for each floating-point operation."""
        start = min((self.first, *(last for _, last in self.longer)))
        there = live[start : self.again].astype(np.float64) - limit
        before = np.maximum(there, 0.0).sum()
        moved = Choice(self.tensor, self.first - start, self.again - start, self.size, (), (), 0.0)
        moved = moved._replace(longer=tuple((size, last - start) for size, last in self.longer))
        moved.shift(there)
        return float(before - np.maximum(there, 0.0).sum()) / (self.flops + 1.0)


class Steps:
    """Nodes in the order in which they run, and how much memory they need.

    Args:
        nodes: views are among them
        batch: the largest batch
        origins: a number for each node: what was put in to compute something again has that of the node it serves
        again: floating-point operations of what was put in

    Attributes:
        live: elements alive at each node; 0 at views
    """

    def __init__(
        self, nodes: Sequence[Node], batch: int, origins: Sequence[int] | None = None, again: float = 0.0
    ) -> None:
        self.nodes, self.batch, self.again = list(nodes), batch, again
        self.origins = list(range(len(nodes)) if origins is None else origins)
        self.behind = views(nodes)
        real = [position for position, node in enumerate(nodes) if not node.op.view]
        groups, _, _ = lifetimes(
            [nodes[position] for position in real], batch, self.base, lambda output: output.place is not None
        )
        change = np.zeros(len(nodes) + 1, np.int64)
        for group in groups:
            change[real[group.first]] += aligned(group.size)
            change[real[group.last] + 1] -= aligned(group.size)
        self.live = np.zeros(len(nodes), np.int64)
        self.live[real] = np.cumsum(change)[real]

    def base(self, tensor: Tensor) -> Tensor:
        """The tensor whose memory it is."""
        return self.behind.get(id(tensor), tensor)

    @property
    def peak(self) -> int:
        """Most elements alive together."""
        return int(self.live.max(initial=0))

    def above(self, limit: int) -> float:
        """By how much the original nodes, with what serves them, need more than ``limit`` elements, all together."""
        most = np.zeros(max(self.origins, default=0) + 1)
        np.maximum.at(most, self.origins, self.live)
        return float(np.maximum(most - limit, 0.0).sum())

    @cached_property
    def _touches(self) -> dict[int, list[int]]:
        """Where each tensor in the arena (by id) is made and read."""
        touches: dict[int, list[int]] = defaultdict(list)
        for position, node in enumerate(self.nodes):
            if node.op.view:
                continue
            for base in {id(self.base(tensor)) for tensor in node.inputs}:
                touches[base].append(position)
            if node.output is not None and node.output.place is None:
                touches[id(node.output)].append(position)
        return touches

    @cached_property
    def _latest(self) -> dict[int, int]:
        """Before which position the node of each tensor (by id) can run again: what it reads is overwritten there.

        A tensor is missing if its node cannot run again at all.
        """
        sources = sources_of(self.nodes)
        written = {node.output.place.buffer for node in self.nodes if node.output is not None and node.output.place}
        overwrites: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
        for position, node in enumerate(self.nodes):
            for tensor in (node.inputs[i] for i in node.op.updates):
                assert tensor.place is not None
                overwrites[tensor.place.buffer].append((*stretch(tensor), position))
        until: dict[int, int] = {}  # by the source's id
        latest: dict[int, int] = {}
        for node in self.nodes:
            if node.output is None or node.output.place is not None or node.op.python:
                continue
            places = [tensor.place for tensor in map(self.base, node.inputs) if tensor.place is not None]
            if any(place.buffer in written for place in places):
                continue
            end = len(self.nodes)
            for source in (source for tensor in node.inputs for source in sources.get(id(tensor), ())):
                if id(source) not in until:
                    assert source.place is not None
                    low, high = stretch(source)
                    there = overwrites[source.place.buffer]
                    positions = (at for start, stop, at in there if start < high and low < stop)
                    until[id(source)] = min(positions, default=len(self.nodes))
                end = min(end, until[id(source)])
            latest[id(node.output)] = end
        return latest

    def choices(self, limit: int, most: float = math.inf) -> list[Choice]:
        """What could be made again, with no more than so many operations, to need less than now where that is more than
        ``limit``; the best first.
        """
        sources = sources_of(self.nodes)
        high = np.flatnonzero(self.live > limit)
        found: list[tuple[float, Choice]] = []
        for node in self.nodes:
            if node.output is None or node.op.view or id(node.output) not in self._latest:
                continue
            touches = self._touches[id(node.output)]
            gap = max(range(len(touches) - 1), key=lambda i: touches[i + 1] - touches[i], default=None)
            if gap is None:
                continue
            first, again = touches[gap], touches[gap + 1]
            if not np.searchsorted(high, again) > np.searchsorted(high, first, "right"):
                continue
            for recursive in (False, True):
                choice = self._choice(node.output, first, again, recursive, sources)
                if choice is not None and choice.flops <= most:
                    worth = choice.worth(self.live, limit)
                    if worth > 0:
                        found.append((worth, choice))
        found.sort(key=lambda pair: -pair[0])
        return [choice for _, choice in found]

    def _choice(
        self, tensor: Tensor, first: int, again: int, recursive: bool, sources: Mapping[int, tuple[Tensor, ...]]
    ) -> Choice | None:
        """To make ``tensor`` again; with ``recursive`` all inputs, too, that are not there any more, otherwise only
        those that are computed from weights alone. None if it cannot be.
        """
        group: dict[int, Tensor] = {}
        longer: dict[int, tuple[int, int]] = {}
        flops = 0.0
        wanted = [tensor]
        while wanted:
            made = wanted.pop()
            if id(made) in group:
                continue
            if self._latest.get(id(made), -1) < again:
                return None
            group[id(made)] = made
            assert made.node is not None
            flops += flops_of(made.node, self.batch)
            for base in map(self.base, made.node.inputs):
                if base.place is not None or base.node is None:
                    continue
                last = self._touches[id(base)][-1]
                if last >= again:
                    continue
                if recursive or id(base) in sources:
                    wanted.append(base)
                else:
                    longer[id(base)] = (aligned(elements(base.shape, self.batch)), last)
        size = aligned(elements(tensor.shape, self.batch))
        return Choice(tensor, first, again, size, tuple(group.values()), tuple(longer.values()), flops)

    def without(self, choices: Sequence[Choice]) -> Steps:
        """The steps that do not keep what was chosen."""
        again = {id(made): choice.again for choice in choices for made in choice.group}
        moved: dict[int, Tensor] = {}  # what tensors (by id) became because their node reads something made again
        copies: dict[int, Tensor] = {}  # what was made again, by the id of the tensor
        nodes: list[Node] = []
        origins: list[int] = []

        def gone(tensor: Tensor, position: int) -> bool:
            return again.get(id(self.base(tensor)), len(self.nodes)) <= position

        def now(tensor: Tensor, position: int) -> Tensor:
            return copies[id(tensor)] if gone(tensor, position) else moved.get(id(tensor), tensor)

        for position, node in enumerate(self.nodes):
            wanted = [tensor for tensor in node.inputs if gone(tensor, position)] if not node.op.view else []
            while wanted:
                tensor = wanted[-1]
                assert tensor.node is not None
                missing = [i for i in tensor.node.inputs if gone(i, position) and id(i) not in copies]
                if id(tensor) in copies or not missing:
                    wanted.pop()
                if id(tensor) in copies or missing:
                    wanted += missing if id(tensor) not in copies else []
                    continue
                inputs = tuple(now(i, position) for i in tensor.node.inputs)
                copy = Node(tensor.node.op, inputs, tensor.node.attrs, tensor.shape)
                assert copy.output is not None
                copy.output.name = tensor.name
                copies[id(tensor)] = copy.output
                nodes.append(copy)
                origins.append(self.origins[position])
            if node.op.view and gone(node.inputs[0], position):
                continue  # made where it is used
            inputs = tuple(now(tensor, position) for tensor in node.inputs)
            if any(a is not b for a, b in zip(inputs, node.inputs, strict=True)):
                rebuilt = Node(node.op, inputs, node.attrs, None if node.output is None else node.output.shape)
                if node.output is not None:
                    assert rebuilt.output is not None
                    rebuilt.output.place, rebuilt.output.name = node.output.place, node.output.name
                    moved[id(node.output)] = rebuilt.output
                node = rebuilt
            nodes.append(node)
            origins.append(self.origins[position])
        return Steps(nodes, self.batch, origins, self.again + sum(choice.flops for choice in choices))


def flops_of(node: Node, batch: int) -> float:
    """Floating-point operations of a node at the full batch."""
    return node.op.count_flops(*sized_inputs(node, batch), **node.attrs)


def recomputed(
    orders: Sequence[Sequence[Node]], batch: int, limit: int | None, weights: Collection[str] = ()
) -> Layout:
    """Nodes that do the same with less memory, and where everything lives.

    Args:
        orders: nodes in the order in which they run; the one that leads to the better result is taken
        batch: the largest batch
        limit: most elements of the arena; as few operations as possible are done again for that. None for as few
            elements as are worth it
        weights: see ``Layout``

    Raises:
        Unreachable: the limit cannot be kept
    """
    found = []
    least = -1
    for nodes in orders:
        try:
            found.append(_recomputed(nodes, batch, limit, weights))
        except Unreachable as error:
            least = error.elements if least < 0 else min(least, error.elements)
    if not found:
        raise Unreachable(least)
    if limit is None:
        return min(found, key=lambda layout: layout.arena_size)
    return min(found, key=lambda layout: sum(flops_of(node, batch) for node in layout.steps))


def slimmed(nodes: Sequence[Node], layout: Layout, weights: Collection[str] = ()) -> Layout:
    """The layout of ``nodes``, or one with less memory that costs next to no time."""
    if layout.arena_size < THOUGHT:
        return layout
    steps = Steps(nodes, layout.batch)
    budget = UNASKED * sum(flops_of(node, layout.batch) for node in nodes)
    lighter = _within(steps, steps.peak * 2 // 3, budget)
    if lighter.peak > (1.0 - FREED) * steps.peak:
        return layout
    return min(layout, Layout(lighter.nodes, layout.batch, weights), key=lambda found: found.arena_size)


def _recomputed(nodes: Sequence[Node], batch: int, limit: int | None, weights: Collection[str]) -> Layout:
    steps = Steps(nodes, batch)
    flops = sum(flops_of(node, batch) for node in nodes)
    found = Layout(nodes, batch, weights)
    if limit is None:
        least = Layout(_least(steps, SHARE * flops).nodes, batch, weights)
        return min(found, least, key=lambda layout: layout.arena_size)
    aim = limit
    while found.arena_size > limit and aim > 0:
        lighter = _within(steps, aim, LARGEST_SHARE * flops)
        if lighter.peak > aim:
            break
        found = Layout(lighter.nodes, batch, weights)
        aim -= found.arena_size - limit  # there are gaps between tensors
    if found.arena_size > limit:
        found = Layout(_least(steps, LARGEST_SHARE * flops).nodes, batch, weights)
        if found.arena_size > limit:
            raise Unreachable(found.arena_size)
    return found


class Unreachable(ValueError):
    """``elements`` of the arena are the fewest that can be reached."""

    def __init__(self, elements: int) -> None:
        super().__init__(f"the arena needs {elements} elements or more")
        self.elements = elements


def _least(steps: Steps, budget: float) -> Steps:
    """Steps that need as little memory as so many operations, done again, can bring about."""
    least, low, high = steps, 0, steps.peak
    for _ in range(ROUNDS):
        limit = (low + high) // 2
        lighter = _within(steps, limit, budget)
        least = min(least, lighter, key=lambda found: found.peak)
        low, high = (low, lighter.peak) if lighter.peak <= limit else (limit, high)
    return least


def _within(steps: Steps, limit: int, budget: float) -> Steps:
    """Steps that need at most ``limit`` elements, or near to that where it would take more operations than so many."""
    hopeless: set[int] = set()  # tensors whose choice made nothing better
    while steps.peak > limit:
        left = budget - steps.again
        choices = [c for c in steps.choices(limit, left) if id(c.tensor) not in hopeless]
        if not choices:
            break
        most = len(choices)
        while most:
            taken = _together(choices, most, steps.live, limit, left)
            other = steps.without(taken)
            if other.above(limit) < steps.above(limit):
                steps = other if other.peak > limit else _fewest(steps, taken, limit)
                break
            if len(taken) == 1:
                hopeless.add(id(taken[0].tensor))
            most = len(taken) // 2
    return steps


def _fewest(steps: Steps, taken: Sequence[Choice], limit: int) -> Steps:
    """The steps without the first few of the choices; all of them are enough for the limit."""
    low, high = 0, len(taken)
    found = steps.without(taken)
    while high - low > 1:
        count = (low + high) // 2
        fewer = steps.without(taken[:count])
        if fewer.peak > limit:
            low = count
        else:
            found, high = fewer, count
    return found


def _together(choices: Sequence[Choice], most: int, live: np.ndarray, limit: int, left: float) -> list[Choice]:
    """The first of the choices that do not touch each other: ``most``, or as many as are needed for ``limit`` or as
    take no more than the operations that are left.
    """
    live = live.copy()
    taken: list[Choice] = []
    gone: set[int] = set()
    read: set[int] = set()
    for choice in choices:
        if len(taken) == most or live.max() <= limit:
            break
        group = {id(made) for made in choice.group}
        inputs = {id(tensor) for made in choice.group if made.node is not None for tensor in made.node.inputs}
        if choice.flops <= left and not (group & (read | gone) or inputs & gone):
            left -= choice.flops
            choice.shift(live)
            taken.append(choice)
            gone |= group
            read |= inputs
    return taken
