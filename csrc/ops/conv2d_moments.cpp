// conv2d with the mean and the variance of each channel of its result, as batch normalisation behind it takes them:
// gathered while the result is in a cache (CPU) or in registers (CUDA), so that the map is read once less. They are
// those of the result as it is stored: of 16-bit maps, of the rounded values. On the CPU these are rounded at the end,
// and read for the statistics as without this op.
//
// mean and var are not differentiable: batch_norm_train differentiates through them, as functions of its input.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "common/autocast.h"
#include "common/autograd.h"
#include "common/function.h"
#include "common/memory_format.h"
#include "ops/batch_norm.h"
#include "ops/conv2d.h"

namespace d2l {
namespace {

using at::IntArrayRef;
using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Results = std::tuple<Tensor, Tensor, Tensor>;

Results conv2d_moments(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, IntArrayRef stride,
                       IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  ChannelMoments moments;
  const Tensor output =
      conv2d_activated(input, weight, bias, {stride, padding, dilation, groups}, Activation::none, &moments);
  if (!moments.mean.defined()) moments = batch_norm::moments_of("conv2d", output);
  return {output, moments.mean, moments.var};
}

Results conv2d_moments_meta(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, IntArrayRef stride,
                            IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  const auto size = conv2d_output_size(input, weight, bias, {stride, padding, dilation, groups});
  const auto statistics = input.options().dtype(batch_norm::statistics_dtype(input));
  return {at::empty_symint(size, input.options().memory_format(output_format(input, weight))),
          at::empty_symint({size[1]}, statistics), at::empty_symint({size[1]}, statistics)};
}

Results call_moments(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, IntArrayRef stride,
                     IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  static const auto op = find_op<decltype(conv2d_moments)>("d2lkernels::conv2d_moments");
  return op.call(input, weight, bias, stride, padding, dilation, groups);
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Conv2dMoments : Function<Conv2dMoments> {
  static variable_list forward(AutogradContext* ctx, const Tensor& input, const Tensor& weight,
                               const OptionalTensor& bias, IntArrayRef stride, IntArrayRef padding,
                               IntArrayRef dilation, int64_t groups) {
    save_convolution(ctx, input, weight, bias, {stride, padding, dilation, groups});
    ctx->set_materialize_grads(false);
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [output, mean, var] = call_moments(input, weight, bias, stride, padding, dilation, groups);
    ctx->mark_non_differentiable({mean, var});
    return {output, mean, var};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return convolution_grads(ctx, grads[0]);
  }
};

Results conv2d_moments_autograd(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                                IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  if (needs_autograd("conv2d_moments", input, weight, tensor_or_undefined(bias))) {
    const auto results = Conv2dMoments::apply(input, weight, bias, stride, padding, dilation, groups);
    return {results[0], results[1], results[2]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_moments(input, weight, bias, stride, padding, dilation, groups);
}

template <c10::DeviceType device, c10::DispatchKey key>
Results conv2d_moments_autocast(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                                IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  const c10::impl::ExcludeDispatchKeyGuard guard(key);
  return call_moments(autocast_to_lower_precision(input, device), autocast_to_lower_precision(weight, device),
                      autocast_to_lower_precision(bias, device), stride, padding, dilation, groups);
}

}  // namespace
}  // namespace d2l

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { m.impl("conv2d_moments", d2l::conv2d_moments); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { m.impl("conv2d_moments", d2l::conv2d_moments); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { m.impl("conv2d_moments", d2l::conv2d_moments_meta); }
TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { m.impl("conv2d_moments", d2l::conv2d_moments_autograd); }
TORCH_LIBRARY_IMPL(d2lkernels, AutocastCPU, m) {
  m.impl("conv2d_moments", d2l::conv2d_moments_autocast<c10::DeviceType::CPU, c10::DispatchKey::AutocastCPU>);
}
TORCH_LIBRARY_IMPL(d2lkernels, AutocastCUDA, m) {
  m.impl("conv2d_moments", d2l::conv2d_moments_autocast<c10::DeviceType::CUDA, c10::DispatchKey::AutocastCUDA>);
}
