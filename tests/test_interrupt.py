"""Ctrl-C: training stops between two steps, and the model is one that those steps would have made."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

import fastnn
from fastnn.callbacks import LambdaCallback
from fastnn.layers import Dense, Dropout
from fastnn.steps import Feed

#: Only to end a test whose Ctrl-C was lost.
PATIENCE = 60.0
FOREVER = 10**7


def press(after):
    """Ctrl-C, from another thread, in a moment."""
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()


def press_in_the_first_epoch(after=0.15):
    """A callback that does it."""
    return LambdaCallback(on_epoch_begin=lambda epoch, logs=None: press(after) if epoch == 0 else None)


def small():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 8)).astype(np.float32)
    fastnn.set_seed(1)
    model = fastnn.Sequential([Dense(16, "tanh", input_shape=(8,)), Dropout(0.2), Dense(1)])
    model.compile("adam", "mse")
    return model, x, x[:, :1] * x[:, 1:2], 32


def wide():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 300)).astype(np.float32)
    fastnn.set_seed(1)
    model = fastnn.Sequential([Dense(400, "relu", input_shape=(300,)), Dense(200, "relu"), Dense(1)])
    model.compile(fastnn.optimizers.SGD(1e-4), "mse")
    return model, x, x[:, :1], 100


def guard(model):
    """Ends a training that nobody interrupted."""
    deadline = time.monotonic() + PATIENCE

    def check(epoch, logs=None):
        model.stop_training = time.monotonic() > deadline

    return LambdaCallback(on_epoch_end=check)


def replay(make, steps):
    """The model after just so many training steps."""
    model, x, y, batch = make()
    epochs, rest = divmod(steps, -(-len(x) // batch))
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0)
    if rest:

        def stop(number, logs=None):
            model.stop_training = model.optimizer.iterations == steps

        callbacks = [LambdaCallback(on_train_batch_end=stop)]
        model.fit(x, y, batch_size=batch, epochs=epochs + 1, initial_epoch=epochs, verbose=0, callbacks=callbacks)
    assert model.optimizer.iterations == steps
    return model


def assert_same_bits(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("make", [small, wide])
def test_an_interrupted_model_is_as_after_its_last_whole_step(make, backend):
    model, x, y, batch = make()
    callbacks = [guard(model), press_in_the_first_epoch()]
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=batch, epochs=FOREVER, verbose=0, callbacks=callbacks)
    assert model.optimizer.iterations > 0
    assert_same_bits(model, replay(make, model.optimizer.iterations))


def test_an_interrupt_inside_a_long_epoch_does_not_wait_for_its_end(backend):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 8)).astype(np.float32)

    def make():
        fastnn.set_seed(1)
        model = fastnn.Sequential([Dense(16, "tanh", input_shape=(8,)), Dense(1)])
        model.compile("adam", "mse")
        repeated = np.tile(x, (20_000, 1))  # one epoch of two million rows
        return model, repeated, repeated[:, :1], 4

    model, x_, y_, batch = make()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x_, y_, batch_size=batch, verbose=0, callbacks=[press_in_the_first_epoch()])
    steps = model.optimizer.iterations
    assert 0 < steps < len(x_) // batch
    other, *_ = make()
    order = Feed(other, len(x_), batch, shuffle=True).epoch(0)["index"][: steps * batch]
    other.fit(x_[order], y_[order], batch_size=batch, shuffle=False, verbose=0)
    assert other.optimizer.iterations == steps
    assert_same_bits(model, other)


def test_training_goes_on_after_an_interrupt():
    model, x, y, batch = small()
    callbacks = [guard(model), press_in_the_first_epoch(0.05)]
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=batch, epochs=FOREVER, verbose=0, callbacks=callbacks)
    before = model.optimizer.iterations
    history = model.fit(x, y, batch_size=batch, epochs=2, verbose=0)
    assert model.optimizer.iterations == before + 2 * 7
    assert np.isfinite(history.history["loss"]).all()
    assert model.predict(x).shape == (200, 1)


def test_an_interrupt_between_batch_callbacks_comes_through():
    model, x, y, batch = small()
    calls = []

    def end(number, logs=None):
        calls.append(model.optimizer.iterations)
        if len(calls) == 10:
            signal.raise_signal(signal.SIGINT)

    callbacks = [LambdaCallback(on_train_batch_end=end)]
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=batch, epochs=FOREVER, verbose=0, callbacks=callbacks)
    assert model.optimizer.iterations == 10
    assert_same_bits(model, replay(small, 10))


def test_an_interrupt_in_the_last_epoch_is_not_lost():
    model, x, y, batch = small()
    callbacks = [LambdaCallback(on_epoch_end=lambda epoch, logs: signal.raise_signal(signal.SIGINT))]
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=batch, epochs=1, verbose=0, callbacks=callbacks)
    assert_same_bits(model, replay(small, 7))


def test_the_handler_is_put_back():
    model, x, y, batch = small()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model.fit(x, y, batch_size=batch, verbose=0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(ValueError, match="fit"):
        model.fit(x[:, :3], y, verbose=0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_users_own_is_left_alone():
    model, x, y, batch = small()
    pressed = []

    def mine(number, frame):
        pressed.append(number)
        model.stop_training = True

    signal.signal(signal.SIGINT, mine)
    try:
        model.fit(x, y, batch_size=batch, epochs=FOREVER, verbose=0, callbacks=[press_in_the_first_epoch(0.05)])
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert pressed == [signal.SIGINT]
    assert model.optimizer.iterations % 7 == 0


def test_training_in_another_thread_leaves_the_handler_alone():
    model, x, y, batch = small()
    errors = []

    def train():
        try:
            model.fit(x, y, batch_size=batch, epochs=3, verbose=0)
        except BaseException as error:  # whatever it is, the test must see it
            errors.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not errors
    assert model.optimizer.iterations == 21
