"""What is drawn of a model: its layers as boxes with text, and what goes from one to the other."""

from __future__ import annotations

from typing import NamedTuple

from fastnn.layers import Layer
from fastnn.models import Model

#: What kind of layer those of a module are, and of the class in ``core``.
KINDS = {
    "convolutional": "convolution",
    "depthwise": "convolution",
    "Dense": "dense",
    "normalization": "normalization",
    "activation": "activation",
    "Activation": "activation",
    "pooling": "pooling",
    "reshaping": "shape",
    "Flatten": "shape",
    "merging": "merging",
    "regularization": "regularization",
    "augmentation": "regularization",
    "InputLayer": "input",
}


#: Between the sizes of a shape.
TIMES = " \N{MULTIPLICATION SIGN} "


class Box(NamedTuple):
    """A layer.

    Attributes:
        name, kind: of the layer; the kind has a colour
        lines: what the box says, the first line in bold
        title: all that is known, in one line
    """

    name: str
    kind: str
    lines: tuple[str, ...]
    title: str


def drawn(
    model: Model, show_shapes: bool, show_layer_names: bool, show_layer_activations: bool
) -> tuple[list[Box], list[tuple[int, int]]]:
    """The layers in the order in which they are first called, and for each Tensor that a call takes the numbers of the
    layers that make and take it.
    """
    network = model.network
    number = {layer: index for index, layer in enumerate(network.layers)}
    maker: dict[int, Layer] = {}
    edges = []
    shapes: dict[Layer, list[str]] = {layer: [] for layer in number}
    for index, call in enumerate(network.calls):
        entry = network.inputs[index : index + 1]  # the first calls are those of the inputs
        edges += [(number[maker[id(tensor)]], number[call.layer]) for tensor in call.inputs]
        for tensor in entry or call.outputs:
            maker[id(tensor)] = call.layer
            text = TIMES.join(str(size) for size in tensor.shape[1:])
            if text not in shapes[call.layer]:
                shapes[call.layer].append(text)
    boxes = []
    for layer, found in shapes.items():
        what, size = type(layer).__name__, ", ".join(found)
        activation = getattr(layer, "activation", None)
        if show_layer_activations and isinstance(activation, str):
            what = f"{what}, {activation}"
        lines = [layer.name, what] if show_layer_names else [what]
        if show_shapes:
            lines.append(size)
        title = f"{layer.name}: {what}, {size}, {layer.count_params():,} weights"
        boxes.append(Box(layer.name, _kind(layer), tuple(lines), title))
    return boxes, edges


def _kind(layer: Layer) -> str:
    for base in type(layer).__mro__:
        for word in (base.__name__, base.__module__.rpartition(".")[2]):
            if base.__module__.startswith("fastnn.layers.") and word in KINDS:
                return KINDS[word]
    return "other"
