"""PyDatasets, generators and other things that give batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from small_nets import build, data, fit, same_bits
from small_sources import Again, Parts, Samples, endless

import fastnn
from fastnn.callbacks import LambdaCallback
from fastnn.layers import Dense, Dropout
from fastnn.progress import ProgressBar

ROWS = 103
STEPS = 6  # of 20 rows


def network():
    return build(Dense(12, "relu"), Dropout(0.2), Dense(1, "sigmoid"), metrics=["accuracy", "auc"])


def kinds(*arrays):
    """The same batches in every kind, and what has to be said with it in fit."""
    return [
        (Parts(20, *arrays), {}),
        (Again(20, *arrays), {}),
        (Again(20, *arrays), {"steps_per_epoch": STEPS}),
        (endless(20, *arrays), {"steps_per_epoch": STEPS}),
        (itertools.cycle(Again(20, *arrays)), {"steps_per_epoch": STEPS}),
    ]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_batches_train_as_the_same_rows_in_arrays(workers, weighted, backend):
    x, y = data(rows=ROWS)
    weights = np.random.default_rng(1).random(ROWS) if weighted else None
    wanted = network()
    history = fit(wanted, x, y, sample_weight=weights, epochs=3, batch_size=20, shuffle=False).history
    for batches, options in kinds(x, y, *([weights] if weighted else [])):
        model = network()
        found = model.fit(batches, epochs=3, shuffle=False, workers=workers, verbose=0, **options)
        assert found.history == history
        assert same_bits(model, wanted)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_are_tested_and_predicted_as_the_same_rows_in_arrays(workers, backend):
    x, y = data(rows=700)
    model = network()
    wanted, p = model.evaluate(x, y), model.predict(x)
    for size in (1, 90, 300, 700):
        steps = -(-700 // size)
        for batches, options in (
            (lambda size=size: Parts(size, x, y), {}),
            (lambda size=size: Again(size, x, y), {}),
            (lambda size=size: iter(Again(size, x, y)), {}),
            (lambda size=size: endless(size, x, y), {"steps": steps}),
        ):
            assert model.evaluate(batches(), workers=workers, **options) == wanted
            np.testing.assert_array_equal(model.predict(batches(), workers=workers, **options), p)


def test_batches_of_any_size_are_a_step_each(backend):
    x, y = data(rows=200)
    sizes = [5, 20, 7, 40, 3, 41, 41, 1]
    ends = np.cumsum([0, *sizes])
    batches = [(x[a:b], y[a:b]) for a, b in itertools.pairwise(ends)]
    wanted, model = network(), network()
    for part in batches:
        wanted.train_on_batch(*part)
    history = model.fit(iter(batches), steps_per_epoch=8, verbose=0).history
    assert same_bits(model, wanted)
    assert model.optimizer.iterations == 8
    other = network()
    other.fit(iter(batches), steps_per_epoch=8, verbose=0, workers=0)
    assert same_bits(other, wanted)
    assert set(history) == {"loss", "accuracy", "auc"}


def test_batches_of_a_pydataset_are_shuffled_by_the_seed():
    x, y = data(rows=ROWS)
    asked = []

    class Noted(Parts):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    models = [network() for _ in range(3)]
    for model, workers in zip(models, (0, 1, 1), strict=True):
        asked.clear()
        fit(model, Noted(20, x, y), None, epochs=2, workers=workers)
        first, second = asked[1:7], asked[7:]
        assert sorted(first) == sorted(second) == list(range(6))
        assert first != second
    ordered = network()
    fit(ordered, Noted(20, x, y), None, epochs=2, shuffle=False)
    assert same_bits(models[0], models[1])
    assert same_bits(models[0], models[2])
    assert not same_bits(models[0], ordered)


def test_a_pydataset_is_told_of_epochs():
    x, y = data(rows=ROWS)
    parts = Parts(20, x, y)
    fit(build(), parts, None, epochs=2)
    assert parts.epochs == ["begin", "end"] * 2


def test_workers_are_said_by_the_data_or_by_fit(monkeypatch):
    from fastnn.sources import loading

    used = []
    start = loading.Loader.__init__

    def watched(loader, ring, job, workers, *args, **options):
        used.append(workers)
        start(loader, ring, job, workers, *args, **options)

    monkeypatch.setattr(loading.Loader, "__init__", watched)
    x, y = data(rows=50)
    samples = Samples(x, y)
    samples.workers = 2
    for batches, workers, expected in (
        (Parts(20, x, y), None, 1),
        (Parts(20, x, y, workers=3), None, 3),
        (Parts(20, x, y, workers=3), 0, 0),
        (samples, None, 2),
        (samples, 4, 4),
        (Again(20, x, y), None, 1),
        (Again(20, x, y), 4, 1),  # there is one iterator
    ):
        fit(build(), batches, None, workers=workers)
        assert used.pop() == expected


def test_keras_names_are_known():
    assert fastnn.utils.Sequence is fastnn.utils.PyDataset
    assert Parts(2, [1], workers=2, use_multiprocessing=True, max_queue_size=3).workers == 2


def test_class_weights_work_with_batches():
    x, y = data(rows=ROWS)
    wanted = network()
    fit(wanted, x, y, batch_size=20, shuffle=False, class_weight={1: 4.0})
    for batches, options in kinds(x, y):
        model = network()
        fit(model, batches, None, shuffle=False, class_weight={1: 4.0}, **options)
        assert same_bits(model, wanted)


def test_validation_data_may_be_batches():
    x, y = data(rows=ROWS)
    wanted = network()
    history = fit(wanted, x, y, epochs=2, validation_data=(x[:60], y[:60])).history
    for batches, options in (
        (Parts(20, x[:60], y[:60]), {}),
        (Again(20, x[:60], y[:60]), {}),
        (endless(20, x[:60], y[:60]), {"validation_steps": 3}),
        (Parts(20, x, y), {"validation_steps": 3}),
        ((x, y), {"validation_steps": 3, "validation_batch_size": 20}),
    ):
        model = network()
        assert fit(model, x, y, epochs=2, validation_data=batches, **options).history == history
        assert same_bits(model, wanted)


def test_a_generator_gives_no_batch_that_is_not_used():
    x, y = data(rows=ROWS)
    given = []

    def batches():
        for batch in endless(20, x, y):
            given.append(batch)
            yield batch

    generator = batches()
    model = build()
    fit(model, generator, None, steps_per_epoch=4, epochs=2, workers=1)
    assert len(given) == 8
    model.predict(generator, steps=3)
    model.evaluate(generator, steps=2)
    assert len(given) == 13


def test_a_generator_that_ends_early_ends_training_with_a_warning():
    x, y = data(rows=ROWS)
    model, wanted = network(), network()
    with pytest.warns(UserWarning, match=r"fit: the data ended after 2 of 4 batches; training ends") as caught:
        history = model.fit(iter(Again(20, x, y)), steps_per_epoch=4, epochs=5, verbose=0)
    assert caught[0].filename == __file__
    assert history.epoch == [0, 1]
    fit(wanted, x, y, batch_size=20, shuffle=False)
    assert same_bits(model, wanted)
    with pytest.warns(UserWarning, match=r"fit: the data ended after 0 of 3 batches"):
        history = model.fit(iter(Again(20, x, y)), steps_per_epoch=3, epochs=5, verbose=0)
    assert history.epoch == [0, 1]
    with pytest.warns(UserWarning, match=r"evaluate: the data ended after 6 of 9 batches") as caught:
        assert model.evaluate(iter(Again(20, x, y)), steps=9) == model.evaluate(x, y)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=r"predict: the data ended after 6 of 9 batches"):
        assert len(model.predict(iter(Again(20, x, y)), steps=9)) == ROWS


def test_what_can_be_iterated_anew_is_so_in_each_epoch():
    x, y = data(rows=ROWS)
    model, wanted = build(), build()
    history = fit(model, Again(20, x, y), None, epochs=3, steps_per_epoch=2)
    fit(wanted, x[:40], y[:40], epochs=3, batch_size=20, shuffle=False)
    assert same_bits(model, wanted)
    assert history.params["steps"] == 2


def test_steps_that_nobody_knows_are_not_shown(capsys):
    x, y = data(rows=ROWS)
    seen = []
    callback = LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    history = build().fit(Again(20, x, y), epochs=2, verbose=2, callbacks=[callback])
    assert history.params["steps"] is None
    assert seen == [0, 1, 2, 3, 4, 5] * 2
    assert capsys.readouterr().out.count("loss") == 2
    bar = ProgressBar(3, None, 0)
    assert bar.steps == 0
    bar.close()


def test_raw_tables_in_batches_go_through_the_preprocessing():
    pandas = pytest.importorskip("pandas")
    from fastnn.tables import TablePreprocessor

    table = pandas.DataFrame({"age": [40.5, 50.25, 61.0, 33.0], "ill": ["no", "yes", "no", "yes"]})
    fastnn.set_seed(3)
    model = fastnn.Sequential([Dense(1, activation="sigmoid", input_shape=(1,))])
    model.preprocessing = TablePreprocessor(target="ill").fit(table)
    wanted = model.predict(table)
    found = model.predict(table[at : at + 2] for at in (0, 2))
    np.testing.assert_array_equal(found, wanted)
