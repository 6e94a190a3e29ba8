"""`fastnn bench`: its arithmetic, its tables, absent or failing contestants, and memory. Nothing is timed."""

from __future__ import annotations

import json
import mmap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnn import benchmarking
from fastnn.benchmarking import chart, peers, report, timing, worker
from fastnn.benchmarking.peers import CONTESTANTS, FASTNN, Case, Peer, repeated
from fastnn.benchmarking.peers import fastnn as own
from fastnn.benchmarking.timing import Effort, Result, Score, Team
from fastnn.benchmarking.workloads import (
    ARTICLE,
    CNN,
    MLP,
    PRODUCTS,
    WORKLOADS,
    Net,
    Product,
    Workload,
    forward,
    products_of,
    table,
    weights,
)

MACHINE = {
    "cpu": "A CPU",
    "cpus": 2,
    "system": "Linux x86_64",
    "python": "3.11.0",
    "versions": {"fastnn": "0.1.0", "numpy": "2.0.0", "torch": None},
    "wheel_bytes": 1_234_567,
}


def step_result() -> Result:
    scores = [
        Score("fastnn", "fit", [4e-6, 5e-6, 6e-6]),
        Score("jax", "epoch in one scan", [20e-6, 20e-6, 20e-6]),
        Score("torch", problem="not installed"),
    ]
    return Result(WORKLOADS["article-step"], 1, scores)


def product_result() -> Result:
    scores = [Score("fastnn", "native", [1e-3]), Score("numpy", "matmul", [2e-3])]
    work = next(work for work in PRODUCTS if work.product == Product("forward", 512, 512, 512))
    return Result(work, 2, scores)


def test_ratio_is_the_others_time_over_fastnns() -> None:
    result = step_result()
    assert result.ratio(result.scores[1]) == pytest.approx(4.0)
    assert result.ratio(result.scores[0]) == 1.0
    assert result.ratio(result.scores[2]) is None


def test_ratio_is_none_when_fastnn_has_no_time() -> None:
    assert (
        Result(WORKLOADS["article-step"], 1, [Score("fastnn", problem="failed"), Score("jax", "", [1.0])]).ratio(
            Score("jax", "", [1.0])
        )
        is None
    )


def test_score_is_the_median_and_half_the_interquartile_range() -> None:
    score = Score("numpy", "", [1.0, 2.0, 3.0, 4.0, 100.0])
    assert score.seconds == 3.0
    assert score.spread == pytest.approx((4.0 - 2.0) / 2 / 3.0)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, "0.00 us"),
        (3.25e-6, "3.25 us"),
        (9.996e-6, "10.0 us"),
        (99.96e-6, "100 us"),
        (999.6e-6, "1.00 ms"),
        (0.9996, "1.00 s"),
        (61.0, "61.0 s"),
    ],
)
def test_durations_have_three_digits_and_the_unit_that_suits(seconds: float, expected: str) -> None:
    assert report.duration(seconds) == expected


def test_table_shows_times_ratios_settings_and_how_to_install_what_is_missing() -> None:
    lines = report.block(step_result()).splitlines()
    assert lines[0] == "Training step, 30-64-32-1, batch 32 (1 thread, time per step)"
    assert lines[1].split() == ["fastnn", "5.00", "us", "+-10%", "fit"]
    assert lines[2].split() == ["JAX", "20.0", "us", "+-0%", "4.0x", "epoch", "in", "one", "scan"]
    assert lines[3].split(maxsplit=2) == ["PyTorch", "-", 'not installed: pip install "fastnn-cpu[bench-torch]"']


def test_products_show_rates_ratio_to_numpy_and_share_of_peak() -> None:
    lines = report.products([product_result()], 2, 500.0).splitlines()
    assert "2 threads" in lines[0] and "500" in lines[0]
    assert lines[2].split() == ["forward", "512x512x512", "268.4", "134.2", "2.0x", "54%"]


