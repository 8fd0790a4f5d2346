"""Dense blocks over one map. The layer, running statistics and memory are in test_dense_block.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample

from .batch_norm import _majorant as _norm_majorant


def _ours(input, *parameters, eps=1e-5):
    return ops.dense_block(input, parameters, (), eps)[0]


def _layers(norm, convolve):
    def block(input, *parameters, eps=1e-5):
        for i in range(0, len(parameters), 4):
            norm_weight, norm_bias, weight, bias = parameters[i : i + 4]
            input = torch.cat([input, convolve(norm(input, norm_weight, norm_bias, eps), weight, bias)], 1)
        return input

    return block


_native = _layers(
    lambda x, w, b, eps: F.relu(F.batch_norm(x, None, None, w, b, True, 0.0, eps)),
    lambda x, w, b: F.conv2d(x, w, b, padding=1),
)


def _normalize(x, weight, bias, eps):
    distance = x - x.mean((0, 2, 3), keepdim=True)
    z = distance / (distance.square().mean((0, 2, 3), keepdim=True) + eps).sqrt()
    return (z * weight[:, None, None] + bias[:, None, None]).clamp(min=0)


_reference = _layers(_normalize, lambda x, w, b: F.conv2d(x, w, b, padding=1))
_majorant = _layers(
    lambda x, w, b, eps: _norm_majorant(x, None, None, w, b, True, eps),
    lambda x, w, b: F.conv2d(x, w.abs(), b.abs(), padding=1),
)


def block(name, size, growth, layers, layout="contiguous", weights="contiguous", **arguments) -> Sample:
    images, channels, *plane = size
    tensors, cost = [Input(tuple(size), layout)], 0
    for i in range(layers):
        seen = channels + i * growth
        tensors += [Input((seen,)), Input((seen,)), Input((growth, seen, 3, 3), weights), Input((growth,))]
        cost += images * plane[0] * plane[1] * seen * growth * 9
    return Sample(name, tuple(tensors), arguments, cost)


SAMPLES = (
    block("densenet.channels_last", (2, 24, 8, 8), 16, 2, "channels_last", "channels_last"),
    block("odd_channels_last", (2, 5, 7, 6), 3, 3, "channels_last"),
    block("contiguous", (2, 6, 5, 6), 4, 2),
    block("one_layer", (3, 4, 6, 5), 2, 1, "channels_last"),
    block("large_eps", (2, 4, 5, 5), 8, 2, "channels_last", eps=0.5),
    *(
        block(f"layouts.{layout}", (2, 4, 6, 5), 3, 1, layout)
        for layout in ("channels_last", "transposed", "strided", "unaligned")
    ),
)
TINY = (block("tiny", (2, 2, 3, 4), 2, 1),)

_GOOD = SAMPLES[3].tensors


def _error(name, exception, message, *tensors) -> ErrorSample:
    return ErrorSample(name, tensors, {}, exception, f"dense_block(): expected {message}")


def _replaced(place: int, one) -> tuple:
    return (*_GOOD[:place], one, *_GOOD[place + 1 :])


ERRORS = (
    _error("input_no_tensor", TypeError, "input to be a Tensor, but got float", *_replaced(0, 1.0)),
    _error("input_rank", ValueError, "input to be 4-D, but got a 1-D tensor of size [4]", *_replaced(0, Input((4,)))),
    _error("parameters", ValueError, "parameters to hold four tensors for each layer, but got 3", *_GOOD[:4]),
    _error("norm_weight", ValueError, "parameters[0] to have size [4], but got [5]", *_replaced(1, Input((5,)))),
    _error(
        "weight",
        ValueError,
        "parameters[2] to have size [2, 4, 3, 3], but got [2, 4, 1, 1]",
        *_replaced(3, Input((2, 4, 1, 1))),
    ),
    _error("bias", ValueError, "parameters[3] to have size [2], but got [4]", *_replaced(4, Input((4,)))),
    _error(
        "dtype",
        TypeError,
        "parameters[1] to have the dtype of input (Float), but got Double",
        *_replaced(2, Input((4,), dtype=torch.float64)),
    ),
    _error(
        "one_value",
        ValueError,
        "input to have more than one value per channel in training, but got a tensor of size [1, 4, 1, 1]",
        *_replaced(0, Input((1, 4, 1, 1))),
    ),
)


@st.composite
def _calls(draw) -> Sample:
    size = (draw(st.integers(2, 4)), draw(st.integers(1, 20)), draw(st.integers(2, 7)), draw(st.integers(2, 7)))
    layout = draw(st.sampled_from(("contiguous", "channels_last")))
    return block("drawn", size, draw(st.integers(1, 9)), draw(st.integers(1, 2)), layout, layout)


def _tensors(device: str, requires_grad: bool) -> list[torch.Tensor]:
    sample = block("opcheck", (2, 3, 4, 5), 2, 2, "channels_last", "channels_last")
    return [one.requires_grad_(requires_grad) for one in sample.make(torch.float32, device)]


def _forward(device: str) -> list[tuple]:
    given = [_tensors(device, requires_grad) for requires_grad in (True, False)]
    statistics = [torch.ones(n, device=device) for n in (3, 3, 5, 5)]
    return [(input, parameters, kept, 1e-5) for input, *parameters in given for kept in ([], statistics)]


def _backward(device: str) -> list[tuple]:
    input, *parameters = _tensors(device, False)
    output, mean, var = torch.ops.d2lkernels.dense_block(input, parameters, [], 1e-5)
    return [(torch.ones_like(output), output, parameters, [], mean, var, 1e-5)]


SPECS = (
    OpSpec(
        name="dense_block",
        function=_ours,
        native=_native,
        reference=_reference,
        dispatcher_ops={"dense_block": _forward, "dense_block_grad": _backward},
        samples=SAMPLES,
        tiny=TINY,
        errors=ERRORS,
        strategy=_calls(),
        majorant=_majorant,
        public=ops.dense_block,
    ),
)
