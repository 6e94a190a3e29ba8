"""Layers: one file a family."""

from fastnn.configurable import table
from fastnn.layers.base import Layer
from fastnn.layers.core import Activation, Dense, Dropout, Flatten, Input, InputLayer

#: The layers that a model file may name.
LAYERS = table([InputLayer, Dense, Activation, Dropout, Flatten])

__all__ = ["LAYERS", "Activation", "Dense", "Dropout", "Flatten", "Input", "InputLayer", "Layer"]
