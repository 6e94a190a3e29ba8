"""The order of the steps."""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.graph import ALL, Node, Tensor, nodes_behind


def schedule(roots: Sequence[Tensor | Node]) -> list[Node]:
    """The nodes behind ``roots`` in the order in which they run; what no root needs is left out.

    Nodes keep the order of their creation, but each one that updates its inputs in place moves up to right after the
    last node that it has to wait for, so that it finds its gradient still in the cache. It waits for whatever makes its
    inputs, for whatever reads the memory that it overwrites, and for all ops in Python: if one fails, no weight has
    changed.
    """
    nodes = nodes_behind(roots)
    behind = views(nodes)
    order = [node for node in nodes if not node.op.updates]
    safe = max((position for position, node in enumerate(order, start=1) if node.op.python), default=0)
    for update in (node for node in nodes if node.op.updates):
        overwritten = [update.inputs[i] for i in update.op.updates]
        ready = safe
        for position, node in enumerate(order, start=1):
            makes = node.output is not None and any(i is node.output for i in update.inputs)
            reads = any(_share_memory(behind.get(id(i), i), o) for i in node.inputs for o in overwritten)
            writes = any(_share_memory(node.output, i) for i in update.inputs) if node.output is not None else False
            if makes or reads or writes:
                ready = max(safe, position)
        order.insert(ready, update)
    return order


def views(nodes: Sequence[Node]) -> dict[int, Tensor]:
    """For each view (by id) the tensor whose memory it is; ``nodes`` are in the order in which they run."""
    behind: dict[int, Tensor] = {}
    for node in nodes:
        if node.op.view:
            behind[id(node.output)] = behind.get(id(node.inputs[0]), node.inputs[0])
    return behind


def _share_memory(a: Tensor, b: Tensor) -> bool:
    """Whether two placed tensors overlap (rows whose number is not known count as unbounded)."""
    if a is b:
        return True
    if a.place is None or b.place is None or a.place.buffer != b.place.buffer:
        return False
    first, second = sorted((a, b), key=lambda t: t.place.offset if t.place else 0)
    assert first.place and second.place
    if first.batch or ALL in first.shape:
        return True
    size = 1
    for extent in first.shape:
        size *= extent or 0
    return first.place.offset + size > second.place.offset
