"""ONNX Runtime: inference with all graph optimizations; with and without bound inputs and outputs, spinning or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from fastnn.benchmarking.peers import Case, repeated
from fastnn.benchmarking.peers.onnx_networks import channels_back, exported, inputs
from fastnn.benchmarking.workloads import Net, Workload, table, weights

OPERATORS = {"relu": "Relu", "sigmoid": "Sigmoid", "softmax": "Softmax"}


def cases(workload: Workload, threads: int, thorough: bool) -> list[Case]:
    if workload.application is not None:
        work, rows = workload.application, workload.rows
        x, shape = inputs(work, rows), (rows, work.classes, *(work.shape[:-1] if work.classes == 1 else ()))
        ready = sessions(exported(work, rows), threads)
        settings = [(f"{setting}run_with_iobinding", bound(session, x, shape)) for setting, session in ready]
        return [Case(setting, channels_back(run)) for setting, run in settings]
    x, _ = table(workload.network, workload.rows)
    image = workload.network.image
    if image is not None:
        x = np.ascontiguousarray(np.moveaxis(x.reshape(len(x), *image), -1, 1))
    model = model_of(workload.network)
    found = []
    for setting, session in sessions(model, threads):
        found.append(Case(f"{setting}run", repeated(plain(session, x))))
        found.append(Case(f"{setting}run_with_iobinding", bound(session, x)))
    return found


def model_of(net: Net) -> bytes:
    """The network as an ONNX file: Conv, Relu and MaxPool, then Gemm and an activation for each layer."""
    arrays, nodes, name = weights(net), [], "x"
    first = 2 * len(net.filters)
    shape: list[Any] = ["n", net.inputs]
    if net.image is not None:
        shape = ["n", net.image[2], *net.image[:2]]
        for index in range(0, first, 2):
            arrays[index] = np.ascontiguousarray(arrays[index].transpose(3, 2, 0, 1))
            weight, bias = f"p{index}", f"p{index + 1}"
            window: dict[str, Any] = {"pads": [1] * 4, "kernel_shape": [3, 3]}
            nodes.append(helper.make_node("Conv", [name, weight, bias], [f"c{index}"], **window))
            nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
            pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
            nodes.append(helper.make_node("MaxPool", [f"r{index}"], [f"m{index}"], **pool))
            name = f"m{index}"
        nodes.append(helper.make_node("Flatten", [name], ["flat"]))
        name = "flat"
        kernel = arrays[first].reshape(*net.left, net.filters[-1], -1)  # flattened with the channels first here
        arrays[first] = np.ascontiguousarray(kernel.transpose(2, 0, 1, 3).reshape(net.sizes[0], -1))
    initializers = [numpy_helper.from_array(array, f"p{index}") for index, array in enumerate(arrays)]
    for layer, activation in enumerate(net.activations):
        weight, bias = f"p{first + 2 * layer}", f"p{first + 2 * layer + 1}"
        nodes.append(helper.make_node("Gemm", [name, weight, bias], [f"z{layer}"]))
        name = "out" if layer == len(net.activations) - 1 else f"a{layer}"
        nodes.append(helper.make_node(OPERATORS[activation], [f"z{layer}"], [name]))
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", net.sizes[-1]])],
        initializers,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def sessions(model: bytes, threads: int) -> list[tuple[str, Any]]:
    found = []
    for spinning in ("1", "0") if threads > 1 else ("1",):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        found.append(("" if spinning == "1" else "no spinning, ", session))
    return found


def plain(session: Any, x: np.ndarray) -> Callable[[], Any]:
    return lambda: session.run(None, {"x": x})[0]


def bound(session: Any, x: np.ndarray, shape: Sequence[int] = ()) -> Callable[[int], Any]:
    """Inputs and outputs bound once to memory that stays: the least that a call can do."""
    binding = session.io_binding()
    given = ort.OrtValue.ortvalue_from_numpy(x)
    out = ort.OrtValue.ortvalue_from_shape_and_type(
        list(shape) or [len(x), session.get_outputs()[0].shape[1]], np.float32
    )
    binding.bind_ortvalue_input("x", given)
    binding.bind_ortvalue_output("out", out)

    def run(n: int) -> Any:
        for _ in range(n):
            session.run_with_iobinding(binding)
        return out.numpy()

    return run
