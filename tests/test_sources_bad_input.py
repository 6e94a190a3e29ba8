"""Data that cannot be used: an error that names the argument or the item, the rule and the value."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from small_nets import build, data, fit, same_bits
from small_sources import Again, Samples, Stored, endless
from test_bad_input import refused, state

from fastnn.utils import Dataset, PyDataset

X, Y = data(rows=60)
W = np.ones(60)
NAN = float("nan")


def changed(array, index, value):
    other = array.astype(float)
    other[index] = value
    return other


class Items(Samples):
    """Samples of which one is something else."""

    def __init__(self, index, item, arrays=(X, Y)):
        super().__init__(*arrays)
        self.index, self.item = index, item

    def __getitem__(self, index):
        return self.item if index == self.index else super().__getitem__(index)


class Bare:
    """Has items, but no length."""

    def __getitem__(self, index):
        return X[index], Y[index]


class Negative(Samples):
    def __len__(self):
        return -3


def batches(*changed_ones):
    """Batches of 20, some of which are something else."""
    return [dict(changed_ones).get(n, (X[20 * n : 20 * n + 20], Y[20 * n : 20 * n + 20])) for n in range(3)]


class Given(PyDataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


# What is found before anything is changed: arguments of fit, and parts of the message

EARLY = [
    ((Samples(X[:0], Y[:0]),), {}, "fit: x must have at least one sample. Received: a Samples of length 0"),
    ((Given([]),), {}, "fit: x must have at least one batch. Received: a Given of length 0"),
    ((iter([]),), {"steps_per_epoch": 2}, "fit: list_iterator must yield at least one batch"),
    ((Stored(X[:0]), Stored(Y[:0])), {}, "fit: x must have at least one row. Received: shape (0, 6)"),
    ((Bare(),), {}, "fit: x must have a length. Received: a Bare"),
    ((Negative(X, Y),), {}, "fit: x must have a length. Received: a Negative"),
    ((Dataset(),), {}, "Dataset must define __len__"),
    ((PyDataset(),), {}, "PyDataset must define __len__"),
    ((Samples(X, Y), Y), {}, "fit: y must not be given with a Samples", "y of type ndarray"),
    ((Samples(X, Y),), {"sample_weight": W}, "fit: sample_weight must not be given with a Samples"),
    ((endless(20, X, Y), Y), {"steps_per_epoch": 2}, "fit: y must not be given with a generator"),
    ((Samples(X),), {}, "fit: item 0 must be (x, y) or (x, y, sample_weight). Received: a tuple of 1"),
    ((Items(0, X[0]),), {}, "fit: item 0 must be (x, y) or (x, y, sample_weight). Received: ndarray"),
    ((Items(0, (X[0], None)),), {}, "fit: item 0 must be (x, y)", "y being None"),
    ((Items(0, (X[0], Y[0], 1.0, 2.0)),), {}, "fit: item 0 must be (x, y)", "a tuple of 4"),
    ((Items(0, (X[0], Y[0], [1.0, 2.0])),), {}, "fit: sample_weight must have shape (N,). Received: shape (1, 2)"),
    ((Items(0, ("a", Y[0])),), {}, "fit: item 0: x must hold numbers only"),
    ((Samples(X[:, :2], Y),), {}, "fit: x must have shape (N, 6). Received: shape (1, 2)"),
    ((Samples(X, np.hstack([Y, Y])),), {}, "y must have shape (N, 1)", "Received: shape (1, 2)"),
    ((Samples(X, Y + 5),), {}, "BinaryCrossentropy: y must be between 0 and 1"),
    ((Again(20, X[:, :2], Y),), {}, "fit: x must have shape (N, 6). Received: shape (1, 2)"),
    ((iter(batches((0, (X, Y[:3])))),), {"steps_per_epoch": 3}, "batch 0: x and y must have the same number of rows"),
    ((Stored(X), None), {}, "fit: y must be given. Received: y=None"),
    ((Stored(X), Y[:-1]), {}, "fit: x and y must have the same number of rows. Received: 60 and 59"),
    ((Stored(X), Stored(Y[:-1])), {}, "fit: x and y must have the same number of rows. Received: 60 and 59"),
    ((Stored(X[:, :2]), Y), {}, "fit: x must have shape (N, 6). Received: shape (1, 2)"),
    ((Stored(X.astype(complex)), Y), {}, "fit: x must hold numbers only. Received: dtype complex128"),
    ((Stored(X), changed(Y, 50, NAN)), {}, "fit: y must be finite in float32. Received: y[50, 0] = nan"),
    ((Stored(X), changed(Y, 50, 3)), {}, "BinaryCrossentropy: y must be between 0 and 1. Received: y[50, 0] = 3"),
    ((Stored(X), Y), {"sample_weight": -W}, "fit: sample_weight must not be negative. Received: -1.0"),
    ((Stored(X), Y), {"sample_weight": Stored(W[:-1])}, "fit: sample_weight must have shape (60,)", "shape (59,)"),
    ((endless(20, X, Y),), {}, "fit: steps_per_epoch must be given for a generator", "steps_per_epoch=None"),
    ((itertools.cycle(batches()),), {}, "fit: steps_per_epoch must be given for a generator"),
    ((Samples(X, Y),), {"steps_per_epoch": 0}, "fit: steps_per_epoch must be a positive integer"),
    ((Samples(X, Y),), {"steps_per_epoch": 3}, "fit: steps_per_epoch must be at most the 2 batches of the data", "=3"),
    ((X, Y), {"steps_per_epoch": 3}, "fit: steps_per_epoch must be at most the 2 batches of the data", "=3"),
    ((Given(batches()),), {"steps_per_epoch": 4}, "fit: steps_per_epoch must be at most the 3 batches", "=4"),
    ((Again(20, X, Y),), {"validation_split": 0.2}, "fit: validation_split needs rows that have numbers", "0.2"),
    ((Given(batches()),), {"validation_split": 0.2}, "fit: validation_split needs rows that have numbers"),
    ((Samples(X, Y),), {"validation_split": 0.99}, "fit: validation_split must leave rows on both sides", "60 rows"),
    ((Samples(X, Y),), {"class_weight": {0: -1}}, "fit: class_weight", "{0: -1}"),
    ((Samples(X, Y),), {"workers": -1}, "fit: workers must be a non-negative integer. Received: workers=-1"),
    ((Samples(X, Y),), {"workers": 1.5}, "fit: workers", "1.5"),
    ((X, Y), {"workers": "two"}, "fit: workers", "'two'"),
    ((X, Y), {"shuffle": "rows"}, "fit: shuffle must be True, False or 'batch'. Received: shuffle='rows'"),
    ((X, Y), {"shuffle": None}, "fit: shuffle", "None"),
    ((X, Y), {"validation_steps": 0}, "fit: validation_steps must be a positive integer"),
    ((X, Y), {"validation_data": Samples(X[:, :2], Y)}, "fit: validation_data: x must have shape (N, 6)"),
    ((X, Y), {"validation_data": Samples(X)}, "fit: validation_data: item 0 must be (x, y)"),
    ((X, Y), {"validation_data": Stored(X)}, "fit: validation_data must be (x, y) or (x, y, sample_weight)", "Stored"),
    ((X, Y), {"validation_data": endless(20, X, Y)}, "fit: validation_data: validation_steps must be given"),
    ((X, Y), {"validation_data": (Stored(X), Y[:-1])}, "fit: validation_data: x and y must have the same number"),
    ((X, Y), {"validation_data": Given(batches()), "validation_steps": 4}, "validation_steps must be at most the 3"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "options", "parts"), [(a, o, p) for a, o, *p in EARLY], ids=[e[2] for e in EARLY])
def test_what_can_be_known_before_is_said_before_anything_changes(args, options, parts):
    model = build()
    before = state(model)
    refused(lambda: model.fit(*args, verbose=0, **options), *parts)
    assert state(model) == before
    assert model.history is None


# What is found on the way: data for fit with batches of 20 in their order, the whole steps before it, and the message

LATE = [
    (Items(45, (X[0, :3], Y[0])), 2, "fit: item 45: x must have shape (6,), as in the first one", "shape (3,)"),
    (Items(45, (X[0], Y)), 2, "fit: item 45: y must have shape (1,)", "Received: shape (60, 1)"),
    (Items(45, (X[:1], Y[0])), 2, "fit: item 45: x must have shape (6,)", "Received: shape (1, 6)"),
    (Items(45, X[0]), 2, "fit: item 45 must be (x, y)", "ndarray"),
    (Items(45, (X[0], Y[0], 1.0)), 2, "fit: item 45 must not have a sample_weight, as the first one"),
    (Items(45, (X[0], Y[0]), (X, Y, W)), 2, "fit: item 45 must have a sample_weight, as the first one"),
    (Items(25, (X[0] + 1j, Y[0])), 1, "fit: item 25: x must hold numbers only. Received: dtype complex"),
    (Items(25, (["1"] * 6, Y[0])), 1, "fit: item 25: x must hold numbers only. Received: dtype <U1"),
    (Items(25, ([[1], [2, 3]], Y[0])), 1, "fit: item 25: x must be an array of numbers"),
    (Items(25, (np.ma.masked_array(X[0], X[0] > 0), Y[0])), 1, "fit: item 25: x must not have masked values"),
    (Samples(changed(X, (25, 3), NAN), Y), 1, "fit: item 25: x must be finite in float32. Received: x[3] = nan"),
    (Samples(changed(X, (25, 3), 1e300), Y), 1, "fit: item 25: x must be finite in float32. Received: x[3] = inf"),
    (Samples(X, changed(Y, 59, NAN)), 2, "fit: item 59: y must be finite in float32. Received: y[0] = nan"),
    (Samples(X, changed(Y, 59, 3)), 2, "fit: item 59: BinaryCrossentropy: y must be between 0 and 1.", "y[0] = 3"),
    (Samples(X, Y, changed(W, 30, -2)), 1, "fit: item 30: sample_weight must not be negative. Received: -2.0"),
    (Samples(X, Y, changed(W, 30, NAN)), 1, "fit: item 30: sample_weight must be finite"),
    (Given(batches((2, (X[:5], Y[:4])))), 2, "fit: batch 2: x and y must have the same number of rows", "5 and 4"),
    (Given(batches((2, (X[:0], Y[:0])))), 2, "fit: batch 2: x must have at least one row"),
    (Given(batches((1, (X[:, :2], Y)))), 1, "fit: batch 1: x must have shape (N, 6), as in the first one", "(60, 2)"),
    (Given(batches((1, "rows"))), 1, "fit: batch 1 must be (x, y) or (x, y, sample_weight). Received: str"),
    (Given(batches((1, (X, Y, W)))), 1, "fit: batch 1 must not have a sample_weight"),
    (Given(batches((1, (changed(X, (7, 2), NAN), Y)))), 1, "fit: batch 1, row 7: x must be finite", "x[2] = nan"),
    (Given(batches((2, (X, Y + 5)))), 2, "fit: batch 2, row 0: BinaryCrossentropy: y must be between 0 and 1"),
]  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("given", "steps", "parts"), [(g, s, p) for g, s, *p in LATE], ids=[e[2] for e in LATE])
def test_an_item_that_does_not_fit_is_named_and_the_steps_before_it_are_done(given, steps, parts, workers):
    model, wanted = build(), build()
    weights = W[: 20 * steps] if getattr(given, "arrays", ()) and len(given.arrays) == 3 else None
    fit(wanted, X[: 20 * steps], Y[: 20 * steps], sample_weight=weights, batch_size=20, shuffle=False)
    refused(lambda: fit(model, given, None, batch_size=20, shuffle=False, workers=workers), *parts)
    assert same_bits(model, wanted)
    assert model.optimizer.iterations == steps
    assert model._epochs == 0


STORED = [
    (Stored(changed(X, (25, 3), NAN)), Y, "fit: row 25: x must be finite in float32. Received: x[3] = nan"),
    (Stored(X), Stored(changed(Y, 25, NAN)), "fit: row 25: y must be finite in float32. Received: y[0] = nan"),
    (Stored(X), Stored(changed(Y, 25, 3)), "fit: row 25: BinaryCrossentropy: y must be between 0 and 1"),
]  # fmt: skip


@pytest.mark.parametrize(("x", "y", "part"), STORED, ids=[e[2] for e in STORED])
def test_a_row_that_does_not_fit_is_named(x, y, part):
    model = build()
    refused(lambda: model.fit(x, y, verbose=0), part)
    refused(lambda: model.evaluate(x, y), part.replace("fit", "evaluate"))


def test_an_array_whose_slices_have_other_shapes_is_refused():
    class Wrong(Stored):
        def __getitem__(self, key):
            return super().__getitem__(slice(key.start, key.stop))[:, :3] if key.start else self._array[key]

    refused(
        lambda: build().fit(Wrong(X), Y, shuffle=False, batch_size=5, verbose=0),
        "fit: x[15:30] must be an array of shape (15, 6). Received: float32 of shape (15, 3)",
    )


ASKED = [
    (lambda m: m.evaluate(Samples(X[:0], Y[:0])), "evaluate: x must have at least one sample"),
    (lambda m: m.evaluate(Samples(X)), "evaluate: item 0 must be (x, y)"),
    (lambda m: m.evaluate(Samples(X, Y), steps=3), "evaluate: steps must be at most the 2 batches", "steps=3"),
    (lambda m: m.evaluate(X, Y, steps=3), "evaluate: steps must be at most the 2 batches", "steps=3"),
    (lambda m: m.evaluate(X, Y, steps=0), "evaluate: steps must be a positive integer"),
    (lambda m: m.evaluate(X), "evaluate: y must be given. Received: y=None"),
    (lambda m: m.evaluate(itertools.repeat((X, Y))), "evaluate: steps must be given for data without an end"),
    (lambda m: m.evaluate(X, Y, workers=-1), "evaluate: workers"),
    (lambda m: m.evaluate(Given(batches((1, (X, Y[:4]))))), "evaluate: batch 1: x and y must have the same number"),
    (lambda m: m.predict(Samples(X[:0])), "predict: x must have at least one sample"),
    (lambda m: m.predict(Samples(X[:, :2])), "predict: x must have shape (N, 6). Received: shape (1, 2)"),
    (lambda m: m.predict(Items(5, X[:, 0], (X,))), "predict: item 5: x must have shape (6,)", "(60,)"),
    (lambda m: m.predict(Samples(changed(X, (5, 2), NAN))), "predict: item 5: x must be finite", "x[2] = nan"),
    (lambda m: m.predict(Stored(changed(X, (5, 2), NAN))), "predict: row 5: x must be finite", "x[2] = nan"),
    (lambda m: m.predict(Stored(X), steps=3), "predict: steps must be at most the 2 batches", "steps=3"),
    (lambda m: m.predict(X, steps=3), "predict: steps must be at most the 2 batches", "steps=3"),
    (lambda m: m.predict(X, batch_size=0), "predict: batch_size must be a positive integer"),
    (lambda m: m.predict(itertools.repeat(X)), "predict: steps must be given for data without an end"),
    (lambda m: m.predict(iter([])), "predict: list_iterator must yield at least one batch"),
    (lambda m: m.predict(X, workers=2.5), "predict: workers", "2.5"),
    (lambda m: m.predict(Bare()), "predict: x must have a length"),
    (lambda m: m.predict(Items(0, (), (X,))), "predict: item 0 must be (x, y) or (x, y, sample_weight) or x alone"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "parts"), [(c, p) for c, *p in ASKED], ids=[e[1] for e in ASKED])
def test_testing_and_predicting_say_what_is_wrong(call, parts):
    refused(lambda: call(build()), *parts)


def test_an_item_that_cannot_be_read_at_the_start_is_named():
    class Gone(Samples):
        def __getitem__(self, index):
            raise FileNotFoundError(f"{index}.png")

    model = build()
    before = state(model)
    refused(lambda: fit(model, Gone(X, Y), None), "fit: item 0 could not be read: FileNotFoundError: 0.png",
            error=RuntimeError)  # fmt: skip
    assert state(model) == before


def test_validation_that_has_come_to_its_end_says_so():
    model = build()
    warned = pytest.warns(UserWarning, match=r"fit: validation_data: the data ended after 1 of 2 batches")
    with warned, pytest.raises(ValueError, match=r"fit: validation_data: there must be at least one batch"):
        fit(model, X, Y, epochs=5, validation_data=iter(batches()), validation_steps=2)
    assert model._epochs == 2
