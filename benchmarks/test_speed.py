"""Every workload that is timed, by every contestant that does such work; see README.md in this directory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import clock, contestants_of, play, thread_counts

from fastnn.benchmarking.report import threads_text
from fastnn.benchmarking.timing import Result
from fastnn.benchmarking.workloads import WORKLOADS

TIMED = [workload for workload in WORKLOADS.values() if workload.kind not in ("memory", "first")]
GROUPS = [(workload.key, threads) for workload in TIMED for threads in thread_counts(workload)]


@pytest.mark.benchmark(timer=clock)
@pytest.mark.parametrize(
    ("key", "threads", "contestant"),
    [(key, threads, contestant) for key, threads in GROUPS for contestant in contestants_of(WORKLOADS[key])],
)
def test_speed(
    key: str, threads: int, contestant: str, measured: Callable[..., Result], benchmark: Callable[..., object]
) -> None:
    benchmark.group = f"{key}, {threads_text(threads)}"  # type: ignore[attr-defined]
    score = next(score for score in measured(WORKLOADS[key], threads).scores if score.peer == contestant)
    assert score.problem is None, score.problem
    play(benchmark, score)
