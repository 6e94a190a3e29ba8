"""scikit-learn: MLPClassifier, without its stopping rules so that every epoch asked for is run."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from fastnn.benchmarking.peers import Case, repeated
from fastnn.benchmarking.workloads import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Net, Workload, table, weights

LEAST_STEPS = 60  # of one fit: its start-up is no part of a step


def cases(workload: Workload, threads: int, thorough: bool) -> list[Case]:
    if workload.kind == "train":
        return [Case("MLPClassifier.fit", training(workload), workload.steps, least=-(-LEAST_STEPS // workload.steps))]
    if workload.kind == "predict":
        x, _ = table(workload.network, workload.rows)
        model = trained(workload.network)
        return [Case("predict_proba", repeated(lambda: model.predict_proba(x)))]
    return [Case("MLPClassifier.fit, validation", repeated(lambda: script(workload)))]


def classifier(net: Net, batch: int, epochs: int) -> MLPClassifier:
    settings = {"solver": "adam", "alpha": 0.0, "tol": 0.0, "n_iter_no_change": epochs + 1, "random_state": 0}
    adam = {"learning_rate_init": LEARNING_RATE, "beta_1": BETA_1, "beta_2": BETA_2, "epsilon": EPSILON}
    return MLPClassifier(net.sizes[1:-1], batch_size=batch, max_iter=epochs, **settings, **adam)


def training(workload: Workload) -> Callable[[int], float]:
    x, y = table(workload.network, workload.rows)

    def run(epochs: int) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return float(classifier(workload.network, workload.batch, epochs).fit(x, y).loss_)

    return run


def script(workload: Workload) -> float:
    """The whole job: a fifth held out, its accuracy and a printed line each epoch."""
    x, y = table(workload.network, workload.rows)
    model = classifier(workload.network, workload.batch, workload.epochs)
    model.set_params(early_stopping=True, validation_fraction=0.2, verbose=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return float(model.fit(x, y).loss_)


def trained(net: Net) -> MLPClassifier:
    """A fitted classifier with the shared weights: fitted once on a few rows, so that the estimator is complete."""
    x, y = table(net, 64 * net.classes)
    model = classifier(net, 64, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    values = weights(net)
    model.coefs_, model.intercepts_ = values[0::2], values[1::2]
    return model
