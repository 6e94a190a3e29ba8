"""The networks of `fastnn.applications` in plain PyTorch, from the papers and from the lists of layers that torchvision
and PyTorch Hub publish, with the names of their modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Shape = Sequence[int]


class LeNet(nn.Module):
    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(shape[-1], 6, 5), nn.Conv2d(6, 16, 5)
        h, w = (((size - 4) // 2 - 4) // 2 for size in shape[:2])
        self.fc1, self.fc2, self.fc3 = nn.Linear(16 * h * w, 120), nn.Linear(120, 84), nn.Linear(84, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.avg_pool2d(torch.tanh(self.conv2(x)), 2)
        x = torch.tanh(self.fc1(torch.flatten(x, 1)))
        return self.fc3(torch.tanh(self.fc2(x)))


class AlexNet(nn.Module):
    def __init__(self, shape: Shape, classes: int, hidden: int = 4096, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(shape[-1], 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        size = self.features(torch.zeros(1, shape[-1], *shape[:2])).numel()
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(size, hidden), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class VGG(nn.Module):
    def __init__(
        self, shape: Shape, classes: int, times: Sequence[int], hidden: int = 4096, dropout: float = 0.5
    ) -> None:
        super().__init__()
        layers, before = [], shape[-1]
        for filters, number in zip((64, 128, 256, 512, 512), times, strict=True):
            for _ in range(number):
                layers += [nn.Conv2d(before, filters, 3, padding=1), nn.ReLU()]
                before = filters
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        size = 512 * (shape[0] // 32) * (shape[1] // 32)
        self.classifier = nn.Sequential(
            nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class BasicConv(nn.Module):
    def __init__(self, norm: bool, before: int, filters: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, filters, size, stride, size // 2, bias=not norm)
        self.bn = nn.BatchNorm2d(filters, eps=0.001) if norm else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    def __init__(self, norm: bool, before: int, *filters: int) -> None:
        super().__init__()
        one, before3, three, before5, five, pooled = filters
        self.branch1 = BasicConv(norm, before, one, 1)
        self.branch2 = nn.Sequential(BasicConv(norm, before, before3, 1), BasicConv(norm, before3, three, 3))
        wide = 3 if norm else 5
        self.branch3 = nn.Sequential(BasicConv(norm, before, before5, 1), BasicConv(norm, before5, five, wide))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), BasicConv(norm, before, pooled, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Auxiliary(nn.Module):
    def __init__(self, norm: bool, before: int, size: Sequence[int], classes: int) -> None:
        super().__init__()
        self.size = size
        h, w = ((pixels - min(5, pixels)) // 3 + 1 for pixels in size)
        self.conv = BasicConv(norm, before, 128, 1)
        self.fc1, self.fc2 = nn.Linear(128 * h * w, 1024), nn.Linear(1024, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.avg_pool2d(x, tuple(min(5, pixels) for pixels in self.size), 3)
        return self.fc2(F.relu(self.fc1(torch.flatten(self.conv(x), 1))))


class GoogLeNet(nn.Module):
    def __init__(
        self, shape: Shape, classes: int, batch_norm: bool = True, auxiliary: bool = False, dropout: float = 0.2
    ) -> None:
        super().__init__()
        norm = batch_norm
        self.conv1 = BasicConv(norm, shape[-1], 64, 7, 2)
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
        self.auxiliary, self.dropout = auxiliary, nn.Dropout(dropout)
        self.fc = nn.Linear(1024, classes)
        if not auxiliary:
            return
        size = [(pixels + 1) // 16 for pixels in shape[:2]]  # of the maps of modules 4
        self.aux1, self.aux2 = Auxiliary(norm, 512, size, classes), Auxiliary(norm, 528, size, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.conv3(self.conv2(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.inception3b(self.inception3a(x)), 3, 2, ceil_mode=True)
        x = self.inception4a(x)
        others = [self.aux1(x)] if self.auxiliary else []
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        others += [self.aux2(x)] if self.auxiliary else []
        x = F.max_pool2d(self.inception4e(x), 2, 2, ceil_mode=True)
        x = self.inception5b(self.inception5a(x))
        y = self.fc(self.dropout(x.mean((2, 3))))
        return torch.cat([y, *others], 1) if others else y


class BasicBlock(nn.Module):
    def __init__(self, before: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False), nn.BatchNorm2d(filters)
        self.downsample = nn.Identity()
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(before, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class ResNet(nn.Module):
    def __init__(self, shape: Shape, classes: int, times: Sequence[int]) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(shape[-1], 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        before = 64
        for stage, (filters, number) in enumerate(zip((64, 128, 256, 512), times, strict=True), start=1):
            blocks = []
            for index in range(number):
                blocks.append(BasicBlock(before, filters, 2 if stage > 1 and index == 0 else 1))
                before = filters
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(512, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class UNet(nn.Module):
    def __init__(
        self, shape: Shape, classes: int, base_filters: int = 32, depth: int = 4, batch_norm: bool = False
    ) -> None:
        super().__init__()
        rank, base, norm = len(shape) - 1, base_filters, batch_norm
        self.depth = depth
        conv, up, normalization = {
            2: (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d),
            3: (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d),
        }[rank]
        self.pool = {2: F.max_pool2d, 3: F.max_pool3d}[rank]

        def block(before: int, filters: int, name: str) -> nn.Sequential:
            layers = nn.Sequential()
            for number in (1, 2):
                layers.add_module(f"{name}conv{number}", conv(before, filters, 3, padding=1, bias=not norm))
                if norm:
                    layers.add_module(f"{name}norm{number}", normalization(filters))
                layers.add_module(f"{name}relu{number}", nn.ReLU())
                before = filters
            return layers

        before = shape[-1]
        for level in range(1, depth + 1):
            filters = base << (level - 1)
            setattr(self, f"encoder{level}", block(before, filters, f"enc{level}"))
            setattr(self, f"upconv{level}", up(2 * filters, filters, 2, 2))
            setattr(self, f"decoder{level}", block(2 * filters, filters, f"dec{level}"))
            before = filters
        self.bottleneck = block(before, base << depth, "bottleneck")
        self.conv = conv(base, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
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


#: name in `fastnn.applications` -> class and arguments
NETWORKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "LeNet5": (LeNet, {}),
    "AlexNet": (AlexNet, {}),
    "VGG11": (VGG, {"times": (1, 1, 2, 2, 2)}),
    "VGG13": (VGG, {"times": (2, 2, 2, 2, 2)}),
    "VGG16": (VGG, {"times": (2, 2, 3, 3, 3)}),
    "VGG19": (VGG, {"times": (2, 2, 4, 4, 4)}),
    "GoogLeNet": (GoogLeNet, {}),
    "ResNet18": (ResNet, {"times": (2, 2, 2, 2)}),
    "ResNet34": (ResNet, {"times": (3, 4, 6, 3)}),
    "UNet": (UNet, {}),
}


def network(name: str, shape: Shape, classes: int, **options: Any) -> nn.Module:
    """The network of that name in `fastnn.applications`, giving logits."""
    made, settings = NETWORKS[name]
    built: nn.Module = made(shape, classes, **settings, **options)
    return built
