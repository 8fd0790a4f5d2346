"""Models written against plain torch.nn in the ways of torchvision, for the tests of conversion: small, but with all
that makes such models awkward (inplace ReLU, ModuleDict, torch.cat, an auxiliary head, layers by keyword)."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn as tnn
import torch.nn.functional as F
from torch import Tensor


class BasicBlock(tnn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1, downsample: tnn.Module | None = None):
        super().__init__()
        self.conv1 = tnn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = tnn.BatchNorm2d(outputs)
        self.relu = tnn.ReLU(inplace=True)
        self.conv2 = tnn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn2 = tnn.BatchNorm2d(outputs)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(tnn.Module):
    """A stem, two stages of two blocks, and a head; the second stage halves the map."""

    def __init__(self, num_classes: int = 5):
        super().__init__()
        self.conv1 = tnn.Conv2d(3, 8, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = tnn.BatchNorm2d(8)
        self.relu = tnn.ReLU(inplace=True)
        self.maxpool = tnn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._stage(8, 8, 1)
        self.layer2 = self._stage(8, 16, 2)
        self.avgpool = tnn.AdaptiveAvgPool2d((1, 1))
        self.norm = tnn.Identity()
        self.fc = tnn.Linear(16, num_classes)
        for module in self.modules():
            if isinstance(module, tnn.Conv2d):
                tnn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(self, inputs: int, outputs: int, stride: int) -> tnn.Sequential:
        downsample = None
        if stride != 1 or inputs != outputs:
            downsample = tnn.Sequential(
                tnn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False), tnn.BatchNorm2d(outputs)
            )
        return tnn.Sequential(BasicBlock(inputs, outputs, stride, downsample), BasicBlock(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(self.norm(torch.flatten(self.avgpool(x), 1)))


class DenseLayer(tnn.Module):
    def __init__(self, inputs: int, growth: int, width: int, drop_rate: float):
        super().__init__()
        self.norm1 = tnn.BatchNorm2d(inputs)
        self.relu1 = tnn.ReLU(inplace=True)
        self.conv1 = tnn.Conv2d(inputs, width * growth, kernel_size=1, stride=1, bias=False)
        self.norm2 = tnn.BatchNorm2d(width * growth)
        self.relu2 = tnn.ReLU(inplace=True)
        self.conv2 = tnn.Conv2d(width * growth, growth, kernel_size=3, stride=1, padding=1, bias=False)
        self.drop_rate = drop_rate

    def forward(self, features: list[Tensor]) -> Tensor:
        narrow = self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))
        new = self.conv2(self.relu2(self.norm2(narrow)))
        return F.dropout(new, p=self.drop_rate, training=self.training) if self.drop_rate > 0 else new


class DenseBlock(tnn.ModuleDict):
    def __init__(self, layers: int, inputs: int, growth: int):
        super().__init__()
        for i in range(layers):
            self.add_module(f"denselayer{i + 1}", DenseLayer(inputs + i * growth, growth, width=2, drop_rate=0.0))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


class Transition(tnn.Sequential):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm = tnn.BatchNorm2d(inputs)
        self.relu = tnn.ReLU(inplace=True)
        self.conv = tnn.Conv2d(inputs, outputs, kernel_size=1, stride=1, bias=False)
        self.pool = tnn.AvgPool2d(kernel_size=2, stride=2)


class DenseNet(tnn.Module):
    """Two dense blocks with a transition; the heads are a ModuleList in a ModuleDict."""

    def __init__(self, num_classes: int = 5):
        super().__init__()
        self.features = tnn.Sequential(
            OrderedDict(
                conv0=tnn.Conv2d(3, 8, kernel_size=7, stride=2, padding=3, bias=False),
                norm0=tnn.BatchNorm2d(8),
                relu0=tnn.ReLU(inplace=True),
                pool0=tnn.MaxPool2d(kernel_size=3, stride=2, padding=1),
                denseblock1=DenseBlock(3, 8, 4),
                transition1=Transition(20, 10),
                denseblock2=DenseBlock(2, 10, 4),
                norm5=tnn.BatchNorm2d(18),
            )
        )
        self.heads = tnn.ModuleDict({"classes": tnn.ModuleList([tnn.Linear(18, 12), tnn.Linear(12, num_classes)])})

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.features(x), inplace=True)
        x = torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1)
        for i, layer in enumerate(self.heads["classes"]):
            x = layer(x if i == 0 else torch.tanh(x))
        return x


class BasicConv2d(tnn.Module):
    def __init__(self, inputs: int, outputs: int, **options):
        super().__init__()
        self.conv = tnn.Conv2d(inputs, outputs, bias=False, **options)
        self.bn = tnn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Inception(tnn.Module):
    def __init__(self, inputs: int):
        super().__init__()
        self.branch1 = BasicConv2d(inputs, 4, kernel_size=1)
        self.branch2 = tnn.Sequential(
            BasicConv2d(inputs, 4, kernel_size=1),
            BasicConv2d(4, 6, kernel_size=(1, 7), padding=(0, 3)),
            BasicConv2d(6, 6, kernel_size=(7, 1), padding=(3, 0)),
        )
        self.branch3 = tnn.Sequential(
            BasicConv2d(inputs, 3, kernel_size=1), BasicConv2d(3, 4, kernel_size=3, padding=1)
        )
        self.branch4 = tnn.Sequential(
            tnn.MaxPool2d(kernel_size=3, stride=1, padding=1, ceil_mode=True), BasicConv2d(inputs, 2, kernel_size=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionNet(tnn.Module):
    """Two Inception blocks, with an auxiliary head behind the first while training."""

    def __init__(self, num_classes: int = 5, dropout: float = 0.0):
        super().__init__()
        self.conv1 = BasicConv2d(3, 8, kernel_size=7, stride=2, padding=3)
        self.maxpool1 = tnn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception1 = Inception(8)
        self.aux = tnn.Sequential(
            tnn.AvgPool2d(kernel_size=5, stride=3, padding=2, count_include_pad=False),
            BasicConv2d(16, 4, kernel_size=1),
            tnn.AdaptiveAvgPool2d(1),
            tnn.Flatten(),
            tnn.Linear(4, num_classes),
        )
        self.inception2 = Inception(16)
        self.avgpool = tnn.AdaptiveAvgPool2d((1, 1))
        self.dropout = tnn.Dropout(p=dropout)
        self.fc = tnn.Linear(16, num_classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = torch.stack([x[:, i] * 0.5 + 0.1 for i in range(3)], 1)
        x = self.inception1(self.maxpool1(self.conv1(x)))
        aux = self.aux(x) if self.training else None
        x = torch.flatten(self.avgpool(self.inception2(x)), 1)
        x = self.fc(self.dropout(x))
        return x if aux is None else (x, aux)
