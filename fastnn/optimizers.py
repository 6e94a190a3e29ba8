"""Optimizers: which update op runs, with which numbers. Names, defaults and formulas are Keras's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastnn.configurable import Configurable, choose, number, table
from fastnn.graph import Node, Tensor
from fastnn.ops import pointwise, update
from fastnn.schedules import SCHEDULES, LearningRateSchedule


class Optimizer(Configurable):
    """Base class.

    Args:
        learning_rate: float >= 0, or a LearningRateSchedule. May be set between epochs
        clipnorm: limit of the Euclidean norm of each weight's gradient
        clipvalue: limit of each gradient element
        global_clipnorm: limit of the norm of all gradients together. At most one of the three

    Attributes:
        iterations: training steps done
        slots: names of the arrays kept for each weight
    """

    parts: ClassVar[dict[str, Any]] = {"learning_rate": lambda: SCHEDULES}
    slots: tuple[str, ...] = ()
    rate_count = 1

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        clipnorm: float | None,
        clipvalue: float | None,
        global_clipnorm: float | None,
    ) -> None:
        self.iterations = 0
        self.owner: Callable[[], Any] | None = None  # a weak reference to the model that it trains
        self.learning_rate = learning_rate
        limits = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        given = {k: number(self._name, k, v, above=0) for k, v in limits.items() if v is not None}
        if len(given) > 1:
            raise ValueError(f"{self._name}: takes one of {', '.join(limits)}. Received: {given}")
        self.clipnorm, self.clipvalue, self.global_clipnorm = (given.get(name) for name in limits)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "owner": None}  # a copy belongs to nobody yet

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def learning_rate(self) -> Any:
        """The number or the schedule."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if not isinstance(value, LearningRateSchedule):
            value = number(self._name, "learning_rate", value, low=0)
        self._learning_rate: float | LearningRateSchedule = value

    def rates(self, first: int, count: int) -> np.ndarray:
        """What the update op needs at each step: float32 (count, rate_count) for the steps ``first`` ..."""
        steps = np.arange(first, first + count)
        rate = self._learning_rate
        values = rate(steps) if isinstance(rate, LearningRateSchedule) else np.full(count, rate)
        return np.ascontiguousarray(self._rates(values, steps + 1.0), dtype=np.float32).reshape(count, self.rate_count)

    def _rates(self, rate: np.ndarray, t: np.ndarray) -> np.ndarray:
        return rate

    def clip(self, gradient: Tensor, whole: bool) -> Tensor:
        """The gradient of one weight, or of all together (``whole``), limited as asked."""
        if whole and self.global_clipnorm is not None:
            return pointwise.clip_norm(gradient, limit=self.global_clipnorm)  # type: ignore[no-any-return]
        if not whole and self.clipnorm is not None:
            return pointwise.clip_norm(gradient, limit=self.clipnorm)  # type: ignore[no-any-return]
        if not whole and self.clipvalue is not None:
            return pointwise.clip(gradient, limit=self.clipvalue)  # type: ignore[no-any-return]
        return gradient

    def update(self, weights: Tensor, slots: list[Tensor], gradient: Tensor, rates: Tensor) -> Node:
        """Record the update of flat ``weights`` (P,) and their slots."""
        raise NotImplementedError


class SGD(Optimizer):
    """Gradient descent, with momentum (Polyak 1964) or Nesterov's (Sutskever et al. 2013) if asked.

    Example:
        >>> SGD(0.1, momentum=0.9, nesterov=True)
        SGD(learning_rate=0.1, momentum=0.9, nesterov=True)
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, clipnorm, clipvalue, global_clipnorm)
        self.momentum = number(self._name, "momentum", momentum, low=0, high=1)
        self.nesterov = bool(nesterov)
        self.slots = ("momentum",) if self.momentum else ()

    def update(self, weights: Tensor, slots: list[Tensor], gradient: Tensor, rates: Tensor) -> Node:
        if not slots:
            return update.sgd(weights, gradient, rates)  # type: ignore[no-any-return]
        node: Node = update.momentum(weights, *slots, gradient, rates, momentum=self.momentum, nesterov=self.nesterov)
        return node


class Adam(Optimizer):
    """Kingma & Ba 2015.

    Example:
        >>> Adam(learning_rate=3e-4)
        Adam(learning_rate=0.0003)
    """

    slots = ("m", "v")
    rate_count = 2

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, clipnorm, clipvalue, global_clipnorm)
        self.beta_1 = number(self._name, "beta_1", beta_1, low=0, below=1)
        self.beta_2 = number(self._name, "beta_2", beta_2, low=0, below=1)
        self.epsilon = number(self._name, "epsilon", epsilon, above=0)

    def _rates(self, rate: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.stack([rate, rate * np.sqrt(1.0 - self.beta_2**t) / (1.0 - self.beta_1**t)], axis=1)

    def _numbers(self) -> dict[str, float]:
        return {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}

    def update(self, weights: Tensor, slots: list[Tensor], gradient: Tensor, rates: Tensor) -> Node:
        return update.adam(weights, *slots, gradient, rates, **self._numbers())  # type: ignore[no-any-return]


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): ``w -= learning_rate * weight_decay * w``.

    Example:
        >>> AdamW(weight_decay=0.01)
        AdamW(weight_decay=0.01)
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, clipnorm, clipvalue, global_clipnorm)
        self.weight_decay = number(self._name, "weight_decay", weight_decay, low=0)

    def update(self, weights: Tensor, slots: list[Tensor], gradient: Tensor, rates: Tensor) -> Node:
        numbers = {**self._numbers(), "weight_decay": self.weight_decay}
        return update.adamw(weights, *slots, gradient, rates, **numbers)  # type: ignore[no-any-return]


class RMSprop(Optimizer):
    """Tieleman & Hinton 2012.

    Example:
        >>> RMSprop(learning_rate=0.01, rho=0.95)
        RMSprop(learning_rate=0.01, rho=0.95)
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, clipnorm, clipvalue, global_clipnorm)
        self.rho = number(self._name, "rho", rho, low=0, below=1)
        self.momentum = number(self._name, "momentum", momentum, low=0, high=1)
        self.epsilon = number(self._name, "epsilon", epsilon, above=0)
        self.slots = ("velocity", "momentum") if self.momentum else ("velocity",)

    def update(self, weights: Tensor, slots: list[Tensor], gradient: Tensor, rates: Tensor) -> Node:
        numbers = {"rho": self.rho, "epsilon": self.epsilon}
        node: Node
        if self.momentum:
            node = update.rmsprop_momentum(weights, *slots, gradient, rates, momentum=self.momentum, **numbers)
        else:
            node = update.rmsprop(weights, *slots, gradient, rates, **numbers)
        return node


OPTIMIZERS = table([SGD, Adam, AdamW, RMSprop])
_NAMES = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop}


def get(value: Any) -> Optimizer:
    """The optimizer with that name, or the object itself."""
    chosen: Optimizer = choose(value, _NAMES, Optimizer, "optimizer")
    return chosen
