"""Batch normalisation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._autodiff import has_nested_forward_mode, needs_python_autograd
from ._arguments import check_tensor

_train = torch.ops.d2lkernels.batch_norm_train.default
_infer = torch.ops.d2lkernels.batch_norm_infer.default


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    r"""Normalises each channel to mean 0 and variance 1, then scales and shifts it.

    Same as :func:`torch.nn.functional.batch_norm`, except that bad values raise ``ValueError`` and bad dtypes
    ``TypeError``, and that complex and integer tensors are not supported.

    .. math::
        \text{output}_{n,c,i} = \frac{\text{input}_{n,c,i} - \text{mean}_c}{\sqrt{\text{var}_c + \text{eps}}} \;
        \text{weight}_c + \text{bias}_c

    In training, mean and var (the mean squared deviation) are those of the channel's values in ``input``, and the
    running statistics are moved towards them: ``running = (1 - momentum) * running + momentum * new``, where the new
    variance is the unbiased one (divided by the number of values less one). In inference, mean and var are the running
    statistics.

    Args:
        input: maps of any rank from 2, (N, C, ...).
        running_mean: shape (C); updated in place in training. None (only in training) keeps none.
        running_var: the same for the variance.
        weight: shape (C), or None for ones.
        bias: shape (C), or None for zeros.
        training: whether to normalise with the statistics of ``input``.
        momentum: how far the running statistics move, 0 to 1.
        eps: is added to the variance.

    Returns:
        Maps of the shape and memory format of ``input``.

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported. The parameters and running
            statistics have the dtype of ``input``, or float32 if that has 16 bits.
        ValueError: sizes that do not fit, one value per channel in training, missing running statistics in inference.
        RuntimeError: tensors on different devices.

    ============================== ======== ======== ========== ====== =========== =============
    dtypes                         devices  double   forward AD vmap   autocast    deterministic
                                            backward
    ============================== ======== ======== ========== ====== =========== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    input dtype yes
    ============================== ======== ======== ========== ====== =========== =============

    The running statistics are not differentiated. Means that are much larger than the deviation cost no accuracy.

    Example::

        >>> batch_norm(torch.tensor([[0.0, 5.0], [2.0, 9.0]]), None, None, training=True, eps=0.0)
        tensor([[-1., -1.],
                [ 1.,  1.]])

    Source: Ioffe and Szegedy, *Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
    Shift*, 2015. Statistics are joined as Chan, Golub and LeVeque do, *Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances*, 1979.
    """
    check_tensor("batch_norm", "input", input)
    for name, tensor in (("running_mean", running_mean), ("running_var", running_var)):
        if tensor is not None:
            check_tensor("batch_norm", name, tensor)
        elif not training:
            raise ValueError(f"batch_norm(): expected {name} to be a Tensor in inference, but got None")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None:
            check_tensor("batch_norm", name, tensor)
    train, infer = _kernels()
    if not training:
        return infer(input, running_mean, running_var, weight, bias, eps)
    _check_running(input, running_mean, running_var)
    output, mean, var = train(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        _update(running_mean, running_var, mean, var, momentum, input)
    return output


# ---- running statistics ----------------------------------------------------------------------------------------------


def _check_running(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None) -> None:
    """Before anything is computed. The op checks the input."""
    if (running_mean is None) != (running_var is None):
        name = "running_var" if running_var is None else "running_mean"
        raise ValueError(
            f"batch_norm(): expected {name} to be a Tensor like the other running statistics, but got None"
        )
    if running_mean is None or running_var is None or input.dim() < 2 or not input.is_floating_point():
        return
    channels = input.shape[1]
    is_16_bit = input.dtype in (torch.bfloat16, torch.float16)
    for name, tensor in (("running_mean", running_mean), ("running_var", running_var)):
        if tensor.dim() != 1 or tensor.shape[0] != channels:
            raise ValueError(
                f"batch_norm(): expected {name} to have size [{channels}] (one value per channel of input), "
                f"but got {list(tensor.shape)}"
            )
        if tensor.dtype != input.dtype and not (is_16_bit and tensor.dtype == torch.float32):
            raise TypeError(
                f"batch_norm(): expected {name} to have the dtype of input ({_scalar_type(input)})"
                f"{' or Float' if is_16_bit else ''}, but got {_scalar_type(tensor)}"
            )
        if tensor.device != input.device:
            raise RuntimeError(
                f"batch_norm(): expected {name} to be on the device of input ({input.device}), but got {tensor.device}"
            )


_SCALAR_TYPES = {
    torch.float16: "Half",
    torch.float32: "Float",
    torch.float64: "Double",
    torch.bfloat16: "BFloat16",
}


def _scalar_type(tensor: Tensor) -> str:
    """A dtype as the C++ ops name it."""
    return _SCALAR_TYPES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch.").capitalize())


def _update(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, momentum: float, input: Tensor
) -> None:
    values = input.numel() // input.shape[1] if input.shape[1] else 0
    if values == 0:
        return
    running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
    running_var.mul_(1 - momentum).add_(var, alpha=momentum * values / (values - 1))


# ---- torch.func and forward-mode AD ----------------------------------------------------------------------------------
# The values come from our kernels, the derivatives are written in ops that torch transforms; where forward mode is
# nested, the values are, too.


def _kernels() -> tuple[Callable, Callable]:
    """Training and inference."""
    if not needs_python_autograd():
        return _train, _infer
    if has_nested_forward_mode():
        return _train_by_torch, _infer_by_torch
    return _Train.apply, _Infer.apply


def _train_by_torch(input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
    _train(*_on_meta(input, weight, bias), eps)
    x = input.to(_compute_dtype(input))
    mean = x.mean(_axes(x), keepdim=True)
    distance = x - mean
    var = distance.square().mean(_axes(x), keepdim=True)
    output = _affine(distance * torch.rsqrt(var + eps), weight, bias).to(input.dtype)
    return output, mean.flatten(), var.flatten()


def _infer_by_torch(
    input: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    _infer(*_on_meta(input, mean, var, weight, bias), eps)
    x = input.to(_compute_dtype(input))
    inverse = torch.rsqrt(var.to(x.dtype) + eps)
    z = (x - _along_channels(mean.to(x.dtype), x)) * _along_channels(inverse, x)
    return _affine(z, weight, bias).to(input.dtype)


def _on_meta(*tensors: Tensor | None) -> list[Tensor | None]:
    """Untransformed tensors of the same sizes, to have arguments checked."""
    return [None if one is None else torch.empty(one.shape, dtype=one.dtype, device="meta") for one in tensors]


def _affine(z: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        z = z * _along_channels(weight.to(z.dtype), z)
    return z if bias is None else z + _along_channels(bias.to(z.dtype), z)


def _axes(input: Tensor) -> list[int]:
    return [0, *range(2, input.dim())]


def _along_channels(values: Tensor, input: Tensor) -> Tensor:
    """(C) as (C, 1, ..., 1)."""
    return values.view(-1, *(1 for _ in input.shape[2:]))


def _compute_dtype(input: Tensor) -> torch.dtype:
    return torch.promote_types(input.dtype, torch.float32)


def _tangent(
    scale: Tensor, tangent: Tensor | None, z: Tensor, tangent_weight: Tensor | None, tangent_bias: Tensor | None
) -> Tensor:
    """Of the output. `tangent` is that of z * deviation, `scale` is weight / deviation."""
    result = torch.zeros_like(z) if tangent is None else tangent * scale
    if tangent_weight is not None:
        result = result + z * _along_channels(tangent_weight.to(z.dtype), z)
    if tangent_bias is not None:
        result = result + _along_channels(tangent_bias.to(z.dtype), z)
    return result


class _Train(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(input, weight, bias, eps):
        return _train(input, weight, bias, eps)

    @staticmethod
    def setup_context(ctx, inputs, output):
        input, weight, bias, ctx.eps = inputs
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(input, weight)
        ctx.save_for_forward(input, weight)

    @staticmethod
    def _normalized(ctx) -> tuple[Tensor, Tensor]:
        """z = (input - mean) / deviation and weight / deviation."""
        input, weight = ctx.saved_tensors
        x = input.to(_compute_dtype(input))
        distance = x - x.mean(_axes(input), keepdim=True)
        inverse = torch.rsqrt(distance.square().mean(_axes(input), keepdim=True) + ctx.eps)
        scale = inverse if weight is None else inverse * _along_channels(weight.to(x.dtype), x)
        return distance * inverse, scale

    @staticmethod
    def _project(values: Tensor, z: Tensor) -> Tensor:
        """What is left of values that normalisation removes a mean and a part along z from: symmetric."""
        axes = _axes(z)
        return values - values.mean(axes, keepdim=True) - z * (values * z).mean(axes, keepdim=True)

    @staticmethod
    def backward(ctx, grad, *_):
        input, weight = ctx.saved_tensors
        if grad is None:
            return None, None, None, None
        z, scale = _Train._normalized(ctx)
        grad = grad.to(z.dtype)
        axes = _axes(z)
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        return (
            (_Train._project(grad, z) * scale).to(input.dtype) if needs_input else None,
            (grad * z).sum(axes).to(weight.dtype) if needs_weight else None,
            grad.sum(axes).to(ctx.bias_dtype) if needs_bias else None,
            None,
        )

    @staticmethod
    def jvp(ctx, tangent, tangent_weight, tangent_bias, _):
        z, scale = _Train._normalized(ctx)
        if tangent is not None:
            tangent = _Train._project(tangent.to(z.dtype), z)
        result = _tangent(scale, tangent, z, tangent_weight, tangent_bias)
        return result.to(ctx.saved_tensors[0].dtype), None, None


class _Infer(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(input, mean, var, weight, bias, eps):
        return _infer(input, mean, var, weight, bias, eps)

    @staticmethod
    def setup_context(ctx, inputs, output):
        input, mean, var, weight, bias, ctx.eps = inputs
        ctx.set_materialize_grads(False)
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(input, mean, var, weight)
        ctx.save_for_forward(input, mean, var, weight)

    @staticmethod
    def _normalized(ctx) -> tuple[Tensor, Tensor]:
        """z = (input - mean) / deviation and weight / deviation."""
        input, mean, var, weight = ctx.saved_tensors
        x = input.to(_compute_dtype(input))
        inverse = _along_channels(torch.rsqrt(var.to(x.dtype) + ctx.eps), x)
        scale = inverse if weight is None else inverse * _along_channels(weight.to(x.dtype), x)
        return (x - _along_channels(mean.to(x.dtype), x)) * inverse, scale

    @staticmethod
    def backward(ctx, grad):
        input, _, _, weight = ctx.saved_tensors
        if grad is None:
            return None, None, None, None, None, None
        _refuse_running(ctx.needs_input_grad[1] or ctx.needs_input_grad[2])
        z, scale = _Infer._normalized(ctx)
        grad = grad.to(z.dtype)
        axes = _axes(z)
        needs_input, _, _, needs_weight, needs_bias, _ = ctx.needs_input_grad
        return (
            (grad * scale).to(input.dtype) if needs_input else None,
            None,
            None,
            (grad * z).sum(axes).to(weight.dtype) if needs_weight else None,
            grad.sum(axes).to(ctx.bias_dtype) if needs_bias else None,
            None,
        )

    @staticmethod
    def jvp(ctx, tangent, tangent_mean, tangent_var, tangent_weight, tangent_bias, _):
        _refuse_running(tangent_mean is not None or tangent_var is not None)
        z, scale = _Infer._normalized(ctx)
        if tangent is not None:
            tangent = tangent.to(z.dtype)
        return _tangent(scale, tangent, z, tangent_weight, tangent_bias).to(ctx.saved_tensors[0].dtype)


def _refuse_running(needs_derivative: bool) -> None:
    if needs_derivative:
        raise NotImplementedError(
            "batch_norm(): expected running_mean and running_var not to be differentiated, but got some that are"
        )
