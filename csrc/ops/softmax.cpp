// softmax and log_softmax: checks, allocation, kernels for CPU, CUDA and Meta, autograd, autocast.
//
// A derivative needs the output alone and is linear in the gradient. Its own derivatives are written in torch's ops.
// Outputs are contiguous, as torch's are.
#include <ATen/core/Tensor.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>
#include <torch/library.h>

#include "common/allocate.h"
#include "common/autocast.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/function.h"
#include "kernels/cpu/softmax.h"
#include "kernels/cuda/softmax.h"

namespace d2l {
namespace {

using at::Tensor;
using c10::SymInt;

template <bool kIsLog>
constexpr const char* kName = kIsLog ? "log_softmax" : "softmax";
template <bool kIsLog>
constexpr const char* kGradName = kIsLog ? "log_softmax_input_grad" : "softmax_input_grad";

// ---- checks ----------------------------------------------------------------------------------------------------

void check_dim(const char* op, const char* argument, const Tensor& tensor, int64_t dim) {
  const int64_t rank = std::max<int64_t>(1, tensor.dim());
  TORCH_CHECK_INDEX(dim >= -rank && dim < rank, op, "(): expected dim to be between ", -rank, " and ", rank - 1,
                    " for ", argument, " of size ", tensor.sym_sizes(), ", but got ", dim);
}

void check_input(const char* op, const Tensor& input, int64_t dim) {
  check_floating(op, "input", input);
  check_strided(op, "input", input);
  check_dim(op, "input", input, dim);
}

template <typename Int>
void check_gradient(const char* op, const Tensor& grad_output, const Tensor& output, int64_t dim) {
  check_floating(op, "output", output);
  check_strided(op, "output", output);
  check_strided(op, "grad_output", grad_output);
  check_same_dtype(op, "grad_output", grad_output, "output", output);
  check_same_device(op, "grad_output", grad_output, "output", output);
  check_dim(op, "output", output, dim);
  TORCH_CHECK_VALUE(sizes_of<Int>(grad_output) == sizes_of<Int>(output), op,
                    "(): expected grad_output to have the size of output ", sizes_of<Int>(output), ", but got ",
                    sizes_of<Int>(grad_output));
}

// ---- kernels on CPU and CUDA -----------------------------------------------------------------------------------

SoftmaxShape shape_of(const Tensor& tensor, int64_t dim) {
  if (tensor.dim() == 0) {
    return {1, 1, 1};
  }
  const int64_t axis = dim < 0 ? dim + tensor.dim() : dim;
  SoftmaxShape shape{1, tensor.size(axis), 1};
  for (int64_t i = 0; i < axis; ++i) {
    shape.outer *= tensor.size(i);
  }
  for (int64_t i = axis + 1; i < tensor.dim(); ++i) {
    shape.inner *= tensor.size(i);
  }
  return shape;
}

template <bool kIsLog>
Tensor forward(const Tensor& input, int64_t dim) {
  const char* op = kName<kIsLog>;
  check_input(op, input, dim);
  Tensor output = new_tensor(input.sizes(), input.options());
  if (input.numel() == 0) {
    return output;
  }
  const auto shape = shape_of(input, dim);
  D2L_ON_CUDA(op, input) {
    const DeviceScope device(input);
    const Tensor x = input.contiguous();
    check_launch(
        op, input,
        cuda::softmax(shape, kIsLog, cuda_dtype(x), x.const_data_ptr(), output.mutable_data_ptr(), device.stream()));
    return output;
  }
  if (!is_element_type(input)) {
    return forward<kIsLog>(input.to(at::kFloat), dim).to(input.scalar_type());
  }
  const Tensor x = input.contiguous();
  visit_cpu_element(x, [&](auto element) {
    using E = decltype(element);
    cpu::softmax(shape, kIsLog, elements<E>(x), mutable_elements<E>(output));
  });
  return output;
}

template <bool kIsLog>
Tensor input_grad(const Tensor& grad_output, const Tensor& output, int64_t dim) {
  const char* op = kGradName<kIsLog>;
  check_gradient<int64_t>(op, grad_output, output, dim);
  Tensor grad_input = new_tensor(output.sizes(), output.options());
  if (output.numel() == 0) {
    return grad_input;
  }
  const auto shape = shape_of(output, dim);
  D2L_ON_CUDA(op, output) {
    const DeviceScope device(output);
    const Tensor y = output.contiguous(), dy = grad_output.contiguous();
    check_launch(op, output,
                 cuda::softmax_input_grad(shape, kIsLog, cuda_dtype(y), dy.const_data_ptr(), y.const_data_ptr(),
                                          grad_input.mutable_data_ptr(), device.stream()));
    return grad_input;
  }
  if (!is_element_type(output)) {
    return input_grad<kIsLog>(grad_output.to(at::kFloat), output.to(at::kFloat), dim).to(output.scalar_type());
  }
  const Tensor y = output.contiguous(), dy = grad_output.contiguous();
  visit_cpu_element(y, [&](auto element) {
    using E = decltype(element);
    cpu::softmax_input_grad(shape, kIsLog, elements<E>(dy), elements<E>(y), mutable_elements<E>(grad_input));
  });
  return grad_input;
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

template <bool kIsLog>
Tensor forward_meta(const Tensor& input, int64_t dim) {
  check_input(kName<kIsLog>, input, dim);
  return at::empty_symint(input.sym_sizes(), input.options());
}

template <bool kIsLog>
Tensor input_grad_meta(const Tensor& grad_output, const Tensor& output, int64_t dim) {
  check_gradient<SymInt>(kGradName<kIsLog>, grad_output, output, dim);
  return at::empty_symint(output.sym_sizes(), output.options());
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <bool kIsLog>
Tensor call_forward(const Tensor& input, int64_t dim) {
  static const auto op =
      find_op<Tensor(const Tensor&, int64_t)>(kIsLog ? "d2lkernels::log_softmax" : "d2lkernels::softmax");
  return op.call(input, dim);
}

template <bool kIsLog>
Tensor call_input_grad(const Tensor& grad_output, const Tensor& output, int64_t dim) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, int64_t)>(
      kIsLog ? "d2lkernels::log_softmax_input_grad" : "d2lkernels::softmax_input_grad");
  return op.call(grad_output, output, dim);
}

template <bool kIsLog>
struct Softmax : Function<Softmax<kIsLog>> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, int64_t dim) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    Tensor output = call_forward<kIsLog>(input, dim);
    ctx->save_for_backward({output});
    ctx->saved_data["dim"] = dim;
    return output;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(2);
    if (grads[0].defined()) {
      result[0] = call_input_grad<kIsLog>(grads[0], ctx->get_saved_variables()[0], ctx->saved_data["dim"].toInt());
    }
    return result;
  }
};

