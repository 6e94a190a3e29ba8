"""Images that change at random: the geometry by hand, the draws by their statistics, the layers in training."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastnn
from fastnn import backends
from fastnn.backends import native
from fastnn.graph import Tensor
from fastnn.layers import (
    LAYERS,
    Dense,
    Flatten,
    Input,
    Layer,
    RandomContrast,
    RandomFlip,
    RandomRotation,
    RandomTranslation,
    RandomZoom,
)
from fastnn.layers.base import Training
from fastnn.ops import OPS
from fastnn.ops.augment import FILL_MODES, INTERPOLATIONS, contrast_factors, row_numbers
from fastnn.ops.shape import reshape

BACKENDS = [name for name in backends.NAMES if backends.load(name).why_not() is None]
NATIVE = native.isas() if native.why_not() is None else []


@pytest.fixture(params=[*(f"native-{isa}" for isa in NATIVE), *(name for name in BACKENDS if name != "native")])
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


def run(backend, op, *arrays, **attrs):
    outputs, compute = backends.single(backend, op, [np.asarray(a) for a in arrays], attrs)
    compute()
    return outputs[0]


def picture(rows):
    """An image (1, H, W, 1)."""
    return np.array(rows, np.float32)[None, :, :, None]


def seen(backend, rows, matrix, fill_mode="constant", interpolation="bilinear", fill_value=0.0):
    """An image of one channel through a matrix, as nested lists."""
    attrs = {"interpolation": interpolation, "fill_mode": fill_mode, "fill_value": fill_value}
    return run(backend, "affine_transform", picture(rows), np.array([matrix], float), **attrs)[0, :, :, 0].tolist()


def drawn(op, span, shape, **attrs):
    """The reference's one matrix for images of this shape, where the range is one number."""
    return OPS[op](np.zeros((1, *shape, 1)), np.array([0]), seed=0, stream=0, **span, **attrs)[0]


# Edges: a line a b c d = 1 2 3 4, moved

LINE = [[1, 2, 3, 4]]
MOVED = [
    # what a fill mode makes of moving by a number of pixels to the right
    ("constant", 2, [9, 9, 1, 2]),
    ("constant", -3, [4, 9, 9, 9]),
    ("constant", 4, [9, 9, 9, 9]),
    ("constant", -7, [9, 9, 9, 9]),
    ("nearest", 2, [1, 1, 1, 2]),
    ("nearest", -3, [4, 4, 4, 4]),
    ("nearest", 4, [1, 1, 1, 1]),
    ("nearest", -7, [4, 4, 4, 4]),
    # d c b a | a b c d | d c b a | a b c d
    ("reflect", 2, [2, 1, 1, 2]),
    ("reflect", -3, [4, 4, 3, 2]),
    ("reflect", 4, [4, 3, 2, 1]),
    ("reflect", 7, [2, 3, 4, 4]),
    ("reflect", -7, [1, 1, 2, 3]),
    ("reflect", -8, [1, 2, 3, 4]),
    ("reflect", 13, [4, 4, 3, 2]),
    # a b c d | a b c d | a b c d
    ("wrap", 2, [3, 4, 1, 2]),
    ("wrap", -3, [4, 1, 2, 3]),
    ("wrap", 4, [1, 2, 3, 4]),
    ("wrap", 13, [4, 1, 2, 3]),
    ("wrap", -5, [2, 3, 4, 1]),
]


@pytest.mark.parametrize(("fill_mode", "pixels", "wanted"), MOVED)
def test_whole_pixels_move_exactly_and_edges_go_on_as_the_fill_mode_says(fill_mode, pixels, wanted, engine):
    for interpolation in INTERPOLATIONS:
        across = seen(engine, LINE, [1, 0, -pixels, 0, 1, 0], fill_mode, interpolation, 9.0)
        assert across == [wanted]
        down = seen(engine, np.transpose(LINE), [1, 0, 0, 0, 1, -pixels], fill_mode, interpolation, 9.0)
        assert down == [[value] for value in wanted]


