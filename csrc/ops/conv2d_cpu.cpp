#include "ops/conv2d_cpu.h"

#include "common/allocate.h"
#include "common/dispatch.h"
#include "common/memory_format.h"
#include "ops/bfloat16_convolution.h"

namespace d2l {
namespace {

using at::Tensor;
using cpu::BFloat16Kernel;
using cpu::Conv2dPass;

BFloat16Kernel kernel_of(const Conv2dShape& shape, at::MemoryFormat format, Conv2dPass pass, const Tensor& map) {
  return map.scalar_type() == at::kBFloat16 ? cpu::bfloat16_kernel(shape, layout_of(format), pass)
                                            : BFloat16Kernel::none;
}

// A result in float32, to be rounded.
Tensor wide_like(const Tensor& result, at::MemoryFormat format) {
  return new_tensor(result.sizes(), result.options().dtype(at::kFloat).memory_format(format));
}

}  // namespace

void conv2d_on_cpu(Conv2dShape shape, at::MemoryFormat format, const Tensor& input, const Tensor& weight,
                   const std::optional<Tensor>& bias, Activation activation, const Tensor& output) {
  const Tensor x = in_format(input, format, shape.input_pixel), y = in_format(output, format, shape.output_pixel);
  const BFloat16Kernel kernel = kernel_of(shape, format, Conv2dPass::forward, input);
  if (kernel != BFloat16Kernel::none) {
    bfloat16_conv2d(kernel, shape, layout_of(format), x, weight, bias, y, activation);
    return;
  }
  if (is_16_bit(input)) {
    const Tensor wide = wide_like(output, format);
    const auto bias32 = bias.has_value() ? std::optional<Tensor>(bias->to(at::kFloat)) : std::nullopt;
    conv2d_on_cpu(shape, format, x.to(at::kFloat), weight.to(at::kFloat), bias32, activation, wide);
    output.copy_(wide);
    return;
  }
  const Tensor b = bias.has_value() ? bias->contiguous() : Tensor();
  visit_cpu_dtype(x, [&](auto scalar) {
    using T = decltype(scalar);
    cpu::conv2d<T>(shape, layout_of(format), x.const_data_ptr<T>(), weight.const_data_ptr<T>(), weight_strides(weight),
                   b.defined() ? b.const_data_ptr<T>() : nullptr, y.mutable_data_ptr<T>(), activation);
  });
}

void conv2d_input_grad_on_cpu(Conv2dShape shape, at::MemoryFormat format, const Tensor& grad_output,
                              const Tensor& weight, const Tensor& grad_input) {
  const Tensor dy = in_format(grad_output, format, shape.output_pixel);
  const Tensor dx = in_format(grad_input, format, shape.input_pixel);
  const BFloat16Kernel kernel = kernel_of(shape, format, Conv2dPass::input_grad, grad_output);
  if (kernel != BFloat16Kernel::none) {
    bfloat16_conv2d_input_grad(kernel, shape, layout_of(format), dy, weight, dx);
    return;
  }
  if (is_16_bit(grad_output)) {
    const Tensor wide = wide_like(grad_input, format);
    conv2d_input_grad_on_cpu(shape, format, dy.to(at::kFloat), weight.to(at::kFloat), wide);
    grad_input.copy_(wide);
    return;
  }
  visit_cpu_dtype(dy, [&](auto scalar) {
    using T = decltype(scalar);
    cpu::conv2d_input_grad<T>(shape, layout_of(format), dy.const_data_ptr<T>(), weight.const_data_ptr<T>(),
                              weight_strides(weight), dx.mutable_data_ptr<T>());
  });
}

void conv2d_weight_grad_on_cpu(Conv2dShape shape, at::MemoryFormat format, const Tensor& grad_output,
                               const Tensor& input, const Tensor& grad_weight) {
  const Tensor dy = in_format(grad_output, format, shape.output_pixel);
  const Tensor x = in_format(input, format, shape.input_pixel);
  const BFloat16Kernel kernel = kernel_of(shape, format, Conv2dPass::weight_grad, grad_output);
  if (kernel != BFloat16Kernel::none) {
    bfloat16_conv2d_weight_grad(kernel, shape, layout_of(format), dy, x, grad_weight);
    return;
  }
  if (is_16_bit(grad_output)) {
    const Tensor wide = wide_like(grad_weight, format);
    conv2d_weight_grad_on_cpu(shape, format, dy.to(at::kFloat), x.to(at::kFloat), wide);
    grad_weight.copy_(wide);
    return;
  }
  visit_cpu_dtype(dy, [&](auto scalar) {
    using T = decltype(scalar);
    cpu::conv2d_weight_grad<T>(shape, layout_of(format), dy.const_data_ptr<T>(), x.const_data_ptr<T>(),
                               grad_weight.mutable_data_ptr<T>(), weight_strides(grad_weight));
  });
}

}  // namespace d2l
