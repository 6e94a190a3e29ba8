"""Neural networks at full speed on the CPU."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastnn import (
    callbacks,
    config,
    initializers,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    regularizers,
    schedules,
    utils,
)
from fastnn.config import get_num_threads, set_num_threads, set_seed, show_config
from fastnn.layers import Input
from fastnn.models import Model, Sequential, load_model
from fastnn.version import __version__

if TYPE_CHECKING:
    from fastnn import applications

logging.getLogger("fastnn").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """``fastnn.applications``, imported when it is first asked for."""
    if name == "applications":
        return import_module("fastnn.applications")
    raise AttributeError(f"module 'fastnn' has no attribute {name!r}")


__all__ = [
    "Input",
    "Model",
    "Sequential",
    "__version__",
    "applications",
    "callbacks",
    "config",
    "get_num_threads",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "regularizers",
    "schedules",
    "set_num_threads",
    "set_seed",
    "show_config",
    "utils",
]
