"""How good predictions are: two classes, several classes, numbers. Plain NumPy arithmetic in float64.

A value that is not defined for the data (recall without positive rows, R2 of a constant) is None, never a silent zero.
N rows, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["binary_metrics", "confusion_matrix", "multiclass_metrics", "regression_metrics", "roc_auc"]


def binary_metrics(truth: Any, probability: Any, threshold: float = 0.5) -> dict[str, Any]:
    """Metrics of a two-class prediction.

    Args:
        truth: (N,) of 0 and 1; 1 is the positive class.
        probability: (N,) or (N, 1), probability (or any score) of the positive class.
        threshold: a row is predicted positive where its probability is above this.

    Returns:
        accuracy, recall (= sensitivity), specificity, precision, f1, roc_auc, and confusion_matrix, a 2 x 2 list whose
        rows are the truth and whose columns are the prediction: [[tn, fp], [fn, tp]].

    Raises:
        ValueError: no rows, different lengths, a truth other than 0 and 1, or a probability that is not finite.

    Example:
        >>> result = binary_metrics([0, 0, 1, 1], [0.1, 0.6, 0.7, 0.4])
        >>> result["accuracy"], result["recall"], result["roc_auc"], result["confusion_matrix"]
        (0.5, 0.5, 0.75, [[1, 1], [1, 1]])
    """
    codes, scores = _codes(truth, 2), _scores(probability)
    _same_length(codes, scores)
    matrix = confusion_matrix(codes, scores > threshold, 2)
    (tn, fp), (fn, tp) = matrix.tolist()
    return {
        "accuracy": _ratio(tp + tn, len(codes)),
        "recall": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "precision": _ratio(tp, tp + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "roc_auc": roc_auc(codes, scores),
        "confusion_matrix": matrix.tolist(),
    }


def multiclass_metrics(truth: Any, probabilities: Any) -> dict[str, Any]:
    """Metrics of a prediction among K classes; the most probable class is predicted.

    Args:
        truth: (N,) of 0..K-1.
        probabilities: (N, K).

    Returns:
        accuracy; precision, recall and f1, each the plain mean over the classes (macro), None if undefined for one of
        them; roc_auc, the mean over the classes of one against the rest; per_class, lists of K values of the same;
        confusion_matrix, K x K, rows truth, columns prediction.

    Raises:
        ValueError: no rows, different lengths, a class outside 0..K-1, or a probability that is not finite.

    Example:
        >>> multiclass_metrics([0, 1, 2], [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.4, 0.3]])["accuracy"]
        0.6666666666666666
    """
    scores = np.asarray(probabilities, np.float64)
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise ValueError(f"probabilities must be a finite array (N, K). Received: shape {scores.shape}")
    count = scores.shape[1]
    codes = _codes(truth, count)
    _same_length(codes, scores)
    matrix = confusion_matrix(codes, np.argmax(scores, axis=1), count)
    right, actual, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    per_class: dict[str, list[float | None]] = {
        "precision": [_ratio(r, p) for r, p in zip(right, predicted, strict=True)],
        "recall": [_ratio(r, a) for r, a in zip(right, actual, strict=True)],
        "f1": [_ratio(2 * r, a + p) for r, a, p in zip(right, actual, predicted, strict=True)],
        "roc_auc": [roc_auc(codes == k, scores[:, k]) for k in range(count)],
    }
    macro = {name: _mean(values) for name, values in per_class.items()}
    return {
        "accuracy": _ratio(int(right.sum()), len(codes)),
        **macro,
        "per_class": per_class,
        "confusion_matrix": matrix.tolist(),
    }


def regression_metrics(truth: Any, prediction: Any) -> dict[str, Any]:
    """Metrics of predicted numbers.

    Args:
        truth: (N,) numbers.
        prediction: (N,) or (N, 1) numbers in the same units.

    Returns:
        rmse and mae in those units; r2, None where the truth does not vary.

    Raises:
        ValueError: no rows, different lengths, or a number that is not finite.

    Example:
        >>> regression_metrics([1.0, 2.0, 3.0], [1.0, 2.0, 5.0])
        {'rmse': 1.1547005383792515, 'mae': 0.6666666666666666, 'r2': -1.0}
    """
    actual, predicted = _scores(truth), _scores(prediction)
    _same_length(actual, predicted)
    error = predicted - actual
    spread = float(np.sum((actual - actual.mean()) ** 2))
    varies = bool(np.any(actual != actual[0])) and spread > 0
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "r2": 1.0 - float(np.sum(error**2)) / spread if varies else None,
    }


def roc_auc(truth: Any, score: Any) -> float | None:
    """Exact area under the ROC curve: the chance that a positive row scores above a negative one, a tie counting half.

    Args:
        truth: (N,) of 0 and 1.
        score: (N,) numbers.

    Returns:
        0 to 1, or None if one of the two classes has no rows.

    Raises:
        ValueError: no rows, different lengths, a truth other than 0 and 1, or a score that is not finite.

    Example:
        >>> roc_auc([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9])
        0.875
    """
    codes, scores = _codes(truth, 2), _scores(score)
    _same_length(codes, scores)
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2.0)[place]
    positive = int(np.count_nonzero(codes))
    negative = len(codes) - positive
    if positive == 0 or negative == 0:
        return None
    above = float(rank[codes == 1].sum()) - positive * (positive + 1) / 2.0
    return above / (positive * negative)


def confusion_matrix(truth: Any, prediction: Any, classes: int) -> np.ndarray:
    """Counts, int64 (K, K): entry [i, j] is the number of rows of class i that were predicted as class j.

    Raises:
        ValueError: no rows, different lengths, or a class outside 0..K-1.

    Example:
        >>> confusion_matrix([0, 1, 1], [0, 1, 0], 2).tolist()
        [[1, 0], [1, 1]]
    """
    rows, columns = _codes(truth, classes), _codes(prediction, classes)
    _same_length(rows, columns)
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _codes(values: Any, classes: int) -> np.ndarray:
    given = np.asarray(values).reshape(-1)
    codes = given.astype(np.int64)
    if not len(codes) or np.any(codes != given) or codes.min() < 0 or codes.max() >= classes:
        raise ValueError(f"classes must be whole numbers from 0 to {classes - 1}, at least one. Received: {given[:5]}")
    return codes


def _scores(values: Any) -> np.ndarray:
    scores = np.asarray(values, np.float64).reshape(-1)
    if not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"values must be finite numbers, at least one. Received: {scores[:5]}")
    return scores


def _same_length(left: np.ndarray, right: np.ndarray) -> None:
    if len(left) != len(right):
        raise ValueError(f"truth and prediction must have the same length. Received: {len(left)} and {len(right)}")
