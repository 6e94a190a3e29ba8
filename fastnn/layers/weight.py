"""What layers learn: arrays in a model's flat vector of weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fastnn import initializers, regularizers
from fastnn.graph import Place, Tensor, Variable

_versions = itertools.count()


class Version:
    """The version of a flat vector of weights. Whatever changes a weight in it calls ``advance`` afterwards, so that
    what was computed from the weights is known to be old.

    Attributes:
        number: differs from all numbers before, of all vectors
    """

    def __init__(self) -> None:
        self.number = next(_versions)

    def advance(self) -> None:
        """The weights have changed."""
        self.number = next(_versions)


class Trained:
    """What training changes, unless it is frozen: a weight, or a layer with all that it has."""

    #: How often ``trainable`` was set, of any weight or layer: what depends on it need not look at each one again.
    settings: ClassVar[int] = 0

    @property
    def trainable(self) -> bool:
        """Whether training changes it."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        Trained.settings += 1


class Weight(Variable, Trained):
    """An array that belongs to a layer. A model gives it its place in the model's flat vector of weights.

    Used in an op or with an operator, it is its Tensor beside Tensors and its array beside arrays.

    Attributes:
        value: the array, a read-only view of the vector once it has a place; ``assign`` changes it
        version: that of the vector
        tensor: the Tensor that stands for it in graphs
        local: its name in its layer; ``name`` begins with that of the layer
        trainable: whether it has gradients; moving averages have none
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: initializers.Initializer,
        regularizer: regularizers.Regularizer | None,
        trainable: bool = True,
    ) -> None:
        self.name = name
        self.local = name.rpartition(".")[2]
        self.trainable = trainable
        self.shape = shape
        self.initializer = initializer
        self.regularizer = regularizer
        self.tensor = Tensor(shape, name=name)
        self.value: np.ndarray = np.empty(0)
        self.vector: np.ndarray | None = None
        self.version = Version()
        self.offset = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def put(self, vector: np.ndarray, buffer: str, offset: int, version: Version) -> None:
        """Move into ``vector``, which has that version, at ``offset``; graphs find it in the buffer so named."""
        self.vector, self.offset, self.version = vector, offset, version
        self.value = vector[offset : offset + self.size].reshape(self.shape)
        self.value.flags.writeable = False
        self.tensor.place = Place(buffer, offset)
        version.advance()

    def assign(self, value: Any) -> None:
        """Overwrite the value. Raises ValueError if the shape differs."""
        array = np.asarray(value)
        if array.shape != self.shape:
            raise ValueError(f"{self.name}: needs an array of shape {self.shape}. Received: shape {array.shape}")
        if self.vector is None:
            raise ValueError(f"{self.name}: has no value yet: its model must be built first")
        try:
            self.vector[self.offset : self.offset + self.size] = array.reshape(-1)
        finally:
            self.version.advance()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.value, dtype)

    def __repr__(self) -> str:
        return f"<Weight {self.name} {self.shape}>"


def assign_all(weights: Sequence[Weight], values: Sequence[Any], what: str) -> None:
    """Assign values to weights, all or none."""
    try:
        arrays = [np.asarray(value) for value in values]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: set_weights needs a list of arrays of numbers; {error}") from None
    shapes = [array.shape for array in arrays]
    if shapes != [weight.shape for weight in weights]:
        expected = [weight.shape for weight in weights]
        raise ValueError(f"{what}: set_weights needs arrays of shapes {expected}. Received: shapes {shapes}")
    for weight, array in zip(weights, arrays, strict=True):
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{what}: set_weights needs numbers for {weight.name}. Received: dtype {array.dtype}")
    for weight, array in zip(weights, arrays, strict=True):
        weight.assign(array)
