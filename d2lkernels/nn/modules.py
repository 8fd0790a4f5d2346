"""The layers that have kernels of ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .. import ops
from ..ops.conv2d_batch_norm import convolve_and_normalize
from ..ops.normalization import normalize
from ._checks import at_least

__all__ = [
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyLinear",
    "Linear",
    "MaxPool2d",
]


@at_least(in_channels=1, out_channels=1, kernel_size=1, stride=1, padding=0, dilation=1, groups=1)
class Conv1d(torch.nn.Conv1d):
    """Same as :class:`torch.nn.Conv1d`, computed by :func:`d2lkernels.ops.conv1d`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: str | int | tuple[int, ...] = self.padding
        if self.padding_mode != "zeros":
            input = pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return ops.conv1d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


@at_least(out_channels=1, kernel_size=1, stride=1, padding=0, dilation=1, groups=1)
class LazyConv1d(torch.nn.LazyConv1d):
    """Same as :class:`torch.nn.LazyConv1d`; becomes a :class:`Conv1d` of ours when it sees its first input."""

    cls_to_become = Conv1d


@at_least(in_channels=1, out_channels=1, kernel_size=1, stride=1, padding=0, dilation=1, groups=1)
class Conv2d(torch.nn.Conv2d):
    """Same as :class:`torch.nn.Conv2d`, computed by :func:`d2lkernels.ops.conv2d`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: str | int | tuple[int, ...] = self.padding
        if self.padding_mode != "zeros":
            input = pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return ops.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


@at_least(out_channels=1, kernel_size=1, stride=1, padding=0, dilation=1, groups=1)
class LazyConv2d(torch.nn.LazyConv2d):
    """Same as :class:`torch.nn.LazyConv2d`; becomes a :class:`Conv2d` of ours when it sees its first input."""

    cls_to_become = Conv2d


@at_least(in_features=0, out_features=0)
class Linear(torch.nn.Linear):
    """Same as :class:`torch.nn.Linear`, computed by :func:`d2lkernels.ops.linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.linear(input, self.weight, self.bias)


@at_least(out_features=0)
class LazyLinear(torch.nn.LazyLinear):
    """Same as :class:`torch.nn.LazyLinear`; becomes a :class:`Linear` of ours when it sees its first input."""

    cls_to_become = Linear

    def forward(self, input: Tensor) -> Tensor:
        return ops.linear(input, self.weight, self.bias)


@at_least(kernel_size=1, stride=1, padding=0, dilation=1)
class MaxPool2d(torch.nn.MaxPool2d):
    """Same as :class:`torch.nn.MaxPool2d`, computed by :func:`d2lkernels.ops.max_pool2d`."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return ops.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )


@at_least(kernel_size=1, stride=1, padding=0, divisor_override=1)
class AvgPool2d(torch.nn.AvgPool2d):
    """Same as :class:`torch.nn.AvgPool2d`, computed by :func:`d2lkernels.ops.avg_pool2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


@at_least(output_size=0)
class AdaptiveAvgPool2d(torch.nn.AdaptiveAvgPool2d):
    """Same as :class:`torch.nn.AdaptiveAvgPool2d`, computed by :func:`d2lkernels.ops.adaptive_avg_pool2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.adaptive_avg_pool2d(input, self.output_size)


@at_least(output_size=0)
class AdaptiveMaxPool2d(torch.nn.AdaptiveMaxPool2d):
    """Same as :class:`torch.nn.AdaptiveMaxPool2d`, computed by :func:`d2lkernels.ops.adaptive_max_pool2d`."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return ops.adaptive_max_pool2d(input, self.output_size, self.return_indices)


def parameter(layer: torch.nn.Module, name: str) -> Any:
    """``getattr(layer, name)``, but looked for first where a layer keeps its parameters: torch looks there last."""
    parameters = layer._parameters
    return parameters[name] if name in parameters else getattr(layer, name)


def buffer(layer: torch.nn.Module, name: str) -> Any:
    """The same for a buffer."""
    buffers = layer._buffers
    return buffers[name] if name in buffers else getattr(layer, name)


def _batch_norm(
    layer: torch.nn.modules.batchnorm._BatchNorm,
    input: Tensor,
    activation: str = "none",
    residual: Tensor | None = None,
) -> Tensor:
    """The forward pass of every rank's layer, and of what follows it where that is fused."""
    layer._check_input_dim(input)
    return normalize(input, *_normalization(layer, activation, residual))


def _conv2d_batch_norm(
    convolution: torch.nn.Conv2d,
    layer: torch.nn.BatchNorm2d,
    input: Tensor,
    activation: str = "none",
    residual: Tensor | None = None,
) -> Tensor:
    """The same with the convolution in front of it, without padding of another mode than zeros."""
    return convolve_and_normalize((input, *_convolution(convolution)), _normalization(layer, activation, residual))


def _convolution(layer: torch.nn.Conv2d) -> tuple[Any, Any, Any, Any, Any, Any]:
    """The arguments of :func:`d2lkernels.ops.conv2d` behind the input."""
    weight, bias = parameter(layer, "weight"), parameter(layer, "bias")
    return weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups


def _normalization(
    layer: torch.nn.modules.batchnorm._BatchNorm, activation: str, residual: Tensor | None
) -> tuple[Any, ...]:
    """The arguments of :func:`normalize` behind the input."""
    training, tracks = layer.training, layer.training and layer.track_running_stats
    mean = var = None
    if tracks or not training:  # in training, statistics that are not tracked are left alone
        mean, var = buffer(layer, "running_mean"), buffer(layer, "running_var")
    return (
        mean,
        var,
        parameter(layer, "weight"),
        parameter(layer, "bias"),
        training or (mean is None and var is None),
        layer.momentum if mean is not None else 0.0,
        layer.eps,
        activation,
        residual,
        buffer(layer, "num_batches_tracked") if tracks else None,
    )


@at_least(num_features=1)
class BatchNorm1d(torch.nn.BatchNorm1d):
    """Same as :class:`torch.nn.BatchNorm1d`, computed by :func:`d2lkernels.ops.batch_norm`."""

    def forward(self, input: Tensor) -> Tensor:
        return _batch_norm(self, input)


@at_least(num_features=1)
class BatchNorm2d(torch.nn.BatchNorm2d):
    """Same as :class:`torch.nn.BatchNorm2d`, computed by :func:`d2lkernels.ops.batch_norm`."""

    def forward(self, input: Tensor) -> Tensor:
        return _batch_norm(self, input)


class LazyBatchNorm1d(torch.nn.LazyBatchNorm1d):
    """Same as :class:`torch.nn.LazyBatchNorm1d`; becomes a :class:`BatchNorm1d` of ours with its first input."""

    cls_to_become = BatchNorm1d

    def forward(self, input: Tensor) -> Tensor:
        return _batch_norm(self, input)


class LazyBatchNorm2d(torch.nn.LazyBatchNorm2d):
    """Same as :class:`torch.nn.LazyBatchNorm2d`; becomes a :class:`BatchNorm2d` of ours with its first input."""

    cls_to_become = BatchNorm2d

    def forward(self, input: Tensor) -> Tensor:
        return _batch_norm(self, input)
