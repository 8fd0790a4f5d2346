// The squared error, its sum and its gradient, a register at a time: memory-bound.
#include "kernels/cpu/mse_loss_kernel.h"

#include "kernels/cpu/integers.h"
#include "kernels/cpu/vec_element.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

constexpr int kSums = 4;
constexpr int64_t kElementsPerSum = 128;  // of a lane: few enough that rounding errors do not add up

// to[i] = function(get) for all registers of the range, where get(from) reads from[i]; the last one may hold fewer
// elements.
template <typename E, typename Function>
D2L_INLINE void for_registers(int64_t count, E* to, Function&& function) {
  int64_t i = 0;
  for (; i + kElements<E> <= count; i += kElements<E>) {
    write(to + i, function([&](const E* from) D2L_INLINE_LAMBDA { return read(from + i); }));
  }
  if (i < count) {
    const int64_t rest = count - i;
    write_partial(to + i, function([&](const E* from) D2L_INLINE_LAMBDA { return read_partial(from + i, rest); }),
                  rest);
  }
}

}  // namespace

template <typename E>
void squared_error_range(int64_t count, const E* input, const E* target, E* losses) {
  for_registers(count, losses, [&](auto&& get) D2L_INLINE_LAMBDA {
    const element_vec_t<E> distance = get(input) - get(target);
    return distance * distance;
  });
}

template <typename E>
void squared_error_sum(int64_t count, const E* input, const E* target, double* sum) {
  using T = computed_t<E>;
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kElementsPerSum * kSums * kLanes<T>) {
    const int64_t end = min(count, begin + kElementsPerSum * kSums * kLanes<T>);
    vec_t<T> sums[kSums] = {};
    int64_t i = begin;
    for (; i + kSums * kLanes<T> <= end; i += kSums * kLanes<T>) {
      for (int u = 0; u < kSums; ++u) {
        const vec_t<T> distance = read(input + i + u * kLanes<T>) - read(target + i + u * kLanes<T>);
        sums[u] += distance * distance;
      }
    }
    for (; i < end; i += kLanes<T>) {
      const int64_t rest = min(kLanes<T>, end - i);
      const vec_t<T> distance = read_partial(input + i, rest) - read_partial(target + i, rest);
      sums[0] += distance * distance;
    }
    const vec_t<T> joined = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (int lane = 0; lane < kLanes<T>; ++lane) total += static_cast<double>(joined[lane]);
  }
  *sum = total;
}

template <typename E>
void squared_error_grad_range(int64_t count, const E* grad_output, int64_t grad_stride, computed_t<E> scale,
                              const E* input, const E* target, E* grad_input) {
  using T = computed_t<E>;
  const T twice = 2 * scale;
  if (grad_stride == 0) {
    const T factor = read_one(*grad_output) * twice;
    for_registers(count, grad_input, [&](auto&& get) D2L_INLINE_LAMBDA { return factor * (get(input) - get(target)); });
  } else {
    for_registers(count, grad_input, [&](auto&& get) D2L_INLINE_LAMBDA {
      return (get(grad_output) * twice) * (get(input) - get(target));
    });
  }
}

#define D2L_INSTANTIATE(E)                                               \
  template void squared_error_range(int64_t, const E*, const E*, E*);    \
  template void squared_error_sum(int64_t, const E*, const E*, double*); \
  template void squared_error_grad_range(int64_t, const E*, int64_t, computed_t<E>, const E*, const E*, E*);
D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)
#undef D2L_INSTANTIATE

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
