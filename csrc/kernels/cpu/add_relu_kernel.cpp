// max(x + y, 0), a register at a time: two loads and one store an element, memory-bound.
#include "kernels/cpu/add_relu_kernel.h"

#include "kernels/cpu/activation.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

template <typename T>
void add_relu_range(int64_t count, const T* input, const T* other, T* output) {
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) {
    store(output + i, relu<T>(load(input + i) + load(other + i)));
  }
  if (i < count) {
    const vec_t<T> sum = load_partial(input + i, count - i) + load_partial(other + i, count - i);
    store_partial(output + i, relu<T>(sum), count - i);
  }
}

template void add_relu_range(int64_t, const float*, const float*, float*);
template void add_relu_range(int64_t, const double*, const double*, double*);

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
