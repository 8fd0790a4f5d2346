"""The losses that have kernels of ours."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops

__all__ = ["CrossEntropyLoss", "MSELoss"]


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """Same as :class:`torch.nn.CrossEntropyLoss`, computed by :func:`d2lkernels.ops.cross_entropy`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return ops.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class MSELoss(torch.nn.MSELoss):
    """Same as :class:`torch.nn.MSELoss`, computed by :func:`d2lkernels.ops.mse_loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return ops.mse_loss(input, target, reduction=self.reduction)