@pytest.mark.parametrize(
    ("fill_mode", "wanted"),
    [
        ("constant", [5.0, 1.5, 2.5, 3.5]),  # (9 + 1) / 2
        ("nearest", [1.0, 1.5, 2.5, 3.5]),
        ("reflect", [1.0, 1.5, 2.5, 3.5]),
        ("wrap", [2.5, 1.5, 2.5, 3.5]),  # (4 + 1) / 2
    ],
)
def test_half_a_pixel_is_the_mean_of_two_also_at_the_edge(fill_mode, wanted, engine):
    assert seen(engine, LINE, [1, 0, -0.5, 0, 1, 0], fill_mode, fill_value=9.0) == [wanted]


def test_the_nearest_pixel_is_taken_and_of_two_the_right_one(engine):
    for move, wanted in ((0.49, [1, 2, 3, 4]), (0.5, [2, 3, 4, 0]), (-0.5, [1, 2, 3, 4]), (-0.51, [0, 1, 2, 3])):
        assert seen(engine, LINE, [1, 0, move, 0, 1, 0], interpolation="nearest") == [wanted], move


def test_four_pixels_are_blended_by_their_areas(engine):
    # a quarter to the right, a half down: 1/2 (3/4 0 + 1/4 8) + 1/2 (3/4 16 + 1/4 64)
    y = seen(engine, [[0, 8], [16, 64]], [1, 0, 0.25, 0, 1, 0.5])
    assert y[0][0] == 0.5 * 2 + 0.5 * (12 + 16)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (1, 70), (2, 2)])
def test_images_of_one_line_or_one_pixel(size, engine):
    rng = np.random.default_rng(1)
    x, m = rng.standard_normal((40, *size, 3)), rng.standard_normal((40, 6)) * 3
    for fill_mode in FILL_MODES:
        for interpolation in INTERPOLATIONS:
            attrs = {"interpolation": interpolation, "fill_mode": fill_mode}
            x, m = x.astype(np.float32), m.astype(np.float32)
            wanted = OPS["affine_transform"](x, m, fill_value=0.5, **attrs)
            np.testing.assert_allclose(
                run(engine, "affine_transform", x, m, fill_value=0.5, **attrs), wanted, rtol=1e-5, atol=1e-5
            )
            wanted = OPS["affine_transform_dx"](x, m, **attrs)
            np.testing.assert_allclose(
                run(engine, "affine_transform_dx", x, m, **attrs), wanted, rtol=1e-5, atol=1e-4
            )


@pytest.mark.parametrize("value", [1e6, -1e9, 3e38, -3e38, np.inf, -np.inf, np.nan])
def test_places_that_are_far_away_or_not_numbers_are_places_all_the_same(value, engine):
    x = np.arange(1.0, 13.0, dtype=np.float32).reshape(1, 3, 4, 1)
    with np.errstate(invalid="ignore"):
        for position in range(6):
            m = np.array([[1, 0, 0, 0, 1, 0]], np.float32)
            m[0, position] = value
            for fill_mode in FILL_MODES:
                for interpolation in INTERPOLATIONS:
                    attrs = {"interpolation": interpolation, "fill_mode": fill_mode}
                    wanted = OPS["affine_transform"](x, m, fill_value=0.0, **attrs)
                    y = run(engine, "affine_transform", x, m, fill_value=0.0, **attrs)
                    np.testing.assert_allclose(y, wanted, rtol=1e-6)
                    wanted = OPS["affine_transform_dx"](x, m, **attrs)
                    np.testing.assert_allclose(run(engine, "affine_transform_dx", x, m, **attrs), wanted, rtol=1e-6)


# Rotations, zooms, translations

A_TO_I = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_a_quarter_turn_is_against_the_clock_and_exact(engine):
    for turns, wanted in (
        (0.25, [[3, 6, 9], [2, 5, 8], [1, 4, 7]]),
        (-0.25, [[7, 4, 1], [8, 5, 2], [9, 6, 3]]),
        (0.5, [[9, 8, 7], [6, 5, 4], [3, 2, 1]]),
        (0.75, [[7, 4, 1], [8, 5, 2], [9, 6, 3]]),
        (1.0, A_TO_I),
        (-1.0, A_TO_I),
        (0.0, A_TO_I),
    ):
        matrix = drawn("rotation_matrices", {"turns": (turns, turns)}, (3, 3))
        assert seen(engine, A_TO_I, matrix) == wanted, turns


