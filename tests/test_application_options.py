"""The networks of the literature: sizes, shapes, names, files, and weights that do not fit."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import numpy as np
import pytest

import fastnn
from fastnn import Model, Sequential, applications
from fastnn.applications import (
    VGG11,
    VGG13,
    VGG16,
    VGG19,
    AlexNet,
    GoogLeNet,
    LeNet5,
    ResNet18,
    ResNet34,
    UNet,
    alexnet,
    load_torch,
    vgg,
)
from fastnn.layers import (
    Activation,
    Add,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    Input,
    InputLayer,
    PReLU,
    Reshape,
)
from fastnn.models import load_model, model_from_config

NETWORKS = [getattr(applications, name) for name in applications.__all__ if not name.startswith("load_")]


@pytest.fixture
def narrow(monkeypatch):
    """AlexNet and VGG with few units."""
    monkeypatch.setattr(alexnet, "HIDDEN", 32)
    monkeypatch.setattr(vgg, "HIDDEN", 32)


def rows(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def small(network, **options):
    """A network for small images."""
    shape = (64, 64, 1)
    return network(shape, 3, **({"base_filters": 4, "depth": 2} if network is UNet else {}), **options)


# Sizes


@pytest.mark.parametrize(
    ("network", "options", "size"),
    [
        # the papers' layers
        (LeNet5, {}, 61_706),
        (VGG11, {}, 132_863_336),
        (VGG13, {}, 133_047_848),
        (VGG16, {}, 138_357_544),
        (VGG19, {}, 143_667_240),
        (UNet, {"input_shape": (64, 64, 1), "classes": 2, "base_filters": 64}, 31_030_658),
        # the authors' Caffe model
        (GoogLeNet, {"batch_norm": False}, 6_998_552),
        (GoogLeNet, {"batch_norm": False, "auxiliary": True}, 13_378_280),
        # torchvision's models
        (AlexNet, {}, 61_100_840),
        (ResNet18, {}, 11_689_512),
        (ResNet34, {}, 21_797_672),
        (GoogLeNet, {}, 6_624_904),
        (GoogLeNet, {"auxiliary": True}, 13_004_888),
        # PyTorch Hub's
        (UNet, {"input_shape": (64, 64, 3), "classes": 1, "batch_norm": True}, 7_763_041),
    ],
)
def test_the_number_of_trained_weights_is_known(network, options, size, monkeypatch):
    layers = []
    monkeypatch.setattr(Model, "_place_weights", lambda self: layers.extend(self._layers))  # nothing is allocated
    network(**options)
    assert sum(weight.size for layer in layers for weight in layer.weights if weight.trainable) == size


# Shapes


@pytest.mark.parametrize("network", NETWORKS)
def test_arguments_are_named_as_in_keras(network):
    names = list(inspect.signature(network).parameters)
    assert names[:2] == ["input_shape", "classes"]
    assert {"classifier_activation", "name"} < set(names)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("network", "least"), [(LeNet5, 16), (AlexNet, 63), (VGG11, 32), (VGG19, 32), (GoogLeNet, 15), (ResNet18, 1)]
)
def test_the_smallest_images_work_and_smaller_ones_are_refused(network, least):
    model = network((least, least + 1, 2), classes=3)
    assert model.output_shape == (None, 3)
    assert np.allclose(model.predict(rows(2, least, least + 1, 2), verbose=0).sum(axis=1), 1)
    if least > 1:
        with pytest.raises(ValueError, match=f"{network.__name__}: input_shape .* at least {least}. Received: input_s"):
            network((least, least - 1, 3), classes=3)


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 64, 1), 64, (64, 0, 1), "big", None])
@pytest.mark.parametrize("network", NETWORKS)
def test_shapes_that_are_no_images_are_refused(network, shape):
    if network is UNet and shape == (64, 64, 64, 1):
        return
    with pytest.raises(ValueError, match=f"{network.__name__}: input_shape"):
        network(shape, classes=2)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, "classes must be a positive integer"),
        ({"classes": 2.5}, "classes must be a positive integer"),
        ({"classes": 1, "classifier_activation": "softmax"}, "classifier_activation must be 'sigmoid' or None"),
        ({"classes": 2, "classifier_activation": "soft"}, "classifier_activation: activation must be one of"),
        ({"classes": 2, "name": "a/b"}, "name must be"),
    ],
)
def test_arguments_out_of_range_are_named(network, options, message):
    with pytest.raises((ValueError, TypeError), match=f"{network.__name__}: {message}"):
        network((64, 64, 1), **options)


@pytest.mark.parametrize(
    ("shape", "depth", "message"),
    [
        ((100, 96, 1), 4, r"multiples of 2\*\*depth = 16, here 96 or 112, 96: pad or crop. Received: .*\(100"),
        ((8, 32, 30, 1), 3, "= 8, here 8, 32, 24 or 32"),
        ((4, 64, 1), 3, "here 8, 64"),
        ((64, 64, 1), 0, "depth must be a positive integer"),
        ((64, 64, 1), 17, "depth must be at most 16"),
    ],
)
def test_a_unet_says_which_sizes_go_with_its_depth(shape, depth, message):
    with pytest.raises(ValueError, match=f"UNet: .*{message}"):
        UNet(shape, 1, depth=depth)


def test_a_unet_ends_in_probabilities():
    x = rows(2, 8, 8, 1)
    several = UNet((8, 8, 1), 3, base_filters=2, depth=1).predict(x, verbose=0)
    np.testing.assert_allclose(several.sum(axis=-1), 1, rtol=1e-5)
    one = UNet((8, 8, 1), 1, base_filters=2, depth=1)
    assert one.layers[-1].activation == "sigmoid"
    assert UNet((8, 8, 1), 1, depth=1, classifier_activation=None).layers[-1].activation == "linear"


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("network", NETWORKS)
def test_logits_are_what_the_last_activation_takes(network):
    fastnn.set_seed(1)
    model = small(network)
    logits = small(network, classifier_activation=None)
    logits.set_weights(model.get_weights())
    x = rows(2, 64, 64, 1)
    z = np.exp(logits.predict(x, verbose=0).astype(np.float64))
    np.testing.assert_allclose(model.predict(x, verbose=0), z / z.sum(-1, keepdims=True), rtol=1e-3, atol=1e-6)


def test_googlenet_has_its_classifiers_in_order():
    model = GoogLeNet((32, 32, 1), 2, auxiliary=True)
    assert model.output_shape == [(None, 2)] * 3
    assert [tensor.source.layer.name for tensor in model.outputs] == ["fc", "aux1.fc2", "aux2.fc2"]
    assert GoogLeNet((32, 32, 1), 2).output_shape == (None, 2)


# Names, files, descriptions


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_survives_its_file(network, tmp_path):
    model = small(network)
    model.save(tmp_path / "model.fnn")
    again = load_model(tmp_path / "model.fnn")
    assert again.get_config() == model.get_config()
    x = rows(1, 64, 64, 1)
    assert (again.predict(x, verbose=0) == model.predict(x, verbose=0)).all()


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("network", NETWORKS)
def test_a_summary_lists_all_layers(network):
    lines: list[str] = []
    model = small(network)
    model.summary(print_fn=lines.append)
    text = "\n".join(lines)
    assert all(re.search(rf"^{re.escape(layer.name)} ", text, re.MULTILINE) for layer in model.layers)


def test_classifiers_survive_a_description():
    model = GoogLeNet((32, 32, 1), 2, auxiliary=True)
    assert model_from_config(model.get_config()).output_shape == model.output_shape


def test_networks_with_names_can_be_parts_of_one_model():
    x = Input((16, 16, 1))
    parts = [UNet((16, 16, 1), 1, base_filters=2, depth=2, name=name) for name in ("one", "other")]
    model = Model(x, Add()([part(x) for part in parts]))
    assert model.count_params() == 2 * parts[0].count_params()
    assert all(weight.name.startswith("one.") for weight in parts[0].weights)
    state = {"conv.weight": np.zeros((1, 2, 1, 1)), "conv.bias": np.ones(1)}
    load_torch(parts[1], state, skip=[layer.name[6:] for layer in parts[1].layers if layer.name != "other.conv"])
    assert parts[1].get_layer("other.conv").bias.value == 1


def test_networks_have_different_names():
    first, second = (LeNet5() for _ in range(2))
    assert first.name.startswith("lenet5") and second.name.startswith("lenet5") and first.name != second.name
    assert LeNet5(name="reader").name == "reader"


def test_applications_are_there_without_being_imported():
    code = "import sys, fastnn; print('fastnn.applications' in sys.modules, fastnn.applications.UNet.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "UNet"]
    with pytest.raises(AttributeError, match="has no attribute 'application'"):
        fastnn.application  # noqa: B018


# Weights of other libraries


class Tensor:
    """As much of a PyTorch tensor as is used."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def cpu(self):
        return self.array


