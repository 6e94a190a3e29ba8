"""Prediction of images larger than those a network was trained on, tile after tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np

from fastnn.configurable import whole
from fastnn.imaging.patches import assemble, spatial

__all__ = ["Predictor", "predict_tiled"]


class Predictor(Protocol):
    """A model: whatever predicts a batch."""

    def predict(self, x: np.ndarray, /) -> Any:
        """(N, *tile, C) to (N, *tile, F)."""


def predict_tiled(
    model: Predictor,
    x: Any,
    tile: Sequence[int],
    overlap: float | Sequence[float] = 0.25,
    batch_size: int = 4,
) -> np.ndarray:
    """Predict each pixel of an image or volume of any size, by overlapping tiles without seams.

    Each tile counts the less the nearer its edge is, where a network knows less of what is around. A larger overlap is
    smoother and takes longer: at 0.5 a volume is computed eight times. Where ``x`` is smaller than a tile, it is
    reflected at its edges, and the prediction cropped. Besides ``x`` and the result, memory holds ``batch_size`` tiles,
    and what the model needs for them.

    Args:
        model: has ``predict``, which takes float32 (N, *tile, C) and gives (N, *tile, F), such as a fully convolutional
            ``fastnn.Model``
        x: one image (H, W), (H, W, C) or volume (D, H, W), (D, H, W, C), by the length of ``tile``: an array, Volume,
            memmap, or whatever has a shape and can be sliced. Without C, a channel axis of 1 is added for the model.
        tile: (TH, TW) or (TD, TH, TW), the size to predict at a time, such as that of training
        overlap: share of a tile that the next one covers too, 0 to below 1; one number, or one an axis
        batch_size: so many tiles at a time

    Returns:
        float32 (*space, F): the same bits each time, as far as the model's are

    Raises:
        ValueError: the tile does not fit the axes of ``x``, the overlap or batch size is another, or the model's output
            has another size than its input.

    Example:
        >>> class Brighter:
        ...     def predict(self, x):
        ...         return x + 1
        >>> y = predict_tiled(Brighter(), np.zeros((100, 70)), tile=(64, 64))
        >>> y.shape, float(y.min()), float(y.max())
        ((100, 70, 1), 1.0, 1.0)
    """
    if not callable(getattr(model, "predict", None)):
        raise TypeError(f"predict_tiled: model must have a method predict. Received: {type(model).__name__}")
    batch = whole("predict_tiled", "batch_size", batch_size)
    array, grid = spatial("predict_tiled", x, tile, overlap)

    def predictions() -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        positions = iter(grid)
        while group := list(islice(positions, batch)):
            tiles = np.stack([grid.cut(array, position) for position in group]).astype(np.float32, copy=False)
            inputs = tiles if tiles.ndim == len(grid.size) + 2 else tiles[..., None]
            wanted = (len(group), *grid.size)
            try:
                outputs = np.asarray(model.predict(inputs))
            except ValueError as error:  # arrays that are not alike
                raise ValueError(f"predict_tiled: the model must predict one array, {wanted} and F: {error}") from None
            if outputs.ndim != len(wanted) + 1 or outputs.shape[:-1] != wanted:
                raise ValueError(
                    f"predict_tiled: the model must predict (N, *tile, F) = {wanted} and F. Received: {outputs.shape}"
                )
            yield from zip(group, outputs, strict=True)

    return assemble(predictions(), grid.shape, grid.size, overlap)
