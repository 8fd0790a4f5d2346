// Activations and their gradients, a register at a time. Memory-bound but for sigmoid and tanh in the caches: one or
// two loads and one store an element, with 1 to 25 instructions.
#include "kernels/cpu/activation_kernel.h"

#include "kernels/cpu/activation_math.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

template <typename T>
D2L_INLINE void activation_of(Activation activation, int64_t count, const T* input, T* output, bool streams) {
  visit_activation(activation, [&](auto constant) D2L_INLINE_LAMBDA {
    constexpr Activation kActivation = decltype(constant)::value;
    const auto whole = [&](int64_t i) D2L_INLINE_LAMBDA { return activate<kActivation, T>(load(input + i)); };
    const auto part = [&](int64_t i, int64_t n)
                          D2L_INLINE_LAMBDA { return activate<kActivation, T>(load_partial(input + i, n)); };
    store_all(output, count, streams, whole, part, input);
  });
}

template <typename T>
D2L_INLINE void activation_grad_of(Activation activation, int64_t count, const T* grad_output, const T* output,
                                   T* grad_input, bool streams) {
  visit_activation(activation, [&](auto constant) D2L_INLINE_LAMBDA {
    constexpr Activation kActivation = decltype(constant)::value;
    const auto whole = [&](int64_t i) D2L_INLINE_LAMBDA {
      return activation_gradient<kActivation, T>(load(grad_output + i), load(output + i));
    };
    const auto part = [&](int64_t i, int64_t n) D2L_INLINE_LAMBDA {
      return activation_gradient<kActivation, T>(load_partial(grad_output + i, n), load_partial(output + i, n));
    };
    store_all(grad_input, count, streams, whole, part, grad_output, output);
  });
}

}  // namespace

void activation_range(Activation activation, int64_t count, const float* input, float* output, bool streams) {
  activation_of(activation, count, input, output, streams);
}

void activation_range(Activation activation, int64_t count, const double* input, double* output, bool streams) {
  activation_of(activation, count, input, output, streams);
}

void activation_grad_range(Activation activation, int64_t count, const float* grad_output, const float* output,
                           float* grad_input, bool streams) {
  activation_grad_of(activation, count, grad_output, output, grad_input, streams);
}

void activation_grad_range(Activation activation, int64_t count, const double* grad_output, const double* output,
                           double* grad_input, bool streams) {
  activation_grad_of(activation, count, grad_output, output, grad_input, streams);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
