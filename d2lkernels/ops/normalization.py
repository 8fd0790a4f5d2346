"""Batch normalisation, alone and fused with what follows it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from .. import _C
from .._autodiff import has_nested_forward_mode, needs_python_autograd
from ._arguments import check_tensor

_train = torch.ops.d2lkernels.batch_norm_train.default
_train_update = torch.ops.d2lkernels.batch_norm_train_update.default
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
    return normalize(input, running_mean, running_var, weight, bias, training, momentum, eps)


def batch_norm_relu(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    r"""``relu(batch_norm(...))`` in one pass.

    Same as :func:`batch_norm` followed by :func:`torch.relu`, but what the ReLU is applied to is neither written nor
    kept: backward tells its sign from ``input``.

    Args:
        input: maps of any rank from 2, (N, C, ...).
        running_mean, running_var, weight, bias, training, momentum, eps: as in :func:`batch_norm`.

    Returns:
        Maps of the shape and memory format of ``input``.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`batch_norm` does.

    ============================== ======== ======== ========== ====== =========== =============
    dtypes                         devices  double   forward AD vmap   autocast    deterministic
                                            backward
    ============================== ======== ======== ========== ====== =========== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    input dtype yes
    ============================== ======== ======== ========== ====== =========== =============

    Example::

        >>> batch_norm_relu(torch.tensor([[0.0, 5.0], [2.0, 9.0]]), None, None, training=True, eps=0.0)
        tensor([[0., 0.],
                [1., 1.]])
    """
    return normalize(input, running_mean, running_var, weight, bias, training, momentum, eps, activation="relu")


def batch_norm_sigmoid(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    r"""``sigmoid(batch_norm(...))`` in one pass.

    Same as :func:`batch_norm` followed by :func:`torch.sigmoid`, but what the sigmoid is applied to is neither written
    nor kept: backward needs the output alone.

    Args:
        input: maps of any rank from 2, (N, C, ...).
        running_mean, running_var, weight, bias, training, momentum, eps: as in :func:`batch_norm`.

    Returns:
        Maps of the shape and memory format of ``input``.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`batch_norm` does.

    ============================== ======== ======== ========== ====== =========== =============
    dtypes                         devices  double   forward AD vmap   autocast    deterministic
                                            backward
    ============================== ======== ======== ========== ====== =========== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    input dtype yes
    ============================== ======== ======== ========== ====== =========== =============

    Example::

        >>> batch_norm_sigmoid(torch.tensor([[0.0, 5.0], [2.0, 9.0]]), None, None, training=True, eps=0.0)
        tensor([[0.2689, 0.2689],
                [0.7311, 0.7311]])
    """
    return normalize(input, running_mean, running_var, weight, bias, training, momentum, eps, activation="sigmoid")


def batch_norm_add_relu(
    input: Tensor,
    residual: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    r"""``relu(batch_norm(...) + residual)`` in one pass, as a residual block ends.

    Same as :func:`batch_norm`, an addition and :func:`torch.relu`, but neither the sum nor what is normalised is
    written or kept: backward needs ``input`` and the output, and makes the gradient of the residual on its way.

    Args:
        input: maps of any rank from 2, (N, C, ...).
        residual: maps of the same size and dtype.
        running_mean, running_var, weight, bias, training, momentum, eps: as in :func:`batch_norm`.

    Returns:
        Maps of the shape and memory format of ``input``.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`batch_norm` does, and for a residual that does not fit.

    ============================== ======== ======== ========== ====== =========== =============
    dtypes                         devices  double   forward AD vmap   autocast    deterministic
                                            backward
    ============================== ======== ======== ========== ====== =========== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    input dtype yes
    ============================== ======== ======== ========== ====== =========== =============

    Example::

        >>> maps = torch.tensor([[0.0, 5.0], [2.0, 9.0]])
        >>> batch_norm_add_relu(maps, torch.ones(2, 2), None, None, training=True, eps=0.0)
        tensor([[0., 0.],
                [2., 2.]])
    """
    check_tensor("batch_norm_add_relu", "residual", residual)
    return normalize(
        input, running_mean, running_var, weight, bias, training, momentum, eps, activation="relu", residual=residual
    )


def normalize(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
    activation: str = "none",
    residual: Tensor | None = None,
    num_batches_tracked: Tensor | None = None,
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """``activation(batch_norm(input, ...) + residual)``: what the functions here and the layers have in common.

    In training, ``num_batches_tracked`` is counted up; with momentum None it weighs all batches alike. ``known`` are
    the mean and the variance of ``input`` where they are known before (only in training, not under transforms).
    """
    if known is None and not is_dynamo_compiling():
        normalization = (running_mean, running_var, weight, bias, training, momentum, eps, activation)
        output = _C.normalize(input, *normalization, residual, num_batches_tracked)
        if output is not None:
            return output
    op = ("batch_norm" if residual is None else "batch_norm_add") + ("" if activation == "none" else f"_{activation}")
    check_tensor(op, "input", input)
    for name, tensor in (("running_mean", running_mean), ("running_var", running_var)):
        if tensor is not None:
            check_tensor(op, name, tensor)
        elif not training:
            raise ValueError(f"{op}(): expected {name} to be a Tensor in inference, but got None")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None:
            check_tensor(op, name, tensor)
    direct = not needs_python_autograd()
    if not training:
        assert running_mean is not None and running_var is not None
        infer = _infer if direct else _transformed_infer
        return infer(input, residual, running_mean, running_var, weight, bias, eps, activation)
    if momentum is None and num_batches_tracked is None:
        raise ValueError(f"{op}(): expected momentum to be a float, but got None")
    if (running_mean is None) != (running_var is None):
        name = "running_var" if running_var is None else "running_mean"
        raise ValueError(f"{op}(): expected {name} to be a Tensor like the other running statistics, but got None")
    train: Callable[..., tuple[Tensor, Tensor, Tensor]] = _train if direct else _transformed_train
    mean, var = (None, None) if known is None else known
    if running_mean is None or running_var is None:
        return train(input, residual, mean, var, weight, bias, eps, activation)[0]
    if direct and not torch.compiler.is_compiling():
        return _train_update(
            input,
            residual,
            mean,
            var,
            weight,
            bias,
            running_mean,
            running_var,
            num_batches_tracked,
            momentum,
            eps,
            activation,
        )[0]
    # torch.compile fuses the update with what is around it, and transforms take it as it stands here.
    _check_running(op, input, running_mean, running_var)
    output, mean, var = train(input, residual, mean, var, weight, bias, eps, activation)
    if num_batches_tracked is not None:
        num_batches_tracked.add_(1)
    _update(running_mean, running_var, mean, var, momentum, num_batches_tracked, input)
    return output


# ---- running statistics ----------------------------------------------------------------------------------------------


def _check_running(op: str, input: Tensor, running_mean: Tensor, running_var: Tensor) -> None:
    """Before anything is computed. The op checks the input."""
    if input.dim() < 2 or not input.is_floating_point():
        return
    channels = input.shape[1]
    is_16_bit = input.dtype in (torch.bfloat16, torch.float16)
    for name, tensor in (("running_mean", running_mean), ("running_var", running_var)):
        if tensor.dim() != 1 or tensor.shape[0] != channels:
            raise ValueError(
                f"{op}(): expected {name} to have size [{channels}] (one value per channel of input), "
                f"but got {list(tensor.shape)}"
            )
        if tensor.dtype != input.dtype and not (is_16_bit and tensor.dtype == torch.float32):
            raise TypeError(
                f"{op}(): expected {name} to have the dtype of input ({_scalar_type(input)})"
                f"{' or Float' if is_16_bit else ''}, but got {_scalar_type(tensor)}"
            )
        if tensor.device != input.device:
            raise RuntimeError(
                f"{op}(): expected {name} to be on the device of input ({input.device}), but got {tensor.device}"
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
    running_mean: Tensor,
    running_var: Tensor,
    mean: Tensor,
    var: Tensor,
    momentum: float | None,
    num_batches_tracked: Tensor | None,
    input: Tensor,
) -> None:
    values = input.numel() // input.shape[1] if input.shape[1] else 0
    if values == 0:
        return
    unbiased = var * (values / (values - 1))
    if momentum is not None:
        running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
        running_var.mul_(1 - momentum).add_(unbiased, alpha=momentum)
        return
    assert num_batches_tracked is not None
    for running, new in ((running_mean, mean), (running_var, unbiased)):
        running.add_((new - running) / num_batches_tracked)


# ---- torch.func and forward-mode AD ----------------------------------------------------------------------------------
# The values come from our kernels, the derivatives are written in ops that torch transforms; where forward mode is
# nested, the values are, too. What is fused elsewhere is one op after the other here.

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def _finish(normalized: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    if residual is not None:
        normalized = normalized + residual
    return normalized if activation == "none" else _ACTIVATIONS[activation](normalized)


def _transformed_train(
    input: Tensor,
    residual: Tensor | None,
    known_mean: None,
    known_var: None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    _train(*_on_meta(input, residual, known_mean, known_var, weight, bias), eps, activation)
    function = _train_by_torch if has_nested_forward_mode() else _Train.apply
    normalized, mean, var = function(input, weight, bias, eps)
    return _finish(normalized, residual, activation), mean, var


def _transformed_infer(
    input: Tensor,
    residual: Tensor | None,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str,
) -> Tensor:
    _infer(*_on_meta(input, residual, mean, var, weight, bias), eps, activation)
    function = _infer_by_torch if has_nested_forward_mode() else _Infer.apply
    return _finish(function(input, mean, var, weight, bias, eps), residual, activation)


def _train_by_torch(input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
    x = input.to(_compute_dtype(input))
    mean = x.mean(_axes(x), keepdim=True)
    distance = x - mean
    var = distance.square().mean(_axes(x), keepdim=True)
    output = _affine(distance * torch.rsqrt(var + eps), weight, bias).to(input.dtype)
    return output, mean.flatten(), var.flatten()


def _infer_by_torch(
    input: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
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
        return _train(input, None, None, None, weight, bias, eps, "none")

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
        return _infer(input, None, mean, var, weight, bias, eps, "none")

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