def net():
    model = Sequential(
        [
            Conv2D(3, (2, 3), name="body.0", input_shape=(4, 5, 2)),
            BatchNormalization(name="body.1"),
            Conv2DTranspose(4, (1, 2), name="up"),
            Flatten(),
            Dropout(0.5),
            Dense(6, name="head"),
        ]
    )
    model.build()
    return model


def torch_state():
    shapes = {
        "body.0.weight": (3, 2, 2, 3),
        "body.0.bias": (3,),
        "body.1.weight": (3,),
        "body.1.bias": (3,),
        "body.1.running_mean": (3,),
        "body.1.running_var": (3,),
        "up.weight": (3, 4, 1, 2),
        "up.bias": (4,),
        "head.weight": (6, 4 * 3 * 4),
        "head.bias": (6,),
    }
    rng = np.random.default_rng(1)
    return {name: rng.uniform(0.5, 1.5, shape) for name, shape in shapes.items()}


def test_weights_are_turned_to_channels_last():
    model, state = net(), torch_state()
    load_torch(model, {**state, "body.1.num_batches_tracked": np.array(7)})
    conv, norm, up, head = (model.get_layer(name) for name in ("body.0", "body.1", "up", "head"))
    assert conv.kernel.value[1, 2, 0, 1] == np.float32(state["body.0.weight"][1, 0, 1, 2])
    assert up.kernel.value[0, 1, 3, 2] == np.float32(state["up.weight"][2, 3, 0, 1])
    np.testing.assert_array_equal(norm.gamma.value, state["body.1.weight"].astype(np.float32))
    np.testing.assert_array_equal(norm.beta.value, state["body.1.bias"].astype(np.float32))
    np.testing.assert_array_equal(norm.moving_mean.value, state["body.1.running_mean"].astype(np.float32))
    np.testing.assert_array_equal(norm.moving_variance.value, state["body.1.running_var"].astype(np.float32))
    h, w, c, f = 2, 1, 3, 5  # of maps of (3, 4, 4)
    assert head.kernel.value[(h * 4 + w) * 4 + c, f] == np.float32(state["head.weight"][f, (c * 3 + h) * 4 + w])


