"""Compares this library with Keras, after ``load_keras`` by each way there is; writes tests/golden/keras.json.

    KERAS_BACKEND=jax python tests/peers/keras_weights.py

It needs Keras with one of its backends, and h5py. It ends with an error if outputs differ by more than 1e-4.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import keras_cases  # noqa: E402

import fastnn  # noqa: E402
from fastnn import applications  # noqa: E402

THERE = SimpleNamespace(**vars(keras.layers), Model=keras.Model)
HERE_WORDS = SimpleNamespace(**vars(fastnn.layers), Model=fastnn.Model)


def compare(label, ours, theirs, arrays):
    """Outputs on the same inputs."""
    rows = [array.astype("float32") for array in arrays]
    expected = np.asarray(keras.ops.convert_to_numpy(theirs(rows if len(rows) > 1 else rows[0])))
    found = run(ours, arrays)
    worst = abs(found - expected).max() / max(1e-3, abs(expected).max())
    print(f"{label:40} {worst:.2g}", flush=True)
    assert worst < 1e-4, label
    return expected


def run(model, arrays):
    """Outputs of a model of one or several inputs."""
    results = model.network.follow([a.astype(np.float32) for a in arrays], lambda call, x: call.layer(x))
    return results[0]


def files(theirs, home):
    """The model in all that ``load_keras`` takes."""
    yield "model", theirs
    yield "mapping", {weight.path: keras.ops.convert_to_numpy(weight) for weight in theirs.weights}
    theirs.save(home / "model.keras")
    yield ".keras", home / "model.keras"
    theirs.save_weights(home / "model.weights.h5")
    yield ".weights.h5", home / "model.weights.h5"
    theirs.save(home / "model.h5")
    yield ".h5", str(home / "model.h5")


def compare_case(name, build):
    """All ways; returns what the tests compare with."""
    theirs = build(THERE)
    for number, weight in enumerate(theirs.weights):
        weight.assign(keras_cases.value(name, number, weight.name, weight.shape))
    arrays = keras_cases.inputs(name, [tensor.shape for tensor in theirs.inputs])
    expected = None
    with tempfile.TemporaryDirectory() as home:
        for kind, source in files(theirs, Path(home)):
            ours = build(HERE_WORDS)
            applications.load_keras(ours, source)
            expected = compare(f"{name}, {kind}", ours, theirs, arrays)
    known = {"lenet": lambda: applications.LeNet5((24, 20, 1)), "unet": small_unet}
    if name in known:
        ours = known[name]()
        applications.load_keras(ours, theirs)
        compare(f"{name}, application", ours, theirs, arrays)
    return {
        "weights": [[weight.path, list(weight.shape)] for weight in theirs.weights],
        "outputs": [float(f"{value:.9g}") for value in expected.reshape(-1)[:: max(1, expected.size // 60)]],
    }


def small_unet():
    return applications.UNet((16, 24, 2), 3, base_filters=4, depth=2, batch_norm=True)


def compare_vgg(name):
    shape = (32, 32, 3)
    theirs = getattr(keras.applications, name)(weights=None, input_shape=shape, classes=10, classifier_activation=None)
    for weight in theirs.weights:
        scale = 2.0**0.5 if len(weight.shape) > 1 else 1.0
        noise = 0.1 * np.random.default_rng(1).standard_normal(weight.shape) * (len(weight.shape) == 1)
        weight.assign(keras.ops.convert_to_numpy(weight) * scale + noise)
    arrays = keras_cases.inputs(name, [(None, *shape)])
    with tempfile.TemporaryDirectory() as home:
        for kind, source in files(theirs, Path(home)):
            ours = getattr(applications, name)(shape, 10, classifier_activation=None)
            applications.load_keras(ours, source)
            compare(f"{name}, {kind}", ours, theirs, arrays)


def compare_nested():
    """Models within models, without names."""
    inner = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(3)])
    theirs = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5), inner, keras.layers.Dense(2)])
    arrays = keras_cases.inputs("nested", [(None, 6)])
    with tempfile.TemporaryDirectory() as home:
        for kind, source in files(theirs, Path(home)):
            if kind in (".weights.h5", "mapping"):  # these do not say the order, or not the models
                continue
            layers = [fastnn.layers.Dense(n, activation="tanh" if n == 4 else None) for n in (5, 4, 3, 2)]
            ours = fastnn.Sequential([fastnn.Input((6,)), *layers])
            ours.build()
            applications.load_keras(ours, source)
            compare(f"nested, {kind}", ours, theirs, arrays)


def main():
    """Compare, and write what the tests compare with."""
    found = {name: compare_case(name, build) for name, build in keras_cases.CASES.items()}
    lines = (f'"{name}": {json.dumps(case, separators=(",", ":"))}' for name, case in found.items())
    path = HERE.parent / "golden" / "keras.json"
    path.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
    compare_nested()
    compare_vgg("VGG16")
    compare_vgg("VGG19")


if __name__ == "__main__":
    main()
