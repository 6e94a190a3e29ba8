"""Keras on TensorFlow: `fit` as scripts call it, and with its settings for speed; prediction by its three calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from fastnn.benchmarking.peers import Case, repeated
from fastnn.benchmarking.workloads import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Net, Workload, table, weights

LEAST_STEPS = 100  # of one fit: its start-up is no part of a step


def cases(workload: Workload, threads: int, thorough: bool) -> list[Case]:
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:  # only possible before the first operation
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    if workload.kind == "predict":
        return predictions(workload)
    steps = workload.steps
    settings: dict[str, dict[str, Any]] = {
        "defaults": {},
        f"steps_per_execution={steps}": {"steps_per_execution": steps},
    }
    if thorough:
        settings["jit_compile"] = {"jit_compile": True}
        settings[f"jit_compile, steps_per_execution={steps}"] = {"jit_compile": True, "steps_per_execution": steps}
    return [
        Case(f"fit, {name}", training(workload, given), steps, least=-(-LEAST_STEPS // steps))
        for name, given in settings.items()
    ]


def model_of(net: Net) -> Any:
    layers = [keras.layers.Dense(m, activation=a) for m, a in zip(net.sizes[1:], net.activations, strict=True)]
    if net.image is not None:
        before = [keras.layers.Reshape(net.image)]
        for f in net.filters:
            before += [keras.layers.Conv2D(f, 3, padding="same", activation="relu"), keras.layers.MaxPooling2D()]
        layers = [*before, keras.layers.Flatten(), *layers]
    model = keras.Sequential([keras.Input(shape=(net.inputs,)), *layers])
    model.set_weights(weights(net))
    return model


def training(workload: Workload, settings: dict[str, Any]) -> Callable[[int], float]:
    net = workload.network
    x, y = table(net, workload.rows)
    model = model_of(net)
    loss = "binary_crossentropy" if net.last == "sigmoid" else "sparse_categorical_crossentropy"
    adam = keras.optimizers.Adam(LEARNING_RATE, beta_1=BETA_1, beta_2=BETA_2, epsilon=EPSILON)
    model.compile(optimizer=adam, loss=loss, **settings)

    def run(epochs: int) -> float:
        return float(model.fit(x, y, batch_size=workload.batch, epochs=epochs, verbose=0).history["loss"][-1])

    return run


def predictions(workload: Workload) -> list[Case]:
    x, _ = table(workload.network, workload.rows)
    model = model_of(workload.network)
    given = tf.constant(x)
    function = tf.function(model, input_signature=[tf.TensorSpec(x.shape, tf.float32)])
    fused = tf.function(model, jit_compile=True, input_signature=[tf.TensorSpec(x.shape, tf.float32)])
    found = [
        Case("model(x)", repeated(lambda: np.asarray(model(given)))),
        Case("predict_on_batch", repeated(lambda: model.predict_on_batch(x))),
        Case("tf.function", repeated(lambda: function(given).numpy())),
        Case("tf.function, jit_compile", repeated(lambda: fused(given).numpy())),
    ]
    return (
        found
        if workload.rows < 10_000
        else [*found, Case("predict", repeated(lambda: model.predict(x, batch_size=8192, verbose=0)))]
    )
