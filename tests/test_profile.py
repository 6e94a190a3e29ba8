"""``model.profile``: every step timed, the model left alone."""

from __future__ import annotations

import numpy as np
import pytest
from small_nets import build, data, fit, same_bits

import fastnn
from fastnn.layers import Conv2D, Dense, Dropout, Flatten


def images():
    rng = np.random.default_rng(0)
    fastnn.set_seed(0)
    first = Conv2D(16, 3, activation="relu", input_shape=(9, 9, 3))
    model = fastnn.Sequential([first, Conv2D(16, 3), Flatten(), Dense(2)])
    model.compile("adam", "mse")
    return model, rng.normal(size=(5, 9, 9, 3)), rng.normal(size=(5, 2))


def test_prediction_is_timed_step_by_step(backend):
    model, x, _ = images()
    profile = model.profile(x, seconds=0.0)
    plan = model.plan(training=False)
    assert [step.step for step in profile.steps] == [step.line() for step in plan.steps]
    assert profile.rows == 5
    assert profile.runs >= 3
    assert all(step.seconds >= 0.0 for step in profile.steps)
    assert profile.seconds == pytest.approx(sum(step.seconds for step in profile.steps))
    assert sum(step.share for step in profile.steps) == pytest.approx(1.0)


def test_training_is_timed_step_by_step(backend):
    model, x, y = images()
    profile = model.profile(x, y, batch_size=3, seconds=0.0)
    assert [step.step for step in profile.steps] == [step.line() for step in model.plan(batch_size=3).steps]
    assert profile.rows == 3


def test_rates_follow_from_the_time():
    model, x, _ = images()
    profile = model.profile(x, seconds=0.0)
    for step, planned in zip(profile.steps, model.plan(training=False, batch_size=5).steps, strict=True):
        seconds = max(step.seconds, 1e-9)
        assert step.gflops == pytest.approx(planned.flops / seconds / 1e9)
        assert step.gbytes == pytest.approx(4 * planned.elements / seconds / 1e9)
        if profile.peak_gflops is None:
            assert step.peak_share is None
        else:
            assert step.peak_share == pytest.approx(step.gflops / profile.peak_gflops)


def test_only_products_and_convolutions_have_flops():
    x, y = data()
    steps = build().profile(x, y, seconds=0.0).steps
    names = {step.step.split()[0] for step in steps if step.gflops is not None}
    assert names == {"dense", "dense_dx", "matmul_tn"}


def test_the_peak_is_that_of_the_native_engine(backend):
    model, x, _ = images()
    profile = model.profile(x, seconds=0.0)
    if backend == "native":
        assert profile.peak_gflops > 0
    else:
        assert profile.peak_gflops is None
        assert {line.split()[-2] for line in str(profile).splitlines()[2:]} == {"-"}


def test_it_prints_as_an_aligned_table():
    model, x, y = images()
    profile = model.profile(x, y, seconds=0.0)
    title, head, *rows = str(profile).splitlines()
    assert title.startswith(f"Profile {model.name}: training step: batch 5, {fastnn.config.backend()}, ")
    assert head.split() == ["step", "time", "in", "us", "share", "GFLOP/s", "of", "peak", "GB/s"]
    assert len(rows) == len(profile.steps) + 1
    assert {len(row) for row in (head, *rows)} == {len(head)}
    assert rows[-1].split()[0] == "total"
    assert rows[-1].split()[2] == "100.0%"
    assert repr(profile) == str(profile)


def test_steps_that_are_kept_are_mentioned_and_not_timed():
    model, x, _ = images()
    text = str(model.profile(x, seconds=0.0))
    assert "without 1 steps that run only when the weights have changed" in text
    assert "winograd_weights" not in text


def test_the_model_stays_as_it_is(backend):
    x, y = data()
    metrics = ["accuracy", "auc"]
    models = [build(Dense(12, "relu"), Dropout(0.3), Dense(1, "sigmoid"), metrics=metrics) for _ in range(2)]
    profiled, other = models
    for model in models:
        fit(model, x, y, epochs=2)
    profiled.profile(x, y, batch_size=16, seconds=0.0)
    profiled.profile(x, seconds=0.0)
    assert same_bits(profiled, other)
    assert profiled.optimizer.iterations == other.optimizer.iterations
    for (name, one), (_, two) in zip(profiled.state()[0].items(), other.state()[0].items(), strict=True):
        np.testing.assert_array_equal(one, two, err_msg=name)
    assert profiled.evaluate(x, y) == other.evaluate(x, y)
    for model in models:
        fit(model, x, y, epochs=2, validation_split=0.2)
    assert same_bits(profiled, other)


def test_a_model_never_trained_and_one_partly_frozen_can_be_profiled():
    x, y = data()
    model, other = build(), build()
    model.profile(x, y, seconds=0.0)
    fit(model, x, y)
    fit(other, x, y)
    model.layers[0].trainable = False
    model.profile(x, y, seconds=0.0)
    model.layers[0].trainable = True
    fit(model, x, y)
    fit(other, x, y)
    assert same_bits(model, other)  # the optimizer still knows of the frozen layer


def test_a_few_rows_are_enough_and_no_more_are_taken():
    model, x, _ = images()
    assert model.profile(x[:1], seconds=0.0).rows == 1
    assert model.profile(x, batch_size=2, seconds=0.0).rows == 2
    assert model.profile(x.astype(np.uint8), batch_size=1000, seconds=0.0).rows == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"profile: batch_size must be a positive integer. Received: batch_size=0"),
        ({"seconds": -1}, r"profile: seconds must be a number >= 0. Received: seconds=-1"),
        ({"x": np.ones((90, 4))}, r"profile: x must have shape \(N, 6\). Received: shape \(90, 4\)"),
        ({"y": np.ones(4)}, r"profile: x and y must have the same number of rows. Received: 90 and 4"),
    ],
)
def test_what_cannot_be_profiled_is_refused(options, message):
    x, y = data()
    with pytest.raises(ValueError, match=message):
        build().profile(**{"x": x, "y": y, **options})


def test_training_is_profiled_of_a_compiled_model_only():
    model = fastnn.Sequential([Dense(1, input_shape=(6,))])
    x, y = data()
    model.profile(x, seconds=0.0)
    with pytest.raises(RuntimeError, match="must be compiled first"):
        model.profile(x, y, seconds=0.0)