def test_a_wide_image_turns_about_its_centre(engine):
    # 2 x 4 pixels: what was left and right of the centre is above and below it, and gone
    matrix = drawn("rotation_matrices", {"turns": (0.25, 0.25)}, (2, 4))
    assert seen(engine, [[1, 2, 3, 4], [5, 6, 7, 8]], matrix, fill_value=0.0) == [[0, 3, 7, 0], [0, 2, 6, 0]]
    matrix = drawn("rotation_matrices", {"turns": (0.5, 0.5)}, (2, 4))
    assert seen(engine, [[1, 2, 3, 4], [5, 6, 7, 8]], matrix) == [[8, 7, 6, 5], [4, 3, 2, 1]]


def test_an_eighth_of_a_turn(engine):
    # the middle of the right side, 1 from the centre, comes from sqrt(1/2) to the right and down
    matrix = drawn("rotation_matrices", {"turns": (0.125, 0.125)}, (3, 3))
    y = seen(engine, A_TO_I, matrix)
    part = math.sqrt(0.5)
    wanted = (1 - part) ** 2 * 5 + part * (1 - part) * (6 + 8) + part**2 * 9
    assert y[1][2] == pytest.approx(wanted, rel=1e-6)
    assert y[1][1] == 5


def test_zooming_in_by_two_and_out_by_two(engine):
    # half the size is seen: places 1/4 3/4 5/4 7/4 around the centre 3/2 of four pixels, so 0.75 1.25 1.75 2.25
    matrix = drawn("zoom_matrices", {"heights": (0.5, 0.5), "widths": (0.5, 0.5)}, (1, 4))
    assert seen(engine, [[0, 4, 8, 16]], matrix) == [[3, 5, 7, 10]]
    # twice the size: -1.5 0.5 2.5 4.5
    matrix = drawn("zoom_matrices", {"heights": (2.0, 2.0), "widths": None}, (1, 4))
    assert seen(engine, [[0, 4, 8, 16]], matrix, "constant", fill_value=-1.0) == [[-1, 2, 12, -1]]
    assert seen(engine, [[0, 4, 8, 16]], matrix, "reflect") == [[2, 2, 12, 12]]
    # one axis alone
    matrix = drawn("zoom_matrices", {"heights": (2.0, 2.0), "widths": (1.0, 1.0)}, (4, 2))
    y = seen(engine, [[0, 1], [4, 5], [8, 9], [16, 17]], matrix, fill_value=-1.0)
    assert y == [[-1, -1], [2, 3], [12, 13], [-1, -1]]


def test_translations_are_parts_of_the_size_down_and_to_the_right(engine):
    rows = np.arange(1, 17).reshape(4, 4)
    matrix = drawn("translation_matrices", {"heights": (0.25, 0.25), "widths": (-0.5, -0.5)}, (4, 4))
    assert seen(engine, rows, matrix) == [[0, 0, 0, 0], [3, 4, 0, 0], [7, 8, 0, 0], [11, 12, 0, 0]]


def test_each_image_has_its_own_matrix_and_all_channels_the_same(engine):
    x = np.random.default_rng(2).standard_normal((3, 5, 6, 20)).astype(np.float32)
    m = np.array([[1.0, 0, 1, 0, 1, 0], [1, 0, 0, 0, 1, -2], [-1, 0, 5, 0, -1, 4]])
    y = run(engine, "affine_transform", x, m, interpolation="bilinear", fill_mode="wrap", fill_value=0.0)
    np.testing.assert_array_equal(y[0], np.roll(x[0], -1, axis=1))
    np.testing.assert_array_equal(y[1], np.roll(x[1], 2, axis=0))
    np.testing.assert_array_equal(y[2], x[2, ::-1, ::-1])


