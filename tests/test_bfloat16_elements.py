"""Ops that read and write bfloat16 themselves, on the CPU: the bits of the same op on float32 copies, rounded once, for
every value that bfloat16 has and with every instruction set."""

import pytest
import torch

from d2lkernels import ops

pytestmark = pytest.mark.usefixtures("capability")

VALUES = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)  # NaN and subnormals included
OTHERS = VALUES[torch.randperm(len(VALUES), generator=torch.Generator().manual_seed(0))]
ACTIVATIONS = ("relu", "sigmoid", "tanh")

# Maps of which batch normalisation sees rows or planes: whole registers and parts of them, one image, one pixel, rows
# that are taken several at a time, parts whose sums are joined.
MAPS = ((16, 64, 12, 12), (2, 6, 28, 28), (5, 7, 5, 3), (1, 33, 9, 9), (9, 512, 3, 3), (300, 13), (64, 200, 1, 1))
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def _assert_same_bits(actual, expected):
    assert actual.dtype == torch.bfloat16
    expected = expected.to(torch.bfloat16)
    is_nan = expected.isnan()
    assert torch.equal(actual.isnan(), is_nan)
    assert torch.equal(actual[~is_nan].view(torch.int16), expected[~is_nan].view(torch.int16))


@pytest.mark.parametrize("part", [slice(None), slice(1, None), slice(3, 70), slice(5, 6)], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, part):
    op, grad_op = getattr(ops, name), getattr(torch.ops.d2lkernels, f"{name}_input_grad")
    x, grad = VALUES[part], OTHERS[part]
    _assert_same_bits(op(x), op(x.float()))
    _assert_same_bits(grad_op(grad, x), grad_op(grad.float(), x.float()))


def test_large_results_go_past_the_cache():
    x = VALUES.repeat(257)[3:]
    assert x.numel() * x.element_size() >= 32 << 20
    _assert_same_bits(ops.relu(x), ops.relu(x.float()))


def test_add_relu():
    _assert_same_bits(ops.add_relu(VALUES, OTHERS), ops.add_relu(VALUES.float(), OTHERS.float()))


@pytest.mark.parametrize("count", [1, 100, 1 << 16])
def test_dropout(count):
    x, seed = VALUES[:count], torch.tensor(7)
    expected = torch.ops.d2lkernels.dropout(x.float(), seed, 0.3)
    _assert_same_bits(torch.ops.d2lkernels.dropout(x, seed, 0.3), expected)


# ---- batch normalisation -----------------------------------------------------------------------------------------


def _map(size, layout, seed):
    drawn = torch.randn(size, generator=torch.Generator().manual_seed(seed)).mul(2).add(3).bfloat16()
    return drawn.contiguous(memory_format=LAYOUTS[layout]) if len(size) == 4 else drawn


def _channels(count):
    return torch.linspace(0.5, 2, count).bfloat16(), torch.linspace(-1, 1, count).bfloat16()


def _wide(tensors):
    return [tensor.float() if isinstance(tensor, torch.Tensor) else tensor for tensor in tensors]


def _assert_as_wide(op, *arguments):
    """Of `op` called with float32 copies: its maps rounded once; what there is one of per channel is float32."""
    results, expected = op(*arguments), op(*_wide(arguments))
    if isinstance(results, torch.Tensor):
        results, expected = [results], [expected]
    for actual, wide in zip(results, expected, strict=True):
        if actual.dim() == 1:
            assert actual.dtype == torch.float32 and torch.equal(actual, wide.float())
        else:
            assert actual.stride() == wide.stride()
            _assert_same_bits(actual, wide)
    return results


@pytest.mark.parametrize("has_residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("activation", ["none", *ACTIVATIONS])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", MAPS, ids=str)
def test_batch_norm(size, layout, activation, has_residual):
    library = torch.ops.d2lkernels
    input, grad, other = (_map(size, layout, seed) for seed in range(3))
    weight, bias = _channels(size[1])
    residual = other if has_residual else None
    output, mean, var = _assert_as_wide(
        library.batch_norm_train, input, residual, None, None, weight, bias, 1e-5, activation
    )
    _assert_as_wide(library.batch_norm_train, input, residual, mean, var, weight, bias, 1e-5, activation)
    _assert_as_wide(library.batch_norm_infer, input, residual, mean, var, weight, bias, 1e-5, activation)
    is_fused = has_residual and activation != "none"
    grad_op = library.batch_norm_add_train_grad if is_fused else library.batch_norm_train_grad
    _assert_as_wide(grad_op, grad, input, output if is_fused else None, weight, bias, mean, var, 1e-5, activation)
    _assert_as_wide(library.batch_norm_weight_grad, grad, input, mean, var, 1e-5)


