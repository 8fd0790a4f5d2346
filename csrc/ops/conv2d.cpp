// conv2d and its two derivatives: checks, allocation, kernels for CPU, CUDA and Meta, autograd, autocast.
//
// The three ops are closed under differentiation. With C(x, w), I(g, w) = dC/dx applied to g, W(g, x) = dC/dw applied
// to g: the derivatives of I are C and W again, and so are those of W (I and C). Double backward costs no new kernel.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "common/allocate.h"
#include "common/autocast.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/function.h"
#include "common/memory_format.h"
#include "common/reuse.h"
#include "kernels/cpu/conv2d.h"
#include "kernels/cuda/conv2d.h"
#include "ops/batch_norm.h"
#include "ops/conv2d.h"
#include "ops/conv2d_cpu.h"

namespace d2l {
namespace {

using at::IntArrayRef;
using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;
using OptionalTensor = std::optional<Tensor>;

// ---- sizes and checks ------------------------------------------------------------------------------------------

template <typename Int>
struct Conv2dSizes {
  Int N, C, H, W, K, R, S, P, Q;
};

void check_options(const char* op, const Conv2dOptions& options) {
  check_pair(op, "stride", options.stride, 1);
  TORCH_CHECK_VALUE(options.padding.size() == 4 && options.padding[0] >= 0 && options.padding[1] >= 0 &&
                        options.padding[2] >= 0 && options.padding[3] >= 0,
                    op, "(): expected padding to be four integers (top, bottom, left, right) of at least 0, but got ",
                    options.padding);
  check_pair(op, "dilation", options.dilation, 1);
  TORCH_CHECK_VALUE(options.groups >= 1, op, "(): expected groups to be at least 1, but got ", options.groups);
}

// Sizes of everything from those of input and weight, checked against each other.
template <typename Int>
Conv2dSizes<Int> conv2d_sizes(const char* op, c10::ArrayRef<Int> input, c10::ArrayRef<Int> weight,
                              const Conv2dOptions& options) {
  check_options(op, options);
  Conv2dSizes<Int> sizes{input[0], input[1], input[2], input[3], weight[0], weight[2], weight[3], 0, 0};
  const int64_t groups = options.groups;
  TORCH_CHECK_VALUE(sizes.C % groups == 0, op, "(): expected the channels of input to be divisible by groups=", groups,
                    ", but got input of size ", input);
  TORCH_CHECK_VALUE(sizes.K % groups == 0, op,
                    "(): expected the output channels of weight to be divisible by groups=", groups,
                    ", but got weight of size ", weight);
  TORCH_CHECK_VALUE(weight[1] == sizes.C / groups, op, "(): expected weight to have ", sizes.C / groups,
                    " input channels per group (input has ", sizes.C, ", groups=", groups, "), but got weight of size ",
                    weight);
  TORCH_CHECK_VALUE(sizes.C >= 1 && sizes.K >= 1 && sizes.R >= 1 && sizes.S >= 1, op,
                    "(): expected input and weight to have at least one channel and one tap, but got input of size ",
                    input, " and weight of size ", weight);
  const Int padded_h = sizes.H + options.padding[0] + options.padding[1];
  const Int padded_w = sizes.W + options.padding[2] + options.padding[3];
  const Int extent_h = (sizes.R - 1) * options.dilation[0] + 1;
  const Int extent_w = (sizes.S - 1) * options.dilation[1] + 1;
  TORCH_CHECK_VALUE(padded_h >= extent_h && padded_w >= extent_w, op,
                    "(): expected the kernel (dilation included) to fit into the padded input of ", padded_h, " x ",
                    padded_w, ", but got a kernel of ", extent_h, " x ", extent_w);
  sizes.P = (padded_h - extent_h) / options.stride[0] + 1;
  sizes.Q = (padded_w - extent_w) / options.stride[1] + 1;
  return sizes;
}

void check_pairing(const char* op, const char* name_a, const Tensor& a, const char* name_b, const Tensor& b) {
  check_rank4(op, name_a, a);
  check_rank4(op, name_b, b);
  check_floating(op, name_a, a);
  check_same_dtype(op, name_b, b, name_a, a);
  check_same_device(op, name_b, b, name_a, a);
  check_strided(op, name_a, a);
  check_strided(op, name_b, b);
}

template <typename Int>
Conv2dSizes<Int> check_conv2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                              const Conv2dOptions& options) {
  const char* op = "conv2d";
  check_pairing(op, "input", input, "weight", weight);
  const auto sizes = conv2d_sizes<Int>(op, sizes_of<Int>(input), sizes_of<Int>(weight), options);
  if (bias.has_value()) {
    TORCH_CHECK_VALUE(bias->dim() == 1 && sizes_of<Int>(*bias)[0] == sizes.K, op, "(): expected bias to have size [",
                      sizes.K, "] (the output channels of weight), but got ", sizes_of<Int>(*bias));
    check_same_dtype(op, "bias", *bias, "input", input);
    check_same_device(op, "bias", *bias, "input", input);
  }
  return sizes;
}

template <typename Int>
Conv2dSizes<Int> check_input_grad(const Tensor& grad_output, const Tensor& weight, c10::ArrayRef<Int> input_size,
                                  const Conv2dOptions& options) {
  const char* op = "conv2d_input_grad";
  check_pairing(op, "grad_output", grad_output, "weight", weight);
  const auto sizes = conv2d_sizes<Int>(op, input_size, sizes_of<Int>(weight), options);
  check_size<Int>(op, "grad_output", grad_output, {sizes.N, sizes.K, sizes.P, sizes.Q});
  return sizes;
}

template <typename Int>
Conv2dSizes<Int> check_weight_grad(const Tensor& grad_output, const Tensor& input, c10::ArrayRef<Int> weight_size,
                                   const Conv2dOptions& options) {
  const char* op = "conv2d_weight_grad";
  check_pairing(op, "grad_output", grad_output, "input", input);
  const auto sizes = conv2d_sizes<Int>(op, sizes_of<Int>(input), weight_size, options);
  check_size<Int>(op, "grad_output", grad_output, {sizes.N, sizes.K, sizes.P, sizes.Q});
  return sizes;
}

Conv2dShape to_shape(const Conv2dSizes<int64_t>& sizes, const Conv2dOptions& options) {
  return {sizes.N,
          sizes.C,
          sizes.H,
          sizes.W,
          sizes.K,
          sizes.R,
          sizes.S,
          sizes.P,
          sizes.Q,
          options.stride[0],
          options.stride[1],
          options.padding[0],
          options.padding[2],
          options.dilation[0],
          options.dilation[1],
          options.groups};
}

// ---- kernels on CPU and CUDA -----------------------------------------------------------------------------------

// The map, or memory for one of its size in that format.
Tensor in_channels_last(const Tensor& map) {
  if (map.is_contiguous(at::MemoryFormat::ChannelsLast)) return map;
  return at::empty(map.sizes(), map.options().memory_format(at::MemoryFormat::ChannelsLast));
}

ChannelMoments empty_moments(const Tensor& input, int64_t channels) {
  const auto options = input.options().dtype(batch_norm::statistics_dtype(input)).memory_format(std::nullopt);
  return {new_tensor({channels}, options), new_tensor({channels}, options)};
}

}  // namespace