def test_the_gradient_is_the_adjoint(engine):
    rng = np.random.default_rng(3)
    for channels in (1, 3, 5, 19):
        x, g = rng.standard_normal((2, 4, 9, 7, channels)).astype(np.float32)
        m = (np.array([1, 0, 0, 0, 1, 0]) + rng.standard_normal((4, 6)) * ([0.4, 0.4, 3.0] * 2)).astype(np.float32)
        for fill_mode in FILL_MODES:
            for interpolation in INTERPOLATIONS:
                attrs = {"interpolation": interpolation, "fill_mode": fill_mode}
                y = run(engine, "affine_transform", x, m, fill_value=0.0, **attrs)
                dx = run(engine, "affine_transform_dx", g, m, **attrs)
                size = np.sum(abs(g * y))
                assert abs(np.sum(g * y, dtype=float) - np.sum(dx * x, dtype=float)) < 1e-5 * size


# Flips and contrast


def test_images_are_mirrored_exactly_where_their_numbers_say(engine):
    for channels in (1, 2, 3, 16, 33):
        x = np.random.default_rng(channels).standard_normal((50, 5, 7, channels)).astype(np.float32)
        across, down = row_numbers(50, 4, seed=11, stream=2)[:2] < 0.5
        for horizontal, vertical in ((True, False), (False, True), (True, True)):
            key = {"horizontal": horizontal, "vertical": vertical, "seed": 11, "stream": 2}
            y = run(engine, "random_flip", x, [4], **key)
            for n in range(50):
                wanted = x[n, :, ::-1] if across[n] and horizontal else x[n]
                wanted = wanted[::-1] if down[n] and vertical else wanted
                assert y[n].tobytes() == np.ascontiguousarray(wanted).tobytes()
            assert run(engine, "random_flip", y, [4], **key).tobytes() == x.tobytes()


def test_contrast_keeps_the_mean_of_each_channel(engine):
    for shape in ((3, 31, 33, 1), (5, 16, 16, 3), (2, 7, 5, 300)):
        x = np.random.default_rng(5).uniform(50, 60, shape).astype(np.float32)
        attrs = {"factors": (0.2, 1.8), "limits": (0.0, 255.0), "seed": 3, "stream": 1}
        y = run(engine, "random_contrast", x, [2], **attrs)
        np.testing.assert_allclose(y.mean(axis=(1, 2)), x.mean(axis=(1, 2)), rtol=1e-5)
        factors = contrast_factors((0.2, 1.8), shape[0], 2, seed=3, stream=1)
        spread = y.std(axis=(1, 2)) / x.std(axis=(1, 2))
        np.testing.assert_allclose(spread, np.repeat(factors[:, None], shape[3], axis=1), rtol=1e-4)


def test_contrast_lets_nan_through_its_channel_only(engine):
    x = np.ones((2, 3, 4, 5), np.float32)
    x[1, 2, 1, 3] = np.nan
    attrs = {"factors": (0.5, 1.5), "limits": (0.0, 1.0), "seed": 3, "stream": 1}
    y = run(engine, "random_contrast", x, [2], **attrs)
    wanted = np.zeros(y.shape, bool)
    wanted[1, :, :, 3] = True
    np.testing.assert_array_equal(np.isnan(y), wanted)


# Draws


def many(op, **span):
    """The matrices of 200 steps for 50 images of 5 x 9 pixels."""
    x, key = np.zeros((50, 5, 9, 1)), {"seed": 6, "stream": 1}
    return np.concatenate([OPS[op](x, np.array([step]), **key, **span) for step in range(200)])


def assert_uniform(values, low, high):
    """Within the range, with the mean and variance of a uniform distribution, five standard deviations at most."""
    n, width = len(values), high - low
    assert low - 1e-6 <= values.min() < low + 20 * width / n
    assert high - 20 * width / n < values.max() <= high + 1e-6
    assert abs(values.mean() - (low + high) / 2) < 5 * width / math.sqrt(12 * n)
    # the fourth central moment of a uniform distribution is width^4 / 80, its variance width^2 / 12
    assert abs(values.var() - width**2 / 12) < 5 * width**2 * math.sqrt((1 / 80 - 1 / 144) / n)


