"""What the networks of fastnn.applications compute in PyTorch, for tests/test_applications.py.

``python tests/peers/applications.py`` writes tests/golden/applications.json: names and shapes of the weights,
outputs, gradients and losses in double precision, so that the tests themselves need no PyTorch.
"""

from __future__ import annotations

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
MARGIN = 2.5e-7
NORMALIZED = 4


def channels_first(array):
    return torch.tensor(np.moveaxis(array, -1, 1).copy())


def network(case, seed):
    """The network of a case, in double precision, with the weights of the case."""
    model = torch_networks.network(case.name, case.shape, case.classes, **case.options, **case.fixed).double()
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    for key, value in state.items():
        value.copy_(torch.tensor(network_cases.weight(seed, key, tuple(value.shape))))
    return model, {key: list(value.shape) for key, value in state.items()}


class Margin(TorchFunctionMode):
    """How near inputs of ReLUs come to 0, and the largest two of a pooling to each other: the smallest distance divided
    by the standard deviation and by the number of convolutions so far, 20 at most.

    ``magnified`` is the largest ratio of the root mean square of a channel that is normalized to its standard
    deviation.
    """

    smallest, convolutions, magnified = 1.0, 0, 1.0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.conv2d, torch.conv3d):
            self.convolutions += 1
        elif func is F.batch_norm:
            channels = args[0].transpose(0, 1).flatten(1)
            ratios = channels.square().mean(1) / channels.var(1, correction=0)
            self.magnified = max(self.magnified, float(ratios.max().sqrt()))
        elif func in (torch.relu, F.relu):
            self.see(args[0].abs(), args[0])
        elif func in (torch.max_pool2d, torch.max_pool3d):
            x, size, stride, padding, _, over = (*args, *list(kwargs.values()))[:6]
            windows = self.windows(x, *(np.broadcast_to(value, x.ndim - 2) for value in (size, stride, padding)), over)
            first, second = windows.topk(2, -1).values.unbind(-1)
            self.see(torch.where(first > 0, first - second, 1e9), x)
        return func(*args, **kwargs)

    def see(self, distance, x):
        self.smallest = min(self.smallest, float(distance.min() / x.std()) / min(20, self.convolutions))

    @staticmethod
    def windows(x, size, stride, padding, over):
        more = stride - 1 if over else 0 * stride
        pads = [int(pad) for p, m in zip(padding[::-1], more[::-1], strict=True) for pad in (p, p + m)]
        x = F.pad(x, pads, value=-1e9)
        for axis, (k, s) in enumerate(zip(size, stride, strict=True)):
            x = x.unfold(2 + axis, int(k), int(s))
        return x.flatten(-len(size))


def loss_of(case, logits, y):
    if case.auxiliary:
        return F.mse_loss(logits, y)
    if case.classes == 1:
        return F.binary_cross_entropy_with_logits(logits, y)
    return F.cross_entropy(logits, y)


def seed_of(name):
    """The first seed with which float32 sees all ReLUs and poolings as double precision does, and what normalization
    magnifies by at most.

    Otherwise an element might change sides, and with it a whole part of a gradient.
    """
    for seed in range(10_000):
        x, _ = given(seed, name)
        with torch.no_grad(), Margin() as margin:
            network(CASES[name], seed)[0].train()(x)
        if margin.smallest > MARGIN * (NORMALIZED if margin.magnified > 1 else 1):
            return seed, margin.magnified
    raise ValueError(name)


def given(seed, name):
    x, y = network_cases.data(seed, name)
    return channels_first(x), channels_first(y) if y.ndim > 2 else torch.tensor(y)


def figures(name):
    """What the tests compare with."""
    case, (seed, magnified) = CASES[name], seed_of(name)
    x, y = given(seed, name)
    model, entries = network(case, seed)
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
