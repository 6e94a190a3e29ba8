"""Images with masks from data larger than memory: the same numbers as from arrays, with weights of rows and pixels."""

from __future__ import annotations

import re

import numpy as np
import pytest
from small_nets import fit, same_bits
from small_sources import Again, Parts, Samples, Stored, endless, mapped

import fastnn
from fastnn.layers import Conv1D, Conv2D, Input
from fastnn.losses import BinaryCrossentropy, Dice, SparseCategoricalCrossentropy
from fastnn.metrics import BinaryIoU, DiceScore, MeanIoU

ROWS, BATCH, SIZES, CLASSES = 23, 5, (6, 7), 3
KINDS = ["dataset", "memmap", "stored"]
SHAPES = "(N,) or (N, 6, 7)"
RNG = np.random.default_rng(3)
X = RNG.normal(size=(ROWS, *SIZES, 2)).astype(np.float32)
LABELS = (X[..., 0] > 0.2).astype(np.uint8) + (X[..., 1] > 0.5).astype(np.uint8)
ONEHOT = np.eye(CLASSES, dtype=np.float32)[LABELS]
BINARY = (LABELS > 0).astype(np.float32)[..., None]
PIXELS = RNG.random((ROWS, *SIZES)).astype(np.float32)
ROW_WEIGHTS = RNG.random(ROWS)

#: Name: targets, loss, activation of the last layer.
TASKS = {
    "labels": (LABELS, SparseCategoricalCrossentropy() + Dice(), "softmax"),
    "labels with an axis": (LABELS[..., None], "sparse_categorical_crossentropy", "softmax"),
    "dice of labels": (LABELS, "dice", "softmax"),
    "one-hot": (ONEHOT, "dice", "softmax"),
    "binary": (BINARY, Dice() + BinaryCrossentropy(label_smoothing=0.1), "sigmoid"),
    "binary without an axis": (BINARY[..., 0], "binary_crossentropy", "sigmoid"),
}
WEIGHTS = {
    "": None,
    "rows": ROW_WEIGHTS,
    "rows with an axis": ROW_WEIGHTS[:, None],
    "pixels": PIXELS,
    "pixels with an axis": PIXELS[..., None],
}


def network(task="labels"):
    _, loss, activation = TASKS[task]
    fastnn.set_seed(7)
    outputs = 1 if activation == "sigmoid" else CLASSES
    model = fastnn.Sequential(
        [Input((*SIZES, 2)), Conv2D(4, 3, padding="same", activation="relu"), Conv2D(outputs, 1, activation=activation)]
    )
    overlap = [BinaryIoU()] if outputs == 1 else [DiceScore(target_class_ids=[1, 2], name="of two")]
    model.compile(optimizer="adam", loss=loss, metrics=["dice", MeanIoU(), *overlap, "accuracy"])
    return model


