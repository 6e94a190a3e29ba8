"""Who is measured. One module a contestant; each offers `cases(workload, threads, thorough) -> list[Case]`.

A contestant may offer several cases (settings) for one workload: the fastest of them, measured on the spot, counts.
Which kinds of work a contestant does is written in its row of the list below.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn.benchmarking.images import Operation
from fastnn.benchmarking.networks import Application
from fastnn.benchmarking.workloads import Kind, Workload, forward, mean_loss, table, weights
from fastnn.ops import OPS


@dataclass(frozen=True)
class Peer:
    """A contestant.

    Args:
        key: its module here and its name at the command line.
        title: its name in tables and charts.
        package: what it imports.
        extra: the extra of fastnn's package that brings it.
        kinds: the kinds of work it does.
        images: whether it does them with networks on images.
        literature: the kinds that it does with the networks of the literature.
    """

    key: str
    title: str
    package: str
    extra: str
    kinds: tuple[Kind, ...]
    images: bool = False
    literature: tuple[Kind, ...] = ()

    def does(self, workload: Workload) -> bool:
        """Whether it takes part in this work."""
        if workload.application is not None:
            return workload.kind in self.literature
        return workload.kind in self.kinds and (self.images or workload.net is None or workload.net.image is None)

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    @property
    def version(self) -> str | None:
        """Version of the package, None if it is not installed."""
        if not self.installed:
            return None
        for name in importlib.metadata.packages_distributions().get(self.package, [self.package]):
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return str(getattr(importlib.import_module(self.package), "__version__", "unknown"))


FASTNN = Peer(
    "fastnn",
    "fastnn",
    "fastnn",
    "",
    ("train", "script", "predict", "matmul", "operation", "memory", "import"),
    True,
    ("train", "predict", "memory", "first"),
)
PEERS = (
    Peer("jax", "JAX", "jax", "bench-jax", ("train", "predict")),
    Peer("onnxruntime", "ONNX Runtime", "onnxruntime", "bench-onnxruntime", ("predict",), True, ("predict",)),
    Peer("openvino", "OpenVINO", "openvino", "bench-openvino", (), False, ("predict",)),
    Peer(
        "torch",
        "PyTorch",
        "torch",
        "bench-torch",
        ("train", "script", "predict", "matmul", "operation", "memory"),
        True,
        ("train", "predict", "memory", "first"),
    ),
    Peer("sklearn", "scikit-learn", "sklearn", "bench-sklearn", ("train", "script", "predict")),
    Peer("keras", "Keras/TensorFlow", "tensorflow", "bench-tensorflow", ("train", "predict"), True),
    Peer("numpy", "NumPy", "numpy", "", ("predict", "matmul", "import")),
)
CONTESTANTS = {peer.key: peer for peer in (FASTNN, *PEERS)}


@dataclass(frozen=True)
class Case:
    """One way in which a contestant does a workload.

    Args:
        setting: what is special about it, a few words.
        run: `run(n)` does the work n times and returns the last result: the mean loss of the last epoch, or the output.
        units: how many of the workload's units (steps, calls) one repetition holds.
        least: repetitions below which a measurement would be of the start-up only.
    """

    setting: str
    run: Callable[[int], Any]
    units: int = 1
    least: int = 1


def repeated(call: Callable[[], Any]) -> Callable[[int], Any]:
    """`run(n)` for work that is a plain call."""

    def run(n: int) -> Any:
        result = None
        for _ in range(n):
            result = call()
        return result

    return run


def cases(key: str, workload: Workload, threads: int, thorough: bool) -> list[Case]:
    """The cases of contestant `key` for work of its kinds. `thorough` adds settings that take long to prepare."""
    module = importlib.import_module(f"{__name__}.{key}")
    found: list[Case] = module.cases(workload, threads, thorough)
    return found


def reference(work: Operation) -> list[Any]:
    """Output, and of a step the gradients of x and of the weights, by the declarations of fastnn's operations."""
    arrays = work.arrays()
    g = arrays.pop("g")
    inputs = list(arrays.values())
    if work.op == "batch_norm":
        inputs.insert(1, OPS["moments"].reference(inputs[0]))
    y = OPS[work.op].reference(*inputs, **work.attrs)
    if not work.gradients:
        return [y]
    rule = OPS[work.op].gradient
    assert rule is not None
    parts = rule(g, y, *inputs, **OPS[work.op].complete(work.attrs))
    return [y, *(part for part in (parts[1:] if work.first else parts) if part is not None)]


def check(workload: Workload, result: Any) -> None:
    """Raise ValueError if a contestant's result shows that it does other work than the rest."""
    if workload.application is not None:
        check_application(workload, workload.application, result)
    elif workload.kind == "predict":
        x, _ = table(workload.network, workload.rows)
        expected = forward(workload.network, weights(workload.network), x)
        got = np.asarray(result, np.float32)
        if got.ndim == 2 and got.shape[1] == 2 and expected.shape[1] == 1:
            got = got[:, 1:]  # scikit-learn gives both classes
        if got.shape != expected.shape or not np.allclose(got, expected, atol=1e-4):
            raise ValueError(f"{workload.key}: the predictions differ from the reference.")
    elif workload.kind in ("train", "script", "memory"):
        x, y = table(workload.network, workload.rows)
        start = mean_loss(workload.network, weights(workload.network), x, y)
        if not math.isfinite(result) or not 0 < float(result) < 1.5 * start:
            raise ValueError(f"{workload.key}: the loss {result!r} is not that of training from {start:.3f} on.")
    elif workload.operation is not None:
        for number, (got, wanted) in enumerate(zip(result, reference(workload.operation), strict=True)):
            if np.shape(got) != wanted.shape or not abs(got - wanted).max() <= 1e-4 * abs(wanted).max():  # NaN too
                raise ValueError(f"{workload.key}: result {number} differs from the reference.")
    elif workload.product is not None:
        a, b = workload.product.operands()
        expected = np.matmul(*workload.product.views(a, b))
        terms = a.size * b.size // expected.size
        if not np.allclose(result, expected, atol=1e-5 * terms**0.5 * 4):
            raise ValueError(f"{workload.key}: the product differs from the reference.")


def check_application(workload: Workload, work: Application, result: Any) -> None:
    """Predictions must be fastnn's, which its tests compare with PyTorch's; a loss must be one of training that begins
    where fastnn's begins.
    """
    own = importlib.import_module(f"{__name__}.fastnn")
    x, y = work.data(workload.rows)
    if workload.kind == "predict":
        expected = own.application_of(work).predict(x)
        if np.shape(result) != expected.shape or not np.allclose(result, expected, atol=1e-4 * abs(expected).max()):
            raise ValueError(f"{workload.key}: the predictions differ from the reference.")
        return
    start = own.application_of(work).train_on_batch(x, y)
    if not math.isfinite(result) or not 0 <= float(result) < 3 * start:
        raise ValueError(f"{workload.key}: the loss {result!r} is not that of training from {start:.3f} on.")


def peak_gflops(seconds: float) -> float | None:
    """Measured multiply-add peak of fastnn's engine with its current threads, None if it cannot tell."""
    module = importlib.import_module(f"{__name__}.fastnn")
    peak: float | None = module.peak_gflops(seconds)
    return peak
