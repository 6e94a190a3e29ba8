"""The networks of fastnn.applications in plain PyTorch, and what they compute, for tests/test_applications.py.

Written from the papers and from the lists of layers that torchvision and PyTorch Hub publish, with the names of their
modules. ``python tests/peers/torch_networks.py`` writes tests/golden/applications.json: names and shapes of the
weights, outputs, gradients and losses in double precision, so that the tests themselves need no PyTorch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import network_cases  # noqa: E402
from network_cases import CASES, HIDDEN, STEPS  # noqa: E402

#: After k convolutions, no two numbers that are compared are nearer to each other than k times this, in standard
#: deviations: float32 is some units of 6e-8 wrong after each. Normalization magnifies that.
MARGIN = 2.5e-7
NORMALIZED = 4


class LeNet(nn.Module):
    def __init__(self, case):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(case.shape[-1], 6, 5), nn.Conv2d(6, 16, 5)
        h, w = (((size - 4) // 2 - 4) // 2 for size in case.shape[:2])
        self.fc1, self.fc2, self.fc3 = nn.Linear(16 * h * w, 120), nn.Linear(120, 84), nn.Linear(84, case.classes)

    def forward(self, x):
        x = F.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.avg_pool2d(torch.tanh(self.conv2(x)), 2)
        x = torch.tanh(self.fc1(torch.flatten(x, 1)))
        return self.fc3(torch.tanh(self.fc2(x)))


class AlexNet(nn.Module):
    def __init__(self, case):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(case.shape[-1], 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        size = self.features(torch.zeros(1, case.shape[-1], *case.shape[:2])).numel()
        self.classifier = nn.Sequential(
            nn.Dropout(0.0), nn.Linear(size, HIDDEN), nn.ReLU(),
            nn.Dropout(0.0), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, case.classes),
        )  # fmt: skip

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class VGG(nn.Module):
    def __init__(self, case, times):
        super().__init__()
        layers, before = [], case.shape[-1]
        for filters, number in zip((64, 128, 256, 512, 512), times, strict=True):
            for _ in range(number):
                layers += [nn.Conv2d(before, filters, 3, padding=1), nn.ReLU()]
                before = filters
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        size = 512 * (case.shape[0] // 32) * (case.shape[1] // 32)
        self.classifier = nn.Sequential(
            nn.Linear(size, HIDDEN), nn.ReLU(), nn.Dropout(0.0),
            nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Dropout(0.0), nn.Linear(HIDDEN, case.classes),
        )  # fmt: skip

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class BasicConv(nn.Module):
    def __init__(self, norm, before, filters, size, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(before, filters, size, stride, size // 2, bias=not norm)
        self.bn = nn.BatchNorm2d(filters, eps=0.001) if norm else nn.Identity()

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    def __init__(self, norm, before, one, before3, three, before5, five, pooled):
        super().__init__()
        self.branch1 = BasicConv(norm, before, one, 1)
        self.branch2 = nn.Sequential(BasicConv(norm, before, before3, 1), BasicConv(norm, before3, three, 3))
        wide = 3 if norm else 5
        self.branch3 = nn.Sequential(BasicConv(norm, before, before5, 1), BasicConv(norm, before5, five, wide))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), BasicConv(norm, before, pooled, 1))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Auxiliary(nn.Module):
    def __init__(self, norm, before, size, classes):
        super().__init__()
        self.size = size
        h, w = ((pixels - min(5, pixels)) // 3 + 1 for pixels in size)
        self.conv = BasicConv(norm, before, 128, 1)
        self.fc1, self.fc2 = nn.Linear(128 * h * w, 1024), nn.Linear(1024, classes)

    def forward(self, x):
        x = F.avg_pool2d(x, tuple(min(5, pixels) for pixels in self.size), 3)
        return self.fc2(F.relu(self.fc1(torch.flatten(self.conv(x), 1))))


class GoogLeNet(nn.Module):
    def __init__(self, case, norm):
        super().__init__()
        self.conv1 = BasicConv(norm, case.shape[-1], 64, 7, 2)
        self.conv2, self.conv3 = BasicConv(norm, 64, 64, 1), BasicConv(norm, 64, 192, 3)
        self.inception3a = Inception(norm, 192, 64, 96, 128, 16, 32, 32)
        self.inception3b = Inception(norm, 256, 128, 128, 192, 32, 96, 64)
        self.inception4a = Inception(norm, 480, 192, 96, 208, 16, 48, 64)
        self.inception4b = Inception(norm, 512, 160, 112, 224, 24, 64, 64)
        self.inception4c = Inception(norm, 512, 128, 128, 256, 24, 64, 64)
        self.inception4d = Inception(norm, 512, 112, 144, 288, 32, 64, 64)
        self.inception4e = Inception(norm, 528, 256, 160, 320, 32, 128, 128)
        self.inception5a = Inception(norm, 832, 256, 160, 320, 32, 128, 128)
        self.inception5b = Inception(norm, 832, 384, 192, 384, 48, 128, 128)
        size = [(pixels + 1) // 16 for pixels in case.shape[:2]]  # of the maps of modules 4
        self.aux1, self.aux2 = Auxiliary(norm, 512, size, case.classes), Auxiliary(norm, 528, size, case.classes)
        self.fc = nn.Linear(1024, case.classes)

    def forward(self, x):
        x = F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.conv3(self.conv2(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.inception3b(self.inception3a(x)), 3, 2, ceil_mode=True)
        x = self.inception4a(x)
        first = self.aux1(x)
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        second = self.aux2(x)
        x = F.max_pool2d(self.inception4e(x), 2, 2, ceil_mode=True)
        x = self.inception5b(self.inception5a(x))
        return torch.cat([self.fc(x.mean((2, 3))), first, second], 1)


class BasicBlock(nn.Module):
    def __init__(self, before, filters, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False), nn.BatchNorm2d(filters)
        self.downsample = nn.Identity()
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(before, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class ResNet(nn.Module):
    def __init__(self, case, times):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(case.shape[-1], 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        before = 64
        for stage, (filters, number) in enumerate(zip((64, 128, 256, 512), times, strict=True), start=1):
            blocks = []
            for index in range(number):
                blocks.append(BasicBlock(before, filters, 2 if stage > 1 and index == 0 else 1))
                before = filters
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(512, case.classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class UNet(nn.Module):
    def __init__(self, case, rank, base, depth, norm):
        super().__init__()
        self.depth = depth
        conv, up, batch_norm = {
            2: (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d),
            3: (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d),
        }[rank]
        self.pool = {2: F.max_pool2d, 3: F.max_pool3d}[rank]

        def block(before, filters, name):
            layers = nn.Sequential()
            for number in (1, 2):
                layers.add_module(f"{name}conv{number}", conv(before, filters, 3, padding=1, bias=not norm))
                if norm:
                    layers.add_module(f"{name}norm{number}", batch_norm(filters))
                layers.add_module(f"{name}relu{number}", nn.ReLU())
                before = filters
            return layers

        before = case.shape[-1]
        for level in range(1, depth + 1):
            filters = base << (level - 1)
            setattr(self, f"encoder{level}", block(before, filters, f"enc{level}"))
            setattr(self, f"upconv{level}", up(2 * filters, filters, 2, 2))
            setattr(self, f"decoder{level}", block(2 * filters, filters, f"dec{level}"))
            before = filters
        self.bottleneck = block(before, base << depth, "bottleneck")
        self.conv = conv(base, case.classes, 1)

    def forward(self, x):
        beside = []
        for level in range(1, self.depth + 1):
            x = getattr(self, f"encoder{level}")(x)
            beside.append(x)
            x = self.pool(x, 2)
        x = self.bottleneck(x)
        for level in range(self.depth, 0, -1):
            x = torch.cat([getattr(self, f"upconv{level}")(x), beside.pop()], 1)
            x = getattr(self, f"decoder{level}")(x)
        return self.conv(x)


def channels_first(array):
    return torch.tensor(np.moveaxis(array, -1, 1).copy())


def network(case, seed):
    """The network of a case, in double precision, with the weights of the case."""
    model = globals()[case.there[0]](case, *case.there[1:]).double()
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
