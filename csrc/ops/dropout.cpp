// dropout with a given seed: checks, allocation, kernels for CPU, CUDA and Meta, autograd.
//
// The seed and the place of an element decide whether it is kept, so the op is a linear function of its input that is
// its own derivative, and nothing but the seed is kept for the backward pass. Places count in the order of the axes,
// whatever the strides: a gradient may lie in memory in another order than the input did.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "common/allocate.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/function.h"
#include "kernels/cpu/dropout.h"
#include "kernels/cuda/dropout.h"

namespace d2l {
namespace {

using at::Tensor;

constexpr const char* kName = "dropout";

void check_dropout(const Tensor& input, const Tensor& seed, double p) {
  TORCH_CHECK_VALUE(p >= 0 && p <= 1, kName, "(): expected p to be between 0 and 1, but got ", p);
  check_floating(kName, "input", input);
  check_strided(kName, "input", input);
  TORCH_CHECK_TYPE(seed.scalar_type() == at::kLong, kName, "(): expected seed to be int64, but got ",
                   seed.scalar_type());
  TORCH_CHECK_VALUE(seed.dim() == 0, kName, "(): expected seed to be a number, but got a tensor of size ",
                    seed.sym_sizes());
  check_same_device(kName, "seed", seed, "input", input);
}

// ---- kernels on CPU and CUDA -----------------------------------------------------------------------------------

Tensor dropout(const Tensor& input, const Tensor& seed, double p) {
  check_dropout(input, seed, p);
  if (input.numel() == 0) {
    return at::empty_like(input);
  }
  if (!input.is_contiguous()) {
    return at::empty_like(input).copy_(dropout(input.contiguous(), seed, p));
  }
  D2L_ON_CUDA(kName, input) {
    const DeviceScope device(input);
    Tensor output = new_tensor(input.sizes(), input.options());
    check_launch(kName, input,
                 cuda::dropout(input.numel(), seed.const_data_ptr<int64_t>(), p, cuda_dtype(input),
                               input.const_data_ptr(), output.mutable_data_ptr(), device.stream()));
    return output;
  }
  if (!is_element_type(input)) {
    return dropout(input.to(at::kFloat), seed, p).to(input.scalar_type());
  }
  Tensor output = new_tensor(input.sizes(), input.options());
  visit_cpu_element(input, [&](auto element) {
    using E = decltype(element);
    cpu::dropout(input.numel(), *seed.const_data_ptr<int64_t>(), p, elements<E>(input), mutable_elements<E>(output));
  });
  return output;
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

Tensor dropout_meta(const Tensor& input, const Tensor& seed, double p) {
  check_dropout(input, seed, p);
  return at::empty_like(input);
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call_dropout(const Tensor& input, const Tensor& seed, double p) {
  static const auto op = find_op<decltype(dropout)>("d2lkernels::dropout");
  return op.call(input, seed, p);
}

struct Dropout : Function<Dropout> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& seed, double p) {
    ctx->save_for_backward({seed});
    ctx->saved_data["p"] = p;
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_dropout(input, seed, p);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(3);
    if (grads[0].defined()) {
      result[0] = call_dropout(grads[0], ctx->get_saved_variables()[0], ctx->saved_data["p"].toDouble());
    }
    return result;
  }
};

Tensor dropout_autograd(const Tensor& input, const Tensor& seed, double p) {
  if (needs_autograd(kName, input)) {
    return Dropout::apply(input, seed, p);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_dropout(input, seed, p);
}

}  // namespace
}  // namespace d2l

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { m.impl("dropout", d2l::dropout); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { m.impl("dropout", d2l::dropout); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { m.impl("dropout", d2l::dropout_meta); }
TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { m.impl("dropout", d2l::dropout_autograd); }
