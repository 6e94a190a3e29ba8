"""What a model is compiled with, the Programs made of it, and what data must be like for it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastnn import callbacks as callbacks_
from fastnn import config, losses, metrics, optimizers
from fastnn.configurable import whole
from fastnn.data import as_rows, check_rows, check_weights, joined_weights
from fastnn.graph import Tensor
from fastnn.layers import Layer
from fastnn.layers.base import Training, Weight
from fastnn.plan import zeros
from fastnn.updating import Layout

#: A model keeps so many Programs and what belongs to them.
PROGRAMS = 12

Rows = tuple[np.ndarray, np.ndarray, np.ndarray | None]


class Compiled:
    """A model and how it is to be trained: optimizer, loss, metrics, and what was made of them."""

    name: str
    dtype: str
    seed: int
    preprocessing: Any
    input_shape: Any
    output_shape: Any
    _layers: list[Layer]

    def _start_training(self) -> None:
        self.history: callbacks_.History | None = None
        self.stop_training = False
        self._optimizer: optimizers.Optimizer | None = None
        self._loss: losses.Loss | None = None
        self._asked_metrics: list[Any] = []
        self.recompute: bool | int | None = None
        self._epochs = 0
        self._trained_by: int | None = None  # the process in which a fit is running; a forked child is free
        self._clear()

    def _clear(self) -> None:
        """Forget everything derived from layers and settings."""
        self._programs: dict[Any, Any] = {}
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
    def loss(self) -> losses.Loss:
        """The loss."""
        return self._compiled()[1]

    def _compiled(self) -> tuple[optimizers.Optimizer, losses.Loss]:
        if self._optimizer is None or self._loss is None:
            raise RuntimeError(f"{self.name}: must be compiled first: model.compile(optimizer=..., loss=...)")
        return self._optimizer, self._loss

    @property
    def metric_objects(self) -> list[metrics.Metric]:
        """The metrics, once the shapes are known."""
        if "metrics" not in self._programs:
            outputs = self.output_shape[-1]
            self._programs["metrics"] = [metrics.get(m, self.loss, outputs) for m in self._asked_metrics]
        found: list[metrics.Metric] = self._programs["metrics"]
        return found

    @property
    def metrics_names(self) -> list[str]:
        """Names of what ``evaluate`` returns."""
        return ["loss", *(m.name for m in self.metric_objects)]

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
        loss: str | losses.Loss | None = None,
        metrics: str | metrics.Metric | Sequence[str | metrics.Metric | Callable[..., float]] | None = None,
        recompute: bool | int | None = None,
    ) -> None:
        """Say how to train.

        Args:
            optimizer: name ("adam", "adamw", "sgd", "rmsprop") or Optimizer
            loss: name ("binary_crossentropy", "mse", "dice", ...) or Loss, also a sum of them
            metrics: names ("accuracy", "dice", ...), Metrics or functions ``f(y_true, y_pred)`` of two arrays, or one
            recompute: what of the forward pass is computed again in the backward pass instead of being kept for it
                (gradient checkpointing). None for what takes next to no time, such as a normalization; a number of
                bytes for as little as is needed to train within so much memory, besides data, weights and the
                optimizer's; True for as little memory as is worth it; False for nothing. All results keep their bits.
                ``print(model.plan(batch_size=...))`` shows what is done again, and the bytes (as "arena")

        Raises:
            ValueError: one of them is unknown; the model stays as it was. Bytes that are too few for a batch are an
                error of ``fit``, which names the fewest possible

        Example:
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
        if loss is None:
            raise ValueError("compile: loss must be given, such as loss='binary_crossentropy'. Received: loss=None")
        chosen_loss = losses.get(loss)
        several = isinstance(metrics, Sequence) and not isinstance(metrics, str)
        asked: list[Any] = [] if metrics is None else list(metrics) if several else [metrics]  # type: ignore[arg-type]
        asked = [m() if isinstance(m, type) else m for m in asked]
        self._check_metrics(asked, chosen_loss)
        recompute = checked_recompute("compile", recompute)
        if self.dtype == "float64" and config.backend() != "numpy":
            raise ValueError(f"compile: float64 models need the numpy backend. Received: backend {config.backend()!r}")
        if chosen.owner is not None and chosen.owner() not in (None, self):
            raise ValueError(
                f"compile: each model needs an optimizer of its own. Received: the optimizer of {chosen.owner()!r}"
            )
        chosen.owner, chosen.iterations = weakref.ref(self), 0
        self._optimizer, self._loss, self._asked_metrics = chosen, chosen_loss, asked
        self.recompute = recompute
        self._clear()

    def _check_metrics(self, asked: list[Any], loss: losses.Loss) -> None:
        names = [metrics.get(m, loss, None).name for m in asked]
        if len({*names, "loss"}) < len(names) + 1:
            raise ValueError(f"compile: metrics must have different names, none of them 'loss'. Received: {names}")

    # ------------------------------------------------------------------ data and programs

    def _data(self, what: str, x: Any, y: Any, sample_weight: Any, class_weight: Mapping[Any, float] | None) -> Rows:
        """Checked arrays: inputs, targets, weights of the rows or pixels."""
        x = self._rows(what, x)
        if y is None:
            raise ValueError(f"{what}: y must be given. Received: y=None")
        y = as_rows(what, "y", y, self.dtype)
        if len(x) != len(y):
            raise ValueError(f"{what}: x and y must have the same number of rows. Received: {len(x)} and {len(y)}")
        given, classes = check_weights(what, len(x), sample_weight, class_weight, self.dtype)
        x = self._fitting(what, x)
        y = self._checked_targets(y)
        return x, y, joined_weights(what, y, given, classes)

    def _checked_targets(self, y: np.ndarray) -> np.ndarray:
        """The targets in the shape that the loss takes, fit for loss and metrics."""
        y = np.ascontiguousarray(self.loss.targets(y, self.output_shape), self.dtype)
        for metric in self.metric_objects:
            metric.check(y, self.output_shape[-1])
        return y

    def _inputs(self, what: str, x: Any) -> np.ndarray:
        return self._fitting(what, self._rows(what, x))

    def _rows(self, what: str, x: Any) -> np.ndarray:
        return as_rows(what, "x", self._prepared(x), self.dtype)

    def _prepared(self, x: Any) -> Any:
        """Raw rows as inputs."""
        if self.preprocessing is not None and hasattr(x, "columns"):
            return self.preprocessing.transform(x)
        return x

    def _fitting(self, what: str, rows: np.ndarray) -> np.ndarray:
        self._build_for(rows)
        return check_rows(what, rows, self.input_shape)

    def _program(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` makes, kept as long as layers, settings and backend stay the same."""
        key = (key, config.engine(), tuple(layer.trainable for layer in self._layers))
        if key not in self._programs:
            kept = [k for k in self._programs if isinstance(k, tuple)]
            for oldest in kept[: len(kept) - PROGRAMS + 1]:  # of other batch sizes, say
                del self._programs[oldest]
            self._programs[key] = make()
        return self._programs[key]


def checked_recompute(what: str, value: Any) -> bool | int | None:
    """A number of bytes, True, False or None."""
    if value is None or isinstance(value, bool):
        return value
    return whole(what, "recompute", value)
