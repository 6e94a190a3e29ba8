"""The calls of layers that lead from a model's inputs to its outputs: found, made again on other Tensors, described."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastnn.ends import Form, Side, flatten, in_form
from fastnn.graph import Tensor
from fastnn.layers.base import Call, Layer, Training
from fastnn.layers.core import InputLayer

#: A described network has at most so many calls.
CALLS = 10_000


class Network:
    """The calls between ``inputs`` and ``outputs``, each Tensors alone, in a list or in a dict.

    Attributes:
        inputs, outputs: lists of Tensors; an input is made by an InputLayer
        input_form, output_form: their forms
        calls: list of Call, each after those whose outputs it takes, the inputs first

    Raises:
        ValueError: they are no Tensors made by ``Input`` and layers, outputs need an input that is not given, an input
            leads to no output, two layers have one name
    """

    def __init__(self, what: str, inputs: Any, outputs: Any) -> None:
        given, self.input_form = _tensors(what, "inputs", inputs)
        self.outputs, self.output_form = _tensors(what, "outputs", outputs)
        if len({id(tensor) for tensor in given}) < len(given):
            raise ValueError(f"{what}: inputs must be different Tensors. Received: {inputs!r}")
        self.inputs = given
        entries = [
            tensor.source if isinstance(tensor.source.layer, InputLayer) else _entry(tensor).source for tensor in given
        ]
        self.calls = entries + _between(what, given, self.outputs)
        used = {id(tensor) for call in self.calls for tensor in call.inputs} | {id(tensor) for tensor in self.outputs}
        for tensor in given:
            if id(tensor) not in used:
                raise ValueError(
                    f"{what}: each input must lead to an output. Received: {tensor.name!r}, which does not"
                )
        names = [layer.name for layer in self.layers]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(
                f"{what}: layers must have different names. Received: {', '.join(names)}; twice: {', '.join(twice)}"
            )

    @property
    def layers(self) -> list[Layer]:
        """Each layer once, in the order in which they are first called."""
        return list(dict.fromkeys(call.layer for call in self.calls))

    def sides(self) -> tuple[Side, Side]:
        """All inputs and all outputs: how data are passed to them, and the names of their layers."""
        entries = {id(tensor): call for tensor, call in zip(self.inputs, self.calls, strict=False)}
        makers = {id(tensor): call for call in self.calls for tensor in call.outputs} | entries

        def side(form: Form, tensors: Sequence[Tensor]) -> Side:
            names = form if isinstance(form, tuple) else [makers[id(tensor)].layer.name for tensor in tensors]
            return Side(form, names, [tensor.shape for tensor in tensors])

        return side(self.input_form, self.inputs), side(self.output_form, self.outputs)

    @property
    def chain(self) -> bool:
        """Whether each call takes the output of the one before and nothing else."""
        pairs = zip(self.calls, self.calls[1:], strict=False)
        one = len(self.inputs) == len(self.outputs) == 1
        return one and all(len(b.inputs) == 1 and b.inputs[0] in a.outputs[:1] for a, b in pairs)

    def follow(self, inputs: Sequence[Any], call: Callable[[Call, Any], Any]) -> list[Any]:
        """``call(call, arguments)`` for each call that has inputs, in order; returns what stands for the outputs."""
        values = {id(tensor): value for tensor, value in zip(self.inputs, inputs, strict=True)}
        for each in self.calls[len(self.inputs) :]:
            arguments = [values[id(tensor)] for tensor in each.inputs]
            results = flatten(call(each, arguments if each.several else arguments[0]))[0]
            values |= {id(tensor): result for tensor, result in zip(each.outputs, results, strict=True)}
        return [values[id(tensor)] for tensor in self.outputs]

    def trace(self, inputs: Sequence[Any], training: Training | None) -> list[Any]:
        """Record the layers' ops from these inputs on; returns the outputs."""
        return self.follow(inputs, lambda call, x: call.layer.trace(x, training))

    def repeat(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Call the layers again, on other Tensors from ``Input``; returns the outputs."""
        return self.follow(inputs, lambda call, x: call.layer(x))

    def describe(self) -> dict[str, Any]:
        """JSON-able data: Tensors are numbers, in the order in which the calls make them."""
        number: dict[int, int] = {}
        calls = []
        for tensor, call in zip(self.inputs, self.calls, strict=False):
            number[id(tensor)] = len(number)
            calls.append({"layer": call.layer.name, "inputs": None})
        for call in self.calls[len(self.inputs) :]:
            inputs = [number[id(tensor)] for tensor in call.inputs]
            calls.append({"layer": call.layer.name, "inputs": inputs if call.several else inputs[0]})
            for tensor in call.outputs:
                number[id(tensor)] = len(number)
        return {
            "calls": calls,
            "inputs": in_form(self.input_form, [number[id(tensor)] for tensor in self.inputs]),
            "outputs": in_form(self.output_form, [number[id(tensor)] for tensor in self.outputs]),
        }


def described(what: str, description: Mapping[str, Any], layers: Mapping[str, Layer]) -> tuple[Any, Any]:
    """Inputs and outputs, in their forms, of the network that ``describe`` described, its layers called anew.

    Raises:
        ValueError: it is not such a description
    """
    calls = description["calls"]
    if not isinstance(calls, list) or not 0 < len(calls) <= CALLS:
        raise ValueError(f"{what}: calls must be a list of 1 to {CALLS}. Received: {calls!r}"[:300])
    made: list[Tensor] = []

    def tensors(given: Any) -> Any:
        found, form = flatten(given)
        for index in found:
            if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(made):
                raise ValueError(
                    f"{what}: a call can take what calls before it made, 0 to {len(made) - 1}. Received: {given!r}"[
                        :300
                    ]
                )
        if not found or (isinstance(form, tuple) and not all(isinstance(key, str) for key in form)):
            raise ValueError(f"{what}: inputs and outputs must be named by numbers. Received: {given!r}"[:300])
        return in_form(form, [made[index] for index in found])

    for call in calls:
        if not isinstance(call, Mapping) or set(call) != {"layer", "inputs"}:
            raise ValueError(f"{what}: a call must have layer and inputs. Received: {call!r}"[:300])
        layer = layers.get(call["layer"]) if isinstance(call["layer"], str) else None
        if layer is None or isinstance(call["inputs"], Mapping):
            raise ValueError(f"{what}: calls must be of its layers. Received: {call!r}"[:300])
        if isinstance(layer, InputLayer) != (call["inputs"] is None):
            raise ValueError(
                f"{what}: an Input is called on nothing, other layers on something. Received: {call!r}"[:300]
            )
        made += [layer.tensor()] if isinstance(layer, InputLayer) else flatten(layer(tensors(call["inputs"])))[0]
    return tensors(description["inputs"]), tensors(description["outputs"])


def _tensors(what: str, name: str, given: Any) -> tuple[list[Tensor], Form]:
    tensors, form = flatten(given)
    for tensor in tensors or [given]:
        if not isinstance(tensor, Tensor) or tensor.source is None:
            raise ValueError(
                f"{what}: {name} must be a Tensor made by Input and layers, or a list or dict of such. "
                f"Received: {tensor!r}"
            )
    return tensors, form


def _entry(tensor: Tensor) -> Tensor:
    """An Input of the shape of a Tensor that was made by a layer."""
    return InputLayer([size for size in tensor.shape[1:] if size is not None]).tensor()


def _between(what: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Call]:
    """The calls behind the outputs, as far as the inputs, in the order in which they were made."""
    known = {id(tensor) for tensor in inputs}
    found: dict[int, Call] = {}
    waiting = list(outputs)
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in known:
            continue
        call = tensor.source
        if call is None:
            raise ValueError(
                f"{what}: outputs must be made from inputs by layers. Received: {tensor!r}, made otherwise"
            )
        if not call.inputs:
            raise ValueError(
                f"{what}: outputs must be made from inputs by layers. "
                f"Received: an output that also needs {tensor.name!r}"
            )
        if id(call) not in found:
            found[id(call)] = call
            waiting.extend(call.inputs)
    return sorted(found.values(), key=lambda call: call.order)
