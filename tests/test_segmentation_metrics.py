"""Dice score and intersection over union: counted by the engine, the same on every backend."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import fastnn
from fastnn import losses, metrics
from fastnn.backends import native
from fastnn.layers import Activation, Conv2D, Input
from fastnn.metrics import BinaryIoU, DiceScore, IoU, MeanIoU, OneHotIoU, OneHotMeanIoU

NATIVE = native.isas() if native.why_not() is None else []


def regions(outputs=3, rows=9, space=(6, 5), seed=0):
    """Predictions (N, ..., C) that are right more often than not, and labels (N, ...)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, max(outputs, 2), (rows, *space))
    if outputs == 1:
        return np.where(rng.random(labels.shape) < 0.7, labels, 0.4)[..., None].astype(np.float32), labels
    p = rng.dirichlet(np.ones(outputs), labels.shape) + 0.4 * np.eye(outputs)[labels]
    return (p / p.sum(-1, keepdims=True)).astype(np.float32), labels


def counted(found, labels, classes):
    """True positives, false positives and false negatives of each class, pixel by pixel."""
    counts = np.zeros((3, classes))
    for f, t in zip(found.ravel(), labels.ravel(), strict=True):
        if f == t:
            counts[0, f] += 1
        else:
            counts[1, f] += 1
            counts[2, t] += 1
    return counts


def asking(outputs, loss, space=(6, 5), **options):
    """A model that predicts its input."""
    model = fastnn.Sequential([Input((*space, outputs)), Activation("linear")])
    model.compile("sgd", loss, **options)
    return model


