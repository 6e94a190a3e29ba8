"""Where everything lives: tensors and working memory in the arena, results that are kept in a buffer of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from fastnn.graph import ALL, Node, Place, Tensor
from fastnn.plan.joins import Slice, slices
from fastnn.plan.memory import Lifetime, aligned, assign
from fastnn.plan.schedule import elements, views

#: The buffers that a Plan lays out and a Program allocates; the others are handed in at run time.
ARENA, CONSTANTS = "arena", "constants"


class Layout:
    """Places for all tensors of a graph.

    Args:
        nodes: in the order in which they run
        batch: the largest batch
        weights: names of buffers that seldom change: what depends on them alone is computed apart and kept. And what
            is joined lies in the whole; not so in training, where the whole would have to be there for as long as one
            of its slices, and copies, which go through the caches, take no longer

    Attributes:
        constants, steps: nodes that run when the weights have changed, and those that run for each batch. Views are in
            neither: their output is their input's memory; nor is what joins slices
        arena_size, constants_size: elements
    """

    def __init__(self, nodes: Sequence[Node], batch: int, weights: Collection[str] = ()) -> None:
        self.batch = batch
        self._slices: dict[int, Slice] = {}  # by the tensor's id
        self._places: dict[int, Place] = {}  # by the tensor's id; those of tensors that were given one are theirs
        self._workspaces: dict[int, int] = {}  # by the node's id
        constants, steps = _split(nodes, weights)
        self._behind = views(nodes)
        free = self._free_views(steps) | {id(node) for node in constants if node.op.view}
        for node in nodes:
            if id(node) not in free:
                self._behind.pop(id(node.output), None)
        self.constants = [node for node in constants if id(node) not in free]
        self.steps = [node for node in steps if id(node) not in free]
        if weights:
            self._slices, done = slices(self.steps, self._behind, self._unplaced)
            self.steps = [node for node in self.steps if id(node) not in done]
        self.constants_size = self._keep()
        self.arena_size = max(self._lay_out(self.constants), self._lay_out(self.steps))

    def place(self, tensor: Tensor) -> Place:
        """Where a tensor lives. Raises ValueError for an input that nobody has placed."""
        base = self._base(tensor)
        place = self._places.get(id(base)) or base.place
        if place is None:
            raise ValueError(
                f"plan: the input {base!r} has no place; a layer that another one uses must be an attribute of it"
            )
        if id(tensor) in self._slices:
            return place._replace(offset=place.offset + self._slices[id(tensor)].start)
        return place

    def skip(self, tensor: Tensor) -> int:
        """The elements after each row of a slice that are not its own; 0 for all other tensors."""
        if id(tensor) not in self._slices:
            return 0
        whole, own = self._slices[id(tensor)].whole.shape[-1], tensor.shape[-1]
        assert whole is not None and own is not None
        return whole - own

    def workspace(self, node: Node) -> int:
        """Where in the arena a node's kernel finds memory for itself."""
        return self._workspaces.get(id(node), 0)

    def _base(self, tensor: Tensor) -> Tensor:
        if id(tensor) in self._slices:
            return self._slices[id(tensor)].whole
        return self._behind.get(id(tensor), tensor)

    def _unplaced(self, tensor: Tensor) -> bool:
        return tensor.place is None and id(tensor) not in self._places

    def _free_views(self, nodes: Sequence[Node]) -> set[int]:
        """The views that cost nothing. One that is wanted in a place of its own costs nothing if what it is a view of
        can be made there in the first place.
        """
        made = {id(node.output) for node in nodes if node.output is not None and not node.op.view}
        free = set()
        for node in nodes:
            if not node.op.view or node.output is None:
                continue
            base = self._base(node.output)
            if node.output.place is None:
                free.add(id(node))
            elif id(base) in made and base.place is None and id(base) not in self._places:
                self._places[id(base)] = node.output.place
                free.add(id(node))
        return free

    def _keep(self) -> int:
        """Places for the constants that the steps read."""
        size = 0
        read = {id(self._base(tensor)) for node in self.steps for tensor in node.inputs}
        for node in self.constants:
            assert node.output is not None
            if id(node.output) in read:
                self._places[id(node.output)] = Place(CONSTANTS, size)
                size += aligned(elements(node.output.shape, self.batch))
        return size

    def _lay_out(self, nodes: Sequence[Node]) -> int:
        """Places in the arena for the tensors that have none, and for the kernels' own memory; the size of it all."""
        groups, group_of, workspace_of = lifetimes(
            nodes, self.batch, self._base, lambda output: not self._unplaced(output)
        )
        offsets, total = assign(groups)
        self._places |= {tensor: Place(ARENA, offsets[group]) for tensor, group in group_of.items()}
        self._workspaces |= {node: offsets[group] for node, group in workspace_of.items()}
        return total


def lifetimes(
    nodes: Sequence[Node], batch: int, base: Callable[[Tensor], Tensor], placed: Callable[[Tensor], bool]
) -> tuple[list[Lifetime], dict[int, int], dict[int, int]]:
    """When memory is needed by ``nodes``, which run in this order and have no views among them.

    Args:
        nodes: see above
        batch: the largest batch
        base: the tensor whose memory a tensor is, or is a slice of
        placed: whether an output has a place already

    Returns:
        The lifetimes of tensors and of the kernels' own memory; which of them is that of a tensor (by id); which is
        that of the memory of a node's kernel (by the node's id). An elementwise op's output shares the lifetime of an
        input that dies there.
    """
    last: dict[int, int] = {}
    for position, node in enumerate(nodes):
        for tensor in node.inputs:
            last[id(base(tensor))] = position
    groups: list[Lifetime] = []
    group_of: dict[int, int] = {}
    for position, node in enumerate(nodes):
        output = node.output
        if output is None or placed(output):
            continue
        whole = base(output)
        if whole is not output:
            if id(whole) not in group_of:
                group_of[id(whole)] = len(groups)
                groups.append(Lifetime(elements(whole.shape, batch), position, last.get(id(whole), position)))
            continue
        size = elements(output.shape, batch)
        shared = None
        for tensor in (node.inputs[i] for i in node.op.elementwise if i < len(node.inputs)):
            group = group_of.get(id(base(tensor)))
            if group is not None and groups[group].last == position and groups[group].size == size:
                shared = group
                break
        if shared is None:
            shared = len(groups)
            groups.append(Lifetime(size, position, position))
        groups[shared].last = last.get(id(output), position)
        group_of[id(output)] = shared
    workspace_of: dict[int, int] = {}
    for position, node in enumerate(nodes):
        size = node.op.workspace(*sized_inputs(node, batch), **node.attrs)
        if size:
            workspace_of[id(node)] = len(groups)
            groups.append(Lifetime(size, position, position))
    return groups, group_of, workspace_of


def _split(nodes: Sequence[Node], weights: Collection[str]) -> tuple[list[Node], list[Node]]:
    """The nodes that depend on nothing but ``weights``, and the others. What is wanted in a place is made each time."""
    constants: list[Node] = []
    steps: list[Node] = []
    known: set[int] = set()
    for node in nodes:
        constant = (
            node.output is not None
            and node.output.place is None
            and all(id(i) in known or (i.place is not None and i.place.buffer in weights) for i in node.inputs)
        )
        if constant:
            known.add(id(node.output))
        (constants if constant else steps).append(node)
    return constants, steps


def sized_inputs(node: Node, batch: int) -> list[tuple[int, ...]]:
    """The shapes of a node's inputs with the batch size filled in."""
    return [tuple(batch if size is None or size == ALL else size for size in t.shape) for t in node.inputs]
