"""Threads that load: what happens on errors and Ctrl-C, and that they end."""

from __future__ import annotations

import gc
import signal
import threading
import weakref

import numpy as np
import pytest
from small_nets import build, data, fit, same_bits
from small_sources import Failing, Parts, Samples, Stored, endless
from test_fork import forked
from test_interrupt import FOREVER, PATIENCE, press

from fastnn.callbacks import LambdaCallback


def loaders():
    """The threads that load."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("fastnn loader")]


def replay(x, y, steps, **options):
    """A model after just so many steps on arrays."""
    model = build()
    calls = LambdaCallback(
        on_train_batch_end=lambda batch, logs: setattr(model, "stop_training", model.optimizer.iterations == steps)
    )
    if steps:
        fit(model, x, y, epochs=FOREVER, callbacks=[calls], **options)
    assert model.optimizer.iterations == steps
    return model


# Who loads


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_other_threads_load_and_have_ended_afterwards(workers):
    x, y = data()
    samples = Samples(x, y)
    model = build()
    fit(model, samples, None, epochs=2, workers=workers)
    model.evaluate(samples, workers=workers)
    model.predict(samples, workers=workers)
    assert all(thread.name.startswith("fastnn loader") for thread in samples.threads - {threading.main_thread()})
    assert not loaders()


def test_without_workers_the_caller_loads():
    x, y = data()
    samples = Samples(x, y)
    model = build()
    fit(model, samples, None, workers=0)
    model.predict(samples, workers=0)
    assert samples.threads == {threading.current_thread()}


def test_two_workers_load_at_the_same_time():
    x, y = data(rows=40)
    second = threading.Event()

    class Meeting(Samples):
        def __getitem__(self, index):
            if index >= 20:
                second.set()
            elif self.asked:  # not that which is loaded to learn the shape
                assert second.wait(PATIENCE)
            return super().__getitem__(index)

    model, samples = build(), Meeting(x, y)
    np.testing.assert_array_equal(model.predict(samples, workers=2), model.predict(x))
    assert len(samples.threads) == 3


def test_two_batches_are_loaded_at_the_same_time_and_used_in_order():
    x, y = data(rows=40)
    second = threading.Event()

    class Meeting(Parts):
        first = True

        def __getitem__(self, index):
            if index == 1:
                second.set()
            elif not self.first:
                assert second.wait(PATIENCE)
            self.first = False
            return super().__getitem__(index)

    model, wanted = build(), build()
    fit(model, Meeting(20, x, y), None, shuffle=False, workers=2)
    fit(wanted, x, y, batch_size=20, shuffle=False)
    assert same_bits(model, wanted)


def test_nothing_holds_the_data_afterwards():
    x, y = data()
    model = build()
    for bad in ((), (70,)):
        samples = Failing(x, y, bad=bad)
        gone = weakref.ref(samples)
        try:
            fit(model, samples, None, workers=2, shuffle=False)
            model.evaluate(samples)
            model.predict(samples)
        except RuntimeError:
            pass
        del samples
        gc.collect()
        assert gone() is None


# Items that fail


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_item_that_fails_is_named_and_the_model_is_as_after_the_last_whole_step(workers, backend):
    x, y = data(rows=90)
    wanted = replay(x, y, 5, batch_size=10, shuffle=False)
    model = build()
    with pytest.raises(RuntimeError, match=r"fit: item 57 could not be read: OSError: the disk is gone") as caught:
        fit(model, Failing(x, y, bad=(83, 57, 58)), None, batch_size=10, shuffle=False, workers=workers)
    assert isinstance(caught.value.__cause__, OSError)
    assert same_bits(model, wanted)
    assert model.optimizer.iterations == 5
    assert model._epochs == 0
    assert not loaders()
    fit(model, x, y)  # and it can go on


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_failing_item_is_met_in_the_second_epoch_too(workers):
    x, y = data(rows=90)
    samples = Failing(x, y)
    model = build()
    fail = LambdaCallback(
        on_epoch_begin=lambda epoch, logs=None: setattr(samples, "bad", range(60, 90) if epoch else ())
    )
    with pytest.raises(RuntimeError, match=r"fit: item \d+ could not be read"):
        fit(model, samples, None, batch_size=10, workers=workers, callbacks=[fail], epochs=2)
    assert same_bits(model, replay(x, y, model.optimizer.iterations, batch_size=10))
    assert model._epochs == 1


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_batch_that_fails_is_named(workers):
    x, y = data(rows=90)

    class Broken(Parts):
        def __getitem__(self, index):
            return {}["missing"] if index == 4 else super().__getitem__(index)

    model = build()
    with pytest.raises(RuntimeError, match=r"fit: batch 4 could not be read: KeyError: 'missing'") as caught:
        fit(model, Broken(10, x, y), None, shuffle=False, workers=workers)
    assert isinstance(caught.value.__cause__, KeyError)
    assert same_bits(model, replay(x, y, 4, batch_size=10, shuffle=False))
    for ask in (model.evaluate, model.predict):
        with pytest.raises(RuntimeError, match=r": batch 4 could not be read"):
            ask(Broken(10, x, y), workers=workers)
    assert not loaders()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_generator_that_fails_is_told_with_its_batch(workers):
    x, y = data(rows=90)

    def batches():
        for number, batch in enumerate(endless(10, x, y)):
            if number == 12:
                raise OSError("the disk is gone")
            yield batch

    model = build()
    with pytest.raises(RuntimeError, match=r"fit: batch 3 could not be read: OSError"):
        fit(model, batches(), None, steps_per_epoch=9, epochs=3, workers=workers)
    assert model.optimizer.iterations == 12


def test_a_file_that_fails_is_told_with_its_rows():
    x, y = data(rows=900)

    class Torn(Stored):
        def __getitem__(self, key):
            if key.stop > 500:
                raise OSError("the disk is gone")
            return super().__getitem__(key)

    model = build()
    with pytest.raises(RuntimeError, match=r"fit: rows \d+ to \d+ of x could not be read: OSError"):
        fit(model, Torn(x), y, shuffle=False)
    assert model.optimizer.iterations == replay(x, y, model.optimizer.iterations, shuffle=False).optimizer.iterations


@pytest.mark.parametrize("workers", [0, 1])
def test_who_ends_the_program_in_an_item_ends_it(workers):
    x, y = data()

    class Quits(Samples):
        def __getitem__(self, index):
            if index == 50:
                raise SystemExit(3)
            return super().__getitem__(index)

    with pytest.raises(SystemExit):
        fit(build(), Quits(x, y), None, workers=workers)
    assert not loaders()


# Ctrl-C


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("kind", ["dataset", "batches", "generator", "stored"])
def test_an_interrupted_model_is_as_after_its_last_whole_step(kind, workers):
    x, y = data(rows=90)
    model = build()
    options = {"batch_size": 10, "shuffle": False}
    args = {
        "dataset": (Samples(x, y), None),
        "batches": (Parts(10, x, y), None),
        "generator": (endless(10, x, y), None),
        "stored": (Stored(x), y),
    }[kind]
    steps = {"steps_per_epoch": 9} if kind == "generator" else {}
    callback = LambdaCallback(on_epoch_begin=lambda epoch, logs=None: press(0.15) if epoch == 0 else None)
    with pytest.raises(KeyboardInterrupt):
        fit(model, *args, epochs=FOREVER, workers=workers, callbacks=[callback], **options, **steps)
    assert model.optimizer.iterations > 0
    assert same_bits(model, replay(x, y, model.optimizer.iterations, **options))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for thread in loaders():
        thread.join(PATIENCE)
    assert not loaders()


@pytest.mark.parametrize("ask", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_does_not_wait_for_an_item_that_takes_long(ask, workers):
    x, y = data(rows=90)
    go_on = threading.Event()

    class Slow(Samples):
        def __getitem__(self, index):
            if index == 45:
                assert go_on.wait(PATIENCE)
            return super().__getitem__(index)

    model, samples = build(), Slow(x, y)
    options = {"fit": {"batch_size": 10, "shuffle": False, "verbose": 0}}.get(ask, {})
    press(0.15)
    with pytest.raises(KeyboardInterrupt):
        getattr(model, ask)(samples, workers=workers, **options)
    assert not go_on.is_set()
    assert 45 not in samples.asked
    if ask == "fit":
        assert same_bits(model, replay(x, y, model.optimizer.iterations, batch_size=10, shuffle=False))
    go_on.set()
    for thread in loaders():  # it ends with its item
        thread.join(PATIENCE)
    assert not loaders()


@pytest.mark.parametrize("kind", [Samples, Failing])
def test_training_in_another_thread_works(kind):
    x, y = data()
    wanted, model = build(), build()
    fit(wanted, x, y, epochs=2)
    thread = threading.Thread(target=lambda: fit(model, kind(x, y), None, epochs=2, workers=2))
    thread.start()
    thread.join(PATIENCE)
    assert same_bits(model, wanted)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_data_are_loaded_does_not_hang():
    x, y = data()

    def work():
        model = build()
        fit(model, Samples(x, y), None, epochs=3, workers=2)
        return model.predict(Samples(x, y)).tobytes()

    wanted, stop = work(), threading.Event()

    def train():
        while not stop.is_set():
            work()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for _ in range(3):
            assert forked(work) == wanted
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not thread.is_alive()