def test_tensors_load_as_arrays_do():
    one, other, state = net(), net(), torch_state()
    load_torch(one, state)
    load_torch(other, {name: Tensor(array) for name, array in state.items()})
    assert all((a == b).all() for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def test_dense_layers_after_global_pooling_are_not_reordered():
    model = Sequential([GlobalAveragePooling2D(input_shape=(2, 2, 3)), Dense(2, name="fc", use_bias=False)])
    kernel = np.arange(6.0).reshape(2, 3)
    load_torch(model, {"fc.weight": kernel})
    np.testing.assert_array_equal(model.get_weights()[0], kernel.T)


@pytest.mark.parametrize("flat", [[Flatten()], [Reshape((-1,))], [Flatten(), Flatten()], [Dropout(0.1), Flatten()]])
def test_flattened_maps_are_followed_to_where_they_are_used(flat):
    """Through a table beside them, and a normalization, whose entries lie as the features do."""
    rng = np.random.default_rng(0)
    image, table = Input((2, 3, 4)), Input((5,))
    features = Sequential([Input((2, 3, 4)), *flat])(image)
    both = BatchNormalization(name="norm", epsilon=1e-5)(Concatenate()([table, features]))
    model = Model([image, table], Dense(3, name="head")(Activation("tanh")(both)))
    state = {"head.weight": rng.normal(size=(3, 29)), "head.bias": rng.normal(size=3)}
    state |= {f"norm.{name}": rng.random(29) + 0.5 for name in ("weight", "bias", "running_mean", "running_var")}
    load_torch(model, state)
    x, t = rng.normal(size=(6, 2, 3, 4)), rng.normal(size=(6, 5))
    there = np.concatenate([t, x.transpose(0, 3, 1, 2).reshape(6, -1)], 1)
    there = (there - state["norm.running_mean"]) / np.sqrt(state["norm.running_var"] + 1e-5)
    there = np.tanh(there * state["norm.weight"] + state["norm.bias"])
    wanted = there @ state["head.weight"].T + state["head.bias"]
    np.testing.assert_allclose(model.predict([x, t]), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 6, 1), (1, 1, 36)])
