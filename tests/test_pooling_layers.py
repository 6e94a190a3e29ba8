"""Pooling layers: against loops that share no code with them, by hand, trained, saved, and misused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pooling_loops import drawn, error, pooled, same
from test_autodiff import assert_gradients_right

import fastnn
from fastnn import backends, layers
from fastnn.layers import (
    LAYERS,
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    Dense,
    Flatten,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    GlobalMaxPooling3D,
    Input,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
)

MAX, AVERAGE = (MaxPooling1D, MaxPooling2D, MaxPooling3D), (AveragePooling1D, AveragePooling2D, AveragePooling3D)
GLOBAL_MAX = (GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D)
GLOBAL_AVERAGE = (GlobalAveragePooling1D, GlobalAveragePooling2D, GlobalAveragePooling3D)
WINDOWED, GLOBAL = (*MAX, *AVERAGE), (*GLOBAL_MAX, *GLOBAL_AVERAGE)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_random_layers_compute_what_loops_compute(rank, average, backend):
    rng = np.random.default_rng(rank)
    for _ in range(25):
        x, kernel, strides, padding = drawn(rng, rank)
        layer = (AVERAGE if average else MAX)[rank - 1](kernel, strides, padding)
        with np.errstate(invalid="ignore"):
            y, _ = pooled(x.astype(float), kernel, strides, padding, average)
            scale, _ = pooled(abs(x.astype(float)), kernel, strides, padding, average)
        tolerance = error(kernel, scale) if average else 0.0
        model = fastnn.Sequential([Input(x.shape[1:]), layer])
        with np.errstate(invalid="ignore"):
            results = [layer(x)]
        if np.isfinite(x).all():
            results.append(model.predict(x, verbose=0))
        for result in results:
            assert result.dtype == np.float32
            assert result.shape == y.shape == (2, *model.output_shape[1:])
            assert same(result, y, tolerance), (x.shape, layer)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global_layers_compute_what_loops_compute(rank, backend):
    rng = np.random.default_rng(rank)
    for channels in (1, 3, 8, 12, 17, 70):
        x = rng.standard_normal((3, *(7, 3, 2)[:rank], channels)).astype(np.float32) - np.float32(5.0)
        sizes = x.shape[1:-1]
        for kinds, average in ((GLOBAL_MAX, False), (GLOBAL_AVERAGE, True)):
            y, _ = pooled(x.astype(float), sizes, (1,) * rank, "valid", average)
            scale = error(sizes, pooled(abs(x.astype(float)), sizes, (1,) * rank, "valid", True)[0])
            for keepdims in (False, True):
                layer = kinds[rank - 1](keepdims=keepdims)
                wanted = y if keepdims else y.reshape(3, channels)
                model = fastnn.Sequential([Input(x.shape[1:]), layer])
                for result in (layer(x), model.predict(x, verbose=0)):
                    assert result.shape == wanted.shape
                    assert same(result, wanted, scale.reshape(wanted.shape) if average else 0.0)


# By hand


def test_windows_by_hand():
    #  1 2 3
    #  4 5 6
    #  7 8 9
    nine = np.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    for layer, wanted in (
        (MaxPooling2D(), [[5]]),
        (MaxPooling2D(2, 1), [[5, 6], [8, 9]]),
        (MaxPooling2D(padding="same"), [[5, 6], [8, 9]]),
        (MaxPooling2D((3, 2), (1, 2), "SAME"), [[5, 6], [8, 9], [8, 9]]),
        (MaxPooling2D(2, 2, ((1, 0), (1, 0))), [[1, 3], [7, 9]]),
        (MaxPooling2D(1, 2), [[1, 3], [7, 9]]),
        (AveragePooling2D(), [[3]]),
        (AveragePooling2D(padding="same"), [[3, 4.5], [7.5, 9]]),
        (AveragePooling2D(2, 2, ((1, 0), (1, 0))), [[1, 2.5], [5.5, 7]]),
        (AveragePooling2D((3, 1)), [[4, 5, 6]]),
    ):
        np.testing.assert_array_equal(layer(nine)[0, :, :, 0], wanted)
    signal = np.array([4.0, 1.0, 8.0, 3.0, 2.0]).reshape(1, 5, 1)
    np.testing.assert_array_equal(MaxPooling1D()(signal)[0, :, 0], [4, 8])
    np.testing.assert_array_equal(MaxPooling1D(3, 1)(signal)[0, :, 0], [8, 8, 8])
    np.testing.assert_array_equal(AveragePooling1D(2, padding="same")(signal)[0, :, 0], [2.5, 5.5, 2])
    volume = np.arange(8.0).reshape(1, 2, 2, 2, 1)
    np.testing.assert_array_equal(MaxPooling3D((1, 2, 2))(volume).reshape(-1), [3, 7])
    np.testing.assert_array_equal(AveragePooling3D(2)(volume).reshape(-1), [3.5])


def test_the_short_names_are_the_same_layers():
    for rank in (1, 2, 3):
        assert getattr(layers, f"MaxPool{rank}D") is MAX[rank - 1]
        assert getattr(layers, f"AvgPool{rank}D") is AVERAGE[rank - 1]
        assert getattr(layers, f"GlobalMaxPool{rank}D") is GLOBAL_MAX[rank - 1]
        assert getattr(layers, f"GlobalAvgPool{rank}D") is GLOBAL_AVERAGE[rank - 1]


# In models

NETS = {
    "signals": ((12, 3), [MaxPooling1D(3, 2, "same"), AveragePooling1D(2, 1), GlobalMaxPooling1D()]),
    "images": ((7, 6, 2), [AveragePooling2D(2, 2, ((1, 0), (0, 1))), MaxPooling2D(2, 1), GlobalAveragePooling2D()]),
    "volumes": ((5, 4, 6, 2), [MaxPooling3D((2, 1, 3), 2), AveragePooling3D(2, 1, "same"), GlobalMaxPooling3D(True)]),
}


@pytest.fixture
def _double():
    fastnn.config.set_backend("numpy")
    fastnn.config.set_floatx("float64")
    yield
    fastnn.config.set_floatx("float32")
    fastnn.config.set_backend("auto")


def net(name):
    shape, pooling = NETS[name]
    fastnn.set_seed(3)
    fresh = [type(layer).from_config(layer.get_config()) for layer in pooling]
    return shape, fastnn.Sequential([Input(shape), Dense(4, "tanh"), *fresh, Flatten(), Dense(2)])


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("name", NETS)
def test_gradients_of_models(name):
    shape, model = net(name)
    rng = np.random.default_rng(2)
    assert_gradients_right(model, "mse", rng.standard_normal((4, *shape)), rng.standard_normal((4, 2)))


@pytest.mark.parametrize("name", NETS)
def test_training_is_the_same_on_every_backend(name):
    results = {}
    for backend in [name for name in backends.NAMES if backends.load(name).why_not() is None]:
        fastnn.config.set_backend(backend)
        shape, model = net(name)
        rng = np.random.default_rng(4)
        model.compile("sgd", "mse")
        model.fit(rng.standard_normal((30, *shape)), rng.standard_normal((30, 2)), epochs=3, verbose=0, batch_size=8)
        results[backend] = model.get_weights()
    fastnn.config.set_backend("auto")
    for weights in results.values():
        for a, b in zip(weights, results["numpy"], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [*WINDOWED, *GLOBAL])
def test_a_configuration_and_a_model_file_make_the_same_layer_again(kind, tmp_path):
    assert LAYERS[kind.__name__] is kind is getattr(layers, kind.__name__)
    options = [{}, {"keepdims": True}]
    if kind in WINDOWED:
        options = [{}, {"pool_size": [3] * kind.rank, "strides": np.int64(1), "padding": ((1, 2),) * kind.rank}]
    for number, given in enumerate(options):
        layer = kind(**given, name="pool")
        config = layer.get_config()
        again = kind.from_config(json.loads(json.dumps(config)))
        assert again.get_config() == config
        shape = (*(6,) * kind.rank, 2)
        model = fastnn.Sequential([Input(shape), again, Flatten(), Dense(1)])
        x = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
        np.testing.assert_array_equal(layer(x), again(x))
        y = model.predict(x, verbose=0)
        model.save(tmp_path / f"model{number}")
        np.testing.assert_array_equal(fastnn.load_model(tmp_path / f"model{number}").predict(x, verbose=0), y)


@pytest.mark.parametrize("layer", [MaxPooling2D(3, 2, "same"), AveragePooling2D(), GlobalMaxPooling2D()])
def test_arrays_of_every_kind_give_the_same_answer(layer, backend):
    x = np.arange(360).reshape(3, 10, 4, 3).astype(np.float32) % 251
    model = fastnn.Sequential([Input(x.shape[1:]), layer])
    read_only = x.copy()
    read_only.flags.writeable = False
    others = [read_only, np.asfortranarray(x), np.repeat(x, 2, axis=-1)[..., ::2], x[:, ::-1].copy()[:, ::-1],
              x.astype(x.dtype.newbyteorder()), x.astype(np.float64), x.astype(np.uint8), x.tolist()]  # fmt: skip
    for compute in (layer, lambda x: model.predict(x, verbose=0)):
        wanted = compute(x)
        for other in others:
            np.testing.assert_array_equal(compute(other), wanted)
        np.testing.assert_array_equal(compute(x[1:2]), wanted[1:2])
    assert layer(x[:0]).shape == (0, *model.output_shape[1:])


# Bad input


def refused(call, *parts):
    """``call`` raises one line that has all of ``parts``."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    for part in parts:
        assert part in str(caught.value), f"{part!r} is not in: {caught.value}"
    assert "\n" not in str(caught.value)


