"""The chart of the networks' workloads, as the README shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastnn.benchmarking.peers import FASTNN
from fastnn.benchmarking.report import MICRO, duration, threads_text, times, title_of
from fastnn.benchmarking.timing import Result, Score

OWN, OTHER, INK, FAINT = "#0b6e4f", "#b8bfc6", "#1f2328", "#6a737d"
LOG_FROM = 30  # slowest over fastest from which a linear axis would hide the short bars


def chosen(results: Sequence[Result]) -> list[Result]:
    """The networks' workloads that have times to compare, each with the most threads it was measured with."""
    best: dict[str, Result] = {}
    for result in sorted(results, key=lambda result: result.threads):
        compared = result.workload.net is not None and result.workload.kind != "memory"
        if compared and sum(bool(score.samples) for score in result.scores) > 1:
            best[result.workload.key] = result
    return list(best.values())


def draw(results: Sequence[Result], machine: str, path: Path) -> None:
    """Write the chart as an image to `path`: a panel a workload, a bar a contestant, fastest first.

    Args:
        results: what was measured; products and imports are left out.
        machine: lines about the machine for the foot of the chart.
        path: the file; its ending decides the format.

    Raises:
        ValueError: if there is nothing to compare.
        ModuleNotFoundError: without matplotlib.
    """
    from matplotlib.figure import Figure

    panels = chosen(results)
    if not panels:
        raise ValueError("chart: no workload has times of two contestants.")
    bars = [sum(bool(score.samples) for score in result.scores) for result in panels]
    rows = [max(bars[index : index + 2]) for index in range(0, len(bars), 2)]
    heights = [0.75 + 0.30 * count for count in rows]
    figure = Figure(figsize=(11, 1.1 + sum(heights)), facecolor="white", layout="constrained")
    axes = figure.subplots(len(rows), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for index, axis in enumerate(axes.flat):
        if index < len(panels):
            panel(axis, panels[index], rows[index // 2])
        else:
            axis.set_visible(False)
    figure.suptitle(
        "Shorter is better; in brackets the time divided by fastnn's",
        x=0.01,
        ha="left",
        fontsize=13,
        color=INK,
        weight="bold",
    )
    figure.supxlabel(machine, x=0.01, ha="left", fontsize=8, color=FAINT)
    figure.savefig(path, dpi=160)


def panel(axis: Any, result: Result, room: int) -> None:
    """Draw the bars of one workload from the top, in space for `room` of them."""
    scores: list[Score] = sorted((score for score in result.scores if score.samples), key=lambda score: score.seconds)
    seconds = [score.seconds for score in scores]
    logarithmic = seconds[-1] / seconds[0] >= LOG_FROM
    colours = [OWN if score.peer == FASTNN.key else OTHER for score in scores]
    axis.barh(range(len(scores)), seconds, color=colours, height=0.72)
    if logarithmic:
        axis.set_xscale("log")
        axis.set_xlim(seconds[0] / 3, seconds[-1] * (seconds[-1] / seconds[0]) ** 0.42)
    else:
        axis.set_xlim(0, seconds[-1] * 1.34)
    for row, score in enumerate(scores):
        own = score.peer == FASTNN.key
        ratio = "" if own or result.ratio(score) is None else f"  ({times(result.ratio(score))})"
        axis.annotate(
            duration(score.seconds, MICRO) + ratio, (score.seconds, row), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=9, color=INK, weight="bold" if own else "normal",
        )  # fmt: skip
    axis.set_yticks(range(len(scores)), [title_of(score) for score in scores], fontsize=9, color=INK)
    for label, score in zip(axis.get_yticklabels(), scores, strict=True):
        label.set_weight("bold" if score.peer == FASTNN.key else "normal")
    axis.set_ylim(room - 0.4, -0.6)
    axis.set_xticks([])
    axis.minorticks_off()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    scale = ", log scale" if logarithmic else ""
    axis.set_title(result.workload.title, loc="left", fontsize=10.5, color=INK, weight="bold", pad=14)
    axis.text(
        0,
        1.015,
        f"{threads_text(result.threads)}{scale}",
        transform=axis.transAxes,
        fontsize=8,
        color=FAINT,
        va="bottom",
    )
