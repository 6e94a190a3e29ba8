"""The networks of the literature: the same bits for any number of threads, whoever shares the batch, and resumed."""

from __future__ import annotations

import numpy as np
import pytest
from network_cases import HIDDEN

import fastnn
from fastnn import applications, backends
from fastnn.applications import alexnet, vgg

NETWORKS = {
    "lenet5": lambda: applications.LeNet5((28, 32, 1), 3),
    "alexnet": lambda: applications.AlexNet((95, 71, 3), 3),
    "vgg11": lambda: applications.VGG11((32, 64, 3), 3),
    "googlenet": lambda: applications.GoogLeNet((33, 48, 1), 3, auxiliary=True),
    "resnet18": lambda: applications.ResNet18((40, 33, 3), 3),
    "unet": lambda: applications.UNet((32, 48, 1), 3, base_filters=8),
    "unet-norm": lambda: applications.UNet((24, 16, 2), 1, base_filters=8, depth=3, batch_norm=True),
    "unet-3d": lambda: applications.UNet((8, 12, 16, 1), 1, base_filters=4, depth=2),
}
BACKENDS = [name for name in ("native", "numba") if backends.load(name).why_not() is None]
ROWS = 5


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    monkeypatch.setattr(alexnet, "HIDDEN", HIDDEN)
    monkeypatch.setattr(vgg, "HIDDEN", HIDDEN)
    threads = fastnn.config.get_num_threads()
    yield
    fastnn.config.set_backend("auto")
    fastnn.set_num_threads(threads)


def made(name):
    fastnn.set_seed(7)
    model = NETWORKS[name]()
    first = model.output_shape[0] if isinstance(model.output_shape, list) else model.output_shape
    loss = "binary_crossentropy" if first[-1] == 1 else "sparse_categorical_crossentropy"
    model.compile(fastnn.optimizers.Adam(1e-3), loss)
    return model


def data(model):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((ROWS, *model.input_shape[1:]), dtype=np.float32)
    several = isinstance(model.output_shape, list)
    shape = model.output_shape[0] if several else model.output_shape
    y = rng.integers(0, max(2, shape[-1]), (ROWS, *shape[1:-1]))
    return x, [y] * len(model.output_shape) if several else y


def outputs(model, x):
    found = model.predict(x)
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_and_predictions_do_not_depend_on_threads(name, backend):
    fastnn.config.set_backend(backend)
    results = []
    for threads in (1, 2, 3):
        fastnn.set_num_threads(threads)
        model = made(name)
        x, y = data(model)
        history = model.fit(x, y, batch_size=2, epochs=1, verbose=0).history
        results.append((history, model.get_weights() + outputs(model, x)))
    for history, arrays in results[1:]:
        assert history == results[0][0]
        for a, b in zip(arrays, results[0][1], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_is_predicted_the_same_alone_and_in_a_batch(name, backend):
    fastnn.config.set_backend(backend)
    model = made(name)
    x, _ = data(model)
    together = outputs(model, x)
    for row in (0, ROWS - 1):
        for a, b in zip(outputs(model, x[row : row + 1]), together, strict=True):
            np.testing.assert_array_equal(a[0], b[row])


@pytest.mark.parametrize("name", ["googlenet", "unet-norm"])
def test_training_goes_on_from_a_file_as_if_it_had_not_stopped(name, tmp_path):
    x, y = data(made(name))
    model = made(name)
    model.fit(x, y, batch_size=2, epochs=3, verbose=0)
    other = made(name)
    other.fit(x, y, batch_size=2, epochs=1, verbose=0)
    other.save(tmp_path / "model.fnn")
    loaded = fastnn.load_model(tmp_path / "model.fnn")
    loaded.fit(x, y, batch_size=2, epochs=2, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
