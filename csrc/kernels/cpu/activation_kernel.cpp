// Activations and their gradients, a register at a time. Memory-bound but for sigmoid and tanh in the caches: one or
// two loads and one store an element, with 1 to 25 instructions.
#include "kernels/cpu/activation_kernel.h"

#include "kernels/cpu/activation_math.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

template <typename T>
D2L_INLINE void activation_of(Activation activation, int64_t count, const T* input, T* output) {
  visit_activation(activation, [&](auto constant) D2L_INLINE_LAMBDA {
    constexpr Activation kActivation = decltype(constant)::value;
    constexpr int64_t kStep = kLanes<T>;
    int64_t i = 0;
    for (; i + kStep <= count; i += kStep) store(output + i, activate<kActivation, T>(load(input + i)));
    if (i < count) {
      store_partial(output + i, activate<kActivation, T>(load_partial(input + i, count - i)), count - i);
    }
  });
}

template <typename T>
D2L_INLINE void activation_grad_of(Activation activation, int64_t count, const T* grad_output, const T* output,
                                   T* grad_input) {
  visit_activation(activation, [&](auto constant) D2L_INLINE_LAMBDA {
    constexpr Activation kActivation = decltype(constant)::value;
    constexpr int64_t kStep = kLanes<T>;
    int64_t i = 0;
    for (; i + kStep <= count; i += kStep) {
      store(grad_input + i, activation_gradient<kActivation, T>(load(grad_output + i), load(output + i)));
    }
    if (i < count) {
      const vec_t<T> gradient = load_partial(grad_output + i, count - i), y = load_partial(output + i, count - i);
      store_partial(grad_input + i, activation_gradient<kActivation, T>(gradient, y), count - i);
    }
  });
}

}  // namespace

void activation_range(Activation activation, int64_t count, const float* input, float* output) {
  activation_of(activation, count, input, output);
}

void activation_range(Activation activation, int64_t count, const double* input, double* output) {
  activation_of(activation, count, input, output);
}

void activation_grad_range(Activation activation, int64_t count, const float* grad_output, const float* output,
                           float* grad_input) {
  activation_grad_of(activation, count, grad_output, output, grad_input);
}

void activation_grad_range(Activation activation, int64_t count, const double* grad_output, const double* output,
                           double* grad_input) {
  activation_grad_of(activation, count, grad_output, output, grad_input);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
