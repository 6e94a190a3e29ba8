"""Signals, images and volumes through fit, evaluate and predict."""

from __future__ import annotations

import numpy as np
import pytest
from small_nets import build, data, fit, same_bits

import fastnn
from fastnn.layers import BatchNormalization, Conv1D, Conv2D, Conv3D, Dense, Flatten
from fastnn.steps import TrainStep

KINDS = {"signals": (Conv1D, (30, 2)), "images": (Conv2D, (9, 8, 1)), "volumes": (Conv3D, (5, 6, 7, 2))}


def net(kind):
    convolution, shape = KINDS[kind]
    fastnn.set_seed(4)
    first = convolution(16, 3, padding="same", activation="relu", input_shape=shape)
    model = fastnn.Sequential([first, convolution(16, 3), BatchNormalization(), Flatten(), Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def bytes_of(kind, rows=40):
    rng = np.random.default_rng(6)
    x = rng.integers(0, 256, (rows, *KINDS[kind][1]), dtype=np.uint8)
    return x, np.arange(rows) % 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_trained_tested_and_asked(kind, backend):
    x, y = bytes_of(kind)
    model = net(kind)
    history = fit(model, x / 255, y, epochs=4, batch_size=16, validation_split=0.25).history
    assert history["loss"][-1] < history["loss"][0]
    p = model.predict(x / 255)
    assert p.shape == (40, 3)
    loss, accuracy = model.evaluate(x / 255, y)
    assert loss == pytest.approx(-np.log(p[np.arange(40), y]).mean(), rel=1e-4)
    assert accuracy == pytest.approx((p.argmax(axis=1) == y).mean())
    assert model.predict(x[:1] / 255).shape == model(x[:1]).shape == (1, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_and_type_gives_the_same(kind):
    x, y = bytes_of(kind)
    clean = x.astype(np.float32)
    trained = net(kind)
    fit(trained, clean, y, epochs=2)
    wanted = trained.predict(clean)
    readonly = clean.copy()
    readonly.flags.writeable = False
    variants = {
        "bytes": x,
        "doubles": clean.astype(np.float64),
        "columns first": np.asfortranarray(clean),
        "every second": np.repeat(clean, 2, axis=0)[::2],
        "backwards": clean[::-1].copy()[::-1],
        "byte-swapped": clean.astype(">f4"),
        "read-only": readonly,
        "nested lists": clean.tolist(),
    }
    for name, given in variants.items():
        model = net(kind)
        fit(model, given, y, epochs=2)
        assert same_bits(model, trained), name
        np.testing.assert_array_equal(model.predict(given), wanted, err_msg=name)
        np.testing.assert_array_equal(np.asarray(model(given)), wanted, err_msg=name)
        assert model.evaluate(given, y) == trained.evaluate(clean, y), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_the_others(kind):
    x, _ = bytes_of(kind)
    model = net(kind)
    p = model.predict(x)
    for start, stop in ((0, 1), (7, 8), (39, 40), (3, 20)):
        np.testing.assert_array_equal(model.predict(x[start:stop]), p[start:stop])
        np.testing.assert_array_equal(model(x[start:stop].astype(np.float32)), p[start:stop])


def test_an_axis_of_one_channel_may_be_left_out():
    x, y = bytes_of("images")
    model, other = net("images"), net("images")
    fit(model, x[..., 0], y)
    fit(other, x, y)
    assert same_bits(model, other)
    np.testing.assert_array_equal(model.predict(x[..., 0]), other.predict(x))
    with pytest.raises(ValueError, match=r"predict: x must have shape \(N, 9, 8, 1\). Received: shape \(40, 9\)"):
        model.predict(x[:, :, 0, 0])
    with pytest.raises(ValueError, match=r"x must have shape \(N, 30, 2\). Received: shape \(40, 30\)"):
        net("signals").predict(np.ones((40, 30)))


@pytest.mark.parametrize("metrics", [["accuracy"], ["accuracy", "auc"]])
def test_a_split_by_the_model_is_the_split_given(metrics):
    x, y = data()
    model, other = (build(metrics=metrics) for _ in range(2))
    history = fit(model, x, y, epochs=3, batch_size=16, validation_split=0.3, sample_weight=np.linspace(0.5, 2, 90))
    order = np.random.default_rng([other.seed, 0]).permutation(90)
    here, there = order[:63], order[63:]
    weights = np.linspace(0.5, 2, 90)
    wanted = fit(
        other,
        x[here],
        y[here],
        epochs=3,
        batch_size=16,
        validation_data=(x[there], y[there], weights[there]),
        sample_weight=weights[here],
    )
    assert same_bits(model, other)
    assert history.history == wanted.history


def test_rows_to_train_on_are_not_copied(monkeypatch):
    x, y = bytes_of("images")
    x = x.astype(np.float32)
    seen = []
    buffers = TrainStep.buffers

    def record(self, arrays, *rest):
        seen.append(arrays["x"])
        return buffers(self, arrays, *rest)

    monkeypatch.setattr(TrainStep, "buffers", record)
    fit(net("images"), x, y, validation_split=0.25)
    fit(net("images"), x, y)
    assert all(np.shares_memory(x, used) for used in seen)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_named(value):
    x, y = bytes_of("images")
    x = x.astype(np.float64)
    x[3, 2, 1, 0] = value
    for call in (lambda: net("images").fit(x, y), lambda: net("images").predict(x)):
        with pytest.raises(ValueError, match=r"x must be finite in float32. Received: x\[3, 2, 1, 0\] = "):
            call()
