"""Dense blocks: the layer, and the one definition of its forward pass for both back ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .. import ops
from .fusion import RELUS, alike, has_global_hooks, has_hooks
from .modules import BatchNorm2d, Conv2d, buffer, parameter
from .sequential import Sequential

__all__ = ["DenseBlock"]

_FORWARDS = (torch.nn.Sequential.forward, Sequential.forward)  # that run the layers in order


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
    nothing (a hook, a subclass, a parametrisation) stands between."""
    blocks = list(blocks)
    layers = _layers(blocks, input)
    if layers is None:
        for block in blocks:
            input = torch.cat([input, block(input)], dim=1)
        return input
    norms, parameters, statistics = layers
    training, eps = norms[0].training, norms[0].eps
    output, mean, var = ops.dense_block(input, parameters, [] if training else statistics, eps)
    if training:
        for norm in norms:
            _track(norm, mean, var, input.numel() // input.shape[1])
    return output


def _track(norm: Any, mean: Tensor, var: Tensor, values: int) -> None:
    """Moves the running statistics as the layer itself would."""
    channels, momentum = norm.num_features, norm.momentum
    batches, running_mean, running_var = (
        buffer(norm, name) for name in ("num_batches_tracked", "running_mean", "running_var")
    )
    if batches is not None:
        batches.add_(1)
        if momentum is None:
            momentum = 1.0 / float(batches)
    if values == 0 or running_mean is None or running_var is None:
        return
    momentum = 0.0 if momentum is None else momentum
    running_mean.mul_(1 - momentum).add_(mean[:channels], alpha=momentum)
    running_var.mul_(1 - momentum).add_(var[:channels], alpha=momentum * values / (values - 1))


def _layers(blocks: list[torch.nn.Module], input: Tensor) -> tuple[list[Any], list[Tensor], list[Tensor]] | None:
    """The normalisations of all blocks, and what :func:`d2lkernels.ops.dense_block` takes: the parameters and the
    statistics. None if it does not do what the blocks do."""
    dtype = _dtype_of_parameters(input)
    if dtype is None or input.dim() != 4 or has_global_hooks():
        return None
    norms: list[Any] = []
    parameters: list[Tensor] = []
    statistics: list[Tensor] = []
    for block in blocks:
        pair = _norm_and_convolution(block)
        if pair is None:
            return None
        norm, _ = pair
        norms.append(norm)
        parameters += [parameter(layer, name) for layer in pair for name in ("weight", "bias")]
        statistics += [buffer(norm, "running_mean"), buffer(norm, "running_var")]
    same = {(norm.training, norm.eps) for norm in norms}
    if len(same) != 1 or not alike(dtype, input.device, parameters + statistics):
        return None
    return norms, parameters, statistics


def _dtype_of_parameters(input: Tensor) -> torch.dtype | None:
    """That with which the op gives what the layers give."""
    device, dtype = input.device.type, input.dtype
    if device not in ("cpu", "cuda"):
        return None
    if torch.is_autocast_enabled(device):  # other maps change their dtype from layer to layer
        return torch.float32 if dtype == torch.get_autocast_dtype(device) else None
    return dtype if dtype in (torch.float32, torch.float64) else None


def _norm_and_convolution(block: torch.nn.Module) -> tuple[Any, Any] | None:
    """Those of a block, if it is a Sequential of these and a ReLU between them, and does nothing else."""
    if (
        not isinstance(block, torch.nn.Sequential)
        or type(block).forward not in _FORWARDS
        or has_hooks(block)
        or len(block) != 3
    ):
        return None
    norm, relu, convolution = block
    serves = (
        type(norm) is BatchNorm2d
        and type(relu) in RELUS
        and type(convolution) is Conv2d
        and not (has_hooks(norm) or has_hooks(relu) or has_hooks(convolution))
        and norm.track_running_stats
        and convolution.kernel_size == (3, 3)
        and convolution.stride == (1, 1)
        and convolution.padding == (1, 1)
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.padding_mode == "zeros"
    )
    return (norm, convolution) if serves else None
