"""fastnn itself: what a user calls, `fit`, `predict`, `model(x)`, and one product as the engine runs it."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from typing import Any

import fastnn
from fastnn import backends
from fastnn.benchmarking.peers import Case, repeated
from fastnn.benchmarking.workloads import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Net, Product, Workload, table, weights

OPS = {"forward": "matmul", "dx": "matmul_nt", "dw": "matmul_tn"}


def cases(workload: Workload, threads: int, thorough: bool) -> list[Case]:
    fastnn.set_num_threads(threads)
    if workload.kind == "train":
        return [Case("fit", training(workload), workload.steps)]
    if workload.kind == "script":
        return [Case("fit, progress bar", script(workload))]
    if workload.kind == "predict":
        return predictions(workload)
    assert workload.product is not None
    return [product(workload.product)]


def model_of(net: Net, **settings: Any) -> Any:
    dense = fastnn.layers.Dense
    layers = [dense(m, activation=a) for m, a in zip(net.sizes[1:], net.activations, strict=True)]
    model = fastnn.Sequential([fastnn.Input(shape=(net.sizes[0],)), *layers])
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
    (out,), once = backends.single(fastnn.config.backend(), OPS[work.form], work.operands())

    def run(n: int) -> Any:
        repeated(once)(n)
        return out

    return Case(fastnn.config.backend(), run)


def peak_gflops(seconds: float) -> float | None:
    """Multiply-add peak of all threads in use, None if the backend cannot tell."""
    measure = getattr(backends.load(fastnn.config.backend()), "peak_gflops", None)
    return None if measure is None else float(measure(seconds=seconds))
