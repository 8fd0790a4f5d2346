"""The layers without parameters that have kernels of ours: activations and dropout."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops

__all__ = ["Dropout", "LogSoftmax", "ReLU", "Sigmoid", "Softmax", "Tanh"]


class ReLU(torch.nn.ReLU):
    """Same as :class:`torch.nn.ReLU`, computed by :func:`d2lkernels.ops.relu`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.relu(input, self.inplace)


class Sigmoid(torch.nn.Sigmoid):
    """Same as :class:`torch.nn.Sigmoid`, computed by :func:`d2lkernels.ops.sigmoid`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.sigmoid(input)


class Tanh(torch.nn.Tanh):
    """Same as :class:`torch.nn.Tanh`, computed by :func:`d2lkernels.ops.tanh`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.tanh(input)


class Dropout(torch.nn.Dropout):
    """Same as :class:`torch.nn.Dropout`, computed by :func:`d2lkernels.ops.dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.dropout(input, self.p, self.training, self.inplace)


class Softmax(torch.nn.Softmax):
    """Same as :class:`torch.nn.Softmax`, computed by :func:`d2lkernels.ops.softmax`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.softmax(input, self.dim)


class LogSoftmax(torch.nn.LogSoftmax):
    """Same as :class:`torch.nn.LogSoftmax`, computed by :func:`d2lkernels.ops.log_softmax`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.log_softmax(input, self.dim)