def test_products_without_a_known_peak_leave_the_share_empty() -> None:
    lines = report.products([product_result()], 2, None).splitlines()
    assert lines[2].split() == ["forward", "512x512x512", "268.4", "134.2", "2.0x"]


def test_text_report_names_machine_versions_and_wheel() -> None:
    text = report.text([step_result(), product_result()], {2: None}, MACHINE)
    assert "A CPU, 2 CPUs" in text
    assert "fastnn 0.1.0, NumPy 2.0.0" in text
    assert "Wheel: 1.23 MB" in text


def test_document_is_json_with_every_sample() -> None:
    document = json.loads(json.dumps(report.document([step_result()], {1: None}, MACHINE, timing.SHORT)))
    fastnn, jax, torch = document["results"][0]["contestants"]
    assert fastnn["samples"] == [4e-6, 5e-6, 6e-6]
    assert jax["ratio"] == pytest.approx(4.0)
    assert torch["seconds"] is None and torch["problem"] == "not installed"


def test_missing_package_is_not_installed_and_never_started(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Peer("torch", "PyTorch", "no_such_package_at_all", "bench-torch", ("predict",))
    monkeypatch.setitem(CONTESTANTS, "torch", absent)
    with Team(1) as team:
        result = team.measure(WORKLOADS["article-row"], ["torch"], timing.QUICK)
    assert absent.version is None
    assert [score.problem for score in result.scores] == ["not installed"]


def test_contestants_take_part_only_in_their_kinds_of_work() -> None:
    with Team(1) as team:
        assert team.measure(WORKLOADS["article-step"], ["onnxruntime", "numpy"], timing.QUICK).scores == []


def test_worker_measures_numpy_in_its_own_process() -> None:
    with Team(1) as team:
        result = team.measure(WORKLOADS["article-row"], ["numpy"], Effort("tiny", 2, 0.001))
    (score,) = result.scores
    assert score.problem is None
    assert len(score.samples) == 2 and min(score.samples) > 0


def test_failing_worker_command_answers_with_an_error_and_goes_on() -> None:
    with Team(1) as team:
        assert "nothing is prepared" in team.ask("numpy", do="sample")["error"]
        assert "unknown command" in team.ask("numpy", do="dance")["error"]
        assert "KeyError" in team.ask("numpy", do="prepare", workload="no-such", seconds=0.1, thorough=False)["error"]


def test_worker_that_dies_answers_with_its_last_words() -> None:
    with Team(1) as team:
        assert (
            "no_such_contestant"
            in team.ask("no_such_contestant", do="prepare", workload="article-row", seconds=0.1, thorough=False)[
                "error"
            ]
        )


def test_setting_with_wrong_results_is_excluded(monkeypatch: pytest.MonkeyPatch) -> None:
    work = WORKLOADS["article-row"]
    right = forward(ARTICLE, weights(ARTICLE), table(ARTICLE, 1)[0])
    found = [Case("wrong", repeated(lambda: right + 0.1)), Case("right", repeated(lambda: right))]
    monkeypatch.setattr(peers, "cases", lambda *_: found)
    contestant = worker.Contestant("numpy", 1)
    answer = contestant.prepare(work.key, 1e-4, False)
    assert answer["setting"] == "right"
    assert "differ" in answer["settings"]["wrong"]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 0.0, -1.0, 100.0])
def test_training_from_another_start_is_refused(loss: float) -> None:
    with pytest.raises(ValueError, match="article-step: the loss"):
        peers.check(WORKLOADS["article-step"], loss)


def test_product_that_differs_is_refused() -> None:
    work = PRODUCTS[0]
    assert work.product is not None
    right = np.matmul(*work.product.views(*work.product.operands()))
    peers.check(work, right)
    with pytest.raises(ValueError, match="the product differs"):
        peers.check(work, right + 0.01)


def test_products_of_a_step_skip_the_gradient_of_the_input() -> None:
    names = [product.name for product in products_of(MLP, 128)]
    assert names[:2] == ["forward 128x784x512", "dw 128x784x512"]
    assert "dx 128x784x512" not in names
    assert "dx 128x512x10" in names


