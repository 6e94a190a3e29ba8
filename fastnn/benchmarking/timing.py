"""The measuring loop: all contestants of a workload take turns (A B C A B C ...), each in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastnn.benchmarking.peers import CONTESTANTS, FASTNN
from fastnn.benchmarking.workloads import Workload

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds of turns, seconds of one sample, and whether slow-to-prepare settings take part."""

    name: str
    rounds: int
    sample_seconds: float
    thorough: bool = False


QUICK = Effort("quick", 3, 0.01)
SHORT = Effort("short", 5, 0.06)
FULL = Effort("full", 15, 0.3, thorough=True)


@dataclass
class Score:
    """What one contestant reached in one workload: its best setting and the samples of that, in seconds per unit."""

    peer: str
    setting: str = ""
    samples: list[float] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    @property
    def seconds(self) -> float:
        """Median of the samples.

        >>> Score("numpy", samples=[3.0, 1.0, 2.0]).seconds
        2.0
        """
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median.

        >>> Score("numpy", samples=[1.0, 1.0, 1.0]).spread
        0.0
        """
        if len(self.samples) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / 2 / self.seconds


@dataclass
class Result:
    """One workload, measured: the scores of its contestants in their order, fastnn first."""

    workload: Workload
    threads: int
    scores: list[Score]

    def ratio(self, score: Score) -> float | None:
        """A contestant's time divided by fastnn's: above 1, fastnn is faster. None where one of the two has no time."""
        own = next((entry for entry in self.scores if entry.peer == FASTNN.key), None)
        if own is None or not own.samples or not score.samples:
            return None
        return score.seconds / own.seconds


def environment(threads: int) -> dict[str, str]:
    """Variables that tell every library its number of threads before it is imported, and where this package is."""
    names = ("OMP", "OPENBLAS", "MKL", "BLIS", "VECLIB", "NUMEXPR", "FASTNN")
    found = {f"{name}_NUM_THREADS": str(threads) for name in names}
    found["NPROC"] = str(threads)  # the pool of XLA
    found["JAX_PLATFORMS"] = "cpu"
    root = str(Path(__file__).resolve().parents[2])
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return found


class Worker:
    """A contestant's process (`fastnn.benchmarking.worker`) and the pipe to it.

    Between its turns it is stopped: threads that wait by spinning would take the processors from the next contestant.
    """

    def __init__(self, key: str, threads: int) -> None:
        self.key = key
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastnn.benchmarking.worker", key, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | environment(threads),
        )

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command, wait for the answer; a worker that died answers with an error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._signal("SIGCONT")
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            self._signal("SIGSTOP")
        except BrokenPipeError:
            line = ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        return {"error": f"its process ended: {self._last_words()}"}

    def _signal(self, name: str) -> None:
        if hasattr(signal, name):  # not on Windows
            self._process.send_signal(getattr(signal, name))

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "no message"

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()


class Team:
    """The workers of one number of threads, started when first needed; a context manager that ends them."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.close()

    def ask(self, key: str, **command: Any) -> dict[str, Any]:
        if key not in self._workers:
            self._workers[key] = Worker(key, self.threads)
        return self._workers[key].ask(**command)

    def measure(self, workload: Workload, contestants: Iterable[str], effort: Effort) -> Result:
        """Let `contestants` do `workload` in turns. Those that do not do such work are left out of the result."""
        scores: list[Score] = []
        for key in contestants:
            if not CONTESTANTS[key].does(workload):
                continue
            if not CONTESTANTS[key].installed:
                scores.append(Score(key, problem="not installed"))
                continue
            command = {"workload": workload.key, "seconds": effort.sample_seconds, "thorough": effort.thorough}
            answer = self.ask(key, do="prepare", **command)
            if "error" not in answer:
                scores.append(Score(key, answer["setting"], settings=answer["settings"]))
            else:
                logger.debug("%s, %s: %s", workload.key, key, answer["error"])
                scores.append(Score(key, problem=answer["error"]))
        running = [score for score in scores if score.problem is None]
        for _ in range(effort.rounds):
            for score in running:
                answer = self.ask(score.peer, do="sample") if score.problem is None else {}
                if "seconds" in answer:
                    score.samples.append(answer["seconds"])
                elif answer:
                    score.problem, score.samples = answer["error"], []
        return Result(workload, self.threads, scores)

    def peak_gflops(self, seconds: float) -> float | None:
        """Measured multiply-add peak with this team's threads; None where the engine cannot tell."""
        value: float | None = self.ask(FASTNN.key, do="peak", seconds=seconds).get("gflops")
        return value


def measure_fresh(workload: Workload, contestants: Iterable[str], threads: int, rounds: int) -> Result:
    """What needs a fresh process each time: memory in training beyond that after the import, and first steps."""
    scores = []
    for key in contestants:
        if not CONTESTANTS[key].does(workload):
            continue
        score = Score(key, problem=None if CONTESTANTS[key].installed else "not installed")
        scores.append(score)
        if score.problem:
            continue
        for _ in range(rounds):
            worker = Worker(key, threads)
            answer = worker.ask(do=workload.kind, workload=workload.key)
            worker.close()
            if "error" in answer:
                score.problem, score.samples = answer["error"], []
                break
            score.setting = answer["setting"]
            score.samples.append(answer["bytes" if workload.kind == "memory" else "seconds"])
    return Result(workload, threads, scores)


def measure_imports(workload: Workload, packages: Sequence[str], rounds: int) -> Result:
    """Time `import PACKAGE` in fresh processes, in turns, after one untimed round that fills the disk cache."""
    scores = [Score(package, "fresh process") for package in packages]
    for turn in range(rounds + 1):
        for score in scores:
            code = f"import time; start = time.perf_counter(); import {score.peer}; print(time.perf_counter() - start)"
            done = subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | environment(1),
                check=False,
            )
            if done.returncode:
                score.problem = (done.stderr.strip().splitlines() or ["failed"])[-1]
            elif turn:
                score.samples.append(float(done.stdout))
    return Result(workload, 1, scores)
