#include "kernels/cpu/activations.h"

#include "kernels/cpu/activation_kernel.h"
#include "kernels/cpu/cache.h"
#include "kernels/cpu/parallel.h"

namespace d2l::cpu {

namespace {

// Elements of a task. One of transcendental functions is worth more than one that is copied.
int64_t grain_of(Activation activation) { return activation == Activation::relu ? 32768 : 8192; }

}  // namespace

template <typename E>
void activation(Activation activation, int64_t count, const E* input, E* output) {
  const bool streams = is_streamed(count, output, input);
  parallel_for(0, count, grain_of(activation), [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(activation_range, activation, end - begin, input + begin, output + begin, streams);
  });
}

template <typename E>
void activation_input_grad(Activation activation, int64_t count, const E* grad_output, const E* output, E* grad_input) {
  const bool streams = is_streamed(count, grad_input, grad_output, output);
  parallel_for(0, count, grain_of(Activation::relu), [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(activation_grad_range, activation, end - begin, grad_output + begin, output + begin,
                  grad_input + begin, streams);
  });
}

#define D2L_INSTANTIATE(E)                                     \
  template void activation(Activation, int64_t, const E*, E*); \
  template void activation_input_grad(Activation, int64_t, const E*, const E*, E*);
D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)
#undef D2L_INSTANTIATE

}  // namespace d2l::cpu
