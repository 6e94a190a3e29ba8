"""What the measurements look like to people (a table, a chart) and to programs (JSON)."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastnn.benchmarking.images import GROUPS
from fastnn.benchmarking.peers import CONTESTANTS, FASTNN
from fastnn.benchmarking.timing import Effort, Result, Score

BUSY = 0.15  # spread from which a figure is not to be trusted
MICRO = "\N{MICRO SIGN}"


def duration(seconds: float, micro: str = "u") -> str:
    """A time with three significant digits and the unit that suits it.

    >>> duration(0.00000412), duration(0.0156), duration(2.5), duration(0.0001)
    ('4.12 us', '15.6 ms', '2.50 s', '100 us')
    """
    for limit, unit in ((999.5e-6, f"{micro}s"), (999.5e-3, "ms"), (float("inf"), "s")):
        if seconds < limit:
            value = seconds * {"s": 1, "ms": 1e3}.get(unit, 1e6)
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    return "inf s"


def times(ratio: float | None) -> str:
    """A ratio for the table, "" without one.

    >>> times(3.14159), times(0.5), times(123.4), times(None)
    ('3.1x', '0.50x', '123x', '')
    """
    if ratio is None:
        return ""
    return f"{ratio:.0f}x" if ratio >= 99.5 else f"{ratio:.1f}x" if ratio >= 0.995 else f"{ratio:.2f}x"


def title_of(score: Score) -> str:
    return CONTESTANTS[score.peer].title


def absence(score: Score) -> str:
    """Why a contestant has no time, and what to do about it."""
    extra = CONTESTANTS[score.peer].extra
    if score.problem == "not installed" and extra:
        return f'not installed: pip install "fastnn-cpu[{extra}]"'
    return score.problem or "not measured"


def grid(rows: Sequence[Sequence[str]], left: Iterable[int] = (0,)) -> list[str]:
    """Rows as aligned lines; the columns `left` are aligned to the left, the others to the right.

    >>> grid([("a", "1.5"), ("bcd", "12.5")])
    ['  a     1.5', '  bcd  12.5']
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    columns = set(left)
    lines = []
    for row in rows:
        cells = [c.ljust(w) if i in columns else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def block(result: Result) -> str:
    """One workload as a heading and a line for each contestant.

    Fastest setting, median time, half the interquartile range, ratio to fastnn's time (above 1: fastnn is faster).
    """
    rows = []
    for score in result.scores:
        if score.samples:
            ratio = "" if score.peer == FASTNN.key else times(result.ratio(score))
            rows.append((title_of(score), duration(score.seconds), f"+-{score.spread:.0%}", ratio, score.setting))
        else:
            rows.append((title_of(score), "-", "", "", absence(score)))
    heading = f"{result.workload.title} ({threads_text(result.threads)}, time per {result.workload.unit})"
    return "\n".join([heading, *grid(rows, left=(0, 4))])


def threads_text(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def products(results: Sequence[Result], threads: int, peak: float | None) -> str:
    """All matrix products with one number of threads: GFLOP/s, ratio to NumPy, share of the measured peak."""
    keys = list(dict.fromkeys(score.peer for result in results for score in result.scores))
    header = ["GFLOP/s", *(CONTESTANTS[key].title for key in keys), "over NumPy", "of peak"]
    rows = [header]
    for result in results:
        assert result.workload.product is not None
        rates = {
            score.peer: result.workload.product.flops / score.seconds / 1e9 for score in result.scores if score.samples
        }
        own, numpy = rates.get("fastnn"), rates.get("numpy")
        rows.append(
            [
                result.workload.product.name,
                *(f"{rates[key]:.1f}" if key in rates else "-" for key in keys),
                times(own / numpy) if own and numpy else "",
                f"{own / peak:.0%}" if own and peak else "",
            ]
        )
    heading = f"Matrix products ({threads_text(threads)}" + (f", peak {peak:.0f} GFLOP/s)" if peak else ")")
    problems = {f"  {title_of(s)}: {absence(s)}" for result in results for s in result.scores if not s.samples}
    return "\n".join([heading, *grid(rows), *sorted(problems)])


def operations(results: Sequence[Result], threads: int, peak: float | None) -> str:
    """The operations of one group: time and GFLOP/s of direct summation, of fastnn and of PyTorch, and the ratio."""
    rows: list[Sequence[str]] = [["", "fastnn", "GFLOP/s", "PyTorch", "GFLOP/s", "its layout", "ratio"]]
    ratios = []
    for result in results:
        work = result.workload.operation
        assert work is not None
        cells = [work.name]
        for key in (FASTNN.key, "torch"):
            score = next((s for s in result.scores if s.peer == key and s.samples), None)
            rate = f"{work.flops / score.seconds / 1e9:.0f}" if score and work.flops else ""
            cells += [duration(score.seconds) if score else "-", rate]
        peer = next((s for s in result.scores if s.peer == "torch"), None)
        ratio = result.ratio(peer) if peer is not None else None
        ratios += [] if ratio is None else [ratio]
        rows.append([*cells, peer.setting if peer else "", times(ratio)])
    group = GROUPS[results[0].workload.operation.group] if results[0].workload.operation else ""
    heading = f"{group} ({threads_text(threads)}" + (f", peak {peak:.0f} GFLOP/s)" if peak else ")")
    lines = [heading, *grid(rows, (0, 5))]
    if ratios:
        mean = times(statistics.geometric_mean(ratios))
        lines.append(f"  ratio: {mean} in the geometric mean, {times(min(ratios))} at least")
    problems = {f"  {title_of(s)}: {absence(s)}" for result in results for s in result.scores if not s.samples}
    return "\n".join([*lines, *sorted(problems)])


def growth(results: Sequence[Result], threads: int) -> str:
    """How time grows with the size of images and with the width, beside the operations of direct summation."""
    rows: list[Sequence[str]] = [["", "GFLOP", "fastnn", "GFLOP/s", "PyTorch", "GFLOP/s", "ratio"]]
    for result in results:
        flops = flops_of(result)
        assert flops is not None
        cells = [result.workload.title, f"{flops / 1e9:.1f}"]
        for key in (FASTNN.key, "torch"):
            score = next((s for s in result.scores if s.peer == key and s.samples), None)
            rate = f"{flops / score.seconds / 1e9:.0f}" if score else ""
            cells += [duration(score.seconds) if score else "-", rate]
        peer = next((s for s in result.scores if s.peer == "torch"), None)
        rows.append([*cells, times(result.ratio(peer)) if peer is not None else ""])
    return "\n".join([f"How time grows ({threads_text(threads)})", *grid(rows)])


def memory(result: Result) -> str:
    """Memory in training beyond that after the import, and the others' share."""
    rows = []
    for score in result.scores:
        if score.samples:
            ratio = "" if score.peer == FASTNN.key else times(result.ratio(score))
            rows.append((title_of(score), f"{score.seconds / 1e6:.0f} MB", ratio, score.setting))
        else:
            rows.append((title_of(score), "-", "", absence(score)))
    return "\n".join([f"{result.workload.title} ({threads_text(result.threads)})", *grid(rows, left=(0, 3))])


def text(results: Sequence[Result], peaks: Mapping[int, float | None], machine: Mapping[str, Any]) -> str:
    """The whole report for a terminal."""
    versions = ", ".join(
        f"{CONTESTANTS[key].title} {version}" for key, version in machine["versions"].items() if version
    )
    parts = [f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['system']}, Python {machine['python']}\n{versions}"]
    tables = {"matmul", "operation", "memory"}
    parts += [block(result) for result in results if result.workload.kind not in tables]
    growing = [result for result in results if result.workload.key.startswith("grow-")]
    for threads in sorted({result.threads for result in growing}):
        parts.append(growth([result for result in growing if result.threads == threads], threads))
    parts += [memory(result) for result in results if result.workload.kind == "memory"]
    for threads in sorted({result.threads for result in results}):
        group = [r for r in results if r.workload.kind == "matmul" and r.threads == threads]
        if group:
            parts.append(products(group, threads, peaks.get(threads)))
        for name in GROUPS:
            found = [r for r in results if r.workload.operation and r.workload.operation.group == name]
            group = [r for r in found if r.threads == threads]
            if group:
                parts.append(operations(group, threads, peaks.get(threads)))
    if machine["wheel_bytes"]:
        parts.append(f"Wheel: {machine['wheel_bytes'] / 1e6:.2f} MB")
    parts.append(
        "Medians; +- is half the interquartile range. Ratio: a time divided by fastnn's; above 1, fastnn is faster."
    )
    if any(score.samples and score.spread > BUSY for result in results for score in result.scores):
        parts.append(
            f"Some spreads are above {BUSY:.0%}: other programs were running. Measure again on an idle machine."
        )
    return "\n\n".join(parts)


def document(
    results: Sequence[Result], peaks: Mapping[int, float | None], machine: Mapping[str, Any], effort: Effort
) -> dict[str, Any]:
    """The whole report for a program: everything measured, times in seconds, memory in bytes."""
    return {
        "machine": dict(machine),
        "effort": {"name": effort.name, "rounds": effort.rounds, "sample_seconds": effort.sample_seconds},
        "peak_gflops": {str(threads): peak for threads, peak in peaks.items()},
        "results": [
            {
                "workload": result.workload.key,
                "title": result.workload.title,
                "unit": result.workload.unit,
                "threads": result.threads,
                "flops": flops_of(result),
                "contestants": [entry(result, score) for score in result.scores],
            }
            for result in results
        ],
    }


def flops_of(result: Result) -> float | None:
    """Floating-point operations of what was measured, where they are known."""
    work = result.workload
    if work.application is not None:
        return work.application.flops(work.batch, training=work.kind == "train")
    return work.product.flops if work.product else work.operation.flops if work.operation else None


def entry(result: Result, score: Score) -> dict[str, Any]:
    measured = bool(score.samples)
    quantity = "bytes" if result.workload.kind == "memory" else "seconds"
    return {
        "peer": score.peer,
        "setting": score.setting,
        quantity: score.seconds if measured else None,
        "spread": score.spread if measured else None,
        "ratio": result.ratio(score),
        "samples": score.samples,
        "settings": score.settings,
        "problem": score.problem,
    }


def machine(contestants: Iterable[str]) -> dict[str, Any]:
    """CPU, system, versions, and the size of a wheel in ./dist if one has been built."""
    wheels = sorted(Path("dist").glob("fastnn*.whl"), key=lambda path: path.stat().st_mtime)
    return {
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {key: CONTESTANTS[key].version for key in contestants},
        "wheel_bytes": wheels[-1].stat().st_size if wheels else None,
    }


def cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def footer(machine: Mapping[str, Any]) -> str:
    """Two lines about the machine and the versions, for the foot of a chart."""
    versions = ", ".join(
        f"{CONTESTANTS[key].title} {version}" for key, version in machine["versions"].items() if version
    )
    return f"{machine['cpu']}, {machine['cpus']} CPUs; float32, medians, every library at its best settings\n{versions}"
