"""`fastnn bench`: how fast this machine does typical work, with fastnn and with the other libraries installed.

Every contestant works in its own process, at the best of its settings, on the same networks, data, batches, precision
and number of threads. All contestants of a workload take turns: a change in the machine's speed meets them all.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fastnn.benchmarking import report, timing
from fastnn.benchmarking.peers import FASTNN, PEERS
from fastnn.benchmarking.timing import FULL, QUICK, SHORT, Effort, Result, Team
from fastnn.benchmarking.workloads import IMPORT, WORKLOADS, Workload
from fastnn.cli_options import OneLineParser

__all__ = ["main", "run"]

QUICK_FLOPS = 300_000_000  # products above this are left out of a quick run


def run(
    workloads: Sequence[Workload], peers: Sequence[str], threads: int, effort: Effort, *, progress: bool = False
) -> tuple[list[Result], dict[int, float | None]]:
    """Measure `workloads` with fastnn and `peers`, with one thread and, where it pays, with `threads`.

    Returns:
        The results in the order of the workloads, and the measured peak in GFLOP/s for each number of threads.
    """
    contestants = [FASTNN.key, *peers]
    results: list[Result] = []
    peaks: dict[int, float | None] = {}
    for count in sorted({1, threads}):
        fresh = ("import", "memory", "first")  # measured in processes of their own
        todo = [work for work in workloads if work.kind not in fresh and (count == 1 or work.threads == "many")]
        with Team(count) as team:
            for work in todo:
                if progress:
                    sys.stderr.write(f"\r\033[K{work.title}, {report.threads_text(count)} ...")
                    sys.stderr.flush()
                results.append(team.measure(work, contestants, effort))
            if any(work.kind in ("matmul", "operation") for work in todo):
                peaks[count] = team.peak_gflops(effort.sample_seconds)
    if progress:
        sys.stderr.write("\r\033[K")
    order = {work.key: index for index, work in enumerate(workloads)}
    results.sort(key=lambda result: (order[result.workload.key], result.threads))
    for work in workloads:
        if work.kind in ("memory", "first"):
            rounds = 1 if work.kind == "memory" else effort.rounds
            results.append(timing.measure_fresh(work, contestants, threads, rounds))
    if IMPORT in workloads:
        results.append(timing.measure_imports(IMPORT, ("fastnn", "numpy"), 3 * effort.rounds))
    return results, peaks


def parser() -> OneLineParser:
    found = OneLineParser(prog="fastnn bench", description=(__doc__ or "").partition("\n\n")[2].strip())
    found.add_argument(
        "--threads", type=int, default=None, metavar="N", help="most threads (default: the CPUs of this process)"
    )
    found.add_argument(
        "--only",
        default=None,
        metavar="NAMES",
        help="workloads whose names start so, comma-separated: article, mlp-step, cnn, images-3x3, matmul, memory, ...",
    )
    found.add_argument(
        "--peers",
        default=None,
        metavar="NAMES",
        help=f"comma-separated: {', '.join(peer.key for peer in PEERS)}, or none (default: all that are installed)",
    )
    found.add_argument("--json", action="store_true", help="write JSON instead of a table")
    found.add_argument(
        "--out", type=Path, default=None, metavar="FILE.png", help="also draw a chart (needs matplotlib)"
    )
    effort = found.add_mutually_exclusive_group()
    effort.add_argument(
        "--quick", action="store_const", dest="effort", const=QUICK, help="seconds, not minutes: rough figures"
    )
    effort.add_argument(
        "--full",
        action="store_const",
        dest="effort",
        const=FULL,
        help="longer samples, and settings that take long to compile",
    )
    found.set_defaults(effort=SHORT)
    return found


def main(args: list[str]) -> int:
    """The command `fastnn bench`.

    Args:
        args: the words after `fastnn bench`.

    Returns:
        The exit code: 0, or 1 if fastnn itself failed at a workload. Bad arguments exit with 2 (argparse).
    """
    options = parser()
    given = options.parse_args(args)
    effort: Effort = given.effort
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = cpus if given.threads is None else given.threads
    if threads < 1:
        options.error(f"--threads must be a positive integer. Received: {threads}")
    if given.out is not None:
        if importlib.util.find_spec("matplotlib") is None:
            options.error("--out needs matplotlib: pip install matplotlib")
        if not given.out.resolve().parent.is_dir():
            options.error(f"--out: there is no directory {given.out.resolve().parent}")
    workloads = selected_workloads(options, given.only, effort)
    peers = selected_peers(options, given.peers)
    results, peaks = run(workloads, peers, threads, effort, progress=sys.stderr.isatty())
    machine = report.machine([FASTNN.key, *peers])
    if given.json:
        sys.stdout.write(json.dumps(report.document(results, peaks, machine, effort), indent=1) + "\n")
    else:
        sys.stdout.write(report.text(results, peaks, machine) + "\n")
    if given.out is not None:
        from fastnn.benchmarking import chart

        try:
            chart.draw(results, report.footer(machine), given.out)
        except ValueError as error:
            options.error(f"--out: {error}")
    return int(any(score.peer == FASTNN.key and score.problem for result in results for score in result.scores))


def selected_workloads(options: OneLineParser, names: str | None, effort: Effort) -> list[Workload]:
    found = list(WORKLOADS.values())
    if names is not None:
        keys: set[str] = set()
        for name in (part.strip() for part in names.split(",")):
            matching = [name] if name in WORKLOADS else [key for key in WORKLOADS if name and key.startswith(name)]
            if not matching:
                options.error(f"--only: no workload's name starts with {name!r}. Names: {', '.join(WORKLOADS)}")
            keys.update(matching)
        found = [work for work in found if work.key in keys]
    elif effort is not FULL:
        found = [work for work in found if not work.only_full]
    if effort is QUICK:
        found = [work for work in found if flops(work) <= QUICK_FLOPS and work.application is None]
    return found


def flops(work: Workload) -> float:
    """Floating-point operations of a product or an operation, 0 of other work."""
    return work.product.flops if work.product else work.operation.flops if work.operation else 0.0


def selected_peers(options: OneLineParser, names: str | None) -> list[str]:
    keys = [peer.key for peer in PEERS]
    if names is None:
        return keys
    if names == "none":
        return []
    chosen = [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in keys:
            options.error(f"--peers: unknown name {name!r}. Names: {', '.join(keys)}")
    return [key for key in keys if key in chosen]
