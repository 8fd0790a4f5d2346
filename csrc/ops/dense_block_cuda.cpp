// The steps of dense_block on CUDA devices: kernels that read and write ranges of the channels of the map.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros_like.h>

#include "common/device.h"
#include "common/dispatch.h"
#include "kernels/cuda/batch_norm.h"
#include "kernels/cuda/conv2d.h"
#include "ops/dense_block.h"

namespace d2l::dense {
namespace {

using at::Tensor;
using at::TensorList;

constexpr const char* kName = "dense_block";
constexpr const char* kGradName = "dense_block_grad";

Tensor vector_of(const Tensor& values, at::ScalarType dtype) { return values.to(dtype).contiguous(); }

// A range of the channels of a map, from `channel` on.
cuda::NormInput channels_of(const Tensor& map, int64_t channel = 0) {
  return {static_cast<const char*>(map.const_data_ptr()) + channel * map.element_size(), map.size(1)};
}

void* slice_of(const Tensor& map, int64_t channel) {
  return static_cast<char*>(map.mutable_data_ptr()) + channel * map.element_size();
}

// One layer's parameters in the types that the kernels take. Keeps what it points to.
struct Layer {
  Tensor norm_weight, norm_bias, weight, bias, mean, var;
  int64_t channels;

  Layer(const Tensor& map, TensorList parameters, TensorList statistics, const Tensor& means, const Tensor& vars,
        int64_t i, int64_t growth)
      : channels(map.size(1) - (layers_of(parameters) - i) * growth) {
    const bool is_16 = is_16_bit(map);
    const auto values = is_16 ? at::kFloat : map.scalar_type(), moments = is_16 ? at::kFloat : at::kDouble;
    norm_weight = vector_of(parameters[i * kPerLayer], values);
    norm_bias = vector_of(parameters[i * kPerLayer + 1], values);
    weight = parameters[i * kPerLayer + 2].contiguous(at::MemoryFormat::ChannelsLast);
    bias = parameters[i * kPerLayer + 3].contiguous();
    mean = statistics.empty() ? means : vector_of(statistics[2 * i], moments);
    var = statistics.empty() ? vars : vector_of(statistics[2 * i + 1], moments);
  }

