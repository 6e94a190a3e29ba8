"""Saving, loading and going on: a model that was in a file is bit for bit the model that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import fastnn
from fastnn.callbacks import EarlyStopping, ModelCheckpoint
from fastnn.layers import Dense, Dropout
from fastnn.saving import load_model, read_tensors, save_model, write_tensors

OPTIMIZERS = {
    "sgd": lambda: fastnn.optimizers.SGD(0.05),
    "momentum": lambda: fastnn.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "rmsprop": lambda: fastnn.optimizers.RMSprop(),
    "adam": lambda: fastnn.optimizers.Adam(0.003, beta_1=0.85),
    "adamw": lambda: fastnn.optimizers.AdamW(0.003, weight_decay=0.01),
}


def data(rows=75):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, 7)).astype(np.float32)
    return x, (x[:, :1] + x[:, 1:2] ** 2 > 0.5).astype(np.float32)


def build(optimizer="adam"):
    fastnn.set_seed(11)
    model = fastnn.Sequential(
        [
            Dense(9, activation="relu", input_shape=(7,)),
            Dropout(0.3),
            Dense(5, activation="tanh"),
            Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer=OPTIMIZERS[optimizer](), loss="binary_crossentropy", metrics=["accuracy"])
    return model


def fit(model, epochs, initial_epoch=0, **options):
    x, y = data()
    return model.fit(x, y, batch_size=16, epochs=epochs, initial_epoch=initial_epoch, verbose=0, **options)


def assert_same_weights(one, other):
    assert [w.shape for w in one.get_weights()] == [w.shape for w in other.get_weights()]
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.fnn"


@pytest.fixture
def saved(path):
    model = build()
    fit(model, 2)
    model.save(path)
    return model


def rewrite(path, change, drop=()):
    """Change the parts of a model file, which gets a valid checksum again."""
    tensors, metadata = read_tensors(path)
    parts = {name: json.loads(metadata[name]) for name in ["architecture", "state"]}
    change(tensors, parts)
    write_tensors(path, tensors, metadata | {name: json.dumps(part) for name, part in parts.items()})


def test_a_loaded_model_predicts_evaluates_and_looks_the_same(path, saved):
    x, y = data()
    loaded = load_model(path)
    assert type(loaded) is type(saved)
    assert_same_weights(loaded, saved)
    assert loaded.predict(x).tobytes() == saved.predict(x).tobytes()
    assert loaded.evaluate(x, y) == saved.evaluate(x, y)
    assert loaded.get_config() == saved.get_config()
    assert loaded.count_params() == saved.count_params()
    assert (loaded.input_shape, loaded.output_shape) == (saved.input_shape, saved.output_shape)


def test_every_door_opens_the_same_file(path, saved):
    for load in [fastnn.load_model, fastnn.models.load_model, load_model]:
        assert_same_weights(load(path), saved)
        assert_same_weights(load(os.fspath(path)), saved)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("options", [{}, {"validation_split": 0.2}], ids=["all rows", "validation"])
def test_training_resumed_from_a_file_is_bit_for_bit_training_never_stopped(path, optimizer, options):
    straight = build(optimizer)
    history = fit(straight, 5, **options).history

    stopped = build(optimizer)
    fit(stopped, 2, **options)
    stopped.save(path)
    fastnn.set_seed(99)  # whatever else happens in between
    resumed = load_model(path)
    rest = fit(resumed, 5, initial_epoch=2, **options).history

    assert_same_weights(resumed, straight)
    assert {name: values[2:] for name, values in history.items()} == rest


def test_training_goes_on_in_another_process(path):
    straight = build()
    fit(straight, 4)
    stopped = build()
    fit(stopped, 3)
    stopped.save(path)
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from test_save_and_resume import fit, load_model\n"
        "model = load_model(sys.argv[1]); fit(model, 4, initial_epoch=3); model.save(sys.argv[1])"
    )
    here = os.path.dirname(__file__)
    subprocess.run([sys.executable, "-c", program, str(path), here, os.path.dirname(here)], check=True)
    assert_same_weights(load_model(path), straight)


def test_saving_does_not_change_the_model_and_twice_gives_the_same_bytes(path):
    straight, model = build(), build()
    fit(straight, 4)
    fit(model, 2)
    model.save(path)
    first = path.read_bytes()
    model.save(path)
    assert path.read_bytes() == first
    load_model(path).save(path)
    assert path.read_bytes() == first
    fit(model, 4, initial_epoch=2)
    assert_same_weights(model, straight)


def test_a_model_that_was_not_compiled_can_be_saved(path):
    fastnn.set_seed(1)
    model = fastnn.Sequential([Dense(3, input_shape=(7,))])
    model.save(path)
    assert_same_weights(load_model(path), model)


def test_a_functional_model_can_be_saved(path):
    fastnn.set_seed(1)
    inputs = fastnn.Input(shape=(7,))
    hidden = Dense(4, activation="relu")(inputs)
    model = fastnn.Model(inputs, Dense(1)(hidden))
    model.compile(optimizer="adam", loss="mse")
    fit(model, 2)
    model.save(path)
    loaded = load_model(path)
    assert_same_weights(loaded, model)
    fit(model, 3, initial_epoch=2)
    fit(loaded, 3, initial_epoch=2)
    assert_same_weights(loaded, model)


def test_the_safetensors_package_reads_the_weights_of_a_model_file(path, saved):
    arrays = pytest.importorskip("safetensors.numpy").load_file(path)
    stored = {array.tobytes() for array in arrays.values()}
    assert all(weight.tobytes() in stored for weight in saved.get_weights())


def test_checkpoints_and_early_stopping_work_in_fit(tmp_path):
    model = build()
    checkpoint = ModelCheckpoint(tmp_path / "best-{epoch:02d}.fnn", monitor="loss", save_best_only=True)
    early = EarlyStopping(monitor="loss", patience=1, min_delta=10.0, restore_best_weights=True)
    history = fit(model, 9, callbacks=[checkpoint, early])
    assert history.epoch == [0, 1]
    first = load_model(tmp_path / "best-01.fnn")
    assert_same_weights(model, first)


# ---------------------------------------------------------------- preprocessing


@pytest.fixture
def saved_with_table(path):
    pandas = pytest.importorskip("pandas")
    from fastnn.tables import TablePreprocessor

    table = pandas.DataFrame(
        {"age": [40.5, 50.25, 61.0, 33.0], "sex": ["f", "m", "f", "m"], "ill": ["no", "yes", "no", "yes"]}
    )
    preprocessing = TablePreprocessor(target="ill").fit(table)
    fastnn.set_seed(3)
    model = fastnn.Sequential([Dense(1, activation="sigmoid", input_shape=(preprocessing.features,))])
    model.preprocessing = preprocessing
    model.save(path)
    return model, table


def test_preprocessing_is_part_of_the_file(path, saved_with_table):
    model, table = saved_with_table
    loaded = load_model(path)
    assert loaded.preprocessing.to_config() == model.preprocessing.to_config()
    assert loaded.predict(table).tobytes() == model.predict(table).tobytes()


@pytest.mark.parametrize("text", ['{"format":1}', "{}", "[]", '{"format":1,"format":1}', "null", "x"])
def test_damaged_preprocessing_is_rejected(path, saved_with_table, text):
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, metadata | {"preprocessing": text})
    with pytest.raises(ValueError, match=r"model\.fnn'.+preprocessing"):
        load_model(path)


# ---------------------------------------------------------------- weights that are no numbers


def test_weights_that_are_not_finite_are_refused_on_both_ways_unless_asked_for(path, saved):
    before = path.read_bytes()
    weights = saved.get_weights()
    weights[0][0, 0] = np.nan
    weights[0][1, 1] = -np.inf
    saved.set_weights(weights)
    with pytest.raises(ValueError, match=r"was not written: 2 of the 63 numbers in .*kernel.* are NaN or infinite"):
        saved.save(path)
    assert path.read_bytes() == before
    save_model(saved, path, allow_nonfinite=True)
    with pytest.raises(ValueError, match=r"model\.fnn' was not loaded: 2 of the 63 numbers in .*kernel"):
        load_model(path)
    assert_same_weights(load_model(path, allow_nonfinite=True), saved)


# ---------------------------------------------------------------- files with a valid checksum and wrong contents


def first_kernel(tensors):
    return next(name for name in tensors if name.endswith("kernel") and not name.startswith("optimizer"))


def drop(tensors, parts):
    del tensors[first_kernel(tensors)]


def add(tensors, parts):
    tensors["extra"] = np.zeros(3, np.float32)


def reshape(tensors, parts):
    name = first_kernel(tensors)
    tensors[name] = np.ascontiguousarray(tensors[name].T)


def retype(tensors, parts):
    name = first_kernel(tensors)
    tensors[name] = tensors[name].view(np.int32)


def other_class(tensors, parts):
    parts["architecture"]["class"] = "os.system"


def more_state(tensors, parts):
    parts["state"]["command"] = "rm"


def no_state(tensors, parts):
    parts["state"].clear()


def broken_config(tensors, parts):
    parts["architecture"]["config"] = {"layers": [{"class": "Dense", "config": {"units": "many"}}]}


def empty_config(tensors, parts):
    parts["architecture"]["config"] = {}


def replace_units(value, parts):
    text = json.dumps(parts["architecture"]).replace('"units": 9', f'"units": {value}')
    assert json.dumps(parts["architecture"]) != text
    parts["architecture"].clear()
    parts["architecture"].update(json.loads(text))


def huge_layer(tensors, parts):
    replace_units("1000000000000", parts)


def negative_layer(tensors, parts):
    replace_units("-9", parts)


def replace_class(value, parts):
    text = json.dumps(parts["architecture"]).replace('"Dropout"', json.dumps(value))
    assert json.dumps(parts["architecture"]) != text
    parts["architecture"].clear()
    parts["architecture"].update(json.loads(text))


def unknown_layer(tensors, parts):
    replace_class("Lambda", parts)


@pytest.mark.parametrize(
    "change",
    [drop, add, reshape, retype, other_class, more_state, no_state, broken_config, empty_config]
    + [huge_layer, negative_layer, unknown_layer],
    ids=lambda change: change.__name__,
)
def test_a_file_whose_parts_do_not_fit_each_other_is_rejected(path, saved, change):
    rewrite(path, change)
    with pytest.raises(ValueError, match=r"model\.fnn' (does not describe a model|is not a usable model file): .+"):
        load_model(path)


def test_own_functions_cannot_be_saved(path):
    model = build()
    with pytest.raises((TypeError, ValueError)):
        model.compile(optimizer="adam", loss=lambda y, p: ((y - p) ** 2).mean())
        model.save(path)
    assert not path.exists()
