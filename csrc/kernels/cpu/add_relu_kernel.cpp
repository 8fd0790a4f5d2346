// max(x + y, 0), a register at a time: two loads and one store an element, memory-bound.
#include "kernels/cpu/add_relu_kernel.h"

#include "kernels/cpu/activation.h"
#include "kernels/cpu/vec_element.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

template <typename E>
void add_relu_range(int64_t count, const E* input, const E* other, E* output, bool streams) {
  const auto whole = [&](int64_t i)
                         D2L_INLINE_LAMBDA { return relu<computed_t<E>>(read(input + i) + read(other + i)); };
  const auto part = [&](int64_t i, int64_t n) D2L_INLINE_LAMBDA {
    return relu<computed_t<E>>(read_partial(input + i, n) + read_partial(other + i, n));
  };
  write_all(output, count, streams, whole, part, input, other);
}

template void add_relu_range(int64_t, const float*, const float*, float*, bool);
template void add_relu_range(int64_t, const double*, const double*, double*, bool);
template void add_relu_range(int64_t, const BFloat16*, const BFloat16*, BFloat16*, bool);

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