template <bool kIsLog>
struct InputGrad : Function<InputGrad<kIsLog>> {
  static Tensor forward(AutogradContext* ctx, const Tensor& grad_output, const Tensor& output, int64_t dim) {
    ctx->save_for_backward({grad_output, output});
    ctx->saved_data["dim"] = dim;
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_input_grad<kIsLog>(grad_output, output, dim);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(3);
    if (!grads[0].defined()) {
      return result;
    }
    const auto saved = ctx->get_saved_variables();
    const Tensor &v = grads[0], &dy = saved[0], &y = saved[1];
    const int64_t dim = ctx->saved_data["dim"].toInt();
    const auto sum = [&](const Tensor& values) { return values.sum(dim, /*keepdim=*/true); };
    if constexpr (kIsLog) {
      const Tensor p = at::exp(y);
      if (ctx->needs_input_grad(0)) result[0] = at::sub(v, sum(at::mul(v, p)));
      if (ctx->needs_input_grad(1)) result[1] = at::mul(at::mul(v, p), sum(dy)).neg();
    } else {
      if (ctx->needs_input_grad(0)) result[0] = call_input_grad<kIsLog>(v, y, dim);
      if (ctx->needs_input_grad(1)) {
        result[1] = at::sub(at::mul(v, at::sub(dy, sum(at::mul(dy, y)))), at::mul(dy, sum(at::mul(v, y))));
      }
    }
    return result;
  }
};

template <bool kIsLog>
Tensor forward_autograd(const Tensor& input, int64_t dim) {
  if (needs_autograd(kName<kIsLog>, input)) {
    return Softmax<kIsLog>::apply(input, dim);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_forward<kIsLog>(input, dim);
}

template <bool kIsLog>
Tensor input_grad_autograd(const Tensor& grad_output, const Tensor& output, int64_t dim) {
  if (needs_autograd(kGradName<kIsLog>, grad_output, output)) {
    return InputGrad<kIsLog>::apply(grad_output, output, dim);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_input_grad<kIsLog>(grad_output, output, dim);
}

// ---- autocast: like torch's, in float32 on CUDA devices; as it is on the CPU ----------------------------------------

template <bool kIsLog>
Tensor forward_autocast(const Tensor& input, int64_t dim) {
  const c10::impl::ExcludeDispatchKeyGuard guard(c10::DispatchKey::AutocastCUDA);
  return call_forward<kIsLog>(autocast_to_float32(input, c10::DeviceType::CUDA), dim);
}

}  // namespace
}  // namespace d2l

#define D2L_SOFTMAX_KERNELS(suffix)                             \
  m.impl("softmax", d2l::forward##suffix<false>);               \
  m.impl("log_softmax", d2l::forward##suffix<true>);            \
  m.impl("softmax_input_grad", d2l::input_grad##suffix<false>); \
  m.impl("log_softmax_input_grad", d2l::input_grad##suffix<true>)

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { D2L_SOFTMAX_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { D2L_SOFTMAX_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { D2L_SOFTMAX_KERNELS(_meta); }
TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { D2L_SOFTMAX_KERNELS(_autograd); }
TORCH_LIBRARY_IMPL(d2lkernels, AutocastCUDA, m) {
  m.impl("softmax", d2l::forward_autocast<false>);
  m.impl("log_softmax", d2l::forward_autocast<true>);
}