Conv2dShape conv2d_shape(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                         const Conv2dOptions& options) {
  return to_shape(check_conv2d<int64_t>(input, weight, bias, options), options);
}

std::array<SymInt, 4> conv2d_output_size(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                                         const Conv2dOptions& options) {
  const auto sizes = check_conv2d<SymInt>(input, weight, bias, options);
  return {sizes.N, sizes.K, sizes.P, sizes.Q};
}

Tensor conv2d_result_like(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                          const Conv2dOptions& options) {
  const Conv2dShape shape = conv2d_shape(input, weight, bias, options);
  return at::empty({1}, input.options().memory_format(std::nullopt)).expand({shape.N, shape.K, shape.P, shape.Q});
}

Tensor conv2d_activated(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        const Conv2dOptions& options, Activation activation, ChannelMoments* moments) {
  Conv2dShape shape = conv2d_shape(input, weight, bias, options);
  const auto format = output_format(input, weight);
  Tensor output = new_tensor({shape.N, shape.K, shape.P, shape.Q}, input.options().memory_format(format));
  if (output.numel() == 0) {
    return output;
  }
  const OptionalTensor dense_bias = bias.has_value() ? OptionalTensor(bias->contiguous()) : std::nullopt;
  D2L_ON_CUDA("conv2d", input) {
    const DeviceScope device(input);
    const Tensor x = in_format(input, at::MemoryFormat::ChannelsLast, shape.input_pixel);
    const Tensor w = weight.contiguous(at::MemoryFormat::ChannelsLast);
    const Tensor y = in_channels_last(output);
    const void* const b = dense_bias.has_value() ? dense_bias->const_data_ptr() : nullptr;
    if (moments != nullptr) {
      *moments = empty_moments(input, shape.K);
      const Tensor workspace =
          at::empty({cuda::conv2d_moments_workspace(shape, cuda_dtype(x))}, moments->mean.options().dtype(at::kByte));
      check_launch(
          "conv2d", input,
          cuda::conv2d_moments(shape, cuda_dtype(x), convolution_precision(), x.const_data_ptr(), w.const_data_ptr(), b,
                               y.mutable_data_ptr(), moments->mean.mutable_data_ptr(), moments->var.mutable_data_ptr(),
                               workspace.mutable_data_ptr(), device.stream()));
      return y.contiguous(format);
    }
    check_launch("conv2d", input,
                 cuda::conv2d(shape, cuda_dtype(x), convolution_precision(), x.const_data_ptr(), w.const_data_ptr(), b,
                              y.mutable_data_ptr(), device.stream(), activation));
    return y.contiguous(format);
  }
  if (moments == nullptr || is_16_bit(input)) {
    conv2d_on_cpu(shape, format, input, weight, bias, activation, output);
    return output;
  }
  const Tensor x = in_format(input, format, shape.input_pixel);
  *moments = empty_moments(input, shape.K);
  visit_cpu_dtype(x, [&](auto scalar) {
    using T = decltype(scalar);
    cpu::conv2d_moments<T>(shape, layout_of(format), x.const_data_ptr<T>(), weight.const_data_ptr<T>(),
                           weight_strides(weight), dense_bias.has_value() ? dense_bias->const_data_ptr<T>() : nullptr,
                           output.mutable_data_ptr<T>(), moments->mean.mutable_data_ptr<double>(),
                           moments->var.mutable_data_ptr<double>());
  });
  return output;
}

