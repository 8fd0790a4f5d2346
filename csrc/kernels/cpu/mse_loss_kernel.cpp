// The squared error, its sum and its gradient, a register at a time: memory-bound.
#include "kernels/cpu/mse_loss_kernel.h"

#include <algorithm>

#include "kernels/cpu/vec.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

constexpr int kSums = 4;
constexpr int64_t kElementsPerSum = 128;  // of a lane: few enough that rounding errors do not add up

// function(i, load, store) for all registers of the range; the last one may hold fewer elements.
template <typename T, typename Function>
D2L_INLINE void for_registers(int64_t count, T* to, Function&& function) {
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) {
    store(to + i, function(i, [&](const T* from) D2L_INLINE_LAMBDA { return load(from + i); }));
  }
  if (i < count) {
    const int64_t rest = count - i;
    const auto load_rest = [&](const T* from) D2L_INLINE_LAMBDA { return load_partial(from + i, rest); };
    store_partial(to + i, function(i, load_rest), rest);
  }
}

template <typename T>
D2L_INLINE void losses_of(int64_t count, const T* input, const T* target, T* losses) {
  for_registers(count, losses, [&](int64_t, auto&& get) D2L_INLINE_LAMBDA {
    const vec_t<T> distance = get(input) - get(target);
    return distance * distance;
  });
}

template <typename T>
D2L_INLINE void sum_of(int64_t count, const T* input, const T* target, double* sum) {
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kElementsPerSum * kSums * kLanes<T>) {
    const int64_t end = std::min(count, begin + kElementsPerSum * kSums * kLanes<T>);
    vec_t<T> sums[kSums] = {};
    int64_t i = begin;
    for (; i + kSums * kLanes<T> <= end; i += kSums * kLanes<T>) {
      for (int u = 0; u < kSums; ++u) {
        const vec_t<T> distance = load(input + i + u * kLanes<T>) - load(target + i + u * kLanes<T>);
        sums[u] += distance * distance;
      }
    }
    for (; i < end; i += kLanes<T>) {
      const int64_t rest = std::min<int64_t>(kLanes<T>, end - i);
      const vec_t<T> distance = load_partial(input + i, rest) - load_partial(target + i, rest);
      sums[0] += distance * distance;
    }
    const vec_t<T> joined = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (int lane = 0; lane < kLanes<T>; ++lane) total += static_cast<double>(joined[lane]);
  }
  *sum = total;
}

template <typename T>
D2L_INLINE void grads_of(int64_t count, const T* grad_output, int64_t grad_stride, T scale, const T* input,
                         const T* target, T* grad_input) {
  const T twice = 2 * scale;
  if (grad_stride == 0) {
    const T factor = *grad_output * twice;
    for_registers(count, grad_input,
                  [&](int64_t, auto&& get) D2L_INLINE_LAMBDA { return factor * (get(input) - get(target)); });
  } else {
    for_registers(count, grad_input, [&](int64_t, auto&& get) D2L_INLINE_LAMBDA {
      return (get(grad_output) * twice) * (get(input) - get(target));
    });
  }
}

}  // namespace

#define D2L_MSE_LOSS_KERNELS_FOR(T)                                                                                \
  void squared_error_range(int64_t count, const T* input, const T* target, T* losses) {                            \
    losses_of(count, input, target, losses);                                                                       \
  }                                                                                                                \
  void squared_error_sum(int64_t count, const T* input, const T* target, double* sum) {                            \
    sum_of(count, input, target, sum);                                                                             \
  }                                                                                                                \
  void squared_error_grad_range(int64_t count, const T* grad_output, int64_t grad_stride, T scale, const T* input, \
                                const T* target, T* grad_input) {                                                  \
    grads_of(count, grad_output, grad_stride, scale, input, target, grad_input);                                   \
  }

D2L_MSE_LOSS_KERNELS_FOR(float)
D2L_MSE_LOSS_KERNELS_FOR(double)

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
