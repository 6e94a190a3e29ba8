"""`fastnn bench` on images: the operations, who takes part, the tables, wrong results. Nothing is timed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastnn import benchmarking
from fastnn.benchmarking import chart, peers, report, timing, worker
from fastnn.benchmarking.images import GROUPS, OPERATIONS, Operation
from fastnn.benchmarking.peers import CONTESTANTS, Case, Peer, repeated
from fastnn.benchmarking.peers import fastnn as own
from fastnn.benchmarking.timing import Effort, Result, Score, Team
from fastnn.benchmarking.workloads import IMAGES, WORKLOADS, Workload
from fastnn.graph import Tensor
from fastnn.ops import OPS

#: One of each kind, small; sizes along the axes differ.
KINDS = {
    "conv": Operation("direct", "conv", 2, (7, 9), 4, 6, 3, 2, 1, 2),
    "dilated": Operation("direct", "conv", 2, (11, 10), 3, 5, 3, dilation=2),
    "first": Operation("first", "conv", 3, (6, 8), 1, 4, 5, first=True),
    "signal": Operation("signals", "conv", 2, (12,), 3, 5, 5),
    "volume": Operation("volumes", "conv", 1, (4, 5, 6), 2, 3, 3),
    "depthwise": Operation("other", "depthwise_conv", 2, (7, 9), 5, kernel=3, stride=2),
    "max_pool": Operation("other", "max_pool", 2, (7, 8), 5, kernel=2, stride=2),
    "average_pool": Operation("other", "average_pool", 2, (7, 8), 5, kernel=3, stride=2),
    "batch_norm": Operation("other", "batch_norm", 4, (5, 6), 3),
    "nearest": Operation("other", "upsample_nearest", 2, (3, 4), 5, kernel=2),
    "bilinear": Operation("other", "upsample_bilinear", 2, (3, 4), 5, kernel=2),
}
STEPS = {f"{kind}, step": replace(work, gradients=True) for kind, work in KINDS.items()}
MACHINE = {
    "cpu": "A CPU", "cpus": 2, "system": "Linux x86_64", "python": "3.11.0", "versions": {}, "wheel_bytes": None,
}  # fmt: skip


def workload_of(operation: Operation) -> Workload:
    return Workload("images-test", operation.name, "operation", operation=operation)


def result_of(operation: Operation, *scores: Score, threads: int = 2) -> Result:
    return Result(workload_of(operation), threads, list(scores))


# -------------------------------------------------------------------- the operations


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("conv", "forward conv 3x3 s2 g2 4->6 7x9 N=2"),
        ("dilated, step", "step conv 3x3 d2 3->5 11x10 N=2"),
        ("signal", "forward conv 5 3->5 12 N=2"),
        ("volume, step", "step conv 3x3x3 2->3 4x5x6 N=1"),
        ("depthwise", "forward depthwise_conv 3x3 s2 5 7x9 N=2"),
        ("max_pool, step", "step max_pool 2x2 s2 5 7x8 N=2"),
        ("nearest", "forward upsample_nearest 2x2 5 3x4 N=2"),
    ],
)
def test_name_says_what_an_operation_is(kind: str, name: str) -> None:
    assert (KINDS | STEPS)[kind].name == name


@pytest.mark.parametrize(
    ("space", "kernel", "stride", "dilation", "outputs"),
    [
        ((28, 30), 3, 1, 1, (28, 30)),
        ((56,), 5, 1, 1, (56,)),
        ((28, 29), 3, 1, 2, (28, 29)),  # 2 zeros on each side
        ((55, 56), 3, 2, 1, (28, 28)),
        ((224, 225), 7, 2, 1, (112, 113)),
        ((224, 224), 11, 4, 1, (56, 56)),
        ((8, 6, 4), 1, 2, 1, (4, 3, 2)),
    ],
)
def test_convolutions_are_padded_with_half_of_what_the_window_covers(
    space: tuple[int, ...], kernel: int, stride: int, dilation: int, outputs: tuple[int, ...]
) -> None:
    for op in ("conv", "depthwise_conv"):
        assert Operation("direct", op, 1, space, 1, 1, kernel, stride, dilation).outputs == outputs


def test_outputs_of_other_operations() -> None:
    assert KINDS["max_pool"].outputs == (3, 4)
    assert KINDS["average_pool"].outputs == (3, 3)  # not padded
    assert KINDS["batch_norm"].outputs == (5, 6)
    assert KINDS["nearest"].outputs == KINDS["bilinear"].outputs == (6, 8)


@pytest.mark.parametrize(
    ("kind", "flops"),
    [
        ("conv", 2 * (2 * 4 * 5) * (9 * 2 * 6)),  # 2 images of 4x5 outputs; 9 taps, 2 channels in a group, 6 filters
        ("dilated", 2 * (2 * 11 * 10) * (9 * 3 * 5)),
        ("signal", 2 * (2 * 12) * (5 * 3 * 5)),
        ("volume", 2 * (4 * 5 * 6) * (27 * 2 * 3)),
        ("depthwise", 2 * (2 * 4 * 5) * (9 * 5)),
        ("max_pool", 0),
        ("average_pool", 0),
        ("batch_norm", 0),
        ("nearest", 0),
        ("bilinear", 0),
    ],
)
def test_flops_are_those_of_direct_summation_and_a_step_has_three_times_as_many(kind: str, flops: int) -> None:
    assert KINDS[kind].flops == flops
    assert STEPS[f"{kind}, step"].flops == 3 * flops


def test_a_step_of_a_first_layer_has_no_gradient_of_the_data() -> None:
    once = 2 * (3 * 6 * 8) * (25 * 4)
    assert KINDS["first"].flops == once
    assert STEPS["first, step"].flops == 2 * once
    shapes = [np.shape(part) for part in peers.reference(STEPS["first, step"])]
    assert shapes == [(3, 6, 8, 4), (5, 5, 1, 4)]


@pytest.mark.parametrize(
    ("kind", "attrs"),
    [
        ("conv", {"strides": (2, 2), "pads": ((1, 1), (1, 1)), "dilations": (1, 1), "groups": 2}),
        ("dilated", {"strides": (1, 1), "pads": ((2, 2), (2, 2)), "dilations": (2, 2), "groups": 1}),
        ("signal", {"strides": (1,), "pads": ((2, 2),), "dilations": (1,), "groups": 1}),
        ("depthwise", {"strides": (2, 2), "pads": ((1, 1), (1, 1)), "dilations": (1, 1)}),
        ("max_pool", {"kernel": (2, 2), "strides": (2, 2), "pads": ((0, 0), (0, 0))}),
        ("average_pool", {"kernel": (3, 3), "strides": (2, 2), "pads": ((0, 0), (0, 0))}),
        ("batch_norm", {"epsilon": 1e-3}),
        ("bilinear", {"kernel": (2, 2)}),
    ],
)
def test_attributes_are_those_of_the_op(kind: str, attrs: dict[str, Any]) -> None:
    assert KINDS[kind].attrs == attrs
    assert STEPS[f"{kind}, step"].attrs == attrs


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("conv", {"x": (2, 7, 9, 4), "w": (3, 3, 2, 6), "g": (2, 4, 5, 6)}),
        ("first", {"x": (3, 6, 8, 1), "w": (5, 5, 1, 4), "g": (3, 6, 8, 4)}),
        ("signal", {"x": (2, 12, 3), "w": (5, 3, 5), "g": (2, 12, 5)}),
        ("volume", {"x": (1, 4, 5, 6, 2), "w": (3, 3, 3, 2, 3), "g": (1, 4, 5, 6, 3)}),
        ("depthwise", {"x": (2, 7, 9, 5), "w": (3, 3, 5, 1), "g": (2, 4, 5, 5)}),
        ("max_pool", {"x": (2, 7, 8, 5), "g": (2, 3, 4, 5)}),
        ("batch_norm", {"x": (4, 5, 6, 3), "gamma": (3,), "beta": (3,), "g": (4, 5, 6, 3)}),
        ("nearest", {"x": (2, 3, 4, 5), "g": (2, 6, 8, 5)}),
    ],
)
def test_everybody_gets_the_same_arrays(kind: str, shapes: dict[str, tuple[int, ...]]) -> None:
    arrays, again = KINDS[kind].arrays(), STEPS[f"{kind}, step"].arrays()
    assert {name: array.shape for name, array in arrays.items()} == shapes
    for name, array in arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, again[name])


@pytest.mark.parametrize("kind", KINDS | STEPS)
def test_fastnn_does_every_kind_of_operation_right(kind: str) -> None:
    work = (KINDS | STEPS)[kind]
    result = own.operation(work).run(2)
    weights = {"x", "w", "gamma", "beta"} & set(work.arrays()) - ({"x"} if work.first else set())
    assert len(result) == 1 + (len(weights) if work.gradients else 0)
    peers.check(workload_of(work), result)


# -------------------------------------------------------------------- what is measured


def test_names_of_operations_and_of_their_workloads_are_unique() -> None:
    assert len({work.name for work in OPERATIONS}) == len(OPERATIONS)
    assert len({work.key for work in IMAGES}) == len(IMAGES) == len(OPERATIONS)
    assert all(WORKLOADS[work.key] is work for work in IMAGES)


def test_every_operation_is_in_a_group_and_every_group_has_some() -> None:
    assert {work.group for work in OPERATIONS} == set(GROUPS)


def test_every_operation_is_measured_forward_and_as_a_step() -> None:
    steps = {replace(work, gradients=True) for work in OPERATIONS if not work.gradients}
    assert steps == {work for work in OPERATIONS if work.gradients}


def test_every_operation_fits_the_shape_rule_of_its_op() -> None:
    for work in OPERATIONS:
        inputs = [Tensor((work.n, *work.space, work.c))]
        window = (work.kernel,) * len(work.space)
        if work.op.endswith("conv"):
            inputs.append(Tensor((*window, *((work.c // work.groups, work.f) if work.f else (work.c, 1)))))
        elif work.op == "batch_norm":
            inputs += [Tensor((2, work.c)), Tensor((work.c,)), Tensor((work.c,))]
        assert OPS[work.op](*inputs, **work.attrs).shape == (work.n, *work.outputs, work.f or work.c), work.name


@pytest.mark.parametrize("group", GROUPS)
def test_the_name_of_a_group_selects_its_operations(group: str) -> None:
    found = benchmarking.selected_workloads(benchmarking.parser(), f"images-{group}", timing.SHORT)
    assert [work.operation for work in found] == [work for work in OPERATIONS if work.group == group]
    assert all(work.kind == "operation" and work.threads == "many" for work in found)


def test_quick_runs_leave_out_large_operations() -> None:
    found = benchmarking.selected_workloads(benchmarking.parser(), "images", timing.QUICK)
    small = [work for work in OPERATIONS if work.flops <= benchmarking.QUICK_FLOPS]
    assert [work.operation for work in found] == small
    assert 0 < len(small) < len(OPERATIONS)


# -------------------------------------------------------------------- who takes part


@pytest.mark.parametrize(
    ("key", "contestants"),
    [
        ("mlp-step", {"fastnn", "jax", "torch", "sklearn", "keras"}),
        ("cnn-step", {"fastnn", "torch", "keras"}),
        ("cnn-batch", {"fastnn", "onnxruntime", "torch", "keras"}),
        (IMAGES[0].key, {"fastnn", "torch"}),
        ("memory-cnn", {"fastnn", "torch"}),
        ("import", {"fastnn", "numpy"}),
    ],
)
def test_contestants_take_part_in_work_of_their_kinds_and_on_images_if_they_do_those(
    key: str, contestants: set[str]
) -> None:
    assert {peer.key for peer in CONTESTANTS.values() if peer.does(WORKLOADS[key])} == contestants


def test_whoever_does_no_images_is_left_out_of_networks_on_images_only() -> None:
    peer = Peer("some", "Some", "some", "", ("train",))
    assert peer.does(WORKLOADS["mlp-step"])
    assert not peer.does(WORKLOADS["cnn-step"])
    assert replace(peer, images=True).does(WORKLOADS["cnn-step"])
    assert not replace(peer, images=True).does(WORKLOADS["cnn-batch"])


# -------------------------------------------------------------------- tables and JSON


def operation_results() -> list[Result]:
    forward, step = replace(KINDS["volume"], n=1_000_000), STEPS["max_pool, step"]
    return [
        result_of(forward, Score("fastnn", "native", [1.0]), Score("torch", "channels last", [4.0])),
        result_of(step, Score("fastnn", "native", [2e-6, 2e-6, 9e-6]), Score("torch", "contiguous", [1e-6])),
    ]


def test_operations_show_times_rates_layouts_and_ratios() -> None:
    heading, columns, forward, step, mean = report.operations(operation_results(), 2, 100.4).splitlines()
    assert heading == "3x3x3 on volumes (2 threads, peak 100 GFLOP/s)"
    assert columns.split() == ["fastnn", "GFLOP/s", "PyTorch", "GFLOP/s", "its", "layout", "ratio"]
    before, after = forward.split("N=1000000")
    assert before == "  forward conv 3x3x3 2->3 4x5x6 "
    assert after.split() == ["1.00", "s", "39", "4.00", "s", "10", "channels", "last", "4.0x"]
    assert step.partition("N=2 ")[2].split() == ["2.00", "us", "1.00", "us", "contiguous", "0.50x"]  # no rates
    assert mean == "  ratio: 1.4x in the geometric mean, 0.50x at least"


def test_operations_without_a_known_peak_or_pytorch() -> None:
    absent = Score("torch", problem="not installed")
    lines = report.operations([result_of(KINDS["first"], Score("fastnn", "native", [1e-3]), absent)], 1, None)
    heading, _, row, *problems = lines.splitlines()
    assert heading == "First layers (step: without the gradient of the data) (1 thread)"
    assert row.partition("N=3 ")[2].split() == ["1.00", "ms", "0", "-"]
    assert problems == ['  PyTorch: not installed: pip install "fastnn-cpu[bench-torch]"']


def test_operations_by_fastnn_alone_have_neither_ratio_nor_complaint() -> None:
    result = result_of(KINDS["conv"], Score("fastnn", "native", [1.0]))
    assert len(report.operations([result], 1, None).splitlines()) == 3


def test_a_failure_of_fastnn_is_shown_below_the_operations() -> None:
    scores = Score("fastnn", problem="ValueError: no"), Score("torch", "contiguous", [1.0])
    *_, row, last = report.operations([result_of(KINDS["conv"], *scores)], 1, None).splitlines()
    assert row.partition("N=2 ")[2].split() == ["-", "1.00", "s", "0", "contiguous"]
    assert last == "  fastnn: ValueError: no"


def memory_result() -> Result:
    return Result(WORKLOADS["memory-cnn"], 2, [Score("fastnn", "fit", [28.2e6]), Score("torch", "eager", [141e6])])


def test_memory_is_shown_in_megabytes_with_the_others_share() -> None:
    result = memory_result()
    result.scores.append(Score("keras", problem="not installed"))
    heading, fastnn, torch, keras = report.memory(result).splitlines()
    assert heading == "Peak memory in training, 28x28, 3x3 convolutions 32-64, 128-10, batch 64 (2 threads)"
    assert fastnn.split() == ["fastnn", "28", "MB", "fit"]
    assert torch.split() == ["PyTorch", "141", "MB", "5.0x", "eager"]
    assert keras.split(maxsplit=2)[1:] == ["-", 'not installed: pip install "fastnn-cpu[bench-tensorflow]"']


def test_text_report_has_a_table_for_each_group_and_number_of_threads_and_each_operation_once() -> None:
    one = [result_of(KINDS["conv"], Score("fastnn", "native", [1.0]), threads=threads) for threads in (1, 2)]
    text = report.text([*one, *operation_results(), memory_result()], {1: 50.0, 2: 100.0}, MACHINE)
    found = [line for line in text.splitlines() if "peak " in line]
    assert found == [
        "1x1, strided, dilated, grouped (1 thread, peak 50 GFLOP/s)",
        "1x1, strided, dilated, grouped (2 threads, peak 100 GFLOP/s)",
        "Depthwise, pooling, normalization, up-sampling (2 threads, peak 100 GFLOP/s)",
        "3x3x3 on volumes (2 threads, peak 100 GFLOP/s)",
    ]
    assert text.count(KINDS["conv"].name) == 2
    assert text.count("Peak memory") == text.count("28 MB") == 1


def test_document_has_the_flops_of_operations_and_the_bytes_of_memory() -> None:
    results = [*operation_results(), memory_result()]
    document = json.loads(json.dumps(report.document(results, {2: 100.0}, MACHINE, timing.SHORT)))
    forward, step, memory = document["results"]
    assert document["peak_gflops"] == {"2": 100.0}
    assert (forward["unit"], forward["flops"]) == ("operation", 2 * 120e6 * 27 * 2 * 3)
    assert (step["flops"], memory["flops"]) == (0.0, None)
    assert step["contestants"][0]["samples"] == [2e-6, 2e-6, 9e-6]
    assert step["contestants"][1] == {
        "peer": "torch", "setting": "contiguous", "seconds": 1e-6, "spread": 0.0, "ratio": 0.5, "samples": [1e-6],
        "settings": {}, "problem": None,
    }  # fmt: skip
    assert [entry["bytes"] for entry in memory["contestants"]] == [28.2e6, 141e6]
    assert not any("seconds" in entry for entry in memory["contestants"])


def test_chart_leaves_operations_and_memory_out() -> None:
    assert chart.chosen([*operation_results(), memory_result()]) == []


# -------------------------------------------------------------------- measuring


def test_worker_measures_an_operation_with_fastnn_alone() -> None:
    work = next(work for work in IMAGES if work.title == "step conv 3x3 1->32 28x28 N=32")
    with Team(1) as team:
        result = team.measure(work, ["fastnn", "numpy"], Effort("tiny", 2, 0.001))
    (score,) = result.scores
    assert (score.peer, score.problem) == ("fastnn", None)
    assert len(score.samples) == 2 and min(score.samples) > 0


@pytest.mark.parametrize("spoil", ["a number", "NaN", "another order", "an axis more", "one less", "one too many"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_setting_with_a_wrong_result_of_an_operation_is_refused(
    spoil: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = workload_of(STEPS["dilated, step"])
    assert work.operation is not None
    right = [np.array(part) for part in peers.reference(work.operation)]
    wrong = [part.copy() for part in right]
    if spoil == "a number":
        wrong[number].flat[-1] += 3e-4 * abs(wrong[number]).max()
    elif spoil == "NaN":
        wrong[number].flat[7] = np.nan
    elif spoil == "another order":
        wrong[number] = np.moveaxis(wrong[number], -1, 1)
    elif spoil == "an axis more":
        wrong[number] = wrong[number][None]
    elif spoil == "one less":
        del wrong[number]
    else:
        wrong.insert(number, wrong[number])
    found = [Case("wrong", repeated(lambda: wrong)), Case("right", repeated(lambda: right))]
    monkeypatch.setattr(peers, "cases", lambda *_: found)
    monkeypatch.setitem(WORKLOADS, work.key, work)
    contestant = worker.Contestant("fastnn", 1)
    answer = contestant.prepare(work.key, 1e-4, False)
    assert answer["setting"] == "right"
    assert answer["settings"]["wrong"].startswith("ValueError")
    del found[1]
    assert set(contestant.prepare(work.key, 1e-4, False)) == {"error"}


def test_rounding_is_not_a_wrong_result() -> None:
    work = workload_of(STEPS["dilated, step"])
    assert work.operation is not None
    peers.check(work, [part + 5e-5 * abs(part).max() for part in peers.reference(work.operation)])