namespace {

Tensor conv2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, IntArrayRef stride,
              IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  return conv2d_activated(input, weight, bias, {stride, padding, dilation, groups}, Activation::none);
}

Tensor conv2d_input_grad(const Tensor& grad_output, const Tensor& weight, SymIntArrayRef input_size, IntArrayRef stride,
                         IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  const Conv2dOptions options{stride, padding, dilation, groups};
  const IntArrayRef size = C10_AS_INTARRAYREF_SLOW(input_size);
  Conv2dShape shape = to_shape(check_input_grad<int64_t>(grad_output, weight, size, options), options);
  const auto format = output_format(grad_output, weight);
  Tensor grad_input = taken_or_empty(size, grad_output.options(), format);
  if (grad_input.numel() == 0) {
    return grad_input;
  }
  D2L_ON_CUDA("conv2d_input_grad", grad_output) {
    const DeviceScope device(grad_output);
    const Tensor dy = in_format(grad_output, at::MemoryFormat::ChannelsLast, shape.output_pixel);
    const Tensor w = weight.contiguous(at::MemoryFormat::ChannelsLast);
    const Tensor dx = in_channels_last(grad_input);
    check_launch("conv2d_input_grad", grad_output,
                 cuda::conv2d_input_grad(shape, cuda_dtype(dy), convolution_precision(), dy.const_data_ptr(),
                                         w.const_data_ptr(), dx.mutable_data_ptr(), device.stream()));
    return dx.contiguous(format);
  }
  conv2d_input_grad_on_cpu(shape, format, grad_output, weight, grad_input);
  return grad_input;
}