def test_maps_of_one_channel_or_one_pixel_lie_as_there(shape):
    model = Sequential([Dense(36, name="a", input_shape=(5,)), Reshape(shape), Conv2D(2, 1, name="b")])
    state = {"a.weight": np.ones((36, 5)), "a.bias": np.ones(36), "b.weight": np.ones((2, shape[-1], 1, 1))}
    load_torch(model, {**state, "b.bias": np.arange(2.0)})
    np.testing.assert_array_equal(model.get_weights()[3], [0, 1])
    load_torch(Sequential([Reshape((4, 3, 1), input_shape=(4, 3)), Conv2D(1, 1, name="b", use_bias=False)]),
               {"b.weight": np.ones((1, 1, 1, 1))})  # fmt: skip


def test_part_of_a_model_loads():
    x = Input((8, 8, 2))
    h = Conv2D(4, 3, name="a")(x)
    model = Model(h, Conv2D(3, 1, name="b")(h))
    load_torch(model, {"b.weight": np.ones((3, 4, 1, 1)), "b.bias": np.arange(3.0)})
    np.testing.assert_array_equal(model.get_weights()[1], [0, 1, 2])


def test_what_is_skipped_need_not_be_followed():
    maps = Sequential([Conv2D(4, 3, name="a", input_shape=(8, 8, 2)), Reshape((6, 24)), Dense(3, name="head")])
    load_torch(maps, {"a.weight": np.ones((4, 2, 3, 3)), "a.bias": np.arange(4.0)}, skip=["head"])
    np.testing.assert_array_equal(maps.get_weights()[1], [0, 1, 2, 3])


def test_features_whose_order_cannot_be_told_are_refused():
    maps = Sequential([Dense(18, name="a", input_shape=(2,)), Reshape((3, 3, 2)), Conv2D(1, 3, name="b")])
    x = Input((2, 3, 4))
    mixed = Model(x, Dense(2, name="b")(Add()([Flatten()(x), Dense(24, name="a")(Flatten()(x))])))
    for model in (maps, mixed):
        with pytest.raises(ValueError, match=r"load_torch: the order of the features that <(Conv2D|Dense) b> takes"):
            load_torch(model, {})


def test_modules_can_be_skipped():
    model = net()
    before = model.get_layer("head").get_weights()
    state = {name: array for name, array in torch_state().items() if not name.startswith("head")}
    load_torch(model, {**state, "head.weight": np.zeros((1000, 48)), "aux.weight": np.zeros(1)}, skip=["head", "aux"])
    assert all((a == b).all() for a, b in zip(before, model.get_layer("head").get_weights(), strict=True))
    assert model.get_layer("up").bias.value[0] == np.float32(state["up.bias"][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("up.bias"), "missing: up.bias$"),
        (lambda s: s.update(extra=np.zeros(1)), "not expected: extra$"),
        (
            lambda s: s.update({"body.0.weight": np.zeros((3, 2, 3, 2))}),
            r"of another shape: body.0.weight \(3, 2, 3, 2\), not \(3, 2, 2, 3\)",
        ),
        (lambda s: s.update({"up.bias": s["up.bias"][:, None]}), r"up.bias \(4, 1\), not \(4,\)"),
        (lambda s: s.update({"up.bias": np.array(list("abcd"))}), "must be numbers. Received: up.bias of dtype <U1"),
        (lambda s: s.clear(), "missing: body.0.weight, body.0.bias, .* and 2 more"),
        (lambda s: [s.pop("up.bias"), s.update(more=np.zeros(1))], "missing: up.bias; not expected: more"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_change_nothing(change, message):
    model, state = net(), torch_state()
    before = model.get_weights()
    change(state)
    with pytest.raises(ValueError, match=f"load_torch: entries must be|load_torch: the entries must be.*{message}"):
        load_torch(model, state)
    with pytest.raises(ValueError, match=message):
        load_torch(model, state)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_layers_that_pytorch_has_otherwise_are_named():
    model = Sequential([Dense(2, input_shape=(3,)), PReLU(name="slopes")])
    with pytest.raises(ValueError, match=r"load_torch: layers with weights must be.*slopes"):
        load_torch(model, {})


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(("network", "convolutions"), [(VGG16, (2, 2, 3, 3, 3)), (VGG19, (2, 2, 4, 4, 4))])
def test_weights_lie_in_the_order_of_keras(network, convolutions):
    shapes, before = [], 3
    for filters, times in zip((64, 128, 256, 512, 512), convolutions, strict=True):
        for _ in range(times):
            shapes += [(3, 3, before, filters), (filters,)]
            before = filters
    shapes += [(512, 32), (32,), (32, 32), (32,), (32, 7), (7,)]
    model = network((32, 32, 3), 7)
    assert [weight.shape for weight in model.get_weights()] == shapes
    assert not any(isinstance(layer, InputLayer) for layer in model.layers)