def test_numbers_of_rows_are_uniform_and_independent_of_each_other():
    numbers = np.stack([row_numbers(100, step, seed=5, stream=0) for step in range(100)])  # (steps, 4, rows)
    for k in range(4):
        assert_uniform(numbers[:, k].reshape(-1), 0.0, 1.0)
    pairs = [(numbers[:, i], numbers[:, j]) for i in range(4) for j in range(i)]
    pairs += [(numbers[1:], numbers[:-1]), (numbers[:, :, 1:], numbers[:, :, :-1])]
    for one, other in pairs:
        correlation = np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1]
        assert abs(correlation) < 5 / math.sqrt(one.size)


def test_angles_zooms_and_moves_are_uniform_in_their_ranges():
    m = many("rotation_matrices", turns=(-0.1, 0.4))
    np.testing.assert_allclose(m[:, 0] ** 2 + m[:, 3] ** 2, 1.0, rtol=1e-6)
    assert_uniform(np.arctan2(m[:, 3], m[:, 0]) / (2 * np.pi), -0.1, 0.4)
    m = many("zoom_matrices", heights=(0.5, 1.5), widths=(0.9, 1.0))
    assert_uniform(m[:, 4], 0.5, 1.5)
    assert_uniform(m[:, 0], 0.9, 1.0)
    assert abs(np.corrcoef(m[:, 0], m[:, 4])[0, 1]) < 5 / math.sqrt(len(m))
    m = many("zoom_matrices", heights=(0.5, 1.5), widths=None)
    np.testing.assert_array_equal(m[:, 0], m[:, 4])
    m = many("translation_matrices", heights=(-0.2, 0.6), widths=(-1.0, 1.0))
    assert_uniform(-m[:, 5] / 5, -0.2, 0.6)
    assert_uniform(-m[:, 2] / 9, -1.0, 1.0)
    factors = [contrast_factors((0.7, 1.2), 50, step, seed=2, stream=9) for step in range(200)]
    assert_uniform(np.concatenate(factors), 0.7, 1.2)


def test_half_of_the_images_are_mirrored_each_way():
    x, attrs = picture([[0, 1], [2, 3]]).repeat(50, axis=0), {"horizontal": True, "vertical": True}
    flipped = [OPS["random_flip"](x, np.array([step]), **attrs, seed=8, stream=0) for step in range(200)]
    count = np.bincount(np.concatenate(flipped)[:, 0, 0, 0].astype(int), minlength=4)
    # the first pixel is that of any corner in a quarter of 10,000 cases, standard deviation sqrt(10,000 3/16)
    assert abs(count - 2500).max() < 5 * math.sqrt(10_000 * 3 / 16)


MATRICES = [
    ("rotation_matrices", {"turns": (-1.0, 1.0)}),
    ("zoom_matrices", {"heights": (0.1, 2.0), "widths": (0.3, 1.7)}),
    ("zoom_matrices", {"heights": (0.1, 2.0), "widths": None}),
    ("translation_matrices", {"heights": (-1.0, 0.7), "widths": (-0.3, 0.3)}),
]


@pytest.mark.parametrize(("op", "span"), MATRICES)
def test_draws_have_the_same_bits_on_every_backend_and_for_any_number_of_threads(op, span, engine):
    x = np.zeros((10_000, 3, 4, 1), np.float32)
    for step, seed, stream in ((0, 0, 0), (7, 2**64 - 1, 3), (2**40 + 5, 12345, 2**32 - 1)):
        wanted = OPS[op](x, np.array([step]), seed=seed, stream=stream, **span)
        assert wanted.dtype == np.float32
        double = OPS[op](x.astype(np.float64), np.array([step]), seed=seed, stream=stream, **span)
        np.testing.assert_array_equal(double, wanted)
        for threads in (1, 2, 3) if engine == "native" else (1,):
            if engine == "native":
                native.set_threads(threads)
            assert run(engine, op, x, [step], seed=seed, stream=stream, **span).tobytes() == wanted.tobytes()


def test_contrast_factors_have_the_same_bits_on_every_backend(engine):
    x = picture([[-1, 1]]).repeat(40, axis=0)  # mean 0: what comes out is the factor itself
    y = run(engine, "random_contrast", x, [9], factors=(0.1, 1.9), limits=(-5.0, 5.0), seed=4, stream=6)
    wanted = contrast_factors((0.1, 1.9), 40, 9, seed=4, stream=6)
    np.testing.assert_array_equal(y[:, 0, 1, 0], wanted)
    np.testing.assert_array_equal(y[:, 0, 0, 0], -wanted)