def test_the_examples_of_keras():
    assert IoU(2, [0])([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(1 / 3)
    assert MeanIoU(num_classes=2)([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(1 / 3)
    assert BinaryIoU([0, 1], threshold=0.3)([0, 1, 0, 1], [0.1, 0.2, 0.4, 0.7]) == pytest.approx(1 / 3)
    y = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 0, 0]])
    p = np.array([[0.2, 0.3, 0.5], [0.1, 0.2, 0.7], [0.5, 0.3, 0.1], [0.1, 0.4, 0.5]])
    # found 2 2 0 2, true 2 0 1 0: of class 2 one of three, of the others none
    assert OneHotIoU(3, [0, 2])(y, p) == pytest.approx((0 + 1 / 3) / 2)
    assert OneHotMeanIoU(3)(y, p) == pytest.approx(1 / 9)


@pytest.mark.parametrize("space", [(7,), (6, 5), (3, 4, 2)])
@pytest.mark.parametrize("name", ["precision", "recall", "specificity", "f1_score", "auc", "binary_accuracy", "mae"])
def test_metrics_of_decisions_are_those_of_all_pixels(name, space):
    rng = np.random.default_rng(0)
    p = rng.random((9, *space, 1)).astype(np.float32)
    labels = (rng.random(p.shape) < p)[..., 0].astype(int)
    model = asking(1, "dice", space, metrics=[name])
    metric = metrics.get(name, losses.Dice(), 1)
    wanted = metric(labels.reshape(-1, 1), p.reshape(-1, 1))
    assert 0.1 < wanted < 0.9
    assert metric(labels[..., None], p) == pytest.approx(wanted, rel=1e-12)
    assert model.evaluate(p, labels, return_dict=True)[name] == pytest.approx(wanted, rel=1e-6)
    assert model.fit(p, labels, batch_size=4, epochs=1, verbose=0).history[name][0] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("form", ["label", "column", "onehot"])
def test_scores_of_an_epoch_are_those_of_all_its_pixels(form, backend):
    p, labels = regions()
    y = {"label": labels, "column": labels[..., None], "onehot": np.eye(3)[labels]}[form]
    asked = [DiceScore(), MeanIoU(), DiceScore([1], name="dice of 1"), IoU(3, [0, 2])]
    asked += [OneHotMeanIoU(3)] * (form == "onehot")
    model = asking(3, "categorical_focal_crossentropy", metrics=[*asked, "accuracy"])
    found = model.evaluate(p, y, return_dict=True)
    tp, fp, fn = counted(p.argmax(-1), labels, 3)
    dice, iou = 2 * tp / (2 * tp + fp + fn), tp / (tp + fp + fn)
    assert found["dice_score"] == dice.mean()
    assert found["mean_iou"] == iou.mean()
    assert found["dice of 1"] == dice[1]
    assert found["iou"] == iou[[0, 2]].mean()
    assert found["accuracy"] == pytest.approx((p.argmax(-1) == labels).mean(), rel=1e-6)
    assert [m(y, p) for m in asked] == [found[m.name] for m in asked]
    if form == "onehot":
        assert found["one_hot_mean_iou"] == iou.mean()


def test_one_output_has_two_classes(backend):
    p, labels = regions(outputs=1)
    asked = [DiceScore(), MeanIoU(2), BinaryIoU(), BinaryIoU([1], 0.3, name="low"), IoU(2, [0]), "accuracy"]
    found = asking(1, "binary_crossentropy", metrics=asked).evaluate(p, labels, return_dict=True)
    tp, fp, fn = counted((p[..., 0] > 0.5).astype(int), labels, 2)
    iou = tp / (tp + fp + fn)
    assert found["dice_score"] == 2 * tp[1] / (2 * tp[1] + fp[1] + fn[1])
    assert found["mean_iou"] == found["binary_iou"] == iou.mean()
    assert found["iou"] == iou[0]
    tp, fp, fn = counted((p[..., 0] > 0.3).astype(int), labels, 2)
    assert found["low"] == (tp / (tp + fp + fn))[1]


def test_regions_that_overlap_are_counted_each_by_itself(backend):
    rng = np.random.default_rng(2)
    p, y = rng.random((5, 6, 5, 3)).astype(np.float32), rng.integers(0, 2, (5, 6, 5, 3))
    model = asking(3, "binary_crossentropy", metrics=[DiceScore(threshold=0.5), "binary_iou", "dice"])
    found = model.evaluate(p, y, return_dict=True)
    scores = []
    for c in range(3):
        tp, fp, fn = counted((p[..., c] > 0.5).astype(int), y[..., c], 2)[:, 1]
        scores.append(2 * tp / (2 * tp + fp + fn))
    assert found["dice_score"] == found["dice"] == pytest.approx(np.mean(scores), rel=1e-12)
    tp, fp, fn = counted((p > 0.5).astype(int), y, 2)
    assert found["binary_iou"] == (tp / (tp + fp + fn)).mean()


@pytest.mark.parametrize("outputs", [1, 3])
def test_metrics_by_name_take_logits_for_what_they_are(outputs, backend):
    p, labels = regions(outputs)
    names = ["accuracy", "dice", "mean_iou"] + ["binary_iou"] * (outputs == 1)
    if outputs == 1:
        z = np.log(p + 1e-3) - np.log(1 - p + 1e-3)
        chosen = [losses.BinaryCrossentropy(from_logits=True), losses.BinaryCrossentropy()]
    else:
        z = np.log(p)
        chosen = [losses.SparseCategoricalCrossentropy(from_logits=True), losses.SparseCategoricalCrossentropy()]
    found = [asking(outputs, c, metrics=names).evaluate(x, labels)[1:] for c, x in zip(chosen, (z, p), strict=True)]
    assert found[0] == found[1]


def test_classes_that_are_nowhere_do_not_count():
    p, labels = regions()
    p, labels = np.concatenate([p, np.zeros((9, 6, 5, 2), np.float32)], -1), labels
    assert MeanIoU()(labels, p) == MeanIoU()(labels, p[..., :3])
    assert np.isnan(IoU(5, [3, 4])(labels, p))
    assert IoU(5, [0, 4])(labels, p) == IoU(5, [0])(labels, p)


def small(**options):
    fastnn.set_seed(2)
    model = fastnn.Sequential([Input((8, 9, 2)), Conv2D(4, 3, padding="same"), Conv2D(3, 1, activation="softmax")])
    model.compile("adam", losses.Dice() + losses.SparseCategoricalCrossentropy(), **options)
    return model


def test_scores_of_training_and_validation(backend):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 8, 9, 2)).astype(np.float32), rng.integers(0, 3, (20, 8, 9))
    model = small(metrics=["dice_score", "mean_iou", "accuracy"])
    history = model.fit(x, y, epochs=2, batch_size=6, validation_data=(x, y), verbose=0).history
    assert list(history) == ["loss", "dice_score", "mean_iou", "accuracy"] + [
        f"val_{name}" for name in ("loss", "dice_score", "mean_iou", "accuracy")
    ]
    tp, fp, fn = counted(model.predict(x).argmax(-1), y, 3)
    assert history["val_dice_score"][-1] == (2 * tp / (2 * tp + fp + fn)).mean()
    assert history["val_mean_iou"][-1] == (tp / (tp + fp + fn)).mean()
    model.optimizer.learning_rate = 0.0
    history = model.fit(x, y, epochs=1, batch_size=6, verbose=0).history  # the weights stay as they are
    assert history["dice_score"][-1] == (2 * tp / (2 * tp + fp + fn)).mean()


