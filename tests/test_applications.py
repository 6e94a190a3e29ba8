"""The networks of the literature: what they compute, how they learn, and that they load what PyTorch's do.

What PyTorch computes is in tests/golden/applications.json, written by tests/peers/applications.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from network_cases import CASES, HIDDEN, STEPS, data, direction, weight

import fastnn
from fastnn import Model, applications, backends
from fastnn.applications import alexnet, load_torch, vgg
from fastnn.layers import Concatenate, Dropout

GOLDEN = json.loads((Path(__file__).parent / "golden" / "applications.json").read_text(encoding="utf-8"))
#: Those that have every kind of part: for the slower backends.
ENOUGH = ("lenet5", "alexnet", "googlenet", "resnet18", "unet", "unet-norm", "unet-3d")
RUNS = [
    (name, backend)
    for backend in backends.NAMES
    if backends.load(backend).why_not() is None
    for name in (CASES if backend == "native" else ENOUGH)
]
#: PyTorch's names of weights.
CALLED = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    monkeypatch.setattr(alexnet, "HIDDEN", HIDDEN)
    monkeypatch.setattr(vgg, "HIDDEN", HIDDEN)
    yield
    fastnn.config.set_backend("auto")


def entries(name, value):
    return {entry: value(entry, tuple(shape)) for entry, shape in GOLDEN[name]["entries"].items()}


def state_of(name):
    golden = GOLDEN[name]
    return entries(name, lambda entry, shape: weight(golden["seed"], entry, shape, golden["shifted"]))


def build(name, **options):
    """The network with one output: the logits of all classifiers, where there are several."""
    case = CASES[name]
    if case.auxiliary:
        options["classifier_activation"] = None
    model = getattr(applications, case.name)(case.shape, case.classes, **{**case.options, **options})
    return Model(model.inputs, Concatenate()(model.outputs)) if case.auxiliary else model


def without_dropout(model):
    for layer in model.layers:
        if isinstance(layer, Dropout):
            layer.rate = 0.0
    return model


def loss_of(name):
    case = CASES[name]
    return "mse" if case.auxiliary else "binary_crossentropy" if case.classes == 1 else "categorical_crossentropy"


def values(model):
    return {w.name: w.value.astype(np.float64) for w in model.trainable_weights}


def depth_of(model):
    """The largest number of layers with weights one after the other."""
    depth = {}
    for call in model.network.calls:
        before = max((depth[id(tensor)] for tensor in call.inputs), default=0)
        depth |= {id(tensor): before + bool(call.layer.weights) for tensor in call.outputs}
    return max(depth.values())


def tolerance(model, magnified):
    """Of a gradient, in parts of its length: forward and back through all layers, each of which may be wrong by 16
    units of float32 (Winograd's algorithm has larger factors than a plain sum), times what normalization magnifies."""
    return 2 * depth_of(model) * 16 * 2.0**-24 * magnified


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_outputs_are_those_of_pytorch(name, backend):
    fastnn.config.set_backend(backend)
    model, golden = build(name, classifier_activation=None), GOLDEN[name]
    load_torch(model, state_of(name))
    found = model.predict(data(golden["seed"], name)[0], verbose=0)
    found = found.reshape(len(found), -1)
    found = found[:, :: max(1, found[0].size // 24)]
    assert abs(found - golden["outputs"]).max() <= 1e-4 * max(1.0, golden["largest"])


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_gradients_are_those_of_pytorch(name, backend):
    fastnn.config.set_backend(backend)
    model, golden = without_dropout(build(name)), GOLDEN[name]
    load_torch(model, entries(name, direction))
    directions = values(model)
    load_torch(model, state_of(name))
    before, rate = values(model), 2.0**12  # so large that rounding the new weights rounds the gradients as much
    model.compile(fastnn.optimizers.SGD(rate), loss_of(name))
    model.train_on_batch(*data(golden["seed"], name))
    limit = tolerance(model, golden["magnified"])
    for key, after in values(model).items():
        layer, _, kind = key.rpartition(".")
        length, along = golden["gradients"][f"{layer}.{CALLED[kind]}"]
        gradient = (before[key] - after) / rate
        assert np.sqrt(np.sum(gradient**2)) == pytest.approx(length, rel=limit), key
        assert np.sum(gradient * directions[key]) == pytest.approx(along, abs=limit * length), key


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_ten_steps_of_training_follow_pytorch(name, backend):
    fastnn.config.set_backend(backend)
    model, golden = without_dropout(build(name)), GOLDEN[name]
    load_torch(model, state_of(name))
    model.compile(fastnn.optimizers.SGD(CASES[name].rate), loss_of(name))
    x, y = data(golden["seed"], name)
    losses = model.fit(x, y, batch_size=len(x), epochs=STEPS, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(losses, golden["losses"], rtol=1e-3, atol=1e-3)
