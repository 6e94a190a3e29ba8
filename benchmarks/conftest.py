"""Workers and results that all benchmarks share, and the clock that hands their samples to pytest-benchmark."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from itertools import cycle

import pytest

from fastnn.benchmarking.peers import CONTESTANTS
from fastnn.benchmarking.timing import FULL, QUICK, SHORT, Result, Score, Team, measure_imports
from fastnn.benchmarking.workloads import Workload

EFFORTS = {effort.name: effort for effort in (QUICK, SHORT, FULL)}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--effort", choices=sorted(EFFORTS), default=SHORT.name, help="how long to measure")


elapsed = [0.0]  # the time that contestants took in their own processes


def clock() -> float:
    """The timer that pytest-benchmark reads."""
    return elapsed[0]


@pytest.fixture(scope="session")
def teams() -> Iterator[Callable[[int], Team]]:
    """The team of workers for a number of threads; all end with the session."""
    with ExitStack() as stack:
        yield cache(lambda threads: stack.enter_context(Team(threads)))


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest, teams: Callable[[int], Team]) -> Callable[[Workload, int], Result]:
    """The result of a workload: its contestants are measured in turns when the first of them asks."""
    effort = EFFORTS[request.config.getoption("--effort")]
    results: dict[tuple[str, int], Result] = {}

    def get(workload: Workload, threads: int) -> Result:
        key = (workload.key, threads)
        if key not in results and workload.kind == "import":
            results[key] = measure_imports(workload, ("fastnn", "numpy"), 3 * effort.rounds)
        elif key not in results:
            results[key] = teams(threads).measure(workload, contestants_of(workload), effort)
        return results[key]

    return get


def play(benchmark: Callable[..., object], score: Score) -> None:
    """Let pytest-benchmark record the samples of `score` as its rounds."""
    samples = cycle(score.samples)

    def advance() -> None:
        elapsed[0] += next(samples)

    benchmark.extra_info["setting"] = score.setting  # type: ignore[attr-defined]
    benchmark.pedantic(advance, rounds=len(score.samples))  # type: ignore[attr-defined]


def contestants_of(workload: Workload) -> list[str]:
    """Everybody installed who does such work."""
    return [key for key, peer in CONTESTANTS.items() if peer.does(workload) and peer.installed]


def thread_counts(workload: Workload) -> list[int]:
    """1, and all CPUs of this process where the workload pays for threads."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sorted({1, cpus}) if workload.threads == "many" else [1]
