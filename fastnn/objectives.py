"""What a model is trained for: the losses of its outputs, what each of them weighs, and the metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from fastnn import losses, metrics
from fastnn.configurable import describe, number, restore
from fastnn.ends import Side, buffer_name
from fastnn.graph import Node, Tensor
from fastnn.layers.weight import Weight
from fastnn.ops.loss import add_rows
from fastnn.ops.pointwise import add, affine
from fastnn.plan import losses_on_logits

#: The shape of a row of each array of targets ("y", "y1", ...) and of weights ("weight", ...).
RowShapes = tuple[tuple[str, tuple[int, ...]], ...]


class Measure(NamedTuple):
    """One number of the logs.

    Attributes:
        name: its name there
        output: the number of the output that it is about; None for the loss that is trained on
        metric: how it is computed; None for a loss
    """

    name: str
    output: int | None
    metric: metrics.Metric | None

    @property
    def stored(self) -> bool:
        """Whether it needs all predictions."""
        return self.metric is not None and not isinstance(self.metric, metrics.SummedMetric)


class Objectives:
    """The losses of all outputs and their metrics.

    Attributes:
        losses: Loss or None for each output, not all None
        weights: what each loss counts
        asked: metrics of each output, as they were asked for
    """

    def __init__(self, chosen: Sequence[losses.Loss | None], weights: Sequence[float], asked: list[list[Any]]) -> None:
        self.losses, self.weights, self.asked = list(chosen), list(weights), asked
        self._measures: list[Measure] | None = None

    @classmethod
    def of(cls, outputs: Side, loss: Any, weights: Any, asked: Any) -> Objectives:
        """Of the arguments of ``compile``."""
        if loss is None:
            raise ValueError("compile: loss must be given, such as loss='binary_crossentropy'. Received: loss=None")
        if outputs.form is not None and not isinstance(loss, Mapping | list | tuple):
            loss = [loss] * len(outputs)
        chosen = [None if each is None else losses.get(each) for each in _split(outputs, "loss", loss)]
        if not any(chosen):
            raise ValueError(f"compile: loss must be given for an output at least. Received: loss={loss!r}")
        given = [None] * len(outputs) if weights is None else _split(outputs, "loss_weights", weights)
        factors = [1.0 if each is None else number("compile", "loss_weights", each, low=0) for each in given]
        objectives = cls(chosen, factors, cls._asked(outputs, asked))
        objectives.check(outputs)
        return objectives

    @staticmethod
    def _asked(outputs: Side, asked: Any) -> list[list[Any]]:
        def listed(each: Any) -> list[Any]:
            found = [] if each is None else list(each) if isinstance(each, list | tuple) else [each]
            return [m() if isinstance(m, type) else m for m in found]

        if outputs.form is None and not isinstance(asked, Mapping):
            return [listed(asked)]
        if not isinstance(asked, Mapping | list | tuple | None):
            return [listed(asked) for _ in range(len(outputs))]
        return [listed(each) for each in _split(outputs, "metrics", {} if asked is None else asked)]

    def check(self, outputs: Side) -> None:
        """ValueError if they are not of so many outputs, metrics have no loss beside them, or one name twice."""
        if len(self.losses) != len(outputs):
            raise ValueError(f"compile: there must be losses for {len(outputs)} outputs. Received: {len(self.losses)}")
        for name, loss, asked in zip(outputs.names, self.losses, self.asked, strict=True):
            if asked and loss is None:
                raise ValueError(f"compile: metrics must be of outputs that have a loss. Received: metrics of {name!r}")
        names = [measure.name for measure in self._measured(outputs, known=False)]
        if len(set(names)) < len(names):
            shown = names[1:] if outputs.form is None else names
            raise ValueError(f"compile: metrics must have different names, none of them 'loss'. Received: {shown}")

    def measures(self, outputs: Side) -> list[Measure]:
        """All that the logs have, in their order. The shapes of the outputs are known."""
        if self._measures is None:
            self._measures = self._measured(outputs, known=True)
        return self._measures

    def _measured(self, outputs: Side, *, known: bool) -> list[Measure]:
        several = outputs.form is not None and len(outputs) > 1
        trained = [(output, loss) for output, loss in enumerate(self.losses) if loss is not None]
        found = [Measure("loss", None, None)]
        if several:
            found += [Measure(f"{outputs.names[output]}_loss", output, None) for output, _ in trained]
        for output, loss in trained:
            size = outputs.shapes[output][-1] if known else None
            for asked in self.asked[output]:
                metric = metrics.get(asked, loss, size)
                name = f"{outputs.names[output]}_{metric.name}" if several else metric.name
                found.append(Measure(name, output, metric))
        return found

    # ------------------------------------------------------------------ targets

    def targets(self, outputs: Side, output: int, y: np.ndarray, dtype: str) -> np.ndarray:
        """The targets of an output in the shape that its loss takes, fit for loss and metrics."""
        loss, shape = self.losses[output], outputs.shapes[output]
        assert loss is not None
        with of_output(outputs, output):
            y = np.ascontiguousarray(loss.targets(y, shape), dtype)
            for measure in self.measures(outputs):
                if measure.output == output and measure.metric is not None:
                    measure.metric.check(y, shape[-1])
        return y

    # ------------------------------------------------------------------ files

    def describe(self, asked: list[list[Any]], *, several: bool) -> dict[str, Any]:
        """JSON-able data, with these metrics."""
        if not several:
            return {"loss": describe(self.losses[0]), "metrics": describe(asked[0])}
        return {"loss": describe(self.losses), "loss_weights": self.weights, "metrics": describe(asked)}

    @classmethod
    def described(cls, description: Mapping[str, Any], what: str) -> Objectives:
        """Those that ``describe`` described; it may come from a file."""
        loss, asked = description["loss"], description["metrics"]
        several = "loss_weights" in description
        weights = description["loss_weights"] if several else [1.0]
        loss, asked = (loss, asked) if several else ([loss], [asked])
        if not all(isinstance(each, list) for each in (loss, weights, asked, *asked)) or not (
            0 < len(loss) == len(weights) == len(asked)
        ):
            raise ValueError(f"{what}: loss, loss_weights and metrics must be lists, one entry an output")
        return cls(
            [None if each is None else restore(each, losses.LOSSES, "loss") for each in loss],
            [number(what, "loss_weights", weight, low=0) for weight in weights],
            [[m if isinstance(m, str) else restore(m, metrics.METRICS, "metric") for m in each] for each in asked],
        )


def _split(outputs: Side, name: str, given: Any) -> list[Any]:
    """An argument of ``compile``: one entry an output."""
    given = given.tolist() if isinstance(given, np.ndarray) else given
    if outputs.form is None and isinstance(given, list | tuple) and len(given) == 1:
        given = given[0]
    return outputs.split("compile", name, given, some=True)


@contextmanager
def of_output(outputs: Side, output: int) -> Iterator[None]:
    """Errors say which output they are about, where there are several."""
    try:
        yield
    except ValueError as error:
        if outputs.form is None:
            raise
        raise ValueError(f"output {outputs.names[output]!r}: {error}") from None


class Judged:
    """The outputs of a graph beside their targets: what is trained on and measured.

    Args:
        objectives: the losses
        outputs: the model's
        predictions: Tensors, one an output
        shapes: of the rows of targets and weights; targets that are not named have the usual shape
        read: a Tensor for the buffer of this name, whose rows have that shape
        weights: those whose penalties are added

    Attributes:
        rows: (N,) the loss that is trained on
        losses: output -> (N,) its loss, as its weight in the sum is not
        targets: output -> Tensor
        predictions: list of Tensors
    """

    def __init__(
        self,
        objectives: Objectives,
        outputs: Side,
        predictions: Sequence[Tensor],
        shapes: RowShapes,
        read: Callable[[str, Sequence[int | None]], Tensor],
        weights: Sequence[Weight],
    ) -> None:
        given = dict(shapes)
        total: Any = None
        self.targets: dict[int, Tensor] = {}
        each: dict[int, Tensor] = {}
        for output, (loss, factor) in enumerate(zip(objectives.losses, objectives.weights, strict=True)):
            if loss is None:
                continue
            names = buffer_name("y", output), buffer_name("weight", output)
            usual = loss.target_shape(outputs.shapes[output])[1:]
            y = self.targets[output] = read(names[0], given.get(names[0], usual))
            weight = read(names[1], given[names[1]]) if names[1] in given else None
            rows = each[output] = loss.rows(y, predictions[output], weight)
            part = rows if factor == 1.0 else affine(rows, scale=factor)
            total = part if total is None else add(total, part)
        for trained in weights:
            if trained.regularizer is not None:
                total = add_rows(total, trained.regularizer(trained.tensor))
        roots: list[Tensor | Node] = [total, *each.values(), *predictions]
        fused = losses_on_logits(roots)
        self.rows: Tensor = fused[total]
        self.losses: dict[int, Tensor] = {output: fused[rows] for output, rows in each.items()}
        self.predictions: list[Tensor] = [fused[p] for p in predictions]
