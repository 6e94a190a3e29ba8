"""What the networks of fastnn.applications compute in PyTorch, for tests/test_applications.py.

``python tests/peers/applications.py`` writes tests/golden/applications.json: names and shapes of the weights,
outputs, gradients and losses in double precision, so that the tests themselves need no PyTorch.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import network_cases  # noqa: E402
from network_cases import CASES, STEPS  # noqa: E402

from fastnn.benchmarking.peers import torch_networks  # noqa: E402

#: After k convolutions, no two numbers that are compared are nearer to each other than k times this, in standard
#: deviations: float32 is some units of 6e-8 wrong after each. Normalization magnifies that.
MARGIN = 1e-6
NORMALIZED = 4


def channels_first(array):
    return torch.tensor(np.moveaxis(array, -1, 1).copy())


def network(case, seed, shifted):
    """The network of a case, in double precision, with the weights of the case."""
    model = torch_networks.network(case.name, case.shape, case.classes, **case.options, **case.fixed).double()
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    for key, value in state.items():
        value.copy_(torch.tensor(network_cases.weight(seed, key, tuple(value.shape), shifted)))
    return model, {key: list(value.shape) for key, value in state.items()}


def pooled(x, size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """The arguments of a maximum pooling that say which windows it sees."""
    return x, size, size if stride is None else stride, padding, ceil_mode


class TooNearError(Exception):
    """The largest two numbers of a pooling may change places."""


class Apart(TorchFunctionMode):
    """Keeps the numbers that are compared so far from each other that float32 sees them as double precision does:
    shifts biases until no input of a ReLU is near 0, and raises TooNearError where a pooling has two largest ones.

    (Two that are equal, as overlapping poolings leave them, are one number seen twice.)

    Attributes:
        shifted: the biases that had to be: by entry and channel
        magnified: the largest ratio of the root mean square of a channel that is normalized to its standard deviation
    """

    def __init__(self, model):
        super().__init__()
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.normalized = any(name.endswith("running_var") for name in model.state_dict())
        self.convolutions, self.magnified, self.shifted, self.bias = 0, 1.0, {}, None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.conv2d, torch.conv3d):
            self.convolutions += 1
            self.bias = args[2]
        elif func is F.linear:
            self.bias = args[2]
        elif func is F.batch_norm:
            self.bias = kwargs["bias"]
            channels = args[0].transpose(0, 1).flatten(1)
            ratios = channels.square().mean(1) / channels.var(1, correction=0)
            self.magnified = max(self.magnified, float(ratios.max().sqrt()))
        elif func in (torch.relu, F.relu):
            self.shift(args[0])
        elif func in (F.max_pool2d, F.max_pool3d):
            self.check(*pooled(*args, **kwargs))
        return func(*args, **kwargs)

    def margin(self, x):
        return MARGIN * (NORMALIZED if self.normalized else 1) * min(20, self.convolutions) * float(x.std())

    def shift(self, x):
        """Add as little as possible to the channels that come too near to 0."""
        margin, channels = self.margin(x), x.transpose(0, 1).flatten(1)
        for channel in (channels.abs().amin(1) < margin).nonzero()[:, 0].tolist():
            values = channels[channel].sort().values
            middles = (values[1:] + values[:-1])[values[1:] - values[:-1] > 3 * margin] / 2
            before = self.bias[channel].item()
            after = float(np.float32(before - middles[middles.abs().argmin()].item()))
            self.bias[channel] = after
            x[:, channel] += after - before
            self.shifted.setdefault(self.names[id(self.bias)], {})[str(channel)] = after

    def check(self, x, size, stride, padding, over):
        size, stride, padding = (np.broadcast_to(value, x.ndim - 2) for value in (size, stride, padding))
        more = stride - 1 if over else 0 * stride
        pads = [int(pad) for p, m in zip(padding[::-1], more[::-1], strict=True) for pad in (p, p + m)]
        windows = F.pad(x, pads, value=-1e9)
        for axis, (k, s) in enumerate(zip(size, stride, strict=True)):
            windows = windows.unfold(2 + axis, int(k), int(s))
        first, second = windows.flatten(-len(size)).topk(2, -1).values.unbind(-1)
        if torch.any((first > 0) & (first > second) & (first - second < self.margin(x))):
            raise TooNearError


def loss_of(case, logits, y):
    if case.auxiliary:
        return F.mse_loss(logits, y)
    if case.classes == 1:
        return F.binary_cross_entropy_with_logits(logits, y)
    return F.cross_entropy(logits, y)


def seed_of(name):
    """The first seed with which all ReLUs and poolings can be kept from changing sides in float32, the biases shifted
    for that, and what normalization magnifies by at most.

    Otherwise an element might change sides, and with it a whole part of a gradient.
    """
    for seed in range(100_000):
        x, _ = given(seed, name)
        model, _ = network(CASES[name], seed, {})
        with torch.no_grad(), Apart(model.train()) as apart, contextlib.suppress(TooNearError):
            model(x)
            return seed, apart.shifted, apart.magnified
    raise ValueError(name)


def given(seed, name):
    x, y = network_cases.data(seed, name)
    return channels_first(x), channels_first(y) if y.ndim > 2 else torch.tensor(y)


def figures(name):
    """What the tests compare with."""
    case, (seed, shifted, magnified) = CASES[name], seed_of(name)
    x, y = given(seed, name)
    model, entries = network(case, seed, shifted)
    model.eval()
    with torch.no_grad():
        outputs = model(x).movedim(1, -1)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=case.rate)
    losses, gradients = [], {}
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(case, model(x), y)
        loss.backward()
        losses.append(loss.item())
        for key, parameter in model.named_parameters():
            if len(losses) == 1:
                g = parameter.grad.numpy()
                along = float(np.sum(g * network_cases.direction(key, g.shape)))
                gradients[key] = [float(f"{value:.9g}") for value in (np.sqrt(np.sum(g * g)), along)]
        optimizer.step()
    shown = outputs.reshape(case.rows, -1)[:, :: max(1, outputs[0].numel() // 24)]
    return {
        "seed": seed,
        "shifted": shifted,
        "magnified": magnified,
        "entries": entries,
        "outputs": [[float(f"{value:.9g}") for value in row] for row in shown.tolist()],
        "largest": float(outputs.abs().max()),
        "gradients": gradients,
        "losses": losses,
    }


def main(names):
    """Write the figures of these cases, or of all."""
    torch.set_num_threads(2)
    path = HERE.parent / "golden" / "applications.json"
    found = json.loads(path.read_text(encoding="utf-8")) if names else {}
    for name in names or CASES:
        found[name] = figures(name)
        print(name, f"seed {found[name]['seed']}", *(f"{loss:.4g}" for loss in found[name]["losses"]), flush=True)
        lines = (f'"{known}": {json.dumps(found[known], separators=(",", ":"))}' for known in CASES if known in found)
        path.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
