"""vmap rules: most ops handle a batch of problems in one call.

A pooling op takes the batch as more images, batch normalisation as more channels, an activation as more elements. A
convolution whose tensors are both batched takes it as more groups; with one batched tensor, as more images or more
channels of that tensor. Losses and what is fused of several steps with weights take one call for each problem.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


def register() -> None:
    rule = torch.library.register_vmap
    rule("d2lkernels::conv2d", _conv2d)
    rule("d2lkernels::conv2d_input_grad", _conv2d_input_grad)
    rule("d2lkernels::conv2d_weight_grad", _conv2d_weight_grad)
    rule("d2lkernels::conv2d_activation", _then_activation(_conv2d))
    rule("d2lkernels::linear", _linear)
    rule("d2lkernels::linear_activation", _then_activation(_linear))
    rule("d2lkernels::concat", _concat)
    ops = torch.ops.d2lkernels
    for op, tensors in (
        (ops.max_pool2d, 1),
        (ops.max_pool2d_with_offsets, 1),
        (ops.adaptive_max_pool2d, 1),
        (ops.adaptive_max_pool2d_with_offsets, 1),
        (ops.max_pool2d_gather, 2),
        (ops.max_pool2d_input_grad, 2),
        (ops.max_pool2d_indices, 1),
        (ops.avg_pool2d, 1),
        (ops.avg_pool2d_input_grad, 1),
        (ops.adaptive_avg_pool2d, 1),
        (ops.adaptive_avg_pool2d_input_grad, 1),
    ):
        rule(op.default, _images_rule(op.default, tensors))
    for op, maps, parameters in (
        (ops.batch_norm_train, 2, 4),
        (ops.batch_norm_infer, 2, 4),
        (ops.batch_norm_train_grad, 3, 4),
        (ops.batch_norm_add_train_grad, 3, 4),
        (ops.batch_norm_weight_grad, 2, 2),
        (ops.bias_grad, 1, 0),
        (ops.activation_bias_grad, 2, 0),
    ):
        rule(op.default, _channels_rule(op.default, maps, parameters))
    for op in (
        ops.relu,
        ops.sigmoid,
        ops.tanh,
        ops.relu_input_grad,
        ops.sigmoid_input_grad,
        ops.tanh_input_grad,
        ops.add_relu,
    ):
        rule(op.default, _elements_rule(op.default))
    for op in (ops.softmax, ops.log_softmax, ops.softmax_input_grad, ops.log_softmax_input_grad):
        rule(op.default, _axis_rule(op.default))
    rule("d2lkernels::dropout", _dropout)
    for op in (
        ops.conv2d_moments,
        ops.conv2d_max_pool2d,
        ops.conv2d_avg_pool2d,
        ops.conv2d_avg_pool2d_grad,
        ops.concat_convolutions,
        ops.dense_block,
        ops.dense_block_grad,
        ops.cross_entropy,
        ops.cross_entropy_input_grad,
        ops.mse_loss,
        ops.mse_loss_input_grad,
    ):
        rule(op.default, _one_by_one_rule(op.default))


def _front(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The batch as dimension 0, expanded where the tensor has none."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _images_rule(op, tensors: int):
    """The batch becomes more images: right for every op that treats its images alike."""
    takes_input_size = any(argument.name == "input_size" for argument in op._schema.arguments)

    def rule(info, in_dims, *args):
        size = info.batch_size
        batched = [_front(args[i], in_dims[i], size) for i in range(tensors)]
        images = batched[0].shape[1]
        rest = list(args[tensors:])
        if takes_input_size:
            rest[0] = [size * rest[0][0], *rest[0][1:]]
        outputs = op(*(tensor.flatten(0, 1) for tensor in batched), *rest)
        if isinstance(outputs, Tensor):
            return outputs.unflatten(0, (size, images)), 0
        return tuple(output.unflatten(0, (size, images)) for output in outputs), (0,) * len(outputs)

    return rule


def _concat(info, in_dims, tensors, dim):
    fronts = [_front(tensor, at, info.batch_size) for tensor, at in zip(tensors, in_dims[0], strict=True)]
    return torch.ops.d2lkernels.concat.default(fronts, dim + 1 if dim >= 0 else dim), 0


def _fold(front: Tensor, is_map: bool) -> Tensor:
    """(B, N, C, ...) as (N, B * C, ...), or (B, C) as (B * C)."""
    return front.transpose(0, 1).flatten(1, 2) if is_map else front.flatten(0, 1)


def _channels_rule(op, maps: int, parameters: int):
    """The batch becomes more channels: right for every op that treats its channels alike.

    The first `maps` arguments are maps (N, C, ...), the next `parameters` are of shape (C) or None, and so are outputs.
    """

    def rule(info, in_dims, *args):
        size = info.batch_size
        folded = [
            None if arg is None else _fold(_front(arg, dim, size), place < maps)
            for place, (arg, dim) in enumerate(zip(args[: maps + parameters], in_dims, strict=False))
        ]
        outputs = op(*folded, *args[maps + parameters :])
        if isinstance(outputs, Tensor):
            return _from_channels(outputs, size, 1 if outputs.dim() > 1 else 0), 0
        unfolded = tuple(_from_channels(one, size, 1 if one.dim() > 1 else 0) for one in outputs)
        return unfolded, (0,) * len(unfolded)

    return rule


def _fronts(info, in_dims, tensors) -> list[Tensor]:
    return [_front(tensor, dim, info.batch_size) for tensor, dim in zip(tensors, in_dims, strict=False)]


def _elements_rule(op):
    """To an op that treats its elements alike, a batch is more of them."""

    def rule(info, in_dims, *tensors):
        return op(*_fronts(info, in_dims, tensors)), 0

    return rule


def _axis_rule(op):
    """For ops along one axis, which comes last: the batch is one more of the other axes."""

    def rule(info, in_dims, *args):
        *tensors, dim = args
        batched = _fronts(info, in_dims, tensors)
        if batched[0].dim() == 1:  # numbers, which have an axis of length 1
            return op(*(tensor.unsqueeze(1) for tensor in batched), 1).squeeze(1), 0
        return op(*batched, dim if dim < 0 else dim + 1), 0

    return rule


def _one_by_one_rule(op):
    """One call for each problem, where a larger one of the same kind would mix them: a mean, weights in every step."""

    def choose(arg, dim, i: int):
        if isinstance(arg, (list, tuple)):
            return [choose(one, at, i) for one, at in zip(arg, dim, strict=True)]
        return arg if dim is None else arg.select(dim, i)

    def stack(results):
        if isinstance(results[0], Tensor):
            return torch.stack(results)
        return tuple(stack(one) for one in zip(*results, strict=True))

    def rule(info, in_dims, *args):
        results = [op(*choose(args, in_dims, i)) for i in range(info.batch_size)]
        outputs = stack(results)
        return outputs, tree_map(lambda _: 0, outputs)

    return rule


def _dropout(info, in_dims, input, seed, p):
    """Places count within a problem: the factors are those of one, or of each with a seed of its own."""
    op = torch.ops.d2lkernels.dropout.default
    input_dim, seed_dim = in_dims[:2]
    batched = _front(input, input_dim, info.batch_size)
    ones = torch.ones_like(batched[0])
    if seed_dim is None:
        return batched * op(ones, seed, p), 0
    return batched * torch.stack([op(ones, one, p) for one in seed.unbind(seed_dim)]), 0


# Channels are laid out as (groups, channels of a group). A batch goes in front of the channels of a group, except where
# it becomes more groups: then it is in front of all.


def _as_images(tensor: Tensor, dim: int) -> Tensor:
    return tensor.movedim(dim, 0).flatten(0, 1)


def _as_group_channels(tensor: Tensor, dim: int, axis: int, groups: int) -> Tensor:
    """Batch (B) and channels (G * C') of `axis` become G * B * C' channels."""
    split = tensor.movedim(dim, 0).unflatten(axis + 1, (groups, -1))
    return split.movedim(0, axis + 1).flatten(axis, axis + 2)


def _from_group_channels(tensor: Tensor, size: int, axis: int, groups: int) -> Tensor:
    return tensor.unflatten(axis, (groups, size, -1)).movedim(axis + 1, 0).flatten(axis + 1, axis + 2)


def _as_channels(tensor: Tensor, dim: int, axis: int) -> Tensor:
    """Batch (B) and channels of `axis` become B * channels."""
    return tensor.movedim(dim, axis).flatten(axis, axis + 1)


def _from_channels(tensor: Tensor, size: int, axis: int) -> Tensor:
    return tensor.unflatten(axis, (size, -1)).movedim(axis, 0)


def _conv2d(info, in_dims, input, weight, bias, stride, padding, dilation, groups):
    op, size = torch.ops.d2lkernels.conv2d.default, info.batch_size
    input_dim, weight_dim, bias_dim = in_dims[:3]
    if input_dim is None and weight_dim is None:
        output = op(input, weight, None, stride, padding, dilation, groups).unsqueeze(0)
    elif weight_dim is None:
        output = op(_as_images(input, input_dim), weight, None, stride, padding, dilation, groups)
        output = output.unflatten(0, (size, -1))
    elif input_dim is None:
        stacked = _as_group_channels(weight, weight_dim, 0, groups)
        output = op(input, stacked, None, stride, padding, dilation, groups)
        output = _from_group_channels(output, size, 1, groups)
    else:
        output = op(
            _as_channels(input, input_dim, 1),
            _as_images(weight, weight_dim),
            None,
            stride,
            padding,
            dilation,
            size * groups,
        )
        output = _from_channels(output, size, 1)
    if bias is not None:
        output = output + _front(bias, bias_dim, 1)[:, None, :, None, None]
    return output, 0


def _conv2d_input_grad(info, in_dims, grad_output, weight, input_size, stride, padding, dilation, groups):
    op, size = torch.ops.d2lkernels.conv2d_input_grad.default, info.batch_size
    grad_dim, weight_dim = in_dims[:2]
    images, channels, *plane = input_size
    if weight_dim is None:
        stacked_size = [size * images, channels, *plane]
        gradient = op(_as_images(grad_output, grad_dim), weight, stacked_size, stride, padding, dilation, groups)
        return gradient.unflatten(0, (size, images)), 0
    stacked_size = [images, size * channels, *plane]
    if grad_dim is None:
        stacked = _as_channels(weight, weight_dim, 1)
        gradient = op(grad_output, stacked, stacked_size, stride, padding, dilation, groups)
        return _from_group_channels(gradient, size, 1, groups), 0
    stacked_grad, stacked_weight = _as_channels(grad_output, grad_dim, 1), _as_images(weight, weight_dim)
    gradient = op(stacked_grad, stacked_weight, stacked_size, stride, padding, dilation, size * groups)
    return _from_channels(gradient, size, 1), 0


def _conv2d_weight_grad(info, in_dims, grad_output, input, weight_size, stride, padding, dilation, groups):
    op, size = torch.ops.d2lkernels.conv2d_weight_grad.default, info.batch_size
    grad_dim, input_dim = in_dims[:2]
    outputs, channels, *taps = weight_size
    if input_dim is None:
        stacked = _as_group_channels(grad_output, grad_dim, 1, groups)
        gradient = op(stacked, input, [size * outputs, channels, *taps], stride, padding, dilation, groups)
        return _from_group_channels(gradient, size, 0, groups), 0
    if grad_dim is None:
        stacked = _as_group_channels(input, input_dim, 1, groups)
        gradient = op(grad_output, stacked, [outputs, size * channels, *taps], stride, padding, dilation, groups)
        return _from_channels(gradient, size, 1), 0
    stacked_grad, stacked_input = _as_channels(grad_output, grad_dim, 1), _as_channels(input, input_dim, 1)
    stacked_size = [size * outputs, channels, *taps]
    gradient = op(stacked_grad, stacked_input, stacked_size, stride, padding, dilation, size * groups)
    return gradient.unflatten(0, (size, outputs)), 0


def _linear(info, in_dims, input, weight, bias):
    op, size = torch.ops.d2lkernels.linear.default, info.batch_size
    input_dim, weight_dim, bias_dim = in_dims
    if input_dim is None and weight_dim is None:
        output = op(input, weight, None).unsqueeze(0)
    elif weight_dim is None:
        output = op(_as_images(input, input_dim), weight, None).unflatten(0, (size, -1))
    elif input_dim is None:
        output = _from_channels(op(input, _as_images(weight, weight_dim), None), size, 1)
    else:  # groups of channels of 1x1 maps
        maps, kernels = _as_channels(input, input_dim, 1), _as_images(weight, weight_dim)
        output = torch.ops.d2lkernels.conv2d.default(
            maps[..., None, None], kernels[..., None, None], None, (1, 1), (0, 0, 0, 0), (1, 1), size
        )
        output = _from_channels(output[..., 0, 0], size, 1)
    if bias is not None:
        output = output + _front(bias, bias_dim, 1)[:, None]
    return output, 0


def _then_activation(product):
    """The rule of a fused op, whose last argument is the activation."""

    def rule(info, in_dims, *args):
        output, dim = product(info, in_dims[:-1], *args[:-1])
        return (output if args[-1] == "none" else getattr(torch.ops.d2lkernels, args[-1]).default(output)), dim

    return rule
