"""Models of several inputs and outputs: data by order or name, losses with weights, metrics and logs of each output."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import fastnn
from fastnn import Model, backends, losses
from fastnn.layers import Concatenate, Dense, Dropout, Input
from fastnn.utils import Dataset, PyDataset

BACKENDS = [name for name in backends.NAMES if backends.load(name).why_not() is None]
ROWS = 50


@pytest.fixture(autouse=True)
def _backend():
    yield
    fastnn.config.set_backend("auto")


def network(outputs="list", inputs="list", seed=1):
    """Two inputs, three outputs: yes or no, one of three classes, a number."""
    fastnn.set_seed(seed)
    scan, age = Input((6,), name="scan"), Input((2,), name="age")
    h = Dense(8, activation="tanh", name="hidden")(Concatenate(name="join")([scan, age]))
    h = Dropout(0.25, name="drop")(h)
    ill = Dense(1, activation="sigmoid", name="ill")(h)
    kind = Dense(3, activation="softmax", name="kind")(h)
    days = Dense(1, name="days", kernel_regularizer="l2")(h)
    ends = [ill, kind, days] if outputs == "list" else {"is_ill": ill, "which": kind, "how_long": days}
    return Model([scan, age] if inputs == "list" else {"image": scan, "years": age}, ends, name="net")


def data(rows=ROWS):
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((rows, 6)).astype("f4"), rng.standard_normal((rows, 2)).astype("f4")]
    ill = (x[0].sum(1) > 0).astype("f4")
    kind = rng.integers(0, 3, rows)
    return x, [ill, kind, (x[1][:, 0] * 2).astype("f4")]


LOSSES = ["binary_crossentropy", "sparse_categorical_crossentropy", "mse"]
WEIGHTS = [1.0, 0.5, 0.25]
NAMES = ["ill", "kind", "days"]


def compiled(model=None, **options):
    model = network() if model is None else model
    options = {"loss": LOSSES, "loss_weights": WEIGHTS, "metrics": ["accuracy", "accuracy", ["mae"]], **options}
    model.compile("adam", **options)
    return model


# ---------------------------------------------------------------------- logs


def test_logs_have_the_sum_and_the_loss_and_metrics_of_each_output():
    model = compiled()
    x, y = data()
    history = model.fit(x, y, epochs=2, validation_split=0.2, verbose=0).history
    names = ["loss", "ill_loss", "kind_loss", "days_loss", "ill_accuracy", "kind_accuracy", "days_mae"]
    assert list(history) == names + [f"val_{name}" for name in names]
    assert model.metrics_names == names
    assert all(len(values) == 2 for values in history.values())


def test_outputs_in_a_dict_give_the_logs_their_keys():
    model = network(outputs="dict")
    model.compile(
        "adam", loss={"is_ill": "binary_crossentropy", "how_long": "mae"}, metrics={"is_ill": ["accuracy", "auc"]}
    )
    x, (ill, _, days) = data()
    history = model.fit(x, {"is_ill": ill, "how_long": days}, verbose=0).history
    assert list(history) == ["loss", "is_ill_loss", "how_long_loss", "is_ill_accuracy", "is_ill_auc"]


def by_hand(model, x, y, weights=(None, None, None)):
    """Loss of each output, and the weighted sum with the penalty, of predictions."""
    p = model.predict(x)
    each = []
    for loss, truth, found, w in zip(LOSSES, y, p, weights, strict=True):
        values = np.asarray(losses.get(loss).rows(truth.reshape(-1, 1).astype("f8"), found.astype("f8")))
        each.append(float(np.mean(values if w is None else values * w)))
    penalty = 0.01 * float(np.sum(model.get_layer("days").get_weights()[0].astype("f8") ** 2))
    return each, float(np.dot(each, WEIGHTS)) + penalty


def test_the_loss_is_the_weighted_sum_and_the_penalty():
    model = compiled()
    x, y = data()
    found = model.evaluate(x, y, return_dict=True)
    each, total = by_hand(model, x, y)
    assert found["loss"] == pytest.approx(total, rel=1e-5)
    assert [found[f"{name}_loss"] for name in NAMES] == pytest.approx(each, rel=1e-5)
    ill, kind, days = model.predict(x)
    assert found["ill_accuracy"] == pytest.approx(np.mean((ill[:, 0] > 0.5) == y[0]))
    assert found["kind_accuracy"] == pytest.approx(np.mean(kind.argmax(1) == y[1]))
    assert found["days_mae"] == pytest.approx(np.mean(abs(days[:, 0] - y[2])), rel=1e-5)
    assert model.evaluate(x, y) == list(found.values())


def test_metrics_that_need_all_predictions_are_those_of_their_output():
    model = compiled(metrics=["auc", None, "r2"])
    x, y = data()
    found = model.evaluate(x, y, return_dict=True)
    ill, _, days = model.predict(x)
    assert found["ill_auc"] == fastnn.metrics.AUC()(y[0], ill)
    assert found["days_r2"] == pytest.approx(fastnn.metrics.R2Score()(y[2], days))
    history = model.fit(x, y, verbose=0, validation_data=(x, y)).history
    assert {"ill_auc", "days_r2", "val_ill_auc", "val_days_r2"} <= set(history)


# ---------------------------------------------------------------------- gradients and training


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_goes_against_the_gradient_of_the_weighted_sum(backend):
    fastnn.config.set_backend(backend)
    x, y = data(20)
    model = network()
    model.get_layer("drop").rate = 0.0
    model.compile(fastnn.optimizers.SGD(1.0), LOSSES, loss_weights=WEIGHTS)
    before = [w.astype("f8") for w in model.get_weights()]
    model.train_on_batch(x, y)
    steps = [a - b for a, b in zip(before, model.get_weights(), strict=True)]
    rng = np.random.default_rng(1)
    for number, value in enumerate(before):
        direction = rng.standard_normal(value.shape)
        ends = []
        for sign in (1, -1):
            moved = value + sign * 1e-2 * direction
            model.set_weights([moved if i == number else v for i, v in enumerate(before)])
            ends.append(model.evaluate(x, y)[0])
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(np.sum(steps[number] * direction), rel=2e-2, abs=2e-3)


def test_one_of_several_outputs_trains_like_a_model_with_it_alone():
    x, y = data()
    model = network(seed=4)
    model.compile("adam", loss={"days": "mse"})
    alone = Model(model.inputs, model.outputs[2], name="alone")
    weights = model.get_weights()
    model.fit(x, {"days": y[2]}, epochs=3, verbose=0)
    trained = model.get_layer("days").get_weights()
    model.set_weights(weights)
    alone.seed = model.seed
    alone.compile("adam", loss="mse")
    alone.fit(x, y[2], epochs=3, verbose=0)
    for a, b in zip(trained, alone.get_layer("days").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_output_without_a_loss_keeps_its_own_layer():
    x, y = data()
    model = compiled(loss=["binary_crossentropy", None, "mse"], metrics=None)
    before = [w.copy() for w in model.get_layer("kind").get_weights()]
    history = model.fit(x, [y[0], None, y[2]], verbose=0).history
    assert list(history) == ["loss", "ill_loss", "days_loss"]
    for a, b in zip(before, model.get_layer("kind").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def same_after(fits):
    """All these ways of training end with the same bits."""
    found = []
    for fit in fits:
        model = compiled()
        history = fit(model)
        found.append((history.history, model.get_weights()))
    for history, weights in found[1:]:
        assert history == found[0][0]
        for a, b in zip(weights, found[0][1], strict=True):
            np.testing.assert_array_equal(a, b)


def test_lists_and_dicts_in_any_order_are_the_same():
    x, y = data()
    by_name = dict(zip(NAMES[::-1], y[::-1], strict=True))
    options = {"epochs": 2, "batch_size": 16, "validation_split": 0.3, "verbose": 0}
    same_after(
        [
            lambda m: m.fit(x, y, **options),
            lambda m: m.fit({"age": x[1], "scan": x[0]}, by_name, **options),
            lambda m: m.fit(tuple(x), tuple(y), **options),
        ]
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_bits(threads):
    x, y = data(200)
    model = compiled()
    before = fastnn.config.get_num_threads()
    try:
        fastnn.config.set_num_threads(threads)
        model.fit(x, y, epochs=2, verbose=0)
        found = model.predict(x)
    finally:
        fastnn.config.set_num_threads(before)
    expected = compiled()
    expected.fit(x, y, epochs=2, verbose=0)
    for a, b in zip(found, expected.predict(x), strict=True):
        np.testing.assert_array_equal(a, b)


class Samples(Dataset):
    """One row an item, named or in order."""

    def __init__(self, rows=ROWS, named=False, weights=False, broken=None):
        self.data, self.named, self.weights, self.broken = data(rows), named, weights, broken
        self.rows = rows

    def __len__(self):
        return self.rows

    def __getitem__(self, index):
        if index == self.broken:
            raise OSError("gone")
        x, y = ([a[index] for a in side] for side in self.data)
        if self.named:
            x, y = dict(zip(["scan", "age"], x, strict=True)), dict(zip(NAMES, y, strict=True))
        return (x, y, {"days": 0.5}) if self.weights else (x, y)


class Parts(PyDataset):
    """Ten rows an item."""

    def __len__(self):
        return ROWS // 10

    def __getitem__(self, index):
        rows = slice(10 * index, 10 * index + 10)
        return tuple([a[rows] for a in side] for side in data())


@pytest.mark.parametrize("named", [False, True])
def test_a_dataset_trains_to_the_same_bits_as_arrays(named):
    x, y = data()
    options = {"epochs": 2, "batch_size": 16, "validation_split": 0.2, "verbose": 0}
    same_after([lambda m: m.fit(x, y, **options), lambda m: m.fit(Samples(named=named), workers=2, **options)])


def test_batches_and_generators_train_to_the_same_bits_as_arrays():
    x, y = data()
    options = {"epochs": 2, "shuffle": False, "verbose": 0}
    parts = Parts()
    same_after(
        [
            lambda m: m.fit(x, y, batch_size=10, **options),
            lambda m: m.fit(parts, **options),
            lambda m: m.fit((parts[i % 5] for i in range(10)), steps_per_epoch=5, **options),
        ]
    )


def test_memory_maps_train_to_the_same_bits_as_arrays(tmp_path):
    x, y = data()
    maps = []
    for number, array in enumerate(x):
        np.save(tmp_path / f"{number}.npy", array)
        maps.append(np.load(tmp_path / f"{number}.npy", mmap_mode="r"))
    options = {"epochs": 2, "verbose": 0}
    same_after([lambda m: m.fit(x, y, **options), lambda m: m.fit(maps, y, **options)])
    model = compiled()
    for a, b in zip(model.predict(maps), model.predict(x), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("source", [Samples, Parts])
def test_metrics_over_sources_are_those_over_arrays(source):
    model = compiled(metrics=["auc", None, "r2"])
    x, y = data()
    assert model.evaluate(source()) == model.evaluate(x, y)
    history = model.fit(source(), verbose=0, validation_data=source()).history
    assert {"ill_auc", "val_days_r2"} <= set(history)


# ---------------------------------------------------------------------- weights


def test_weights_of_rows_are_for_all_outputs_or_by_name():
    model = compiled(metrics=None)
    x, y = data()
    w = np.linspace(0.1, 2, ROWS)
    found = model.evaluate(x, y, sample_weight=w, return_dict=True)
    assert [found[f"{n}_loss"] for n in NAMES] == pytest.approx(by_hand(model, x, y, (w, w, w))[0], rel=1e-5)
    found = model.evaluate(x, y, sample_weight={"days": w}, return_dict=True)
    assert [found[f"{n}_loss"] for n in NAMES] == pytest.approx(by_hand(model, x, y, (None, None, w))[0], rel=1e-5)
    listed = model.evaluate(x, y, sample_weight=[None, None, w], return_dict=True)
    assert listed == found


def test_weights_in_the_items_of_a_dataset_are_by_name():
    options = {"batch_size": 16, "verbose": 0}
    x, y = data()
    weights = {"days": np.full(ROWS, 0.5)}
    same_after(
        [
            lambda m: m.fit(x, y, sample_weight=weights, **options),
            lambda m: m.fit(Samples(named=True, weights=True), **options),
        ]
    )


def test_class_weights_are_by_output():
    x, y = data()
    table = {"kind": {0: 2.0, 1: 0.5}}
    weights = {"kind": np.array([2.0, 0.5, 1.0])[y[1]]}
    same_after(
        [
            lambda m: m.fit(x, y, class_weight=table, verbose=0),
            lambda m: m.fit(x, y, sample_weight=weights, verbose=0),
        ]
    )


# ---------------------------------------------------------------------- predicting


def test_predictions_come_as_the_outputs_were_given():
    x, _ = data()
    listed, named = network(), network(outputs="dict", inputs="dict")
    named.set_weights(listed.get_weights())
    a, b = listed.predict(x), named.predict({"image": x[0], "years": x[1]})
    assert [p.shape for p in a] == [(ROWS, 1), (ROWS, 3), (ROWS, 1)]
    assert list(b) == ["is_ill", "which", "how_long"]
    for p, q in zip(a, b.values(), strict=True):
        np.testing.assert_array_equal(p, q)
    for p, q in zip(a, listed(x), strict=True):
        np.testing.assert_array_equal(p, q)
    for p, q in zip(a, listed.predict(x, batch_size=7, steps=2), strict=True):
        np.testing.assert_array_equal(p[:14], q)


@pytest.mark.parametrize("item", [lambda x: x, lambda x: (x,), lambda x: dict(zip(["scan", "age"], x, strict=True))])
def test_predictions_for_sources_without_targets(item):
    x, _ = data()

    class Inputs(Dataset):
        def __len__(self):
            return ROWS

        def __getitem__(self, index):
            return item([a[index] for a in x])

    model = network()
    for source in (Inputs(), (item([a[i : i + 20] for a in x]) for i in range(0, ROWS, 20)), Samples()):
        for p, q in zip(model.predict(source), model.predict(x), strict=True):
            np.testing.assert_array_equal(p, q)


def test_an_input_that_is_an_output_too_comes_through():
    x = Input((3,), name="x")
    model = Model(x, [x, Dense(2)(x), Dense(1)(x)])
    rows = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(model.predict(rows)[0], rows)


def test_one_tensor_twice_among_the_outputs():
    x = Input((3,), name="x")
    h = Dense(2, name="h")(x)
    model = Model(x, [h, h])
    first, second = model.predict(np.ones((4, 3)))
    np.testing.assert_array_equal(first, second)
    model.compile("sgd", ["mse", "mae"])
    assert model.metrics_names == ["loss", "h_loss", "h_1_loss"]


def test_a_list_of_one_input_takes_it_alone_too():
    x = Input((3,), name="x")
    model = Model([x], [Dense(1)(x)])
    rows = np.ones((4, 3))
    (a,), (b,) = model.predict([rows]), model.predict(rows)
    np.testing.assert_array_equal(a, b)
    model.compile("sgd", "mse", metrics=["mae"])
    assert list(model.fit(rows, np.ones(4), verbose=0).history) == ["loss", "mae"]


# ---------------------------------------------------------------------- around training


def test_saving_keeps_losses_weights_and_metrics(tmp_path):
    x, y = data()
    model = compiled()
    model.fit(x, y, epochs=2, verbose=0)
    path = tmp_path / "model.fastnn"
    model.save(path)
    for other in (fastnn.load_model(path), copy.deepcopy(model)):
        assert other.evaluate(x, y, return_dict=True) == model.evaluate(x, y, return_dict=True)
        assert other.objectives.weights == WEIGHTS
    loaded = fastnn.load_model(path)
    model.fit(x, y, verbose=0)
    loaded.fit(x, y, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_file_without_some_losses(tmp_path):
    x, y = data()
    model = compiled(loss={"days": "mse"}, loss_weights=None, metrics=None)
    model.save(tmp_path / "model.fastnn")
    loaded = fastnn.load_model(tmp_path / "model.fastnn")
    assert loaded.evaluate(x, [None, None, y[2]]) == model.evaluate(x, [None, None, y[2]])
    assert [loss is None for loss in loaded.loss] == [True, True, False]


def test_callbacks_see_the_logs_of_outputs():
    x, y = data()
    model = compiled()
    stop = fastnn.callbacks.EarlyStopping("val_days_loss", patience=0, min_delta=1e9)
    model.fit(x, y, epochs=9, validation_split=0.3, callbacks=[stop], verbose=0)
    assert len(model.history.history["loss"]) == 2


def test_profile_and_plan():
    x, y = data()
    model = compiled()
    assert len(model.profile(x, y, seconds=0).steps) == len(model.plan(batch_size=32).steps)
    assert len(model.profile(x, seconds=0).steps) == len(model.plan(training=False).steps)


def test_every_layer_of_a_deep_network_may_be_an_output(backend):
    x = entry = Input((3,))
    tensors = [x := Dense(3, activation="tanh")(x) for _ in range(150)]
    model = Model(entry, tensors)
    rows = np.random.default_rng(0).standard_normal((4, 3), np.float32)
    found = model.predict(rows, verbose=0)
    assert len(found) == 150
    np.testing.assert_array_equal(found[-1], Model(entry, tensors[-1]).predict(rows, verbose=0))


def test_googlenet_trains_with_its_auxiliary_classifiers():
    model = fastnn.applications.GoogLeNet((32, 32, 1), classes=2, auxiliary=True)
    model.compile("adam", "sparse_categorical_crossentropy", loss_weights=[1.0, 0.3, 0.3])
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 32, 32, 1)), np.array([0, 1, 0, 1])
    history = model.fit(x, [y, y, y], epochs=2, verbose=0).history
    assert list(history) == ["loss", "fc_loss", "aux1.fc2_loss", "aux2.fc2_loss"]
    parts = [history[name][0] for name in list(history)[1:]]
    assert history["loss"][0] == pytest.approx(np.dot(parts, [1.0, 0.3, 0.3]), rel=1e-5)


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": None}, "loss must be given"),
        ({"loss": {}}, "loss must be given for an output"),
        (
            {"loss": ["mse", "mse"]},
            "loss must be a list of 3, or a dict with the keys ill, kind, days. Received: list of 2",
        ),
        ({"loss": {"il": "mse"}}, "loss must have the keys ill, kind, days. Received: il"),
        ({"loss": ["mse", "msee", "mse"]}, "msee"),
        ({"loss_weights": [1, 2]}, "loss_weights must be a list of 3"),
        ({"loss_weights": [1, 2, -1]}, "loss_weights"),
        ({"loss_weights": {"days": "much"}}, "loss_weights"),
        ({"loss_weights": 2.0}, "loss_weights must be a list of 3"),
        ({"metrics": ["accuracy"]}, "metrics must be a list of 3"),
        ({"metrics": {"day": "mae"}}, "metrics must have the keys"),
        ({"metrics": {"days": ["mae", "mae"]}}, "different names"),
        ({"loss": {"days": "mse"}, "metrics": {"ill": "accuracy"}}, "metrics of 'ill'"),
    ],
)
def test_compile_refuses(options, message):
    model = compiled()
    before = model.objectives
    with pytest.raises(ValueError, match=message):
        compiled(model, **options)
    assert model.objectives is before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[0], y), "x must be a list of 2, or a dict with the keys scan, age. Received: ndarray"),
        (lambda x, y: ([x[0]], y), "x must be a list of 2.*Received: list of 1"),
        (lambda x, y: ({"scan": x[0]}, y), "x must have the keys scan, age. Received: scan"),
        (lambda x, y: ({"scan": x[0], "age": x[1], "sex": x[1]}, y), "keys scan, age. Received: scan, age, sex"),
        (lambda x, y: (x[::-1], y), r"x\['scan'\] must have shape \(N, 6\)"),
        (lambda x, y: ([x[0], x[1][:3]], y), r"x\['scan'\] and x\['age'\] must have the same number of rows"),
        (lambda x, y: ([x[0], x[1] * np.nan], y), r"x\['age'\] must be finite.*x\['age'\]\[0, 0\] = nan"),
        (lambda x, y: (x, y[:2]), "y must be a list of 3"),
        (lambda x, y: (x, None), "y must be given"),
        (lambda x, y: (x, {"ill": y[0], "kind": y[1]}), r"y\['days'\] must be given"),
        (lambda x, y: (x, [y[0], y[1], y[2][:9]]), r"x\['scan'\] and y\['days'\] must have the same number of rows"),
        (
            lambda x, y: (x, [y[0], y[1] + 1, y[2]]),
            "output 'kind': SparseCategoricalCrossentropy: y must hold the labels",
        ),
        (lambda x, y: (x, [y[0][:, None].repeat(2, 1), y[1], y[2]]), "output 'ill': .*y must have shape"),
        (lambda x, y: (x, y, {"days": -np.ones(ROWS)}), "output 'days': .*sample_weight must not be negative"),
        (lambda x, y: (x, y, {"day": np.ones(ROWS)}), "sample_weight must have the keys"),
    ],
)
def test_data_that_do_not_fit_are_named(change, message):
    model = compiled()
    before = model.get_weights()
    given = change(*data())
    for use in (
        lambda: model.fit(*given[:2], sample_weight=given[2] if len(given) > 2 else None, verbose=0),
        lambda: model.evaluate(*given[:2], sample_weight=given[2] if len(given) > 2 else None),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_class_weights_need_the_names_of_outputs():
    x, y = data()
    with pytest.raises(ValueError, match="class_weight must be a dict by the names of outputs ill, kind, days"):
        compiled().fit(x, y, class_weight={0: 1.0})


def test_an_item_that_fails_is_named_and_the_steps_before_it_count():
    model = compiled()
    with pytest.raises(RuntimeError, match="item 30 could not be read: OSError: gone"):
        model.fit(Samples(broken=30), batch_size=10, shuffle=False, verbose=0)
    other = compiled()
    x, y = data()
    other.fit([a[:30] for a in x], [a[:30] for a in y], batch_size=10, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_items_must_have_the_parts_of_the_first():
    class Odd(Samples):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return (x, y, {"days": 1.0}) if index == 7 else (x, y)

    with pytest.raises(ValueError, match=r"item 7 must not have a sample_weight\['days'\]"):
        compiled().fit(Odd(), shuffle=False, verbose=0)

    class Short(Samples):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return (x[:1], y) if index == 7 else (x, y)

    with pytest.raises(ValueError, match="item 7: x must be a list of 2"):
        compiled().fit(Short(), shuffle=False, verbose=0)


def test_a_file_whose_losses_do_not_fit_is_refused(tmp_path):
    arrays, state = compiled().state()
    state["compile"]["loss_weights"] = [1.0]
    with pytest.raises(ValueError, match="one entry an output"):
        network().restore(arrays, state)
    arrays, state = compiled().state()
    for name in ("loss", "loss_weights", "metrics"):
        state["compile"][name] = state["compile"][name][:2]
    with pytest.raises(ValueError, match="outputs"):
        network().restore(arrays, state)
