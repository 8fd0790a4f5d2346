#include "kernels/cpu/activations.h"

#include "kernels/cpu/activation_kernel.h"
#include "kernels/cpu/cache.h"
#include "kernels/cpu/parallel.h"

namespace d2l::cpu {

namespace {

// Elements of a task. One of transcendental functions is worth more than one that is copied.
int64_t grain_of(Activation activation) { return activation == Activation::relu ? 32768 : 8192; }

}  // namespace

template <typename T>
void activation(Activation activation, int64_t count, const T* input, T* output) {
  const bool streams = is_streamed(count, output, input);
  parallel_for(0, count, grain_of(activation), [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(activation_range, activation, end - begin, input + begin, output + begin, streams);
  });
}

template <typename T>
void activation_input_grad(Activation activation, int64_t count, const T* grad_output, const T* output, T* grad_input) {
  const bool streams = is_streamed(count, grad_input, grad_output, output);
  parallel_for(0, count, grain_of(Activation::relu), [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(activation_grad_range, activation, end - begin, grad_output + begin, output + begin,
                  grad_input + begin, streams);
  });
}

template void activation<float>(Activation, int64_t, const float*, float*);
template void activation<double>(Activation, int64_t, const double*, double*);
template void activation_input_grad<float>(Activation, int64_t, const float*, const float*, float*);
template void activation_input_grad<double>(Activation, int64_t, const double*, const double*, double*);

}  // namespace d2l::cpu
