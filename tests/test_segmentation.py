"""Losses of images, one prediction a pixel: values, gradients, weights, determinism, targets that are refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import segmentation_formulas as formulas

import fastnn
from fastnn import losses, metrics, ops
from fastnn.backends import native
from fastnn.graph import Place, Tensor
from fastnn.layers import Conv1D, Conv2D, Conv3D, Input
from fastnn.losses import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    Dice,
    Jaccard,
    MeanAbsoluteError,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
    Sum,
    Tversky,
)
from fastnn.optimizers import SGD

NATIVE = native.isas() if native.why_not() is None else []
ALPHAS = (0.2, 1.0, 0.5)


def focal_of_classes(y, p, **weights):
    return formulas.categorical_focal(y, p, alpha=np.array(ALPHAS), gamma=1.5, **weights)


def added(y, p, **weights):
    return 0.5 * formulas.dice(y, p, **weights) + 2.0 * formulas.categorical(y, p, **weights)


def added_binary(y, p, **weights):
    return formulas.jaccard(y, p, **weights) + formulas.binary(y, p, smoothing=0.1, **weights)


#: Name: loss, its formula, the last activation, the targets it takes.
LOSSES = {
    "squared": (MeanSquaredError(), formulas.squared, "linear", "binary"),
    "absolute": (MeanAbsoluteError(), formulas.absolute, "sigmoid", "binary"),
    "binary": (BinaryCrossentropy(), formulas.binary, "sigmoid", "binary"),
    "categorical": (CategoricalCrossentropy(), formulas.categorical, "softmax", "onehot"),
    "categorical of a sigmoid": (CategoricalCrossentropy(), formulas.categorical, "sigmoid", "onehot"),
    "smoothed": (
        CategoricalCrossentropy(label_smoothing=0.2),
        lambda y, p, **weights: formulas.categorical(y, p, 0.2, **weights),
        "softmax",
        "onehot",
    ),
    "sparse": (SparseCategoricalCrossentropy(), formulas.categorical, "softmax", "label"),
    "dice": (Dice(), formulas.dice, "softmax", "both"),
    "dice of regions that overlap": (Dice(), formulas.dice, "sigmoid", "binary"),
    "dice of all classes together": (
        Dice(axis=(-3, -2, -1)),
        lambda y, p, **weights: formulas.dice(y, p, joint=True, **weights),
        "softmax",
        "both",
    ),
    "jaccard": (Jaccard(smooth=1.0), lambda y, p, **w: formulas.jaccard(y, p, smooth=1.0, **w), "softmax", "both"),
    "tversky": (Tversky(0.3, 0.7), lambda y, p, **w: formulas.tversky(y, p, 0.3, 0.7, **w), "softmax", "both"),
    "binary focal": (BinaryFocalCrossentropy(), formulas.binary_focal, "sigmoid", "binary"),
    "balanced binary focal": (
        BinaryFocalCrossentropy(apply_class_balancing=True, alpha=0.3, gamma=1.0),
        lambda y, p, **weights: formulas.binary_focal(y, p, 1.0, 0.3, **weights),
        "sigmoid",
        "binary",
    ),
    "binary focal of a softmax": (BinaryFocalCrossentropy(), formulas.binary_focal, "softmax", "binary"),
    "categorical focal": (CategoricalFocalCrossentropy(), formulas.categorical_focal, "softmax", "both"),
    "categorical focal of a sigmoid": (CategoricalFocalCrossentropy(), formulas.categorical_focal, "sigmoid", "both"),
    "weighted categorical focal": (CategoricalFocalCrossentropy(ALPHAS, 1.5), focal_of_classes, "softmax", "both"),
    "a sum": (0.5 * Dice() + 2.0 * CategoricalCrossentropy(), added, "softmax", "onehot"),
    "a sum on labels": (0.5 * Dice() + 2.0 * SparseCategoricalCrossentropy(), added, "softmax", "label"),
    "a sum of decisions": (Jaccard() + BinaryCrossentropy(label_smoothing=0.1), added_binary, "sigmoid", "binary"),
}
KINDS = ("none", "rows", "pixels", "classes", "rows and classes")
CLASS_WEIGHTS = {0: 0.1, 1: 3.0}


def targets(kind, shape, seed=5):
    """Targets of one of the kinds, (N, ..., C) or labels (N, ...), and the same as (N, ..., C)."""
    rng = np.random.default_rng(seed)
    classes = shape[-1]
    if kind == "binary":
        y = rng.integers(0, 2, shape).astype(np.float32)
        return y, y.astype(float)
    labels = rng.integers(0, classes, shape[:-1])
    like = np.eye(classes)[labels]
    return (labels if kind == "label" else like), like


def weights_of(kind, like, seed=6):
    """Options of ``fit``, and of the formulas."""
    rng = np.random.default_rng(seed)
    if kind == "rows":
        s = rng.random(len(like))
        return {"sample_weight": s}, {"s": s}
    if kind == "pixels":
        w = rng.random(like.shape[:-1])
        return {"sample_weight": w}, {"w": w}
    if kind == "classes":
        classes = like.argmax(-1) if like.shape[-1] > 1 else like[..., 0]
        return {"class_weight": CLASS_WEIGHTS}, {"w": np.where(classes == 0, 0.1, np.where(classes == 1, 3.0, 1.0))}
    if kind == "rows and classes":
        (rows, s), (classes, w) = weights_of("rows", like), weights_of("classes", like)
        return rows | classes, s | w
    return {}, {}


def net(activation, outputs=3, loss=None, convolution=Conv2D, space=(6, 7), seed=3, **options):
    """Two convolutions."""
    fastnn.set_seed(seed)
    model = fastnn.Sequential(
        [
            Input((*space, 2)),
            convolution(5, 3, padding="same", activation="tanh"),
            convolution(outputs, 3, padding="same", activation=activation),
        ]
    )
    model.compile(options.pop("optimizer", "sgd"), loss, **options)
    return model


def images(rows=5, space=(6, 7), seed=4):
    return np.random.default_rng(seed).standard_normal((rows, *space, 2)).astype(np.float32)


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_of_pixels_is_its_formula(name, backend):
    loss, formula, activation, kind = LOSSES[name]
    x, model = images(), net(activation, loss=loss)
    p = model.predict(x).astype(float)
    for form in ("onehot", "label") if kind == "both" else (kind,):
        y, like = targets(form, p.shape)
        assert model.evaluate(x, y) == pytest.approx(formula(like, p), rel=3e-6)
        assert loss(y, p) == pytest.approx(formula(like, p), rel=1e-6)
        for weights in ("rows", "pixels"):
            options, known = weights_of(weights, like)
            assert model.evaluate(x, y, **options) == pytest.approx(formula(like, p, **known), rel=3e-6)
        for weights in KINDS:
            options, known = weights_of(weights, like)
            model.optimizer.learning_rate = 0.0
            assert model.train_on_batch(x, y, **options) == pytest.approx(formula(like, p, **known), rel=3e-6)


@pytest.mark.parametrize(
    ("convolution", "space"), [(Conv1D, (9,)), (Conv2D, (4, 5)), (Conv3D, (3, 4, 5))], ids=["1D", "2D", "3D"]
)
@pytest.mark.parametrize("name", ["binary", "sparse", "dice", "binary focal", "a sum on labels"])
@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_signals_images_and_volumes_with_any_number_of_outputs(name, convolution, space, outputs, backend):
    loss, formula, activation, kind = LOSSES[name]
    if outputs == 1:
        activation, kind = "sigmoid", "binary"
        if name in ("sparse", "a sum on labels"):
            loss, formula = BinaryCrossentropy(), formulas.binary
    x, model = images(4, space), net(activation, outputs, loss, convolution, space, metrics=["accuracy"])
    p = model.predict(x).astype(float)
    y, like = targets("label" if kind == "both" else kind, p.shape)
    found = model.evaluate(x, y)
    assert found[0] == pytest.approx(formula(like, p), rel=3e-6)
    decisions = ((p > 0.5) == like) if kind == "binary" else p.argmax(-1) == like.argmax(-1)
    assert found[1] == pytest.approx(decisions.mean(), rel=1e-6)
    for shape in (y.shape, (*p.shape[:-1], 1)):
        if y.size == np.prod(shape):
            assert model.evaluate(x, y.reshape(shape)) == found
    if outputs == 1:
        assert model.evaluate(x, y[..., 0]) == found


# Gradients: in double precision, against differences


@pytest.fixture
def double():
    fastnn.config.set_backend("numpy")
    fastnn.config.set_floatx("float64")
    yield
    fastnn.config.set_floatx("float32")
    fastnn.config.set_backend("auto")


def gradients(model, x, y, weights, **options):
    """What a step with rate 1 takes from each weight."""
    model.set_weights(weights)
    model.optimizer.learning_rate = 1.0
    model.train_on_batch(x, y, **options)
    return [before - after for before, after in zip(weights, model.get_weights(), strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_each_loss_is_its_slope(name, kind, double):
    loss, formula, activation, form = LOSSES[name]
    x, model = images(3, (4, 5)).astype(float), net(activation, loss=loss, space=(4, 5), optimizer=SGD(1.0))
    y, like = targets("label" if form == "both" else form, (3, 4, 5, 3))
    options, known = weights_of(kind, like)
    rng = np.random.default_rng(0)
    weights = [w + 0.1 * rng.standard_normal(w.shape) for w in model.get_weights()]
    for number, gradient in enumerate(gradients(model, x, y, weights, **options)):
        d = rng.standard_normal(gradient.shape)

        def at(step, number=number, d=d):
            model.set_weights([w + step * d if i == number else w for i, w in enumerate(weights)])
            return formula(like, model.predict(x), **known)

        slope, coarse = ((at(h) - at(-h)) / (2 * h) for h in (2.0**-14, 2.0**-13))
        assert abs(np.sum(gradient * d) - slope) <= abs(slope - coarse) + 1e-8
        assert np.any(gradient)


# Training: close on every backend, the same bits for any number of threads


def trained(loss, activation, kind, **options):
    x, model = images(7), net(activation, loss=loss, optimizer=SGD(0.2, momentum=0.9))
    y, like = targets("label" if kind == "both" else kind, (7, 6, 7, 3))
    history = model.fit(x, y, epochs=5, batch_size=3, verbose=0, **weights_of(options.get("weights"), like)[0])
    return model.get_weights(), history.history["loss"]


@pytest.mark.parametrize("name", LOSSES)
def test_training_is_close_to_the_reference_on_every_backend(name, backend):
    loss, _, activation, kind = LOSSES[name]
    weights, history = trained(loss, activation, kind)
    fastnn.config.set_backend("numpy")
    reference, wanted = trained(loss, activation, kind)
    np.testing.assert_allclose(history, wanted, rtol=2e-5)
    for one, other in zip(weights, reference, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    assert history[-1] < history[0]


@pytest.mark.parametrize("name", ["sparse", "dice", "tversky", "binary focal", "categorical focal", "a sum on labels"])
@pytest.mark.parametrize("isa", NATIVE)
def test_trained_weights_have_the_same_bits_for_any_number_of_threads(name, isa):
    loss, _, activation, kind = LOSSES[name]
    space = (60, 70)  # so many pixels that threads share them
    threads_before, isa_before, results = native.threads(), native.isa(), []
    native.choose_isa(isa)
    for threads in (1, 2, 3):
        fastnn.set_num_threads(threads)
        x, model = images(6, space), net(activation, loss=loss, space=space)
        y, like = targets("label" if kind == "both" else kind, (6, *space, 3))
        model.fit(x, y, epochs=2, batch_size=4, verbose=0, **weights_of("pixels", like)[0])
        results.append([w.tobytes() for w in model.get_weights()])
    native.choose_isa(isa_before)
    fastnn.set_num_threads(threads_before)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("loss", [Dice(), CategoricalFocalCrossentropy(), Dice() + CategoricalFocalCrossentropy()])
def test_labels_are_one_hot_targets(loss, backend):
    found = []
    for form in ("label", "onehot"):
        model = net("softmax", loss=loss)
        y, like = targets(form, (5, 6, 7, 3))
        model.fit(images(), y, epochs=3, verbose=0, **weights_of("classes", like)[0])
        found.append(model.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["binary", "sparse", "dice", "a sum"])
def test_pixels_of_weight_zero_do_not_count(name, backend):
    loss, _, activation, kind = LOSSES[name]
    p = net(activation, loss=loss).predict(images())
    y, _ = targets("label" if kind == "both" else kind, p.shape)
    other, _ = targets("label" if kind == "both" else kind, p.shape, seed=9)
    hidden = np.random.default_rng(1).random(p.shape[:-1]) < 0.4
    changed = np.where(hidden.reshape(hidden.shape + (1,) * (y.ndim - hidden.ndim)), other, y)
    assert (changed != y).any()
    found = []
    for target in (y, changed):
        model = net(activation, loss=loss)
        model.fit(images(), target, sample_weight=1.0 - hidden, epochs=2, verbose=0)
        found.append([w.tobytes() for w in model.get_weights()])
    assert found[0] == found[1]


def test_weights_of_classes_and_of_samples_are_multiplied():
    x, model = images(), net("softmax", loss="sparse_categorical_crossentropy")
    y, like = targets("label", (5, 6, 7, 3))
    s = np.linspace(0.5, 2.0, 5)
    model.optimizer.learning_rate = 0.0
    both = model.train_on_batch(x, y, sample_weight=s, class_weight=CLASS_WEIGHTS)
    w = weights_of("classes", like)[1]["w"] * s[:, None, None]
    assert both == pytest.approx(model.evaluate(x, y, sample_weight=w), rel=1e-6)
    assert both == pytest.approx(model.train_on_batch(x, y, sample_weight=w[..., None]), rel=1e-6)


@pytest.mark.parametrize("call", ["fit", "train_on_batch"])
@pytest.mark.parametrize("loss", ["dice", Dice() + BinaryCrossentropy()])
def test_weights_of_classes_are_refused_where_no_axis_is_of_classes(loss, call):
    model = fastnn.Sequential([Input((5,)), fastnn.layers.Dense(12, activation="sigmoid")])
    model.compile(loss=loss)
    before = [w.tobytes() for w in model.get_weights()]
    rule = "class_weight, with a loss of regions, must be for masks (N, ..., C) or (N, ..., 1). Received: y of shape"
    with pytest.raises(ValueError, match=re.escape(f"{call}: {rule} (4, 12)")):
        getattr(model, call)(np.ones((4, 5)), np.ones((4, 12)), class_weight={1: 2.0})
    assert [w.tobytes() for w in model.get_weights()] == before


def test_other_losses_of_a_sum_get_weights_of_pixels_and_samples_as_ever():
    class Own(losses.Loss):
        def rows(self, y, p, weights=None):
            values = ops.mean((y - p) * (y - p), axis=-1)
            if weights is not None and len(weights.shape) > 1:
                values, weights = values * weights, None
            rows = ops.mean(values, axis=(1, 2))
            return rows if weights is None else rows * weights

    x, (y, like) = images(), targets("binary", (5, 6, 7, 1))
    options, known = weights_of("rows and classes", like)
    model = net("sigmoid", 1, Dice() + Own(), optimizer=SGD(0.0))
    p = model.predict(x).astype(float)
    wanted = formulas.dice(like, p, **known) + formulas.squared(like, p, **known)
    assert model.train_on_batch(x, y, **options) == pytest.approx(wanted, rel=3e-6)
    one = fastnn.Sequential([Input((3,)), fastnn.layers.Dense(1, activation="sigmoid")])
    one.compile("sgd", Dice() + BinaryCrossentropy())
    one.train_on_batch(np.ones((4, 3)), np.array([0, 1, 1, 0]), sample_weight=np.ones(4), class_weight={1: 2.0})


def test_validation_data_may_have_weights_of_pixels():
    x, model = images(), net("sigmoid", outputs=1, loss="dice")
    y, _ = targets("binary", (5, 6, 7, 1))
    w = np.random.default_rng(1).random((5, 6, 7))
    history = model.fit(x, y, validation_data=(x, y, w), epochs=2, verbose=0).history
    assert history["val_loss"][-1] == model.evaluate(x, y, sample_weight=w)
    split = model.fit(x, y, validation_split=0.4, sample_weight=w, epochs=1, verbose=0).history
    assert np.isfinite(split["val_loss"]).all()


def test_flat_masks_are_pixels():
    p, y = np.random.default_rng(0).random((4, 12)), np.random.default_rng(1).integers(0, 2, (4, 12))
    assert Dice()(y, p) == pytest.approx(Dice()(y.reshape(4, 3, 4, 1), p.reshape(4, 3, 4, 1)))
    assert Dice(axis=1)(y, p) == Dice()(y, p)


# Extremes


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_losses_of_extreme_logits_are_exact(gamma, backend):
    z = np.array([-1e4, -200.0, -90.0, -30.0, 0.0, 30.0, 90.0, 200.0, 1e4], np.float32)[:, None]
    model = fastnn.Sequential([Input((1,)), fastnn.layers.Activation("linear")])
    for truth in (0.0, 1.0):
        y = np.full((9, 1), truth)
        toward = z[:, 0].astype(float) * (1.0 if truth else -1.0)  # how right the logit is
        wrong = np.where(toward > 0, np.exp(-abs(toward)), 1.0) / (1.0 + np.exp(-abs(toward)))
        wanted = np.maximum(wrong, 1e-7) ** gamma * np.logaddexp(0.0, -toward)
        for loss, x, target in (
            (BinaryFocalCrossentropy(gamma=gamma, from_logits=True), z, y),
            (CategoricalFocalCrossentropy(1.0, gamma, from_logits=True), np.hstack([-z / 2, z / 2]), y[:, 0]),
        ):
            model = fastnn.Sequential([Input((x.shape[1],)), fastnn.layers.Activation("linear")])
            model.compile("sgd", loss)
            for row in range(9):
                value = model.evaluate(x[row : row + 1], target[row : row + 1])
                assert value == pytest.approx(wanted[row], rel=1e-5, abs=1e-12), (truth, z[row])


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_focal_losses_train_from_confident_mistakes(activation, backend):
    """A clipped probability would have no slope there."""
    model = fastnn.Sequential([Input((2, 2, 1)), Conv2D(2, 1, activation=activation)])
    model.compile(SGD(1.0), BinaryFocalCrossentropy() if activation == "sigmoid" else CategoricalFocalCrossentropy())
    weights = [np.array([[[[400.0, -400.0]]]], np.float32), np.zeros(2, np.float32)]
    model.set_weights(weights)
    y = np.zeros((1, 2, 2, 2))
    y[..., 1] = 1.0
    model.train_on_batch(np.ones((1, 2, 2, 1)), y)
    moved = model.get_weights()[1]
    assert moved[0] < -1e-3 and moved[1] > 1e-3


def test_a_class_that_a_sample_has_not_costs_nothing_unless_it_is_predicted(backend):
    y = np.zeros((1, 2, 2, 1))
    assert Dice()(y, np.zeros((1, 2, 2, 1))) == 0.0
    assert Dice()(y, np.full((1, 2, 2, 1), 0.5)) == pytest.approx(1.0, abs=2e-5)
    model = fastnn.Sequential([Input((2, 2, 1)), Conv2D(1, 1, activation="sigmoid")])
    model.compile("sgd", "dice")
    model.set_weights([np.full((1, 1, 1, 1), -1e4, np.float32), np.zeros(1, np.float32)])
    x = np.ones((1, 2, 2, 1), np.float32)
    assert model.evaluate(x, y) == 0.0
    model.train_on_batch(x, y)
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_dice_is_keras_s_where_each_sample_is_summed_by_itself():
    y = np.array([[[[1.0], [1.0]], [[0.0], [0.0]]], [[[1.0], [1.0]], [[0.0], [0.0]]]])
    p = np.array([[[[0.0], [1.0]], [[0.0], [1.0]]], [[[0.4], [0.0]], [[0.0], [0.9]]]])
    assert Dice(axis=(1, 2, 3))(y, p) == pytest.approx((0.5 + 0.75757575) / 2, abs=1e-5)


# Sums and names


def test_losses_are_added_and_multiplied():
    both = 0.5 * Dice() + BinaryCrossentropy() * 2
    assert repr(both) == "0.5 * Dice() + 2 * BinaryCrossentropy()"
    assert [type(loss) for loss in both.losses] == [Dice, BinaryCrossentropy] and both.weights == [0.5, 2.0]
    three = 3 * both + Jaccard()
    assert repr(three) == "1.5 * Dice() + 6 * BinaryCrossentropy() + Jaccard()"
    y, p = np.ones((2, 3, 1)), np.full((2, 3, 1), 0.7)
    assert three(y, p) == pytest.approx(1.5 * Dice()(y, p) + 6 * BinaryCrossentropy()(y, p) + Jaccard()(y, p))
    assert both.binary and not both.from_logits and both.labels is False
    with pytest.raises(TypeError):
        Dice() + 1.0
    with pytest.raises(TypeError):
        Dice() * Dice()


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_saved_and_read_again(name, tmp_path):
    loss, _, activation, kind = LOSSES[name]
    restored = type(loss).from_config(json.loads(json.dumps(loss.get_config())))
    assert repr(restored) == repr(loss)
    model = net(activation, loss=loss, metrics=["accuracy", "dice", "mean_iou"])
    y, _ = targets("label" if kind == "both" else kind, (5, 6, 7, 3))
    model.save(tmp_path / "model.fnn")
    assert fastnn.load_model(tmp_path / "model.fnn").evaluate(images(), y) == model.evaluate(images(), y)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("dice", Dice),
        ("Dice", Dice),
        ("jaccard", Jaccard),
        ("tversky", Tversky),
        ("binary_focal_crossentropy", BinaryFocalCrossentropy),
        ("CategoricalFocalCrossentropy", CategoricalFocalCrossentropy),
    ],
)
def test_losses_by_name(name, wanted):
    assert type(losses.get(name)) is wanted


def test_a_sum_reads_its_targets_once_and_shares_the_prediction():
    model = net("softmax", loss=Dice() + SparseCategoricalCrossentropy())
    text = str(model.plan())
    assert text.count("gather ") == 2 and text.count("softmax ") == 1
    assert "sparse_softmax_crossentropy " in text and "overlap " in text


def test_a_loss_records_nothing_but_its_op_for_rows():
    y, p = (Tensor((None, 3), place=Place(name)) for name in "yp")
    assert BinaryCrossentropy().rows(y, p).node.op.name == "binary_crossentropy"


# Bad input

REFUSED = [
    (lambda: Tversky(alpha=-1), "Tversky: alpha must be a number >= 0. Received: alpha=-1"),
    (lambda: Tversky(beta="x"), "Tversky: beta must be a number >= 0. Received: beta='x'"),
    (lambda: Dice(smooth=0), "Dice: smooth must be a number > 0. Received: smooth=0"),
    (lambda: Dice(axis="all"), "Dice: axis must be None, an integer or a tuple of them. Received: axis='all'"),
    (lambda: BinaryFocalCrossentropy(gamma=-1), "BinaryFocalCrossentropy: gamma must be a number >= 0"),
    (lambda: BinaryFocalCrossentropy(alpha=2), "BinaryFocalCrossentropy: alpha must be a number >= 0 and <= 1"),
    (lambda: CategoricalFocalCrossentropy(alpha=[1, -1]), "CategoricalFocalCrossentropy: alpha must be a number >= 0"),
    (lambda: Sum([]), "Sum: losses must be a list of losses. Received: losses=[]"),
    (lambda: Sum("dice"), "Sum: losses must be a list of losses. Received: losses='dice'"),
    (lambda: Sum(["dice", "dicey"]), "loss: must be a Loss or one of"),
    (lambda: Sum(["dice"], [1, 2]), "Sum: weights must be one number for each of 1 losses. Received: [1, 2]"),
    (lambda: Sum(["dice"], [-1]), "Sum: weights must be a number >= 0. Received: weights=-1"),
    (
        lambda: SparseCategoricalCrossentropy() + CategoricalCrossentropy(),
        "Sum: losses must be all on labels or all on one-hot targets. Received: SparseCategoricalCrossentropy() + ",
    ),
    (
        lambda: Dice() + BinaryCrossentropy(from_logits=True),
        "Sum: losses must be all on logits or all on probabilities. Received: Dice() + BinaryCrossentropy(from_lo",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def masks(value=None, dtype=int, shape=(5, 6, 7)):
    y = np.zeros(shape, dtype)
    if value is not None:
        y[3, 1, 2] = value
    return y


LABELS = "y must hold the labels 0 to 2. Received: y[3, 1, 2] = "
DATA = [
    ("dice", 3, masks(3), "Dice: " + LABELS + "3"),
    ("dice", 3, masks(-1), "Dice: " + LABELS + "-1"),
    ("jaccard", 3, masks(0.5, float), "Jaccard: " + LABELS + "0.5"),
    ("tversky", 3, masks(255, np.uint8), "Tversky: " + LABELS + "255"),
    ("sparse_categorical_crossentropy", 3, masks(3), "SparseCategoricalCrossentropy: " + LABELS + "3"),
    ("categorical_focal_crossentropy", 3, masks(3)[..., None], LABELS.replace("2] =", "2, 0] =") + "3"),
    (Dice() + SparseCategoricalCrossentropy(), 3, masks(3), "Dice: " + LABELS + "3"),
    ("dice", 1, masks(2), "Dice: y must be between 0 and 1. Received: y[3, 1, 2] = 2"),
    ("binary_crossentropy", 1, masks(255, np.uint8), "y must be between 0 and 1. Received: y[3, 1, 2] = 255"),
    ("binary_focal_crossentropy", 1, masks(-0.5, float), "y must be between 0 and 1. Received: y[3, 1, 2] = -0.5"),
    ("dice", 3, masks(np.nan, float), "y must be finite in float32. Received: y[3, 1, 2] = nan"),
    ("dice", 3, None, "y must be given. Received: y=None"),
    ("dice", 3, masks(shape=(5, 6, 6)), "Dice: y must have shape (N, 6, 7, 3) or (N, 6, 7, 1). Received: shape (5,"),
    ("dice", 1, masks(shape=(5, 6)), "Dice: y must have shape (N, 6, 7, 1). Received: shape (5, 6)"),
    ("categorical_crossentropy", 3, masks(), "for integer labels use sparse_categorical_crossentropy"),
    (Dice(axis=(0, 1, 2)), 3, masks(), "Dice: axis must be (1, 2), the pixels, or these and the last axis, for"),
    (Dice(axis=1), 3, masks(), "Received: axis=1"),
    (CategoricalFocalCrossentropy([1, 2]), 3, masks(), "alpha must be one number, or one for each of 3 classes"),
]


@pytest.mark.parametrize("call", ["fit", "evaluate", "train_on_batch"])
@pytest.mark.parametrize(("loss", "outputs", "y", "message"), DATA, ids=[d[3] for d in DATA])
def test_masks_that_do_not_fit_are_named_and_nothing_changes(loss, outputs, y, message, call):
    model = net("softmax" if outputs > 1 else "sigmoid", outputs, loss)
    before = [w.tobytes() for w in model.get_weights()]
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        getattr(model, call)(images(), y)
    assert "\n" not in str(caught.value)
    assert [w.tobytes() for w in model.get_weights()] == before


def test_weights_of_pixels_that_do_not_fit_are_named():
    model = net("softmax", loss="dice")
    y, _ = targets("label", (5, 6, 7, 3))
    for weights, message in (
        (np.ones((5, 6)), "fit: sample_weight must have shape (5,) or (5, 6, 7). Received: shape (5, 6)"),
        (np.ones((4, 6, 7)), "fit: sample_weight must have shape (5,). Received: shape (4, 6, 7)"),
        (-np.ones((5, 6, 7)), "fit: sample_weight must not be negative. Received: -1.0"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            model.fit(images(), y, sample_weight=weights, verbose=0)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_the_first_wrong_element_of_large_masks_is_found_in_parts(rows, monkeypatch):
    monkeypatch.setattr("fastnn.losses.base.PART", 42 * rows)
    for loss in (Dice(), metrics.MeanIoU()):
        y, p = np.zeros((7, 6, 7)), np.full((7, 6, 7, 3), 1 / 3)
        y[4, 2, 1], y[5, 0, 0] = 9, 8
        with pytest.raises(ValueError, match=r"Received: y\[4, 2, 1.*\] = 9"):
            loss(y, p)
