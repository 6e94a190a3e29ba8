"""The order of the rows in each epoch, decided by the model's seed and by how many epochs it was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastnn.training import Trainable


def shuffling(what: str, value: Any) -> bool | str:
    """The argument ``shuffle``, checked."""
    if isinstance(value, bool | np.bool_) or value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value == "batch":
        return value
    raise ValueError(f"{what}: shuffle must be True, False or 'batch'. Received: shuffle={value!r}")


class Orders:
    """The order of the rows in each epoch. Made for BLOCK epochs at a time.

    It depends on nothing but the arguments, the model's seed and the number of the epoch: training that was saved goes
    on as if it had not stopped, and data that are read from a file come in the order in which an array's rows would.

    Args:
        rows: how many
        shuffle: whether each epoch has another order; "batch" shuffles batches of rows that are neighbours in the data,
            the smaller last one staying the last
        places: the numbers of the rows in the data; 0, 1, ... if None
        batch: rows of a batch
    """

    BLOCK = 64  # part of what a seed means: with another number the orders are others

    def __init__(
        self, model: Trainable, rows: int, shuffle: bool | str, places: np.ndarray | None = None, batch: int = 1
    ) -> None:
        self.model, self.shuffle, self.batch = model, shuffle, batch
        self.block = max(1, min(self.BLOCK, 65536 // rows))  # not too much memory
        self._key: Any = None
        self._orders: np.ndarray = (np.arange(rows) if places is None else places)[None]
        self._rows = np.sort(self._orders[0]) if shuffle == "batch" else self._orders[0]

    def of(self, number: int) -> Any:
        """The numbers of the rows (N,), int64, in the order of that epoch, the model's first being 0."""
        if not self.shuffle:
            return self._orders[0]
        if self.shuffle == "batch":
            return self._batches(number)
        block, index = divmod(number, self.block)
        if self._key != (self.model.seed, block):
            rng = np.random.default_rng([self.model.seed, 1, block])
            rows = np.tile(self._rows, (self.block, 1))
            self._key, self._orders = (self.model.seed, block), rng.permuted(rows, axis=1, out=rows)
        return self._orders[index]

    def _batches(self, number: int) -> np.ndarray:
        full = len(self._rows) // self.batch
        order = np.random.default_rng([self.model.seed, 3, number]).permutation(full)
        shuffled = self._rows[: full * self.batch].reshape(full, self.batch)[order]
        return np.concatenate([shuffled.reshape(-1), self._rows[full * self.batch :]])