  cuda::Normalization by(double eps) const {
    return {eps,
            mean.const_data_ptr(),
            var.const_data_ptr(),
            norm_weight.const_data_ptr(),
            norm_bias.const_data_ptr(),
            Activation::relu};
  }
};

Tensor dense_maps(const Tensor& map, int64_t channels) {
  return at::empty({map.size(0) * map.size(2) * map.size(3) * channels},
                   map.options().memory_format(at::MemoryFormat::Contiguous));
}

Tensor bytes(const Tensor& map, int64_t count) {
  return at::empty({count}, map.options().dtype(at::kByte).memory_format(at::MemoryFormat::Contiguous));
}

}  // namespace

void run_on_cuda(const Tensor& map, TensorList parameters, TensorList statistics, double eps, int64_t growth,
                 const Tensor& mean, const Tensor& var) {
  D2L_ON_CUDA(kName, map) {
    const DeviceScope device(map);
    const auto dtype = cuda_dtype(map);
    const auto stream = device.stream();
    const int64_t layers = layers_of(parameters), all = map.size(1), pixels = map.size(2) * map.size(3);
    const BatchNormShape widest{map.size(0), all - growth, pixels};
    const Tensor normalized = dense_maps(map, all - growth);
    const Tensor workspace = bytes(map, cuda::batch_norm_workspace(widest, Layout::nhwc, dtype));
    int64_t known = 0;  // channels that have statistics
    for (int64_t i = 0; i < layers; ++i) {
      const Layer layer(map, parameters, statistics, mean, var, i, growth);
      const BatchNormShape shape{map.size(0), layer.channels, pixels};
      if (statistics.empty()) {
        check_launch(kName, map,
                     cuda::batch_norm_moments({map.size(0), layer.channels - known, pixels}, Layout::nhwc, dtype,
                                              channels_of(map, known), slice_of(mean, known), slice_of(var, known), {},
                                              workspace.mutable_data_ptr(), stream));
        known = layer.channels;
      }
      check_launch(kName, map,
                   cuda::batch_norm_apply(shape, Layout::nhwc, dtype, layer.by(eps), channels_of(map), {},
                                          {normalized.mutable_data_ptr(), layer.channels}, stream));
      check_launch(kName, map,
                   cuda::conv2d(convolution(map, layer.channels, growth), dtype, convolution_precision(),
                                normalized.const_data_ptr(), layer.weight.const_data_ptr(), layer.bias.const_data_ptr(),
                                slice_of(map, layer.channels), stream));
    }
  }
}

void differentiate_on_cuda(const Tensor& grad, const Tensor& map, TensorList parameters, TensorList statistics,
                           const Tensor& mean, const Tensor& var, double eps, int64_t growth,
                           const std::vector<Tensor>& results) {
  D2L_ON_CUDA(kGradName, map) {
    const DeviceScope device(map);
    const auto dtype = cuda_dtype(map);
    const auto precision = convolution_precision();
    const auto stream = device.stream();
    const int64_t all = map.size(1), pixels = map.size(2) * map.size(3);
    const BatchNormShape widest{map.size(0), all - growth, pixels};
    const Tensor normalized = dense_maps(map, all - growth), grad_normalized = dense_maps(map, all - growth);
    const Tensor sums = bytes(map, cuda::batch_norm_workspace(widest, Layout::nhwc, dtype));
    for (int64_t i = layers_of(parameters) - 1; i >= 0; --i) {
      const Layer layer(map, parameters, statistics, mean, var, i, growth);
      const BatchNormShape shape{map.size(0), layer.channels, pixels};
      const Conv2dShape conv = convolution(map, layer.channels, growth);
      const auto by = layer.by(eps);
      const Tensor* const result = &results[static_cast<size_t>(i * kPerLayer)];
      const void* const grad_slice = slice_of(grad, layer.channels);
      check_launch(kGradName, map,
                   cuda::batch_norm_apply(shape, Layout::nhwc, dtype, by, channels_of(map), {},
                                          {normalized.mutable_data_ptr(), layer.channels}, stream));
      const Tensor grad_weight =
          at::empty(layer.weight.sizes(), layer.weight.options().memory_format(at::MemoryFormat::ChannelsLast));
      const Tensor parts = bytes(map, cuda::conv2d_weight_grad_workspace(conv, dtype));
      check_launch(kGradName, map,
                   cuda::conv2d_weight_grad(conv, dtype, precision, grad_slice, normalized.const_data_ptr(),
                                            grad_weight.mutable_data_ptr(), parts.mutable_data_ptr(), stream));
      result[2].copy_(grad_weight);
      result[3].copy_(at::sum(grad.narrow(1, layer.channels, growth), at::IntArrayRef{0, 2, 3}));
      check_launch(kGradName, map,
                   cuda::conv2d_input_grad(conv, dtype, precision, grad_slice, layer.weight.const_data_ptr(),
                                           grad_normalized.mutable_data_ptr(), stream));
      const cuda::NormInput through{grad_normalized.const_data_ptr(), layer.channels};
      Tensor scale_sums = at::empty_like(layer.norm_weight), shift_sums = at::empty_like(layer.norm_bias);
      check_launch(kGradName, map,
                   cuda::batch_norm_grad_sums(shape, Layout::nhwc, dtype, by, {through, channels_of(map)},
                                              scale_sums.mutable_data_ptr(), shift_sums.mutable_data_ptr(),
                                              sums.mutable_data_ptr(), stream));
      result[0].copy_(scale_sums);
      result[1].copy_(shift_sums);
      if (!statistics.empty()) {  // given statistics are constants
        scale_sums = at::zeros_like(scale_sums);
        shift_sums = at::zeros_like(shift_sums);
      }
      check_launch(kGradName, map,
                   cuda::batch_norm_input_grad(shape, Layout::nhwc, dtype, by, through, channels_of(map),
                                               scale_sums.const_data_ptr(), shift_sums.const_data_ptr(), true,
                                               {slice_of(grad, 0), all}, stream));
    }
  }
}

}  // namespace d2l::dense
