"""What a layer is: arguments stored, weights declared in ``build``, ops called in ``call``."""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np

from fastnn import config, initializers, regularizers
from fastnn.configurable import Configurable, whole
from fastnn.graph import Node, Tensor, computing
from fastnn.layers.weight import Trained, Version, Weight, assign_all

#: The flag of code with ``**arguments``; the module inspect, which has it, too, is slow to import.
CO_VARKEYWORDS = 8

#: Lists and dicts in attributes of a layer hold others so deep, and of so many entries, in which there may be layers.
DEEPEST, MOST = 4, 100

_names: Counter[str] = Counter()
_calls = itertools.count()


class Training:
    """What layers that act in training only need to know: the seed, the step's number, who draws.

    Attributes:
        updates: nodes that change weights in place, such as moving averages; they become part of the step
    """

    def __init__(self, seed: int, step: Any) -> None:
        self.seed, self.step = seed, step
        self.streams = itertools.count()
        self.updates: list[Node] = []


class _Current(threading.local):
    training: Training | None = None
    depth = 0  # 1 while a layer is being called


_current = _Current()


@contextmanager
def within(training: Training | None, depth: int = 1) -> Iterator[None]:
    """Layers that are called inside of others get this, unless they are told otherwise."""
    before = _current.training, _current.depth
    _current.training, _current.depth = training, depth
    try:
        yield
    finally:
        _current.training, _current.depth = before


def outermost() -> Any:
    """Layers are called as if no layer were around them: for a model that is built inside of one."""
    return within(None, 0)


class Call:
    """A layer applied to Tensors, by which a Model finds its way back.

    Attributes:
        layer: the layer
        inputs: tuple of Tensors; none where data enters
        several: whether they were passed as a list
        outputs: tuple of Tensors
        order: calls made later have larger numbers
    """

    __slots__ = ("layer", "inputs", "several", "outputs", "order")

    def __init__(self, layer: Layer, inputs: Sequence[Tensor], several: bool, outputs: Sequence[Tensor]) -> None:
        self.layer, self.inputs, self.several, self.outputs = layer, tuple(inputs), several, tuple(outputs)
        self.order = next(_calls)
        for tensor in outputs:
            tensor.source = self


