// Activations and their gradients, a register at a time. Memory-bound but for sigmoid and tanh in the caches: one or
// two loads and one store an element, with 1 to 25 instructions, and 5 more to round to bfloat16.
#include "kernels/cpu/activation_kernel.h"

#include "kernels/cpu/activation_math.h"
#include "kernels/cpu/vec_element.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

template <typename E>
void activation_range(Activation activation, int64_t count, const E* input, E* output, bool streams) {
  visit_activation(activation, [&](auto constant) D2L_INLINE_LAMBDA {
    constexpr Activation kActivation = decltype(constant)::value;
    using T = computed_t<E>;
    const auto whole = [&](int64_t i) D2L_INLINE_LAMBDA { return activate<kActivation, T>(read(input + i)); };
    const auto part = [&](int64_t i, int64_t n)
                          D2L_INLINE_LAMBDA { return activate<kActivation, T>(read_partial(input + i, n)); };
    write_all(output, count, streams, whole, part, input);
  });
}

template <typename E>
void activation_grad_range(Activation activation, int64_t count, const E* grad_output, const E* output, E* grad_input,
                           bool streams) {
  visit_activation(activation, [&](auto constant) D2L_INLINE_LAMBDA {
    constexpr Activation kActivation = decltype(constant)::value;
    using T = computed_t<E>;
    const auto whole = [&](int64_t i) D2L_INLINE_LAMBDA {
      return activation_gradient<kActivation, T>(read(grad_output + i), read(output + i));
    };
    const auto part = [&](int64_t i, int64_t n) D2L_INLINE_LAMBDA {
      return activation_gradient<kActivation, T>(read_partial(grad_output + i, n), read_partial(output + i, n));
    };
    write_all(grad_input, count, streams, whole, part, grad_output, output);
  });
}

#define D2L_INSTANTIATE(E)                                                 \
  template void activation_range(Activation, int64_t, const E*, E*, bool); \
  template void activation_grad_range(Activation, int64_t, const E*, const E*, E*, bool);
D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)
#undef D2L_INSTANTIATE

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