Tensor conv2d_weight_grad(const Tensor& grad_output, const Tensor& input, SymIntArrayRef weight_size,
                          IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  const Conv2dOptions options{stride, padding, dilation, groups};
  const IntArrayRef size = C10_AS_INTARRAYREF_SLOW(weight_size);
  Conv2dShape shape = to_shape(check_weight_grad<int64_t>(grad_output, input, size, options), options);
  const auto format = output_format(grad_output, input);
  if (grad_output.numel() == 0) {
    return at::zeros(size, grad_output.options()).contiguous(format);
  }
  Tensor grad_weight = new_tensor(size, grad_output.options().memory_format(format));
  D2L_ON_CUDA("conv2d_weight_grad", grad_output) {
    const DeviceScope device(grad_output);
    const Tensor dy = in_format(grad_output, at::MemoryFormat::ChannelsLast, shape.output_pixel);
    const Tensor x = in_format(input, at::MemoryFormat::ChannelsLast, shape.input_pixel);
    const Tensor dw = in_channels_last(grad_weight);
    const Tensor workspace = at::empty({cuda::conv2d_weight_grad_workspace(shape, cuda_dtype(dy))},
                                       dy.options().dtype(at::kByte).memory_format(at::MemoryFormat::Contiguous));
    check_launch("conv2d_weight_grad", grad_output,
                 cuda::conv2d_weight_grad(shape, cuda_dtype(dy), convolution_precision(), dy.const_data_ptr(),
                                          x.const_data_ptr(), dw.mutable_data_ptr(), workspace.mutable_data_ptr(),
                                          device.stream()));
    return dw.contiguous(format);
  }
  conv2d_weight_grad_on_cpu(shape, format, grad_output, input, grad_weight);
  return grad_weight;
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

Tensor conv2d_meta(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, IntArrayRef stride,
                   IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  const auto sizes = check_conv2d<SymInt>(input, weight, bias, {stride, padding, dilation, groups});
  return at::empty_symint({sizes.N, sizes.K, sizes.P, sizes.Q},
                          input.options().memory_format(output_format(input, weight)));
}

Tensor conv2d_input_grad_meta(const Tensor& grad_output, const Tensor& weight, SymIntArrayRef input_size,
                              IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  check_input_grad<SymInt>(grad_output, weight, input_size, {stride, padding, dilation, groups});
  return at::empty_symint(input_size, grad_output.options().memory_format(output_format(grad_output, weight)));
}

Tensor conv2d_weight_grad_meta(const Tensor& grad_output, const Tensor& input, SymIntArrayRef weight_size,
                               IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  check_weight_grad<SymInt>(grad_output, input, weight_size, {stride, padding, dilation, groups});
  return at::empty_symint(weight_size, grad_output.options().memory_format(output_format(grad_output, input)));
}

// ---- calls through the dispatcher ------------------------------------------------------------------------------

}  // namespace

Tensor call_conv2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, IntArrayRef stride,
                   IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  static const auto op = find_op<decltype(conv2d)>("d2lkernels::conv2d");
  return op.call(input, weight, bias, stride, padding, dilation, groups);
}

Tensor call_conv2d_input_grad(const Tensor& grad_output, const Tensor& weight, SymIntArrayRef input_size,
                              IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  static const auto op = find_op<decltype(conv2d_input_grad)>("d2lkernels::conv2d_input_grad");
  return op.call(grad_output, weight, input_size, stride, padding, dilation, groups);
}

