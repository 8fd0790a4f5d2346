// add_relu: checks, allocation, kernels for CPU, CUDA and Meta, autograd. Backward needs the output alone, and both
// gradients are the same.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "common/allocate.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/function.h"
#include "common/reuse.h"
#include "kernels/cpu/add_relu.h"
#include "kernels/cuda/add_relu.h"
#include "ops/activation.h"

namespace d2l {
namespace {

using at::Tensor;
using c10::SymInt;

constexpr const char* kName = "add_relu";

template <typename Int>
void check_add_relu(const Tensor& input, const Tensor& other) {
  check_floating(kName, "input", input);
  check_strided(kName, "input", input);
  check_strided(kName, "other", other);
  TORCH_CHECK_VALUE(sizes_of<Int>(other) == sizes_of<Int>(input), kName, "(): expected other to have size ",
                    sizes_of<Int>(input), ", but got ", sizes_of<Int>(other));
  check_same_dtype(kName, "other", other, "input", input);
  check_same_device(kName, "other", other, "input", input);
}

// Elements side by side, in the order of those of `like`, which need not be dense itself.
Tensor as_elements(const Tensor& tensor, const Tensor& like) {
  const bool fits = like.is_non_overlapping_and_dense() && tensor.strides() == like.strides();
  return fits ? tensor : at::empty_like(like, tensor.options()).copy_(tensor);
}

Tensor add_relu(const Tensor& input, const Tensor& other) {
  check_add_relu<int64_t>(input, other);
  Tensor output = new_like(input);
  if (input.numel() == 0) {
    return output;
  }
  D2L_ON_CUDA(kName, input) {
    const DeviceScope device(input);
    const Tensor x = as_elements(input, input), y = as_elements(other, x);
    check_launch(kName, input,
                 cuda::add_relu(x.numel(), cuda_dtype(x), x.const_data_ptr(), y.const_data_ptr(),
                                output.mutable_data_ptr(), device.stream()));
    return output;
  }
  if (!is_element_type(input)) {
    return add_relu(input.to(at::kFloat), other.to(at::kFloat)).to(input.scalar_type());
  }
  const Tensor x = as_elements(input, input), y = as_elements(other, x);
  visit_cpu_element(x, [&](auto element) {
    using E = decltype(element);
    cpu::add_relu(x.numel(), elements<E>(x), elements<E>(y), mutable_elements<E>(output));
  });
  return output;
}

Tensor add_relu_meta(const Tensor& input, const Tensor& other) {
  check_add_relu<SymInt>(input, other);
  return at::empty_like(input);
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call_add_relu(const Tensor& input, const Tensor& other) {
  static const auto op = find_op<decltype(add_relu)>("d2lkernels::add_relu");
  return op.call(input, other);
}

struct AddRelu : Function<AddRelu> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& other) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    Tensor output = call_add_relu(input, other);
    ctx->save_for_backward({output});
    return output;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    if (!grads[0].defined()) {
      return {Tensor(), Tensor()};
    }
    const OfferedGradient offer(grads[0]);
    const Tensor gradient = activation_input_grad(Activation::relu, grads[0], ctx->get_saved_variables()[0]);
    return {ctx->needs_input_grad(0) ? gradient : Tensor(), ctx->needs_input_grad(1) ? gradient : Tensor()};
  }
};

Tensor add_relu_autograd(const Tensor& input, const Tensor& other) {
  if (needs_autograd(kName, input, other)) {
    return AddRelu::apply(input, other);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_add_relu(input, other);
}

}  // namespace
}  // namespace d2l

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { m.impl("add_relu", d2l::add_relu); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { m.impl("add_relu", d2l::add_relu); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { m.impl("add_relu", d2l::add_relu_meta); }
TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { m.impl("add_relu", d2l::add_relu_autograd); }
