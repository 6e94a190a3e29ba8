"""Neural networks at full speed on the CPU."""

import logging

from fastnn import (
    callbacks,
    config,
    initializers,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    regularizers,
    schedules,
    utils,
)
from fastnn.config import get_num_threads, set_num_threads, set_seed, show_config
from fastnn.layers import Input
from fastnn.models import Model, Sequential, load_model
from fastnn.version import __version__

logging.getLogger("fastnn").addHandler(logging.NullHandler())

__all__ = [
    "Input",
    "Model",
    "Sequential",
    "__version__",
    "callbacks",
    "config",
    "get_num_threads",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "regularizers",
    "schedules",
    "set_num_threads",
    "set_seed",
    "show_config",
    "utils",
]
