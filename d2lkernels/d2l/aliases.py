"""The book's short names for functions and methods of torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module as nn_Module

__all__ = [
    "abs",
    "arange",
    "argmax",
    "astype",
    "concat",
    "cos",
    "cosh",
    "exp",
    "eye",
    "float32",
    "int32",
    "linspace",
    "log",
    "matmul",
    "meshgrid",
    "nn_Module",
    "normal",
    "numpy",
    "ones",
    "rand",
    "randn",
    "reduce_mean",
    "reduce_sum",
    "reshape",
    "sin",
    "sinh",
    "size",
    "stack",
    "tanh",
    "tensor",
    "to",
    "transpose",
    "zeros",
]

abs = torch.abs
arange = torch.arange
concat = torch.cat
cos = torch.cos
cosh = torch.cosh
exp = torch.exp
eye = torch.eye
float32 = torch.float32
int32 = torch.int32
linspace = torch.linspace
log = torch.log
matmul = torch.matmul
meshgrid = torch.meshgrid
normal = torch.normal
ones = torch.ones
rand = torch.rand
randn = torch.randn
sin = torch.sin
sinh = torch.sinh
stack = torch.stack
tanh = torch.tanh
tensor = torch.tensor
zeros = torch.zeros


def numpy(x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The tensor as a NumPy array, from whatever device it is on."""
    return x.detach().cpu().numpy(*args, **kwargs)


def size(x: Tensor) -> int:
    """The number of elements."""
    return x.numel()


def reshape(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """:meth:`torch.Tensor.reshape`."""
    return x.reshape(*args, **kwargs)


def to(x: Any, *args: Any, **kwargs: Any) -> Any:
    """:meth:`torch.Tensor.to`."""
    return x.to(*args, **kwargs)


def reduce_sum(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """:meth:`torch.Tensor.sum`."""
    return x.sum(*args, **kwargs)


def reduce_mean(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """:meth:`torch.Tensor.mean`."""
    return x.mean(*args, **kwargs)


def argmax(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """:meth:`torch.Tensor.argmax`."""
    return x.argmax(*args, **kwargs)


def astype(x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """:meth:`torch.Tensor.type`."""
    return x.type(*args, **kwargs)


def transpose(x: Tensor) -> Tensor:
    """:meth:`torch.Tensor.t`."""
    return x.t()