Tensor call_conv2d_weight_grad(const Tensor& grad_output, const Tensor& input, SymIntArrayRef weight_size,
                               IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  static const auto op = find_op<decltype(conv2d_weight_grad)>("d2lkernels::conv2d_weight_grad");
  return op.call(grad_output, input, weight_size, stride, padding, dilation, groups);
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void save_geometry(AutogradContext* ctx, const Conv2dOptions& options, SymIntArrayRef input_size,
                   SymIntArrayRef weight_size) {
  std::vector<SymInt> values;
  values.reserve(17);
  for (const IntArrayRef list : {options.stride, options.padding, options.dilation, IntArrayRef(&options.groups, 1)}) {
    values.insert(values.end(), list.begin(), list.end());
  }
  values.insert(values.end(), input_size.begin(), input_size.end());
  values.insert(values.end(), weight_size.begin(), weight_size.end());
  ctx->saved_data["geometry"] = std::move(values);
}

SavedGeometry::SavedGeometry(AutogradContext* ctx) : values(ctx->saved_data["geometry"].toSymIntVector()) {
  for (size_t i = 0; i < ints.size(); ++i) {
    ints[i] = values[i].expect_int();
  }
}

namespace {

// Each of the three is bilinear in two tensors a and b: the derivative for one of them needs only the other.
void save_factors(AutogradContext* ctx, const Tensor& a, const Tensor& b) {
  ctx->save_for_backward({b.requires_grad() ? a : Tensor(), a.requires_grad() ? b : Tensor()});
}

}  // namespace

void save_convolution(AutogradContext* ctx, const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                      const Conv2dOptions& options) {
  save_factors(ctx, input, weight);
  save_geometry(ctx, options, input.sym_sizes(), weight.sym_sizes());
  ctx->saved_data["has_bias"] = bias.has_value();
}

variable_list convolution_grads(AutogradContext* ctx, const Tensor& grad_output) {
  variable_list result(7);
  if (!grad_output.defined()) {
    return result;
  }
  const auto saved = ctx->get_saved_variables();
  const SavedGeometry geometry(ctx);
  if (ctx->needs_input_grad(1)) {
    result[1] = geometry.weight_grad(grad_output, saved[0]);
  }
  if (ctx->needs_input_grad(0)) {
    const OfferedInput offer(saved[0]);
    result[0] = geometry.input_grad(grad_output, saved[1]);
  }
  // needs_input_grad counts the tensors that were passed: an absent bias is not among them.
  if (ctx->saved_data["has_bias"].toBool() && ctx->needs_input_grad(2)) {
    static const auto bias_grad = find_op<Tensor(const Tensor&)>("d2lkernels::bias_grad");
    result[2] = bias_grad.call(grad_output);
  }
  return result;
}

namespace {

struct Conv2d : Function<Conv2d> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
    save_convolution(ctx, input, weight, bias, {stride, padding, dilation, groups});
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_conv2d(input, weight, bias, stride, padding, dilation, groups);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return convolution_grads(ctx, grads[0]);
  }
};

struct Conv2dInputGrad : Function<Conv2dInputGrad> {
  static Tensor forward(AutogradContext* ctx, const Tensor& grad_output, const Tensor& weight,
                        SymIntArrayRef input_size, IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                        int64_t groups) {
    save_factors(ctx, grad_output, weight);
    save_geometry(ctx, {stride, padding, dilation, groups}, input_size, weight.sym_sizes());
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_conv2d_input_grad(grad_output, weight, input_size, stride, padding, dilation, groups);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor& grad = grads[0];  // shaped like input
    variable_list result(7);
    if (!grad.defined()) {
      return result;
    }
    const auto saved = ctx->get_saved_variables();
    const SavedGeometry geometry(ctx);
    if (ctx->needs_input_grad(0)) {
      result[0] = geometry.conv2d(grad, saved[1]);
    }
    if (ctx->needs_input_grad(1)) {
      result[1] = geometry.weight_grad(saved[0], grad);
    }
    return result;
  }
};