BAD = [0, -1, 2**31, 2**63 - 1, 2**100, 1.5, "2", True, (2,) * 4, (), (2, 0, 1), [[2]]]


@pytest.mark.parametrize("kind", WINDOWED)
def test_bad_arguments_are_refused_by_name(kind):
    what = kind.__name__
    for value in (None, *BAD):
        refused(lambda value=value: kind(value), f"{what}: pool_size must be", "Received: pool_size=")
    for value in BAD:
        refused(lambda value=value: kind(2, value), f"{what}: strides must be", "Received: strides=")
    pair = (0, 0)
    for value in ("sane", None, 1, ((0, 0),) * 4, ((0, -1),) * kind.rank, ((0, 1, 2),) * kind.rank,
                  ((0, 2**63 - 1),) * kind.rank, (0,) * kind.rank, ((0.5, 0),) * kind.rank):  # fmt: skip
        refused(lambda value=value: kind(2, padding=value), f"{what}: padding must be", "Received: padding=")
    for pair in ((2, 0), (0, 2), (0, 2**31 - 1)):
        padding = (pair,) * kind.rank
        refused(lambda padding=padding: kind(2, padding=padding), f"{what}: padding must be smaller than pool_size")
    refused(lambda: kind(input_shape=(0, 3)), f"{what}: input_shape")