# Layers

EVERY = [
    (RandomFlip, {}),
    (RandomFlip, {"mode": "horizontal"}),
    (RandomRotation, {"factor": 0.1}),
    (RandomRotation, {"factor": (-0.3, 0.2), "fill_mode": "wrap", "interpolation": "nearest"}),
    (RandomZoom, {"height_factor": 0.3}),
    (RandomZoom, {"height_factor": (0.1, 0.2), "width_factor": (-0.4, 0.0), "fill_mode": "constant", "fill_value": 3}),
    (RandomTranslation, {"height_factor": 0.3, "width_factor": (-0.1, 0.4), "fill_mode": "nearest"}),
    (RandomContrast, {"factor": (0.4, 0.6), "value_range": (-3.0, 3.0)}),
]
each_layer = pytest.mark.parametrize(("kind", "arguments"), EVERY)


def images(rows=60, channels=2, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, 8, 6, channels)).astype(np.float32)


def changed(layer, x, seed=1, step=0, stream=0):
    training = Training(seed, np.array([step]))
    for _ in range(stream):
        next(training.streams)
    return layer.call(x, training)


@each_layer
def test_each_row_step_layer_and_seed_has_draws_of_its_own(kind, arguments):
    layer, x = kind(**arguments), images(1).repeat(64, axis=0)
    y = changed(layer, x)
    assert y.shape == x.shape
    assert y.dtype == np.float32
    different = len(np.unique(y.reshape(64, -1), axis=0))
    assert different == 4 >> len(arguments) if kind is RandomFlip else different > 30  # of 64; few with "nearest"
    np.testing.assert_array_equal(changed(layer, x), y)
    for other in ({"step": 1}, {"seed": 2}, {"stream": 1}, {"step": 2**32}, {"seed": 1 + 2**32}):
        assert not np.array_equal(changed(layer, x, **other), y), other
    own = kind(**arguments, seed=5)
    np.testing.assert_array_equal(changed(own, x, seed=1), changed(own, x, seed=2))
    np.testing.assert_array_equal(changed(own, x), changed(layer, x, seed=5))


@each_layer
def test_nothing_happens_outside_of_training(kind, arguments):
    layer, x = kind(**arguments), images()
    assert layer.call(x) is x
    np.testing.assert_array_equal(layer(x), x)
    symbolic = Tensor((None, 8, 6, 2))
    assert layer.call(symbolic) is symbolic
    assert not np.array_equal(layer(x, training=True), x)


