"""A drawing as SVG text."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from fastnn.drawing.graph import Box
from fastnn.drawing.layout import LOOP, Edge, Point, arrange

#: Of each kind of layer: fill, border.
COLOURS = {
    "input": ("#f1f3f5", "#868e96"),
    "convolution": ("#e7f1fd", "#3b82d0"),
    "dense": ("#efeafc", "#7c5cd6"),
    "normalization": ("#f8f9fa", "#adb5bd"),
    "activation": ("#fff6dd", "#d9a21b"),
    "pooling": ("#fdecea", "#d9695c"),
    "merging": ("#e6f6ec", "#3a9d63"),
    "shape": ("#f8f9fa", "#adb5bd"),
    "regularization": ("#f8f9fa", "#adb5bd"),
    "other": ("#ffffff", "#868e96"),
}
FONTS = "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, 'DejaVu Sans', sans-serif"
SIZE, LINE = 12, 16
#: Around text, around the whole; of an arrow's head; of texts at most, so that all boxes become as wide.
INSIDE, MARGIN, HEAD, ALIKE = 12.0, 16.0, 6.0, 260.0


class Svg(str):
    """SVG text that a notebook shows as a picture."""

    def _repr_svg_(self) -> str:
        return str(self)


def svg(boxes: Sequence[Box], edges: Sequence[Edge], rankdir: str, title: str) -> Svg:
    """Draw boxes and edges, from top to bottom ("TB") or from left to right ("LR")."""
    turned = rankdir == "LR"
    own = [max(width(line, index == 0) for index, line in enumerate(box.lines)) for box in boxes]
    alike = max((size for size in own if size <= ALIKE), default=0.0)
    sizes = [
        (max(size, alike) + 2 * INSIDE, len(box.lines) * LINE + INSIDE) for size, box in zip(own, boxes, strict=True)
    ]
    layout = arrange([size[::-1] for size in sizes] if turned else sizes, edges)

    def place(point: Point) -> Point:
        across, along = point[0] + MARGIN, point[1] + MARGIN
        return (along, across) if turned else (across, along)

    lines = []
    for (start, end), points in zip(edges, layout.lines, strict=True):
        back = " stroke-dasharray='5 3'" if start > end else ""
        path = _line(points, place) if points else _loop(place(layout.centres[start]), sizes[start], turned)
        names = f"data-from={quoteattr(boxes[start].name)} data-to={quoteattr(boxes[end].name)}"
        lines.append(f"<path {names}{back} {path}/>")
    drawn = [_box(box, place(centre), size) for box, centre, size in zip(boxes, layout.centres, sizes, strict=True)]
    w, h = (round(side + 2 * MARGIN) for side in (layout.size[::-1] if turned else layout.size))
    return Svg(
        "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}">',
                f"<title>{escape(title)}</title>",
                f'<rect width="{w}" height="{h}" fill="#fff"/>',
                '<g fill="none" stroke="#748089" stroke-width="1.3" stroke-linejoin="round">',
                *lines,
                "</g>",
                f'<g font-family="{FONTS}" font-size="{SIZE}" text-anchor="middle" fill="#495057">',
                *drawn,
                "</g>",
                "</svg>",
                "",
            ]
        )
    )


def width(text: str, bold: bool = False) -> float:
    """At least the width of a line of text, in the wider of the usual fonts.

    >>> width("conv1") < width("CONV1") < width("CONV1", bold=True)
    True
    """
    units = 0.0
    for letter in text:
        if unicodedata.east_asian_width(letter) in "WF":
            units += 1.05
        elif letter in "ijl.,:;|!'()[] It":
            units += 0.41
        elif letter in "mwMW@%":
            units += 1.0
        else:
            units += 0.72 if letter.isupper() else 0.64
    return units * SIZE * (1.1 if bold else 1.0)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _path(*parts: str | Point) -> str:
    return " ".join(part if isinstance(part, str) else f"{_number(part[0])} {_number(part[1])}" for part in parts)


def _line(points: Sequence[Point], place: Callable[[Point], Point]) -> str:
    """The curve through points (across, along), with a head at its end."""
    path: list[str | Point] = ["M", place(points[0])]
    for number, ((a, b), (c, d)) in enumerate(pairwise(points)):
        if a == c or number % 2 == 0:
            path += ["L", place((c, d))]
        else:
            path += ["C", place((a, (b + d) / 2)), place((c, (b + d) / 2)), place((c, d))]
    (_, before), (x, y) = points[-3], points[-1]
    back = y + (HEAD if before > y else -HEAD)
    path += ["M", place((x - HEAD / 2, back)), "L", place((x, y)), "L", place((x + HEAD / 2, back))]
    return f'd="{_path(*path)}"'


def _loop(centre: Point, size: Point, turned: bool) -> str:
    """From a box to itself."""
    (x, y), (w, h) = centre, size
    reach, far = (w if turned else h) * 0.2, LOOP * 0.9

    def at(along: float, out: float) -> Point:
        return (x + along, y + h / 2 + out) if turned else (x + w / 2 + out, y + along)

    path = _path(
        *("M", at(-reach, 0), "C", at(-1.5 * reach, far), at(1.5 * reach, far), at(reach, 0)),
        *("M", at(reach - HEAD / 2, HEAD), "L", at(reach, 0), "L", at(reach + HEAD / 2, HEAD)),
    )
    return f'd="{path}"'


def _box(box: Box, centre: Point, size: Point) -> str:
    """A box with its text."""
    (x, y), (w, h), (fill, border) = centre, size, COLOURS[box.kind]
    numbers = {"x": x - w / 2, "y": y - h / 2, "width": w, "height": h}
    rect = " ".join(f'{name}="{_number(value)}"' for name, value in numbers.items())
    rows = []
    for index, line in enumerate(box.lines):
        base = y + (index - (len(box.lines) - 1) / 2) * LINE + SIZE * 0.36
        style = ' font-weight="600" fill="#212529"' if index == 0 else ""
        rows.append(f'<text x="{_number(x)}" y="{_number(base)}"{style}>{escape(line)}</text>')
    return (
        f"<g data-layer={quoteattr(box.name)}><title>{escape(box.title)}</title>"
        f'<rect {rect} rx="5" fill="{fill}" stroke="{border}"/>{"".join(rows)}</g>'
    )
