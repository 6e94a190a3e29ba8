"""Networks that Keras and this library build from the same words, and the weights and inputs that both get.

``build(words)`` takes a namespace with the layers and ``Model``. What Keras computes is in tests/golden/keras.json,
written by tests/peers/keras_weights.py.
"""

from __future__ import annotations

from network_cases import uniform


def lenet(words):
    """With the names of ``applications.LeNet5``."""
    x = entry = words.Input((24, 20, 1))
    for number, filters in enumerate((6, 16), start=1):
        x = words.Conv2D(filters, 5, activation="tanh", name=f"conv{number}")(x)
        x = words.AveragePooling2D(2, name=f"pool{number}")(x)
    x = words.Flatten(name="flatten")(x)
    for number, units in enumerate((120, 84), start=1):
        x = words.Dense(units, activation="tanh", name=f"fc{number}")(x)
    return words.Model(entry, words.Dense(10, activation="softmax", name="fc3")(x))


def unet(words):
    """With the names of ``applications.UNet``: two steps down, 4 filters, batch normalization, 3 classes."""

    def twice(x, filters, start):
        for number in (1, 2):
            x = words.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{start}conv{number}")(x)
            x = words.BatchNormalization(epsilon=1e-5, name=f"{start}norm{number}")(x)
            x = words.Activation("relu", name=f"{start}relu{number}")(x)
        return x

    x = entry = words.Input((16, 24, 2))
    beside = []
    for level in (1, 2):
        x = twice(x, 4 << (level - 1), f"encoder{level}.enc{level}")
        beside.append(x)
        x = words.MaxPooling2D(2, name=f"pool{level}")(x)
    x = twice(x, 16, "bottleneck.bottleneck")
    for level in (2, 1):
        x = words.Conv2DTranspose(4 << (level - 1), 2, strides=2, name=f"upconv{level}")(x)
        x = words.Concatenate(name=f"skip{level}")([x, beside[level - 1]])
        x = twice(x, 4 << (level - 1), f"decoder{level}.dec{level}")
    return words.Model(entry, words.Conv2D(3, 1, activation="softmax", name="conv")(x))


def images(words):
    """Every layer of images that has weights, without names."""
    x = entry = words.Input((9, 12, 4))
    x = words.Conv2D(6, 3, strides=2, padding="same", groups=2)(x)
    x = words.BatchNormalization()(x)
    x = words.Conv2DTranspose(5, 3, strides=2, padding="same")(x)
    x = words.PReLU(shared_axes=[1, 2])(x)
    x = words.Conv2DTranspose(4, (2, 3), strides=(1, 2), activation="tanh")(x)
    x = words.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = words.GroupNormalization(4)(x)
    x = words.SeparableConv2D(5, 3, padding="same", use_bias=False)(x)
    x = words.LayerNormalization()(x)
    x = words.PReLU()(x)
    x = words.Dropout(0.5)(words.Flatten()(x))
    x = words.Dense(8, activation="relu", use_bias=False)(x)
    return words.Model(entry, words.Dense(3)(x))


def signals(words):
    """Signals and volumes."""
    signal, volume = words.Input((15, 3)), words.Input((4, 5, 6, 2))
    x = words.Conv1DTranspose(4, 3, strides=2)(words.Conv1D(5, 4, dilation_rate=2)(signal))
    x = words.SeparableConv1D(3, 3)(words.DepthwiseConv1D(2)(x))
    y = words.Conv3DTranspose(3, 3, strides=2, padding="same")(words.Conv3D(4, (1, 2, 3))(volume))
    ends = [words.GlobalAveragePooling1D()(x), words.GlobalMaxPooling3D()(y)]
    return words.Model([signal, volume], words.Dense(4)(words.Concatenate()(ends)))


def branches(words):
    """Branches of layers that look alike, without names, and a layer that is called twice."""
    x = entry = words.Input((6,))
    again = words.Dense(6)
    for number in range(3):
        side = words.Dense(6, activation="tanh")(x)
        way = words.Dense(6, activation="tanh")(words.Dense(6)(x))
        long = words.Dense(6)(words.Dense(6, activation="tanh")(words.Dense(6)(x)))
        x = words.Add()([side, x, long, way] if number % 2 else [way, side, long])
        x = again(x) if number < 2 else x
    other = words.Dense(3)(x)
    return words.Model(entry, words.Concatenate()([words.Dense(3)(x), other, words.Dense(2)(entry)]))


CASES = {case.__name__: case for case in (lenet, unet, images, signals, branches)}


def value(case, number, name, shape):
    """The array of the weight of that number and name."""
    drawn = uniform(f"{case} {number}", tuple(shape))
    return (1.0 if name in ("gamma", "moving_variance") else 0.0) + 0.4 * drawn


def inputs(case, shapes):
    """Three rows for each input."""
    return [uniform(f"{case}: x{number}", (3, *shape[1:])) for number, shape in enumerate(shapes)]
