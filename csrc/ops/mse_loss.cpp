// mse_loss: checks, allocation, kernels for CPU, CUDA and Meta, autograd, autocast. Input and target have the same
// size.
//
// The gradient for the target is that for the input, negated. The gradient is linear in the gradient of the loss and in
// the difference; its derivatives are written in torch's ops.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>
#include <torch/library.h>

#include <string>

#include "common/allocate.h"
#include "common/autocast.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/elementwise.h"
#include "common/function.h"
#include "common/reduction.h"
#include "kernels/cpu/mse_loss.h"
#include "kernels/cuda/mse_loss.h"

namespace d2l {
namespace {

using at::Tensor;
using c10::SymInt;

constexpr const char* kName = "mse_loss";
constexpr const char* kGradName = "mse_loss_input_grad";

// ---- checks ----------------------------------------------------------------------------------------------------

template <typename Int>
Reduction check_mse_loss(const char* op, const Tensor& input, const Tensor& target, std::string_view name) {
  const Reduction reduction = reduction_of(op, name);
  check_floating(op, "input", input);
  check_strided(op, "input", input);
  check_strided(op, "target", target);
  check_same_dtype(op, "target", target, "input", input);
  check_same_device(op, "target", target, "input", input);
  TORCH_CHECK_VALUE(sizes_of<Int>(input) == sizes_of<Int>(target), op, "(): expected target to have the size of input ",
                    sizes_of<Int>(input), ", but got ", sizes_of<Int>(target));
  return reduction;
}

template <typename Int>
Reduction check_gradient(const Tensor& grad_output, const Tensor& input, const Tensor& target, std::string_view name) {
  const Reduction reduction = check_mse_loss<Int>(kGradName, input, target, name);
  check_same_dtype(kGradName, "grad_output", grad_output, "input", input);
  check_same_device(kGradName, "grad_output", grad_output, "input", input);
  const auto expected = reduction == Reduction::none ? sizes_of<Int>(input) : c10::ArrayRef<Int>();
  TORCH_CHECK_VALUE(sizes_of<Int>(grad_output) == expected, kGradName, "(): expected grad_output to have size ",
                    expected, ", but got ", sizes_of<Int>(grad_output));
  return reduction;
}

// ---- kernels on CPU and CUDA -----------------------------------------------------------------------------------

Tensor mse_loss(const Tensor& input, const Tensor& target, std::string_view name) {
  const Reduction reduction = check_mse_loss<int64_t>(kName, input, target, name);
  const bool is_none = reduction == Reduction::none;
  const int64_t count = input.numel();
  D2L_ON_CUDA(kName, input) {
    const DeviceScope device(input);
    const Tensor x = as_elements(input), t = as_elements(target, x);
    Tensor loss = is_none ? at::empty_like(x) : at::empty({}, input.options());
    const Tensor workspace = at::empty({is_none ? 0 : cuda::mse_loss_workspace()}, input.options().dtype(at::kByte));
    check_launch(kName, input,
                 cuda::mse_loss(count, reduction, cuda_dtype(x), x.const_data_ptr(), t.const_data_ptr(),
                                loss.mutable_data_ptr(), workspace.mutable_data_ptr(), device.stream()));
    return loss;
  }
  if (!is_element_type(input)) {
    return mse_loss(input.to(at::kFloat), target.to(at::kFloat), name).to(input.scalar_type());
  }
  const Tensor x = as_elements(input), t = as_elements(target, x);
  Tensor loss = is_none ? new_like(x) : new_tensor({}, input.options());
  visit_cpu_element(x, [&](auto element) {
    using E = decltype(element);
    if (is_none) {
      cpu::squared_error(count, elements<E>(x), elements<E>(t), mutable_elements<E>(loss));
      return;
    }
    const double sum = cpu::sum_of_squared_error(count, elements<E>(x), elements<E>(t));
    const double total = reduction == Reduction::mean ? sum / static_cast<double>(count) : sum;
    *mutable_elements<E>(loss) = cpu::rounded_one<E>(static_cast<cpu::computed_t<E>>(total));
  });
  return loss;
}

Tensor mse_loss_input_grad(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                           std::string_view name) {
  const Reduction reduction = check_gradient<int64_t>(grad_output, input, target, name);
  const bool is_none = reduction == Reduction::none;
  const int64_t count = input.numel();
  if (count == 0) {
    return at::empty_like(input);
  }
  D2L_ON_CUDA(kGradName, input) {
    const DeviceScope device(input);
    const Tensor x = as_elements(input), t = as_elements(target, x);
    const Tensor dy = is_none ? as_elements(grad_output, x) : grad_output;
    Tensor grad_input = at::empty_like(x);
    check_launch(kGradName, input,
                 cuda::mse_loss_input_grad(count, reduction, cuda_dtype(x), dy.const_data_ptr(), x.const_data_ptr(),
                                           t.const_data_ptr(), grad_input.mutable_data_ptr(), device.stream()));
    return grad_input;
  }
  if (!is_element_type(input)) {
    return mse_loss_input_grad(grad_output.to(at::kFloat), input.to(at::kFloat), target.to(at::kFloat), name)
        .to(input.scalar_type());
  }
  const Tensor x = as_elements(input), t = as_elements(target, x);
  const Tensor dy = is_none ? as_elements(grad_output, x) : grad_output;
  Tensor grad_input = new_like(x);
  visit_cpu_element(x, [&](auto element) {
    using E = decltype(element);
    using T = cpu::computed_t<E>;
    const T scale = reduction == Reduction::mean ? T(1) / static_cast<T>(count) : T(1);
    cpu::squared_error_grad(count, elements<E>(dy), is_none ? 1 : 0, scale, elements<E>(x), elements<E>(t),
                            mutable_elements<E>(grad_input));
  });
  return grad_input;
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

Tensor mse_loss_meta(const Tensor& input, const Tensor& target, std::string_view name) {
  const Reduction reduction = check_mse_loss<SymInt>(kName, input, target, name);
  return reduction == Reduction::none ? at::empty_like(input) : at::empty({}, input.options());
}

Tensor mse_loss_input_grad_meta(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                                std::string_view name) {
  check_gradient<SymInt>(grad_output, input, target, name);
  return at::empty_like(input);
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call_mse_loss(const Tensor& input, const Tensor& target, std::string_view reduction) {
  static const auto op = find_op<decltype(mse_loss)>("d2lkernels::mse_loss");
  return op.call(input, target, reduction);
}

Tensor call_input_grad(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                       std::string_view reduction) {
  static const auto op = find_op<decltype(mse_loss_input_grad)>("d2lkernels::mse_loss_input_grad");
  return op.call(grad_output, input, target, reduction);
}

struct MseLoss : Function<MseLoss> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& target, std::string_view reduction) {
    ctx->save_for_backward({input, target});
    ctx->saved_data["reduction"] = std::string(reduction);
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_mse_loss(input, target, reduction);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(3);
    if (!grads[0].defined()) {
      return result;
    }
    const auto saved = ctx->get_saved_variables();
    const Tensor gradient = call_input_grad(grads[0], saved[0], saved[1], ctx->saved_data["reduction"].toStringView());
    if (ctx->needs_input_grad(0)) result[0] = gradient;
    if (ctx->needs_input_grad(1)) result[1] = gradient.neg();
    return result;
  }
};

Tensor mse_loss_autograd(const Tensor& input, const Tensor& target, std::string_view reduction) {
  if (needs_autograd(kName, input, target)) {
    return MseLoss::apply(input, target, reduction);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_mse_loss(input, target, reduction);
}

Tensor mse_loss_input_grad_autograd(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                                    std::string_view name) {
  if (needs_autograd(kGradName, grad_output, input, target)) {
    const Reduction reduction = check_gradient<SymInt>(grad_output, input, target, name);
    const Tensor scaled = at::mul(at::mul(grad_output, 2), at::sub(input, target));
    return reduction == Reduction::mean ? scaled.div(at::Scalar(input.sym_numel())) : scaled;
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_input_grad(grad_output, input, target, name);
}

// ---- autocast: like torch's, in float32 ----------------------------------------------------------------------------

template <c10::DeviceType device, c10::DispatchKey key>
Tensor mse_loss_autocast(const Tensor& input, const Tensor& target, std::string_view reduction) {
  const c10::impl::ExcludeDispatchKeyGuard guard(key);
  return call_mse_loss(autocast_to_float32(input, device), autocast_to_float32(target, device), reduction);
}

}  // namespace
}  // namespace d2l

#define D2L_MSE_LOSS_KERNELS(suffix)         \
  m.impl("mse_loss", d2l::mse_loss##suffix); \
  m.impl("mse_loss_input_grad", d2l::mse_loss_input_grad##suffix)

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { D2L_MSE_LOSS_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { D2L_MSE_LOSS_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { D2L_MSE_LOSS_KERNELS(_meta); }
TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { D2L_MSE_LOSS_KERNELS(_autograd); }

TORCH_LIBRARY_IMPL(d2lkernels, AutocastCPU, m) {
  m.impl("mse_loss", d2l::mse_loss_autocast<c10::DeviceType::CPU, c10::DispatchKey::AutocastCPU>);
}

TORCH_LIBRARY_IMPL(d2lkernels, AutocastCUDA, m) {
  m.impl("mse_loss", d2l::mse_loss_autocast<c10::DeviceType::CUDA, c10::DispatchKey::AutocastCUDA>);
}
