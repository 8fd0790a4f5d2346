// max(x + y, 0), a register at a time: two loads and one store an element, memory-bound.
#include "kernels/cpu/add_relu_kernel.h"

#include "kernels/cpu/activation.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

template <typename T>
void add_relu_range(int64_t count, const T* input, const T* other, T* output, bool streams) {
  const auto whole = [&](int64_t i) D2L_INLINE_LAMBDA { return relu<T>(load(input + i) + load(other + i)); };
  const auto part = [&](int64_t i, int64_t n)
                        D2L_INLINE_LAMBDA { return relu<T>(load_partial(input + i, n) + load_partial(other + i, n)); };
  store_all(output, count, streams, whole, part, input, other);
}

template void add_relu_range(int64_t, const float*, const float*, float*, bool);
template void add_relu_range(int64_t, const double*, const double*, double*, bool);

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
