// The sums of bias_grad, fused with the derivative of an activation.
//
//   grad_pre = grad_output * activation'(output), sums += grad_pre
//
// Memory-bound: each tensor is read or written once, in the order in which it lies. Columns are summed kGroup rows at a
// time, as a tree in registers, into a row of partial sums that stays in the first cache; planes into four registers.
// Both are emptied into doubles before rounding errors add up.
#include "kernels/cpu/bias_grad_kernel.h"

#include "kernels/cpu/activation_math.h"
#include "kernels/cpu/vec_element.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

constexpr int64_t kGroup = 8;             // rows
constexpr int64_t kGroupsUntilEmpty = 8;  // 64 rows
constexpr int64_t kVectorsUntilEmpty = 64;

// A full register, or the first `count` lanes of one.
template <bool kFull, typename E>
D2L_INLINE element_vec_t<E> read_lanes(const E* from, int64_t count) {
  if constexpr (kFull) {
    return read(from);
  } else {
    return read_partial(from, count);
  }
}

// The derivative at one place, written where there is an activation; lanes beyond `count` are zero.
template <Activation kActivation, bool kFull, typename E>
D2L_INLINE element_vec_t<E> gradient_at(const E* grad_output, const E* output, E* grad_pre, int64_t count) {
  using T = computed_t<E>;
  const vec_t<T> gradient = read_lanes<kFull>(grad_output, count);
  if constexpr (kActivation == Activation::none) {
    return gradient;
  } else {
    const vec_t<T> result = activation_gradient<kActivation, T>(gradient, read_lanes<kFull>(output, count));
    if constexpr (kFull) {
      write(grad_pre, result);
    } else {
      write_partial(grad_pre, result, count);
    }
    return result;
  }
}

// `kRows` rows of one register, as a tree.
template <Activation kActivation, bool kFull, int64_t kRows, typename E>
D2L_INLINE element_vec_t<E> sum_rows(int64_t stride, const E* grad_output, const E* output, E* grad_pre,
                                     int64_t count) {
  if constexpr (kRows == 1) {
    return gradient_at<kActivation, kFull>(grad_output, output, grad_pre, count);
  } else {
    constexpr int64_t kHalf = kRows / 2;
    const element_vec_t<E> first = sum_rows<kActivation, kFull, kHalf>(stride, grad_output, output, grad_pre, count);
    const int64_t step = kHalf * stride;
    if constexpr (kActivation == Activation::none) {
      return first + sum_rows<kActivation, kFull, kHalf>(stride, grad_output + step, output, grad_pre, count);
    } else {
      return first +
             sum_rows<kActivation, kFull, kHalf>(stride, grad_output + step, output + step, grad_pre + step, count);
    }
  }
}

template <Activation kActivation, int64_t kRows, typename E>
D2L_INLINE void add_rows(int64_t width, const E* grad_output, const E* output, E* grad_pre, computed_t<E>* sums) {
  using T = computed_t<E>;
  constexpr bool kReadsOutput = kActivation != Activation::none;
  const int64_t whole = width / kLanes<T> * kLanes<T>;
  for (int64_t j = 0; j < whole; j += kLanes<T>) {
    const int64_t k = kReadsOutput ? j : 0;
    store(sums + j, load(sums + j) + sum_rows<kActivation, true, kRows>(width, grad_output + j, output + k,
                                                                        grad_pre + k, kLanes<T>));
  }
  if (whole < width) {
    const int64_t k = kReadsOutput ? whole : 0, count = width - whole;
    const vec_t<T> more =
        sum_rows<kActivation, false, kRows>(width, grad_output + whole, output + k, grad_pre + k, count);
    store_partial(sums + whole, load_partial(sums + whole, count) + more, count);
  }
}

template <typename T>
D2L_INLINE void empty(int64_t width, T* from, double* to) {
  for (int64_t j = 0; j < width; ++j) {
    to[j] += static_cast<double>(from[j]);
    from[j] = 0;
  }
}