def test_batch_norm_takes_every_value():
    input = VALUES.view(-1, 64)
    library, mean, var = torch.ops.d2lkernels, torch.linspace(-2, 2, 64), torch.linspace(0.1, 3, 64)
    for activation in ("none", *ACTIVATIONS):
        _assert_as_wide(library.batch_norm_infer, input, OTHERS.view(-1, 64), mean, var, None, None, 1e-5, activation)


# ---- pools -------------------------------------------------------------------------------------------------------

library = torch.ops.d2lkernels

# N, C, H, W; kernel, stride, padding, dilation; ceil_mode. An empty kernel stands for adaptive windows, of which the
# stride says how many.
WINDOWS = {
    "strips of stride 1": ((2, 40, 9, 11), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "strips of stride 2": ((2, 83, 13, 9), (3, 3), (2, 2), (1, 1), (1, 1), True),
    "strips without padding": ((1, 16, 12, 26), (3, 3), (2, 2), (0, 0), (1, 1), False),
    "strips of few channels": ((3, 3, 7, 6), (3, 3), (1, 2), (1, 0), (1, 1), True),
    "side by side": ((2, 64, 8, 6), (2, 2), (2, 2), (0, 0), (1, 1), False),
    "side by side, odd": ((2, 21, 9, 7), (2, 2), (2, 2), (0, 0), (1, 1), False),
    "side by side over few channels": ((3, 6, 28, 28), (2, 2), (2, 2), (0, 0), (1, 1), False),
    "side by side over short rows": ((5, 16, 10, 10), (2, 2), (2, 2), (0, 0), (1, 1), False),
    "side by side, 3 x 3": ((2, 5, 12, 21), (3, 3), (3, 3), (0, 0), (1, 1), False),
    "side by side, 4 x 2": ((2, 5, 12, 22), (4, 2), (4, 2), (0, 0), (1, 1), False),
    "hanging over the edge": ((2, 20, 9, 9), (2, 2), (2, 2), (1, 1), (1, 1), True),
    "5 x 5": ((2, 20, 13, 37), (5, 5), (1, 2), (2, 1), (1, 1), False),
    "stride 3": ((2, 17, 16, 40), (4, 4), (3, 3), (1, 2), (1, 1), True),
    "far apart": ((1, 3, 20, 66), (3, 3), (6, 7), (1, 1), (1, 1), False),
    "dilated": ((2, 9, 11, 30), (3, 2), (1, 2), (1, 1), (2, 3), False),
    "one channel": ((4, 1, 15, 15), (3, 3), (2, 2), (1, 1), (1, 1), False),
    "many taps": ((1, 4, 20, 24), (17, 18), (2, 3), (3, 2), (1, 1), False),
    "one row": ((2, 8, 1, 33), (1, 3), (1, 1), (0, 1), (1, 1), False),
    "whole maps": ((3, 72, 7, 5), (), (1, 1), (), (), False),
    "large whole maps": ((2, 5, 17, 19), (), (1, 1), (), (), False),
    "adaptive": ((2, 33, 10, 13), (), (3, 4), (), (), False),
    "adaptive, more windows than pixels": ((2, 5, 4, 3), (), (7, 9), (), (), False),
    "adaptive, rows": ((2, 3, 24, 32), (), (5, 1), (), (), False),
}
CONTENTS = ("normal", "ties", "extremes")


def _values(size, contents, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, generator=generator)
    if contents == "ties":  # zeros of both signs among them
        x = (x * 2).round() / 2
    if contents == "extremes":
        rare = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-40, 3.38e38])
        places = torch.rand(size, generator=generator) < 0.03
        x[places] = rare[torch.randint(len(rare), (int(places.sum()),), generator=generator)]
        x[0, 0] = -float("inf")
    return x.bfloat16()


