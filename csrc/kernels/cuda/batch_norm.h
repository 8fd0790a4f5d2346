// Launchers of batch normalisation on CUDA devices (see BatchNormShape), alone or fused with a residual and an
// activation: output = activation(normalised + residual).
//
// Weight, bias and their gradients are float32, or float64 for float64 maps. Statistics are float64 for float32 and
// float64 maps (a mean in float32 would be off by a part of the standard deviation where the mean is much larger),
// float32 for 16-bit ones. Sums are made in two stages, in an order that depends on the shape alone: no atomics,
// deterministic.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/shapes.h"

namespace d2l::cuda {

// Maps in memory: dense in the layout, or in NHWC a range of the channels of wider maps, whose pixels are `pixel`
// elements apart (0: dense). Without data: not given, or not wanted.
struct NormInput {
  const void* data = nullptr;
  int64_t pixel = 0;
};
struct NormOutput {
  void* data = nullptr;
  int64_t pixel = 0;
};

// What the channels are normalised with.
struct Normalization {
  double eps;
  const void* mean;
  const void* var;
  const void* weight;  // null: ones
  const void* bias;    // null: zeros
  Activation activation = Activation::none;
  bool narrow_statistics = false;  // of float32 maps: mean and var are float32 (batch_norm_apply only)
};

// As in kernels/cpu/batch_norm.h: with an activation, the gradient is first taken through it, by `output` or what
// `input` is normalised to, and left in `through`, which may be grad_output and is not needed for a ReLU of no
// residual.
struct NormGradients {
  NormInput grad_output, input;
  NormInput output = {};
  NormOutput through = {};
};

// Running statistics to move towards those of the maps: the type of the maps, or float32 if `wide`. Null: none.
struct RunningStatistics {
  void* mean = nullptr;
  void* var = nullptr;
  bool wide = false;
  int64_t* batches = nullptr;  // is counted up; may be null
  double momentum = 0;         // how far they move; negative: 1 / batches
};

// Bytes of workspace that the launchers with sums need.
int64_t batch_norm_workspace(const BatchNormShape& shape, Layout layout, DType dtype);

// The mean and the variance (the mean squared deviation) of each channel, of at least one value.
LaunchStatus batch_norm_moments(const BatchNormShape& shape, Layout layout, DType dtype, NormInput input, void* mean,
                                void* var, const RunningStatistics& running, void* workspace, Stream stream);

// Moves running statistics towards given ones of more than one value. None: nothing to do.
LaunchStatus batch_norm_move_running(const BatchNormShape& shape, DType dtype, const void* mean, const void* var,
                                     const RunningStatistics& running, Stream stream);

LaunchStatus batch_norm_apply(const BatchNormShape& shape, Layout layout, DType dtype, const Normalization& by,
                              NormInput input, NormInput residual, NormOutput output, Stream stream);

// The gradients of weight and bias.
LaunchStatus batch_norm_grad_sums(const BatchNormShape& shape, Layout layout, DType dtype, const Normalization& by,
                                  const NormGradients& gradients, void* grad_weight, void* grad_bias, void* workspace,
                                  Stream stream);

// The gradient of the input whose statistics mean and var are, from the sums of batch_norm_grad_sums; added to
// grad_input if `accumulate`. With an activation (ReLU), grad_output is that of its output, else of its input.
LaunchStatus batch_norm_input_grad(const BatchNormShape& shape, Layout layout, DType dtype, const Normalization& by,
                                   NormInput grad_output, NormInput input, const void* grad_weight,
                                   const void* grad_bias, bool accumulate, NormOutput grad_input, Stream stream);

}  // namespace d2l::cuda
