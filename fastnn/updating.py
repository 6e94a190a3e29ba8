"""The updates of a training step: which weights are updated together, and where their gradients are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fastnn.graph import Node, Place, Tensor
from fastnn.layers.weight import Weight
from fastnn.ops import join, matrix, pointwise
from fastnn.ops.shape import reshape_weight
from fastnn.optimizers import Optimizer
from fastnn.plan import aligned

#: A weight with so many elements is updated by itself, right after its gradient, while both are in the cache. That
#: gradient lives no longer than this.
LARGE = 1 << 14
#: The gradient of a product with twice as many elements is made and used in slices of about so many.
SLICE = 1 << 20


class Layout(NamedTuple):
    """Which weights are trained, and where their slots lie in the flat vectors."""

    weights: list[Weight]
    offsets: list[int]
    size: int

    @classmethod
    def of(cls, weights: Sequence[Weight]) -> Layout:
        """Place the weights one after the other."""
        offsets, size = [], 0
        for weight in weights:
            offsets.append(size)
            size += aligned(weight.size)
        return cls(list(weights), offsets, size)


def updates(
    optimizer: Optimizer, layout: Layout, gradients: Sequence[Tensor | None], rates: Tensor
) -> tuple[list[Tensor | Node], int]:
    """The roots that train the weights of ``layout``, and the size of the buffer "grads" that they need.

    The gradients of small weights lie there side by side, and one update serves all of them; those of large weights are
    in the arena. Where the norm of all gradients together limits them, all are in "grads", and, limited, in "clipped".
    """
    roots: list[Tensor | Node] = []
    joined: list[tuple[Weight, int, Tensor | None]] = []
    for weight, slot, gradient in zip(layout.weights, layout.offsets, gradients, strict=True):
        gradient = None if gradient is None else optimizer.clip(gradient, whole=False)
        if optimizer.global_clipnorm is None and gradient is not None and weight.size >= LARGE:
            for start, part in _slices(gradient, weight.size):
                roots.append(_update(optimizer, weight, start, slot + start, part, rates))
        else:
            joined.append((weight, slot, gradient))
    flat = Layout.of([weight for weight, _, _ in joined])
    for (weight, _, gradient), offset in zip(joined, flat.offsets, strict=True):
        if gradient is not None:
            if gradient.place is not None:  # it is that of another weight, too
                gradient = pointwise.affine(gradient, scale=1.0)
            gradient.place, gradient.name = Place("grads", offset), f"gradient of {weight.name}"
            roots.append(gradient)
    whole = Tensor((flat.size,), place=Place("grads"), name="grads")
    clipped = optimizer.clip(whole, whole=True)
    if clipped is not whole:
        clipped.place = Place("clipped")
        roots.append(clipped)
    assert clipped.place is not None
    for first, size in _runs(joined):
        weight, slot, _ = joined[first]
        part = Tensor((size,), place=Place(clipped.place.buffer, flat.offsets[first]))
        roots.append(_update(optimizer, weight, 0, slot, part, rates))
    return roots, flat.size


def _update(optimizer: Optimizer, weight: Weight, start: int, slot: int, gradient: Tensor, rates: Tensor) -> Node:
    """The update of as many weights as there are gradients, from the ``start``-th element of ``weight`` on."""
    assert weight.tensor.place is not None
    flat = Tensor(gradient.shape, place=Place(weight.tensor.place.buffer, weight.offset + start), name="weights")
    slots = [Tensor(gradient.shape, place=Place(f"slot{i}", slot)) for i in range(len(optimizer.slots))]
    return optimizer.update(flat, slots, gradient, rates)


def _runs(joined: Sequence[tuple[Weight, int, Any]]) -> list[tuple[int, int]]:
    """Stretches of weights that lie side by side in their vector and in the slots: number of the first, size."""
    runs: list[tuple[int, int]] = []
    for number, (weight, slot, _) in enumerate(joined):
        size = aligned(weight.size)
        if number:
            before, place, _ = joined[number - 1]
            step = aligned(before.size)
            if before.vector is weight.vector and before.offset + step == weight.offset and place + step == slot:
                first, so_far = runs[-1]
                runs[-1] = (first, so_far + size)
                continue
        runs.append((number, size))
    return runs


def _slices(gradient: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    """The gradient as flat vectors, each with the number of its first element.

    Rows of the weights of a product are columns of its input: a slice of the gradient is the product of these.
    """
    maker = gradient.node
    if maker is None or maker.op is not matrix.matmul_tn or size < 2 * SLICE:
        yield 0, reshape_weight(gradient, shape=(size,))
        return
    x, g = maker.inputs
    rows, columns = gradient.shape
    assert rows is not None and columns is not None
    most = max(1, SLICE // columns)
    for start in range(0, rows, most):
        taken = join.part(x, axis=x.rank - 1, start=start, size=min(most, rows - start))
        product = matrix.matmul_tn(taken, g)
        taken.node.order = product.node.order = maker.order  # right where the whole would be made
        yield start * columns, reshape_weight(product, shape=(min(most, rows - start) * columns,))
