"""Training by several processes at once, one per device or per part of a CPU, as torchrun starts them."""

from __future__ import annotations

import inspect
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import TrainingError

# What these processes last said to each other. A thread of gloo's lets go of a message and its tensors some time after
# its arrival, and takes the interpreter's lock to free them if it is the last to know them: while the interpreter ends,
# that aborts the process (PyTorch's pull request 179291). With the message kept here it is never the last.
_recent: deque[Any] = deque(maxlen=16)


def _finish(message: Any) -> None:
    message.wait()
    _recent.append(message)


class Group:
    """The processes that train together: this one's `rank`, how many there are, and what they settle among them.

    With one process nothing is sent.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._host: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints and writes files."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        return self.rank, self.size

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replaces a tensor by the sum over all processes."""
        if self.size > 1:
            _finish(dist.all_reduce(tensor, async_op=True))
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in any process. Settled by the hosts: no device has to be waited for."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        _finish(dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self._host, async_op=True))
        return bool(flags)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of each process, on the CPU, by rank."""
        if self.size == 1:
            return [tensor.cpu()]
        everyone = [torch.empty_like(tensor, device="cpu") for _ in range(self.size)]
        _finish(dist.all_gather(everyone, tensor.cpu(), group=self._host, async_op=True))
        return everyone

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[Group]:
        """The processes meet, and part again at the end of the ``with``. NCCL carries CUDA tensors, gloo the others.

        Raises:
            TrainingError: they cannot meet.
        """
        if self.size == 1:
            yield self
            return
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            self._host = dist.new_group(backend="gloo")
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"the {self.size} processes cannot reach each other: {error}") from None
        try:
            yield self
        finally:
            dist.destroy_process_group()


def group_from_environment() -> Group:
    """The group that torchrun put this process into; one process alone without torchrun.

    Raises:
        TrainingError: what torchrun says in the environment does not fit.
    """
    try:
        rank, size, local = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        )
    except ValueError as error:
        raise TrainingError(
            f"expected RANK, WORLD_SIZE and LOCAL_RANK to be what torchrun sets, but got: {error}"
        ) from None
    if not 0 <= rank < size:
        raise TrainingError(f"expected RANK to be from 0 to {size - 1} (WORLD_SIZE - 1), but got {rank}")
    return Group(rank, size, local)


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm(torch.nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the batches of all processes together, on any device.

    torch.nn.SyncBatchNorm, which :func:`convert_batch_norm` prefers on CUDA devices, does not run on the CPU.
    """

    def __init__(self, layer: torch.nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__(
            layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, device="meta"
        )
        self._layer_type = type(layer)
        for name in ("weight", "bias"):
            setattr(self, name, getattr(layer, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(layer, name))
        self.training = layer.training

    def _check_input_dim(self, input: Tensor) -> None:
        self._layer_type._check_input_dim(self, input)  # type: ignore[arg-type]

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return self._layer_type.forward(self, input)  # type: ignore[arg-type]
        self._check_input_dim(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        count = values.new_tensor([values.numel() // values.shape[1]])
        sums = _Sum.apply(torch.cat([values.sum(axes), count]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count
        if self.track_running_stats:
            self._update(mean.detach(), variance.detach(), float(count))
        output = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            output = output * self.weight.view(shape) + self.bias.view(shape)
        return output.to(input.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor, count: float) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked += 1
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        unbiased = variance * (count / max(count - 1, 1.0))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


def convert_batch_norm(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Lets the batch normalisations of a model see the batches of all processes. Names and tensors stay the same."""
    if device.type == "cuda":
        return torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for name, child in model.named_children():
        if isinstance(child, torch.nn.modules.batchnorm._BatchNorm):
            setattr(model, name, SyncBatchNorm(child))
        else:
            convert_batch_norm(child, device)
    return model


def data_parallel(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """A model whose backward pass averages the gradients over all processes."""
    parallel: Any = torch.nn.parallel.DistributedDataParallel
    known = inspect.signature(parallel).parameters
    # The statistics are the same everywhere (see convert_batch_norm), so no step need spread them.
    without = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # until torch 2.12
    devices = [device] if device.type == "cuda" else None
    return parallel(model, device_ids=devices, gradient_as_bucket_view=True, **{without: False})
