"""Dense blocks: the layer, and the one definition of its forward pass for both back ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module as _module

from .. import ops
from .modules import BatchNorm2d, Conv2d

__all__ = ["DenseBlock"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class DenseBlock(torch.nn.Module):
    """Each layer (batch normalisation, ReLU, 3 x 3 convolution) sees the input and the results of all earlier layers.

    (N, input_channels, H, W) to (N, input_channels + num_convs * num_channels, H, W), as if joined by
    :func:`torch.cat`, but in one map: see :func:`d2lkernels.ops.dense_block`.

    Args:
        num_convs: the number of layers.
        input_channels: channels of the input.
        num_channels: channels that each layer adds, the growth rate.

    Example:
        >>> DenseBlock(2, 3, 10)(torch.rand(4, 3, 8, 8)).shape
        torch.Size([4, 23, 8, 8])
    """

    def __init__(self, num_convs: int, input_channels: int, num_channels: int) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            *(
                torch.nn.Sequential(
                    BatchNorm2d(channels), torch.nn.ReLU(), Conv2d(channels, num_channels, kernel_size=3, padding=1)
                )
                for channels in range(input_channels, input_channels + num_convs * num_channels, num_channels)
            )
        )

    def forward(self, input: Tensor) -> Tensor:
        return dense_block_forward(self.net, input)


def dense_block_forward(blocks: Iterable[torch.nn.Module], input: Tensor) -> Tensor:
    """Joins the result of each block to the map it read. In one map where the blocks are layers of ours, and
    nothing (a hook, a subclass, a parametrisation, autocast) stands between."""
    blocks = list(blocks)
    layers = _layers(blocks, input)
    if layers is None:
        for block in blocks:
            input = torch.cat([input, block(input)], dim=1)
        return input
    norms, convolutions = layers
    parameters: list[Tensor] = []
    statistics: list[Tensor] = []
    training = norms[0].training
    for norm, convolution in zip(norms, convolutions, strict=True):
        parameters += [norm.weight, norm.bias, convolution.weight, convolution.bias]
        if not training:
            statistics += [norm.running_mean, norm.running_var]
    output, mean, var = ops.dense_block(input, parameters, statistics, norms[0].eps)
    if training:
        for norm in norms:
            _track(norm, mean, var, input.numel() // input.shape[1])
    return output


def _track(norm: Any, mean: Tensor, var: Tensor, values: int) -> None:
    """Moves the running statistics as the layer itself would."""
    channels, momentum = norm.num_features, norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    if values == 0 or norm.running_mean is None or norm.running_var is None:
        return
    momentum = 0.0 if momentum is None else momentum
    norm.running_mean.mul_(1 - momentum).add_(mean[:channels], alpha=momentum)
    norm.running_var.mul_(1 - momentum).add_(var[:channels], alpha=momentum * values / (values - 1))


def _layers(blocks: list[torch.nn.Module], input: Tensor) -> tuple[list, list] | None:
    """The normalisations and convolutions, if :func:`d2lkernels.ops.dense_block` does what the blocks do."""
    if (
        input.dim() != 4
        or input.device.type not in ("cpu", "cuda")
        or input.dtype not in (torch.float32, torch.float64)
        or torch.is_autocast_enabled(input.device.type)
        or _module._has_any_global_hook()
    ):
        return None
    norms: list[Any] = []
    convolutions: list[Any] = []
    for block in blocks:
        if (
            not isinstance(block, torch.nn.Sequential)
            or not _is_plain(block)
            or type(block).forward not in _sequential_forwards()
            or len(block) != 3
        ):
            return None
        norm, relu, convolution = block
        if (
            type(norm) is not BatchNorm2d
            or not isinstance(relu, torch.nn.ReLU)
            or type(relu).__module__.split(".")[0] not in ("torch", "d2lkernels")
            or type(convolution) is not Conv2d
            or not all(_is_plain(layer) for layer in block)
            or not _serves(norm, convolution, input)
        ):
            return None
        norms.append(norm)
        convolutions.append(convolution)
    same = {(norm.training, norm.eps) for norm in norms}
    return (norms, convolutions) if len(same) == 1 else None


def _sequential_forwards() -> tuple:
    from .. import nn

    return torch.nn.Sequential.forward, nn.Sequential.forward


def _is_plain(layer: torch.nn.Module) -> bool:
    return "forward" not in layer.__dict__ and not any(getattr(layer, name) for name in _HOOKS)


def _serves(norm: Any, convolution: Any, input: Tensor) -> bool:
    given = (norm.weight, norm.bias, norm.running_mean, norm.running_var, convolution.weight, convolution.bias)
    return (
        all(one is not None and one.dtype == input.dtype and one.device == input.device for one in given)
        and norm.track_running_stats
        and convolution.kernel_size == (3, 3)
        and convolution.stride == (1, 1)
        and convolution.padding == (1, 1)
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.padding_mode == "zeros"
    )
