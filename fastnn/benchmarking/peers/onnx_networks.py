"""The networks of the literature as ONNX files, from PyTorch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.benchmarking.networks import Application


def exported(work: Application, rows: int) -> bytes:
    """The network with its last activation; input "x" with the channels first, output "out"."""
    import torch

    from fastnn.benchmarking.peers.torch import application_of

    last = torch.nn.Sigmoid() if work.classes == 1 else torch.nn.Softmax(dim=1)
    model = torch.nn.Sequential(application_of(work), last).eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = torch.zeros(rows, work.shape[-1], *work.shape[:-1])
        torch.onnx.export(model, (x,), file, input_names=["x"], output_names=["out"], opset_version=17, dynamo=False)
    return file.getvalue()


def inputs(work: Application, rows: int) -> Any:
    """The data with the channels first."""
    return np.ascontiguousarray(np.moveaxis(work.data(rows)[0], -1, 1))


def channels_back(run: Callable[[int], Any]) -> Callable[[int], Any]:
    """The result with the channels last."""
    return lambda n: np.moveaxis(run(n), 1, -1)
