"""A contestant's own process: `python -m fastnn.benchmarking.worker KEY THREADS`; lines of JSON in and out.

Libraries disturb each other inside one process (thread pools, spinning threads, denormal flags), so each has its own
and waits there for its turn.

Commands: {"do": "prepare", "workload": KEY, "seconds": S, "thorough": BOOL}; {"do": "sample"};
{"do": "memory", "workload": KEY}; {"do": "first", "workload": KEY};
{"do": "peak", "seconds": S}.
An answer is an object; one with the key "error" says what went wrong.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from typing import Any

from fastnn.benchmarking import peers
from fastnn.benchmarking.workloads import WORKLOADS, table

SETTLE_SECONDS = 0.05  # untimed work before a sample: caches warm up, the threads of the one before stop spinning
TRIALS = 3  # turns of the settings among themselves


class Contestant:
    """Runs cases of one contestant and times them."""

    def __init__(self, key: str, threads: int) -> None:
        self.key = key
        self.threads = threads
        self.case: peers.Case | None = None
        self.repetitions = 1
        self.one = 0.0

    def obey(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Carry out a command."""
        if do == "prepare":
            return self.prepare(**arguments)
        if do == "sample":
            return self.sample()
        if do == "memory":
            return self.memory(**arguments)
        if do == "first":
            return self.first(**arguments)
        if do == "peak":
            return {"gflops": peers.peak_gflops(**arguments)}
        raise ValueError(f"worker: unknown command {do!r}.")

    def prepare(self, workload: str, seconds: float, thorough: bool) -> dict[str, Any]:
        """Build every case, check its result, choose the fastest and how often a sample repeats it."""
        work = WORKLOADS[workload]
        seen: dict[str, Any] = {}
        ready: list[tuple[peers.Case, float, int]] = []
        for case in peers.cases(self.key, work, self.threads, thorough):
            try:
                peers.check(work, case.run(case.least))
                ready.append((case, *calibrate(case, seconds)))
            except Exception as error:
                seen[case.setting] = one_line(error)
        for _ in range(TRIALS if len(ready) > 1 else 0):
            for case, _, repetitions in ready:
                cost = timed(case, repetitions) / repetitions / case.units
                seen[case.setting] = min(cost, seen.get(case.setting, cost))
        if not ready:
            return {"error": "; ".join(f"{setting}: {problem}" for setting, problem in seen.items())}
        self.case, self.one, self.repetitions = min(ready, key=lambda entry: seen.get(entry[0].setting, 0.0))
        return {"setting": self.case.setting, "repetitions": self.repetitions, "settings": seen}

    def sample(self) -> dict[str, Any]:
        """Seconds per unit (step, call, fit, product), after a short untimed run."""
        if self.case is None:
            raise RuntimeError("sample: nothing is prepared.")
        self.case.run(max(self.case.least, min(self.repetitions, round(SETTLE_SECONDS / self.one))))
        return {"seconds": timed(self.case, self.repetitions) / self.repetitions / self.case.units}

    def memory(self, workload: str) -> dict[str, Any]:
        """Bytes by which the most memory in use grew in two epochs of training."""
        work = WORKLOADS[workload]
        importlib.import_module(f"{peers.__name__}.{self.key}")
        if work.application is not None:
            work.application.data(work.rows)
        else:
            table(work.network, work.rows)  # what it takes to draw random numbers is counted for nobody
        before = resident()
        case = peers.cases(self.key, work, self.threads, thorough=False)[0]
        loss = case.run(max(2, case.least))
        grown = most_resident() - before  # before the check: the reference takes more than any contestant
        peers.check(work, loss)
        return {"setting": case.setting, "bytes": grown}

    def first(self, workload: str) -> dict[str, Any]:
        """Seconds from building a network to the end of its first step; this process has imported the library."""
        work = WORKLOADS[workload]
        case = peers.cases(self.key, work, self.threads, thorough=False)[0]
        start = time.perf_counter()
        loss = case.run(1)
        seconds = time.perf_counter() - start
        peers.check(work, loss)
        return {"setting": case.setting, "seconds": seconds}


def resident() -> int:
    """Bytes of memory in use."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def most_resident() -> int:
    """The most that it ever was. `getrusage` would begin with that of the process which started this one."""
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) * 1024


def timed(case: peers.Case, repetitions: int) -> float:
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        case.run(repetitions)
        return time.perf_counter() - start
    finally:
        gc.enable()


def calibrate(case: peers.Case, seconds: float) -> tuple[float, int]:
    """Seconds of one repetition and the number of them that takes about `seconds`."""
    repetitions = case.least
    while True:
        taken = timed(case, repetitions)
        if taken > seconds / 4 or repetitions >= 10_000_000:
            one = taken / repetitions
            return one, max(case.least, round(seconds / one))
        repetitions = min(repetitions * 10, max(repetitions + 1, round(repetitions * seconds / 2 / max(taken, 1e-7))))


def one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def main() -> None:
    key, threads = sys.argv[1], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")  # libraries may print: nothing of it may reach the answers
    os.dup2(2, 1)
    contestant = Contestant(key, threads)
    for line in sys.stdin:
        try:
            answer = contestant.obey(**json.loads(line))
        except Exception as error:
            answer = {"error": one_line(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
