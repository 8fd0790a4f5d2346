// The backward of conv2d_avg_pool2d in one op: the gradients of input, weight and bias.
//
// On the CPU, convolutions of many small maps with few channels take their gradients with images in the lanes of
// vectors: what the pool spreads, times the derivative of the activation, stays in the cache. All others, other devices
// and double backward go through the ops of the parts.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "common/allocate.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/memory_format.h"
#include "common/reuse.h"
#include "kernels/cpu/conv2d_images.h"
#include "ops/activation.h"
#include "ops/conv2d_cpu.h"
#include "ops/conv2d_fused.h"

namespace d2l {

using at::IntArrayRef;
using at::Tensor;
using c10::SymIntArrayRef;
using OptionalTensor = std::optional<Tensor>;

Tensor call_avg_pool_grad(const Tensor& grad_output, SymIntArrayRef map_size, const PoolOptions& pool) {
  using Op =
      Tensor(const Tensor&, SymIntArrayRef, IntArrayRef, IntArrayRef, IntArrayRef, bool, bool, std::optional<int64_t>);
  static const auto op = find_op<Op>("d2lkernels::avg_pool2d_input_grad");
  return op.call(grad_output, map_size, pool.size, pool.stride, pool.padding, pool.ceil_mode, pool.count_include_pad,
                 std::nullopt);
}

namespace {

constexpr const char* kName = "conv2d_avg_pool2d_grad";

Activation check_activated(std::string_view name, const OptionalTensor& activated) {
  const Activation activation = activation_of(kName, name);
  TORCH_CHECK_VALUE(activation == Activation::none || activated.has_value(), kName,
                    "(): expected activated to be a tensor where activation is '", name, "', but got None");
  return activation;
}

// ---- the separate ops: every device, and differentiable ----------------------------------------------------------

std::tuple<Tensor, Tensor, Tensor> conv2d_avg_pool2d_grad_separate(
    const Tensor& grad_output, const OptionalTensor& activated, const Tensor& input, const Tensor& weight,
    IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups, std::string_view activation_name,
    IntArrayRef pool_size, IntArrayRef pool_stride, IntArrayRef pool_padding, bool ceil_mode, bool count_include_pad,
    bool needs_input_grad, bool needs_bias_grad) {
  check_activated(activation_name, activated);
  const auto map_size = conv2d_output_size(input, weight, std::nullopt, {stride, padding, dilation, groups});
  const Tensor spread =
      call_avg_pool_grad(grad_output, map_size, {pool_size, pool_stride, pool_padding, ceil_mode, count_include_pad});
  const auto [grad, grad_bias] =
      activation_grads(activation_name, needs_bias_grad, spread, tensor_or_undefined(activated));
  const Tensor grad_weight =
      call_conv2d_weight_grad(grad, input, weight.sym_sizes(), stride, padding, dilation, groups);
  return {needs_input_grad ? call_conv2d_input_grad(grad, weight, input.sym_sizes(), stride, padding, dilation, groups)
                           : nothing_like(grad_output),
          grad_weight, needs_bias_grad ? grad_bias : nothing_like(grad_output)};
}

// ---- kernels on the CPU ------------------------------------------------------------------------------------------

void check_map(const char* argument, const Tensor& map, const Tensor& input, IntArrayRef size) {
  check_strided(kName, argument, map);
  check_same_dtype(kName, argument, map, "input", input);
  check_same_device(kName, argument, map, "input", input);
  TORCH_CHECK_VALUE(map.sizes() == size, kName, "(): expected ", argument, " to have size ", size, ", but got ",
                    map.sizes());
}

std::tuple<Tensor, Tensor, Tensor> conv2d_avg_pool2d_grad(const Tensor& grad_output, const OptionalTensor& activated,
                                                          const Tensor& input, const Tensor& weight, IntArrayRef stride,
                                                          IntArrayRef padding, IntArrayRef dilation, int64_t groups,
                                                          std::string_view activation_name, IntArrayRef pool_size,
                                                          IntArrayRef pool_stride, IntArrayRef pool_padding,
                                                          bool ceil_mode, bool count_include_pad, bool needs_input_grad,
                                                          bool needs_bias_grad) {
  const Activation activation = check_activated(activation_name, activated);
  const PoolWindow window =
      PoolOptions{pool_size, pool_stride, pool_padding, ceil_mode, count_include_pad}.window(kName);
  const Conv2dShape shape = conv2d_shape(input, weight, std::nullopt, {stride, padding, dilation, groups});
  const std::array<int64_t, 4> map_size{shape.N, shape.K, shape.P, shape.Q};
  const auto output_size = pool_output_size<int64_t>(kName, map_size, window, ceil_mode);
  if (runs_cuda_kernels(input) || is_16_bit(input) || !is_images_pool(pool_shape(window, map_size, output_size)) ||
      !cpu::conv2d_suits_images(shape, input.element_size())) {
    return conv2d_avg_pool2d_grad_separate(grad_output, activated, input, weight, stride, padding, dilation, groups,
                                           activation_name, pool_size, pool_stride, pool_padding, ceil_mode,
                                           count_include_pad, needs_input_grad, needs_bias_grad);
  }
  check_map("grad_output", grad_output, input, {shape.N, shape.K, output_size[0], output_size[1]});
  const bool has_activation = activation != Activation::none;
  if (has_activation) check_map("activated", *activated, input, map_size);
  // As the separate ops choose formats.
  const auto map_format = output_format(has_activation ? *activated : grad_output);
  const auto format_with = [&](const Tensor& other) {
    return map_format == at::MemoryFormat::ChannelsLast ? map_format : output_format(other);
  };
  const auto input_format = format_with(weight), weight_format = format_with(input);
  // The kernel reads the gradient in either order, which Flatten behind the pool may have changed.
  const auto grad_format = grad_output.is_contiguous() ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast;
  const Tensor dy = grad_output.contiguous(grad_format), x = input.contiguous(input_format);
  const Tensor y = has_activation ? activated->contiguous(map_format) : Tensor();
  Tensor grad_weight = new_tensor(weight.sizes(), weight.options().memory_format(weight_format));
  // The input of some images is read before their gradient is written.
  Tensor grad_input = needs_input_grad ? taken_or_empty(input, input_format) : nothing_like(grad_output);
  Tensor grad_bias =
      needs_bias_grad ? new_tensor({shape.K}, input.options().memory_format(std::nullopt)) : nothing_like(grad_output);
  visit_cpu_dtype(input, [&](auto scalar) {
    using T = decltype(scalar);
    cpu::ImagesGradients<T> problem{};
    problem.shape = shape;
    problem.input_layout = layout_of(input_format);
    problem.output_layout = layout_of(map_format);
    problem.grad_output_layout = layout_of(grad_format);
    problem.grad_output = dy.const_data_ptr<T>();
    problem.is_pooled = true;
    problem.activation = activation;
    problem.output = has_activation ? y.const_data_ptr<T>() : nullptr;
    problem.input = x.const_data_ptr<T>();
    problem.weight = weight.const_data_ptr<T>();
    problem.weight_strides = weight_strides(weight);
    problem.grad_input = needs_input_grad ? grad_input.mutable_data_ptr<T>() : nullptr;
    problem.grad_weight = grad_weight.mutable_data_ptr<T>();
    problem.grad_weight_strides = weight_strides(grad_weight);
    problem.grad_bias = needs_bias_grad ? grad_bias.mutable_data_ptr<T>() : nullptr;
    cpu::conv2d_images_grads(problem);
  });
  return {grad_input, grad_weight, grad_bias};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> call_conv2d_avg_pool2d_grad(const Tensor& grad_output,
                                                               const OptionalTensor& activated, const Tensor& input,
                                                               const Tensor& weight, const Conv2dOptions& options,
                                                               std::string_view activation, const PoolOptions& pool,
                                                               bool needs_input_grad, bool needs_bias_grad) {
  static const auto op = find_op<decltype(conv2d_avg_pool2d_grad)>("d2lkernels::conv2d_avg_pool2d_grad");
  return op.call(grad_output, activated, input, weight, options.stride, options.padding, options.dilation,
                 options.groups, activation, pool.size, pool.stride, pool.padding, pool.ceil_mode,
                 pool.count_include_pad, needs_input_grad, needs_bias_grad);
}

// ---- autograd --------------------------------------------------------------------------------------------------

namespace {

std::tuple<Tensor, Tensor, Tensor> conv2d_avg_pool2d_grad_autograd(
    const Tensor& grad_output, const OptionalTensor& activated, const Tensor& input, const Tensor& weight,
    IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups, std::string_view activation,
    IntArrayRef pool_size, IntArrayRef pool_stride, IntArrayRef pool_padding, bool ceil_mode, bool count_include_pad,
    bool needs_input_grad, bool needs_bias_grad) {
  if (needs_autograd(kName, grad_output, tensor_or_undefined(activated), input, weight)) {
    return conv2d_avg_pool2d_grad_separate(grad_output, activated, input, weight, stride, padding, dilation, groups,
                                           activation, pool_size, pool_stride, pool_padding, ceil_mode,
                                           count_include_pad, needs_input_grad, needs_bias_grad);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_conv2d_avg_pool2d_grad(grad_output, activated, input, weight, {stride, padding, dilation, groups},
                                     activation, {pool_size, pool_stride, pool_padding, ceil_mode, count_include_pad},
                                     needs_input_grad, needs_bias_grad);
}

}  // namespace
}  // namespace d2l

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { m.impl("conv2d_avg_pool2d_grad", d2l::conv2d_avg_pool2d_grad); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { m.impl("conv2d_avg_pool2d_grad", d2l::conv2d_avg_pool2d_grad_separate); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { m.impl("conv2d_avg_pool2d_grad", d2l::conv2d_avg_pool2d_grad_separate); }
TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { m.impl("conv2d_avg_pool2d_grad", d2l::conv2d_avg_pool2d_grad_autograd); }