def given(kind, tmp_path, y, weights):
    """Arguments of fit and evaluate for the same data."""
    parts = [X, y] if weights is None else [X, y, weights]
    if kind == "dataset":
        return (Samples(*parts),), {}
    if kind == "memmap":
        x, y, *rest = (mapped(tmp_path / str(i), part) for i, part in enumerate(parts))
    else:
        x, y, *rest = (Stored(part, chunks=(4, *part.shape[1:])) for part in parts)
    return (x, y), {"sample_weight": rest[0] if rest else None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("weights", ["", "pixels"])
def test_training_on_masks_is_that_on_arrays_to_the_last_bit(kind, task, weights, tmp_path):
    y, w = TASKS[task][0], WEIGHTS[weights]
    options = {"epochs": 2, "batch_size": BATCH, "validation_split": 0.3}
    wanted, model = network(task), network(task)
    history = fit(wanted, X, y, sample_weight=w, **options).history
    args, more = given(kind, tmp_path, y, w)
    assert model.fit(*args, **more, **options, verbose=0).history == history
    assert {"dice", "mean_iou", "val_dice", "val_mean_iou", "val_accuracy"} < set(history)
    assert same_bits(model, wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("classes", [None, {0: 0.5, 2: 3.0}], ids=["", "classes"])
@pytest.mark.parametrize("workers", [0, 2])
def test_weights_of_rows_pixels_and_classes_go_together(kind, weights, classes, workers, tmp_path):
    w = WEIGHTS[weights]
    options = {"epochs": 2, "batch_size": BATCH, "class_weight": classes}
    wanted, model = network(), network()
    history = fit(wanted, X, LABELS, sample_weight=w, **options).history
    args, more = given(kind, tmp_path, LABELS, w)
    assert model.fit(*args, **more, **options, workers=workers, verbose=0).history == history
    assert same_bits(model, wanted)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("classes", [None, {1: 2.0}], ids=["", "classes"])
def test_batches_with_masks_train_as_arrays(weights, classes, backend):
    w = WEIGHTS[weights]
    parts = [X, LABELS] if w is None else [X, LABELS, w]
    options = {"epochs": 2, "class_weight": classes, "shuffle": False}
    wanted = network()
    history = fit(wanted, X, LABELS, sample_weight=w, batch_size=BATCH, **options).history
    steps = -(-ROWS // BATCH)
    for data, more in [
        (Parts(BATCH, *parts), {"workers": 2}),
        (Again(BATCH, *parts), {}),
        (endless(BATCH, *parts), {"steps_per_epoch": steps}),
    ]:
        model = network()
        assert fit(model, data, None, **options, **more).history == history
        assert same_bits(model, wanted)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("task", ["labels", "one-hot", "binary"])
def test_loss_dice_and_iou_of_a_source_are_those_of_arrays(weights, task, tmp_path):
    y, w = TASKS[task][0], WEIGHTS[weights]
    parts = [X, y] if w is None else [X, y, w]
    model = network(task)
    wanted = model.evaluate(X, y, sample_weight=w, return_dict=True)
    for kind in KINDS:
        args, more = given(kind, tmp_path, y, w)
        assert model.evaluate(*args, **more, workers=2, return_dict=True) == wanted
    for size in (4, 50):
        assert model.evaluate(Parts(size, *parts), return_dict=True) == wanted
        assert model.evaluate(map(tuple, Again(size, *parts)), return_dict=True) == wanted
    dice = DiceScore(threshold=None)(y, model.predict(Samples(X)))
    assert wanted["dice"] == pytest.approx(dice, abs=1e-12)


def test_a_larger_batch_on_the_way_keeps_the_counts():
    y, batches = ONEHOT, [slice(0, 3), slice(3, 15), slice(15, ROWS)]
    model = network("one-hot")
    model.optimizer.learning_rate = 0.0
    logs = fit(model, [(X[b], y[b], PIXELS[b]) for b in batches].__iter__(), None, steps_per_epoch=3).history
    wanted = model.evaluate(X, y, sample_weight=PIXELS, return_dict=True)
    assert logs["dice"] == [wanted["dice"]]
    assert logs["mean_iou"] == [wanted["mean_iou"]]
    assert logs["loss"] == pytest.approx([wanted["loss"]], rel=1e-6)


@pytest.mark.parametrize("axes", [1, 3])
def test_lines_and_volumes_have_masks_too(axes):
    sizes = (5, 4, 3)[:axes]
    rng = np.random.default_rng(axes)
    x = rng.normal(size=(9, *sizes, 1)).astype(np.float32)
    y, w = (x[..., 0] > 0).astype(np.uint8), rng.random((9, *sizes))

    def build():
        fastnn.set_seed(1)
        layer = {1: Conv1D, 3: fastnn.layers.Conv3D}[axes]
        model = fastnn.Sequential([Input((*sizes, 1)), layer(1, 1, activation="sigmoid")])
        model.compile(loss="dice", metrics=["dice", "binary_iou"])
        return model

    wanted, model = build(), build()
    history = fit(wanted, x, y, sample_weight=w, batch_size=2, class_weight={1: 2.0}).history
    assert fit(model, Samples(x, y, w), None, batch_size=2, class_weight={1: 2.0}).history == history
    assert same_bits(model, wanted)


def test_metrics_that_need_all_predictions_take_masks():
    def errors(y, p):
        assert y.shape == (ROWS, *SIZES, 1)
        assert p.shape == (ROWS, *SIZES, 1)
        return float(np.abs(y - p).mean())

    def build():
        model = network("binary")
        model.compile(loss="dice", metrics=[errors])
        return model

    wanted, model = build(), build()
    history = fit(wanted, X, BINARY, batch_size=BATCH, epochs=2).history
    assert fit(model, Samples(X, BINARY[..., 0]), None, batch_size=BATCH, epochs=2).history == history
    assert model.evaluate(Again(4, X, BINARY)) == wanted.evaluate(X, BINARY)


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


WRONG = "SparseCategoricalCrossentropy: y must hold the labels 0 to 2."
NAN = "fit: item 12: sample_weight must be finite in float32. Received: sample_weight[3, 4] = nan"
#: Data, and what the error says before anything has been trained on.
EARLY = [
    (Samples(X, LABELS[:, :3]), "y must have shape (N, 6, 7, 1). Received: shape (1, 3, 7)"),
    (Samples(X, LABELS, PIXELS[:, :3]), f"fit: sample_weight must have shape {SHAPES}. Received: shape (1, 3, 7)"),
    (Parts(5, X, LABELS, ONEHOT), f"fit: sample_weight must have shape {SHAPES}. Received: shape (1, 6, 7, 3)"),
    (Samples(X, LABELS + 9), WRONG),
]  # fmt: skip
#: And when so many rows before have been trained on.
LATE = [
    (Samples(X, changed(LABELS, (12, 3, 4), 7)), 10, f"fit: item 12: {WRONG} Received: y[3, 4] = 7"),
    (Samples(X, LABELS, changed(PIXELS, (12, 3, 4), -1)), 10, "fit: item 12: sample_weight must not be negative"),
    (Samples(X, LABELS, changed(PIXELS, (12, 3, 4), np.nan)), 10, NAN),
    (Again(10, X, changed(LABELS, (12, 0, 0), 7)), 10, f"fit: batch 1, row 2: {WRONG} Received: y[0, 0] = 7"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), EARLY, ids=[e[1] for e in EARLY])
def test_masks_and_weights_that_do_not_fit_are_refused(data, message):
    model, same = network(), network()
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(model, data, None)
    assert same_bits(model, same)


@pytest.mark.parametrize("classes", [None, {1: 2.0}], ids=["", "classes"])
@pytest.mark.parametrize(("data", "rows", "message"), LATE, ids=[e[2] for e in LATE])
def test_a_mask_that_does_not_fit_is_named_and_the_steps_before_it_are_done(data, rows, message, classes):
    model, wanted = network(), network()
    weights = PIXELS[:rows] if len(getattr(data, "arrays", ())) == 3 else None
    options = {"batch_size": 10, "shuffle": False, "class_weight": classes}
    fit(wanted, X[:rows], LABELS[:rows], sample_weight=weights, **options)
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(model, data, None, **options)
    assert same_bits(model, wanted)
