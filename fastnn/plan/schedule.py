"""The order of the steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from fastnn.graph import ALL, Node, Shape, Tensor, nodes_behind


def schedule(roots: Sequence[Tensor | Node], batch: int = 1) -> list[Node]:
    """The nodes behind ``roots`` in the order in which they run; what no root needs is left out.

    Nodes keep the order of their creation, but each one that updates its inputs in place moves up to right after the
    last node that it has to wait for, and what only it needs, the gradient first of all, is made right before it: so
    it finds the gradient still in the cache, and the gradient's memory is soon free again. It waits for whatever makes
    its inputs, for whatever reads the memory that it overwrites, and for all ops in Python: if one of these fails, no
    weight has changed. Of what is computed from that memory alone and is
    read after it, transformed weights, say, and of what that reader makes of it in a ``batch``, the larger one should
    not be there yet or be gone again while the gradient is made.
    """
    nodes = nodes_behind(roots)
    sources = sources_of(nodes)
    owner = _owners(nodes, sources)
    order = [node for node in nodes if id(node) not in owner]
    owned: dict[int, list[Node]] = defaultdict(list)
    for node in nodes:
        if id(node) in owner:
            owned[id(owner[id(node)])].append(node)
    makers: dict[int, int] = {}  # when each tensor is there, by id
    writers: dict[str, list[Touch]] = defaultdict(list)
    readers: dict[str, list[Touch]] = defaultdict(list)

    def reads(node: Node, position: int) -> None:
        for tensor in node.inputs:
            computed = tensor.node is not None and not tensor.node.op.view
            if computed and node.output is not None and elements(tensor.shape, 1) < elements(node.output.shape, batch):
                continue
            for source in sources.get(id(tensor), ()):
                assert source.place is not None
                readers[source.place.buffer].append((*stretch(source), position))

    for position, node in enumerate(order, start=1):
        assert node.output is not None
        makers[id(node.output)] = position
        if node.output.place is not None:
            writers[node.output.place.buffer].append((*stretch(node.output), position))
        reads(node, position)

    safe = max((position for position, node in enumerate(order, start=1) if node.op.python), default=0)
    after: dict[int, list[Node]] = defaultdict(list)
    for update in (node for node in nodes if node.op.updates):
        ready = safe
        for tensor in (tensor for node in owned[id(update)] for tensor in node.inputs):
            ready = max(ready, makers.get(id(tensor), 0))
            if tensor.place is not None:
                ready = _latest(ready, tensor, writers[tensor.place.buffer])
        for tensor in (update.inputs[i] for i in update.op.updates):
            if tensor.place is not None:
                ready = _latest(ready, tensor, readers[tensor.place.buffer])
        for node in owned[id(update)]:
            after[ready].append(node)
            reads(node, ready)
    result = after[0]
    for position, node in enumerate(order, start=1):
        result += (node, *after.get(position, ()))
    return result


def sources_of(nodes: Sequence[Node]) -> dict[int, tuple[Tensor, ...]]:
    """What in the buffers that updates overwrite each tensor (by id) is, or is computed from with nothing else."""
    overwritten = {
        place.buffer for node in nodes for i in node.op.updates if (place := node.inputs[i].place) is not None
    }
    sources: dict[int, tuple[Tensor, ...]] = {}
    for node in nodes:
        for tensor in node.inputs:
            if tensor.place is not None and tensor.place.buffer in overwritten:
                sources[id(tensor)] = (tensor,)
        if node.output is not None and all(id(tensor) in sources for tensor in node.inputs):
            sources[id(node.output)] = tuple(source for tensor in node.inputs for source in sources[id(tensor)])
    return sources


def _owners(nodes: Sequence[Node], sources: Mapping[int, tuple[Tensor, ...]]) -> dict[int, Node]:
    """For each update (by id) and for each node that one update alone needs: that update.

    A node that reads what updates overwrite, a weight, say, has no owner: its place in the order says what it reads.
    Nor has an op in Python: updates wait for all of these.
    """
    needed: dict[int, set[Node | None]] = defaultdict(set)  # by whom, by the tensor's id
    owner: dict[int, Node] = {}
    for node in reversed(nodes):
        if node.op.updates:
            owner[id(node)] = node
        elif _can_wait(node) and len(needed[id(node.output)]) == 1:
            (update,) = needed[id(node.output)]
            if update is not None and not any(sources.get(id(tensor)) for tensor in node.inputs):
                owner[id(node)] = update
        for tensor in node.inputs:
            needed[id(tensor)].add(owner.get(id(node)))
    return owner


def _can_wait(node: Node) -> bool:
    """Whether a node may be made as late as the one update that needs it."""
    return node.output is not None and node.output.place is None and not node.op.python


#: A stretch of a buffer, first and last element + 1, and the position of the node that reads or writes it.
Touch = tuple[float, float, int]


def _latest(ready: int, tensor: Tensor, touches: Sequence[Touch]) -> int:
    """The last position at which a part of a placed tensor is touched, if that is after ``ready``."""
    first, end = stretch(tensor)
    for start, stop, position in touches:
        if position > ready and start < end and first < stop:
            ready = position
    return ready


def stretch(tensor: Tensor) -> tuple[float, float]:
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


def elements(shape: Shape, batch: int) -> int:
    """How many numbers an array of this shape has."""
    size = 1
    for extent in shape:
        size *= batch if extent is None or extent == ALL else extent
    return size
