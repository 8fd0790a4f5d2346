// What the two files of batch normalisation share: its checks, and the types of what there is one of per channel.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "common/check.h"
#include "common/dispatch.h"
#include "kernels/shapes.h"
#include "ops/channel_moments.h"

namespace d2l::batch_norm {

using OptionalTensor = std::optional<at::Tensor>;

// The function that is fused in this way, for messages.
inline const char* name_of(Activation activation, bool has_residual) {
  constexpr const char* kNames[2][4] = {
      {"batch_norm", "batch_norm_relu", "batch_norm_sigmoid", "batch_norm_tanh"},
      {"batch_norm_add", "batch_norm_add_relu", "batch_norm_add_sigmoid", "batch_norm_add_tanh"}};
  return kNames[has_residual ? 1 : 0][static_cast<int>(activation)];
}

// Statistics are float64 unless maps are 16-bit: see kernels/cuda/batch_norm.h.
inline at::ScalarType statistics_dtype(const at::Tensor& input) { return is_16_bit(input) ? at::kFloat : at::kDouble; }
inline at::ScalarType compute_dtype(const at::Tensor& input) {
  return input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

inline at::MemoryFormat format_of(const at::Tensor& input) { return input.suggest_memory_format(); }

inline void check_map(const char* op, const char* argument, const at::Tensor& map) {
  TORCH_CHECK_VALUE(map.dim() >= 2, op, "(): expected ", argument, " to be at least 2-D (N, C, ...), but got a ",
                    map.dim(), "-D tensor of size ", map.sym_sizes());
  check_floating(op, argument, map);
  check_strided(op, argument, map);
}

// Maps like `input`: residuals, outputs and gradients.
template <typename Int>
void check_like_input(const char* op, const char* argument, const OptionalTensor& map, const at::Tensor& input) {
  if (!map.has_value()) {
    return;
  }
  TORCH_CHECK_VALUE(sizes_of<Int>(*map) == sizes_of<Int>(input), op, "(): expected ", argument, " to have size ",
                    sizes_of<Int>(input), ", but got ", sizes_of<Int>(*map));
  check_same_dtype(op, argument, *map, "input", input);
  check_same_device(op, argument, *map, "input", input);
}

// One value per channel of `input`. 16-bit maps may have float32 parameters; statistics may be what training returns.
template <typename Int>
void check_channels(const char* op, const char* argument, const OptionalTensor& values, const at::Tensor& input,
                    bool are_statistics = false) {
  if (!values.has_value()) {
    return;
  }
  const Int& channels = sizes_of<Int>(input)[1];
  TORCH_CHECK_VALUE(values->dim() == 1 && sizes_of<Int>(*values)[0] == channels, op, "(): expected ", argument,
                    " to have size [", channels, "] (one value per channel of input), but got ",
                    sizes_of<Int>(*values));
  const auto dtype = values->scalar_type();
  TORCH_CHECK_TYPE(dtype == input.scalar_type() || (is_16_bit(input) && dtype == at::kFloat) ||
                       (are_statistics && dtype == statistics_dtype(input)),
                   op, "(): expected ", argument, " to have the dtype of input (", input.scalar_type(), ")",
                   is_16_bit(input) ? " or Float" : "", ", but got ", dtype);
  check_same_device(op, argument, *values, "input", input);
}

// The statistics of the input, where they are known before.
struct Known {
  const OptionalTensor &mean, &var;
};

template <typename Int>
void check_train(const char* op, const at::Tensor& input, const OptionalTensor& residual, const Known& known,
                 const OptionalTensor& weight, const OptionalTensor& bias) {
  check_map(op, "input", input);
  Int values = sizes_of<Int>(input)[0];
  for (int64_t axis = 2; axis < input.dim(); ++axis) {
    values = values * sizes_of<Int>(input)[axis];
  }
  TORCH_CHECK_VALUE(values != 1, op, "(): expected input to have more than one value per channel in training, ",
                    "but got a tensor of size ", sizes_of<Int>(input));
  check_like_input<Int>(op, "residual", residual, input);
  TORCH_CHECK_VALUE(known.mean.has_value() == known.var.has_value(), op,
                    "(): expected both of mean and var, or neither, but got one");
  check_channels<Int>(op, "mean", known.mean, input, true);
  check_channels<Int>(op, "var", known.var, input, true);
  check_channels<Int>(op, "weight", weight, input);
  check_channels<Int>(op, "bias", bias, input);
}

// What training writes to; `batches` is counted up. No momentum: the average of all batches.
struct Running {
  const at::Tensor& mean;
  const at::Tensor& var;
  const OptionalTensor& batches;
  std::optional<double> momentum;
};

template <typename Int>
void check_running(const char* op, const Running& running, const at::Tensor& input) {
  check_channels<Int>(op, "running_mean", running.mean, input);
  check_channels<Int>(op, "running_var", running.var, input);
  if (running.batches.has_value()) {
    TORCH_CHECK_TYPE(running.batches->scalar_type() == at::kLong, op,
                     "(): expected num_batches_tracked to be int64, but got ", running.batches->scalar_type());
    TORCH_CHECK_VALUE(running.batches->dim() == 0, op, "(): expected num_batches_tracked to be 0-D, but got a ",
                      running.batches->dim(), "-D tensor of size ", running.batches->sym_sizes());
    check_same_device(op, "num_batches_tracked", *running.batches, "input", input);
  }
  TORCH_CHECK_VALUE(running.momentum.has_value() || running.batches.has_value(), op,
                    "(): expected momentum to be a float where num_batches_tracked is None, but got None");
}

template <typename Int>
void check_infer(const char* op, const at::Tensor& input, const OptionalTensor& residual, const at::Tensor& mean,
                 const at::Tensor& var, const OptionalTensor& weight, const OptionalTensor& bias) {
  check_map(op, "input", input);
  check_like_input<Int>(op, "residual", residual, input);
  check_channels<Int>(op, "running_mean", mean, input, true);
  check_channels<Int>(op, "running_var", var, input, true);
  check_channels<Int>(op, "weight", weight, input);
  check_channels<Int>(op, "bias", bias, input);
}

template <typename Int>
void check_gradients(const char* op, const at::Tensor& grad_output, const at::Tensor& input,
                     const OptionalTensor& output, const OptionalTensor& weight, const OptionalTensor& bias,
                     const at::Tensor& mean, const at::Tensor& var) {
  check_map(op, "input", input);
  check_like_input<Int>(op, "grad_output", grad_output, input);
  check_like_input<Int>(op, "output", output, input);
  check_channels<Int>(op, "weight", weight, input);
  check_channels<Int>(op, "bias", bias, input);
  check_channels<Int>(op, "mean", mean, input, true);
  check_channels<Int>(op, "var", var, input, true);
}

// The mean and the variance of each channel of a checked map, on CPU and CUDA tensors.
ChannelMoments moments_of(const char* op, const at::Tensor& map);

}  // namespace d2l::batch_norm