template <typename T>
D2L_INLINE double sum_of_lanes(vec_t<T> values) {
  double sum = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += static_cast<double>(values[lane]);
  return sum;
}

}  // namespace

template <typename E>
void bias_grad_columns(Activation activation, const BiasColumns& columns, const E* grad_output, const E* output,
                       E* grad_pre, computed_t<E>* scratch, double* sums) {
  const int64_t width = columns.width;
  for (int64_t j = 0; j < width; ++j) sums[j] = 0, scratch[j] = 0;
  visit_activation(activation, [&](auto constant) D2L_INLINE_LAMBDA {
    constexpr Activation kActivation = decltype(constant)::value;
    const auto advance = [&](int64_t rows) D2L_INLINE_LAMBDA {
      grad_output += rows * width;
      if constexpr (kActivation != Activation::none) output += rows * width, grad_pre += rows * width;
    };
    int64_t row = 0, groups = 0;
    for (; row + kGroup <= columns.rows; row += kGroup) {
      add_rows<kActivation, kGroup>(width, grad_output, output, grad_pre, scratch);
      advance(kGroup);
      if (++groups % kGroupsUntilEmpty == 0) empty(width, scratch, sums);
    }
    for (; row < columns.rows; ++row) {
      add_rows<kActivation, 1>(width, grad_output, output, grad_pre, scratch);
      advance(1);
    }
    empty(width, scratch, sums);
  });
}

template <typename E>
void bias_grad_planes(Activation activation, const BiasPlanes& planes, const E* grad_output, const E* output,
                      E* grad_pre, double* sum) {
  using T = computed_t<E>;
  constexpr int64_t kUnroll = 4;
  visit_activation(activation, [&](auto constant) D2L_INLINE_LAMBDA {
    constexpr Activation kActivation = decltype(constant)::value;
    constexpr bool kReadsOutput = kActivation != Activation::none;
    vec_t<T> sums[kUnroll] = {};
    int64_t vectors = 0;
    double total = 0;
    const auto empty_sums = [&]() D2L_INLINE_LAMBDA {
      total += sum_of_lanes<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
      for (auto& one : sums) one = vec_t<T>{};
      vectors = 0;
    };
    for (int64_t plane = 0; plane < planes.planes; ++plane) {
      const int64_t begin = plane * planes.stride;
      int64_t i = 0;
      for (; i + kUnroll * kLanes<T> <= planes.pixels; i += kUnroll * kLanes<T>) {
        for (int64_t u = 0; u < kUnroll; ++u) {
          const int64_t at = begin + i + u * kLanes<T>, k = kReadsOutput ? at : 0;
          sums[u] += gradient_at<kActivation, true>(grad_output + at, output + k, grad_pre + k, kLanes<T>);
        }
        if (++vectors == kVectorsUntilEmpty) empty_sums();
      }
      for (; i + kLanes<T> <= planes.pixels; i += kLanes<T>, ++vectors) {
        const int64_t at = begin + i, k = kReadsOutput ? at : 0;
        sums[0] += gradient_at<kActivation, true>(grad_output + at, output + k, grad_pre + k, kLanes<T>);
      }
      if (i < planes.pixels) {
        const int64_t at = begin + i, k = kReadsOutput ? at : 0;
        sums[1] += gradient_at<kActivation, false>(grad_output + at, output + k, grad_pre + k, planes.pixels - i);
        ++vectors;
      }
      if (vectors >= kVectorsUntilEmpty) empty_sums();
    }
    empty_sums();
    *sum = total;
  });
}

#define D2L_INSTANTIATE(E)                                                                                          \
  template void bias_grad_columns(Activation, const BiasColumns&, const E*, const E*, E*, computed_t<E>*, double*); \
  template void bias_grad_planes(Activation, const BiasPlanes&, const E*, const E*, E*, double*);
D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)
#undef D2L_INSTANTIATE

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
