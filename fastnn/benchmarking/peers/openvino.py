"""OpenVINO: inference of the networks of the literature, for latency or throughput, from ONNX files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import openvino

from fastnn.benchmarking.peers import Case
from fastnn.benchmarking.peers.onnx_networks import exported, inputs
from fastnn.benchmarking.workloads import Workload


def cases(workload: Workload, threads: int, thorough: bool) -> list[Case]:
    work = workload.application
    assert work is not None
    core = openvino.Core()
    model = core.read_model(io.BytesIO(exported(work, workload.rows)))
    x, found = inputs(work, workload.rows), []
    for hint in ("LATENCY", "THROUGHPUT"):
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": hint}
        request = core.compile_model(model, "CPU", {**settings, "NUM_STREAMS": 1}).create_infer_request()
        request.set_tensor("x", openvino.Tensor(x, shared_memory=True))

        def run(n: int, request: Any = request, x: Any = x) -> Any:  # the request does not keep x alive
            for _ in range(n):
                request.infer()
            return np.moveaxis(request.get_output_tensor(0).data, 1, -1)

        found.append(Case(f"infer, {hint.lower()}", run))
    return found
