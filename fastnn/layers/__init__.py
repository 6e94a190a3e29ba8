"""Layers: one file a family."""

from fastnn.configurable import table
from fastnn.layers.activation import ELU, LeakyReLU, PReLU, ReLU, Softmax
from fastnn.layers.augmentation import RandomContrast, RandomFlip, RandomRotation, RandomTranslation, RandomZoom
from fastnn.layers.base import Layer
from fastnn.layers.convolutional import (
    Conv1D,
    Conv1DTranspose,
    Conv2D,
    Conv2DTranspose,
    Conv3D,
    Conv3DTranspose,
)
from fastnn.layers.core import Activation, Dense, Flatten, Input, InputLayer
from fastnn.layers.depthwise import DepthwiseConv1D, DepthwiseConv2D, SeparableConv1D, SeparableConv2D
from fastnn.layers.merging import (
    Add,
    Average,
    Concatenate,
    Dot,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
    add,
    average,
    concatenate,
    dot,
    maximum,
    minimum,
    multiply,
    subtract,
)
from fastnn.layers.normalization import BatchNormalization, GroupNormalization, LayerNormalization
from fastnn.layers.pooling import (
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    AvgPool1D,
    AvgPool2D,
    AvgPool3D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    GlobalAvgPool3D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    GlobalMaxPool3D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    GlobalMaxPooling3D,
    MaxPool1D,
    MaxPool2D,
    MaxPool3D,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
)
from fastnn.layers.regularization import (
    Dropout,
    GaussianNoise,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
)
from fastnn.layers.reshaping import (
    Cropping1D,
    Cropping2D,
    Cropping3D,
    Permute,
    Reshape,
    UpSampling1D,
    UpSampling2D,
    UpSampling3D,
    ZeroPadding1D,
    ZeroPadding2D,
    ZeroPadding3D,
)

#: The layers that a model file may name.
LAYERS = table(
    [
        InputLayer, Dense, Activation, Dropout, Flatten,
        ReLU, LeakyReLU, PReLU, ELU, Softmax,
        SpatialDropout1D, SpatialDropout2D, SpatialDropout3D, GaussianNoise,
        Reshape, Permute, UpSampling1D, UpSampling2D, UpSampling3D,
        ZeroPadding1D, ZeroPadding2D, ZeroPadding3D, Cropping1D, Cropping2D, Cropping3D,
        Conv1D, Conv2D, Conv3D, Conv1DTranspose, Conv2DTranspose, Conv3DTranspose,
        DepthwiseConv1D, DepthwiseConv2D, SeparableConv1D, SeparableConv2D,
        BatchNormalization, LayerNormalization, GroupNormalization,
        Add, Subtract, Multiply, Average, Maximum, Minimum, Concatenate, Dot,
        RandomFlip, RandomRotation, RandomZoom, RandomTranslation, RandomContrast,
        MaxPooling1D, MaxPooling2D, MaxPooling3D,
        AveragePooling1D, AveragePooling2D, AveragePooling3D,
        GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D,
        GlobalAveragePooling1D, GlobalAveragePooling2D, GlobalAveragePooling3D,
    ]
)  # fmt: skip

_BUILT_IN = frozenset(LAYERS)


def register(cls: type[Layer]) -> type[Layer]:
    """Let model files name a layer class of your own, as a decorator: models with it can then be saved and loaded.

    A file holds the name of the class and the arguments of its constructor, which must be stored under their own names
    and be numbers, texts, lists or None. Who loads it must have registered the class, too: no code is in the file.

    Args:
        cls: subclass of Layer. One of the same name that was registered before is replaced

    Returns:
        ``cls``

    Raises:
        TypeError: it is not a subclass of Layer
        ValueError: a layer of fastnn has that name

    Example:
        >>> import fastnn
        >>> from fastnn.layers import Layer
        >>> @fastnn.layers.register
        ... class Doubled(Layer):
        ...     def call(self, x, training=None):
        ...         return 2.0 * x
        >>> model = fastnn.Sequential([Doubled(input_shape=(3,))])
        >>> fastnn.Sequential.from_config(model.get_config()).layers
        [<Doubled doubled>]
    """
    if not isinstance(cls, type) or not issubclass(cls, Layer):
        raise TypeError(f"register: takes a subclass of fastnn.layers.Layer. Received: {cls!r}")
    if cls.__name__ in _BUILT_IN:
        raise ValueError(f"register: the name must not be that of a layer of fastnn. Received: {cls.__name__}")
    LAYERS[cls.__name__] = cls
    return cls


__all__ = [
    "ELU",
    "LAYERS",
    "Activation",
    "Add",
    "Average",
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "AvgPool1D",
    "AvgPool2D",
    "AvgPool3D",
    "BatchNormalization",
    "Concatenate",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Cropping1D",
    "Cropping2D",
    "Cropping3D",
    "Dense",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "Dot",
    "Dropout",
    "Flatten",
    "GaussianNoise",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "GlobalAvgPool3D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "GlobalMaxPool3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
    "GroupNormalization",
    "Input",
    "InputLayer",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPool3D",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "Maximum",
    "Minimum",
    "Multiply",
    "PReLU",
    "Permute",
    "RandomContrast",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "RandomZoom",
    "ReLU",
    "Reshape",
    "SeparableConv1D",
    "SeparableConv2D",
    "Softmax",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "Subtract",
    "UpSampling1D",
    "UpSampling2D",
    "UpSampling3D",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "ZeroPadding3D",
    "add",
    "average",
    "concatenate",
    "dot",
    "maximum",
    "minimum",
    "multiply",
    "register",
    "subtract",
]  # fmt: skip