def classifier(*layers, seed=3, channels=2):
    fastnn.set_seed(seed)
    model = fastnn.Sequential([Input((8, 6, channels)), *layers, Flatten(), Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def whole_family():
    return [kind(**arguments) for kind, arguments in EVERY]


def fitted(seed=3, epochs=2):
    x, y = images(70), np.random.default_rng(1).integers(0, 3, 70)
    model = classifier(*whole_family(), seed=seed)
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)  # the last batch has 6 rows
    return model, x


def test_training_twice_gives_the_same_bits_and_with_another_seed_others(engine):
    results = []
    for threads in (1, 2, 3):
        if engine == "native":
            native.set_threads(threads)
        results.append([w.tobytes() for w in fitted()[0].get_weights()])
    assert results[0] == results[1] == results[2]
    assert [w.tobytes() for w in fitted(seed=4)[0].get_weights()] != results[0]


def test_backends_train_alike():
    weights = []
    for name in BACKENDS:
        fastnn.config.set_backend(name)
        weights.append(fitted()[0].get_weights()[0])
    fastnn.config.set_backend("auto")
    for other in weights[1:]:
        np.testing.assert_allclose(other, weights[0], rtol=1e-3, atol=1e-5)


def test_prediction_and_its_plan_know_nothing_of_augmentation(backend):
    model, x = fitted(epochs=1)
    plain = classifier()
    plain.set_weights(model.get_weights())
    assert model.predict(x).tobytes() == plain.predict(x).tobytes()
    assert model.evaluate(x, np.zeros(70), verbose=0) == plain.evaluate(x, np.zeros(70), verbose=0)
    training = {step.op.name for step in model.plan().steps}
    assert {"random_flip", "affine_transform", "random_contrast"} <= training
    assert not training & {"affine_transform_dx", "random_contrast_dx"}  # nothing before them is trained
    assert {step.op.name for step in model.plan(training=False).steps} == {
        step.op.name for step in plain.plan(training=False).steps
    }


class Pictures(Layer):
    """Rows of 96 numbers as images."""

    def call(self, x, training=None):
        return reshape(x, shape=(8, 6, 2))


@each_layer
def test_layers_before_augmentation_are_trained(kind, arguments, engine):
    """The slope of the loss along the gradient is the gradient's length squared."""
    floats, step, most = ("float64", 1e-6, 1e-6) if engine == "numpy" else ("float32", 1e-3, 0.02)
    rng = np.random.default_rng(9)
    x, y = rng.standard_normal((5, 4)), rng.standard_normal((5, 1))
    fastnn.config.set_floatx(floats)
    try:
        fastnn.set_seed(2)
        layers = [Input((4,)), Dense(96), Pictures(), kind(**arguments), Flatten(), Dense(1)]
        model = fastnn.Sequential(layers)
        start = model.get_weights()

        def loss_at(weights):
            model.set_weights(weights)
            model.compile(fastnn.optimizers.SGD(1.0), "mse")  # from step 0 again: the same draws
            return model.train_on_batch(x, y)

        loss_at(start)
        gradient = [a - b for a, b in zip(start, model.get_weights(), strict=True)]
        length = sum(np.sum(g**2) for g in gradient)
        up, down = (loss_at([w + s * g for w, g in zip(start, gradient, strict=True)]) for s in (step, -step))
        assert np.count_nonzero(gradient[0]) > gradient[0].size / 2
        assert (up - down) / (2 * step) == pytest.approx(length, rel=most)
    finally:
        fastnn.config.set_floatx("float32")


# Arguments

BAD = [
    (RandomFlip, {"mode": "sideways"}, "mode"),
    (RandomFlip, {"mode": None}, "mode"),
    (RandomFlip, {"mode": 1}, "mode"),
    (RandomFlip, {"seed": -1}, "seed"),
    (RandomFlip, {"seed": 2**64}, "seed"),
    (RandomRotation, {"factor": 1.01}, "factor"),
    (RandomRotation, {"factor": (-2, 0.5)}, "factor"),
    (RandomRotation, {"factor": (0.1, 0.2, 0.3)}, "factor"),
    (RandomRotation, {"factor": ()}, "factor"),
    (RandomRotation, {"factor": "0.1"}, "factor"),
    (RandomRotation, {"factor": None}, "factor"),
    (RandomRotation, {"factor": float("nan")}, "factor"),
    (RandomRotation, {"factor": 1e300}, "factor"),
    (RandomRotation, {"factor": True}, "factor"),
    (RandomRotation, {"factor": 0.1, "fill_mode": "mirror"}, "fill_mode"),
    (RandomRotation, {"factor": 0.1, "fill_mode": None}, "fill_mode"),
    (RandomRotation, {"factor": 0.1, "interpolation": "bicubic"}, "interpolation"),
    (RandomRotation, {"factor": 0.1, "fill_value": float("inf")}, "fill_value"),
    (RandomRotation, {"factor": 0.1, "fill_value": 1e39}, "fill_value"),
    (RandomZoom, {"height_factor": -1.0}, "height_factor"),
    (RandomZoom, {"height_factor": 1.5}, "height_factor"),
    (RandomZoom, {"height_factor": 1e300}, "height_factor"),
    (RandomZoom, {"height_factor": 0.1, "width_factor": (-1, 0)}, "width_factor"),
    (RandomTranslation, {"height_factor": 1.1, "width_factor": 0.1}, "height_factor"),
    (RandomTranslation, {"height_factor": 0.1, "width_factor": (0.1, -1.1)}, "width_factor"),
    (RandomContrast, {"factor": -0.1}, "factor"),
    (RandomContrast, {"factor": (0.1, 1.1)}, "factor"),
    (RandomContrast, {"factor": 0.1, "value_range": (1.0, 0.0)}, "value_range"),
    (RandomContrast, {"factor": 0.1, "value_range": (0.0, 0.0)}, "value_range"),
    (RandomContrast, {"factor": 0.1, "value_range": 255.0}, "value_range"),
    (RandomContrast, {"factor": 0.1, "value_range": (0.0, float("inf"))}, "value_range"),
    (RandomContrast, {"factor": 0.1, "value_range": (0.0, 1e300)}, "value_range"),
]


@pytest.mark.parametrize(("kind", "arguments", "name"), BAD)
def test_arguments_that_make_no_sense_are_refused_by_name(kind, arguments, name):
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: {name} must .*Received: {name}="):
        kind(**arguments)


@each_layer
def test_only_images_are_taken(kind, arguments):
    layer = kind(**arguments, name="it")
    for shape in ((None, 8), (None, 8, 6), (None, 8, 6, 2, 2), (None, None, 6, 2)):
        with pytest.raises(ValueError, match=rf"^it: {kind.__name__} needs images .*Received: shape"):
            layer(Tensor(shape))
    with pytest.raises(ValueError, match="needs images"):
        layer(np.zeros((3, 4)), training=True)
    with pytest.raises(ValueError, match="needs images"):
        fastnn.Sequential([Input((5,)), layer]).build()


@pytest.mark.parametrize("op", ["random_flip", "rotation_matrices", "affine_transform", "random_contrast"])
def test_images_without_pixels_or_too_large_for_the_engine_are_refused(op):
    for shape in ((2, 0, 4, 1), (2, 4, 4, 0), (2, 1, 2**24, 1), (2, 2**24, 1, 1), (2, 1, 1, 2**16 + 1)):
        attrs = {"interpolation": "nearest", "fill_mode": "wrap"} if op == "affine_transform" else {}
        with pytest.raises(ValueError, match=f"^{op}: needs images .*Received: shape"):
            OPS[op].infer(shape, (2, 6) if op == "affine_transform" else (1,), **attrs)


def test_an_unknown_mode_is_refused_by_the_op():
    for attrs in ({"interpolation": "cubic", "fill_mode": "wrap"}, {"interpolation": "nearest", "fill_mode": "none"}):
        with pytest.raises(ValueError, match=r"^affine_transform: interpolation must be one of"):
            OPS["affine_transform"].infer((2, 3, 4, 1), (2, 6), **attrs)


def test_one_number_stands_for_both_directions_and_pairs_may_come_in_any_order():
    x = images()
    for one, other in (
        (RandomRotation(0.1), RandomRotation((-0.1, 0.1))),
        (RandomRotation(-0.1), RandomRotation((0.1, -0.1))),
        (RandomZoom(0.2, 0.3), RandomZoom((0.2, -0.2), [-0.3, 0.3])),
        (RandomTranslation(0.2, 0), RandomTranslation((-0.2, 0.2), (0, 0))),
        (RandomContrast(0.2, (-9, 9)), RandomContrast((0.2, 0.2), [-9, 9])),
    ):
        np.testing.assert_array_equal(changed(one, x), changed(other, x))
    assert not np.array_equal(changed(RandomContrast((0.1, 0.9)), x), changed(RandomContrast((0.9, 0.1)), x))


# Saving


@each_layer
def test_a_description_gives_the_same_layer_again(kind, arguments):
    layer = kind(**arguments, seed=7, name="it")
    config = layer.get_config()
    assert config["seed"] == 7
    assert {key: config[key] for key in arguments} == {
        key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()
    }
    again = LAYERS[kind.__name__].from_config(config)
    assert again.get_config() == config
    assert repr(again) == repr(layer)
    np.testing.assert_array_equal(changed(again, images()), changed(layer, images()))


def test_a_saved_model_goes_on_training_as_if_it_had_not_stopped(tmp_path, backend):
    model, x = fitted(epochs=1)
    y = np.random.default_rng(1).integers(0, 3, 70)
    model.save(tmp_path / "model.fastnn")
    loaded = fastnn.models.load_model(tmp_path / "model.fastnn")
    for one in (model, loaded):
        one.fit(x, y, batch_size=32, epochs=2, initial_epoch=1, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()
