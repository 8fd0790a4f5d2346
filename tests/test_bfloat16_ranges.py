"""bfloat16 on the CPU in ops that write ranges of the channels of one map: each convolution with the kernel that it has
alone, and nothing through float32 copies of the whole."""

import pytest
import torch

from d2lkernels import config, ops

pytestmark = pytest.mark.usefixtures("capability")

# Channels, output channels, kernel, groups, dilation.
CONVOLUTIONS = {
    "even channels": [(8, 16, 1, 1, 1), (16, 32, 3, 1, 1), (4, 8, 5, 1, 1), (8, 48, 1, 1, 1)],
    "odd channels": [(7, 15, 1, 1, 1), (5, 33, 3, 1, 1), (3, 1, 5, 1, 1), (1, 2, 1, 1, 1)],
    "odd ranges": [(8, 3, 1, 1, 1), (8, 16, 1, 1, 1), (16, 32, 3, 1, 1), (6, 2, 5, 1, 1)],
    "one channel": [(2, 1, 1, 1, 1), (2, 1, 3, 1, 1)],
    "groups": [(8, 16, 1, 2, 1), (8, 8, 3, 8, 1), (72, 36, 3, 2, 1), (6, 12, 1, 1, 1)],
    "dilation": [(8, 16, 3, 1, 2), (8, 16, 1, 1, 1)],
    "many channels": [(160, 112, 1, 1, 1), (112, 224, 3, 1, 1), (24, 64, 5, 1, 1), (512, 64, 1, 1, 1)],
}


