"""What a model is compiled with, the Programs made of it, and what data must be like for it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastnn import callbacks as callbacks_
from fastnn import config, metrics, optimizers
from fastnn.configurable import whole
from fastnn.data import as_rows, check_rows, check_weights, joined_weights
from fastnn.ends import KINDS, Side, buffer_name
from fastnn.graph import Tensor
from fastnn.layers import Layer
from fastnn.layers.base import Training
from fastnn.layers.weight import Trained, Weight
from fastnn.objectives import Measure, Objectives, of_output
from fastnn.plan import zeros
from fastnn.sources import Parts, Wanted, unpack
from fastnn.updating import Layout

#: A model keeps so many Programs and what belongs to them.
PROGRAMS = 12

#: By the names of the engine's buffers: "x", "y", "weight", and "x1" ... where a model has several.
Arrays = dict[str, np.ndarray]


class Compiled:
    """A model and how it is to be trained: optimizer, loss, metrics, and what was made of them."""

    name: str
    dtype: str
    seed: int
    preprocessing: Any
    input_shape: Any
    output_shape: Any
    input_side: Side
    output_side: Side
    _layers: list[Layer]

    def _start_training(self) -> None:
        self.history: callbacks_.History | None = None
        self.stop_training = False
        self._optimizer: optimizers.Optimizer | None = None
        self._objectives: Objectives | None = None
        self.recompute: bool | int | None = None
        self._epochs = 0
        self._trained_by: int | None = None  # the process in which a fit is running; a forked child is free
        self._clear()

    def _clear(self) -> None:
        """Forget everything derived from layers and settings."""
        self._programs: dict[Any, Any] = {}
        self._frozen: tuple[Any, Any] = (None, None)  # when, and which layers were
        self._slot_vectors: tuple[Layout, list[np.ndarray]] | None = None
        self._answer: Any = None

    def _built(self) -> None:
        """Make sure that the layers have their weights."""

    def _build_for(self, rows: np.ndarray) -> None:
        """Make sure of it, the shape of the input being that of these rows if it is not known otherwise."""
        self._built()

    @property
    def weights(self) -> list[Weight]:
        """All weights, layer after layer."""
        raise NotImplementedError

    @property
    def trainable_weights(self) -> list[Weight]:
        """The weights that training changes."""
        raise NotImplementedError

    def trace(self, inputs: Sequence[Tensor], training: Training | None) -> list[Tensor]:
        """Record the layers' ops from these inputs on; returns the outputs."""
        raise NotImplementedError

    def _repeat(self, x: Any) -> Any:
        """The outputs of the layers called again on other Tensors."""
        raise NotImplementedError

    def vectors(self) -> dict[str, np.ndarray]:
        """The flat vectors of weights by buffer name."""
        raise NotImplementedError

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """The optimizer."""
        return self._compiled()[0]

    @property
    def objectives(self) -> Objectives:
        """The losses of the outputs, what each counts, and the metrics."""
        return self._compiled()[1]

    @property
    def loss(self) -> Any:
        """The loss; where there are several outputs, a list or dict of those of each, None for one without."""
        return self.output_side.join(self.objectives.losses)

    def _compiled(self) -> tuple[optimizers.Optimizer, Objectives]:
        if self._optimizer is None or self._objectives is None:
            raise RuntimeError(f"{self.name}: must be compiled first: model.compile(optimizer=..., loss=...)")
        return self._optimizer, self._objectives

    @property
    def measures(self) -> list[Measure]:
        """All that the logs have, in their order, once the shapes are known."""
        self._built()
        return self.objectives.measures(self.output_side)

    @property
    def metric_objects(self) -> list[metrics.Metric]:
        """The metrics, once the shapes are known; one output's after the other's."""
        return [measure.metric for measure in self.measures if measure.metric is not None]

    @property
    def metrics_names(self) -> list[str]:
        """Names of what ``evaluate`` returns."""
        return [measure.name for measure in self.measures]

    def slots(self, layout: Layout) -> list[np.ndarray]:
        """The optimizer's flat vectors for this layout, kept; zeros at first."""
        self._slot_vectors = layout, self.slots_for(layout)
        return self._slot_vectors[1]

    def slots_for(self, layout: Layout) -> list[np.ndarray]:
        """The same, not kept. What is known of a weight comes along when other weights are frozen or set free."""
        if self._slot_vectors is not None and self._slot_vectors[0] == layout:
            return self._slot_vectors[1]
        vectors = [zeros(layout.size, self.dtype) for _ in self.optimizer.slots]
        before, known = self._slot_vectors or (Layout([], [], 0), vectors)
        places = dict(zip(before.weights, before.offsets, strict=True))
        for weight, offset in zip(layout.weights, layout.offsets, strict=True):
            if weight in places:
                for vector, old in zip(vectors, known, strict=True):
                    part = slice(places[weight], places[weight] + weight.size)
                    vector[offset : offset + weight.size] = old[part]
        return vectors

    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        loss_weights: Any = None,
        recompute: bool | int | None = None,
    ) -> None:
        """Say how to train.

        Args:
            optimizer: name ("adam", "adamw", "sgd", "rmsprop") or Optimizer
            loss: name ("binary_crossentropy", "mse", "dice", ...) or Loss, also a sum of them
            metrics: names ("accuracy", "dice", ...), Metrics or functions ``f(y_true, y_pred)`` of two arrays, or one
            loss_weights: numbers that the losses are multiplied with before they are added; 1 if None
            recompute: what of the forward pass is computed again in the backward pass instead of being kept for it
                (gradient checkpointing). None for what takes next to no time, such as a normalization; a number of
                bytes for as little as is needed to train within so much memory, besides data, weights and the
                optimizer's; True for as little memory as is worth it; False for nothing. All results keep their bits.
                ``print(model.plan(batch_size=...))`` shows what is done again, and the bytes (as "arena")

        For a model with several outputs, ``loss``, ``metrics`` (then lists of such) and ``loss_weights`` are lists with
        one entry an output, or dicts by the outputs' names: the keys of the dict of outputs, or the names of the layers
        that make them. An output whose loss is None or missing is not trained on; a single loss or metric is for all.
        The logs have the weighted sum as "loss", and "<name>_loss" and "<name>_<metric>" of each output.

        Raises:
            ValueError: one of them is unknown, or of an output that is not there; the model stays as it was. Bytes
                that are too few for a batch are an error of ``fit``, which names the fewest possible

        Example:
            >>> import numpy as np
            >>> from fastnn import Model
            >>> from fastnn.layers import Dense, Input
            >>> x = Input((4,))
            >>> h = Dense(8, activation="relu")(x)
            >>> outputs = [Dense(1, activation="sigmoid", name="ill")(h), Dense(1, name="days")(h)]
            >>> model = Model(x, outputs)
            >>> model.compile("adam", {"ill": "binary_crossentropy", "days": "mse"}, {"ill": "accuracy"}, [1.0, 0.1])
            >>> history = model.fit(np.ones((8, 4)), {"ill": np.ones(8), "days": np.arange(8)}, verbose=0)
            >>> list(history.history)
            ['loss', 'ill_loss', 'days_loss', 'ill_accuracy']

            Two thirds of the memory:

            >>> from fastnn.applications import UNet
            >>> model = UNet((128, 128, 1), classes=1, base_filters=16, depth=3, batch_norm=True)
            >>> model.compile("adam", "dice", recompute=False)
            >>> kept = model.plan(batch_size=8)
            >>> model.compile("adam", "dice", recompute=4 * kept.arena_size * 2 // 3)
            >>> less = model.plan(batch_size=8)
            >>> less.arena_size <= kept.arena_size * 2 // 3, less.flops < 1.1 * kept.flops
            (True, True)
        """
        chosen = optimizers.get(optimizer)
        objectives = Objectives.of(self.output_side, loss, loss_weights, metrics)
        recompute = checked_recompute("compile", recompute)
        if self.dtype == "float64" and config.backend() != "numpy":
            raise ValueError(f"compile: float64 models need the numpy backend. Received: backend {config.backend()!r}")
        if chosen.owner is not None and chosen.owner() not in (None, self):
            raise ValueError(
                f"compile: each model needs an optimizer of its own. Received: the optimizer of {chosen.owner()!r}"
            )
        chosen.owner, chosen.iterations = weakref.ref(self), 0
        self._optimizer, self._objectives = chosen, objectives
        self.recompute = recompute
        self._clear()

    # ------------------------------------------------------------------ data and programs

    def _parted(self, what: str, x: Any, y: Any, sample_weight: Any, *, targets: bool) -> Parts:
        """What is given for each input, and for each output that has a loss, by the names of the engine's buffers."""
        inputs, outputs = self.input_side, self.output_side
        found = dict(zip(inputs.buffers("x"), inputs.split(what, "x", self._prepared(x)), strict=True))
        if not targets:
            return found
        if y is None:
            raise ValueError(f"{what}: y must be given. Received: y=None")
        ys = outputs.split(what, "y", y, some=True)
        weights: list[Any] = [sample_weight] * len(outputs)
        if isinstance(sample_weight, Mapping) or _one_each(sample_weight, len(outputs)):
            weights = outputs.split(what, "sample_weight", sample_weight, some=True)
        for number, loss in enumerate(self.objectives.losses):
            if loss is None:
                continue
            if ys[number] is None:
                raise ValueError(
                    f"{what}: {outputs.said('y', number)} must be given, because that output has a loss. Received: None"
                )
            found[buffer_name("y", number)] = ys[number]
            if weights[number] is not None:
                found[buffer_name("weight", number)] = weights[number]
        return found

    def _taken(self, label: str, item: Any, *, targets: bool) -> Parts:
        """The same of an item or a batch of data that are loaded."""
        return self._parted(label, *unpack(label, item, targets=targets, inputs=len(self.input_side)), targets=targets)

    def _wanted(self, what: str, class_weight: Any, *, targets: bool) -> Wanted:
        """What these must be like."""
        inputs, outputs = self.input_side, self.output_side
        checks, classes, regions = {}, {}, {}
        if targets:
            tables = self._class_weights(what, class_weight)
            for output, loss in enumerate(self.objectives.losses):
                if loss is not None:
                    name = buffer_name("y", output)
                    checks[name], classes[name] = partial(self._checked_targets, output), tables[output]
                    regions[name] = loss.regions
        return Wanted(
            partial(self._taken, targets=targets),
            self._said,
            dict(zip(inputs.buffers("x"), inputs.shapes, strict=True)),
            checks,
            classes,
            regions,
            self.dtype,
            plain=inputs.form is None and (not targets or outputs.form is None) and self.preprocessing is None,
        )

    def _checked_targets(self, output: int, y: np.ndarray) -> np.ndarray:
        return self.objectives.targets(self.output_side, output, y, self.dtype)

    def _said(self, name: str) -> str:
        """What users call the array in a buffer: ``y``, or ``y['mask']`` where there are several."""
        kind = name.rstrip("0123456789")
        side = self.input_side if kind == "x" else self.output_side
        return side.said(KINDS[kind], int(name[len(kind) :] or 0))

    def _class_weights(self, what: str, given: Any) -> list[Any]:
        """Those of each output."""
        outputs = self.output_side
        if given is None or outputs.form is None:
            return [given] * len(outputs)
        if len(outputs) > 1 and not (isinstance(given, Mapping) and set(given) <= set(outputs.names)):
            raise ValueError(
                f"{what}: class_weight must be a dict by the names of outputs {', '.join(outputs.names)}, of dicts by "
                f"classes. Received: class_weight={given!r}"
            )
        return outputs.split(what, "class_weight", given, some=True) if set(given) <= set(outputs.names) else [given]

    def _data(self, what: str, x: Any, y: Any, sample_weight: Any, class_weight: Any) -> Arrays:
        """Checked arrays: inputs, targets, weights of the rows or pixels."""
        outputs, parted = self.output_side, self._parted(what, x, y, sample_weight, targets=True)
        arrays = self._inputs_of(what, parted)
        rows, trained = len(arrays["x"]), {}
        for output, table in enumerate(self._class_weights(what, class_weight)):
            name, weight = buffer_name("y", output), buffer_name("weight", output)
            if name in parted:
                arrays[name] = as_rows(what, self._said(name), parted[name], self.dtype)
                self._same_rows(what, rows, name, arrays[name])
                with of_output(outputs, output):
                    trained[output] = check_weights(what, rows, parted.get(weight), table, self.dtype)
        arrays = self._fitting(what, arrays)
        for output, (given, classes) in trained.items():
            name, weight = buffer_name("y", output), buffer_name("weight", output)
            arrays[name] = self._checked_targets(output, arrays[name])
            with of_output(outputs, output):
                loss = self.objectives.losses[output]
                regions = loss is not None and loss.regions
                joined = joined_weights(what, arrays[name], given, classes, regions=regions)
            if joined is not None:
                arrays[weight] = joined
        return arrays

    def _same_rows(self, what: str, rows: int, name: str, array: np.ndarray) -> None:
        if len(array) != rows:
            raise ValueError(
                f"{what}: {self._said('x')} and {self._said(name)} must have the same number of rows. "
                f"Received: {rows} and {len(array)}"
            )

    def _inputs(self, what: str, x: Any) -> Arrays:
        """Checked arrays of inputs."""
        return self._fitting(what, self._inputs_of(what, self._parted(what, x, None, None, targets=False)))

    def _inputs_of(self, what: str, parted: Parts, *, finite: bool = True) -> Arrays:
        arrays = {}
        for name in self.input_side.buffers("x"):
            arrays[name] = as_rows(what, self._said(name), parted[name], self.dtype, finite=finite)
            self._same_rows(what, len(arrays["x"]), name, arrays[name])
        return arrays

    def _prepared(self, x: Any) -> Any:
        """Raw rows as inputs."""
        if self.preprocessing is not None and hasattr(x, "columns"):
            return self.preprocessing.transform(x)
        return x

    def _fitting(self, what: str, arrays: Arrays) -> Arrays:
        """The inputs among these arrays have the model's shapes."""
        self._build_for(arrays["x"])
        shapes = zip(self.input_side.buffers("x"), self.input_side.shapes, strict=True)
        return arrays | {name: check_rows(what, arrays[name], shape, self._said(name)) for name, shape in shapes}

    def _program(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` makes, kept as long as layers, settings and backend stay the same."""
        now = Trained.settings, len(self._layers)
        if self._frozen[0] != now:
            self._frozen = now, tuple(layer.frozen for layer in self._layers)
        key = (key, config.engine(), self._frozen[1])
        if key not in self._programs:
            kept = [k for k in self._programs if isinstance(k, tuple)]
            for oldest in kept[: len(kept) - PROGRAMS + 1]:  # of other batch sizes, say
                del self._programs[oldest]
            self._programs[key] = make()
        return self._programs[key]


def _one_each(given: Any, count: int) -> bool:
    """Whether it is a list of what belongs to each of several outputs, not of numbers."""
    return (
        count > 1
        and isinstance(given, list | tuple)
        and len(given) == count
        and all(each is None or np.ndim(each) > 0 for each in given)
    )


def checked_recompute(what: str, value: Any) -> bool | int | None:
    """A number of bytes, True, False or None."""
    if value is None or isinstance(value, bool):
        return value
    return whole(what, "recompute", value)
