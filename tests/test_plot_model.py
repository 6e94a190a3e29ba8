"""Drawings of models: every layer and edge is there, nothing overlaps, and what cannot be drawn is refused."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fastnn import Model, Sequential, applications
from fastnn.drawing import dot
from fastnn.drawing.layout import arrange
from fastnn.layers import Add, Concatenate, Conv2D, Dense, Flatten, Input, MaxPooling2D, Subtract
from fastnn.utils import plot_model

#: Numbers in a drawing have one digit after the point.
ROUNDED = 0.2
SVG = "{http://www.w3.org/2000/svg}"


def plain():
    return Sequential([Dense(8, activation="relu", input_shape=(4,), name="hidden"), Dense(1, name="risk")])


def siamese():
    """Shared layers, three inputs, two outputs, a layer on its own output, one that is led back to."""
    left, right, age = Input((12, 12, 1)), Input((12, 12, 1)), Input((5,))
    shared = [Conv2D(4, 3), MaxPooling2D(2), Flatten(), Dense(6)]
    ends = []
    for x in (left, right):
        for layer in shared:
            x = layer(x)
        ends.append(x)
    x = Subtract()(ends)
    again, between = Dense(6), Dense(6)
    y = again(between(again(again(Dense(6)(Concatenate()([x, Add()([x, x]), Dense(3)(age)]))))))
    return Model([left, right, age], [Dense(1)(y), Dense(4)(x)])


def densely_joined():
    """Each layer takes the outputs of all before."""
    found = [Input((3,))]
    for number in range(7):
        x = Concatenate(name=f"join{number}")(found) if len(found) > 1 else found[0]
        found.append(Dense(3, name=f"dense{number}")(x))
    return Model(found[0], found[-1])


def inside():
    """From a Tensor that a layer made."""
    x = Dense(3)(Input((2,)))
    return Model(x, Dense(1)(x))


MODELS = {
    "plain": plain,
    "siamese": siamese,
    "densely joined": densely_joined,
    "inside": inside,
    "lenet": applications.LeNet5,
    "unet": lambda: applications.UNet((32, 32, 1), 2, base_filters=2, depth=3),
    "resnet": lambda: applications.ResNet18((32, 32, 1), 2),
    "googlenet": lambda: applications.GoogLeNet((32, 32, 1), 2, auxiliary=True),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.fixture(params=["TB", "LR"])
def rankdir(request):
    return request.param


def read(picture):
    """The boxes by layer name, as (left, top, right, bottom), and the edges as (from, to, path)."""
    root = ET.fromstring(picture)
    boxes = {}
    for group in root.iter(f"{SVG}g"):
        if "data-layer" in group.attrib:
            assert group.attrib["data-layer"] not in boxes
            x, y, w, h = (float(group.find(f"{SVG}rect").attrib[name]) for name in ("x", "y", "width", "height"))
            boxes[group.attrib["data-layer"]] = (x, y, x + w, y + h)
    edges = [(path.attrib["data-from"], path.attrib["data-to"], path.attrib["d"]) for path in root.iter(f"{SVG}path")]
    return root, boxes, edges


def points(path):
    """Points along the line of a path, without its head."""
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.split("M")[1])]
    letters = re.findall("[LC]", path.split("M")[1])
    at, rest = np.array(numbers[:2]), iter(numbers[2:])
    found = []
    for letter in letters:
        corners = [at, *(np.array([next(rest), next(rest)]) for _ in range(3 if letter == "C" else 1))]
        degree = len(corners) - 1
        for t in np.linspace(0, 1, 21):
            weights = [math.comb(degree, k) * t**k * (1 - t) ** (degree - k) for k in range(degree + 1)]
            found.append(sum(w * corner for w, corner in zip(weights, corners, strict=True)))
        at = corners[-1]
    return found


# What is drawn


def test_each_layer_is_there_once_and_each_edge(model):
    _, boxes, edges = read(plot_model(model, None))
    assert list(boxes) == [layer.name for layer in model.network.layers]
    maker = {id(t): c.layer.name for t, c in zip(model.network.inputs, model.network.calls, strict=False)}
    maker |= {id(t): call.layer.name for call in model.network.calls for t in call.outputs if id(t) not in maker}
    expected = [(maker[id(tensor)], call.layer.name) for call in model.network.calls for tensor in call.inputs]
    assert Counter((start, end) for start, end, _ in edges) == Counter(expected)


def test_boxes_do_not_overlap_and_are_in_the_picture(model, rankdir):
    root, boxes, _ = read(plot_model(model, None, rankdir=rankdir))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert root.attrib["viewBox"] == f"0 0 {width:.0f} {height:.0f}"
    for left, top, right, bottom in boxes.values():
        assert left > 0 and top > 0 and right < width and bottom < height
    for a, b in itertools.combinations(boxes.values(), 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_edges_run_from_box_to_box_and_around_the_others(model, rankdir):
    root, boxes, edges = read(plot_model(model, None, rankdir=rankdir))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for start, end, path in edges:
        along = points(path)
        for name, (x, y) in ((start, along[0]), (end, along[-1])):
            left, top, right, bottom = boxes[name]
            assert left - ROUNDED < x < right + ROUNDED and top - ROUNDED < y < bottom + ROUNDED
            assert min(abs(x - left), abs(x - right), abs(y - top), abs(y - bottom)) < ROUNDED
        for x, y in along:
            assert 0 < x < width and 0 < y < height
            for left, top, right, bottom in boxes.values():
                outside = x < left + ROUNDED or x > right - ROUNDED or y < top + ROUNDED or y > bottom - ROUNDED
                assert outside, (start, end)


def test_text_fits_its_box(model):
    root, _, _ = read(plot_model(model, None))
    for group in root.iter(f"{SVG}g"):
        if "data-layer" in group.attrib:
            width = float(group.find(f"{SVG}rect").attrib["width"])
            assert all(0.55 * 12 * len(text.text) < width for text in group.iter(f"{SVG}text"))


def test_data_go_down_or_to_the_right():
    _, boxes, _ = read(plot_model(plain(), None))
    tops = [top for _, top, _, _ in boxes.values()]
    assert tops == sorted(tops) and len({left for left, *_ in boxes.values()}) == 1
    _, boxes, _ = read(plot_model(plain(), None, rankdir="LR"))
    lefts = [left for left, *_ in boxes.values()]
    assert lefts == sorted(lefts) and len({top for _, top, _, _ in boxes.values()}) == 1


def test_the_longest_path_is_straight_and_skips_lie_beside_it():
    picture = plot_model(MODELS["unet"](), None)
    _, boxes, edges = read(picture)
    assert len({left for left, *_ in boxes.values()}) == 1
    beside = sorted(max(x for x, _ in points(path)) for start, end, path in edges if "skip" in end and "enc" in start)
    right = next(iter(boxes.values()))[2]
    assert right < beside[0] and len(set(beside)) == 3


def test_edges_that_lead_back_are_dashed():
    root, _, _ = read(plot_model(siamese(), None))
    dashed = [path for path in root.iter(f"{SVG}path") if "stroke-dasharray" in path.attrib]
    assert len(dashed) == 1


def test_boxes_say_what_is_asked_for():
    def said(**options):
        root, _, _ = read(plot_model(plain(), None, **options))
        return [[text.text for text in group.iter(f"{SVG}text")] for group in root.iter(f"{SVG}g")][-2]

    assert said() == ["hidden", "Dense", "8"]
    assert said(show_shapes=False) == ["hidden", "Dense"]
    assert said(show_layer_names=False) == ["Dense", "8"]
    assert said(show_shapes=False, show_layer_names=False, show_layer_activations=True) == ["Dense, relu"]


def test_several_shapes_of_a_shared_layer_are_listed():
    flat = Flatten(name="flat")
    a, b = Input((2, 3)), Input((4, 3))
    picture = plot_model(Model([a, b], Concatenate()([flat(a), flat(b)])), None)
    assert "flat: Flatten, 6, 12, 0 weights" in picture


@pytest.mark.parametrize("name", ["a<b>&c", '"quoted"\'', "back\\slash", "größe", "層", "{x}", "W" * 90])
def test_names_are_escaped(name, tmp_path):
    model = Sequential([Dense(1, input_shape=(2,), name=name)], name=name)
    _, boxes, edges = read(plot_model(model, tmp_path / "model.svg"))
    assert name in boxes and edges[0][1] == name
    plot_model(model, tmp_path / "model.dot")
    text = (tmp_path / "model.dot").read_text(encoding="utf-8")
    assert f'label="{name.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}\\nDense' in text


def test_own_layers_are_drawn_as_what_they_are_made_from():
    class Special(Conv2D):
        pass

    model = Sequential([Special(2, 3, input_shape=(8, 8, 1), name="special"), Conv2D(2, 3)])
    fills = re.findall(r'<rect [^>]*rx="5" fill="(#\w+)"', plot_model(model, None))
    assert fills[1] == fills[2] != fills[0]


def test_the_same_model_gives_the_same_drawing():
    model = siamese()
    assert plot_model(model, None) == plot_model(model, None)


# The layout by itself


@pytest.mark.parametrize("seed", range(20))
def test_any_graph_is_laid_out_without_overlaps(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 25))
    sizes = [(float(w), float(h)) for w, h in rng.uniform(10, 200, (count, 2))]
    edges = [tuple(int(n) for n in rng.integers(0, count, 2)) for _ in range(int(rng.integers(0, 50)))]
    layout = arrange(sizes, edges)
    assert len(layout.lines) == len(edges)
    boxes = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for (x, y), (w, h) in zip(layout.centres, sizes, strict=True)]
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
    for (start, end), line in zip(edges, layout.lines, strict=True):
        assert bool(line) == (start != end)
        for x, y in line:
            inside = [n for n, (a, b, c, d) in enumerate(boxes) if a + 1e-6 < x < c - 1e-6 and b + 1e-6 < y < d - 1e-6]
            assert not inside
    assert min((min(a, b) for a, b, *_ in boxes), default=0) >= -1e-9
    assert max(c for *_, c, _ in boxes) <= layout.size[0] + 1e-9 and max(d for *_, d in boxes) <= layout.size[1] + 1e-9


def test_crossings_that_need_not_be_are_undone():
    edges = [(0, 5), (1, 4), (2, 3)]
    layout = arrange([(20, 10)] * 6, edges)
    straight = [{x for x, _ in line} for line in layout.lines]
    assert all(len(found) == 1 for found in straight)


# Files


def test_the_file_has_what_is_returned(tmp_path):
    picture = plot_model(plain(), tmp_path / "model.svg")
    assert (tmp_path / "model.svg").read_text(encoding="utf-8") == picture == picture._repr_svg_()
    assert isinstance(picture, str) and not isinstance(picture._repr_svg_(), type(picture))
    assert plot_model(plain(), str(tmp_path / "again.SVG")).startswith("<svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.SVG", "model.svg"]


def test_keras_names_of_arguments_and_the_usual_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plot_model(plain(), show_shapes=True, show_layer_names=True, rankdir="LR", show_layer_activations=True)
    assert Path("model.svg").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"to_file": "model.jpg"}, ValueError, r"to_file must end in \.svg.* Received: to_file='model.jpg'"),
        ({"to_file": "model"}, ValueError, "to_file must end in"),
        ({"rankdir": "BT"}, ValueError, "rankdir must be 'TB' or 'LR'. Received: rankdir='BT'"),
        ({"to_file": "nowhere/model.svg"}, FileNotFoundError, "the directory does not exist"),
        ({"model": Sequential([Dense(1)])}, ValueError, "shape of the input is not known yet"),
        ({"model": "model"}, TypeError, "model must be a Sequential or a Model. Received: model='model'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(options, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        plot_model(**{"model": plain(), **options})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".png", ".pdf"])
def test_what_graphviz_would_make_says_what_to_install(ending, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=rf"plot_model: \{ending} files .* install graphviz.* \.svg .* need nothing"):
        plot_model(plain(), tmp_path / f"model{ending}")
    assert not list(tmp_path.iterdir())


def program(tmp_path, monkeypatch, body):
    """A program that stands for Graphviz's."""
    script = tmp_path / "dot.py"
    script.write_text(f"import sys\n{body}\n", encoding="utf-8")
    run = subprocess.run
    monkeypatch.setattr(dot.shutil, "which", lambda name: name)
    monkeypatch.setattr(dot.subprocess, "run", lambda call, **o: run([sys.executable, str(script), *call[1:]], **o))


def test_graphviz_gets_the_graph_and_its_answer_is_the_file(tmp_path, monkeypatch):
    program(tmp_path, monkeypatch, "print(sys.argv[1], sys.stdin.read())")
    picture = plot_model(plain(), tmp_path / "model.png")
    text = (tmp_path / "model.png").read_text(encoding="utf-8")
    assert text.startswith("-Tpng digraph") and "0 -> 1;" in text and picture.startswith("<svg")


def test_what_graphviz_complains_about_is_passed_on(tmp_path, monkeypatch):
    program(tmp_path, monkeypatch, "sys.exit('no fonts')")
    with pytest.raises(RuntimeError, match="plot_model: dot failed: no fonts"):
        plot_model(plain(), tmp_path / "model.pdf")
    assert not (tmp_path / "model.pdf").exists()


def test_drawing_is_imported_when_it_is_first_asked_for():
    code = "import sys, fastnn; print('fastnn.drawing' in sys.modules, 'subprocess' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split()[0] == "False"


def test_an_input_is_a_box():
    _, boxes, _ = read(plot_model(siamese(), None))
    assert sum(name.startswith("input_layer") for name in boxes) == 3