@pytest.mark.parametrize("contents", CONTENTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("windows", WINDOWS)
def test_maxima(windows, layout, contents):
    size, kernel, stride, padding, dilation, ceil_mode = WINDOWS[windows]
    adaptive = kernel == ()
    args = (list(stride),) if adaptive else (kernel, stride, padding, dilation, ceil_mode)
    name = "adaptive_max_pool2d" if adaptive else "max_pool2d"
    op, with_offsets = getattr(library, name), getattr(library, f"{name}_with_offsets")
    window = [] if adaptive else [*kernel, *stride, *padding, *dilation]

    x = _values(size, contents).contiguous(memory_format=LAYOUTS[layout])
    expected, expected_offsets = with_offsets(x.float(), *args)
    output, offsets = with_offsets(x, *args)
    _assert_same_bits(output, expected)
    assert torch.equal(offsets, expected_offsets)
    _assert_same_bits(op(x, *args), op(x.float(), *args))

    grad = _values(output.shape, contents, seed=1).contiguous(memory_format=LAYOUTS[layout])
    expected = library.max_pool2d_input_grad(grad.float(), offsets, list(size), window)
    _assert_same_bits(library.max_pool2d_input_grad(grad, offsets, list(size), window), expected)
    _assert_same_bits(
        library.max_pool2d_gather(x, offsets, window), library.max_pool2d_gather(x.float(), offsets, window)
    )


@pytest.mark.parametrize("contents", CONTENTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("windows", WINDOWS)
def test_averages(windows, layout, contents):
    size, kernel, stride, padding, dilation, ceil_mode = WINDOWS[windows]
    if dilation not in ((), (1, 1)):
        pytest.skip("averages are never dilated")
    x = _values(size, contents).contiguous(memory_format=LAYOUTS[layout])
    if kernel == ():
        op, grad_op, options = library.adaptive_avg_pool2d, library.adaptive_avg_pool2d_input_grad, [()]
        args = (list(stride),)
    else:
        op, grad_op, args = library.avg_pool2d, library.avg_pool2d_input_grad, (kernel, stride, padding, ceil_mode)
        options = [(True, None), (False, None), (True, 7)]
    for rest in options:
        output = op(x, *args, *rest)
        _assert_same_bits(output, op(x.float(), *args, *rest))
        grad = _values(output.shape, contents, seed=1).contiguous(memory_format=LAYOUTS[layout])
        grad_args = () if kernel == () else (*args, *rest)
        expected = grad_op(grad.float(), list(size), *grad_args)
        _assert_same_bits(grad_op(grad, list(size), *grad_args), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_overlapping_windows_are_rounded_once(layout):
    """257 = 256 + 1 is no bfloat16: added in bfloat16 the ones would be lost."""
    x = torch.zeros(1, 1, 5, 5).bfloat16()
    x[0, 0, 2, 2] = 1
    for channels in (1, 16):
        maps = x.expand(1, channels, 5, 5).contiguous(memory_format=LAYOUTS[layout])
        _, offsets = library.max_pool2d_with_offsets(maps, (3, 3), (1, 1), (0, 0), (1, 1), False)
        grad = torch.ones_like(offsets, dtype=torch.bfloat16)
        grad[:, :, 0, 0] = 256
        result = library.max_pool2d_input_grad(grad, offsets, [1, channels, 5, 5], [3, 3, 1, 1, 0, 0, 1, 1])
        assert torch.equal(result[0, :, 2, 2], torch.full((channels,), 264.0).bfloat16())


# ---- gradients of biases -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [*MAPS, (4, 3, 150, 150)], ids=str)
def test_bias_grad(size, layout):
    library, grad, output = torch.ops.d2lkernels, _map(size, layout, 0), _map(size, layout, 1)
    _assert_same_bits(library.bias_grad(grad), library.bias_grad(grad.float()))
    for activation in ACTIVATIONS:
        results = library.activation_bias_grad(grad, output, activation)
        expected = library.activation_bias_grad(grad.float(), output.float(), activation)
        for actual, wide in zip(results, expected, strict=True):
            assert actual.stride() == wide.stride()
            _assert_same_bits(actual, wide)


# ---- softmax and losses ------------------------------------------------------------------------------------------

# Sizes and the axis of classes: rows that are transposed, parts of registers, long rows, rows side by side.
ROWS = {
    "one class": ((5, 1), 1),
    "short rows": ((37, 10), 1),
    "wide short rows": ((50, 33), 1),
    "whole registers": ((35, 32), 1),
    "64 classes": ((19, 64), 1),
    "long rows": ((9, 65), 1),
    "whole registers of long rows": ((5, 128), 1),
    "1000 classes": ((7, 1000), 1),
    "very long rows": ((3, 70001), 1),
    "side by side": ((2, 21, 9, 7), 1),
    "lines side by side": ((3, 5, 80), 1),
    "few side by side": ((4, 300, 3), 1),
}


def _logits(size, contents, seed=0):
    return _values(size, contents, seed).mul(4)


@pytest.mark.parametrize("contents", CONTENTS)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name, rows, contents):
    size, axis = ROWS[rows]
    op, grad_op = getattr(library, name), getattr(library, f"{name}_input_grad")
    x, grad = _logits(size, contents), _values(size, contents, seed=1)
    output = op(x, axis)
    _assert_same_bits(output, op(x.float(), axis))
    _assert_same_bits(grad_op(grad, output, axis), grad_op(grad.float(), output.float(), axis))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("is_weighted", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("contents", ["normal", "extremes"])
@pytest.mark.parametrize("rows", ROWS)
def test_cross_entropy(rows, contents, is_weighted, smoothing, reduction):
    size, axis = ROWS[rows]
    classes, places = size[axis], (size[0], *size[2:])
    x = _logits(size, contents)
    target = torch.randint(classes, places, generator=torch.Generator().manual_seed(1))
    target[1:2] = -100
    weight = torch.linspace(0.5, 2, classes).bfloat16() if is_weighted else None
    options = (reduction, -100, smoothing)
    wide = _wide([x, target, weight])[0::2]

    loss, statistics, total = library.cross_entropy(x, target, weight, *options)
    expected, *found = library.cross_entropy(wide[0], target, wide[1], *options)
    _assert_same_bits(loss, expected)
    for actual, of_copies in zip((statistics, total), found, strict=True):
        torch.testing.assert_close(actual, of_copies, rtol=0, atol=0, equal_nan=True)

    grad = torch.randn(loss.shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    given = library.cross_entropy_input_grad(grad, x, target, weight, statistics, total, *options)
    expected = library.cross_entropy_input_grad(grad.float(), wide[0], target, wide[1], statistics, total, *options)
    if smoothing == 0:
        _assert_same_bits(given, expected)
    else:  # a difference of nearly equal terms, which may be fused with either product
        float32_error = 1e-6 * expected.nan_to_num(0).abs().max().item()
        torch.testing.assert_close(given.float(), expected, rtol=2**-8, atol=float32_error, equal_nan=True)


def test_gradients_of_likely_classes_are_rounded_once():
    """1 - p is a difference that p as bfloat16 has lost."""
    x = torch.zeros(4, 100).bfloat16()
    x[:, 3] = 14
    exact = x.double().requires_grad_()
    torch.nn.functional.cross_entropy(exact, torch.full((4,), 3), reduction="sum").backward()
    for rows in (x, x.view(1, 4, 100).transpose(1, 2).contiguous()):  # along rows, and side by side
        given = rows.clone().requires_grad_()
        target = torch.full((4,), 3).view(given.shape[0], *given.shape[2:])
        ops.cross_entropy(given, target, reduction="sum").backward()
        grad = given.grad if rows.dim() == 2 else given.grad[0].t()
        torch.testing.assert_close(grad.double(), exact.grad, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("count", [1, 15, 1000, 1 << 16])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_loss(reduction, count):
    op, grad_op = library.mse_loss, library.mse_loss_input_grad
    drawn = [torch.randn(count, generator=torch.Generator().manual_seed(seed)).bfloat16() for seed in range(2)]
    for x, target in (drawn, (VALUES[:count], OTHERS[:count])):
        loss = op(x, target, reduction)
        _assert_same_bits(loss, op(x.float(), target.float(), reduction))
        grad = drawn[1] if reduction == "none" else torch.tensor(0.3).bfloat16()
        expected = grad_op(grad.float(), x.float(), target.float(), reduction)
        _assert_same_bits(grad_op(grad, x, target, reduction), expected)
