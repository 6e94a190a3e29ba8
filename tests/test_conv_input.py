"""What convolution layers make of their arguments and of arrays: configurations, odd arrays, and errors that name the
layer, the argument, the rule and the value.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_bad_input import refused

import fastnn
from fastnn import layers
from fastnn.layers import (
    LAYERS,
    Conv1D,
    Conv1DTranspose,
    Conv2D,
    Conv2DTranspose,
    Conv3D,
    Conv3DTranspose,
    Dense,
    Flatten,
    Input,
)

FORWARD, TRANSPOSED = (Conv1D, Conv2D, Conv3D), (Conv1DTranspose, Conv2DTranspose, Conv3DTranspose)
EVERY = (*FORWARD, *TRANSPOSED)


# Configurations


def options_of(kind):
    options = {"strides": 2, "padding": ((1, 2),) * kind.rank, "activation": "elu", "use_bias": False, "name": "conv",
               "kernel_initializer": "he_normal", "kernel_regularizer": "l2", "trainable": False}  # fmt: skip
    return options | ({"output_padding": 1} if kind in TRANSPOSED else {"groups": 2})


@pytest.mark.parametrize("kind", EVERY)
def test_a_configuration_makes_the_same_layer_again(kind):
    assert LAYERS[kind.__name__] is kind is getattr(layers, kind.__name__)
    for layer in (kind(4, 3), kind(4, 3, **options_of(kind)), kind(np.int64(2), [3] * kind.rank, dilation_rate=2)):
        config = layer.get_config()
        again = kind.from_config(json.loads(json.dumps(config)))
        assert again.get_config() == config
        assert (again.kernel_size, again.strides, again.padding) == (layer.kernel_size, layer.strides, layer.padding)
        assert repr(again) == repr(layer)


@pytest.mark.parametrize("kind", EVERY)
def test_a_model_file_keeps_the_layer(kind, tmp_path):
    shape = (*(6,) * kind.rank, 2)
    model = fastnn.Sequential([kind(4, 3, input_shape=shape, **options_of(kind)), Flatten(), Dense(1)])
    x = np.random.default_rng(0).standard_normal((3, *shape))
    y = model.predict(x, verbose=0)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(fastnn.load_model(tmp_path / "model").predict(x, verbose=0), y)


# Arrays of every kind


def odd_arrays(x):
    """The values of ``x``, each time stored in another way."""
    read_only = x.copy()
    read_only.flags.writeable = False
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    yield "read-only", read_only
    yield "every other channel", wide[..., ::2]
    yield "turned", np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)
    yield "backwards", np.ascontiguousarray(x[:, ::-1])[:, ::-1]
    yield "fortran", np.asfortranarray(x)
    yield "byte-swapped", x.astype(x.dtype.newbyteorder())
    yield "float64", x.astype(np.float64)
    yield "unaligned", np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape)
    yield "uint8", x.astype(np.uint8)
    yield "list", x.tolist()


@pytest.mark.parametrize("layer", [Conv2D(5, 3, padding="same"), Conv2DTranspose(5, 3, 2), Conv2D(4, (2, 3), 2)])
def test_the_way_an_array_is_stored_changes_nothing(layer, backend):
    x = np.random.default_rng(0).integers(0, 256, (4, 6, 7, 3)).astype(np.float32)
    model = fastnn.Sequential([Input((6, 7, 3)), type(layer).from_config(layer.get_config())])
    clean, eager = model.predict(x, verbose=0), model.layers[0](x)
    for name, array in odd_arrays(x):
        np.testing.assert_array_equal(model.predict(array, verbose=0), clean, name)
        np.testing.assert_array_equal(model.layers[0](array), eager, name)


def test_one_row_and_no_row(backend):
    x = np.random.default_rng(0).standard_normal((3, 6, 7, 2)).astype(np.float32)
    model = fastnn.Sequential([Conv2D(4, 3, activation="relu"), Conv2DTranspose(2, 2, 2)])
    whole = model.predict(x, verbose=0)
    assert whole.shape == (3, 8, 10, 2)
    for i in range(3):
        np.testing.assert_array_equal(model.predict(x[i : i + 1], verbose=0), whole[i : i + 1])
    for layer in model.layers:
        y = layer(x)
        assert layer(x[:0]).shape == (0, *y.shape[1:])
        np.testing.assert_array_equal(layer(x[1:2]), y[1:2])
        x = y


# Errors

HUGE = 2**63 - 1
MANY = "must be an integer or 2 integers, 1 or more and below 2**31"
CONSTRUCTORS = [
    (lambda: Conv2D(0, 3), "Conv2D: filters must be a positive integer. Received: filters=0"),
    (lambda: Conv2D(-1, 3), "Conv2D: filters must be a positive integer. Received: filters=-1"),
    (lambda: Conv1DTranspose(2.5, 3), "Conv1DTranspose: filters must be a positive integer. Received: filters=2.5"),
    (lambda: Conv2D(HUGE, 3), f"Conv2D: filters must be below 2**31. Received: filters={HUGE}"),
    (lambda: Conv2D(4, 0), f"Conv2D: kernel_size {MANY}. Received: kernel_size=0"),
    (lambda: Conv2D(4, (3, -1)), f"Conv2D: kernel_size {MANY}. Received: kernel_size=(3, -1)"),
    (lambda: Conv2D(4, (3, 3, 3)), f"Conv2D: kernel_size {MANY}. Received: kernel_size=(3, 3, 3)"),
    (lambda: Conv2D(4, ()), "Conv2D: kernel_size", "kernel_size=()"),
    (lambda: Conv2D(4, 3.0), "Conv2D: kernel_size", "kernel_size=3.0"),
    (lambda: Conv2D(4, True), "Conv2D: kernel_size", "kernel_size=True"),
    (lambda: Conv2D(4, "3"), "Conv2D: kernel_size", "kernel_size='3'"),
    (lambda: Conv2D(4, None), "Conv2D: kernel_size", "kernel_size=None"),
    (lambda: Conv2D(4, HUGE), f"Conv2D: kernel_size {MANY}. Received: kernel_size={HUGE}"),
    (lambda: Conv1D(4, (3, 3)), "Conv1D: kernel_size must be an integer, 1 or more", "kernel_size=(3, 3)"),
    (lambda: Conv3D(4, (3, 3)), "Conv3D: kernel_size must be an integer or 3 integers", "kernel_size=(3, 3)"),
    (lambda: Conv2D(4, 3, 0), f"Conv2D: strides {MANY}. Received: strides=0"),
    (lambda: Conv2D(4, 3, (1, -2)), f"Conv2D: strides {MANY}. Received: strides=(1, -2)"),
    (lambda: Conv2DTranspose(4, 3, HUGE), f"Conv2DTranspose: strides {MANY}. Received: strides={HUGE}"),
    (lambda: Conv2D(4, 3, dilation_rate=0), f"Conv2D: dilation_rate {MANY}. Received: dilation_rate=0"),
    (lambda: Conv3DTranspose(4, 3, dilation_rate=-1), "Conv3DTranspose: dilation_rate", "dilation_rate=-1"),
    (lambda: Conv2D(4, 3, dilation_rate=HUGE), f"dilation_rate {MANY}. Received: dilation_rate={HUGE}"),
    (lambda: Conv2D(4, 3, 2, dilation_rate=2), "Conv2D: dilation_rate must be 1 where strides are larger", "(2, 2)"),
    (lambda: Conv1DTranspose(4, 3, 2, dilation_rate=3), "Conv1DTranspose: dilation_rate must be 1", "(3,)", "(2,)"),
    (lambda: Conv2D(4, 3, 1, "full"), "Conv2D: padding must be one of 'valid', 'same' or", "padding='full'"),
    (lambda: Conv2D(4, 3, 1, "causal"), "Conv2D: padding must be one of 'valid', 'same' or", "padding='causal'"),
    (lambda: Conv1DTranspose(4, 3, 1, "causal"), "Conv1DTranspose: padding", "padding='causal'"),
    (lambda: Conv1D(4, 3, 1, "ful"), "Conv1D: padding must be one of 'valid', 'same', 'causal' or ((before, after),)"),
    (lambda: Conv2D(4, 3, 1, 1), "Conv2D: padding", "((before, after), (before, after))", "padding=1"),
    (lambda: Conv2D(4, 3, 1, (1, 1)), "Conv2D: padding", "padding=(1, 1)"),
    (lambda: Conv2D(4, 3, 1, ((1, 1), (1, -1))), "Conv2D: padding", "padding=((1, 1), (1, -1))"),
    (lambda: Conv2D(4, 3, 1, ((0, 0), (HUGE, 0))), "Conv2D: padding", str(HUGE)),
    (lambda: Conv2D(4, 3, 1, None), "Conv2D: padding", "padding=None"),
    (lambda: Conv2D(4, 3, groups=3), "Conv2D: groups must divide filters. Received: groups=3, filters=4"),
    (lambda: Conv2D(4, 3, groups=0), "Conv2D: groups must be a positive integer. Received: groups=0"),
    (lambda: Conv2D(4, 3, groups=HUGE), "Conv2D: groups must divide filters", str(HUGE)),
    (lambda: Conv2DTranspose(4, 3, 2, output_padding=2), "output_padding must be smaller than strides", "(2, 2)"),
    (lambda: Conv2DTranspose(4, 3, 2, output_padding=-1), "output_padding", "0 or more", "output_padding=-1"),
    (lambda: Conv2DTranspose(4, 3, 2, output_padding=(1, 1, 1)), "output_padding", "(1, 1, 1)"),
    (lambda: Conv2D(4, 3, activation="rleu"), "Conv2D: activation must be one of", "'rleu'"),
    (lambda: Conv3D(4, 3, kernel_initializer="xavier"), "Conv3D: kernel_initializer", "'xavier'"),
    (lambda: Conv3D(4, 3, bias_regularizer="l3"), "Conv3D: bias_regularizer", "'l3'"),
    (lambda: Conv2D(4, 3, input_shape=(8, 8, 0)), "Conv2D: input_shape must be a positive integer", "0"),
    (lambda: Conv2D.from_config({"filters": 4, "kernel_size": [3, 0]}), "Conv2D: kernel_size", "(3, 0)"),
    (lambda: Conv2D.from_config({"filters": 4, "kernel_size": 3, "rank": 2}), "Conv2D: has no arguments named rank"),
]


@pytest.mark.parametrize(("make", "parts"), [(case[0], case[1:]) for case in CONSTRUCTORS])
def test_bad_arguments_are_refused_by_name_rule_and_value(make, parts):
    refused(make, *parts)


BILLION = 2**30
ROWS = [
    (Conv2D(4, 3), (8,), "Conv2D needs rows of 3 axes, (batch, H, W, channels)", "(None, 8)"),
    (Conv2D(4, 3), (8, 8, 8, 3), "Conv2D needs rows of 3 axes", "(None, 8, 8, 8, 3)"),
    (Conv1D(4, 3), (8, 8, 3), "Conv1D needs rows of 2 axes, (batch, steps, channels)", "(None, 8, 8, 3)"),
    (Conv3DTranspose(4, 3), (8, 8, 3), "Conv3DTranspose needs rows of 4 axes, (batch, D, H, W, channels)"),
    (Conv2D(4, 3), (2, 8, 3), "the window must not be larger than the padded input", "(2, 8)", "(3, 3)"),
    (Conv2D(4, 3, dilation_rate=4), (8, 9, 3), "the window must not be larger", "covers (9, 9)"),
    (Conv1D(4, 2**31 - 1), (8, 1), "the window must not be larger", str(2**31 - 1)),
    (Conv2D(4, 3, groups=2), (8, 8, 3), "Conv2D needs channels that groups divide", "groups=2", "(None, 8, 8, 3)"),
    (Conv1D(4, 2**31 - 1, padding="same"), (8, 1), "padded rows of fewer than 2**31 elements"),
    (Conv2D(2**31 - 1, 3), (8, 8, 3), "a kernel of fewer than 2**31 elements", "(3, 3, 3, 2147483647)"),
    (Conv1D(4, 3, BILLION, ((BILLION, BILLION),)), (8, 1), "padded rows of fewer than 2**31 elements"),
    (Conv1D(4, 3, padding="same", dilation_rate=BILLION), (8, 1), "padded rows of fewer than 2**31 elements"),
    (Conv2D(64, 1), (8192, 8192, 1), "rows of the output of fewer than 2**31 elements", "(8192, 8192, 64)"),
    (Conv2DTranspose(4, 3, BILLION), (2, 2, 1), "rows of the output of fewer than 2**31 elements"),
    (Conv1DTranspose(4, 3, 1, "valid", dilation_rate=BILLION), (8, 1), "rows of the output of fewer than 2**31"),
    (Conv1DTranspose(4, 2, 1, "same", 0), (1, 1), "has no output for this shape", "padding='same'", "(None, 1, 1)"),
    (Conv1DTranspose(4, 2, 1, ((2, 3),)), (4, 1), "has no output for this shape", "((2, 3),)"),
]


@pytest.mark.parametrize("case", ROWS, ids=[f"{case[0].name} {case[1]}" for case in ROWS])
def test_rows_that_do_not_fit_are_refused_before_anything_is_made(case):
    layer, shape, *parts = case
    again = type(layer).from_config(layer.get_config())
    refused(lambda: again(Input(shape)), again.name, *parts)
    refused(fastnn.Sequential([Input(shape), again]).build, again.name, *parts)
    assert not again.weights


def test_rows_of_another_size_than_the_layer_was_built_for_are_refused():
    layer = Conv2D(4, 3)
    layer(np.zeros((1, 8, 8, 3)))
    refused(lambda: layer(np.zeros((1, 8, 8, 4))), layer.name, "(None, 8, 8, 3)", "(None, 8, 8, 4)")
    model = fastnn.Sequential([Input((8, 8, 3)), layer])
    refused(lambda: model.predict(np.zeros((1, 8, 9, 3)), verbose=0), "(N, 8, 8, 3)", "(1, 8, 9, 3)")


def test_a_wrong_kernel_is_refused():
    layer = Conv2D(4, 3)
    layer(np.zeros((1, 8, 8, 3)))
    before = layer.get_weights()
    refused(lambda: layer.set_weights([np.zeros((3, 3, 4, 3)), np.zeros(4)]), "(3, 3, 3, 4)", "(3, 3, 4, 3)")
    np.testing.assert_array_equal(layer.get_weights()[0], before[0])