@pytest.mark.parametrize("form", ["forward", "dx", "dw"])
def test_forms_of_a_product_fit_their_output(form: str) -> None:
    product = Product(form, 3, 5, 7)  # type: ignore[arg-type]
    assert np.matmul(*product.views(*product.operands())).shape == product.out_shape
    assert product.flops == 2 * 3 * 5 * 7


def test_workload_names_are_unique_and_steps_count_the_smaller_last_batch() -> None:
    assert len(WORKLOADS) == len({work.title for work in WORKLOADS.values()})
    assert WORKLOADS["article-step"].steps == 12


def test_quick_json_run_with_fastnn_alone_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    only = "article-step,article-row,matmul-forward-32x30x64"
    assert benchmarking.main(["--quick", "--json", "--peers", "none", "--threads", "1", "--only", only]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [result["workload"] for result in document["results"]] == only.split(",")
    for result in document["results"]:
        (fastnn,) = result["contestants"]
        assert fastnn["peer"] == "fastnn" and fastnn["problem"] is None
        assert fastnn["seconds"] > 0 and fastnn["ratio"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threads", "0"], "--threads must be a positive integer. Received: 0"),
        (["--only", "nonsense"], "no workload's name starts with 'nonsense'"),
        (["--peers", "numpy,nonsense"], "unknown name 'nonsense'"),
        (["--out", "no/such/directory/chart.png"], "there is no directory"),
        (["--quick", "--full"], "not allowed with"),
    ],
)
def test_bad_arguments_exit_with_2_and_name_the_thing(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        benchmarking.main(arguments)
    assert exit_.value.code == 2
    assert words in capsys.readouterr().err


def test_chart_keeps_networks_with_the_most_threads_and_is_written(tmp_path: Path) -> None:
    rows = WORKLOADS["article-rows"]
    many = [Result(rows, threads, [Score("fastnn", "", [1.0]), Score("numpy", "", [2.0])]) for threads in (1, 2)]
    alone = Result(WORKLOADS["article-row"], 1, [Score("fastnn", "", [1.0])])
    results = [step_result(), *many, alone, product_result()]
    assert [(r.workload.key, r.threads) for r in chart.chosen(results)] == [("article-step", 1), ("article-rows", 2)]
    chart.draw(results, report.footer(MACHINE), tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_chart_without_comparisons_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no workload has times of two contestants"):
        chart.draw([product_result()], "", tmp_path / "chart.png")
    assert not (tmp_path / "chart.png").exists()


def test_a_full_name_selects_one_workload_and_a_beginning_selects_all_that_start_so() -> None:
    options = benchmarking.parser()
    exact = benchmarking.selected_workloads(options, "article-row", timing.SHORT)
    assert [work.key for work in exact] == ["article-row"]
    begun = benchmarking.selected_workloads(options, "mlp,article-f", timing.SHORT)
    assert [work.key for work in begun] == ["article-fit", "mlp-step", "mlp-batch"]


def test_quick_runs_leave_out_large_products() -> None:
    found = benchmarking.selected_workloads(benchmarking.parser(), "matmul", timing.QUICK)
    assert max(work.product.flops for work in found if work.product) <= benchmarking.QUICK_FLOPS


def test_report_says_when_the_machine_was_too_busy_to_trust_it() -> None:
    calm = Result(WORKLOADS["article-step"], 1, [Score("fastnn", "fit", [1.0, 1.01, 1.02])])
    busy = Result(WORKLOADS["article-step"], 1, [Score("fastnn", "fit", [1.0, 2.0, 4.0])])
    assert "Measure again" not in report.text([calm], {}, MACHINE)
    assert "Measure again" in report.text([calm, busy], {}, MACHINE)


# -------------------------------------------------------------------- memory


def test_memory_is_measured_in_bytes_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    only = ["--only", "memory-cnn", "--peers", "none", "--threads", "1"]
    assert benchmarking.main(["--quick", "--json", *only]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    (fastnn,) = result["contestants"]
    assert (fastnn["setting"], fastnn["problem"]) == ("fit", None)
    (grown,) = fastnn["samples"]
    parameters = sum(array.nbytes for array in weights(CNN))
    assert isinstance(grown, int)
    assert grown > 3 * parameters  # themselves and Adam's two means


def test_memory_of_each_contestant_is_asked_of_a_fresh_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Recorder:
        def __init__(self, key: str, threads: int) -> None:
            told.append(("start", key, threads))
            self.key = key

        def ask(self, **command: Any) -> dict[str, Any]:
            told.append((self.key, command))
            return {"setting": "fit", "bytes": 5} if self.key == "fastnn" else {"error": "it fell over"}

        def close(self) -> None:
            told.append(("close", self.key))

    monkeypatch.setattr(timing, "Worker", Recorder)
    monkeypatch.setitem(CONTESTANTS, "torch", replace(CONTESTANTS["torch"], package="json"))
    monkeypatch.setitem(CONTESTANTS, "keras", replace(FASTNN, key="keras", package="no_such_package_at_all"))
    result = timing.measure_fresh(WORKLOADS["memory-cnn"], ["fastnn", "numpy", "torch", "keras"], 2, 1)
    command = {"do": "memory", "workload": "memory-cnn"}
    assert told == [
        ("start", "fastnn", 2), ("fastnn", command), ("close", "fastnn"),
        ("start", "torch", 2), ("torch", command), ("close", "torch"),
    ]  # fmt: skip
    assert result.threads == 2
    assert result.scores == [
        Score("fastnn", "fit", [5]), Score("torch", problem="it fell over"), Score("keras", problem="not installed"),
    ]  # fmt: skip


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Workload:
    """Training of a tiny network on images, known to the worker."""
    net = Net((2 * 3 * 4, 5, 3), "softmax", (4, 6, 2), (4,))
    work = Workload("memory-tiny", "Tiny", "memory", net, rows=10, batch=4)
    monkeypatch.setitem(WORKLOADS, work.key, work)
    return work


def test_memory_is_what_two_epochs_add_and_the_check_comes_after(
    tiny: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_use, told = [100], []
    case, check = own.cases(tiny, 1, False)[0], peers.check

    def run(epochs: int) -> float:
        told.append(epochs)
        in_use.append(130)
        in_use.append(110)
        return float(case.run(epochs))

    def checked(work: Workload, loss: float) -> None:
        in_use.append(1000)  # the reference is wasteful
        check(work, loss)

    monkeypatch.setattr(worker, "resident", lambda: in_use[-1])
    monkeypatch.setattr(worker, "most_resident", lambda: max(in_use))
    monkeypatch.setattr(peers, "cases", lambda *_, **__: [replace(case, run=run)])
    monkeypatch.setattr(peers, "check", checked)
    assert worker.Contestant("fastnn", 1).memory(tiny.key) == {"setting": "fit", "bytes": 30}
    assert told == [2]


def test_memory_of_a_training_that_went_wrong_is_refused(tiny: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "cases", lambda *_, **__: [Case("fit", lambda _: float("nan"))])
    with pytest.raises(ValueError, match="memory-tiny: the loss nan"):
        worker.Contestant("fastnn", 1).memory(tiny.key)


def test_the_most_memory_includes_what_was_given_back() -> None:
    before = worker.resident()
    held = mmap.mmap(-1, 64 << 20)  # which comes from nobody's store of free memory
    held.write(bytes(len(held)))
    assert worker.resident() >= before + (32 << 20)
    held.close()
    assert worker.most_resident() >= before + (32 << 20)


def test_a_process_starts_without_the_memory_of_the_one_that_started_it() -> None:
    held = np.ones(256 << 20, np.uint8)
    with Team(1) as team:
        answer = team.ask("fastnn", do="memory", workload="memory-cnn")
    assert answer["bytes"] < held.nbytes // 2