struct Conv2dWeightGrad : Function<Conv2dWeightGrad> {
  static Tensor forward(AutogradContext* ctx, const Tensor& grad_output, const Tensor& input,
                        SymIntArrayRef weight_size, IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                        int64_t groups) {
    save_factors(ctx, grad_output, input);
    save_geometry(ctx, {stride, padding, dilation, groups}, input.sym_sizes(), weight_size);
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_conv2d_weight_grad(grad_output, input, weight_size, stride, padding, dilation, groups);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor& grad = grads[0];  // shaped like weight
    variable_list result(7);
    if (!grad.defined()) {
      return result;
    }
    const auto saved = ctx->get_saved_variables();
    const SavedGeometry geometry(ctx);
    if (ctx->needs_input_grad(0)) {
      result[0] = geometry.conv2d(saved[1], grad);
    }
    if (ctx->needs_input_grad(1)) {
      result[1] = geometry.input_grad(saved[0], grad);
    }
    return result;
  }
};

Tensor conv2d_autograd(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, IntArrayRef stride,
                       IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  if (needs_autograd("conv2d", input, weight, tensor_or_undefined(bias))) {
    return Conv2d::apply(input, weight, bias, stride, padding, dilation, groups);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_conv2d(input, weight, bias, stride, padding, dilation, groups);
}

Tensor conv2d_input_grad_autograd(const Tensor& grad_output, const Tensor& weight, SymIntArrayRef input_size,
                                  IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  if (needs_autograd("conv2d_input_grad", grad_output, weight)) {
    return Conv2dInputGrad::apply(grad_output, weight, input_size, stride, padding, dilation, groups);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_conv2d_input_grad(grad_output, weight, input_size, stride, padding, dilation, groups);
}

Tensor conv2d_weight_grad_autograd(const Tensor& grad_output, const Tensor& input, SymIntArrayRef weight_size,
                                   IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  if (needs_autograd("conv2d_weight_grad", grad_output, input)) {
    return Conv2dWeightGrad::apply(grad_output, input, weight_size, stride, padding, dilation, groups);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_conv2d_weight_grad(grad_output, input, weight_size, stride, padding, dilation, groups);
}

// ---- autocast: like torch's conv2d, in the lower precision -------------------------------------------------------

template <c10::DeviceType device, c10::DispatchKey key>
Tensor conv2d_autocast(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, IntArrayRef stride,
                       IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  const c10::impl::ExcludeDispatchKeyGuard guard(key);
  return call_conv2d(autocast_to_lower_precision(input, device), autocast_to_lower_precision(weight, device),
                     autocast_to_lower_precision(bias, device), stride, padding, dilation, groups);
}

}  // namespace
}  // namespace d2l

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) {
  m.impl("conv2d", d2l::conv2d);
  m.impl("conv2d_input_grad", d2l::conv2d_input_grad);
  m.impl("conv2d_weight_grad", d2l::conv2d_weight_grad);
}

TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) {
  m.impl("conv2d", d2l::conv2d);
  m.impl("conv2d_input_grad", d2l::conv2d_input_grad);
  m.impl("conv2d_weight_grad", d2l::conv2d_weight_grad);
}

TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) {
  m.impl("conv2d", d2l::conv2d_meta);
  m.impl("conv2d_input_grad", d2l::conv2d_input_grad_meta);
  m.impl("conv2d_weight_grad", d2l::conv2d_weight_grad_meta);
}

TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) {
  m.impl("conv2d", d2l::conv2d_autograd);
  m.impl("conv2d_input_grad", d2l::conv2d_input_grad_autograd);
  m.impl("conv2d_weight_grad", d2l::conv2d_weight_grad_autograd);
}

TORCH_LIBRARY_IMPL(d2lkernels, AutocastCPU, m) {
  m.impl("conv2d", d2l::conv2d_autocast<c10::DeviceType::CPU, c10::DispatchKey::AutocastCPU>);
}

TORCH_LIBRARY_IMPL(d2lkernels, AutocastCUDA, m) {
  m.impl("conv2d", d2l::conv2d_autocast<c10::DeviceType::CUDA, c10::DispatchKey::AutocastCUDA>);
}
