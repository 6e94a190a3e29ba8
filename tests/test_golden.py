"""Values worked out by hand, for what generated tests cannot know: that the reference itself is right."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastnn
from fastnn import backends, initializers, optimizers, schedules
from fastnn.layers import Dense
from fastnn.ops import OPS
from fastnn.ops.random import philox, random_words, uniform


def run(backend, op, *arrays, **attrs):
    outputs, compute = backends.single(backend, op, [np.asarray(a) for a in arrays], attrs)
    compute()
    return outputs[0] if len(outputs) == 1 else outputs


def close(actual, wanted):
    np.testing.assert_allclose(actual, np.asarray(wanted, float), rtol=2e-6, atol=1e-7)


# Dense, 2 rows, 2 inputs, 2 outputs:
#   x = [1 2]   w = [ 1 -1]   b = [0.5 -1]   x w = [1+6  -1+4] = [7 3]   + b = [ 7.5  2]
#       [3 4]       [ 3  2]                        [3+12 -3+8]   [15 5]         [15.5  4]
X, W, B = [[1.0, 2.0], [3.0, 4.0]], [[1.0, -1.0], [3.0, 2.0]], [0.5, -1.0]


def test_dense_forward(backend):
    close(run(backend, "matmul", X, W), [[7.0, 3.0], [15.0, 5.0]])
    close(run(backend, "dense", X, W, B), [[7.5, 2.0], [15.5, 4.0]])
    close(run(backend, "dense", X, W, [-8.0, -4.0], activation="relu"), [[0.0, 0.0], [7.0, 1.0]])


def test_dense_backward(backend):
    # g = [1 10]     g w^T = [1-10    3+20 ] = [ -9  23]   x^T g = [1+6  10-3] = [ 7  7]   sum of rows = [3 9]
    #     [2 -1]             [2+1     6-2  ]   [  3   4]           [2+8  20-4]   [10 16]
    g = [[1.0, 10.0], [2.0, -1.0]]
    close(run(backend, "matmul_nt", g, W), [[-9.0, 23.0], [3.0, 4.0]])
    close(run(backend, "matmul_tn", X, g), [[7.0, 7.0], [10.0, 16.0]])
    close(run(backend, "sum_rows", g), [3.0, 9.0])
    # the input was relu's output [0 5; 2 0]: the gradient passes where it is positive
    close(run(backend, "dense_dx", g, W, [[0.0, 5.0], [2.0, 0.0]], activation="relu"), [[0.0, 23.0], [3.0, 0.0]])


@pytest.mark.parametrize(
    ("name", "x", "y", "slope"),
    [
        ("relu", 2.0, 2.0, 1.0),
        ("relu", -2.0, 0.0, 0.0),
        ("sigmoid", math.log(3.0), 0.75, 0.1875),  # 3 / (1 + 3); 3/4 * 1/4
        ("tanh", math.log(2.0), 0.6, 0.64),  # (2 - 1/2) / (2 + 1/2); 1 - 0.36
        ("softplus", math.log(3.0), math.log(4.0), 0.75),  # log(1 + 3); sigmoid
        ("exponential", math.log(5.0), 5.0, 5.0),
        ("softsign", 3.0, 0.75, 0.0625),  # 1 / (1 + 3)^2
        ("hard_sigmoid", 1.5, 0.75, 1 / 6),
        ("hard_sigmoid", 4.0, 1.0, 0.0),
        ("relu6", 7.0, 6.0, 0.0),
        ("selu", 1.0, 1.0507009873554805, 1.0507009873554805),
        ("selu", -math.log(2.0), -0.87904966, 0.87904966),  # scale * alpha * (1/2 - 1); slope scale * alpha / 2
        ("gelu", 1.0, 0.8413447461, 1.0833154706),  # Phi(1); Phi(1) + phi(1), phi(1) = 0.2419707245
        ("silu", math.log(3.0), 0.75 * math.log(3.0), 0.75 + 0.1875 * math.log(3.0)),
        ("hard_silu", 1.5, 1.125, 1.0),  # 1.5 * 0.75; 1.5 / 3 + 1/2
        ("mish", 0.0, 0.0, 0.6),  # tanh(log 2)
    ],
)
def test_activations_and_their_slopes(backend, name, x, y, slope):
    close(run(backend, name, [[x]]), [[y]])
    given = x if "x" in OPS[f"{name}_dx"].inputs else y
    close(run(backend, f"{name}_dx", [[2.0]], [[given]]), [[2.0 * slope]])


def test_softmax(backend):
    # e^0 : e^log 2 : e^log 5 = 1 : 2 : 5
    z = [[0.0, math.log(2.0), math.log(5.0)]]
    close(run(backend, "softmax", z), [[0.125, 0.25, 0.625]])
    # y (g - sum g y), g = [8 0 0]: sum = 1
    close(run(backend, "softmax_dx", [[8.0, 0.0, 0.0]], [[0.125, 0.25, 0.625]]), [[0.875, -0.25, -0.625]])


def test_sigmoid_crossentropy(backend):
    # logits log 3 and -log 3: sigmoid 3/4 and 1/4. Targets 1 and 0: -log(3/4) each
    z = [[math.log(3.0), -math.log(3.0)]]
    close(run(backend, "sigmoid_crossentropy", z, [[1.0, 0.0]]), [math.log(4 / 3)])
    close(run(backend, "binary_crossentropy", [[0.75, 0.25]], [[1.0, 0.0]]), [math.log(4 / 3)])
    # targets 0 and 0: (-log(1/4) - log(3/4)) / 2; the gradient is (sigmoid - y) / 2
    close(run(backend, "sigmoid_crossentropy", z, [[0.0, 0.0]]), [(math.log(4.0) + math.log(4 / 3)) / 2])
    close(run(backend, "sigmoid_crossentropy_dx", [2.0], z, [[0.0, 1.0]]), [[0.75, -0.75]])
    # and does not overflow
    close(run(backend, "sigmoid_crossentropy", [[1000.0, -1000.0]], [[0.0, 0.0]]), [500.0])


def test_softmax_crossentropy(backend):
    z = [[0.0, math.log(2.0), math.log(5.0)], [1000.0, 0.0, 0.0]]
    onehot, labels = [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]], [[1.0], [1.0]]
    close(run(backend, "softmax_crossentropy", z, onehot), [math.log(4.0), 1000.0])
    close(run(backend, "sparse_softmax_crossentropy", z, labels), [math.log(4.0), 1000.0])
    wanted = [[0.125, -0.75, 0.625], [1.0, -1.0, 0.0]]
    close(run(backend, "softmax_crossentropy_dx", [1.0, 1.0], z, onehot), wanted)
    close(run(backend, "sparse_softmax_crossentropy_dx", [1.0, 1.0], z, labels), wanted)
    # on probabilities, which are scaled to sum 1 first: 2 / 16
    close(run(backend, "categorical_crossentropy", [[2.0, 4.0, 10.0]], [[1.0, 0.0, 0.0]]), [math.log(8.0)])
    close(run(backend, "sparse_categorical_crossentropy", [[2.0, 4.0, 10.0]], [[0.0]]), [math.log(8.0)])


def test_squared_and_absolute_error(backend):
    p, y = [[1.0, 5.0], [0.0, -2.0]], [[0.0, 2.0], [0.5, -2.0]]
    close(run(backend, "mean_squared_error", p, y), [5.0, 0.125])  # (1 + 9) / 2, (1/4 + 0) / 2
    close(run(backend, "mean_absolute_error", p, y), [2.0, 0.25])
    close(run(backend, "mean_squared_error_dx", [1.0, 2.0], p, y), [[1.0, 3.0], [-1.0, 0.0]])
    close(run(backend, "mean_absolute_error_dx", [1.0, 2.0], p, y), [[0.5, 0.5], [-1.0, 0.0]])


def test_accuracies(backend):
    close(run(backend, "binary_accuracy", [[0.5, 0.6, 0.9, 0.1]], [[0.0, 1.0, 0.0, 0.0]], threshold=0.5), [0.75])
    p = [[0.4, 0.4, 0.2], [0.1, 0.2, 0.7]]  # the first of equals counts
    close(run(backend, "categorical_accuracy", p, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), [1.0, 0.0])
    close(run(backend, "sparse_categorical_accuracy", p, [[1.0], [2.0]]), [0.0, 1.0])


# Optimizers: one weight, y = w * 1, loss (w - 0)^2, so the gradient is 2 w. w starts at 1; two steps.


def two_steps(optimizer):
    model = fastnn.Sequential([Dense(1, use_bias=False, kernel_initializer="ones", input_shape=(1,))])
    model.compile(optimizer, "mse")
    weights = []
    for _ in range(2):
        model.train_on_batch([[1.0]], [[0.0]])
        weights.append(float(model.get_weights()[0][0, 0]))
    return weights


@pytest.mark.parametrize(
    ("optimizer", "wanted"),
    [
        # 1 - 0.1 * 2 = 0.8; 0.8 - 0.1 * 1.6 = 0.64
        (lambda: optimizers.SGD(0.1), [0.8, 0.64]),
        # v = -0.2, w = 0.8; v = 0.5 * -0.2 - 0.1 * 1.6 = -0.26, w = 0.54
        (lambda: optimizers.SGD(0.1, momentum=0.5), [0.8, 0.54]),
        # v = -0.2, w = 1 + 0.5 * -0.2 - 0.2 = 0.7; v = -0.1 - 0.14 = -0.24, w = 0.7 - 0.12 - 0.14 = 0.44
        (lambda: optimizers.SGD(0.1, momentum=0.5, nesterov=True), [0.7, 0.44]),
        # v = 0.5 * 4 = 2, w = 1 - 0.1 * 2 / sqrt 2 = 0.858578644; v = 1 + 0.5 * 1.717157288^2 = 2.474314575,
        # w = 0.858578644 - 0.1717157288 / 1.572995415 = 0.749413803
        (lambda: optimizers.RMSprop(0.1, rho=0.5), [0.858578644, 0.749413803]),
        # the same steps 0.141421356 and 0.109164799, and half of the first once more: 0.858578644 - 0.179875477
        (lambda: optimizers.RMSprop(0.1, rho=0.5, momentum=0.5), [0.858578644, 0.678703166]),
        # the first step is the rate itself, m / (1 - b1) = g and v / (1 - b2) = g^2: w = 0.9, g = 1.8,
        # m = 0.9 * 0.2 + 0.18 = 0.36, / 0.19 = 1.894736842; v = 0.999 * 0.004 + 0.00324 = 0.007236, / 0.001999 =
        # 3.619809905, root 1.902579803; w = 0.9 - 0.1 * 0.995877723 = 0.800412228
        (lambda: optimizers.Adam(0.1), [0.9, 0.800412228]),
        # Adam's step after w has shrunk by 0.1 * 0.5 of itself: 1 * 0.95 - 0.1 = 0.85, g = 1.7,
        # m = 0.18 + 0.17 = 0.35, / 0.19 = 1.842105263; v = 0.003996 + 0.00289 = 0.006886, / 0.001999 = 3.444722361,
        # root 1.855996326; w = 0.85 * 0.95 - 0.1 * 0.992515275 = 0.708248473
        (lambda: optimizers.AdamW(0.1, weight_decay=0.5), [0.85, 0.708248473]),
        # the gradient 2 is cut to 1: w = 0.9; then 1.8 is cut to 1: 0.8
        (lambda: optimizers.SGD(0.1, clipvalue=1.0), [0.9, 0.8]),
        (lambda: optimizers.SGD(0.1, clipnorm=1.0), [0.9, 0.8]),
        (lambda: optimizers.SGD(0.1, global_clipnorm=1.0), [0.9, 0.8]),
        # rates 0.1 and 0.05: 0.8, then 0.8 - 0.05 * 1.6 = 0.72
        (lambda: optimizers.SGD(schedules.ExponentialDecay(0.1, 1, 0.5)), [0.8, 0.72]),
    ],
)
def test_first_two_steps_of_each_optimizer(backend, optimizer, wanted):
    np.testing.assert_allclose(two_steps(optimizer()), wanted, rtol=1e-6)


# Random numbers

#: Random123's known answers (kat_vectors, philox4x32 10): counter, key, words.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter, key, answer):
    low, high = words(key)
    result = philox([np.array([c]) for c in words(counter)], high << 32 | low)
    assert [int(word[0]) for word in result] == words(answer)


def test_first_random_words_are_philox_of_counter_zero(backend):
    # seed 0, step 0, stream 0: the four words of counter 0 are the elements 0, 16, 32 and 48
    drawn = random_words(64, 0, seed=0, stream=0)
    assert [int(drawn[i]) for i in (0, 16, 32, 48)] == words(KNOWN_ANSWERS[0][2])
    # dropout keeps an element if its word's upper 24 bits, as a fraction, are not below the rate:
    # 0x6627e8d5 -> 0.399046, 0xe169c58d -> 0.880520, 0xbc57ac4c -> 0.735713, 0x9b00dbd8 -> 0.605482
    fractions = uniform(64, 0, seed=0, stream=0)[::16]
    np.testing.assert_allclose(fractions, [0.399046, 0.880520, 0.735713, 0.605482], atol=1e-6)
    for rate, kept in ((0.3, [1, 1, 1, 1]), (0.5, [0, 1, 1, 1]), (0.7, [0, 1, 1, 0]), (0.8, [0, 1, 0, 0])):
        y = run(backend, "dropout", np.ones((1, 64)), np.array([0]), rate=rate, seed=0, stream=0)
        close(y[0, ::16], np.array(kept) / (1 - rate))


def test_random_words_follow_seed_step_and_stream():
    # counter (0, step low, step high, stream), key (seed low, seed high): the second known answer needs element 0 of
    # lane 2^32 - 1, out of reach; so by their own definition
    seed, step, stream = 0x299F31D0A4093822, 0x13198A2E85A308D3, 0x03707344
    wanted = philox([np.array([c]) for c in (0, 0x85A308D3, 0x13198A2E, 0x03707344)], seed)
    assert [int(w) for w in random_words(64, step, seed=seed, stream=stream)[::16]] == [int(w[0]) for w in wanted]
    second = philox([np.array([c]) for c in (16, 0x85A308D3, 0x13198A2E, 0x03707344)], seed)
    assert int(random_words(65, step, seed=seed, stream=stream)[64]) == int(second[0][0])


def test_dropout_drops_its_share_and_keeps_the_mean(backend):
    y = run(backend, "dropout", np.ones((1000, 100)), np.array([3]), rate=0.3, seed=9, stream=2)
    # 100,000 draws: the standard deviation of the share is sqrt(0.3 * 0.7 / 1e5) = 0.00145; five of them
    assert abs(np.mean(y == 0) - 0.3) < 0.0073
    close(np.unique(y), [0.0, 1 / 0.7])


# Initializers: kernel (200, 300), fan in 200, fan out 300

FACTORS = {
    "glorot_uniform": 2 / 500,
    "glorot_normal": 2 / 500,
    "he_uniform": 2 / 200,
    "he_normal": 2 / 200,
    "lecun_uniform": 1 / 200,
    "lecun_normal": 1 / 200,
    "random_normal": 0.05**2,
    "random_uniform": 0.1**2 / 12,
}


@pytest.mark.parametrize("name", FACTORS)
def test_initializers_have_their_mean_variance_and_bounds(name):
    values = initializers.get(name)((200, 300), np.random.default_rng(4))
    assert values.shape == (200, 300)
    deviation = math.sqrt(FACTORS[name])
    assert abs(values.mean()) < 5 * deviation / math.sqrt(values.size)
    # of 60,000 draws, the variance is off by at most sqrt(2 / 60,000) of itself in one standard deviation (normal)
    np.testing.assert_allclose(values.var(), FACTORS[name], rtol=5 * math.sqrt(2 / values.size))
    if "uniform" in name:
        limit = math.sqrt(3.0) * deviation
        assert limit * 0.999 < abs(values).max() <= limit
    elif name != "random_normal":
        limit = 2.0 * deviation / 0.87962566103423978
        assert limit * 0.99 < abs(values).max() <= limit


def test_constant_initializers():
    rng = np.random.default_rng(0)
    assert (initializers.Zeros()((2, 3), rng) == 0).all()
    assert (initializers.Ones()((2, 3), rng) == 1).all()
    assert (initializers.Constant(2.5)((2, 3), rng) == 2.5).all()
    values = initializers.RandomUniform(2.0, 3.0)((100,), rng)
    assert 2.0 <= values.min() < 2.1 < 2.9 < values.max() < 3.0


def test_fans_of_kernels_with_windows():
    # 3 x 3 window, 8 in, 16 out
    assert initializers.fans((3, 3, 8, 16)) == (72.0, 144.0)
    assert initializers.fans((8, 16)) == (8.0, 16.0)
    assert initializers.fans((7,)) == (7.0, 7.0)


# Schedules


def at(schedule, *steps):
    return schedule(np.array(steps)).tolist()


def test_exponential_decay():
    assert at(schedules.ExponentialDecay(0.8, 10, 0.25), 0, 5, 10, 20) == pytest.approx([0.8, 0.4, 0.2, 0.05])
    stairs = schedules.ExponentialDecay(0.8, 10, 0.25, staircase=True)
    assert at(stairs, 0, 9, 10, 19, 20) == pytest.approx([0.8, 0.8, 0.2, 0.2, 0.05])


def test_piecewise_constant_decay():
    schedule = schedules.PiecewiseConstantDecay([2, 4], [0.3, 0.2, 0.1])
    assert at(schedule, 0, 2, 3, 4, 5, 100) == [0.3, 0.3, 0.2, 0.2, 0.1, 0.1]


def test_cosine_decay():
    # cos of 0, 60, 90, 180 degrees: 1, 1/2, 0, -1
    assert at(schedules.CosineDecay(1.0, 6), 0, 2, 3, 6, 9) == pytest.approx([1.0, 0.75, 0.5, 0.0, 0.0])
    assert at(schedules.CosineDecay(1.0, 6, alpha=0.2), 0, 2, 3, 6) == pytest.approx([1.0, 0.8, 0.6, 0.2])
    warm = schedules.CosineDecay(0.0, 6, warmup_target=1.0, warmup_steps=4)
    assert at(warm, 0, 1, 4, 7, 10) == pytest.approx([0.0, 0.25, 1.0, 0.5, 0.0])


def test_adam_rates_are_corrected_for_the_start():
    rates = optimizers.Adam(0.1, beta_1=0.5, beta_2=0.75).rates(0, 2)
    # sqrt(1 - 0.75) / (1 - 0.5) = 1; sqrt(1 - 0.5625) / (1 - 0.25) = 0.881917
    np.testing.assert_allclose(rates, [[0.1, 0.1], [0.1, 0.0881917]], rtol=1e-6)
    assert rates.dtype == np.float32
    np.testing.assert_array_equal(optimizers.Adam(0.1, beta_1=0.5, beta_2=0.75).rates(1, 1), rates[1:])
