"""One OpSpec per op, by family. An op of the library that no spec owns fails the suite."""

from . import (
    activation,
    add_relu,
    batch_norm,
    concat,
    concat_convolutions,
    conv1d,
    conv2d_batch_norm,
    convolution,
    dense_block,
    dropout,
    fused,
    linear,
    linear_fused,
    loss,
    pooling,
)

SPECS = (
    *convolution.SPECS,
    *fused.SPECS,
    *conv2d_batch_norm.SPECS,
    *pooling.SPECS,
    *batch_norm.SPECS,
    *add_relu.SPECS,
    *activation.SPECS,
    *loss.SPECS,
    *dropout.SPECS,
    *linear.SPECS,
    *linear_fused.SPECS,
    *concat.SPECS,
    *concat_convolutions.SPECS,
    *conv1d.SPECS,
    *dense_block.SPECS,
)
BY_NAME = {spec.name: spec for spec in SPECS}

# Functions of d2lkernels.ops that are derivatives: torch.nn.functional has no counterpart.
FUNCTIONAL = tuple(spec for spec in SPECS if not spec.name.endswith("_grad"))