class Layer(Configurable, Trained):
    """Base class of layers.

    A layer's constructor stores its arguments; ``build(shape)`` declares weights with ``add_weight``; ``call(x)``
    computes with ``fastnn.ops``, Python's operators and other layers. On a Tensor the call records a graph, whose
    gradients follow by themselves; on an array it computes at once, so that a layer can be stepped through in a
    debugger. Layers and models that are attributes, or in lists or dicts that are, are parts of the layer: their
    weights are its own, too. ``training``, which ``call`` need not take, is None but in training.

    A layer of which ``several`` is True is called on a list of Tensors or arrays, and so are its ``build`` (on a list
    of shapes) and ``call``. ``call`` may return a list of outputs.

    Models with layers of your own are saved and loaded if these are registered: ``fastnn.layers.register``.

    Args:
        input_shape: sizes of one row without the batch axis, for the first layer of a Sequential
        name: unique within a model; made from the class's name if None
        trainable: whether training changes the weights

    Example:
        Root mean square normalization (Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467), and channels weighed
        by what is in them, "squeeze and excitation" (Hu et al. 2018, https://arxiv.org/abs/1709.01507):

        >>> import numpy as np
        >>> import fastnn
        >>> from fastnn import ops
        >>> from fastnn.layers import Conv2D, Dense, Layer
        >>> class RMSNorm(Layer):
        ...     def build(self, shape):
        ...         self.scale = self.add_weight("scale", (shape[-1],), "ones")
        ...     def call(self, x, training=None):
        ...         return x * ops.rsqrt(ops.mean(x * x, axis=-1, keepdims=True) + 1e-6) * self.scale
        >>> RMSNorm()(np.array([[3.0, 4.0]]))
        array([[0.8485281, 1.1313708]], dtype=float32)
        >>> class SqueezeExcitation(Layer):
        ...     def __init__(self, ratio=4, **arguments):
        ...         self.ratio = ratio
        ...         super().__init__(**arguments)
        ...     def build(self, shape):
        ...         self.squeeze = Dense(shape[-1] // self.ratio, activation="relu")
        ...         self.excite = Dense(shape[-1], activation="sigmoid")
        ...     def call(self, x, training=None):
        ...         return x * self.excite(self.squeeze(ops.mean(x, axis=(1, 2), keepdims=True)))
        >>> model = fastnn.Sequential([Conv2D(8, 3, input_shape=(16, 16, 1)), SqueezeExcitation(), RMSNorm()])
        >>> model.output_shape, [weight.shape for weight in model.layers[1].weights]
        ((None, 14, 14, 8), [(8, 2), (2,), (2, 8), (8,)])
    """

    parts: ClassVar[dict[str, Any]] = {
        "kernel_initializer": lambda: initializers.INITIALIZERS,
        "bias_initializer": lambda: initializers.INITIALIZERS,
        "kernel_regularizer": lambda: regularizers.REGULARIZERS,
        "bias_regularizer": lambda: regularizers.REGULARIZERS,
    }
    several: ClassVar[bool] = False

    def __init__(
        self, *, input_shape: Sequence[int] | None = None, name: str | None = None, trainable: bool = True
    ) -> None:
        self.input_shape = None if input_shape is None else check_shape(self._class, "input_shape", input_shape)
        self.name = unique_name(self._class) if name is None else check_name(self._class, name)
        self.trainable = trainable
        self._weights: list[Weight] = []
        self._earlier: list[Weight] = []  # declared before `build`, which may have been called by hand, or have failed
        self.built_for: Any = None

    @property
    def _class(self) -> str:
        return type(self).__name__

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON-able data; the name, too, if it is none of them."""
        return {**super().get_config(), "name": self.name}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The layer that ``get_config`` described.

        Raises:
            ValueError: a name is not an argument, or a value is not allowed
        """
        if not isinstance(config, Mapping) or "name" in cls.arguments():
            return super().from_config(config)
        layer = super().from_config({key: value for key, value in config.items() if key != "name"})
        if "name" in config:
            layer.name = check_name(cls.__name__, config["name"])
        return layer

    @property
    def sublayers(self) -> dict[str, Layer]:
        """The layers that are parts of this one, or of models that are, by the name of the attribute."""
        return {name: layer for attribute, value in vars(self).items() for name, layer in _layers_in(attribute, value)}

    @property
    def weights(self) -> list[Weight]:
        """The weights, in the order of their declaration, those of the layers inside after its own."""
        parts = self.sublayers
        if not parts:
            return self._weights
        inside = [weight for part in parts.values() for weight in part.weights]
        return list(dict.fromkeys([*self._weights, *inside]))

    @property
    def trainable_weights(self) -> list[Weight]:
        """Those that training changes."""
        if not self.trainable:
            return []
        own = [weight for weight in self._weights if weight.trainable]
        inside = [weight for part in self.sublayers.values() for weight in part.trainable_weights]
        return list(dict.fromkeys([*own, *inside]))

    @property
    def frozen(self) -> tuple[Any, ...]:
        """What ``trainable`` is, of this layer, its weights and the layers inside."""
        own = (weight.trainable for weight in self._weights)
        return (self.trainable, *own, *(part.frozen for part in self.sublayers.values()))

    def named_parts(self, name: str | None = None) -> Iterator[tuple[str, Layer]]:
        """This layer and those inside, with their names: those inside have them by way of the attributes."""
        name = name or self.name
        yield name, self
        for attribute, part in self.sublayers.items():
            yield from part.named_parts(f"{name}.{attribute}")

    def name_weights(self) -> None:
        """Give all weights a name that begins with that of the layer that has them."""
        for name, part in self.named_parts():
            for weight in part._weights:
                weight.name = f"{name}.{weight.local}"

    def build(self, shape: Any) -> None:
        """Declare the weights for inputs of this shape (the batch axis None). Raises ValueError if it cannot be."""

    def call(self, x: Any, training: Training | None = None) -> Any:
        """The output for ``x``, a Tensor or an array."""
        raise NotImplementedError

    def __call__(self, x: Any, training: Any = None) -> Any:
        """Apply the layer to a Tensor (from ``Input``) or an array of rows; to a list of them if it takes several."""
        given = self._given(x)
        symbolic = isinstance(given[0], Tensor)
        if not symbolic:
            given = [np.asarray(array, config.floatx()) for array in given]
        shapes = [tensor.shape if symbolic else (None, *tensor.shape[1:]) for tensor in given]
        try:
            self.prepare(shapes if self.several else shapes[0])
        except ValueError as error:
            if not (symbolic and self.several and all(tensor.source for tensor in given)):
                raise
            names = " and ".join(repr(tensor.source.layer.name) for tensor in given)
            raise ValueError(f"{error}, from {names}") from None
        arguments = given if self.several else given[0]
        if training is None or (symbolic and training is True):
            training = _current.training
        training = training or None
        if symbolic:
            result = self.trace(arguments, training)
            if _current.depth:  # the layer around it is what a model finds its way back by
                return result
            outputs = list(result) if isinstance(result, list | tuple) else [result]
            if not outputs or not all(isinstance(output, Tensor) for output in outputs):
                raise TypeError(f"{self.name}: call must return a Tensor, or a list of them. Received: {result!r:.200}")
            outputs = [
                Tensor(t.shape, node=t.node, place=t.place) if any(t is i for i in given) else t for t in outputs
            ]
            Call(self, given, self.several, outputs)
            return outputs if isinstance(result, list | tuple) else outputs[0]
        for weight in self._weights:
            if weight.vector is None:
                vector = weight.initializer(weight.shape, np.random.default_rng(config.next_seed()))
                weight.put(vector.astype(config.floatx()).reshape(-1), "", 0, Version())
        if training is True:
            training = Training(config.next_seed(), np.zeros(1, np.int64))
        with computing():
            return self.trace(arguments, training)

    def trace(self, x: Any, training: Training | None) -> Any:
        """``call``, in whose errors the layer is named, and of which the layers inside know that it is training."""
        with within(training):
            try:
                return self.call(x, training=training) if _takes(self.call, "training") else self.call(x)
            except (ValueError, TypeError) as error:
                if type(error) not in (ValueError, TypeError) or str(error).startswith(f"{self.name}: "):
                    raise
                raise type(error)(f"{self.name}: {error}") from error

    def _given(self, x: Any) -> list[Any]:
        """The inputs as a list, all Tensors or all something else."""
        listed = isinstance(x, list | tuple) and any(isinstance(each, Tensor) for each in x)
        if not self.several:
            if listed:
                raise ValueError(f"{self.name}: {self._class} takes one Tensor or array. Received: {len(x)} in a list")
            return [x]
        if not isinstance(x, list | tuple) or not x:
            raise ValueError(f"{self.name}: {self._class} takes a list of Tensors or arrays. Received: {x!r}"[:300])
        if listed and not all(isinstance(each, Tensor) for each in x):
            raise ValueError(f"{self.name}: takes Tensors or arrays, not both. Received: {x!r}"[:300])
        return list(x)

    def prepare(self, shape: Any) -> None:
        """Build once; afterwards check that the rows still have the shape (the shapes, if there are several)."""
        if self.built_for is None:
            self._earlier = list(self._weights)
            self.build(shape)
            self.built_for = shape
        elif self._weights and shape != self.built_for:
            raise ValueError(f"{self.name}: was built for inputs of shape {self.built_for}. Received: shape {shape}")

    def add_weight(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: Any = "glorot_uniform",
        regularizer: Any = None,
        trainable: bool = True,
    ) -> Weight:
        """Declare a weight; ``self.weights`` keeps it.

        Raises:
            ValueError: the name has a dot, or another weight of the layer has it
        """
        again = [weight for weight in self._earlier if weight.local == name]
        self._weights = [weight for weight in self._weights if weight not in again]
        self._earlier = [weight for weight in self._earlier if weight not in again]
        if not name or "." in name or any(weight.local == name for weight in self._weights):
            raise ValueError(f"{self.name}: names of weights must differ and have no dots. Received: name={name!r}")
        weight = Weight(
            f"{self.name}.{name}", shape, initializers.get(initializer), regularizers.get(regularizer), trainable
        )
        self._weights.append(weight)
        return weight

    def read(self, weight: Weight, like: Any) -> Any:
        """The weight for use with ``like``: its Tensor beside a Tensor, its array beside an array."""
        return weight.tensor if isinstance(like, Tensor) else weight.value

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the weights, in the order of their declaration."""
        return [weight.value.copy() for weight in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Overwrite the weights; shapes are checked before anything is changed."""
        assign_all(self.weights, weights, self.name)

    def count_params(self) -> int:
        """Number of weights."""
        return sum(weight.size for weight in self.weights)

    def __repr__(self) -> str:
        return f"<{self._class} {self.name}>"