def _given(convolutions, memory_format, images=2, height=9, width=8):
    """Inputs, weights and biases in float64, of values that bfloat16 has."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*size):
        return torch.randn(size, generator=generator).bfloat16().double()

    inputs, weights, biases = [], [], []
    for channels, width_out, taps, groups, _ in convolutions:
        inputs.append(drawn(images, channels, height, width).contiguous(memory_format=memory_format))
        depth = channels // groups
        weights.append((drawn(width_out, depth, taps, taps) / (depth * taps * taps) ** 0.5).bfloat16().double())
        biases.append(drawn(width_out))
    return inputs, weights, biases


def _results(tensors, convolutions, activation, dtype, layer=ops.concat_convolutions):
    """The map, and the gradients of inputs, weights and biases, each as one vector."""
    tensors = [[one.to(dtype, copy=True).requires_grad_() for one in several] for several in tensors]
    numbers = dict(
        padding=[dilation * (taps // 2) for _, _, taps, _, dilation in convolutions],
        dilation=[dilation for *_, dilation in convolutions],
        groups=[groups for _, _, _, groups, _ in convolutions],
    )
    output = layer(*tensors, **numbers, activation=activation)
    # Values that bfloat16 has.
    grad = torch.linspace(-1, 1, 64, dtype=torch.float64).bfloat16().double().repeat(output.numel() // 64 + 1)
    output.backward(grad[: output.numel()].view(output.shape).to(dtype))
    gradients = [torch.cat([one.grad.flatten() for one in several]) for several in tensors]
    return [output.detach(), *gradients]


def _native(inputs, weights, biases, padding, dilation, groups, activation):
    maps = map(torch.nn.functional.conv2d, inputs, weights, biases, [1] * len(inputs), padding, dilation, groups)
    output = torch.cat(list(maps), 1)
    return output if activation == "none" else getattr(torch, activation)(output)


def _error(result, exact):
    return ((result.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("activation", ["none", "relu", "sigmoid"])
@pytest.mark.parametrize("convolutions", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_concat_convolutions(convolutions, activation, memory_format):
    given = _given(convolutions, memory_format)
    exact = _results(given, convolutions, activation, torch.float64, _native)
    native = _results(given, convolutions, activation, torch.bfloat16, _native)
    ours = _results(given, convolutions, activation, torch.bfloat16)
    for result, theirs, expected in zip(ours, native, exact, strict=True):
        assert _error(result, expected) <= max(1.5 * _error(theirs, expected), 2**-8)  # 2**-8: rounded once


def _wide_copies(function):
    """Copies to float32 of more than 1 KB, which biases and scalars do not take."""
    with torch.profiler.profile(record_shapes=True) as profile:
        function()
    shapes = [event.input_shapes[0] for event in profile.events() if event.name == "aten::_to_copy"]
    return [shape for shape in shapes if torch.Size(shape).numel() >= 512]


def test_nothing_is_widened():
    if config.cpu_capability() != "amx":
        pytest.skip("AMX has kernels for all convolutions of an Inception block")
    convolutions = CONVOLUTIONS["many channels"]
    given = _given(convolutions, torch.channels_last)
    leaves = [[one.bfloat16().requires_grad_() for one in several] for several in given]

    def step():
        output = ops.concat_convolutions(*leaves, padding=[0, 1, 2, 0], activation="relu")
        output.backward(torch.ones_like(output))

    assert _wide_copies(step) == []


def _dense_parameters(channels, growth, layers):
    generator = torch.Generator().manual_seed(2)
    parameters, statistics = [], []
    for depth in range(channels, channels + layers * growth, growth):
        parameters += [
            1 + 0.1 * torch.randn(depth, generator=generator),
            0.1 * torch.randn(depth, generator=generator),
            torch.randn(growth, depth, 3, 3, generator=generator) / (9 * depth) ** 0.5,
            torch.randn(growth, generator=generator),
        ]
        statistics += [0.1 * torch.randn(depth, generator=generator), 0.5 + torch.rand(depth, generator=generator)]
    return [[one.bfloat16().double() for one in several] for several in (parameters, statistics)]


def _native_dense_block(input, parameters, statistics):
    for i in range(len(parameters) // 4):
        norm_weight, norm_bias, weight, bias = parameters[4 * i : 4 * i + 4]
        mean_and_var = statistics[2 * i : 2 * i + 2] or (None, None)
        normalized = torch.nn.functional.batch_norm(input, *mean_and_var, norm_weight, norm_bias, not statistics)
        input = torch.cat([input, torch.nn.functional.conv2d(normalized.relu(), weight, bias, padding=1)], 1)
    return input


def _our_dense_block(input, parameters, statistics):
    return ops.dense_block(input, parameters, statistics)[0]


def _dense_step(block, dtype, input, parameters, statistics):
    leaves = [one.to(dtype, copy=True).requires_grad_() for one in (input, *parameters)]
    output = block(leaves[0], leaves[1:], [one.to(dtype) for one in statistics])
    wave = torch.arange(output.numel(), dtype=torch.float64).mul(0.7).cos().bfloat16().view(output.shape)
    grad_input, *gradients = torch.autograd.grad(output, leaves, wave.to(dtype))
    kinds = [torch.cat([one.flatten() for one in gradients[i::4]]) for i in range(4)]
    return [output.detach(), grad_input, *kinds]


@pytest.mark.parametrize("is_training", [True, False], ids=["training", "given statistics"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("channels, growth", [(16, 8), (7, 3), (8, 1), (1, 16)])
def test_dense_block(channels, growth, memory_format, is_training):
    """Rounded at each layer, as native is: no less accurate."""
    parameters, statistics = _dense_parameters(channels, growth, 4)
    input = _given([(channels, 1, 1, 1, 1)], memory_format, images=8)[0][0]
    given = input, parameters, [] if is_training else statistics
    exact = _dense_step(_native_dense_block, torch.float64, *given)
    native = _dense_step(_native_dense_block, torch.bfloat16, *given)
    ours = _dense_step(_our_dense_block, torch.bfloat16, *given)
    for result, theirs, expected in zip(ours, native, exact, strict=True):
        assert result.dtype == torch.bfloat16
        assert _error(result, expected) <= max(1.5 * _error(theirs, expected), 2**-8)


def test_statistics_of_a_dense_block():
    parameters, _ = _dense_parameters(16, 8, 2)
    input = _given([(16, 1, 1, 1, 1)], torch.channels_last)[0][0].bfloat16()
    output, mean, var = ops.dense_block(input, [one.bfloat16() for one in parameters])
    assert mean.dtype == var.dtype == torch.float32
    pixels = output[:, :24].double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean.double(), pixels.mean(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(var.double(), pixels.var(1, correction=0), rtol=1e-6, atol=1e-6)
