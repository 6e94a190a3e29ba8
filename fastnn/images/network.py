"""The network of an image job: augmentation, blocks of convolutions as the image's size asks for, average pooling."""

from __future__ import annotations

from typing import Any

from fastnn.images.preprocessor import ImagePreprocessor

__all__ = ["FLIPS", "default_filters", "image_layers"]

FLIPS = ("none", "horizontal", "vertical", "both")
#: What augmentation does at most, to either side: share of a full turn, of the size, of the sides.
ROTATION, ZOOM, SHIFT = 0.03, 0.1, 0.1
#: Images with a shorter side than this are not augmented unless that is asked for: they would lose too much.
AUGMENTED_FROM = 16
FIRST_FILTERS, MOST_FILTERS = 16, 128
#: A block is added while the image has so many pixels a side.
LAST_SIDE = 4
#: The moving averages of batch normalization follow quickly: small sets of images have few batches in an epoch.
MOMENTUM = 0.9


def default_filters(size: tuple[int, int]) -> tuple[int, ...]:
    """The filters of each block for images (H, W): 16, and twice as many after each pooling, up to 128.

    Example:
        >>> default_filters((64, 48)), default_filters((8, 8)), default_filters((2, 2))
        ((16, 32, 64, 128), (16, 32), (16,))
    """
    filters, side = [FIRST_FILTERS], min(size) // 2
    while side >= LAST_SIDE:
        filters.append(min(2 * filters[-1], MOST_FILTERS))
        side //= 2
    return tuple(filters)


def image_layers(
    pre: ImagePreprocessor,
    filters: tuple[int, ...],
    *,
    activation: str,
    dropout: float,
    augment: bool | None,
    flip: str,
) -> list[Any]:
    """All layers but the output: each block is a 3x3 convolution, batch normalization, activation, 2x2 max pooling.

    Args:
        pre: says the shape of the images.
        filters: of each block; () for the default.
        activation: after each convolution.
        dropout: before the output.
        augment: whether images are turned, zoomed and moved a little in training; None: unless they are tiny.
        flip: "none", "horizontal", "vertical" or "both": how they are flipped in training, one time out of two.
    """
    from fastnn import layers

    height, width, channels = pre.input_shape
    found: list[Any] = [layers.Input(shape=(height, width, channels))]
    if flip != "none":
        found.append(layers.RandomFlip("horizontal_and_vertical" if flip == "both" else flip))
    if augment or (augment is None and min(height, width) >= AUGMENTED_FROM):
        found += [layers.RandomRotation(ROTATION), layers.RandomZoom(ZOOM), layers.RandomTranslation(SHIFT, SHIFT)]
    for count in filters or default_filters((height, width)):
        found += [
            layers.Conv2D(count, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=MOMENTUM),
            layers.Activation(activation),
        ]
        pool = (2 if height > 1 else 1, 2 if width > 1 else 1)
        if max(pool) > 1:
            found.append(layers.MaxPooling2D(pool))
        height, width = height // pool[0], width // pool[1]
    found.append(layers.GlobalAveragePooling2D())
    if dropout:
        found.append(layers.Dropout(dropout))
    return found
