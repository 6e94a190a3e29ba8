"""Pictures of models: what ``fastnn.utils.plot_model`` draws.

``graph`` says what is drawn, ``layout`` where, ``svg`` and ``dot`` write it down.
"""

from __future__ import annotations

import os
from typing import Any

from fastnn.drawing import dot
from fastnn.drawing.graph import drawn
from fastnn.drawing.svg import Svg, svg
from fastnn.models import Model
from fastnn.tensorfile import write_atomically

#: Endings of files that Graphviz makes.
GRAPHVIZ = (".png", ".pdf")


def plot(
    model: Any,
    to_file: Any,
    show_shapes: bool,
    show_layer_names: bool,
    rankdir: str,
    show_layer_activations: bool,
) -> Svg:
    """See ``fastnn.utils.plot_model``."""
    what = "plot_model"
    if not isinstance(model, Model):
        raise TypeError(f"{what}: model must be a Sequential or a Model. Received: model={model!r}"[:300])
    if rankdir not in ("TB", "LR"):
        raise ValueError(f"{what}: rankdir must be 'TB' or 'LR'. Received: rankdir={rankdir!r}")
    name = None if to_file is None else os.fspath(to_file)
    ending = "" if name is None else os.path.splitext(name)[1].lower()
    if name is not None and ending not in (".svg", ".dot", *GRAPHVIZ):
        raise ValueError(f"{what}: to_file must end in .svg, .dot, .png or .pdf. Received: to_file={name!r}")
    program = dot.program(what, ending) if ending in GRAPHVIZ else ""
    model._built()
    boxes, edges = drawn(model, show_shapes, show_layer_names, show_layer_activations)
    picture = svg(boxes, edges, rankdir, model.name)
    if name is not None:
        content = picture.encode()
        if ending != ".svg":
            content = dot.text(boxes, edges, rankdir, model.name).encode()
        if program:
            content = dot.run(what, program, ending, content)
        write_atomically(name, [memoryview(content)])
    return picture