def _layers_in(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Layer]]:
    """The layers that an attribute of this name is or holds, with their names; tables of data are not searched."""
    if isinstance(value, Layer):
        yield name, value
    elif isinstance(value, list | tuple | dict):
        if depth and (depth == DEEPEST or len(value) > MOST):
            return
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(each, Layer | list | tuple | dict) or hasattr(each, "_layers"):
                yield from _layers_in(f"{name}.{key}", each, depth + 1)
    elif isinstance(getattr(value, "_layers", None), list):  # a model
        yield from ((f"{name}.{layer.name}", layer) for layer in value._layers)


def _takes(function: Any, argument: str) -> bool:
    """Whether a function in Python has an argument of that name, or takes any."""
    code = function.__code__
    named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return bool(code.co_flags & CO_VARKEYWORDS) or argument in named


def check_shape(what: str, name: str, shape: Any) -> tuple[int, ...]:
    """``shape`` as a tuple of positive ints."""
    if isinstance(shape, int) or not isinstance(shape, Sequence | np.ndarray) or isinstance(shape, str):
        raise ValueError(f"{what}: {name} must be a tuple of positive integers. Received: {name}={shape!r}")
    return tuple(whole(what, name, size) for size in shape)


def check_name(what: str, name: Any) -> str:
    """``name`` if it can name a layer."""
    if not isinstance(name, str) or not name or len(name) > 100 or "/" in name or not name.isprintable():
        raise ValueError(f"{what}: name must be a short text without '/', in one line. Received: name={name!r:.120}")
    return name


def plain_name(kind: str) -> str:
    """The name of a class as names of layers begin: ``dense``, ``conv2d_transpose``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", kind).lower()


def unique_name(kind: str) -> str:
    """``dense``, ``dense_1``, ...; ``conv2d_transpose``."""
    name = plain_name(kind)
    number = _names[name]
    _names[name] += 1
    return f"{name}_{number}" if number else name


def reset_names() -> None:
    """Start counting names anew."""
    _names.clear()
