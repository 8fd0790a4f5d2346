// relu, sigmoid and tanh: checks, allocation, kernels for CPU, CUDA and Meta, autograd.
//
// A derivative needs the output alone. That of y = activation(x) is linear in the gradient, so it is its own derivative
// there; those for y are written in torch's ops (relu has none).
#include "ops/activation.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <torch/library.h>

#include "common/allocate.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/elementwise.h"
#include "common/function.h"
#include "common/reuse.h"
#include "kernels/cpu/activations.h"
#include "kernels/cuda/activation.h"

namespace d2l {
namespace {

using at::Tensor;
using c10::SymInt;

constexpr const char* kNames[] = {"none", "relu", "sigmoid", "tanh"};
constexpr const char* kGradNames[] = {"", "relu_input_grad", "sigmoid_input_grad", "tanh_input_grad"};

constexpr const char* name_of(Activation activation) { return kNames[static_cast<int>(activation)]; }
constexpr const char* grad_name_of(Activation activation) { return kGradNames[static_cast<int>(activation)]; }

// ---- checks ----------------------------------------------------------------------------------------------------

void check_input(const char* op, const Tensor& input) {
  check_floating(op, "input", input);
  check_strided(op, "input", input);
}

template <typename Int>
void check_gradient(const char* op, const Tensor& grad_output, const Tensor& output) {
  check_floating(op, "output", output);
  check_strided(op, "output", output);
  check_strided(op, "grad_output", grad_output);
  check_same_dtype(op, "grad_output", grad_output, "output", output);
  check_same_device(op, "grad_output", grad_output, "output", output);
  TORCH_CHECK_VALUE(sizes_of<Int>(grad_output) == sizes_of<Int>(output), op,
                    "(): expected grad_output to have the size of output ", sizes_of<Int>(output), ", but got ",
                    sizes_of<Int>(grad_output));
}

// ---- kernels on CPU and CUDA -----------------------------------------------------------------------------------

template <Activation kActivation>
Tensor forward(const Tensor& input) {
  constexpr const char* op = name_of(kActivation);
  check_input(op, input);
  Tensor output = new_like(input);
  if (input.numel() == 0) {
    return output;
  }
  D2L_ON_CUDA(op, input) {
    const DeviceScope device(input);
    const Tensor x = as_elements(input);
    check_launch(op, input,
                 cuda::activation(kActivation, x.numel(), cuda_dtype(x), x.const_data_ptr(), output.mutable_data_ptr(),
                                  device.stream()));
    return output;
  }
  if (!is_element_type(input)) {
    return forward<kActivation>(input.to(at::kFloat)).to(input.scalar_type());
  }
  const Tensor x = as_elements(input);
  visit_cpu_element(x, [&](auto element) {
    using E = decltype(element);
    cpu::activation(kActivation, x.numel(), elements<E>(x), mutable_elements<E>(output));
  });
  return output;
}

template <Activation kActivation>
Tensor input_grad(const Tensor& grad_output, const Tensor& output) {
  constexpr const char* op = grad_name_of(kActivation);
  check_gradient<int64_t>(op, grad_output, output);
  Tensor grad_input = taken_or_empty_like(grad_output, output);
  if (output.numel() == 0) {
    return grad_input;
  }
  D2L_ON_CUDA(op, output) {
    const DeviceScope device(output);
    const Tensor y = as_elements(output), dy = as_elements(grad_output, y);
    check_launch(op, output,
                 cuda::activation_input_grad(kActivation, y.numel(), cuda_dtype(y), dy.const_data_ptr(),
                                             y.const_data_ptr(), grad_input.mutable_data_ptr(), device.stream()));
    return grad_input;
  }
  if (!is_element_type(output)) {
    return input_grad<kActivation>(grad_output.to(at::kFloat), output.to(at::kFloat)).to(output.scalar_type());
  }
  const Tensor y = as_elements(output), dy = as_elements(grad_output, y);
  visit_cpu_element(y, [&](auto element) {
    using E = decltype(element);
    cpu::activation_input_grad(kActivation, y.numel(), elements<E>(dy), elements<E>(y),
                               mutable_elements<E>(grad_input));
  });
  return grad_input;
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

template <Activation kActivation>
Tensor forward_meta(const Tensor& input) {
  check_input(name_of(kActivation), input);
  return at::empty_like(input);
}

template <Activation kActivation>
Tensor input_grad_meta(const Tensor& grad_output, const Tensor& output) {
  check_gradient<SymInt>(grad_name_of(kActivation), grad_output, output);
  return at::empty_like(output);
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <Activation kActivation>
Tensor call_forward(const Tensor& input) {
  static const auto op = find_op<Tensor(const Tensor&)>((std::string("d2lkernels::") + name_of(kActivation)).c_str());
  return op.call(input);
}

template <Activation kActivation>
Tensor call_input_grad(const Tensor& grad_output, const Tensor& output) {
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&)>((std::string("d2lkernels::") + grad_name_of(kActivation)).c_str());
  return op.call(grad_output, output);
}

template <Activation kActivation>
struct Activate : Function<Activate<kActivation>> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    Tensor output = call_forward<kActivation>(input);
    ctx->save_for_backward({output});
    return output;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    if (!grads[0].defined()) {
      return {Tensor()};
    }
    const OfferedGradient offer(grads[0]);
    return {call_input_grad<kActivation>(grads[0], ctx->get_saved_variables()[0])};
  }
};

template <Activation kActivation>
struct InputGrad : Function<InputGrad<kActivation>> {
  static Tensor forward(AutogradContext* ctx, const Tensor& grad_output, const Tensor& output) {
    ctx->save_for_backward({grad_output, output});
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_input_grad<kActivation>(grad_output, output);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(2);
    if (!grads[0].defined()) {
      return result;
    }
    const auto saved = ctx->get_saved_variables();
    const Tensor &grad_output = saved[0], &output = saved[1];
    if (ctx->needs_input_grad(0)) {
      result[0] = call_input_grad<kActivation>(grads[0], output);
    }
    if (kActivation != Activation::relu && ctx->needs_input_grad(1)) {
      const Tensor product = at::mul(grads[0], grad_output);
      result[1] = kActivation == Activation::sigmoid ? at::mul(product, output.mul(-2).add(1))
                                                     : at::mul(product, output.mul(-2));
    }
    return result;
  }
};

template <Activation kActivation>
Tensor forward_autograd(const Tensor& input) {
  if (needs_autograd(name_of(kActivation), input)) {
    return Activate<kActivation>::apply(input);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_forward<kActivation>(input);
}

template <Activation kActivation>
Tensor input_grad_autograd(const Tensor& grad_output, const Tensor& output) {
  if (needs_autograd(grad_name_of(kActivation), grad_output, output)) {
    return InputGrad<kActivation>::apply(grad_output, output);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_input_grad<kActivation>(grad_output, output);
}

}  // namespace

Activation activation_of(const char* op, std::string_view name) {
  for (const auto activation : {Activation::none, Activation::relu, Activation::sigmoid, Activation::tanh}) {
    if (name == name_of(activation)) {
      return activation;
    }
  }
  TORCH_CHECK_VALUE(false, op, "(): expected activation to be one of none, relu, sigmoid, tanh, but got '", name, "'");
}

Tensor activated(Activation activation, const Tensor& input) {
  switch (activation) {
    case Activation::relu:
      return call_forward<Activation::relu>(input);
    case Activation::sigmoid:
      return call_forward<Activation::sigmoid>(input);
    case Activation::tanh:
      return call_forward<Activation::tanh>(input);
    case Activation::none:
      break;
  }
  return input;
}

Tensor activation_input_grad(Activation activation, const Tensor& grad_output, const Tensor& output) {
  switch (activation) {
    case Activation::relu:
      return call_input_grad<Activation::relu>(grad_output, output);
    case Activation::sigmoid:
      return call_input_grad<Activation::sigmoid>(grad_output, output);
    case Activation::tanh:
      return call_input_grad<Activation::tanh>(grad_output, output);
    case Activation::none:
      break;
  }
  return grad_output;
}

std::tuple<Tensor, Tensor> activation_grads(std::string_view name, bool needs_bias_grad, const Tensor& grad,
                                            const Tensor& output) {
  const Activation activation = activation_of("activation_grads", name);
  const OfferedGradient offer(grad);
  if (activation == Activation::none) {
    static const auto bias_grad = find_op<Tensor(const Tensor&)>("d2lkernels::bias_grad");
    return {grad, needs_bias_grad ? bias_grad.call(grad) : Tensor()};
  }
  if (!needs_bias_grad) return {activation_input_grad(activation, grad, output), Tensor()};
  using Fused = std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, std::string_view);
  static const auto fused = find_op<Fused>("d2lkernels::activation_bias_grad");
  return fused.call(grad, output, name);
}

}  // namespace d2l

#define D2L_ACTIVATION(name, suffix)                          \
  m.impl(#name, d2l::forward##suffix<d2l::Activation::name>); \
  m.impl(#name "_input_grad", d2l::input_grad##suffix<d2l::Activation::name>)
#define D2L_ACTIVATIONS(suffix)    \
  D2L_ACTIVATION(relu, suffix);    \
  D2L_ACTIVATION(sigmoid, suffix); \
  D2L_ACTIVATION(tanh, suffix)

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { D2L_ACTIVATIONS(); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { D2L_ACTIVATIONS(); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { D2L_ACTIVATIONS(_meta); }
TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { D2L_ACTIVATIONS(_autograd); }
