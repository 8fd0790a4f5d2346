// Softmax and its logarithm over rows, and their gradients. Each row is read two or three times, from the first cache;
// about 20 instructions an element, on all lanes. Not a number or +infinity anywhere in a row make the row NaN, as a
// row of -infinity does.
#include "kernels/cpu/softmax_kernel.h"

#include <type_traits>

#include "kernels/cpu/rows.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

// The gradients of a row need one sum across, and three transpositions otherwise.
constexpr int64_t kShortGradientRow = 16;

// Registers that are computed side by side: bfloat16 fills half of a cache line with one.
template <typename E>
constexpr int kSide = kIsRounded<E> ? 2 : 1;

// Where exponentials wait for their sum: in the output, or in `scratch` where that would round them.
template <typename E>
D2L_INLINE computed_t<E>* kept_in(E* output, computed_t<E>* scratch) {
  if constexpr (kIsRounded<E>) {
    return scratch;
  } else {
    return output;
  }
}

// kRegisters of rows: element c of all of them is at `c * stride`. Only `lanes` of each are there.
template <bool kIsLog, int kRegisters, typename E, typename T = computed_t<E>>
D2L_INLINE void softmax_of(int64_t C, int64_t stride, int64_t lanes, const E* input, T* scratch, E* output) {
  T* const kept = kept_in(output, scratch);
  const int64_t kept_stride = kIsRounded<E> ? kRegisters * kLanes<T> : stride;
  vec_t<T> max[kRegisters], sum[kRegisters] = {};
  for (int i = 0; i < kRegisters; ++i) max[i] = read_lanes(input + i * kLanes<T>, lanes);
  for (int64_t c = 1; c < C; ++c) {
    for (int i = 0; i < kRegisters; ++i) {
      max[i] = larger<T>(read_lanes(input + c * stride + i * kLanes<T>, lanes), max[i]);
    }
  }
  for (int64_t c = 0; c < C; ++c) {
    for (int i = 0; i < kRegisters; ++i) {
      const vec_t<T> e = exp<T>(read_lanes(input + c * stride + i * kLanes<T>, lanes) - max[i]);
      sum[i] += e;
      if constexpr (!kIsLog) write_lanes(kept + c * kept_stride + i * kLanes<T>, e, lanes);
    }
  }
  for (int i = 0; i < kRegisters; ++i) sum[i] = kIsLog ? log<T>(sum[i]) : 1 / sum[i];
  for (int64_t c = 0; c < C; ++c) {
    for (int i = 0; i < kRegisters; ++i) {
      const int64_t place = c * stride + i * kLanes<T>;
      const vec_t<T> result = kIsLog ? read_lanes(input + place, lanes) - max[i] - sum[i]
                                     : read_lanes(kept + c * kept_stride + i * kLanes<T>, lanes) * sum[i];
      write_lanes(output + place, result, lanes);
    }
  }
}

template <bool kIsLog, int kRegisters, typename E>
D2L_INLINE void softmax_grad_of(int64_t C, int64_t stride, int64_t lanes, const E* grad_output, const E* output,
                                E* grad_input) {
  using T = computed_t<E>;
  vec_t<T> sum[kRegisters] = {};
  for (int64_t c = 0; c < C; ++c) {
    for (int i = 0; i < kRegisters; ++i) {
      const int64_t place = c * stride + i * kLanes<T>;
      const vec_t<T> gradient = read_lanes(grad_output + place, lanes);
      sum[i] += kIsLog ? gradient : gradient * read_lanes(output + place, lanes);
    }
  }
  for (int64_t c = 0; c < C; ++c) {
    for (int i = 0; i < kRegisters; ++i) {
      const int64_t place = c * stride + i * kLanes<T>;
      const vec_t<T> gradient = read_lanes(grad_output + place, lanes), y = read_lanes(output + place, lanes);
      write_lanes(grad_input + place, kIsLog ? gradient - exp<T>(y) * sum[i] : y * (gradient - sum[i]), lanes);
    }
  }
}

// function(registers, lanes, offset) for all rows whose neighbours lie side by side, where `registers` is constant.
template <typename E, typename Function>
D2L_INLINE void for_side_by_side(const SoftmaxShape& shape, int64_t begin, int64_t end, Function&& function) {
  constexpr int kRows = kSide<E> * kElements<E>;
  for_blocks<kRows>(shape.C, shape.inner, begin, end, [&](int64_t, int64_t rows, int64_t offset) D2L_INLINE_LAMBDA {
    if (rows == kRows) return function(std::integral_constant<int, kSide<E>>{}, kElements<E>, offset);
    for (int64_t row = 0; row < rows; row += kElements<E>) {
      function(std::integral_constant<int, 1>{}, std::min<int64_t>(kElements<E>, rows - row), offset + row);
    }
  });
}

// One row that is contiguous and long.
template <bool kIsLog, typename E, typename T = computed_t<E>>
D2L_INLINE void softmax_of_row(int64_t C, const E* input, T* scratch, E* output) {
  T* const kept = kept_in(output, scratch);
  const Tail<E> tail(input, C);
  const vec_t<T> max = max_of_row(input, tail), tail_exp = tail.only(exp<T>(tail.values - max));
  vec_t<T> sums = {};
  for (int64_t c = 0; c < tail.begin; c += kLanes<T>) {
    const vec_t<T> e = exp<T>(read(input + c) - max);
    sums += e;
    if constexpr (!kIsLog) store(kept + c, e);
  }
  const vec_t<T> sum = sum_across<T>(sums + tail_exp);
  if constexpr (kIsLog) {
    const vec_t<T> log_sum = log<T>(sum);
    for (int64_t c = 0; c < tail.begin; c += kLanes<T>) write(output + c, read(input + c) - max - log_sum);
    write_partial(output + tail.begin, tail.values - max - log_sum, tail.count);
  } else {
    const vec_t<T> scale = 1 / sum;
    for (int64_t c = 0; c < tail.begin; c += kLanes<T>) write(output + c, load(kept + c) * scale);
    write_partial(output + tail.begin, tail_exp * scale, tail.count);
  }
}

