// What the CPU and the CUDA steps of dense_block have in common.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/shapes.h"

namespace d2l::dense {

constexpr int64_t kPerLayer = 4;  // parameters: weight and bias of the normalisation, of the convolution

inline int64_t layers_of(at::TensorList parameters) { return static_cast<int64_t>(parameters.size()) / kPerLayer; }

// Reads `channels` dense channels, writes `growth` channels of the map.
inline Conv2dShape convolution(const at::Tensor& map, int64_t channels, int64_t growth) {
  const int64_t N = map.size(0), H = map.size(2), W = map.size(3);
  Conv2dShape shape{N, channels, H, W, growth, 3, 3, H, W, 1, 1, 1, 1, 1, 1, 1};
  shape.output_pixel = map.size(1);
  return shape;
}

// Fills the channels behind those of the input, and in training (no statistics) their mean and variance.
void run_on_cuda(const at::Tensor& map, at::TensorList parameters, at::TensorList statistics, double eps,
                 int64_t growth, const at::Tensor& mean, const at::Tensor& var);

// `grad` is the gradient of the whole map, and becomes that of the input in its first channels; `results` are the
// gradients of the parameters.
void differentiate_on_cuda(const at::Tensor& grad, const at::Tensor& map, at::TensorList parameters,
                           at::TensorList statistics, const at::Tensor& mean, const at::Tensor& var, double eps,
                           int64_t growth, const std::vector<at::Tensor>& results);

}  // namespace d2l::dense
