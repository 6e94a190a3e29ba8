"""A process forked after (or during) training on several threads trains and predicts like any other."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import threading

import numpy as np
import pytest

import fastnn
from fastnn import backends
from fastnn.layers import Dense

#: Python warns of forks among threads; that they work is what is tested.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

#: Not numpy: its threads are its BLAS's own, and OpenBLAS takes them apart at a fork, whoever is using them.
BACKENDS = [name for name in ("native", "numba") if backends.load(name).why_not() is None]
PATIENCE = 30.0


@pytest.fixture(params=BACKENDS)
def backend(request):
    """The backend, on two threads where it has any."""
    before = fastnn.get_num_threads()
    fastnn.config.set_backend(request.param)
    fastnn.set_num_threads(2)
    yield request.param
    fastnn.set_num_threads(before)
    fastnn.config.set_backend("auto")


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 300)).astype(np.float32)
    return x, x[:, :1]


def build():
    fastnn.set_seed(1)
    model = fastnn.Sequential([Dense(400, "relu", input_shape=(300,)), Dense(200, "relu"), Dense(1)])
    model.compile("adam", "mse")
    return model


def work(model):
    """Training, then a prediction: its bits."""
    x, y = data()
    model.fit(x, y, batch_size=128, epochs=2, verbose=0)
    return model.predict(x).tobytes()


def forked(job):
    """What ``job()`` returns in a forked child; fails if there is nothing in time."""
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(end)
            with os.fdopen(start, "wb") as pipe:
                pipe.write(job())
            code = 0
        finally:
            os._exit(code)
    os.close(start)
    received = b""
    with os.fdopen(end, "rb") as pipe:
        while select.select([pipe], [], [], PATIENCE)[0]:
            part = os.read(pipe.fileno(), 1 << 16)
            if not part:
                break
            received += part
        else:
            os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 0
    return received


def test_a_forked_child_trains_a_model_of_its_own(backend):
    wanted = work(build())
    assert forked(lambda: work(build())) == wanted


def test_a_forked_child_goes_on_with_its_parents_model(backend):
    model, other = build(), build()
    work(model)
    work(other)
    received = forked(lambda: work(model))
    assert received == work(other)
    assert received == work(model)  # what the child did has not touched the parent's


def test_a_child_of_a_child_works_too(backend):
    wanted = work(build())

    def job():
        work(build())
        return forked(lambda: work(build()))

    assert forked(job) == wanted


def test_a_fork_during_training_does_not_hang(backend):
    wanted = work(build())
    model, stop = build(), threading.Event()
    x, y = data()

    def train():
        while not stop.is_set():
            model.fit(x, y, batch_size=128, verbose=0)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for _ in range(3):
            assert forked(lambda: work(build())) == wanted
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not thread.is_alive()


def answer(queue, model):
    queue.put(work(model))


def test_multiprocessing_by_fork_works(backend):
    model = build()
    work(model)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=answer, args=(queue, model), daemon=True) for _ in range(2)]
    for child in children:
        child.start()
    results = {queue.get(timeout=PATIENCE) for _ in children}
    for child in children:
        child.join(PATIENCE)
    assert [child.exitcode for child in children] == [0, 0]
    assert results == {work(model)}
