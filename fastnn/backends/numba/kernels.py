"""The kernels of the Numba backend, in compiled Python.

``KERNELS[name](outputs, inputs, attrs)`` computes the op ``name``. All arrays are C-contiguous; floats are float32
(totals float64, indices and step numbers int64). ``outputs`` are overwritten: for an op that updates in place they are
the arrays of ``op.updates``, in that order, and ``inputs`` the remaining ones. Nothing is validated. An op is here or
named in ``SHARED``; any other name is an error.

Importing this imports Numba, so only who chooses the backend does it. Kernels are compiled when first called and kept
on disk. They run on the calling thread, without the GIL.
"""

from fastnn.backends.numba import (  # noqa: F401
    arithmetic,
    augment,
    broadcast,
    conv,
    data,
    depthwise,
    focal,
    join,
    layer_norm,
    loss,
    matrix,
    merge,
    metric,
    norm,
    overlap,
    pointwise,
    pool,
    random,
    rectifier,
    resize,
    shape,
    softmax,
    update,
    winograd,
)
from fastnn.backends.numba.jit import COMPILED, KERNELS

__all__ = ["COMPILED", "KERNELS", "SHARED"]

#: Ops that use the reference's body: sums over a whole weight, once a step, where NumPy's pairwise sum is as good, and
#: a view, which is no step of a Plan at all; copies in another order; and the matrices of images, a few numbers a row.
SHARED: frozenset[str] = frozenset(
    {"clip_norm", "penalty", "reshape", "reshape_weight", "crop", "transpose"}
    | {"rotation_matrices", "zoom_matrices", "translation_matrices"}
)
