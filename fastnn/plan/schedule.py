"""The order of the steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fastnn.graph import ALL, Node, Tensor, nodes_behind


def schedule(roots: Sequence[Tensor | Node]) -> list[Node]:
    """The nodes behind ``roots`` in the order in which they run; what no root needs is left out.

    Nodes keep the order of their creation, but each one that updates its inputs in place moves up to right after the
    last node that it has to wait for, so that it finds its gradient still in the cache. It waits for whatever makes its
    inputs and for whatever reads the memory that it overwrites.
    """
    nodes = nodes_behind(roots)
    behind = views(nodes)
    order = [node for node in nodes if not node.op.updates]
    makers: dict[int, int] = {}  # when each tensor is there, by id
    writers: dict[str, list[Touch]] = defaultdict(list)
    readers: dict[str, list[Touch]] = defaultdict(list)

    def reads(node: Node, position: int) -> None:
        for tensor in node.inputs:
            base = behind.get(id(tensor), tensor)
            if base.place is not None:
                readers[base.place.buffer].append((*_stretch(base), position))

    for position, node in enumerate(order, start=1):
        assert node.output is not None
        makers[id(node.output)] = position
        if node.output.place is not None:
            writers[node.output.place.buffer].append((*_stretch(node.output), position))
        reads(node, position)

    after: dict[int, list[Node]] = defaultdict(list)
    for update in (node for node in nodes if node.op.updates):
        ready = 0
        for tensor in update.inputs:
            ready = max(ready, makers.get(id(tensor), 0))
            if tensor.place is not None:
                ready = _latest(ready, tensor, writers[tensor.place.buffer])
        for tensor in (update.inputs[i] for i in update.op.updates):
            if tensor.place is not None:
                ready = _latest(ready, tensor, readers[tensor.place.buffer])
        after[ready].append(update)
        reads(update, ready)
    result = after[0]
    for position, node in enumerate(order, start=1):
        result += (node, *after.get(position, ()))
    return result


#: A stretch of a buffer, first and last element + 1, and the position of the node that reads or writes it.
Touch = tuple[float, float, int]


def _latest(ready: int, tensor: Tensor, touches: Sequence[Touch]) -> int:
    """The last position at which a part of a placed tensor is touched, if that is after ``ready``."""
    first, end = _stretch(tensor)
    for start, stop, position in touches:
        if position > ready and start < end and first < stop:
            ready = position
    return ready


def _stretch(tensor: Tensor) -> tuple[float, float]:
    """First and last element + 1 of a placed tensor (rows whose number is not known count as unbounded)."""
    assert tensor.place is not None
    size: float = 1
    for extent in tensor.shape:
        size *= float("inf") if extent is None or extent == ALL else extent
    return tensor.place.offset, tensor.place.offset + size


def views(nodes: Sequence[Node]) -> dict[int, Tensor]:
    """For each view (by id) the tensor whose memory it is; ``nodes`` are in the order in which they run."""
    behind: dict[int, Tensor] = {}
    for node in nodes:
        if node.op.view:
            behind[id(node.output)] = behind.get(id(node.inputs[0]), node.inputs[0])
    return behind
