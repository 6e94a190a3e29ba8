"""What a training run shows: the learning curve as a PNG and metrics as text.

matplotlib is imported when a figure is drawn, and without pyplot: no window, no global state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["best_epoch", "format_metric", "learning_curve", "metrics_text"]

TRAIN, VALIDATION, INK, FAINT = "#1f5fa8", "#d1570b", "#333333", "#9a9a9a"

Curve = tuple[str, str, Sequence[float]]  # name, color, a value an epoch

METRIC_NAMES = {
    "accuracy": "accuracy",
    "recall": "recall (sensitivity)",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R2",
}


def best_epoch(history: Mapping[str, Sequence[float]]) -> int:
    """The epoch, from 0, with the lowest validation loss, or the lowest loss if there was no validation.

    Example:
        >>> best_epoch({"loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 2.0, 2.5]})
        1
    """
    return int(np.argmin(history["val_loss" if "val_loss" in history else "loss"]))


def learning_curve(
    history: Mapping[str, Sequence[float]],
    path: str | Path,
    *,
    title: str = "",
    labels: Mapping[str, str] | None = None,
) -> None:
    """Draw the loss and each other metric over the epochs, for training and validation, and write a PNG.

    Args:
        history: ``History.history``: "loss", other metrics, the same with "val_" in front; one value an epoch.
        path: the file to write, 150 dots an inch.
        title: a line above the panels.
        labels: what to call a metric, instead of its key.

    Raises:
        ValueError: no epoch in the history.
        ImportError: matplotlib is not installed.
    """
    if not history.get("loss"):
        raise ValueError("learning_curve: history must have at least one epoch")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    keys = [key for key in history if not key.startswith("val_")]
    figure = Figure(figsize=(5.4 * len(keys), 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(keys), squeeze=False)[0]
    for axes, key in zip(panels, keys, strict=True):
        _panel(axes, key, history, (labels or {}).get(key, key))
    if title:
        figure.suptitle(title, color=INK, fontsize=12, x=0.01, ha="left")
    figure.savefig(path, format="png", dpi=150)


def _panel(axes: Axes, key: str, history: Mapping[str, Sequence[float]], name: str) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    best = best_epoch(history)
    curves = [("training", TRAIN, history[key])]
    if f"val_{key}" in history:
        curves.append(("validation", VALIDATION, history[f"val_{key}"]))
    epochs = np.arange(1, len(history[key]) + 1)
    axes.axvline(best + 1, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    marker = "o" if len(epochs) == 1 else ""
    for _, color, values in curves:
        axes.plot(epochs, values, color=color, linewidth=1.8, marker=marker, solid_capstyle="round")
    _, color, values = curves[-1]
    axes.plot(best + 1, values[best], "o", color=color, markersize=6, markeredgecolor="white", zorder=5, clip_on=False)
    axes.set_title(name, loc="left", color=INK, fontsize=11)
    axes.set_xlabel("epoch", color=INK)
    axes.set_xlim(1 if len(epochs) > 1 else 0.5, max(len(epochs), 1.5))
    ratio = _ratio([value for _, _, values in curves for value in values])
    if ratio > 50:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < 1000 else (1,)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    _label_ends(axes, curves)
    left_of_line = best + 1 > 0.6 * len(epochs)
    axes.annotate(
        f"{'best ' if key == 'loss' else ''}epoch {best + 1}: {values[best]:.4g}",
        (best + 1, _free_height(axes, curves, best, left_of_line)),
        xycoords=("data", "axes fraction"),
        xytext=(-6 if left_of_line else 6, 0),
        textcoords="offset points",
        ha="right" if left_of_line else "left",
        va="center",
        fontsize=9,
        color=INK,
    )


def _free_height(axes: Axes, curves: Sequence[Curve], best: int, left_of_line: bool) -> float:
    """The height, as a fraction of the panel, where a text beside the best epoch's line is farthest from the curves."""
    reach = max(1, round(0.45 * len(curves[0][2])))
    near = slice(max(0, best - reach), best + 1) if left_of_line else slice(best, best + reach)
    taken = [
        axes.transAxes.inverted().transform(axes.transData.transform((1, value)))[1]
        for _, _, values in curves
        for value in values[near]
    ]
    return max((0.1, 0.3, 0.5, 0.7, 0.9), key=lambda height: min(abs(height - value) for value in taken))


def _label_ends(axes: Axes, curves: Sequence[Curve]) -> None:
    """Name each curve at its right end, moved apart where two ends meet."""
    axes.figure.canvas.draw()
    height = axes.bbox.height
    ends = [float(axes.transData.transform((1, values[-1]))[1] - axes.bbox.y0) for _, _, values in curves]
    places = [min(max(end, 0.02 * height), 0.98 * height) for end in ends]
    gap = 0.055 * height
    if len(places) == 2 and abs(places[0] - places[1]) < gap:
        upper = 0 if places[0] >= places[1] else 1
        middle = min(max(sum(places) / 2, gap / 2), height - gap / 2)
        places[upper], places[1 - upper] = middle + gap / 2, middle - gap / 2
    for (label, color, _), place in zip(curves, places, strict=True):
        axes.annotate(
            label,
            (1, place / height),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            color=color,
            fontsize=10,
            va="center",
        )


def _ratio(values: Sequence[float]) -> float:
    """The largest value over the smallest, 1 unless all are above zero."""
    low, high = min(values), max(values)
    return high / low if low > 0 else 1.0


def format_metric(value: float | None) -> str:
    """Four decimals, five significant digits from 10 on, and "n/a" for a value that is not defined.

    Example:
        >>> format_metric(0.98123), format_metric(1234.56), format_metric(None)
        ('0.9812', '1234.6', 'n/a')
    """
    if value is None:
        return "n/a"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 10 or value == 0 else f"{value:.5g}"


def metrics_text(metrics: Mapping[str, Any], classes: Sequence[str] = ()) -> str:
    """A table of metrics and, for classes, the confusion matrix (rows: truth, columns: prediction).

    Args:
        metrics: what a function of ``fastnn.evaluation`` returns.
        classes: K class names, in the order of the matrix.

    Example:
        >>> print(metrics_text({"accuracy": 0.75, "recall": None, "confusion_matrix": [[3, 1], [0, 0]]}, ["no", "yes"]))
        accuracy              0.7500
        recall (sensitivity)     n/a
        <BLANKLINE>
                    predicted
        actual      no  yes
          no         3    1
          yes        0    0
    """
    names = dict(METRIC_NAMES)
    if len(classes) > 2:
        names.update({key: f"{METRIC_NAMES[key]}, macro" for key in ("precision", "f1", "roc_auc")})
        names["recall"] = "recall, macro"
    chosen = [(name, format_metric(metrics[key])) for key, name in names.items() if key in metrics]
    left, right = max(len(name) for name, _ in chosen), max(len(text) for _, text in chosen)
    lines = [f"{name:<{left}}  {text:>{right}}" for name, text in chosen]
    matrix = metrics.get("confusion_matrix")
    if matrix:
        widths = [max(len(name), *(len(str(row[k])) for row in matrix)) for k, name in enumerate(classes)]
        side = max(8, *(len(name) for name in classes)) + 2
        head = "  ".join(f"{name:>{width}}" for name, width in zip(classes, widths, strict=True))
        lines += ["", f"{'':<{side}}  predicted", f"{'actual':<{side}}  {head}"]
        for name, row in zip(classes, matrix, strict=True):
            cells = "  ".join(f"{count:>{width}}" for count, width in zip(row, widths, strict=True))
            lines.append(f"  {name:<{side - 2}}  {cells}")
    return "\n".join(lines)
