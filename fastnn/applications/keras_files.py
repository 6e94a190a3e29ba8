"""Weights as Keras has them: in a model, by name, or in its files, read as lists of layers."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

#: Parts of a file that hold no weights of layers.
PASSED = {"optimizer", "seed_generator", "compile_metrics", "metrics", "loss_tracker", "top_level_model_weights"}
ENDINGS = (".keras", ".h5", ".hdf5")


class Given(NamedTuple):
    """A layer of Keras's that has weights.

    Attributes:
        name: of the layer
        kind: its class as names of layers begin, such as "conv2d", if that is known, otherwise ""
        weights: arrays by name, such as "kernel", or by number, in Keras's order
    """

    name: str
    kind: str
    weights: dict[str, Any]


class Source(NamedTuple):
    """All layers with weights.

    Attributes:
        layers: the layers
        ordered: whether they come in the order of the model's layers, not only those of a kind among themselves
        nested: whether some are parts of models that are parts of the model
    """

    layers: list[Given]
    ordered: bool
    nested: bool


def read(what: str, source: Any) -> Source:
    """The layers of a Keras model, of a mapping, or of a file.

    Raises:
        TypeError, ValueError, ImportError, FileNotFoundError: it is none of these, or cannot be read
    """
    if isinstance(source, Mapping):
        return of_mapping(source)
    if hasattr(source, "layers"):
        inner = [layer for layer in source.layers if hasattr(layer, "layers")]
        return Source(list(_of_model(source)), True, any(layer.weights for layer in inner))
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"{what}: source must be a Keras model, a mapping of names to arrays or the path of a file. "
            f"Received: source={source!r}"[:300]
        )
    path = os.fspath(source)
    if not path.lower().endswith(ENDINGS):
        raise ValueError(f"{what}: files must end in {', '.join(ENDINGS)}. Received: {path!r}")
    try:
        import h5py
    except ImportError:
        raise ImportError(
            f"{what}: files of Keras are read by h5py, which is not installed: pip install h5py"
        ) from None
    with open(path, "rb") as file:  # its errors name the file
        if not path.lower().endswith(".keras"):
            with _opened(what, path, lambda: h5py.File(file, "r")) as group:
                return of_group(group)
        with _opened(what, path, lambda: zipfile.ZipFile(file)) as archive:
            try:
                config, weights = archive.read("config.json"), archive.open("model.weights.h5")
            except KeyError as error:
                raise ValueError(f"{what}: {path!r} is not a file of Keras: {error}") from None
            with weights, _opened(what, path, lambda: h5py.File(weights, "r")) as group:
                return in_order(of_group(group), json.loads(config))


def _opened(what: str, path: str, opener: Any) -> Any:
    try:
        return opener()
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{what}: {path!r} cannot be read: {error}") from None


def of_mapping(arrays: Mapping[str, Any]) -> Source:
    """Names are those of a layer and of a weight, with "/" between; others before do not count.

    >>> of_mapping({"model/conv/kernel:0": 1, "model/conv/bias:0": 2}).layers
    [Given(name='conv', kind='', weights={'kernel': 1, 'bias': 2})]
    """
    layers: dict[str, Given] = {}
    for name, array in arrays.items():
        path, _, weight = str(name).rpartition("/")
        layers.setdefault(path, Given(path.rpartition("/")[2], "", {})).weights[_plain(weight)] = array
    return Source(list(layers.values()), True, False)


def _plain(weight: str) -> str:
    """The name of a weight without what comes before and after it."""
    return weight.rpartition("/")[2].partition(":")[0]


def _of_model(model: Any) -> Iterator[Given]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _of_model(layer)
        elif layer.weights:
            names = [_plain(getattr(weight, "name", "")) for weight in layer.weights]
            yield Given(layer.name, "", _named(names, layer.get_weights()))


def _named(names: Sequence[str], arrays: Sequence[Any]) -> dict[str, Any]:
    """Arrays by name, or by number if the names are not all different."""
    if len(set(names)) < len(names):
        names = [str(number) for number in range(len(names))]
    return dict(zip(names, arrays, strict=True))


def of_group(root: Any) -> Source:
    """The layers in a file's root: of a file of weights, old or new, or of a whole model in the old format."""
    group = root.get("model_weights", root)
    names = _texts(group.attrs, "layer_names")
    if names is None:
        found = list(_below(group, ()))
        return Source([given for given, _ in found], False, len({path for _, path in found}) > 1)
    layers: list[Given] = []
    nested = False
    for name in names:
        weights = _texts(group[name].attrs, "weight_names") or []
        inner: dict[str, list[str]] = {}
        for weight in weights:
            inner.setdefault(weight.rpartition("/")[0].rpartition("/")[2] or name, []).append(weight)
        several = len(inner) > 1  # a model within the model
        nested = nested or several
        layers += [
            Given(
                label if several else name,
                "",
                _named([_plain(weight) for weight in own], [np.asarray(group[name][weight]) for weight in own]),
            )
            for label, own in inner.items()
        ]
    return Source(layers, True, nested)


def _texts(attributes: Mapping[str, Any], name: str) -> list[str] | None:
    """A list of texts in a file; long ones are in several parts."""
    parts = [attributes[name]] if name in attributes else []
    while f"{name}{len(parts)}" in attributes:
        parts.append(attributes[f"{name}{len(parts)}"])
    if not parts:
        return None
    return [text.decode() if isinstance(text, bytes) else str(text) for part in parts for text in part]


def _below(group: Any, path: tuple[str, ...]) -> Iterator[tuple[Given, tuple[str, ...]]]:
    """The layers with weights in and below a group, which is at that path, and the path of what they are in."""
    variables = group.get("vars", {})
    if len(variables):
        key = path[-1] if path else ""
        name = getattr(variables, "attrs", {}).get("name", key)
        arrays = {number: np.asarray(variables[number]) for number in sorted(variables, key=_natural)}
        yield Given(str(name), re.sub(r"_\d+$", "", key), arrays), path[:-1]
    for key in sorted(group, key=_natural):
        if key != "vars" and key not in PASSED and hasattr(group[key], "keys"):
            yield from _below(group[key], (*path, key))


def _natural(key: str) -> tuple[str, int]:
    """Sorts "conv2d" before "conv2d_2" before "conv2d_10".

    >>> sorted(["conv2d_10", "conv2d", "conv2d_2"], key=_natural)
    ['conv2d', 'conv2d_2', 'conv2d_10']
    """
    start, number = re.fullmatch(r"(.*?)_?(\d*)", key, re.DOTALL).groups()  # type: ignore[union-attr]
    return start, int(number or -1)


def in_order(source: Source, config: Any) -> Source:
    """In the order of a model's description, if that names all layers."""
    order = {name: number for number, name in enumerate(_described(config))}
    names = [given.name for given in source.layers]
    if len(set(names)) < len(names) or not set(names) <= set(order):
        return source
    return Source(sorted(source.layers, key=lambda given: order[given.name]), True, source.nested)


def _described(config: Any) -> Iterator[str]:
    for layer in config.get("config", {}).get("layers", []):
        if "layers" in layer.get("config", {}):
            yield from _described(layer)
        else:
            yield layer["config"]["name"]
