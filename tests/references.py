"""The ops once more, as plainly as can be: loops over taps or windows, written from the formulas and not from torch's
functional. Meant for float64."""

from __future__ import annotations

import torch
from torch import Tensor


def _pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


# ---- convolution -----------------------------------------------------------------------------------------------------


def _pads(padding, kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int, int, int]:
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":
        total_h, total_w = ((size - 1) * step for size, step in zip(kernel, dilation, strict=True))
        return total_h // 2, (total_h + 1) // 2, total_w // 2, (total_w + 1) // 2
    pad_h, pad_w = _pair(padding)
    return pad_h, pad_h, pad_w, pad_w


class _Taps:
    """For each tap (r, s), the pixels of a zero-padded map that it meets, as a view of size (N, groups, C', P, Q)."""

    def __init__(self, input_size, kernel, stride, pads, dilation, groups):
        self.N, self.C, self.H, self.W = input_size
        self.kernel, self.stride, self.dilation, self.groups = kernel, stride, dilation, groups
        self.top, self.bottom, self.left, self.right = pads
        self.P = (self.H + self.top + self.bottom - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
        self.Q = (self.W + self.left + self.right - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1

    def padded(self, like: Tensor, input: Tensor | None = None) -> Tensor:
        map = like.new_zeros(self.N, self.C, self.H + self.top + self.bottom, self.W + self.left + self.right)
        if input is not None:
            self.inside(map)[...] = input
        return map

    def inside(self, padded: Tensor) -> Tensor:
        return padded[..., self.top : self.top + self.H, self.left : self.left + self.W]

    def __call__(self, padded: Tensor):
        for r in range(self.kernel[0]):
            for s in range(self.kernel[1]):
                h, w = r * self.dilation[0], s * self.dilation[1]
                rows = slice(h, h + (self.P - 1) * self.stride[0] + 1, self.stride[0])
                columns = slice(w, w + (self.Q - 1) * self.stride[1] + 1, self.stride[1])
                yield r, s, padded[..., rows, columns].unflatten(1, (self.groups, self.C // self.groups))


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    if input.dim() == 3:
        return conv2d(input[None], weight, bias, stride, padding, dilation, groups)[0]
    stride, dilation, kernel = _pair(stride), _pair(dilation), tuple(weight.shape[2:])
    taps = _Taps(input.shape, kernel, stride, _pads(padding, kernel, dilation), dilation, groups)
    weight = weight.unflatten(0, (groups, weight.shape[0] // groups))
    output = input.new_zeros(input.shape[0], groups, weight.shape[1], taps.P, taps.Q)
    for r, s, pixels in taps(taps.padded(input, input)):
        output += torch.einsum("ngcpq,gkc->ngkpq", pixels, weight[..., r, s])
    output = output.flatten(1, 2)
    return output if bias is None else output + bias[:, None, None]


def conv2d_input_grad(grad_output, weight, input_size, stride, padding, dilation, groups):
    taps = _Taps(input_size, tuple(weight.shape[2:]), stride, padding, dilation, groups)
    weight = weight.unflatten(0, (groups, weight.shape[0] // groups))
    grad_output = grad_output.unflatten(1, (groups, weight.shape[1]))
    grad_padded = taps.padded(grad_output)
    for r, s, pixels in taps(grad_padded):
        pixels += torch.einsum("ngkpq,gkc->ngcpq", grad_output, weight[..., r, s])
    return taps.inside(grad_padded)


def conv2d_weight_grad(grad_output, input, weight_size, stride, padding, dilation, groups):
    taps = _Taps(input.shape, tuple(weight_size[2:]), stride, padding, dilation, groups)
    grad_output = grad_output.unflatten(1, (groups, weight_size[0] // groups))
    grad_weight = input.new_zeros(weight_size)
    by_group = grad_weight.unflatten(0, (groups, weight_size[0] // groups))
    for r, s, pixels in taps(taps.padded(input, input)):
        by_group[..., r, s] = torch.einsum("ngkpq,ngcpq->gkc", grad_output, pixels)
    return grad_weight


# ---- products --------------------------------------------------------------------------------------------------------


def linear(input, weight, bias=None):
    output = input.new_zeros(*input.shape[:-1], weight.shape[0])
    for j, row in enumerate(weight):
        output[..., j] = (input * row).sum(-1)
    return output if bias is None else output + bias


# ---- pooling ---------------------------------------------------------------------------------------------------------


def _windows(length, kernel, stride, pad, dilation, ceil_mode):
    """The taps of each window along one axis; some may lie outside the map."""
    extent, windows = dilation * (kernel - 1) + 1, []
    begin = -pad
    while begin + extent <= length + pad or (ceil_mode and begin < length and begin + extent < length + pad + stride):
        windows.append([begin + tap * dilation for tap in range(kernel)])
        begin += stride
    return windows


def _adaptive_windows(length, windows):
    return [list(range(i * length // windows, -(-(i + 1) * length // windows))) for i in range(windows)]


def _inside(window, length):
    return [place for place in window if 0 <= place < length]


def _maxima(input, rows, columns, return_indices):
    H, W = input.shape[-2:]
    output = input.new_zeros(*input.shape[:-2], len(rows), len(columns))
    indices = torch.zeros(output.shape, dtype=torch.int64, device=input.device)
    for p, row in enumerate(rows):
        for q, column in enumerate(columns):
            best = place = None
            for h in _inside(row, H):
                for w in _inside(column, W):
                    value = input[..., h, w]
                    if best is None:
                        best, place = value.clone(), torch.full_like(value, h * W + w, dtype=torch.int64)
                        continue
                    wins = (value > best) | value.isnan()  # the first maximum, but the last NaN
                    best = torch.where(wins, value, best)
                    place = torch.where(wins, h * W + w, place)
            output[..., p, q], indices[..., p, q] = best, place
    return (output, indices) if return_indices else output


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    kernel, pad, step = _pair(kernel_size), _pair(padding), _pair(dilation)
    stride = kernel if stride is None else _pair(stride)
    axes = [
        _windows(input.shape[axis - 2], kernel[axis], stride[axis], pad[axis], step[axis], ceil_mode) for axis in (0, 1)
    ]
    return _maxima(input, *axes, return_indices)


def _adaptive_axes(input, output_size):
    sizes = (output_size, output_size) if output_size is None else _pair(output_size)
    return [
        _adaptive_windows(length, length if size is None else size)
        for length, size in zip(input.shape[-2:], sizes, strict=True)
    ]


def adaptive_max_pool2d(input, output_size, return_indices=False):
    return _maxima(input, *_adaptive_axes(input, output_size), return_indices)


def avg_pool2d(
    input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    kernel, pad = _pair(kernel_size), _pair(padding)
    stride = kernel if stride is None else _pair(stride)
    H, W = input.shape[-2:]
    rows = _windows(H, kernel[0], stride[0], pad[0], 1, ceil_mode)
    columns = _windows(W, kernel[1], stride[1], pad[1], 1, ceil_mode)
    output = input.new_zeros(*input.shape[:-2], len(rows), len(columns))
    for p, row in enumerate(rows):
        for q, column in enumerate(columns):
            taps_h, taps_w = _inside(row, H), _inside(column, W)
            if divisor_override is not None:
                divisor = divisor_override
            elif count_include_pad:  # the padding counts, what hangs over it does not
                divisor = sum(h < H + pad[0] for h in row) * sum(w < W + pad[1] for w in column)
            else:
                divisor = len(taps_h) * len(taps_w)
            window = input[..., taps_h[0] : taps_h[-1] + 1, taps_w[0] : taps_w[-1] + 1]
            output[..., p, q] = window.sum((-2, -1)) / divisor
    return output


def adaptive_avg_pool2d(input, output_size):
    rows, columns = _adaptive_axes(input, output_size)
    output = input.new_zeros(*input.shape[:-2], len(rows), len(columns))
    for p, row in enumerate(rows):
        for q, column in enumerate(columns):
            output[..., p, q] = input[..., row[0] : row[-1] + 1, column[0] : column[-1] + 1].mean((-2, -1))
    return output


# ---- normalisation ---------------------------------------------------------------------------------------------------


def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    channels = []
    for c in range(input.shape[1]):
        values = input[:, c]
        mean = values.sum() / max(1, values.numel()) if training else running_mean[c]
        var = (values - mean).square().sum() / max(1, values.numel()) if training else running_var[c]
        output = (values - mean) / (var + eps).sqrt()
        if weight is not None:
            output = output * weight[c]
        channels.append(output if bias is None else output + bias[c])
    return torch.stack(channels, 1)


# ---- activations, softmax, losses ------------------------------------------------------------------------------------


def relu(input):
    return torch.where(input < 0, 0.0, input)


def sigmoid(input):
    e = torch.exp(-input.abs())
    return torch.where(input < 0, e, 1.0) / (1 + e)


def tanh(input):
    m = torch.expm1(-2 * input.abs())
    return torch.copysign(-m / (2 + m), input)


def softmax(input, dim):
    e = torch.exp(input - input.amax(dim, keepdim=True))
    return e / e.sum(dim, keepdim=True)


def log_softmax(input, dim):
    distance = input - input.amax(dim, keepdim=True)
    return distance - distance.exp().sum(dim, keepdim=True).log()


def cross_entropy(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    if input.dim() == 1:
        input, target = input[None], target[None]
        losses = cross_entropy(input, target, weight, ignore_index, "none", label_smoothing)
        return losses[0] if reduction == "none" else _reduced(losses, target, weight, ignore_index, reduction)
    classes = input.shape[1]
    weights = torch.ones(classes, dtype=input.dtype) if weight is None else weight.to(input.dtype)
    if target.is_floating_point():
        wanted = target.to(input.dtype) * (1 - label_smoothing) + label_smoothing / classes
    else:
        hot = (target.unsqueeze(1) == torch.arange(classes).view(-1, *(1 for _ in input.shape[2:]))).to(input.dtype)
        wanted = (hot * (1 - label_smoothing) + label_smoothing / classes) * (target != ignore_index).unsqueeze(1)
    scaled = wanted * weights.view(-1, *(1 for _ in input.shape[2:]))
    losses = -torch.where(scaled == 0, 0.0, log_softmax(input, 1) * scaled).sum(1)
    return _reduced(losses, target, weight, ignore_index, reduction)


def _reduced(losses, target, weight, ignore_index, reduction):
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if target.is_floating_point():
        return losses.mean()
    counts = target != ignore_index
    weights = counts.to(losses.dtype) if weight is None else weight.to(losses.dtype)[target.clamp(min=0)] * counts
    return losses.sum() / weights.sum()


def mse_loss(input, target, reduction="mean"):
    losses = (input - target) * (input - target)
    return losses if reduction == "none" else losses.sum() / (losses.numel() if reduction == "mean" else 1)


def dropout(input, p=0.5, training=True):
    """For probabilities that leave no choice."""
    assert not training or p in (0, 1)
    return input * (0.0 if training and p == 1 else 1.0)
