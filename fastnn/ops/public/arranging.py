"""The same numbers in another shape or order, joined or in parts. The batch stays the first axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn.graph import Tensor, format_shape
from fastnn.ops import join, shape
from fastnn.ops.public.common import axis_of, lifted, lowered, operand, operands, repeated, shaped, sizes_of

#: Arrays that are joined at a time.
AT_ONCE = 6


def reshape(x: Any, newshape: Sequence[int | None]) -> Any:
    """``x`` in another shape, which for rows starts with -1 or None, the batch. One further size may be -1.

    Raises:
        ValueError: the sizes do not fit

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.reshape(np.ones((5, 4, 6)), (-1, 24)).shape
        (5, 24)
    """
    symbolic, a = operand("reshape", x)
    wanted = tuple(newshape)
    if not symbolic:
        return a.reshape((len(a), *wanted[1:]) if wanted and wanted[0] in (None, -1) else wanted)
    sizes = wanted[1:] if a.batch else wanted
    if a.batch and (not wanted or wanted[0] not in (None, -1)):
        raise ValueError(f"reshape: the first size must be -1 or None, the batch. Received: newshape={wanted}")
    whole, known = math.prod(sizes_of(a)), math.prod(size for size in sizes if size not in (None, -1))
    unknown = sum(size in (None, -1) for size in sizes)
    if unknown > 1 or not known or (whole % known if unknown else whole != known):
        raise ValueError(f"reshape: a shape {format_shape(a.shape)} cannot become {wanted}")
    return shaped(a, [whole // known if size in (None, -1) else int(size) for size in sizes])


def transpose(x: Any, axes: Sequence[int]) -> Any:
    """``x`` with its axes in another order: axis i of the result is axis ``axes[i]`` of ``x``. Rows start with axis 0.

    Raises:
        ValueError: ``axes`` does not name each axis once, or moves the batch

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.transpose(np.ones((5, 4, 6)), (0, 2, 1)).shape
        (5, 6, 4)
    """
    symbolic, a = operand("transpose", x)
    order = tuple(axis_of("transpose", axis, len(a.shape)) for axis in axes)
    if sorted(order) != list(range(len(a.shape))) or (symbolic and a.batch and order[0]):
        raise ValueError(f"transpose: axes must name each axis once, the batch first. Received: axes={tuple(axes)}")
    if not symbolic:
        return np.ascontiguousarray(a.transpose(order))
    perm = order[1:] if a.batch else tuple(axis + 1 for axis in order)
    return lowered(shape.transpose(lifted(a), perm=perm), a)


def concatenate(xs: Sequence[Any], axis: int = -1) -> Any:
    """Arrays or Tensors one behind the other along an axis, not the batch's.

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.concatenate([np.ones((5, 2)), np.zeros((5, 3))]).shape
        (5, 5)
    """
    symbolic, parts = operands("concatenate", *xs)
    if not parts or any(isinstance(part, float) for part in parts):
        raise TypeError(f"concatenate: takes a list of Tensors or arrays. Received: {xs!r:.200}")
    if not symbolic:
        return np.concatenate(parts, axis=axis)
    if len({part.batch for part in parts}) > 1:
        raise ValueError("concatenate: rows and weights cannot be joined; use broadcast_to first")
    along = axis_of("concatenate", axis, parts[0].rank, parts[0].shape) + (not parts[0].batch)
    joined = [lifted(part) for part in parts]
    while len(joined) > 1:
        groups = [joined[i : i + AT_ONCE] for i in range(0, len(joined), AT_ONCE)]
        joined = [join.concatenate(*group, axis=along) if group[1:] else group[0] for group in groups]
    return lowered(joined[0], parts[0])


def split(x: Any, indices_or_sections: int | Sequence[int], axis: int = -1) -> list[Any]:
    """Parts of equal size along an axis, or those that begin at given indices: ``[x[:i], x[i:j], x[j:]]``.

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> scale, shift = ops.split(np.ones((5, 8)), 2)
        >>> shift.shape
        (5, 4)
    """
    symbolic, a = operand("split", x)
    along = axis_of("split", axis, len(a.shape), a.shape if symbolic else None)
    size = a.shape[along]
    if isinstance(indices_or_sections, int | np.integer):
        sections = int(indices_or_sections)
        if sections < 1 or size % sections:
            raise ValueError(f"split: {size} elements cannot be split into {sections} equal parts")
        bounds = list(range(0, size + 1, size // sections))
    else:
        bounds = [0, *map(int, indices_or_sections), size]
        if any(later <= earlier for earlier, later in itertools.pairwise(bounds)):
            raise ValueError(f"split: indices must grow, inside of 0 to {size}. Received: {indices_or_sections!r}")
    return [_part(a, along, start, stop) for start, stop in itertools.pairwise(bounds)]


def _part(x: Any, axis: int, start: int, stop: int) -> Any:
    if not isinstance(x, Tensor):
        return x[(slice(None),) * axis + (slice(start, stop),)]
    if (start, stop) == (0, x.shape[axis]):
        return x
    return lowered(join.part(lifted(x), axis=axis + (not x.batch), start=start, size=stop - start), x)


def sliced(x: Any, key: Any) -> Any:
    """``x[key]`` of a Tensor or weight: slices without steps and integers; all of the batch."""
    symbolic, a = operand("slice", x)
    if not symbolic:
        return a[key]
    keys = key if isinstance(key, tuple) else (key,)
    if Ellipsis in [k for k in keys if not isinstance(k, np.ndarray)]:
        at = keys.index(Ellipsis)
        keys = (*keys[:at], *(slice(None),) * (a.rank - len(keys) + 1), *keys[at + 1 :])
    keys += (slice(None),) * (a.rank - len(keys))
    whole = slice(None)
    if len(keys) > a.rank or (a.batch and keys[0] != whole):
        raise TypeError(f"slice: takes x[:, ...], all of the batch, with at most {a.rank} indices. Received: {key!r}")
    dropped = []
    for axis, each in enumerate(keys):
        if isinstance(each, slice) and each.step in (None, 1):
            if each != whole:
                start, stop, _ = each.indices(a.shape[axis])
                if stop <= start:
                    raise ValueError(f"slice: must leave something of axis {axis}. Received: {key!r}")
                a = _part(a, axis, start, stop)
        elif isinstance(each, int | np.integer) and not isinstance(each, bool):
            if not -a.shape[axis] <= each < a.shape[axis]:
                raise IndexError(f"slice: axis {axis} has {a.shape[axis]} elements. Received: {key!r}")
            a = _part(a, axis, int(each) % a.shape[axis], int(each) % a.shape[axis] + 1)
            dropped.append(axis)
        else:
            raise TypeError(f"slice: takes integers and slices without a step. Received: {key!r}")
    if not dropped:
        return a
    first = int(a.batch)
    left = [size for axis, size in enumerate(a.shape) if axis >= first and axis not in dropped]
    return shaped(a, left if a.batch else left or [1])


def expand_dims(x: Any, axis: int) -> Any:
    """``x`` with one more axis, of size 1, that is then the axis of this number; not the first of rows.

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.expand_dims(np.ones((5, 3)), 1).shape
        (5, 1, 3)
    """
    symbolic, a = operand("expand_dims", x)
    along = axis_of("expand_dims", axis, len(a.shape) + 1, a.shape if symbolic else None)
    if not symbolic:
        return np.expand_dims(a, along)
    sizes = [*a.shape[:along], 1, *a.shape[along:]]
    return shaped(a, sizes[1:] if a.batch else sizes)


def squeeze(x: Any, axis: int) -> Any:
    """``x`` without an axis of size 1."""
    symbolic, a = operand("squeeze", x)
    along = axis_of("squeeze", axis, len(a.shape), a.shape if symbolic else None)
    if a.shape[along] != 1:
        raise ValueError(f"squeeze: axis {axis} must have size 1. Received: shape {a.shape}")
    if not symbolic:
        return np.squeeze(a, along)
    sizes = [size for i, size in enumerate(a.shape) if i != along]
    return shaped(a, sizes[1:] if a.batch else sizes or [1])


def broadcast_to(x: Any, shape: Sequence[int | None]) -> Any:
    """``x`` with axes of size 1 repeated to a shape, which for rows starts with -1 or None, the batch.

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.broadcast_to(np.ones((5, 1, 3)), (None, 4, 3)).shape
        (5, 4, 3)
    """
    symbolic, a = operand("broadcast_to", x)
    wanted = tuple(shape)
    if not symbolic:
        batch = len(a) if wanted and wanted[0] in (None, -1) else None
        full: Any = wanted if batch is None else (batch, *wanted[1:])
        return np.array(np.broadcast_to(a, full))
    if a.batch and (len(wanted) != a.rank or wanted[0] not in (None, -1)):
        raise ValueError(f"broadcast_to: shape must have {a.rank} axes, -1 or None first. Received: shape={wanted}")
    sizes = tuple(int(size) for size in (wanted[1:] if a.batch else wanted) if size is not None)
    own = sizes_of(a)
    own = (1,) * (len(sizes) - len(own)) + own
    if len(own) > len(sizes) or any(size not in (1, to) for size, to in zip(own, sizes, strict=True)):
        raise ValueError(f"broadcast_to: only axes of size 1 can be repeated. Received: {a.shape} and shape={wanted}")
    return repeated(a, sizes)


def pad(x: Any, pad_width: Sequence[Sequence[int]]) -> Any:
    """``x`` with zeros around it: ``(before, after)`` for each axis, ``(0, 0)`` for the batch.

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.pad(np.ones((5, 3)), ((0, 0), (1, 2)))[0]
        array([0., 1., 1., 1., 0., 0.])
    """
    symbolic, a = operand("pad", x)
    widths = [tuple(int(n) for n in pair) for pair in pad_width]
    wrong = len(widths) != len(a.shape) or any(len(pair) != 2 or min(pair) < 0 for pair in widths)
    if wrong or (symbolic and a.batch and any(widths[0])):
        raise ValueError(
            f"pad: pad_width must be (before, after) for each of {len(a.shape)} axes, (0, 0) for the batch. "
            f"Received: pad_width={pad_width!r}"
        )
    if not symbolic:
        return np.pad(a, widths)
    y = lifted(a)
    for axis, (before, after) in enumerate(widths, start=0 if a.batch else 1):
        if before or after:
            size: Any = y.shape[axis]
            y = join.embed(y, axis=axis, start=before, whole=before + size + after)
    return lowered(y, a)
