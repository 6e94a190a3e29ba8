"""Weights from Keras: found by the names of layers, or by their order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from fastnn.applications.keras_files import Given, Source, read
from fastnn.applications.vgg import CONVOLUTIONS
from fastnn.applications.weights import check_fit, numbers
from fastnn.layers import Layer
from fastnn.layers.base import plain_name
from fastnn.layers.weight import Weight
from fastnn.models import Model
from fastnn.network import Network

#: Layers of Keras's VGG16 and VGG19 after the convolutions.
DENSE = {"fc1": "classifier.0", "fc2": "classifier.3", "predictions": "classifier.6"}

Pair = tuple[Layer | None, Given | None]


def load_keras(model: Model, source: Any, skip: Sequence[str] = ()) -> None:
    """Give a model the weights of a Keras model of the same architecture.

    Layers that have weights are paired by name. Names made up by the libraries, such as ``dense_1``, do not count:
    these layers go by their order, the first with the first, as ``keras_model.layers`` has them (in files without this
    order, the first ``Dense`` with the first ``Dense``, and so on), and so do all layers if no names agree. ``_`` may
    stand for a dot, which Keras forbids with PyTorch as its backend. Keras's VGG16 and VGG19 have other names than
    those of ``fastnn.applications``, which are known here:

    | there                        | here                                                                       |
    | ---------------------------- | -------------------------------------------------------------------------- |
    | ``block1_conv1``             | ``features.0``                                                             |
    | ``block1_conv2``             | ``features.2``                                                             |
    | ``block2_conv1`` and so on   | ``features.5`` and so on; convolutions count 2, with ReLU, and poolings 1 |
    | ``fc1``                      | ``classifier.0``                                                           |
    | ``fc2``                      | ``classifier.3``                                                           |
    | ``predictions``              | ``classifier.6``                                                           |

    Arrays lie as here, and are copied as they are, if Keras's layers have ``data_format="channels_last"``, its default:

    | layer              | arrays                                                                            |
    | ------------------ | --------------------------------------------------------------------------------- |
    | Conv               | kernel (KH, KW, C, F), bias (F,)                                                  |
    | ConvTranspose      | kernel (KH, KW, F, C), bias (F,)                                                  |
    | DepthwiseConv      | kernel (KH, KW, C, M), bias (C * M,)                                              |
    | SeparableConv      | depthwise_kernel (KH, KW, C, M), pointwise_kernel (1, 1, C * M, F), bias (F,)     |
    | Dense              | kernel (K, F), bias (F,); after Flatten, too                                      |
    | BatchNormalization | gamma, beta, moving_mean, moving_variance (C,)                                    |
    | PReLU              | alpha (H, W, C), with 1 for shared axes                                           |

    Other layers with weights go the same way, and so do other numbers of axes of space. Models within models are taken
    apart. If the names of the model's layers begin with the model's name and a dot, that is left out.

    Args:
        model: the model
        source: a Keras model; or a mapping of names such as ``"conv1/kernel"`` to arrays; or the path of a file that
            Keras wrote, ``.weights.h5``, ``.h5`` or ``.keras``, for which h5py is needed
        skip: names of layers, here or there: they are passed over, and what layers of these names have stays as it is,
            such as ``["predictions"]`` for another number of classes. A name that others begin with, up to a dot,
            stands for them all

    Raises:
        ValueError: weights are missing, not expected or of another shape, each named, or not made of numbers; layers
            can be paired neither by name nor by order; or a file cannot be read. No weight has been changed
        TypeError: the source is none of these
        ImportError: h5py is not installed
        FileNotFoundError: there is no such file

    Example:
        >>> import numpy as np
        >>> from fastnn import Sequential
        >>> from fastnn.applications import load_keras
        >>> from fastnn.layers import Dense
        >>> model = Sequential([Dense(2, input_shape=(3,), name="fc")])
        >>> load_keras(model, {"fc/kernel": np.arange(6.0).reshape(3, 2), "fc/bias": np.ones(2)})
        >>> model.predict(np.eye(3), verbose=0)
        array([[1., 2.],
               [3., 4.],
               [5., 6.]], dtype=float32)
    """
    what = "load_keras"
    model._built()
    known = read(what, source)
    start = f"{model.name}."
    ours = {layer.name.removeprefix(start): layer for layer in keras_order(model.network) if layer.weights}
    called = {name.replace(".", "_"): name for name in ours if name.replace(".", "_") not in ours} | _vgg_names(ours)
    back = {ours_: theirs for theirs, ours_ in called.items()}
    passed = [skip] if isinstance(skip, str) else list(skip)

    def kept(*names: str | None) -> bool:
        return not any(name == each or f"{name}".startswith(f"{each}.") for name in names if name for each in passed)

    ours = {name: layer for name, layer in ours.items() if kept(name, back.get(name))}
    given = [each for each in known.layers if kept(each.name, called.get(each.name))]
    pairs = _paired(what, model, ours, known._replace(layers=given), called)
    weights: dict[str, Weight] = {}
    arrays: dict[str, np.ndarray] = {}
    times: Counter[str] = Counter()
    for layer, each in pairs:
        name = each.name if each else layer.name.removeprefix(start) if layer else ""
        times[name] += 1
        if times[name] > 1:
            name = f"{name} ({times[name]})"
        expected = {w.name.rpartition(".")[2]: w for w in layer.weights} if layer else {}
        found = each.weights if each else {}
        if set(found) != set(expected) and len(found) == len(expected):  # known by their order alone
            found = dict(zip(expected, found.values(), strict=True))
        weights |= {f"{name}/{key}": weight for key, weight in expected.items()}
        arrays |= {f"{name}/{key}": numbers(what, f"{name}/{key}", array) for key, array in found.items()}
    check_fit(what, model, {name: weight.shape for name, weight in weights.items()}, arrays)
    for name, weight in weights.items():
        weight.assign(arrays[name])


def _vgg_names(ours: dict[str, Layer]) -> dict[str, str]:
    """Names by those of Keras's version, if these are the layers of a VGG."""
    for convolutions in CONVOLUTIONS.values():
        names, number = {}, 0
        for block, times in enumerate(convolutions, start=1):
            for index in range(1, times + 1):
                names[f"block{block}_conv{index}"] = f"features.{number}"
                number += 2
            number += 1
        if set(names.values()) == {name for name in ours if name.startswith("features.")}:
            return names | DENSE
    return {}


