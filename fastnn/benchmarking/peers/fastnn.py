"""fastnn itself: what a user calls, `fit`, `predict`, `model(x)`, and one product as the engine runs it."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn
from fastnn import backends, config
from fastnn.applications.weights import load_torch, torch_shapes
from fastnn.autodiff import pullback
from fastnn.benchmarking.images import Operation
from fastnn.benchmarking.networks import Application
from fastnn.benchmarking.peers import Case, repeated
from fastnn.benchmarking.workloads import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Net, Product, Workload, table, weights
from fastnn.graph import Place, Tensor
from fastnn.ops import OPS
from fastnn.plan import Plan, zeros

PRODUCTS = {"forward": "matmul", "dx": "matmul_nt", "dw": "matmul_tn"}


def cases(workload: Workload, threads: int, thorough: bool) -> list[Case]:
    fastnn.set_num_threads(threads)
    if workload.operation is not None:
        return [operation(workload.operation)]
    if workload.application is not None:
        return [application(workload, workload.application)]
    if workload.kind in ("train", "memory"):
        return [Case("fit", training(workload), workload.steps)]
    if workload.kind == "script":
        return [Case("fit, progress bar", script(workload))]
    if workload.kind == "predict":
        return predictions(workload)
    assert workload.product is not None
    return [product(workload.product)]


def model_of(net: Net, **settings: Any) -> Any:
    dense = fastnn.layers.Dense
    layers: list[Any] = [dense(m, activation=a) for m, a in zip(net.sizes[1:], net.activations, strict=True)]
    if net.image is not None:
        before: list[Any] = [fastnn.layers.Reshape(net.image)]
        for f in net.filters:
            before += [fastnn.layers.Conv2D(f, 3, padding="same", activation="relu"), fastnn.layers.MaxPooling2D()]
        layers = [*before, fastnn.layers.Flatten(), *layers]
    model = fastnn.Sequential([fastnn.Input(shape=(net.inputs,)), *layers])
    model.set_weights(weights(net))
    adam = fastnn.optimizers.Adam(LEARNING_RATE, beta_1=BETA_1, beta_2=BETA_2, epsilon=EPSILON)
    loss = "binary_crossentropy" if net.last == "sigmoid" else "sparse_categorical_crossentropy"
    model.compile(optimizer=adam, loss=loss, **settings)
    return model


def training(workload: Workload) -> Callable[[int], float]:
    x, y = table(workload.network, workload.rows)
    model = model_of(workload.network)

    def run(epochs: int) -> float:
        return float(model.fit(x, y, batch_size=workload.batch, epochs=epochs, verbose=0).history["loss"][-1])

    return run


def application_of(work: Application, **settings: Any) -> Any:
    """A network of the literature with the weights that all contestants get."""
    activation = {} if work.classes == 1 else {"classifier_activation": "softmax"}
    made = getattr(fastnn.applications, work.name)
    model = made(work.shape, work.classes, **work.options, **activation)
    load_torch(model, {name: work.entry(name, shape) for name, shape in torch_shapes(model).items()})
    loss = "binary_crossentropy" if work.classes == 1 else "sparse_categorical_crossentropy"
    adam = fastnn.optimizers.Adam(LEARNING_RATE, beta_1=BETA_1, beta_2=BETA_2, epsilon=EPSILON)
    model.compile(optimizer=adam, loss=loss)
    return model


def application(workload: Workload, work: Application) -> Case:
    x, y = work.data(workload.rows)
    if workload.kind == "first":
        return Case("train_on_batch", repeated(lambda: first_step(work, x, y)))
    model = application_of(work)
    if workload.kind == "predict":
        return Case("predict", repeated(lambda: model.predict(x)))

    def run(epochs: int) -> float:
        return float(model.fit(x, y, batch_size=workload.batch, epochs=epochs, verbose=0).history["loss"][-1])

    return Case("fit", run)


def first_step(work: Application, x: np.ndarray, y: np.ndarray) -> float:
    """From nothing to the end of a step, as a script gets there: with weights drawn by the library."""
    model = getattr(fastnn.applications, work.name)(work.shape, work.classes, **work.options)
    model.compile("adam", "binary_crossentropy" if work.classes == 1 else "sparse_categorical_crossentropy")
    return float(model.train_on_batch(x, y))


class Terminal(io.TextIOBase):
    """A terminal that nobody looks at: the progress bar draws itself as on a real one."""

    def __init__(self) -> None:
        self._sink = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed with the process

    def isatty(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return self._sink.write(text)

    def flush(self) -> None:
        self._sink.flush()


def script(workload: Workload) -> Callable[[int], float]:
    x, y = table(workload.network, workload.rows)
    terminal = Terminal()

    def fit() -> float:
        model = model_of(workload.network, metrics=["accuracy"])
        with contextlib.redirect_stdout(terminal):
            history = model.fit(
                x, y, batch_size=workload.batch, epochs=workload.epochs, validation_split=0.2, verbose=1
            )
        return float(history.history["loss"][-1])

    return repeated(fit)


def predictions(workload: Workload) -> list[Case]:
    x, _ = table(workload.network, workload.rows)
    model = model_of(workload.network)
    return [
        Case("model(x)", repeated(lambda: model(x))),
        Case("predict_on_batch", repeated(lambda: model.predict_on_batch(x))),
        Case("predict", repeated(lambda: model.predict(x, verbose=0))),
    ]


def product(work: Product) -> Case:
    (out,), once = backends.single(fastnn.config.backend(), PRODUCTS[work.form], work.operands())

    def run(n: int) -> Any:
        repeated(once)(n)
        return out

    return Case(fastnn.config.backend(), run)


def operation(work: Operation) -> Case:
    """The operation as a Plan makes it: algorithm chosen, weights transformed anew each time."""
    arrays = work.arrays()
    leaves = {name: Tensor(array.shape, place=Place(name)) for name, array in arrays.items()}
    g, x = leaves["g"], leaves["x"]
    inputs = [leaf for name, leaf in leaves.items() if name != "g"]
    if work.op == "batch_norm":
        inputs.insert(1, OPS["moments"](x))
    y = OPS[work.op](*inputs, **work.attrs)
    wrt = [leaf for leaf in inputs if leaf.node is None and not (work.first and leaf is x)]
    roots = [y, *(pullback(y, g, wrt) if work.gradients else [])]
    buffers = {name: aligned_copy(array) for name, array in arrays.items()}
    for number, root in enumerate(roots):
        root.place = Place(f"result{number}")
        buffers[f"result{number}"] = zeros(math.prod(root.shape), "float32").reshape(root.shape)
    program = config.active_backend().Program(Plan(roots, batch=work.n))
    results = [buffers[f"result{number}"] for number in range(len(roots))]

    def run(n: int) -> Any:
        for _ in range(n):
            program.run(buffers, 0, 1, work.n, work.n)
        return results

    return Case(fastnn.config.backend(), run)


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """A copy that starts on a cache line, like the arrays of a model."""
    copy = zeros(array.size, "float32").reshape(array.shape)
    copy[...] = array
    return copy


def peak_gflops(seconds: float) -> float | None:
    """Multiply-add peak of all threads in use, None if the backend cannot tell."""
    measure = getattr(backends.load(fastnn.config.backend()), "peak_gflops", None)
    return None if measure is None else float(measure(seconds=seconds))
