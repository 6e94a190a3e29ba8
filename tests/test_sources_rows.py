"""Datasets, memory maps and stored arrays give to the last bit what arrays give, for any number of workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_nets import build, data, fit, same_bits
from small_sources import Samples, Stored, mapped

import fastnn
from fastnn import losses
from fastnn.callbacks import LambdaCallback
from fastnn.layers import Conv2D, Dense, Dropout, Flatten, Input
from fastnn.saving import load_model
from fastnn.sources import loading

ROWS = 203
KINDS = ["dataset", "memmap", "stored", "chunked"]


def given(kind, tmp_path, x, y, weights=None):
    """Arguments of fit and evaluate for the same data."""
    if kind == "dataset":
        return (Samples(x, y) if weights is None else Samples(x, y, weights),), {}
    if kind == "memmap":
        return (mapped(tmp_path / "x", x), mapped(tmp_path / "y", y)), {"sample_weight": weights}
    if kind == "stored":
        return (Stored(x.astype(float)), y), {"sample_weight": weights}
    stored = None if weights is None else Stored(weights)
    return (Stored(x, chunks=(16, 6)), Stored(y.astype(np.uint8), chunks=(50, 1))), {"sample_weight": stored}


def network(**options):
    layers = Dense(12, "relu"), Dropout(0.2), Dense(1, "sigmoid")
    loss = losses.BinaryCrossentropy(label_smoothing=0.1)
    return build(*layers, loss=loss, metrics=["accuracy", "auc"], **options)


OPTIONS = [
    {},
    {"shuffle": False},
    {"shuffle": "batch"},
    {"validation_split": 0.3},
    {"class_weight": {1: 3.0}},
    {"steps_per_epoch": 3, "validation_split": 0.2, "validation_steps": 2},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_training_is_that_on_arrays_to_the_last_bit(kind, options, weighted, tmp_path):
    x, y = data(rows=ROWS)
    weights = np.random.default_rng(1).random(ROWS) if weighted else None
    options = {"epochs": 3, "batch_size": 20, **options}
    wanted = network()
    history = fit(wanted, x, y, sample_weight=weights, **options).history
    args, more = given(kind, tmp_path, x, y, weights)
    for workers in (0, 1, 3):
        model = network()
        found = model.fit(*args, **more, **options, workers=workers, verbose=0)
        assert found.history == history
        assert same_bits(model, wanted)
        assert model.optimizer.iterations == wanted.optimizer.iterations


@pytest.mark.parametrize("kind", KINDS)
def test_every_backend_trains_and_asks_alike(kind, tmp_path, backend):
    x, y = data(rows=ROWS)
    wanted, model = network(), network()
    history = fit(wanted, x, y, epochs=2).history
    args, more = given(kind, tmp_path, x, y)
    assert model.fit(*args, **more, epochs=2, workers=2, verbose=0).history == history
    assert same_bits(model, wanted)
    assert model.evaluate(*args, **more) == wanted.evaluate(x, y)
    np.testing.assert_array_equal(model.predict(args[0]), wanted.predict(x))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_of_the_engine_and_workers_do_not_matter(threads):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 400)).astype(np.float32), rng.integers(0, 10, 300)

    def train(*args, **options):
        fastnn.set_seed(3)
        model = fastnn.Sequential([Input((400,)), Dense(300, "relu"), Dropout(0.3), Dense(10, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        history = model.fit(*args, epochs=2, batch_size=64, verbose=0, **options).history
        return [w.tobytes() for w in model.get_weights()], history

    before = fastnn.get_num_threads()
    wanted = train(x, y)
    try:
        fastnn.set_num_threads(threads)
        for workers in (0, 1, 4):
            assert train(Samples(x, y), workers=workers) == wanted
    finally:
        fastnn.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_testing_and_predicting_are_those_on_arrays(kind, workers, tmp_path):
    x, y = data(rows=700)
    weights = np.random.default_rng(1).random(700)
    model = network()
    wanted, weighted, p = model.evaluate(x, y), model.evaluate(x, y, sample_weight=weights), model.predict(x)
    args, more = given(kind, tmp_path, x, y)
    assert model.evaluate(*args, **more, workers=workers) == wanted
    np.testing.assert_array_equal(model.predict(args[0], workers=workers), p)
    args, more = given(kind, tmp_path, x, y, weights)
    assert model.evaluate(*args, **more, workers=workers) == weighted
    first = model.predict(args[0], steps=3, batch_size=50, workers=workers)
    np.testing.assert_array_equal(first, p[:150])
    np.testing.assert_array_equal(model.predict(x, steps=3, batch_size=50), p[:150])
    assert model.evaluate(*args, **more, steps=2) == model.evaluate(x[:64], y[:64], sample_weight=weights[:64])
    assert model.evaluate(x, y, steps=2, sample_weight=weights) == model.evaluate(*args, **more, steps=2)


def test_predicting_takes_inputs_alone():
    x, _ = data()
    model = build()

    class Inputs(Samples):
        def __getitem__(self, index):
            return self.arrays[0][index]

    np.testing.assert_array_equal(model.predict(Inputs(x)), model.predict(x))
    np.testing.assert_array_equal(model.predict(Samples(x)), model.predict(x))


def test_validation_data_may_be_of_any_kind(tmp_path):
    x, y = data(rows=ROWS)
    wanted = network()
    history = fit(wanted, x, y, epochs=2, validation_data=(x[:70], y[:70])).history
    for kind in KINDS:
        args, _ = given(kind, tmp_path, x[:70], y[:70])
        model = network()
        found = fit(model, x, y, epochs=2, validation_data=args[0] if kind == "dataset" else args)
        assert found.history == history
        assert same_bits(model, wanted)


def test_samples_come_in_the_order_of_the_seed_and_the_first_one_more():
    x, y = data(rows=50)
    samples, again = Samples(x, y), Samples(x, y)
    fit(build(), samples, None, epochs=2, batch_size=8)
    fit(build(), again, None, epochs=2, batch_size=8, workers=0)
    assert samples.asked == again.asked
    assert samples.asked[0] == 0
    first, second = samples.asked[1:51], samples.asked[51:]
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def test_shuffle_by_batch_keeps_neighbours_together():
    x, y = data(rows=50)
    samples = Samples(x, y)
    fit(build(), samples, None, batch_size=8, shuffle="batch")
    batches = [samples.asked[1:][at : at + 8] for at in range(0, 50, 8)]
    starts = [batch[0] for batch in batches]
    assert batches == [list(range(start, min(start + 8, 50))) for start in starts]
    assert starts[-1] == 48  # the smaller one
    assert sorted(starts) != starts


def test_any_object_with_length_and_items_is_a_dataset():
    x, y = data(rows=50)

    class Mine:
        def __len__(self):
            return 50

        def __getitem__(self, index):
            return x[index].tolist(), float(y[index, 0])

    one, two = build(), build()
    fit(one, Mine(), None, epochs=2)
    fit(two, x, y, epochs=2)
    assert same_bits(one, two)


def test_items_may_be_of_any_real_type():
    x, y = data(rows=50)
    kinds = [np.float64, np.float32, np.float16, object, ">f4"]
    x = np.round(x, 1).astype(np.float16)

    class Mixed(Samples):
        def __getitem__(self, index):
            return x[index].astype(kinds[index % 5]), bool(y[index, 0])

    one, two = build(), build()
    fit(one, Mixed(x, y), None)
    fit(two, x, y)
    assert same_bits(one, two)


def test_images_and_labels_without_a_channel_axis():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 9, 8), np.uint8), rng.integers(0, 3, 60)

    def train(*args):
        fastnn.set_seed(2)
        model = fastnn.Sequential([Input((9, 8, 1)), Conv2D(4, 3, activation="relu"), Flatten(), Dense(3, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model, model.fit(*args, epochs=2, verbose=0).history

    wanted, history = train(x, y)
    for args in ((Samples(x, y),), (Stored(x), y), (Stored(x), Stored(y)), (x, Stored(y))):
        model, found = train(*args)
        assert found == history
        assert same_bits(model, wanted)


def test_a_model_without_an_input_shape_learns_it_from_the_first_item():
    x, y = data(rows=50)
    fastnn.set_seed(1)
    model = fastnn.Sequential([Dense(3, "relu"), Dense(1)])
    model.compile("sgd", "mse")
    fit(model, Samples(x, y), None)
    assert model.input_shape == (None, 6)


def test_callbacks_see_the_same_batches_and_logs():
    x, y = data(rows=50)

    def train(*args):
        seen = []
        end = LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append((batch, dict(logs))))
        model = network()
        history = model.fit(*args, batch_size=8, epochs=2, callbacks=[end], verbose=0)
        return seen, history.history, history.params, [w.tobytes() for w in model.get_weights()]

    assert train(Samples(x, y)) == train(x, y)
    assert train(Stored(x), y) == train(x, y)


def test_a_callback_that_stops_after_a_batch_or_changes_the_rate_is_heard():
    x, y = data(rows=50)

    def train(*args):
        model = network()

        def begin(batch, logs=None):
            model.optimizer.learning_rate = 0.01 / (batch + 1)

        def end(batch, logs):
            model.stop_training = batch == 3

        calls = LambdaCallback(on_train_batch_begin=begin, on_train_batch_end=end)
        history = model.fit(*args, batch_size=8, epochs=2, callbacks=[calls], verbose=0).history
        return history, [w.tobytes() for w in model.get_weights()], model.optimizer.iterations

    assert train(Samples(x, y)) == train(x, y)
    assert train(x, y)[2] == 4


def test_training_resumed_from_a_file_is_training_never_stopped(tmp_path):
    x, y = data(rows=50)
    straight = network()
    fit(straight, Samples(x, y), None, epochs=4, batch_size=8, workers=2)
    stopped = network()
    fit(stopped, Stored(x), y, epochs=2, batch_size=8)
    stopped.save(tmp_path / "model.fnn")
    resumed = load_model(tmp_path / "model.fnn")
    fit(resumed, Samples(x, y), None, epochs=4, initial_epoch=2, batch_size=8)
    assert same_bits(resumed, straight)


@pytest.mark.parametrize("shuffle", [True, False, "batch"])
@pytest.mark.parametrize("chunks", [None, (64, 6)], ids=["", "chunked"])
def test_stored_arrays_are_read_a_little_at_a_time(monkeypatch, shuffle, chunks):
    monkeypatch.setattr(loading, "SLOT", 20_000)
    x, y = data(rows=5000)
    stored, targets = Stored(x, chunks), Stored(y)
    model = build()
    fit(model, stored, targets, shuffle=shuffle, workers=2, validation_split=0.1)
    model.evaluate(stored, targets)
    model.predict(stored)
    for array in (stored, targets):
        assert max(stop - start for start, stop in array.slices) <= 20_000 // (4 * 6)


def test_rows_of_one_chunk_are_read_at_once(monkeypatch):
    x, y = data(rows=5000)
    chunked, other = Stored(x, chunks=(1000, 6)), Stored(x)
    for stored in (chunked, other):
        fit(build(), stored, y)
    assert len(chunked.slices) < 40 < 1000 < len(other.slices)


def test_a_memory_map_is_not_converted_as_a_whole(monkeypatch, tmp_path):
    x, y = data(rows=300)
    big = mapped(tmp_path / "x", np.round(x * 10).astype(np.int16))
    whole = []
    convert = np.ascontiguousarray

    def watched(array, *args, **options):
        whole.append(np.shape(array))
        return convert(array, *args, **options)

    monkeypatch.setattr(np, "ascontiguousarray", watched)
    model = build()
    fit(model, big, y)
    model.predict(big)
    assert (300, 6) not in whole


def test_slots_are_allocated_once_for_all_epochs(monkeypatch):
    made = []
    start = loading.Ring.__init__

    def watched(ring, *args):
        made.append(ring)
        start(ring, *args)

    monkeypatch.setattr(loading.Ring, "__init__", watched)
    x, y = data(rows=300)
    fit(build(), Samples(x, y), None, epochs=5, workers=2, validation_data=Samples(x, y))
    assert len(made) == 2


def test_only_so_many_samples_are_loaded_ahead(monkeypatch):
    monkeypatch.setattr(loading, "SLOT", 1)
    x, y = data(rows=500)
    samples, ahead = Samples(x, y), []
    model = build()

    def begin(batch, logs=None):
        ahead.append(len(samples.asked) - 1 - 5 * batch)

    callback = LambdaCallback(on_train_batch_begin=begin)
    fit(model, samples, None, batch_size=5, workers=2, callbacks=[callback])
    assert max(ahead) <= 4 * 5  # two workers, one slot in use, one ready


def test_the_example_of_the_readme_works(tmp_path):
    readme = (Path(fastnn.__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    code = readme.split("## Data larger than memory")[1].split("```python")[1].split("```")[0]
    x, y = data(rows=50)
    files = [tmp_path / f"{number}.npy" for number in range(50)]
    for file, row in zip(files, x, strict=True):
        np.save(file, row)
    names = {"files": files, "labels": y, "model": build()}
    exec(code, names)
    wanted = build()
    fit(wanted, x, y, epochs=10, batch_size=16, validation_split=0.2)
    np.testing.assert_array_equal(names["probability"], wanted.predict(x))


@pytest.mark.parametrize("base", [fastnn.utils.Dataset, object])
def test_a_dataset_may_have_the_shape_of_its_samples(base):
    class Shaped(base):
        shape, dtype = (4,), "float32"

        def __len__(self):
            return 20

        def __getitem__(self, index):
            return np.full(4, index, np.float32), np.ones(1, np.float32)

    model = fastnn.Sequential([fastnn.layers.Dense(1, input_shape=(4,))])
    model.compile("sgd", "mse")
    assert "val_loss" in model.fit(Shaped(), validation_data=Shaped(), verbose=0).history
