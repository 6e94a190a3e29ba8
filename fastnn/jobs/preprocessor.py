"""The part of a preprocessor that knows the target: classes, and what the network's outputs mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fastnn.evaluation import binary_metrics, multiclass_metrics
from fastnn.jobs.words import listed, near_misses

if TYPE_CHECKING:
    from fastnn.models import Model

__all__ = ["Preprocessor", "preprocessing_of"]


class Preprocessor:
    """What is stored inside a model file, so that the model takes raw data and gives classes. N rows, K classes.

    Attributes:
        kind: "binary", "multiclass" or "regression", once learnt.
        classes: class names in the order of the network's outputs, of two the positive one last; () for a number.
    """

    kind: str = ""
    classes: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one row of what the network takes."""
        raise NotImplementedError

    @property
    def outputs(self) -> int:
        """Number of network outputs: 1 for two classes and for a number, K for several classes."""
        return len(self.classes) if self.kind == "multiclass" else 1

    def learn_classes(self, levels: Sequence[str], positive: str | None, where: str) -> None:
        """Take over the class names; of two the one named ``positive`` comes last, or else the second as given."""
        if positive is not None:
            if positive not in levels:
                raise ValueError(f"the positive class {positive!r} is not in {where}{near_misses(positive, levels)}")
            if len(levels) != 2:
                raise ValueError(f"a positive class ({positive!r}) needs two classes, not {len(levels)}")
            levels = sorted(levels, key=lambda level: level == positive)
        self.kind = "binary" if len(levels) == 2 else "multiclass"
        self.classes = tuple(levels)

    def describe_target(self) -> str:
        """The kind of target in words."""
        if self.kind == "regression":
            return "a number"
        if self.kind == "binary":
            return f"two classes; {self.classes[1]!r} is the positive one, {self.classes[0]!r} the other"
        return f"{len(self.classes)} classes: {listed(self.classes)}"

    def describe(self) -> str:
        """What it does, in lines of text."""
        raise NotImplementedError

    def transform(self, frame: Any) -> np.ndarray:
        """A table to network inputs, where that is what they are made of."""
        raise ValueError("the model's preprocessing does not take tables")

    def to_classes(self, prediction: np.ndarray, threshold: float = 0.5) -> np.ndarray:
        """Network outputs, (N, 1) or (N, K) probabilities, to class names: object array (N,) of str.

        Of two classes the positive one is chosen where its probability is above ``threshold``.
        """
        if self.kind == "binary":
            codes = (np.asarray(prediction).reshape(-1) > threshold).astype(np.int64)
        else:
            codes = np.argmax(prediction, axis=1)
        names: np.ndarray = np.array(self.classes, object)[codes]
        return names

    def prediction_columns(self, output: np.ndarray, threshold: float = 0.5) -> dict[str, np.ndarray]:
        """What is told of network outputs (N, 1) or (N, K): the prediction, and the probabilities of the classes."""
        columns = {"prediction": self.to_classes(output, threshold)}
        if self.kind == "binary":
            columns[f"probability_{self.classes[1]}"] = output.reshape(-1)
        else:
            columns.update({f"probability_{name}": output[:, k] for k, name in enumerate(self.classes)})
        return columns

    def score(self, truth: np.ndarray, output: np.ndarray, threshold: float = 0.5) -> dict[str, Any]:
        """Metrics of network outputs, (N, 1) or (N, K), against class numbers (N,)."""
        if self.kind == "binary":
            return binary_metrics(truth, output, threshold)
        return multiclass_metrics(truth, output)

    def evaluation(self, truth: np.ndarray, output: np.ndarray, threshold: float = 0.5) -> dict[str, Any]:
        """``score`` with "kind", "classes" and, of two classes, "threshold" before it."""
        limit = {"threshold": threshold} if self.kind == "binary" else {}
        return {"kind": self.kind, "classes": list(self.classes), **limit, **self.score(truth, output, threshold)}

    def to_config(self) -> dict[str, Any]:
        """All that was learnt, as JSON-able data."""
        raise NotImplementedError


P = TypeVar("P", bound=Preprocessor)


def preprocessing_of(model: Model, kind: type[P], takes: str) -> P:
    """The preprocessing inside a model, of the kind that takes such raw data, known to fit its inputs and outputs."""
    pre = getattr(model, "preprocessing", None)
    if not isinstance(pre, Preprocessor):
        raise ValueError(f"the model holds no preprocessing, so it cannot take {takes}")
    if not isinstance(pre, kind):
        raise ValueError(f"the model's preprocessing does not take {takes}")
    inputs, outputs = tuple(model.input_shape)[1:], tuple(model.output_shape)[1:]
    if inputs != pre.input_shape or outputs != (pre.outputs,):
        raise ValueError(
            f"the model takes {inputs} and gives {outputs}, but its preprocessing makes {pre.input_shape}"
            f" and needs {pre.outputs} outputs"
        )
    return pre
