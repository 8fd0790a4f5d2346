// The gradient of a bias, alone or with that of the activation after it: checks, allocation, kernels for CPU, CUDA and
// Meta, autograd.
//
// bias_grad sums over all but the channels; activation_bias_grad also applies the derivative of the activation, in one
// pass. The derivatives of the latter are those of <activation>_input_grad followed by bias_grad.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "common/allocate.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/function.h"
#include "common/memory_format.h"
#include "common/reuse.h"
#include "kernels/cpu/bias_grad.h"
#include "kernels/cuda/bias_grad.h"
#include "ops/activation.h"

namespace d2l {
namespace {

using at::Tensor;
using c10::SymInt;

constexpr const char* kName = "bias_grad";
constexpr const char* kFusedName = "activation_bias_grad";

// ---- checks ----------------------------------------------------------------------------------------------------

void check_map(const char* op, const char* argument, const Tensor& map) {
  TORCH_CHECK_VALUE(map.dim() >= 2, op, "(): expected ", argument, " to be at least 2-D (N, C, ...), but got a ",
                    map.dim(), "-D tensor of size ", map.sym_sizes());
  check_floating(op, argument, map);
  check_strided(op, argument, map);
}

template <typename Int>
Activation check_fused(const Tensor& grad_output, const Tensor& output, std::string_view activation) {
  const Activation result = activation_of(kFusedName, activation);
  TORCH_CHECK_VALUE(result != Activation::none, kFusedName,
                    "(): expected activation to be one of relu, sigmoid, tanh, but got 'none'; use bias_grad");
  check_map(kFusedName, "grad_output", grad_output);
  check_strided(kFusedName, "output", output);
  check_same_dtype(kFusedName, "output", output, "grad_output", grad_output);
  check_same_device(kFusedName, "output", output, "grad_output", grad_output);
  TORCH_CHECK_VALUE(sizes_of<Int>(grad_output) == sizes_of<Int>(output), kFusedName,
                    "(): expected output to have the size of grad_output ", sizes_of<Int>(grad_output), ", but got ",
                    sizes_of<Int>(output));
  return result;
}

// ---- kernels on CPU and CUDA -----------------------------------------------------------------------------------

at::MemoryFormat format_of(const Tensor& map) {
  return map.dim() == 4 ? output_format(map) : at::MemoryFormat::Contiguous;
}

BiasGradShape shape_of(const Tensor& map) {
  const int64_t N = map.size(0), C = map.size(1);
  int64_t pixels = 1;
  for (int64_t axis = 2; axis < map.dim(); ++axis) {
    pixels *= map.size(axis);
  }
  return {N, C, pixels};
}

Tensor cuda_workspace(const BiasGradShape& shape, Layout layout, const Tensor& like) {
  return at::empty({cuda::bias_grad_workspace(shape, layout)}, like.options().dtype(at::kByte));
}

// What the CPU sums into: `result` itself, or float32 to be rounded.
Tensor sums_for(const Tensor& result) {
  return is_16_bit(result) ? new_tensor(result.sizes(), result.options().dtype(at::kFloat)) : result;
}

Tensor bias_grad(const Tensor& grad_output) {
  check_map(kName, "grad_output", grad_output);
  const auto format = format_of(grad_output);
  const auto shape = shape_of(grad_output);
  Tensor result = new_tensor({shape.C}, grad_output.options());
  if (grad_output.numel() == 0) {
    return result.zero_();
  }
  D2L_ON_CUDA(kName, grad_output) {
    const DeviceScope device(grad_output);
    const Tensor dy = grad_output.contiguous(format), workspace = cuda_workspace(shape, layout_of(format), dy);
    check_launch(kName, dy,
                 cuda::activation_bias_grad(shape, layout_of(format), Activation::none, cuda_dtype(dy),
                                            dy.const_data_ptr(), nullptr, nullptr, result.mutable_data_ptr(),
                                            workspace.mutable_data_ptr(), device.stream()));
    return result;
  }
  if (!is_element_type(grad_output)) {
    return bias_grad(grad_output.to(at::kFloat)).to(grad_output.scalar_type());
  }
  const Tensor dy = grad_output.contiguous(format), sums = sums_for(result);
  visit_cpu_element(dy, [&](auto element) {
    using E = decltype(element);
    cpu::bias_grad(shape, layout_of(format), elements<E>(dy), sums.mutable_data_ptr<cpu::computed_t<E>>());
  });
  return sums.to(result.scalar_type());
}

std::tuple<Tensor, Tensor> activation_bias_grad(const Tensor& grad_output, const Tensor& output,
                                                std::string_view name) {
  const Activation activation = check_fused<int64_t>(grad_output, output, name);
  const auto format = format_of(output);
  const auto shape = shape_of(output);
  Tensor grad_pre = taken_or_empty(grad_output, format);
  Tensor grad_bias = new_tensor({shape.C}, output.options());
  if (output.numel() == 0) {
    return {grad_pre, grad_bias.zero_()};
  }
  D2L_ON_CUDA(kFusedName, output) {
    const DeviceScope device(output);
    const Tensor y = output.contiguous(format), dy = grad_output.contiguous(format);
    const Tensor workspace = cuda_workspace(shape, layout_of(format), y);
    check_launch(
        kFusedName, y,
        cuda::activation_bias_grad(shape, layout_of(format), activation, cuda_dtype(y), dy.const_data_ptr(),
                                   y.const_data_ptr(), grad_pre.mutable_data_ptr(), grad_bias.mutable_data_ptr(),
                                   workspace.mutable_data_ptr(), device.stream()));
    return {grad_pre, grad_bias};
  }
  if (!is_element_type(output)) {
    const auto [pre, bias] = activation_bias_grad(grad_output.to(at::kFloat), output.to(at::kFloat), name);
    return {pre.to(output.scalar_type()), bias.to(output.scalar_type())};
  }
  const Tensor y = output.contiguous(format), dy = grad_output.contiguous(format), sums = sums_for(grad_bias);
  visit_cpu_element(y, [&](auto element) {
    using E = decltype(element);
    cpu::activation_bias_grad(shape, layout_of(format), activation, elements<E>(dy), elements<E>(y),
                              mutable_elements<E>(grad_pre), sums.mutable_data_ptr<cpu::computed_t<E>>());
  });
  return {grad_pre, sums.to(grad_bias.scalar_type())};
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

Tensor bias_grad_meta(const Tensor& grad_output) {
  check_map(kName, "grad_output", grad_output);
  return at::empty_symint({grad_output.sym_size(1)}, grad_output.options());
}

std::tuple<Tensor, Tensor> activation_bias_grad_meta(const Tensor& grad_output, const Tensor& output,
                                                     std::string_view name) {
  check_fused<SymInt>(grad_output, output, name);
  return {at::empty_symint(output.sym_sizes(), output.options().memory_format(format_of(output))),
          at::empty_symint({output.sym_size(1)}, output.options())};
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call_bias_grad(const Tensor& grad_output) {
  static const auto op = find_op<decltype(bias_grad)>("d2lkernels::bias_grad");
  return op.call(grad_output);
}

std::tuple<Tensor, Tensor> call_fused(const Tensor& grad_output, const Tensor& output, std::string_view activation) {
  static const auto op = find_op<decltype(activation_bias_grad)>("d2lkernels::activation_bias_grad");
  return op.call(grad_output, output, activation);
}

struct BiasGrad : Function<BiasGrad> {
  static Tensor forward(AutogradContext* ctx, const Tensor& grad_output) {
    ctx->saved_data["size"] = grad_output.sym_sizes().vec();
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_bias_grad(grad_output);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    if (!grads[0].defined()) {
      return {Tensor()};
    }
    const auto size = ctx->saved_data["size"].toSymIntVector();
    std::vector<SymInt> per_channel(size.size() - 1, 1);
    per_channel[0] = size[1];
    return {grads[0].view_symint(per_channel).expand_symint(size)};
  }
};

Tensor bias_grad_autograd(const Tensor& grad_output) {
  if (needs_autograd(kName, grad_output)) {
    return BiasGrad::apply(grad_output);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_bias_grad(grad_output);
}

std::tuple<Tensor, Tensor> activation_bias_grad_autograd(const Tensor& grad_output, const Tensor& output,
                                                         std::string_view name) {
  if (needs_autograd(kFusedName, grad_output, output)) {
    const Activation activation = check_fused<SymInt>(grad_output, output, name);
    const Tensor grad_pre = activation_input_grad(activation, grad_output, output);
    return {grad_pre, call_bias_grad(grad_pre)};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_fused(grad_output, output, name);
}

}  // namespace
}  // namespace d2l

#define D2L_BIAS_GRAD_KERNELS(suffix)          \
  m.impl("bias_grad", d2l::bias_grad##suffix); \
  m.impl("activation_bias_grad", d2l::activation_bias_grad##suffix)

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { D2L_BIAS_GRAD_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { D2L_BIAS_GRAD_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { D2L_BIAS_GRAD_KERNELS(_meta); }
TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { D2L_BIAS_GRAD_KERNELS(_autograd); }
