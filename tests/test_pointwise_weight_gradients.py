"""Weight gradients of 1x1 convolutions with as many pixels as make several tasks, for every instruction set and several
threads: against float64, and the same bits for the same number of threads."""

import pytest
import torch

from d2lkernels import ops

pytestmark = pytest.mark.usefixtures("capability")

# Input size, output channels, stride.
CONVOLUTIONS = {
    "even channels": ((3, 64, 33, 31), 32, (1, 1)),
    "one block of output channels": ((5, 200, 13, 17), 16, (1, 1)),
    "more output channels": ((4, 24, 29, 23), 96, (1, 1)),
    "odd channels": ((3, 37, 41, 29), 19, (1, 1)),
    "lanes of output channels": ((3, 18, 41, 29), 64, (1, 1)),
    "few channels": ((2, 3, 90, 70), 5, (1, 1)),
    "stride": ((9, 40, 25, 26), 35, (2, 2)),
    "stride of rows": ((5, 48, 40, 21), 64, (2, 1)),
    "stride of columns, lanes of output channels": ((5, 17, 31, 40), 48, (1, 3)),
    "many channels": ((2, 520, 9, 11), 270, (1, 1)),
    "one pixel": ((1, 40, 1, 1), 24, (1, 1)),
}


@pytest.fixture(params=(1, 2, 3))
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_weight_gradient(case, dtype, threads):
    input_size, width, stride = case
    generator = torch.Generator().manual_seed(0)
    size = [input_size[0], width, *(-(-input_size[2 + i] // stride[i]) for i in range(2))]
    # Views that end where the tensors' memory does, in NHWC.
    input, grad_output = (
        torch.randn(shape, generator=generator, dtype=dtype).contiguous(memory_format=torch.channels_last)
        for shape in (input_size, size)
    )
    arguments = (grad_output, input, (width, input_size[1], 1, 1), stride, (0,) * 4, (1, 1), 1)
    actual = ops.conv2d_weight_grad(*arguments)
    assert torch.equal(actual, ops.conv2d_weight_grad(*arguments))
    rows, columns = (
        map.double().permute(0, 2, 3, 1).flatten(0, 2) for map in (grad_output, input[:, :, :: stride[0], :: stride[1]])
    )
    scale = rows.abs().T @ columns.abs()
    error = (actual.double()[:, :, 0, 0] - rows.T @ columns).abs() / scale
    assert error.max() < 4 * torch.finfo(dtype).eps


def test_infinities_stay_in_their_channels(threads):
    input = torch.ones(2, 24, 40, 30).contiguous(memory_format=torch.channels_last)
    grad_output = torch.ones(2, 19, 40, 30).contiguous(memory_format=torch.channels_last)
    input[0, 23, 5, 7] = float("inf")
    grad_output[1, 18, 39, 29] = float("nan")
    result = ops.conv2d_weight_grad(grad_output, input, (19, 24, 1, 1), (1, 1), (0,) * 4, (1, 1), 1)[:, :, 0, 0]
    assert torch.equal(result[:18, :23], torch.full((18, 23), 2400.0))
    assert result[18].isnan().all()
    assert torch.equal(result[:18, 23], torch.full((18,), float("inf")))
