"""How many rows are tested and predicted at a time: as many as fit into a little memory, with the same results."""

from __future__ import annotations

import numpy as np
import pytest
from small_nets import build, data, fit

import fastnn
from fastnn import asking
from fastnn.backends import numpy as reference
from fastnn.layers import Conv2D, Dense, Flatten
from fastnn.plan import Plan


def plans(model):
    """The Plans that a model keeps, by what they are for."""
    made = {key[0]: what.plan for key, what in model._programs.items() if hasattr(what, "plan")}
    return {name if isinstance(name, str) else name[0]: plan for name, plan in made.items()}


@pytest.mark.parametrize("memory", [64 << 20, 20_000, 1000, 1])
def test_results_do_not_depend_on_the_rows_at_a_time(memory, monkeypatch, backend):
    x, y = data(rows=700)
    model, other = (build(metrics=["accuracy", "auc"]) for _ in range(2))
    wanted, scores = model.predict(x), model.evaluate(x, y)
    monkeypatch.setattr(asking, "MEMORY", memory)
    exact = backend != "numpy"  # NumPy's own products promise nothing of the kind
    for found, rows in ((other.predict(x), 700), (other(x), 700), (other(x[:3]), 3)):
        np.testing.assert_allclose(found, wanted[:rows], rtol=0 if exact else 1e-6)
    np.testing.assert_allclose(other.evaluate(x, y), scores, rtol=1e-12 if exact else 1e-6)
    assert other.plan(training=False).batch == plans(other)["predict"].batch
    for plan in (plans(other)["predict"], plans(other)["test"]):
        assert plan.batch == 1 or 4 * plan.arena_size <= memory
        assert plan.batch == 256 or 4 * plan.arena_size * (plan.batch + 2) / plan.batch > memory


def test_all_rows_are_taken_where_they_fit():
    model = build()
    model.predict(data()[0])
    assert plans(model)["predict"].batch == asking.ROWS == 256


def test_images_are_taken_a_few_at_a_time():
    model = fastnn.Sequential([Conv2D(32, 3, input_shape=(64, 64, 3)), Conv2D(32, 3), Flatten(), Dense(1)])
    plan = model.plan(training=False)
    assert 1 < plan.batch < 256
    assert 0.9 * asking.MEMORY < 4 * plan.arena_size <= asking.MEMORY


def test_one_row_is_the_least():
    model = fastnn.Sequential([Conv2D(64, 3, input_shape=(512, 512, 3)), Conv2D(64, 3), Conv2D(64, 3)])
    plan = model.plan(training=False)
    assert plan.batch == 1
    assert 4 * plan.arena_size > asking.MEMORY


def test_memory_that_does_not_grow_with_the_rows_leaves_the_rest():
    class Made:
        def __init__(self, batch, fixed=1000, each=100):
            self.batch, self.arena_size, self.dtype = batch, fixed + each * batch, "float32"

    assert asking.within_memory(Made).batch == 256
    limit = asking.MEMORY // 4
    plan = asking.within_memory(lambda rows: Made(rows, limit // 2, limit // 100))
    assert plan.batch == 50
    assert asking.within_memory(lambda rows: Made(rows, 2 * limit, limit // 100)).batch == 1
    assert asking.within_memory(lambda rows: Made(rows, 2 * limit, 0)).batch == 1


def test_a_program_is_made_for_the_rows_that_fit_and_no_other(monkeypatch):
    fastnn.config.set_backend("numpy")
    try:
        made = []

        class Program(reference.Program):
            def __init__(self, plan: Plan) -> None:
                made.append(plan)
                super().__init__(plan)

        monkeypatch.setattr(reference, "Program", Program)
        monkeypatch.setattr(asking, "MEMORY", 20_000)
        x, y = data(rows=300)
        model = build()
        model.predict(x)
        model.evaluate(x, y)
        assert len(made) == 2
        assert max(4 * plan.arena_size for plan in made) <= 20_000
        model.plan()
        model.plan(training=False)
        assert len(made) == 2  # to look at a Plan takes no memory
        fit(model, x, y)
        assert len(made) == 3
    finally:
        fastnn.config.set_backend("auto")


def test_a_plan_for_so_many_rows_may_be_asked_for():
    assert build().plan(training=False, batch_size=7).batch == 7
    assert build().plan(batch_size=9).batch == 9
    assert build().plan().batch == 32
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        build().plan(batch_size=0)
