"""The same bits: for any number of threads, any batch, each run. Close numbers: on every backend."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn import backends
from fastnn.backends import native
from fastnn.layers import Dense, Dropout

BACKENDS = [name for name in backends.NAMES if backends.load(name).why_not() is None]
NATIVE = native.isas() if native.why_not() is None else []


@pytest.fixture
def engine(request):
    """A backend, for native with one instruction set."""
    name, _, isa = request.param.partition("-")
    before = (native.isa(), native.threads()) if isa else None
    fastnn.config.set_backend(name)
    if isa:
        native.choose_isa(isa)
    yield name
    fastnn.config.set_backend("auto")
    if before is not None:
        native.choose_isa(before[0])
        native.set_threads(before[1])


every_isa = pytest.mark.parametrize("engine", [f"native-{isa}" for isa in NATIVE], indirect=True)
every_engine = pytest.mark.parametrize(
    "engine", [*(f"native-{isa}" for isa in NATIVE), *(name for name in BACKENDS if name == "numba")], indirect=True
)


def article(optimizer="adam"):
    """The article's net and data like its own."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(455, 30)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(np.float32)
    fastnn.set_seed(1)
    model = fastnn.Sequential(
        [Dense(64, activation="relu", input_shape=(30,)), Dense(32, activation="relu"), Dense(1, activation="sigmoid")]
    )
    model.compile(optimizer=optimizer, loss="binary_crossentropy", metrics=["accuracy"])
    return model, x, y, 32


def wide(optimizer="adam"):
    """Layers so wide that the threads share their steps, with dropout."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(500, 784)).astype(np.float32)
    y = rng.integers(0, 10, 500)
    fastnn.set_seed(3)
    model = fastnn.Sequential(
        [Dropout(0.1, input_shape=(784,)), Dense(256, activation="relu"), Dropout(0.4), Dense(10, activation="softmax")]
    )
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, x, y, 128


def train(make, epochs=3, **options):
    model, x, y, batch = make(**options)
    history = model.fit(x, y, batch_size=batch, epochs=epochs, validation_split=0.1, verbose=0).history
    return [w.tobytes() for w in model.get_weights()], history, model.predict(x).tobytes()


@every_isa
@pytest.mark.parametrize("make", [article, wide])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_training_gives_the_same_bits_for_any_number_of_threads(make, optimizer, engine):
    results = []
    for threads in (1, 2, 3):
        fastnn.set_num_threads(threads)
        assert fastnn.get_num_threads() == threads
        results.append(train(make, optimizer=optimizer))
    assert results[0] == results[1] == results[2]


@every_isa
def test_threads_may_change_between_two_fits(engine):
    model, x, y, batch = wide()
    other = wide()[0]
    for threads in (1, 2, 3, 2):
        fastnn.set_num_threads(threads)
        model.fit(x, y, batch_size=batch, verbose=0)
    fastnn.set_num_threads(1)
    other.fit(x, y, batch_size=batch, epochs=4, verbose=0)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


@every_engine
@pytest.mark.parametrize("make", [article, wide])
def test_a_prediction_has_the_same_bits_whoever_shares_the_batch(make, engine):
    model, x, _, _ = make()
    x = np.concatenate([x, x[::-1]])  # several of the batches that predict takes
    whole = model.predict(x)
    rng = np.random.default_rng(4)
    slices = [
        (0, 1),
        (0, 2),
        (1, 2),
        (1, 18),
        (3, 34),
        (100, 355),
        (100, 356),
        (100, 357),
        (255, 258),
        (len(x) - 1, len(x)),
    ]
    slices += [(int(a), int(a + n)) for a, n in zip(rng.integers(0, len(x), 40), rng.integers(1, 400, 40), strict=True)]
    for start, stop in slices:
        for ask in (model.predict, model.predict_on_batch):
            assert ask(x[start:stop]).tobytes() == whole[start:stop].tobytes(), (start, stop)
    for row in range(0, len(x), 7):
        assert model(x[row : row + 1]).tobytes() == whole[row].tobytes(), row
    shuffled = rng.permutation(len(x))
    assert model.predict(x[shuffled]).tobytes() == whole[shuffled].tobytes()


@every_isa
def test_predictions_have_the_same_bits_for_any_number_of_threads(engine):
    model, x, _, _ = wide()
    x = np.concatenate([x] * 4)
    results = set()
    for threads in (1, 2, 3):
        fastnn.set_num_threads(threads)
        results |= {model.predict(x).tobytes()}
    assert len(results) == 1


@pytest.mark.parametrize("engine", BACKENDS, indirect=True)
@pytest.mark.parametrize("make", [article, wide])
def test_the_same_seed_gives_the_same_bits(make, engine):
    assert train(make, epochs=2) == train(make, epochs=2)


def test_models_made_after_set_seed_differ_from_each_other():
    def two():
        fastnn.set_seed(5)
        models = [fastnn.Sequential([Dense(4, input_shape=(3,)), Dense(4)]) for _ in range(2)]
        return [m.get_weights()[0].tobytes() for m in models] + [models[0].get_weights()[2].tobytes()]

    first, second = two(), two()
    assert first == second
    assert len(set(first)) == 3
    fastnn.set_seed(6)
    assert fastnn.Sequential([Dense(4, input_shape=(3,))]).get_weights()[0].tobytes() not in first


def test_backends_shuffle_and_drop_alike_and_so_agree_closely():
    for make, epochs in ((article, 4), (wide, 3)):
        histories = []
        for name in BACKENDS:
            fastnn.config.set_backend(name)
            histories.append(train(make, epochs=epochs)[1])
        fastnn.config.set_backend("auto")
        for history in histories[1:]:
            for key in ("loss", "val_loss"):
                np.testing.assert_allclose(history[key], histories[0][key], rtol=1e-4)
            np.testing.assert_allclose(history["accuracy"], histories[0]["accuracy"], atol=0.01)


def test_dropout_masks_are_the_same_on_every_backend():
    x = np.ones((200, 50), np.float32)
    weights = []
    for name in BACKENDS:
        fastnn.config.set_backend(name)
        fastnn.set_seed(9)
        model = fastnn.Sequential([Dropout(0.5, input_shape=(50,)), Dense(1, kernel_initializer="zeros")])
        model.compile(fastnn.optimizers.SGD(1.0), "mse")
        for _ in range(3):  # the gradient of an input's weight counts how often it was kept
            model.train_on_batch(x, np.ones((200, 1)))
        weights.append(model.get_weights()[0])
    fastnn.config.set_backend("auto")
    assert len(np.unique(weights[0])) > 10
    for other in weights[1:]:
        np.testing.assert_allclose(other, weights[0], rtol=1e-4)


def test_instruction_sets_agree_closely():
    losses = []
    before = native.isa() if NATIVE else None
    for isa in NATIVE:
        native.choose_isa(isa)
        losses.append(train(wide)[1]["loss"])
    if before is not None:
        native.choose_isa(before)
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=1e-4)