@pytest.mark.parametrize("isa", NATIVE)
def test_scores_are_the_same_for_any_number_of_threads_and_any_batch(isa):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 8, 9, 2)).astype(np.float32), rng.integers(0, 3, (20, 8, 9))
    threads_before, isa_before, found = native.threads(), native.isa(), set()
    native.choose_isa(isa)
    for threads in (1, 2, 3):
        fastnn.set_num_threads(threads)
        for batch in (1, 7, 20):
            model = small(metrics=["dice", "mean_iou"])
            model.optimizer.learning_rate = 0.0
            history = model.fit(x, y, batch_size=batch, verbose=0).history
            found.add((history["dice"][0], history["mean_iou"][0]))
    native.choose_isa(isa_before)
    fastnn.set_num_threads(threads_before)
    assert len(found) == 1


@pytest.mark.parametrize(
    "metric",
    [
        DiceScore([1, 2], 0.25, "a"),
        IoU(3, [0, 1]),
        MeanIoU(),
        MeanIoU(4),
        BinaryIoU([1]),
        OneHotIoU(3, [0]),
        OneHotMeanIoU(),
    ],
)
def test_metrics_are_described_and_read_again(metric):
    restored = type(metric).from_config(json.loads(json.dumps(metric.get_config())))
    assert restored.get_config() == metric.get_config() and restored.name == metric.name


REFUSED = [
    (lambda: IoU(1, [0]), "IoU: num_classes must be an integer >= 2. Received: num_classes=1"),
    (lambda: IoU(3, [3]), "IoU: target_class_ids must be less than num_classes=3. Received: target_class_ids=[3]"),
    (lambda: IoU(3, []), "IoU: target_class_ids must be a list of classes. Received: target_class_ids=[]"),
    (lambda: DiceScore("1"), "DiceScore: target_class_ids must be a list of classes. Received: target_class_ids='1'"),
    (lambda: DiceScore([0.5]), "DiceScore: target_class_ids must be a non-negative integer"),
    (lambda: DiceScore(threshold="x"), "DiceScore: threshold must be a number finite. Received: threshold='x'"),
    (lambda: BinaryIoU([2]), "BinaryIoU: target_class_ids must be 0, 1 or both. Received: target_class_ids=[2]"),
    (lambda: MeanIoU(0), "MeanIoU: num_classes must be an integer >= 2. Received: num_classes=0"),
    (lambda: OneHotMeanIoU(1), "OneHotMeanIoU: num_classes must be an integer >= 2"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


UNFIT = [
    (MeanIoU(4), "label", "MeanIoU: num_classes must be 3, that of a model with 3 outputs. Received: num_classes=4"),
    (DiceScore([3]), "label", "DiceScore: target_class_ids must be less than 3, the number of classes"),
    (OneHotMeanIoU(), "label", "OneHotMeanIoU: needs one-hot targets (N, 6, 5, C). Received: shape (9, 6, 5, 1)"),
    (BinaryIoU(), "label", "BinaryIoU: needs targets of shape (N, 6, 5, 3). Received: shape (9, 6, 5, 1)"),
    (DiceScore(threshold=0.5), "label", "DiceScore: needs targets of shape (N, 6, 5, 3). Received: shape (9, 6, 5, 1)"),
]


@pytest.mark.parametrize(("metric", "form", "message"), UNFIT, ids=[u[2] for u in UNFIT])
def test_metrics_that_do_not_fit_are_refused_before_anything_runs(metric, form, message):
    p, labels = regions()
    with pytest.raises(ValueError, match=re.escape(message)):
        asking(3, "dice", metrics=[metric]).evaluate(p, labels)


def test_targets_that_no_loss_has_checked_are_checked():
    p, labels = regions()
    y = np.eye(3)[labels]
    y[2, 1, 0, 2] = 1.5
    with pytest.raises(ValueError, match=r"MeanIoU: y must be between 0 and 1. Received: y\[2, 1, 0, 2\] = 1.5"):
        asking(3, "mse", metrics=[MeanIoU()]).evaluate(p, y)
    with pytest.raises(ValueError, match=r"DiceScore: target_class_ids must be \[1\], the class of the"):
        asking(1, "dice", metrics=[DiceScore([0])]).evaluate(p[..., :1], labels > 1)
    assert metrics.get("dice", losses.Dice(), 1).threshold == 0.5
