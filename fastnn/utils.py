"""Small helpers that Keras scripts import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.configurable import whole
from fastnn.sources.dataset import Dataset, PyDataset

if TYPE_CHECKING:
    from fastnn.drawing.svg import Svg

#: Its older name in Keras.
Sequence = PyDataset

__all__ = ["Dataset", "PyDataset", "Sequence", "plot_model", "to_categorical"]


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Integer labels as one-hot rows.

    Args:
        x: (N,) or (N, 1) integers 0 .. num_classes-1
        num_classes: number of columns; the largest label plus 1 if None

    Returns:
        float32 (N, num_classes)

    Raises:
        ValueError: a label is not an integer, or not in the range

    Example:
        >>> to_categorical([0, 2, 1])
        array([[1., 0., 0.],
               [0., 0., 1.],
               [0., 1., 0.]], dtype=float32)
    """
    labels = np.asarray(x)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iufb" or not len(labels) or (labels != np.round(labels)).any():
        raise ValueError(f"to_categorical: x must hold integer labels (N,). Received: x={x!r}"[:300])
    classes = int(labels.max()) + 1 if num_classes is None else whole("to_categorical", "num_classes", num_classes)
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"to_categorical: x must be 0 to {classes - 1}. Received: {labels.min()} to {labels.max()}")
    return np.eye(classes, dtype=np.float32)[labels.astype(np.int64)]


def plot_model(
    model: Any,
    to_file: Any = "model.svg",
    show_shapes: bool = True,
    *,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    show_layer_activations: bool = False,
) -> Svg:
    """Draw a model's layers and what goes from one to the other.

    A layer is drawn once, with its name, class and the shapes of its outputs without the batch; pointed at, it also
    says how many weights it has. One that is called several times has several arrows, dashed where they lead back.
    Models that are parts of the model are drawn as their layers.

    Args:
        model: a built Sequential or Model
        to_file: path of the file to write, whole or not at all. ``.svg`` and ``.dot`` (Graphviz's text) need nothing
            else; ``.png`` and ``.pdf`` are made by Graphviz's program ``dot``. None to write no file
        show_shapes: whether boxes say the shapes of outputs
        show_layer_names: whether boxes say the names of layers
        rankdir: "TB" from top to bottom, "LR" from left to right
        show_layer_activations: whether boxes say the activations of layers that have one

    Returns:
        Svg: the drawing as SVG text, a str, which a notebook shows as a picture

    Raises:
        TypeError, ValueError: it is no model, the input's shape is not known yet, ``rankdir`` or the ending of
            ``to_file`` is none of these
        RuntimeError: Graphviz is needed and not installed
        FileNotFoundError: the folder does not exist

    Example:
        >>> from fastnn import Sequential
        >>> from fastnn.layers import Dense
        >>> model = Sequential([Dense(8, activation="relu", input_shape=(4,), name="hidden"), Dense(1, name="risk")])
        >>> picture = plot_model(model, to_file=None)
        >>> picture[:4], "risk: Dense, 1, 9 weights" in picture
        ('<svg', True)
    """
    from fastnn.drawing import plot

    return plot(model, to_file, show_shapes, show_layer_names, rankdir, show_layer_activations)