template <bool kIsLog, typename E>
D2L_INLINE void softmax_grad_of_row(int64_t C, const E* grad_output, const E* output, E* grad_input) {
  using T = computed_t<E>;
  const int64_t whole = (C - 1) / kLanes<T> * kLanes<T>, rest = C - whole;
  const vec_t<T> tail_gradient = read_partial(grad_output + whole, rest), tail = read_partial(output + whole, rest);
  vec_t<T> sums = kIsLog ? tail_gradient : tail_gradient * tail, others = {};
  fold_row<T>(whole, sums, others, [&](vec_t<T> result, int64_t c) D2L_INLINE_LAMBDA {
    const vec_t<T> gradient = read(grad_output + c);
    return result + (kIsLog ? gradient : gradient * read(output + c));
  });
  const vec_t<T> sum = sum_across<T>(sums + others);
  const auto result = [&](vec_t<T> gradient, vec_t<T> y)
                          D2L_INLINE_LAMBDA { return kIsLog ? gradient - exp<T>(y) * sum : y * (gradient - sum); };
  for (int64_t c = 0; c < whole; c += kLanes<T>) {
    write(grad_input + c, result(read(grad_output + c), read(output + c)));
  }
  write_partial(grad_input + whole, result(tail_gradient, tail), rest);
}

template <bool kIsLog, typename E, typename T = computed_t<E>>
D2L_INLINE void forward(const SoftmaxShape& shape, int64_t begin, int64_t end, const E* input, T* scratch, E* output) {
  const int64_t C = shape.C;
  if (shape.inner > 1) {
    for_side_by_side<E>(shape, begin, end, [&](auto registers, int64_t lanes, int64_t offset) D2L_INLINE_LAMBDA {
      softmax_of<kIsLog, registers()>(C, shape.inner, lanes, input + offset, scratch, output + offset);
    });
    return;
  }
  if (C > kShortRow) {
    for (int64_t row = begin; row < end; ++row) softmax_of_row<kIsLog>(C, input + row * C, scratch, output + row * C);
    return;
  }
  T buffer[kShortRow * kLanes<T>];
  for (int64_t row = begin; row < end; row += kLanes<T>) {
    const int64_t rows = std::min<int64_t>(kLanes<T>, end - row);
    transpose_rows(C, rows, input + row * C, buffer);
    softmax_of<kIsLog, 1, T>(C, kLanes<T>, kLanes<T>, buffer, buffer, buffer);
    transpose_back(C, rows, buffer, output + row * C);
  }
}

template <bool kIsLog, typename E>
D2L_INLINE void backward(const SoftmaxShape& shape, int64_t begin, int64_t end, const E* grad_output, const E* output,
                         E* grad_input) {
  using T = computed_t<E>;
  const int64_t C = shape.C;
  if (shape.inner > 1) {
    for_side_by_side<E>(shape, begin, end, [&](auto registers, int64_t lanes, int64_t offset) D2L_INLINE_LAMBDA {
      softmax_grad_of<kIsLog, registers()>(C, shape.inner, lanes, grad_output + offset, output + offset,
                                           grad_input + offset);
    });
    return;
  }
  if (C > kShortGradientRow) {
    for (int64_t row = begin; row < end; ++row) {
      softmax_grad_of_row<kIsLog>(C, grad_output + row * C, output + row * C, grad_input + row * C);
    }
    return;
  }
  T gradients[kShortGradientRow * kLanes<T>], values[kShortGradientRow * kLanes<T>];
  for (int64_t row = begin; row < end; row += kLanes<T>) {
    const int64_t rows = std::min<int64_t>(kLanes<T>, end - row);
    transpose_rows(C, rows, grad_output + row * C, gradients);
    transpose_rows(C, rows, output + row * C, values);
    softmax_grad_of<kIsLog, 1, T>(C, kLanes<T>, kLanes<T>, gradients, values, gradients);
    transpose_back(C, rows, gradients, grad_input + row * C);
  }
}

}  // namespace

template <typename E>
void softmax_rows(const SoftmaxShape& shape, bool is_log, int64_t begin, int64_t end, const E* input,
                  computed_t<E>* scratch, E* output) {
  if (is_log) {
    forward<true>(shape, begin, end, input, scratch, output);
  } else {
    forward<false>(shape, begin, end, input, scratch, output);
  }
}

template <typename E>
void softmax_grad_rows(const SoftmaxShape& shape, bool is_log, int64_t begin, int64_t end, const E* grad_output,
                       const E* output, E* grad_input) {
  if (is_log) {
    backward<true>(shape, begin, end, grad_output, output, grad_input);
  } else {
    backward<false>(shape, begin, end, grad_output, output, grad_input);
  }
}

#define D2L_INSTANTIATE(E)                                                                               \
  template void softmax_rows(const SoftmaxShape&, bool, int64_t, int64_t, const E*, computed_t<E>*, E*); \
  template void softmax_grad_rows(const SoftmaxShape&, bool, int64_t, int64_t, const E*, const E*, E*);
D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)
#undef D2L_INSTANTIATE

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
