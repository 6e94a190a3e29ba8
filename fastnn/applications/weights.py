"""Weights from PyTorch: found by name, turned into this library's layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastnn.layers import BatchNormalization, Concatenate, Dense, Flatten, Layer, Reshape
from fastnn.layers.base import Call
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

Shape = tuple[Any, ...]


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
        ValueError: entries are missing, not expected or of another shape, each named, or not made of numbers; a layer
            has weights of which nothing is known here, or takes features whose order in PyTorch cannot be told, such
            as channels that a Reshape has made. No weight has been changed

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
    expected = _entries(what, model, passed)
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
    return {name: entry.shape for name, entry in _entries("torch_shapes", model, ()).items()}


def _listed(names: Sequence[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def numbers(what: str, name: str, value: Any) -> np.ndarray:
    """A tensor or array as an array of numbers."""
    value = value.detach().cpu() if hasattr(value, "detach") else value
    try:
        array = np.asarray(value)
    except TypeError:  # a type that only PyTorch has, such as bfloat16
        array = np.asarray(value.float())
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{what}: entries must be numbers. Received: {name} of dtype {array.dtype}")
    return array


def _entries(what: str, model: Model, passed: tuple[str, ...]) -> dict[str, _Entry]:
    """What is known of each weight, by its name in a PyTorch model, without names that begin with those passed over."""
    model._built()
    found: dict[str, _Entry] = {}
    start = f"{model.name}."
    orders = _orders(model.network)
    for layer in model.network.layers:
        name = layer.name.removeprefix(start)
        if not layer.weights or f"{name}.".startswith(passed):
            continue
        order = orders[layer]
        if order is None:
            raise ValueError(f"{what}: the order of the features that {layer!r} takes cannot be followed")
        if isinstance(layer, BatchNormalization):
            for weight in layer.weights:
                called = NORMALIZATION[weight.name.rpartition(".")[2]]
                found[f"{name}.{called}"] = _Entry(weight, weight.shape, partial(np.take, indices=order))
        elif isinstance(layer, Conv | Dense):
            found[f"{name}.weight"] = _kernel(layer, order)
            if layer.use_bias:
                found[f"{name}.bias"] = _Entry(layer.bias, layer.bias.shape, lambda array: array)
        else:
            raise ValueError(
                f"{what}: layers with weights must be convolutions, Dense or BatchNormalization. Received: {layer!r}"
            )
    return found


def _kernel(layer: Conv | Dense, order: np.ndarray) -> _Entry:
    *window, inner, outer = layer.kernel.shape
    if isinstance(layer, Dense):
        return _Entry(layer.kernel, (outer, inner), lambda array: array[:, order].T)
    rank = len(window)
    return _Entry(layer.kernel, (outer, inner, *window), lambda array: array.transpose(*range(2, rank + 2), 1, 0))


def _orders(network: Network) -> dict[Layer, np.ndarray | None]:
    """For each layer with weights: which number each of its input's features or channels has in PyTorch.

    None where that cannot be told.
    """
    found: dict[Layer, np.ndarray | None] = {}
    orders: dict[int, np.ndarray | None] = {id(tensor): _plain(tensor.shape) for tensor in network.inputs}
    entries = set(orders)
    for call in network.calls:
        given = [orders[id(tensor)] for tensor in call.inputs]
        if call.layer.weights:
            known = found.setdefault(call.layer, given[0])
            if known is None or given[0] is None or not np.array_equal(known, given[0]):
                found[call.layer] = None
        data = all(id(tensor) in entries for tensor in call.inputs)  # it lies as the user gives it
        for tensor in call.outputs:
            reshaped = isinstance(call.layer, Reshape) and data and len(tensor.shape) > 2
            orders[id(tensor)] = _plain(tensor.shape) if reshaped else _order(call, given, tensor.shape)
    return found


def _plain(shape: Shape) -> np.ndarray:
    """That of features or channels that lie as in PyTorch."""
    return np.arange(shape[-1] if len(shape) > 1 else 1)


def _flat(order: np.ndarray, shape: Shape) -> np.ndarray:
    """That of the maps' numbers, or of features, in one row: in PyTorch the channels come first."""
    *space, channels = shape[1:]
    maps: np.ndarray = np.arange(math.prod(shape[1:])).reshape(channels, *space)[order]
    return np.moveaxis(maps, 0, -1).reshape(-1)


def _order(call: Call, given: Sequence[np.ndarray | None], after: Shape) -> np.ndarray | None:
    """That of an output of the call, whose inputs have these."""
    layer, before, same = call.layer, [tensor.shape for tensor in call.inputs], _plain(after)
    orders = [order for order in given if order is not None]
    if not before or (layer.weights and not isinstance(layer, BatchNormalization)):
        return same
    if len(orders) < len(given):
        return None
    if isinstance(layer, Concatenate) and layer.axis in (-1, len(after) - 1):
        starts = np.cumsum([0, *(len(order) for order in orders)])
        return np.concatenate([order + start for order, start in zip(orders, starts, strict=False)])
    if isinstance(layer, Flatten | Reshape):
        row = _flat(orders[0], before[0])
        return row if len(after) == 2 else same if np.array_equal(row, _flat(same, after)) else None
    if all(len(shape) > 1 and shape[-1] == after[-1] and (len(shape) > 2) == (len(after) > 2) for shape in before):
        return orders[0] if all(np.array_equal(orders[0], order) for order in orders) else None
    return same if all(np.array_equal(order, np.arange(len(order))) for order in orders) else None
