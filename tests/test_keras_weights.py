"""Weights from Keras: what Keras computes is computed here, and what does not fit is named.

Keras and h5py are not needed: tests/peers/keras_weights.py, which needs them, wrote tests/golden/keras.json; here,
objects stand for Keras's models and for the groups of its files.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import keras_cases
import numpy as np
import pytest

import fastnn
from fastnn import Model, Sequential, applications, layers
from fastnn.applications import VGG16, VGG19, keras_files, load_keras, vgg
from fastnn.applications.keras_weights import keras_order
from fastnn.layers import Add, BatchNormalization, Conv2D, Dense, Flatten, Input

GOLDEN = json.loads((Path(__file__).parent / "golden" / "keras.json").read_text(encoding="utf-8"))
WORDS = SimpleNamespace(**vars(layers), Model=Model)


def arrays_of(case):
    """What Keras's weights were, by their paths."""
    return {
        path: keras_cases.value(case, number, path.rpartition("/")[2], shape)
        for number, (path, shape) in enumerate(GOLDEN[case]["weights"])
    }


def outputs_of(case, model):
    shapes = [tensor.shape for tensor in model.network.inputs]
    rows = [array.astype(np.float32) for array in keras_cases.inputs(case, shapes)]
    found = model.network.follow(rows, lambda call, x: call.layer(x))[0].reshape(-1)
    return found[:: max(1, found.size // 60)]


class KerasLayer:
    """As much of a Keras layer as is used."""

    def __init__(self, name, weights):
        self.name = name
        self.weights = [SimpleNamespace(name=key) for key in weights]
        self._arrays = list(weights.values())

    def get_weights(self):
        return self._arrays


class KerasModel:
    """As much of a Keras model as is used."""

    def __init__(self, *layers, name="functional"):
        self.name, self.layers = name, list(layers)

    @property
    def weights(self):
        return [weight for layer in self.layers for weight in layer.weights]


def keras_model(arrays):
    """A model with these weights, and a layer without."""
    found = {}
    for path, array in arrays.items():
        layer, _, weight = path.rpartition("/")
        found.setdefault(layer, {})[weight] = array
    return KerasModel(KerasLayer("input", {}), *(KerasLayer(name, weights) for name, weights in found.items()))


class Group(dict):
    """As much of a group in an HDF5 file as is used."""

    def __init__(self, *parts, attrs=None, **more):
        super().__init__(*parts, **more)
        self.attrs = attrs or {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def __getitem__(self, path):
        first, _, rest = path.partition("/")
        found = super().__getitem__(first)
        return found[rest] if rest else found


def new_file(*entries):
    """A file of Keras 3: (key, name, arrays) of each layer."""
    found = Group()
    for key, name, arrays in entries:
        numbered = {str(number): array for number, array in enumerate(arrays)}
        found[key] = Group(vars=Group(numbered, attrs={"name": name} if name else {}))
    return Group(layers=found, vars=Group(), optimizer=Group(vars=Group({"0": np.zeros(1)})))


def old_file(*entries):
    """A file of the old format: (name, {weight's name: array}) of each layer, texts as bytes."""
    found = Group(attrs={"layer_names": np.array([name.encode() for name, _ in entries])})
    for name, arrays in entries:
        group = Group(attrs={"weight_names": [key.encode() for key in arrays]})
        for key, array in arrays.items():
            inner = group
            *path, last = key.split("/")
            for part in path:
                inner = inner.setdefault(part, Group())
            inner[last] = array
        found[name] = group
    return found


@pytest.fixture
def h5py(monkeypatch):
    """Stands for h5py: a file's text is the name of the group that it holds."""
    groups = {}

    def opened(file, mode):
        name = file.read().decode()
        if name not in groups:
            raise OSError("file signature not found")
        return groups[name]

    module = ModuleType("h5py")
    module.File = opened
    monkeypatch.setitem(sys.modules, "h5py", module)
    return groups


# What Keras computes


@pytest.mark.parametrize("case", keras_cases.CASES)
@pytest.mark.parametrize("wrap", [dict, keras_model])
def test_outputs_are_those_of_keras(case, wrap):
    model = keras_cases.CASES[case](WORDS)
    load_keras(model, wrap(arrays_of(case)))
    golden = np.array(GOLDEN[case]["outputs"])
    assert abs(outputs_of(case, model) - golden).max() <= 1e-4 * max(1e-3, abs(golden).max())


@pytest.mark.parametrize(
    ("case", "model"),
    [
        ("lenet", lambda: applications.LeNet5((24, 20, 1), name="reader")),
        ("unet", lambda: applications.UNet((16, 24, 2), 3, base_filters=4, depth=2, batch_norm=True)),
    ],
)
def test_applications_take_the_weights_of_layers_of_their_names(case, model):
    model = model()
    load_keras(model, arrays_of(case))
    np.testing.assert_allclose(outputs_of(case, model), GOLDEN[case]["outputs"], rtol=0, atol=1e-4)


def test_underscores_stand_for_dots():
    model = applications.UNet((16, 24, 2), 3, base_filters=4, depth=2, batch_norm=True)
    load_keras(model, {name.replace(".", "_"): array for name, array in arrays_of("unet").items()})
    np.testing.assert_allclose(outputs_of("unet", model), GOLDEN["unet"]["outputs"], rtol=0, atol=1e-4)


def test_the_order_is_keras_own_where_networks_branch():
    network = keras_cases.branches(WORDS).network
    found = keras_order(network)
    assert set(found) == set(network.layers)
    assert found != network.layers


def vgg_arrays(convolutions, classes=7):
    """Of Keras's VGG for 32x32 pixels."""
    rng, found, before = np.random.default_rng(0), {}, 3
    for block, (filters, times) in enumerate(zip((64, 128, 256, 512, 512), convolutions, strict=True), start=1):
        for number in range(1, times + 1):
            found[f"block{block}_conv{number}"] = (3, 3, before, filters)
            before = filters
    found |= {"fc1": (512, 32), "fc2": (32, 32), "predictions": (32, classes)}
    kernels = {f"{name}/kernel": rng.uniform(-0.1, 0.1, shape) for name, shape in found.items()}
    biases = {f"{name}/bias": rng.uniform(-0.1, 0.1, shape[-1]) for name, shape in found.items()}
    return kernels | biases


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(vgg, "HIDDEN", 32)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(("network", "convolutions"), [(VGG16, (2, 2, 3, 3, 3)), (VGG19, (2, 2, 4, 4, 4))])
def test_the_names_of_keras_vgg_are_known(network, convolutions):
    model, arrays = network((32, 32, 3), 7), vgg_arrays(convolutions)
    load_keras(model, dict(reversed(arrays.items())))
    expected = [
        arrays[f"{name}/{kind}"]
        for name in dict.fromkeys(k.split("/")[0] for k in arrays)
        for kind in ("kernel", "bias")
    ]
    for weight, array in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(weight, array.astype(np.float32))


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("skip", ["predictions", ["classifier.6"]])
def test_the_last_layer_of_keras_vgg_can_be_skipped_by_either_name(skip):
    model, arrays = VGG16((32, 32, 3), 2), vgg_arrays((2, 2, 3, 3, 3))
    last = model.layers[-1].get_weights()
    load_keras(model, arrays, skip=skip)
    assert all((a == b).all() for a, b in zip(model.layers[-1].get_weights(), last, strict=True))
    np.testing.assert_array_equal(model.get_layer("classifier.3").bias.value, arrays["fc2/bias"].astype(np.float32))


@pytest.mark.usefixtures("narrow")
def test_convolutions_without_the_top_load_into_the_whole():
    arrays = {name: array for name, array in vgg_arrays((2, 2, 3, 3, 3)).items() if name.startswith("block")}
    load_keras(VGG16((64, 64, 3), 2, name="mine"), arrays, skip=["classifier"])


# Names and order


def net(names=("body.0", "body.1", "head")):
    model = Sequential(
        [
            Conv2D(3, 2, name=names[0], input_shape=(3, 3, 2)),
            BatchNormalization(name=names[1]),
            Flatten(),
            Dense(4, name=names[2]),
        ]
    )
    model.build()
    return model


def values(names=("body.0", "body.1", "head")):
    rng = np.random.default_rng(1)
    shapes = {
        f"{names[0]}/kernel": (2, 2, 2, 3),
        f"{names[0]}/bias": (3,),
        f"{names[1]}/gamma": (3,),
        f"{names[1]}/beta": (3,),
        f"{names[1]}/moving_mean": (3,),
        f"{names[1]}/moving_variance": (3,),
        f"{names[2]}/kernel": (12, 4),
        f"{names[2]}/bias": (4,),
    }
    return {name: rng.uniform(0.5, 1.5, shape) for name, shape in shapes.items()}


def holds(model, arrays):
    return all((a == b.astype(np.float32)).all() for a, b in zip(model.get_weights(), arrays.values(), strict=True))


def test_weights_are_found_by_name_in_any_order():
    model, arrays = net(), values()
    load_keras(model, dict(reversed(arrays.items())))
    assert holds(model, arrays)


def test_layers_without_common_names_go_by_their_order():
    model, arrays = net(), values(("one", "two", "three"))
    load_keras(model, arrays)
    assert holds(model, arrays)


def test_names_that_libraries_make_up_do_not_pair_layers():
    model = Sequential([Dense(3, input_shape=(3,), name="dense_1"), Dense(3, name="dense_2")])
    first, second = np.full((3, 3), 1.0), np.full((3, 3), 2.0)
    bias = np.zeros(3)
    load_keras(model, {"dense/kernel": first, "dense/bias": bias, "dense_1/kernel": second, "dense_1/bias": bias})
    np.testing.assert_array_equal(model.get_weights()[0], first)
    np.testing.assert_array_equal(model.get_weights()[2], second)


def test_layers_with_equal_made_up_names_go_by_their_order():
    model = Sequential([Dense(3, input_shape=(3,), name="dense"), Dense(3, name="dense_1")])
    arrays = {"dense_1/kernel": np.eye(3), "dense_1/bias": np.zeros(3)}
    arrays |= {"dense/kernel": 2 * np.eye(3), "dense/bias": np.ones(3)}
    load_keras(model, arrays)
    assert holds(model, arrays)


def test_layers_without_names_go_by_their_order_among_others_with_names():
    names = ("conv", "batch_normalization_7", "head")
    model, arrays = net(names), values(("conv", "batch_normalization_3", "head"))
    kernel = arrays.pop("conv/kernel")
    load_keras(model, arrays | {"conv/kernel": kernel})
    assert holds(model, {"conv/kernel": kernel, **arrays})
    arrays = {name: array for name, array in arrays.items() if not name.startswith("batch")}
    with pytest.raises(ValueError, match=r"missing: batch_normalization_7/gamma, .*; not expected: other/kernel$"):
        load_keras(model, {**arrays, "conv/kernel": kernel, "other/kernel": kernel})


def test_weights_of_other_names_go_by_their_order():
    model, arrays = net(), values()
    renamed = {
        name.replace("head/kernel", "head/W_1:0").replace("head/bias", "head/b_1:0"): a for name, a in arrays.items()
    }
    load_keras(model, renamed)
    assert holds(model, arrays)


def test_layers_of_one_name_go_by_their_order():
    model = Sequential([Dense(3, input_shape=(3,), name="a"), Dense(3, name="b")])
    one, two = ({"kernel": np.full((3, 3), value), "bias": np.full(3, value)} for value in (1.0, 2.0))
    load_keras(model, KerasModel(KerasModel(KerasLayer("x", one)), KerasModel(KerasLayer("x", two))))
    assert [array.ravel()[0] for array in model.get_weights()] == [1, 1, 2, 2]


def test_models_within_models_are_taken_apart():
    arrays = values(("one", "two", "three"))
    outer = keras_model(arrays)
    outer.layers[1:3] = [KerasModel(*outer.layers[1:3], name="inner")]
    model = net()
    load_keras(model, outer)
    assert holds(model, arrays)


def test_a_name_that_two_layers_have_pairs_none():
    arrays = values()
    source = keras_model(arrays)
    source.layers[-1:] = [KerasModel(source.layers[-1], name="a"), KerasModel(source.layers[-1], name="b")]
    with pytest.raises(ValueError, match=r"missing: head/kernel, head/bias; not expected: head \(2\)/kernel"):
        load_keras(net(), source)


def test_the_order_of_models_within_models_does_not_pair_branches():
    x = Input((3,))
    model = Model(x, Add()([Dense(3, name="a")(x), Dense(3, name="b")(x)]))
    before = model.get_weights()
    eye = {"kernel": np.eye(3), "bias": np.zeros(3)}
    source = KerasModel(KerasModel(KerasLayer("one", eye)), KerasLayer("two", eye))
    with pytest.raises(
        ValueError, match=r"not in models within a graph. Received: 2 .* \(one, two\) for the 2 .*\(a, b\)"
    ):
        load_keras(model, source)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


# Files


def entries(named=True):
    """The layers of ``values`` as a new file has them: in the order of the alphabet."""
    a = list(values().values())
    names = ("body.0", "body.1", "head") if named else (None, None, None)
    return [
        ("batch_normalization", names[1], a[2:6]),
        ("conv2d", names[0], a[:2]),
        ("dense", names[2], a[6:]),
    ]


@pytest.mark.parametrize("named", [True, False])
def test_new_files_of_weights_load(named, h5py, tmp_path):
    h5py["weights"] = new_file(*entries(named))
    (tmp_path / "model.weights.h5").write_text("weights")
    model = net()
    load_keras(model, tmp_path / "model.weights.h5")
    assert holds(model, values())


def test_layers_of_a_kind_go_by_their_numbers_where_a_file_has_no_names(h5py, tmp_path):
    count = 12
    kernels = [np.full((2, 2), float(number)) for number in range(count)]
    keys = ["dense", *(f"dense_{number}" for number in range(1, count))]
    h5py["weights"] = new_file(*((key, None, [kernel]) for key, kernel in sorted(zip(keys, kernels, strict=True))))
    (tmp_path / "model.weights.h5").write_text("weights")
    stack = [Dense(2, use_bias=False, name=f"layer{number}") for number in range(count)]
    model = Sequential([Input((2,)), *stack])
    load_keras(model, tmp_path / "model.weights.h5")
    assert [int(array[0, 0]) for array in model.get_weights()] == list(range(count))


def test_nested_files_of_weights_without_names_are_refused(h5py, tmp_path):
    inner = new_file(*entries(named=False)[:1])
    h5py["weights"] = new_file(*entries(named=False)[1:])
    h5py["weights"]["layers"]["sequential"] = inner
    (tmp_path / "model.weights.h5").write_text("weights")
    with pytest.raises(ValueError, match="order of layers of models within models is not known"):
        load_keras(net(), tmp_path / "model.weights.h5")


def test_old_files_load_with_the_names_of_old_weights(h5py, tmp_path):
    arrays = values()
    found = {}
    for name, array in arrays.items():
        layer = name.partition("/")[0]
        found.setdefault(layer, {})[f"{name}:0"] = array
    h5py["weights"] = old_file(("input_1", {}), *found.items())
    h5py["model"] = Group(model_weights=h5py["weights"], optimizer_weights=Group())
    for name in ("weights", "model"):
        (tmp_path / f"{name}.h5").write_text(name)
        model = net()
        load_keras(model, str(tmp_path / f"{name}.h5"))
        assert holds(model, arrays)


def test_old_files_take_models_within_models_apart(h5py, tmp_path):
    arrays = values()
    inner = {f"inner/{name}": array for name, array in arrays.items() if not name.startswith("head")}
    h5py["weights"] = old_file(("inner", inner), ("head", {n: a for n, a in arrays.items() if n.startswith("head")}))
    (tmp_path / "model.h5").write_text("weights")
    model = net()
    load_keras(model, tmp_path / "model.h5")
    assert holds(model, arrays)


def test_long_lists_of_names_in_old_files_are_in_parts():
    attrs = {"layer_names0": [b"a", b"b"], "layer_names1": ["c"]}
    assert keras_files._texts(attrs, "layer_names") == ["a", "b", "c"]
    assert keras_files._texts({}, "layer_names") is None


def keras_archive(path, names, **files):
    config = {"config": {"layers": [{"config": {"name": name}} for name in names]}}
    held = {"config.json": json.dumps(config), "model.weights.h5": "weights"} | files
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in held.items():
            if text is not None:
                archive.writestr(name, text)


def test_whole_models_load_in_their_order(h5py, tmp_path):
    found = entries()
    h5py["weights"] = new_file(*((key, f"a {name}", arrays) for key, name, arrays in found))
    keras_archive(tmp_path / "model.keras", ["input", "a body.0", "a body.1", "a head"])
    model = net()
    load_keras(model, tmp_path / "model.keras")
    assert holds(model, values())


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("model.txt", "", ValueError, r"files must end in .keras, .h5, .hdf5. Received: '.*model.txt'"),
        ("model.h5", "nothing", ValueError, "model.h5' cannot be read: file signature not found"),
        ("model.keras", "no zip", ValueError, "model.keras' cannot be read: File is not a zip file"),
        ("model.h5", None, FileNotFoundError, "model.h5"),
    ],
)
@pytest.mark.usefixtures("h5py")
def test_files_that_cannot_be_read_are_named(name, content, error, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        load_keras(net(), tmp_path / name)


@pytest.mark.usefixtures("h5py")
def test_an_archive_without_weights_is_named(tmp_path):
    keras_archive(tmp_path / "model.keras", [], **{"model.weights.h5": None})
    with pytest.raises(ValueError, match=r"model.keras' is not a file of Keras: .*model.weights.h5"):
        load_keras(net(), tmp_path / "model.keras")


def test_files_say_that_they_need_h5py(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"load_keras: files of Keras are read by h5py, .* pip install h5py"):
        load_keras(net(), tmp_path / "model.h5")


# What does not fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("head/bias"), "missing: head/bias$"),
        (lambda a: [a.pop("head/bias"), a.pop("head/kernel")], "missing: head/kernel, head/bias$"),
        (lambda a: a.update({"extra/kernel": np.zeros(1)}), "not expected: extra/kernel$"),
        (
            lambda a: a.update({"body.0/kernel": np.zeros((3, 2, 2, 2))}),
            r"of another shape: body.0/kernel \(3, 2, 2, 2\), not \(2, 2, 2, 3\)$",
        ),
        (
            lambda a: a.update({"head/bias": np.array(list("abcd"))}),
            "must be numbers. Received: head/bias of dtype <U1",
        ),
        (lambda a: [a.pop("head/bias"), a.update({"more/b": np.zeros(1)})], "missing: head/bias; not expected: more/b"),
        (lambda a: a.clear(), r"Received: 0 layers with weights \(\) for the 3 of .* \(body.0, body.1, head\)"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_change_nothing(change, message):
    model, arrays = net(), values()
    before = model.get_weights()
    change(arrays)
    with pytest.raises(ValueError, match=f"load_keras: .*{message}"):
        load_keras(model, arrays)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_kinds_that_do_not_fit_are_named(h5py, tmp_path):
    a = list(values().values())
    h5py["weights"] = new_file(("conv2d", None, a[:2]), ("dense", None, a[6:]), ("dense_1", None, a[6:]))
    (tmp_path / "model.h5").write_text("weights")
    with pytest.raises(ValueError, match=r"missing: body.1/gamma, .*; not expected: dense_1/0, dense_1/1"):
        load_keras(net(), tmp_path / "model.h5")


def test_layers_of_another_shape_in_order_are_named():
    arrays = values(("one", "two", "three"))
    arrays["three/kernel"] = np.zeros((4, 12))
    with pytest.raises(ValueError, match=r"of another shape: three/kernel \(4, 12\), not \(12, 4\)"):
        load_keras(net(), arrays)


@pytest.mark.parametrize("source", [None, 3, [np.zeros(3)], io.BytesIO()])
def test_other_sources_are_refused(source):
    with pytest.raises(TypeError, match=r"load_keras: source must be a Keras model, a mapping .* Received: source="):
        load_keras(net(), source)


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="shape of the input is not known yet"):
        load_keras(fastnn.Sequential([Dense(2)]), {})
