"""Learning rates that change with the training step. An optimizer takes one in place of a number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastnn.configurable import Configurable, number, table, whole


class LearningRateSchedule(Configurable):
    """Base class: ``schedule(steps)`` gives the rates at an array of step numbers, from 0.

    >>> import numpy as np
    >>> ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5)(np.array([0, 10, 20])).tolist()
    [0.1, 0.05, 0.025]
    """

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class ExponentialDecay(LearningRateSchedule):
    """``initial * decay_rate^(step / decay_steps)``, the exponent rounded down if ``staircase``.

    Example:
        >>> import numpy as np
        >>> ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5)(np.array([0, 20])).tolist()
        [0.1, 0.025]
    """

    def __init__(
        self, initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
    ) -> None:
        self.initial_learning_rate = number("ExponentialDecay", "initial_learning_rate", initial_learning_rate, low=0)
        self.decay_steps = whole("ExponentialDecay", "decay_steps", decay_steps)
        self.decay_rate = number("ExponentialDecay", "decay_rate", decay_rate, above=0)
        self.staircase = bool(staircase)

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        power = steps / self.decay_steps
        return self.initial_learning_rate * self.decay_rate ** (np.floor(power) if self.staircase else power)


class PiecewiseConstantDecay(LearningRateSchedule):
    """``values[i]`` up to and with step ``boundaries[i]``, the last value after them.

    Example:
        >>> import numpy as np
        >>> PiecewiseConstantDecay([10], [0.1, 0.01])(np.array([0, 10, 11])).tolist()
        [0.1, 0.1, 0.01]
    """

    def __init__(self, boundaries: Sequence[int], values: Sequence[float]) -> None:
        self.boundaries = [whole("PiecewiseConstantDecay", "boundaries", b, low=0) for b in boundaries]
        self.values = [number("PiecewiseConstantDecay", "values", v, low=0) for v in values]
        if len(self.values) != len(self.boundaries) + 1 or sorted(self.boundaries) != self.boundaries:
            raise ValueError(
                "PiecewiseConstantDecay: boundaries must grow, and values be one more than they. "
                f"Received: boundaries={self.boundaries}, values={self.values}"
            )

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        return np.asarray(self.values)[np.searchsorted(self.boundaries, steps)]


class CosineDecay(LearningRateSchedule):
    """Half a cosine from ``initial`` down to ``alpha * initial`` (Loshchilov & Hutter 2017, without restarts).

    With ``warmup_steps``, first a straight line from ``initial`` to ``warmup_target``, and the cosine starts there.

    Example:
        >>> import numpy as np
        >>> CosineDecay(0.1, decay_steps=10)(np.array([0, 5, 10])).round(6).tolist()
        [0.1, 0.05, 0.0]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.initial_learning_rate = number("CosineDecay", "initial_learning_rate", initial_learning_rate, low=0)
        self.decay_steps = whole("CosineDecay", "decay_steps", decay_steps)
        self.alpha = number("CosineDecay", "alpha", alpha, low=0)
        if warmup_target is not None:
            warmup_target = number("CosineDecay", "warmup_target", warmup_target, low=0)
        self.warmup_target = warmup_target
        self.warmup_steps = whole("CosineDecay", "warmup_steps", warmup_steps, low=0)

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        start, warm = self.initial_learning_rate, 0
        if self.warmup_target is not None and self.warmup_steps:
            start, warm = self.warmup_target, self.warmup_steps
        share = np.clip((steps - warm) / self.decay_steps, 0.0, 1.0)
        cosine = start * ((1.0 - self.alpha) * 0.5 * (1.0 + np.cos(np.pi * share)) + self.alpha)
        if not warm:
            return cosine
        line = self.initial_learning_rate + (start - self.initial_learning_rate) * steps / warm
        return np.where(steps < warm, line, cosine)


SCHEDULES = table([ExponentialDecay, PiecewiseConstantDecay, CosineDecay])
