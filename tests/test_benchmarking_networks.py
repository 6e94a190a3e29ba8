"""`fastnn bench` on the networks of the literature: the work, who takes part, wrong results. Nothing is timed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastnn
from fastnn import benchmarking
from fastnn.benchmarking import peers, report, timing, worker
from fastnn.benchmarking.networks import APPLICATIONS, UNET, Application
from fastnn.benchmarking.peers import CONTESTANTS
from fastnn.benchmarking.peers import fastnn as own
from fastnn.benchmarking.workloads import LITERATURE, WORKLOADS, Workload

SMALL = {
    "masks": Application("UNet", (16, 16, 1), 1, {"base_filters": 4, "depth": 2}),
    "labels": Application("LeNet5", (28, 28, 1), 10),
}


def workload(kind: Any, what: str = "masks", batch: int = 3) -> Workload:
    return Workload("net-small", "a small one", kind, None, batch, batch, application=SMALL[what])


def test_every_network_is_trained_asked_and_weighed() -> None:
    for name in APPLICATIONS:
        assert {f"net-{name}-{end}" for end in ("step", "predict", "memory")} <= set(WORKLOADS)


def test_names_are_unique() -> None:
    keys = [work.key for work in LITERATURE]
    assert len(set(keys)) == len(keys)


def test_batches_and_growth_are_measured_in_full_runs_or_when_named() -> None:
    options = benchmarking.parser()
    short = {work.key for work in benchmarking.selected_workloads(options, None, timing.SHORT)}
    full = {work.key for work in benchmarking.selected_workloads(options, None, timing.FULL)}
    named = [work.key for work in benchmarking.selected_workloads(options, "grow-width,batch-unet-1", timing.SHORT)]
    assert "net-unet-step" in short
    assert "batch-vgg16-32-step" in full - short
    assert {"grow-width-64-step", "batch-unet-1-predict"} <= set(named)


def test_quick_runs_leave_the_networks_out() -> None:
    found = benchmarking.selected_workloads(benchmarking.parser(), None, timing.QUICK)
    assert not any(work.application for work in found)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_network_can_be_built(name: str) -> None:
    work, _ = APPLICATIONS[name]
    assert hasattr(fastnn.applications, work.name)
    assert work.data(1)[0].shape == (1, *work.shape)


def test_data_and_weights_depend_on_nothing_else() -> None:
    x, y = UNET.data(2)
    np.testing.assert_array_equal(x, UNET.data(2)[0])
    assert set(np.unique(y)) == {0.0, 1.0}
    kernel = UNET.entry("encoder1.enc1conv1.weight", (8, 4, 3, 3))
    np.testing.assert_array_equal(kernel, UNET.entry("encoder1.enc1conv1.weight", (8, 4, 3, 3)))
    assert abs(kernel).max() <= np.sqrt(6 / 36)
    assert UNET.entry("bn1.running_var", (3,)).tolist() == [1, 1, 1]
    assert UNET.entry("bn1.bias", (3,)).tolist() == [0, 0, 0]


def test_the_model_has_the_weights_that_all_get() -> None:
    model = own.application_of(SMALL["labels"])
    kernel = SMALL["labels"].entry("conv1.weight", (6, 1, 5, 5))
    np.testing.assert_array_equal(model.get_layer("conv1").get_weights()[0], kernel.transpose(2, 3, 1, 0))


@pytest.mark.parametrize("kind", ["train", "predict", "first"])
@pytest.mark.parametrize("what", SMALL)
def test_fastnn_does_the_work_and_passes_the_check(kind: str, what: str) -> None:
    work = workload(kind, what)
    (case,) = own.cases(work, 1, thorough=False)
    peers.check(work, case.run(1))


def test_other_predictions_and_losses_are_refused() -> None:
    work = workload("predict")
    (case,) = own.cases(work, 1, thorough=False)
    with pytest.raises(ValueError, match="predictions differ"):
        peers.check(work, case.run(1) + 0.01)
    with pytest.raises(ValueError, match="predictions differ"):
        peers.check(work, case.run(1)[:2])
    for loss in (float("nan"), 50.0):
        with pytest.raises(ValueError, match="loss"):
            peers.check(workload("train"), loss)


def test_contestants_take_part_in_what_they_do_with_these_networks() -> None:
    work = WORKLOADS["net-unet-predict"]
    assert [key for key, peer in CONTESTANTS.items() if peer.does(work)] == [
        "fastnn",
        "onnxruntime",
        "openvino",
        "torch",
    ]
    step = replace(work, kind="train")
    assert [key for key, peer in CONTESTANTS.items() if peer.does(step)] == ["fastnn", "torch"]
    assert not CONTESTANTS["openvino"].does(WORKLOADS["mlp-batch"])


def test_a_worker_measures_a_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(worker.WORKLOADS, "net-small", workload("first"))
    answer = worker.Contestant("fastnn", 1).obey("first", workload="net-small")
    assert answer["setting"] == "train_on_batch"
    assert answer["seconds"] > 0


def test_first_steps_are_measured_in_fresh_processes_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    class Fresh:
        def __init__(self, key: str, threads: int) -> None:
            self.key = key

        def ask(self, **command: Any) -> dict[str, Any]:
            asked.append((self.key, command))
            return {"setting": "s", "seconds": float(len(asked))}

        def close(self) -> None:
            pass

    monkeypatch.setattr(timing, "Worker", Fresh)
    monkeypatch.setattr(peers.Peer, "installed", property(lambda peer: True))
    result = timing.measure_fresh(WORKLOADS["net-unet-first"], ["fastnn", "jax", "torch"], 2, 3)
    assert [key for key, _ in asked] == ["fastnn"] * 3 + ["torch"] * 3
    assert asked[0][1] == {"do": "first", "workload": "net-unet-first"}
    assert result.scores[0].samples == [1.0, 2.0, 3.0]


def test_growth_is_shown_beside_the_operations() -> None:
    work = replace(WORKLOADS["grow-size-64-step"], application=SMALL["masks"])
    flops = SMALL["masks"].flops(work.batch, training=True)
    assert flops > 2.5 * SMALL["masks"].flops(work.batch, training=False)
    scores = [timing.Score("fastnn", samples=[0.5]), timing.Score("torch", samples=[1.0])]
    lines = report.growth([timing.Result(work, 2, scores)], 2).splitlines()
    assert lines[0] == "How time grows (2 threads)"
    assert lines[2].split()[-1] == "2.0x"