def _paired(what: str, model: Model, ours: dict[str, Layer], source: Source, called: dict[str, str]) -> list[Pair]:
    """Which layers belong together; None where there is none."""
    made_up = re.compile(
        rf"({'|'.join({re.escape(plain_name(type(layer).__name__)) for layer in ours.values()})})(_\d+)?"
    )
    theirs: dict[str, list[Given]] = {}
    for given in source.layers:
        theirs.setdefault(called.get(given.name, given.name), []).append(given)
    agreeing = [name for name in ours if len(theirs.get(name, [])) == 1 and not made_up.fullmatch(name)]
    pairs: list[Pair] = [(ours[name], theirs[name][0]) for name in agreeing]
    left = {name: layer for name, layer in ours.items() if name not in agreeing}
    rest = [given for given in source.layers if called.get(given.name, given.name) not in agreeing]
    if agreeing:
        pairs += [(layer, None) for name, layer in left.items() if not made_up.fullmatch(name)]
        pairs += [(None, given) for given in rest if not made_up.fullmatch(given.name)]
        left = {name: layer for name, layer in left.items() if made_up.fullmatch(name)}
        rest = [given for given in rest if made_up.fullmatch(given.name)]
    branched = source.nested and not model.network.chain and left and rest
    if branched or (not agreeing and len(left) != len(rest)):
        raise ValueError(
            f"{what}: layers are paired by name, or by order if no names agree and there are as many, not in models "
            f"within a graph. Received: {len(rest)} layers with weights ({_some(given.name for given in rest)}) "
            f"for the {len(left)} of {model.name} ({_some(left)})"
        )
    if source.ordered:
        return pairs + list(zip_longest(left.values(), rest))
    if source.nested and rest:
        raise ValueError(
            f"{what}: the order of layers of models within models is not known from a file of weights: give the Keras "
            f"model, or name its layers as those of {model.name}. Received: {_some(given.name for given in rest)}"
        )
    kinds: dict[str, list[Given]] = {}
    for given in rest:
        kinds.setdefault(given.kind, []).append(given)
    for layer in left.values():
        same = kinds.get(plain_name(type(layer).__name__))
        pairs.append((layer, same.pop(0) if same else None))
    return pairs + [(None, given) for same in kinds.values() for given in same]


def _some(names: Any) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (" ..." if len(listed) > 3 else "")


def keras_order(network: Network) -> list[Layer]:
    """The layers as ``layers`` of the same model in Keras has them: the farther from the outputs, the earlier."""
    maker = {id(tensor): call for call in network.calls for tensor in call.outputs}
    maker |= {id(tensor): call for tensor, call in zip(network.inputs, network.calls, strict=False)}
    found: dict[Layer, int] = {}
    done: dict[int, None] = {}
    calls = {id(call): call for call in network.calls}

    def before(call: Any) -> Iterator[Any]:
        return iter([maker[id(tensor)] for tensor in call.inputs] if call.inputs else [])

    for tensor in network.outputs:
        waiting: list[tuple[Any, Iterator[Any]]] = []
        enter = maker[id(tensor)]
        while enter is not None or waiting:
            if enter is not None and id(enter) not in done:
                found.setdefault(enter.layer, len(found))
                waiting.append((enter, before(enter)))
            if not waiting:
                break
            enter = next(waiting[-1][1], None)
            if enter is None:
                done[id(waiting.pop()[0])] = None
    depth: dict[int, int] = {}
    deepest: dict[Layer, int] = {}
    for key in reversed(done):
        call = calls[key]
        depth[key] = deepest[call.layer] = max(depth.get(key, 0), deepest.get(call.layer, 0))
        for earlier in before(call):
            depth[id(earlier)] = max(depth.get(id(earlier), 0), depth[key] + 1)
    return sorted(found, key=lambda layer: (-deepest[layer], found[layer]))
