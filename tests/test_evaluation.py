"""Metrics: hand-computed values, scikit-learn's on random data, and what is not defined."""

import numpy as np
import pytest
from sklearn import metrics

from fastnn.evaluation import binary_metrics, confusion_matrix, multiclass_metrics, regression_metrics, roc_auc

CLOSE = {"rel": 1e-12, "abs": 1e-12}


def scores(rng: np.random.Generator, rows: int, ties: bool) -> np.ndarray:
    values = rng.random(rows)
    return np.round(values, 1) if ties else values


def test_binary_metrics_of_a_hand_counted_table():
    truth = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    probability = [0.9, 0.8, 0.7, 0.2, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert binary_metrics(truth, probability) == {
        "accuracy": 0.8,
        "recall": 0.75,
        "specificity": pytest.approx(5 / 6),
        "precision": 0.75,
        "f1": 0.75,
        "roc_auc": pytest.approx(23 / 24),
        "confusion_matrix": [[5, 1], [1, 3]],
    }


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_binary_metrics_agree_with_scikit_learn(ties, threshold):
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 137)
    probability = scores(rng, 137, ties)
    predicted = probability > threshold
    ours = binary_metrics(truth, probability, threshold)
    assert ours["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted), **CLOSE)
    assert ours["recall"] == pytest.approx(metrics.recall_score(truth, predicted), **CLOSE)
    assert ours["specificity"] == pytest.approx(metrics.recall_score(truth, predicted, pos_label=0), **CLOSE)
    assert ours["precision"] == pytest.approx(metrics.precision_score(truth, predicted), **CLOSE)
    assert ours["f1"] == pytest.approx(metrics.f1_score(truth, predicted), **CLOSE)
    assert ours["roc_auc"] == pytest.approx(metrics.roc_auc_score(truth, probability), **CLOSE)
    assert ours["confusion_matrix"] == metrics.confusion_matrix(truth, predicted).tolist()


@pytest.mark.parametrize("ties", [False, True])
def test_multiclass_metrics_agree_with_scikit_learn(ties):
    rng = np.random.default_rng(2)
    truth = np.concatenate([np.arange(4), rng.integers(0, 4, 149)])
    probabilities = scores(rng, 153 * 4, ties).reshape(153, 4) + 0.05
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    ours = multiclass_metrics(truth, probabilities)
    auc = metrics.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert ours["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted), **CLOSE)
    assert ours["recall"] == pytest.approx(metrics.recall_score(truth, predicted, average="macro"), **CLOSE)
    assert ours["precision"] == pytest.approx(metrics.precision_score(truth, predicted, average="macro"), **CLOSE)
    assert ours["f1"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro"), **CLOSE)
    assert ours["roc_auc"] == pytest.approx(auc, **CLOSE)
    assert ours["confusion_matrix"] == metrics.confusion_matrix(truth, predicted).tolist()
    assert ours["per_class"]["recall"] == pytest.approx(metrics.recall_score(truth, predicted, average=None), **CLOSE)


def test_regression_metrics_agree_with_scikit_learn():
    rng = np.random.default_rng(3)
    truth = rng.normal(100, 7, 91)
    predicted = truth + rng.normal(0, 3, 91)
    ours = regression_metrics(truth, predicted.reshape(-1, 1))
    assert ours["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, predicted), **CLOSE)
    assert ours["mae"] == pytest.approx(metrics.mean_absolute_error(truth, predicted), **CLOSE)
    assert ours["r2"] == pytest.approx(metrics.r2_score(truth, predicted), **CLOSE)


def test_a_score_that_says_nothing_has_auc_one_half():
    assert roc_auc([0, 1, 0, 1, 1], [0.3] * 5) == 0.5


def test_metrics_that_are_not_defined_are_none():
    no_positive = binary_metrics([0, 0], [0.1, 0.2])
    assert no_positive["recall"] is None
    assert no_positive["precision"] is None
    assert no_positive["f1"] is None
    assert no_positive["roc_auc"] is None
    assert no_positive["specificity"] == 1.0
    assert binary_metrics([1, 1], [0.9, 0.1])["specificity"] is None
    assert regression_metrics([4.0, 4.0], [4.0, 5.0])["r2"] is None
    lacking = multiclass_metrics([0, 1, 1], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1]])
    assert lacking["recall"] is None
    assert lacking["per_class"]["recall"] == [1.0, 0.5, None]
    assert lacking["per_class"]["precision"] == [0.5, 1.0, None]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: binary_metrics([], []), "at least one"),
        (lambda: binary_metrics([0, 2], [0.1, 0.2]), "from 0 to 1"),
        (lambda: binary_metrics([0, 1], [0.1, np.nan]), "finite"),
        (lambda: binary_metrics([0, 1], [0.1]), "same length"),
        (lambda: multiclass_metrics([0, 3], np.ones((2, 3))), "from 0 to 2"),
        (lambda: multiclass_metrics([0, 1], np.ones(2)), r"\(N, K\)"),
        (lambda: regression_metrics([1.0], [np.inf]), "finite"),
        (lambda: confusion_matrix([0.5], [0], 2), "whole numbers"),
    ],
)
def test_bad_metric_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
