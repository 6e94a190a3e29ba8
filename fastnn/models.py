"""Sequential and Model: layers with weights, compiled, trained, asked.

Names and meaning are Keras's; one difference by choice: ``validation_split`` shuffles (with the seed) before it splits.
"""

from __future__ import annotations

import copyreg
import logging
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np

from fastnn import config, metrics, optimizers
from fastnn.asking import asking_plan, prediction, within_memory
from fastnn.compiling import checked_recompute
from fastnn.configurable import describe, restore, whole
from fastnn.ends import Side, flatten, in_form
from fastnn.graph import Tensor
from fastnn.layers import LAYERS, Layer
from fastnn.layers.base import Training, check_name, outermost, unique_name
from fastnn.layers.core import InputLayer
from fastnn.layers.weight import Trained, Version, Weight, assign_all
from fastnn.network import Network, described
from fastnn.objectives import Objectives
from fastnn.plan import Plan, aligned, zeros
from fastnn.steps import TrainStep
from fastnn.summary import summary
from fastnn.training import Trainable
from fastnn.updating import Layout

logger = logging.getLogger(__name__)

#: What a class that is not found should have been.
OF_LAYERS = "layer (fastnn.layers.register lets files name classes of your own)"


class Model(Trainable):
    """A network from input Tensors to output Tensors.

    Called on a Tensor (or a list or dict of them), a model repeats its layers there: so models are parts of models, and
    share their weights.

    Args:
        inputs: Tensor from ``Input``, or a list or dict of such; any Tensor made by layers will do, too
        outputs: Tensor made from them by layers, or a list or dict of such
        name: made up if None

    Attributes:
        layers: the layers in the order of the data
        inputs, outputs: the Tensors, as they were given
        input_shape, output_shape: shapes with None for the batch, in the same form
        optimizer, loss, metric_objects: what ``compile`` was given, as objects
        stop_training: set to True, training ends after the current epoch
        preprocessing: what turns raw rows into inputs; saved with the model

    Raises:
        ValueError: outputs need an input that is not given, an input leads to no output, two layers have one name

    Example:
        >>> from fastnn.layers import Dense, Input
        >>> x = Input(shape=(4,))
        >>> model = Model(x, Dense(1)(Dense(8, activation="relu")(x)))
        >>> model.output_shape
        (None, 1)
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None) -> None:
        self._start(name)
        self._link(inputs, outputs)

    def _start(self, name: str | None) -> None:
        self.name = unique_name(type(self).__name__) if name is None else check_name(type(self).__name__, name)
        self.dtype = config.floatx()
        self.seed = config.next_seed()
        self.preprocessing: Any = None
        self._layers: list[Layer] = []
        self.input_side, self.output_side = Side(), Side()
        self._start_training()

    def _link(self, inputs: Any, outputs: Any) -> None:
        """Find the layers between Tensors and give their weights a place."""
        self.network = Network(type(self).__name__, inputs, outputs)
        self._layers = self.network.layers
        self.input_side, self.output_side = self.network.sides()
        self.input_shape = self.input_side.join(self.input_side.shapes)
        self.output_shape = self.output_side.join(self.output_side.shapes)
        self._place_weights()

    @property
    def inputs(self) -> Any:
        """The input Tensors, in the form in which they were given."""
        self._built()
        return in_form(self.network.input_form, self.network.inputs)

    @property
    def outputs(self) -> Any:
        """The output Tensors, in the form in which they were given."""
        self._built()
        return in_form(self.network.output_form, self.network.outputs)

    def _place_weights(self) -> None:
        """One flat vector for the weights that have no place yet, drawn from this model's seed."""
        size, new, taken = 0, [], set()
        for layer in self._layers:
            layer.name_weights()
        names = Counter(w.name for w in dict.fromkeys(weight for layer in self._layers for weight in layer.weights))
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f"{type(self).__name__}: weights must have different names. Twice: {', '.join(twice)}")
        for trainable in (True, False):  # side by side, what is trained is updated in one pass
            for number_, layer in enumerate(self._layers):
                for index, weight in enumerate(layer.weights):
                    if weight.tensor.place is not None and weight.tensor.place.buffer:
                        taken.add(weight.tensor.place.buffer)
                    elif weight.trainable is trainable:
                        new.append((weight, size, [self.seed, 2, number_, index]))
                        size += aligned(weight.size)
        vector, buffer, version = zeros(size, self.dtype), f"{self.name}.weights", Version()
        while buffer in taken:  # layers were added to a model that had its weights
            buffer += "+"
        for weight, offset, key in new:
            drawn = weight.vector is not None  # by calling the layer on an array
            value = weight.value if drawn else weight.initializer(weight.shape, np.random.default_rng(key))
            weight.put(vector, buffer, offset, version)
            weight.assign(value)
        vectors = self.vectors()
        if any(vectors[w.tensor.place.buffer] is not w.vector for w in self.weights if w.tensor.place):
            raise ValueError(f"{type(self).__name__}: layers come from two models that are both named {self.name!r}")

    # ------------------------------------------------------------------ parts

    def _built(self) -> None:
        """Make sure that the layers have their weights."""

    @property
    def layers(self) -> list[Layer]:
        """The layers, without the input."""
        return [layer for layer in self._layers if not isinstance(layer, InputLayer)]

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer with that name or number."""
        if index is not None:
            return self.layers[index]
        layers = list(dict.fromkeys([*self.layers, *self._layers]))
        for layer in layers:
            if layer.name == name:
                return layer
        known = ", ".join(layer.name for layer in layers)
        raise ValueError(f"get_layer: name must be one of {known}. Received: name={name!r}")

    @property
    def trainable(self) -> bool:
        """Whether any layer is trained. Set, it sets that of all layers."""
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = bool(value)

    @property
    def weights(self) -> list[Weight]:
        """All weights, layer after layer."""
        self._built()
        return list(dict.fromkeys(weight for layer in self._layers for weight in layer.weights))

    @property
    def trainable_weights(self) -> list[Weight]:
        """The weights that training changes."""
        self._built()
        return list(dict.fromkeys(weight for layer in self._layers for weight in layer.trainable_weights))

    def vectors(self) -> dict[str, np.ndarray]:
        """The flat vectors of weights by buffer name."""
        return {w.tensor.place.buffer: w.vector for w in self.weights if w.tensor.place and w.vector is not None}

    def count_params(self) -> int:
        """Number of weights."""
        return sum(weight.size for weight in self.weights)

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all weights, in Keras's order: layer after layer, kernel before bias."""
        return [weight.value.copy() for weight in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Overwrite all weights; shapes are checked before anything is changed."""
        assign_all(self.weights, weights, self.name)

    def trace(self, inputs: Sequence[Tensor], training: Training | None) -> list[Tensor]:
        """Record the layers' ops from these inputs on; returns the outputs."""
        self._built()
        return self.network.trace(inputs, training)

    def _repeat(self, x: Any) -> Any:
        """The outputs of the layers called again on other Tensors."""
        self._built()
        network, (given, form) = self.network, flatten(x)
        names = network.input_form
        if isinstance(names, tuple) and isinstance(form, tuple) and set(form) == set(names):
            given = [x[name] for name in names]
        elif len(given) != len(network.inputs) or isinstance(form, tuple):
            raise ValueError(
                f"{self.name}: takes {len(network.inputs)} Tensors, as {self.input_shape}. Received: {x!r}"
            )
        for tensor, own in zip(given, network.inputs, strict=True):
            if not isinstance(tensor, Tensor) or tensor.shape[1:] != own.shape[1:]:
                raise ValueError(f"{self.name}: takes Tensors of shape {self.input_shape}. Received: {x!r}")
        return in_form(network.output_form, network.repeat(given))

    # ------------------------------------------------------------------ describing

    def plan(self, training: bool = True, batch_size: int | None = None) -> Plan:
        """The Plan of a training step, or of prediction; print it to see what runs.

        ``batch_size`` is 32 in training if None, and in prediction as many rows as ``predict`` takes at a time.
        """
        batch = None if batch_size is None else whole("plan", "batch_size", batch_size)
        self._built()
        if not training:
            roots = prediction(self)
            make = partial(asking_plan, self, roots, name="prediction")
            return within_memory(make) if batch is None else make(batch)
        self._compiled()
        return TrainStep(self, batch or 32).plan

    def summary(self, print_fn: Callable[[str], Any] | None = None) -> None:
        """Print a table of the layers: name, output shape, number of weights, bytes of the output for one row; and,
        unless each layer takes the output of the one before, what it takes.
        """
        self._built()
        text = summary(self)
        if print_fn is None:
            sys.stdout.write(text + "\n")
        else:
            print_fn(text)

    def get_config(self) -> dict[str, Any]:
        """The architecture as JSON-able data; ``model_from_config`` reads it."""
        self._built()
        return {
            "class": "Model",
            "config": {
                "name": self.name,
                "dtype": self.dtype,
                "layers": [describe(layer) for layer in self._layers],
                **self.network.describe(),
            },
        }

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that training changes: arrays by name, and JSON-able data. ``restore`` reads them."""
        arrays = {weight.name: weight.value for weight in self.weights}
        data: dict[str, Any] = {"seed": self.seed, "epochs": self._epochs, "frozen": self._frozen_parts()}
        if self._optimizer is not None and self._objectives is not None:
            asked = self._objectives.asked
            named = [
                [m for m in each if isinstance(m, str | metrics.Metric) and not isinstance(m, metrics.FunctionMetric)]
                for each in asked
            ]
            if named != asked:
                logger.warning("%s: metrics that are functions are not saved", self.name)
            several = self.output_side.form is not None
            data["compile"] = {
                "optimizer": describe(self._optimizer),
                **self._objectives.describe(named, several=several),
            }
            if self.recompute is not None:
                data["compile"]["recompute"] = self.recompute
            data["iterations"] = self._optimizer.iterations
            layout = Layout.of(self.trainable_weights)
            if self._slot_vectors is not None and self._optimizer.iterations:
                for slot, vector in zip(self._optimizer.slots, self.slots_for(layout), strict=True):
                    for weight, offset in zip(layout.weights, layout.offsets, strict=True):
                        part = vector[offset : offset + weight.size].reshape(weight.shape)
                        arrays[f"optimizer.{slot}.{weight.name}"] = part
        return arrays, data

    def _trained_parts(self) -> dict[str, dict[str, Trained]]:
        """By name: the layers that have weights, also those inside of others, and the weights."""
        parts = (named for layer in self._layers for named in layer.named_parts())
        return {
            "layers": {name: part for name, part in parts if part.weights},
            "weights": {weight.name: weight for weight in self.weights},
        }

    def _frozen_parts(self) -> dict[str, list[str]]:
        """The names of those that are not trainable."""
        known = self._trained_parts().items()
        return {kind: [name for name, part in parts.items() if not part.trainable] for kind, parts in known}

    def _freeze(self, what: str, frozen: Any) -> None:
        """Make these layers and weights not trainable, and all others trainable."""
        known = self._trained_parts()
        for kind, names in known.items():
            given = frozen.get(kind) if isinstance(frozen, Mapping) and set(frozen) == set(known) else None
            if not isinstance(given, list) or not all(isinstance(name, str) and name in names for name in given):
                raise ValueError(f"{what}: frozen must list layers and weights. Received: {frozen!r:.200}")
        for kind, names in known.items():
            for name, part in names.items():
                part.trainable = name not in frozen[kind]

    def _check_arrays(self, what: str, arrays: Mapping[str, np.ndarray], trained: dict[str, Any]) -> None:
        """ValueError unless these are all weights, and all or none of the optimizer's arrays."""
        expected: dict[str, Any] = {weight.name: weight.shape for weight in self.weights}
        if any(name.startswith("optimizer.") for name in arrays):
            expected |= trained
        if set(arrays) != set(expected):
            missing, extra = sorted(set(expected) - set(arrays)), sorted(set(arrays) - set(expected))
            raise ValueError(f"{what}: its arrays do not fit the model: missing {missing}, not expected {extra}")
        for name, shape in expected.items():
            if arrays[name].shape != shape or arrays[name].dtype != np.dtype(self.dtype):
                raise ValueError(
                    f"{what}: {name} must be {self.dtype} of shape {shape}. "
                    f"Received: {arrays[name].dtype} of shape {arrays[name].shape}"
                )

    def restore(self, arrays: Mapping[str, np.ndarray], data: Mapping[str, Any]) -> None:
        """Take over what ``state`` gave. Names, shapes and values are checked before anything is changed."""
        what = "model file"
        known = {"seed", "epochs", "frozen", "compile", "iterations"}
        if not isinstance(data, Mapping) or not {"seed", "epochs"} <= set(data) <= known:
            raise ValueError(f"{what}: state must have seed and epochs, and may have {sorted(known)}")
        seed, epochs = whole(what, "seed", data["seed"], low=0), whole(what, "epochs", data["epochs"], low=0)
        if seed >= 2**64:
            raise ValueError(f"{what}: seed must be below 2**64. Received: {seed}")
        optimizer, objectives = self._optimizer, self._objectives
        recompute = self.recompute
        if "compile" in data:
            optimizer, objectives = _settings(data["compile"], what)
            recompute = checked_recompute(what, data["compile"].get("recompute"))
            objectives.check(self.output_side)
            iterations = whole(what, "iterations", data.get("iterations", 0), low=0)
            if iterations >= 2**62:
                raise ValueError(f"{what}: iterations must be below 2**62. Received: {iterations}")
            optimizer.iterations = iterations
        elif "iterations" in data:
            raise ValueError(f"{what}: iterations without compile")
        slots = optimizer.slots if optimizer is not None else ()
        before = self._frozen_parts()
        self._freeze(what, data.get("frozen", before))
        layout = Layout.of(self.trainable_weights)
        trained = {f"optimizer.{slot}.{w.name}": w.shape for slot in slots for w in layout.weights}
        try:
            self._check_arrays(what, arrays, trained)
        except ValueError:
            self._freeze(what, before)
            raise
        self._optimizer, self._objectives = optimizer, objectives
        self.recompute = recompute
        self._clear()
        self.seed, self._epochs = seed, epochs
        for weight in self.weights:
            weight.assign(arrays[weight.name])
        if slots and set(trained) <= set(arrays):
            for slot, vector in zip(slots, self.slots(layout), strict=True):
                for weight, offset in zip(layout.weights, layout.offsets, strict=True):
                    vector[offset : offset + weight.size] = arrays[f"optimizer.{slot}.{weight.name}"].reshape(-1)

    def save(self, path: Any, *, allow_nonfinite: bool = False) -> None:
        """Write the model to one file: architecture, weights, optimizer, preprocessing. See ``fastnn.saving``."""
        from fastnn.saving import save_model

        save_model(self, path, allow_nonfinite=allow_nonfinite)

    def _asked(self) -> list[list[Any]]:
        """The metrics as they were asked for, also those that are not saved."""
        return [] if self._objectives is None else self._objectives.asked

    def __reduce__(self) -> tuple[Any, ...]:
        """For ``copy`` and ``pickle``: a new model of the same architecture, state and preprocessing."""
        return _revived, (self.get_config(), self.state(), self._asked(), self.preprocessing)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Sequential(Model):
    """Layers one after the other.

    Args:
        layers: list of layers; the first has an ``input_shape``, or is ``Input(shape)``, or the shape is that of the
            first data

    Example:
        >>> from fastnn.layers import Dense
        >>> model = Sequential([Dense(64, activation="relu", input_shape=(30,)), Dense(1, activation="sigmoid")])
        >>> model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
        >>> model.count_params()
        2049
    """

    def __init__(self, layers: Sequence[Any] | None = None, name: str | None = None) -> None:
        self._start(name)
        self._stack: list[Layer | Model] = []
        self._linked = False
        for layer in layers or []:
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Put a layer on top."""
        if isinstance(layer, Tensor) and layer.source is not None and not layer.source.inputs:
            layer = layer.source.layer
        if not isinstance(layer, Layer | Model):
            raise ValueError(f"Sequential: takes layers. Received: {layer!r}")
        if getattr(layer, "several", False):
            raise ValueError(f"Sequential: takes layers of one input. Received: {layer!r}, which takes several")
        if isinstance(layer, Model):
            layer._built()
            network = layer.network
            if network.input_form is not None or network.output_form is not None:
                raise ValueError(f"Sequential: takes models of one input and one output. Received: {layer!r}")
        if isinstance(layer, InputLayer) and self._stack:
            raise ValueError("Sequential: Input must come first. Received: Input after other layers")
        if layer in self._stack:
            raise ValueError(f"Sequential: each layer can be in it once. Received: {layer.name} again")
        self._stack.append(layer)
        self._unlink()

    def pop(self) -> Layer | Model:
        """Take the last layer off."""
        if not self._stack:
            raise ValueError("Sequential: has no layer to pop. Received: an empty model")
        self._unlink()
        return self._stack.pop()

    def _unlink(self) -> None:
        self._linked = False
        self.__dict__.pop("input_shape", None)  # asked for, they are found out again
        self.__dict__.pop("output_shape", None)
        self._clear()

    def build(self, input_shape: Sequence[int | None] | None = None) -> None:
        """Make the weights. ``input_shape`` has the batch axis (None) first, as in Keras."""
        if self._linked:
            return
        if not self._stack:
            raise ValueError("Sequential: needs at least one layer. Received: an empty model")
        first = self._stack[0]
        shape = first.input_shape[1:] if isinstance(first, Model) else first.input_shape
        if shape is None and input_shape is not None:
            shape = tuple(int(s) for s in input_shape[1:] if s is not None)
        if shape is None:
            raise ValueError(
                f"{self.name}: the shape of the input is not known yet: give the first layer an input_shape, start "
                "with Input(shape), or call the model on data"
            )
        entry = first if isinstance(first, InputLayer) else InputLayer(shape, name=f"{self.name}_input")
        x = entry.tensor()
        y = x
        with outermost():
            for layer in self._stack[1:] if isinstance(first, InputLayer) else self._stack:
                y = layer(y)
        if y is x:
            raise ValueError("Sequential: needs a layer besides Input. Received: Input only")
        self._linked = True
        try:
            self._link(x, y)
        except ValueError:
            self._linked = False
            raise

    def _built(self) -> None:
        self.build()

    def _build_for(self, rows: np.ndarray) -> None:
        self.build((None, *rows.shape[1:]))

    @property
    def layers(self) -> list[Any]:
        """The layers and models, without the input; with their weights, if the shape of the input is known."""
        found = [layer for layer in self._stack if not isinstance(layer, InputLayer)]
        if found and self._stack[0].input_shape is not None:
            self.build()
        return found

    def get_config(self) -> dict[str, Any]:
        """The architecture as JSON-able data; ``model_from_config`` reads it."""
        self._built()
        if any(isinstance(layer, Model) for layer in self._stack):
            return super().get_config()
        return {
            "class": "Sequential",
            "config": {
                "name": self.name,
                "dtype": self.dtype,
                "input_shape": list(self.input_shape[1:]),
                "layers": [describe(layer) for layer in self.layers],
            },
        }

    @classmethod
    def from_config(cls, description: Mapping[str, Any]) -> Self:
        """A new model with the architecture that ``get_config`` gave, and new weights."""
        model = model_from_config(description)
        if not isinstance(model, cls):
            raise ValueError(f"{cls.__name__}: the description is of a {type(model).__name__}")
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._linked and (not self._stack or self._stack[0].input_shape is None):
            return copyreg.__newobj__, (type(self),), self.__dict__  # type: ignore[attr-defined]
        return super().__reduce__()

    def __getattr__(self, name: str) -> Any:
        if name in ("input_shape", "output_shape") and not self.__dict__.get("_linked", True):
            self.build()
            return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def model_from_config(description: Mapping[str, Any], most_weights: int | None = None) -> Model:
    """A new model with a described architecture. Everything in the description is checked: it may come from a file.

    Args:
        description: {"class": ..., "config": ...}
        most_weights: with more weights than this the model is refused before anything is allocated for them

    Raises:
        ValueError: it is not what ``get_config`` of a Sequential or Model gives
    """
    what = "architecture"
    if not isinstance(description, Mapping) or set(description) != {"class", "config"}:
        raise ValueError(f"{what}: must have class and config. Received: {description!r}"[:300])
    kind, settings = description["class"], description["config"]
    keys = {
        "Sequential": {"name", "dtype", "input_shape", "layers"},
        "Model": {"name", "dtype", "layers", "calls", "inputs", "outputs"},
    }
    if kind not in keys or not isinstance(settings, Mapping) or set(settings) != keys[kind]:
        raise ValueError(f"{what}: must be that of a Sequential or a Model with all its parts. Received: {kind!r}")
    if not isinstance(settings["layers"], list) or len(settings["layers"]) > 10_000:
        raise ValueError(f"{what}: layers must be a list of at most 10000")
    before = config.floatx()
    config.set_floatx(settings["dtype"])
    try:
        layers = [restore(layer, LAYERS, OF_LAYERS) for layer in settings["layers"]]
        name = check_name(what, settings["name"])
        if kind == "Sequential":
            layers.insert(0, InputLayer(settings["input_shape"], name=f"{name}_input"))
            tensor = layers[0].tensor()
            for layer in layers[1:]:
                tensor = layer(tensor)  # declares the weights
        by_name = {layer.name: layer for layer in layers}
        ends = None if kind == "Sequential" else described(what, settings, by_name)
        size = sum(layer.count_params() for layer in layers)
        if most_weights is not None and size > most_weights:
            raise ValueError(f"{what}: must have at most {most_weights} weights. Received: {size}")
        if ends is not None:
            return Model(*ends, name=name)
        model = Sequential(layers, name=name)
        model.build()
        return model
    finally:
        config.set_floatx(before)


def check_restorable(architecture: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """ValueError if a description names a class that a model file may not name, such as one of the user's own."""
    for layer in architecture["config"]["layers"]:
        restore(layer, LAYERS, OF_LAYERS)
    if "compile" in state:
        _settings(state["compile"], "state")


def _settings(compiled: Any, what: str) -> tuple[optimizers.Optimizer, Objectives]:
    """The optimizer, the losses and the metrics that ``Model.state`` described."""
    keys = {"optimizer", "loss", "metrics"}
    if not isinstance(compiled, Mapping) or set(compiled) - {"loss_weights", "recompute"} != keys:
        raise ValueError(f"{what}: compile must have optimizer, loss and metrics")
    if not isinstance(compiled["metrics"], list):
        raise ValueError(f"{what}: metrics must be a list")
    optimizer = restore(compiled["optimizer"], optimizers.OPTIMIZERS, "optimizer")
    return optimizer, Objectives.described(compiled, what)


def _revived(architecture: Mapping[str, Any], state: Any, asked: list[list[Any]], preprocessing: Any) -> Model:
    """What ``copy`` and ``pickle`` make of the parts of a model."""
    model = model_from_config(architecture)
    model.restore(*state)
    model.preprocessing = preprocessing
    if model._objectives is not None:
        model._objectives.asked = [list(each) for each in asked]
    return model


def load_model(path: Any, *, allow_nonfinite: bool = False) -> Model:
    """Read a model that ``save`` wrote. See ``fastnn.saving.load_model``."""
    from fastnn.saving import load_model as load

    model: Model = load(path, allow_nonfinite=allow_nonfinite)
    return model


__all__ = ["Model", "Sequential", "load_model", "model_from_config"]
