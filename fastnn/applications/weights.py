"""Weights from PyTorch: found by name, turned into this library's layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastnn.layers import BatchNormalization, Dense, Flatten, Layer
from fastnn.layers.convolutional import Conv
from fastnn.layers.weight import Weight
from fastnn.models import Model
from fastnn.network import Network

#: PyTorch's names of the weights of a batch normalization.
NORMALIZATION = {
    "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
#: So many names of each kind are written out in an error.
LISTED = 8

Shape = tuple[int, ...]


class _Entry:
    """What one weight is called and how it lies in a PyTorch model.

    Attributes:
        weight: the weight
        shape: its shape there
        turn: makes an array of that shape one of the weight's
    """

    def __init__(self, weight: Weight, shape: Shape, turn: Callable[[np.ndarray], np.ndarray]) -> None:
        self.weight, self.shape, self.turn = weight, shape, turn


def load_torch(model: Model, state_dict: Mapping[str, Any], skip: Sequence[str] = ()) -> None:
    """Give a model the weights of a PyTorch model whose modules have the names of its layers.

    The networks of ``fastnn.applications`` name their layers so: like torchvision's modules (AlexNet, VGG, GoogLeNet,
    ResNet) and those of the U-Net on PyTorch Hub. A model of one's own loads as well if its layers are named so.

    | layer ``x``         | entry                                 | there              | here              |
    | ------------------- | ------------------------------------- | ------------------ | ----------------- |
    | Conv                | ``x.weight``                          | (F, C, KH, KW)     | (KH, KW, C, F)    |
    | ConvTranspose       | ``x.weight``                          | (C, F, KH, KW)     | (KH, KW, F, C)    |
    | Dense               | ``x.weight``                          | (F, K)             | (K, F)            |
    | Dense after Flatten | ``x.weight``                          | (F, C * H * W)     | (H * W * C, F)    |
    | each of these       | ``x.bias``                            | (F,)               | (F,)              |
    | BatchNormalization  | ``x.weight``, ``x.bias``              | (C,)               | gamma, beta       |
    |                     | ``x.running_mean``, ``x.running_var`` | (C,)               | moving averages   |

    Other numbers of axes of space go the same way. If the layers' names begin with the model's name and a dot, that is
    left out. Entries named ``num_batches_tracked`` are passed over.

    Args:
        model: the model; its other layers have no weights
        state_dict: arrays or PyTorch tensors by name, such as ``torch_model.state_dict()``
        skip: names of modules: their entries are passed over, and what layers of these names have stays as it is, such
            as ``["classifier.6"]`` for another number of classes

    Raises:
        ValueError: entries are missing, not expected or of another shape, each named, or not made of numbers; or a
            layer has weights of which nothing is known here. No weight has been changed

    Example:
        >>> import numpy as np
        >>> from fastnn import Sequential
        >>> from fastnn.applications import load_torch
        >>> from fastnn.layers import Dense
        >>> model = Sequential([Dense(2, input_shape=(3,), name="fc")])
        >>> load_torch(model, {"fc.weight": np.arange(6.0).reshape(2, 3), "fc.bias": np.ones(2)})
        >>> model.predict(np.eye(3), verbose=0)
        array([[1., 4.],
               [2., 5.],
               [3., 6.]], dtype=float32)
    """
    what = "load_torch"
    passed = tuple(f"{module}." for module in ([skip] if isinstance(skip, str) else skip))
    expected = {name: entry for name, entry in _entries(what, model).items() if not name.startswith(passed)}
    given = {
        name: numbers(what, name, value)
        for name, value in state_dict.items()
        if not name.startswith(passed) and not name.endswith("num_batches_tracked")
    }
    check_fit(what, model, {name: entry.shape for name, entry in expected.items()}, given)
    for name, entry in expected.items():
        entry.weight.assign(entry.turn(given[name]))


def check_fit(what: str, model: Model, expected: Mapping[str, Shape], given: Mapping[str, np.ndarray]) -> None:
    """ValueError unless the given arrays are the expected ones: it says which are not."""
    wrong = {
        "missing": [name for name in expected if name not in given],
        "not expected": [name for name in given if name not in expected],
        "of another shape": [
            f"{name} {given[name].shape}, not {shape}"
            for name, shape in expected.items()
            if name in given and given[name].shape != shape
        ],
    }
    if any(wrong.values()):
        found = "; ".join(f"{kind}: {_listed(names)}" for kind, names in wrong.items() if names)
        raise ValueError(f"{what}: the entries must be those of {model.name}. Received: {found}")


def torch_shapes(model: Model) -> dict[str, Shape]:
    """The names and shapes of the entries that ``load_torch`` wants."""
    return {name: entry.shape for name, entry in _entries("torch_shapes", model).items()}


def _listed(names: Sequence[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def numbers(what: str, name: str, value: Any) -> np.ndarray:
    """A tensor or array as an array of numbers."""
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{what}: entries must be numbers. Received: {name} of dtype {array.dtype}")
    return array


def _entries(what: str, model: Model) -> dict[str, _Entry]:
    """What is known of each weight, by its name in a PyTorch model."""
    model._built()
    found: dict[str, _Entry] = {}
    start = f"{model.name}."
    for layer in model.network.layers:
        if not layer.weights:
            continue
        name = layer.name.removeprefix(start)
        if isinstance(layer, BatchNormalization):
            for weight in layer.weights:
                called = NORMALIZATION[weight.name.rpartition(".")[2]]
                found[f"{name}.{called}"] = _Entry(weight, weight.shape, lambda array: array)
        elif isinstance(layer, Conv | Dense):
            found[f"{name}.weight"] = _kernel(layer, model.network)
            if layer.use_bias:
                found[f"{name}.bias"] = _Entry(layer.bias, layer.bias.shape, lambda array: array)
        else:
            raise ValueError(
                f"{what}: layers with weights must be convolutions, Dense or BatchNormalization. Received: {layer!r}"
            )
    return found


def _kernel(layer: Conv | Dense, network: Network) -> _Entry:
    *window, inner, outer = layer.kernel.shape
    if isinstance(layer, Conv):
        rank = len(window)
        return _Entry(layer.kernel, (outer, inner, *window), lambda array: array.transpose(*range(2, rank + 2), 1, 0))
    *space, channels = _before_flatten(layer, network) or (inner,)
    axes = len(space)

    def turn(array: np.ndarray) -> np.ndarray:
        maps = array.reshape(outer, channels, *space)
        return maps.transpose(*range(2, axes + 2), 1, 0).reshape(inner, outer)

    return _Entry(layer.kernel, (outer, inner), turn)


def _before_flatten(layer: Layer, network: Network) -> Shape | None:
    """The shape of the maps (*space, C) that were flattened to the layer's input; None if none were."""
    makers = {id(tensor): call for call in network.calls for tensor in call.outputs}
    call = next(call for call in network.calls if call.layer is layer)
    while len(call.inputs) == 1:
        before = makers[id(call.inputs[0])]
        if isinstance(before.layer, Flatten):
            sizes = before.inputs[0].shape[1:]
            return tuple(size for size in sizes if size is not None)
        if before.layer.weights:
            break
        call = before
    return None
