"""NumPy with its BLAS: products, and prediction as written by hand."""

from __future__ import annotations

import numpy as np

from fastnn.benchmarking.peers import Case, repeated
from fastnn.benchmarking.workloads import Workload, forward, table, weights


def cases(workload: Workload, threads: int, thorough: bool) -> list[Case]:
    if workload.product is not None:
        a, b = workload.product.operands()
        left, right = workload.product.views(a, b)
        out = np.empty(workload.product.out_shape, np.float32)
        return [Case("matmul", repeated(lambda: np.matmul(left, right, out=out)))]
    x, _ = table(workload.network, workload.rows)
    values = weights(workload.network)
    return [Case("by hand", repeated(lambda: forward(workload.network, values, x)))]
