"""What is joined is written where the whole has it, or at least not kept a second time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fastnn.graph import Node, Tensor
from fastnn.ops import join
from fastnn.ops.declare import OUTPUT
from fastnn.plan.schedule import views


class Slice(NamedTuple):
    """Where a tensor lies in a larger one: so far into each of its rows, those along the last axis."""

    whole: Tensor
    start: int


def slices(
    nodes: Sequence[Node], behind: Mapping[int, Tensor], free: Callable[[Tensor], bool]
) -> tuple[dict[int, Slice], set[int]]:
    """What ``concatenate`` joins along the last axis, where whatever makes and reads it can work on slices: it is
    written where the whole has it.

    Args:
        nodes: in the order in which they run, without the views that cost nothing
        behind: for each view (by id) the tensor whose memory it is
        free: whether a tensor may be placed anywhere

    Returns:
        The slices by the tensor's id, and the ids of the nodes that there is nothing left to do for.
    """
    makers = {id(node.output): node for node in nodes if node.output is not None}
    viewed = {id(base) for base in behind.values()}
    readers: dict[int, list[tuple[Node, int]]] = defaultdict(list)
    for node in nodes:
        for number, tensor in enumerate(node.inputs):
            readers[id(tensor)].append((node, number))
    found: dict[int, Slice] = {}

    def fits(tensor: Tensor, node: Node) -> bool:
        """Whether a tensor can be written where ``node`` joins it."""
        maker = makers.get(id(tensor))
        return (
            maker is not None
            and OUTPUT in maker.op.slices
            and free(tensor)
            and id(tensor) not in viewed
            and sum(tensor is other for other in node.inputs) == 1
            and all(number in reader.op.slices for reader, number in readers[id(tensor)] if reader is not node)
        )

    done = set()
    for node in nodes:
        whole = node.output
        if node.op is not join.concatenate or whole is None or not free(whole):
            continue
        if node.attrs["axis"] == len(whole.shape) - 1 and all(fits(tensor, node) for tensor in node.inputs):
            done.add(id(node))
            start = 0
            for tensor in node.inputs:
                found[id(tensor)] = Slice(whole, start)
                start += tensor.shape[-1] or 0
    return found, done


def parted(nodes: Sequence[Node]) -> list[Node]:
    """The same nodes, but what ``concatenate`` has joined is not kept beside the whole.

    What is read again later, such as the skips of a U-Net in the backward pass, is taken out of the whole: right before
    that, or before the whole is given up. ``nodes`` are in the order in which they run, and stay so.
    """
    behind = views(nodes)
    viewed = {id(base) for base in behind.values()}
    reads: dict[int, list[int]] = defaultdict(list)
    for position, node in enumerate(nodes):
        if not node.op.view:
            for base in {id(behind.get(id(tensor), tensor)) for tensor in node.inputs}:
                reads[base].append(position)
    again: dict[int, list[tuple[Tensor, Tensor, int, int]]] = defaultdict(list)  # what is taken out, by position
    known: set[int] = set()
    for position, node in enumerate(nodes):
        if node.op is not join.concatenate or node.output is None or node.output.place is not None:
            continue
        axis, start = node.attrs["axis"], 0
        given_up = reads[id(node.output)][-1] + 1 if reads[id(node.output)] else position
        for tensor in node.inputs:
            later = [at for at in reads[id(tensor)] if at > position]
            own = tensor.node is not None and tensor.place is None and id(tensor) not in (known | viewed | set(behind))
            if own and later and given_up > position + 1:
                again[min(later[0], given_up)].append((tensor, node.output, axis, start))
                known.add(id(tensor))
            start += tensor.shape[axis] or 0
    now: dict[int, Tensor] = {}  # what tensors, by id, have become
    result: list[Node] = []
    for position, node in enumerate(nodes):
        for tensor, whole, axis, start in again[position]:
            taken = join.part(now.get(id(whole), whole), axis=axis, start=start, size=tensor.shape[axis])
            result.append(taken.node)
            now[id(tensor)] = taken
        inputs = tuple(now.get(id(tensor), tensor) for tensor in node.inputs)
        if any(a is not b for a, b in zip(inputs, node.inputs, strict=True)):
            rebuilt = Node(node.op, inputs, node.attrs, None if node.output is None else node.output.shape)
            if node.output is not None:
                assert rebuilt.output is not None
                rebuilt.output.place, rebuilt.output.name = node.output.place, node.output.name
                now[id(node.output)] = rebuilt.output
            node = rebuilt
        result.append(node)
    return result