@pytest.mark.parametrize("kind", [*WINDOWED, *GLOBAL])
def test_rows_of_another_rank_are_refused(kind):
    layer = kind(name="pool")
    for rank in {1, 2, 3, 4} - {kind.rank}:
        shape = (*(4,) * rank, 3)
        for x in (np.ones((2, *shape)), Input(shape)):
            refused(lambda x=x: layer(x), f"pool: {kind.__name__} needs rows of", "Received: shape")
    refused(lambda: layer(np.ones((2, *(0,) * kind.rank, 3))), f"pool: {kind.__name__}", "Received:")


@pytest.mark.parametrize("kind", WINDOWED)
def test_windows_larger_than_the_padded_rows_are_refused(kind):
    shape, what = (*(4,) * kind.rank, 3), kind.__name__
    for options in ({"pool_size": 5}, {"pool_size": 2**31 - 1}, {"pool_size": 7, "padding": ((1, 1),) * kind.rank}):
        layer = kind(**options, name="pool")
        for x in (np.ones((2, *shape)), Input(shape)):
            refused(lambda layer=layer, x=x: layer(x), f"pool: {what}: the window must not be larger than", "kernel")
    layer = kind(2**31 - 1, padding="same", name="pool")
    refused(lambda: layer(np.ones((2, *shape))), f"pool: {what} needs padded rows of fewer than 2**31 elements")
    assert kind(2, 2**31 - 1)(np.ones((1, *shape))).shape == (1, *(1,) * kind.rank, 3)
