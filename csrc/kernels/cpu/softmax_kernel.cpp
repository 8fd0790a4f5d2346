// Softmax and its logarithm over rows, and their gradients. Each row is read two or three times, from the first cache;
// about 20 instructions an element, on all lanes. Exponentials wait for their sum in the output, or are computed again
// where that would round them. Not a number or +infinity anywhere in a row make the row NaN, as a
// row of -infinity does.
#include "kernels/cpu/softmax_kernel.h"

#include "kernels/cpu/rows.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

// A register of rows: element c of all of them is at `c * stride`. Only `lanes` of them are there.
template <bool kIsLog, typename E>
D2L_INLINE void softmax_of(int64_t C, int64_t stride, int64_t lanes, const E* input, E* output) {
  using T = computed_t<E>;
  const auto get = [&](const E* from, int64_t c) D2L_INLINE_LAMBDA {
    return lanes == kLanes<T> ? read(from + c * stride) : read_partial(from + c * stride, lanes);
  };
  const auto put = [&](int64_t c, vec_t<T> value) D2L_INLINE_LAMBDA {
    if (lanes == kLanes<T>) {
      write(output + c * stride, value);
    } else {
      write_partial(output + c * stride, value, lanes);
    }
  };
  vec_t<T> max = get(input, 0), sum = {};
  for (int64_t c = 1; c < C; ++c) {
    const vec_t<T> x = get(input, c);
    max = larger<T>(x, max);
  }
  for (int64_t c = 0; c < C; ++c) {
    const vec_t<T> e = exp<T>(get(input, c) - max);
    sum += e;
    if constexpr (!kIsLog && !kIsRounded<E>) put(c, e);
  }
  if constexpr (kIsLog) {
    const vec_t<T> log_sum = log<T>(sum);
    for (int64_t c = 0; c < C; ++c) put(c, get(input, c) - max - log_sum);
  } else {
    const vec_t<T> scale = 1 / sum;
    for (int64_t c = 0; c < C; ++c) put(c, (kIsRounded<E> ? exp<T>(get(input, c) - max) : get(output, c)) * scale);
  }
}

template <bool kIsLog, typename E>
D2L_INLINE void softmax_grad_of(int64_t C, int64_t stride, int64_t lanes, const E* grad_output, const E* output,
                                E* grad_input) {
  using T = computed_t<E>;
  const auto get = [&](const E* from, int64_t c) D2L_INLINE_LAMBDA {
    return lanes == kLanes<T> ? read(from + c * stride) : read_partial(from + c * stride, lanes);
  };
  vec_t<T> sum = {};
  for (int64_t c = 0; c < C; ++c) {
    const vec_t<T> gradient = get(grad_output, c);
    sum += kIsLog ? gradient : gradient * get(output, c);
  }
  for (int64_t c = 0; c < C; ++c) {
    const vec_t<T> gradient = get(grad_output, c), y = get(output, c);
    const vec_t<T> result = kIsLog ? gradient - exp<T>(y) * sum : y * (gradient - sum);
    if (lanes == kLanes<T>) {
      write(grad_input + c * stride, result);
    } else {
      write_partial(grad_input + c * stride, result, lanes);
    }
  }
}

// One row that is contiguous and long.
template <bool kIsLog, typename E>
D2L_INLINE void softmax_of_row(int64_t C, const E* input, E* output) {
  using T = computed_t<E>;
  constexpr T kNone = -vec_math::Format<T>::kInfinity;
  const int64_t whole = C / kLanes<T> * kLanes<T>, rest = C - whole;
  const vec_t<T> tail = read_padded(input + whole, rest, kNone);
  vec_t<T> maxima = tail, sums = {};
  for (int64_t c = 0; c < whole; c += kLanes<T>) {
    const vec_t<T> x = read(input + c);
    maxima = larger<T>(x, maxima);
  }
  const vec_t<T> max = max_across<T>(maxima);
  const vec_t<T> tail_exp = exp<T>(tail - max);
  for (int64_t c = 0; c < whole; c += kLanes<T>) {
    const vec_t<T> e = exp<T>(read(input + c) - max);
    sums += e;
    if constexpr (!kIsLog && !kIsRounded<E>) write(output + c, e);
  }
  const vec_t<T> sum = sum_across<T>(sums + tail_exp);
  if constexpr (kIsLog) {
    const vec_t<T> log_sum = log<T>(sum);
    for (int64_t c = 0; c < whole; c += kLanes<T>) write(output + c, read(input + c) - max - log_sum);
    write_partial(output + whole, tail - max - log_sum, rest);
  } else {
    const vec_t<T> scale = 1 / sum;
    for (int64_t c = 0; c < whole; c += kLanes<T>) {
      write(output + c, (kIsRounded<E> ? exp<T>(read(input + c) - max) : read(output + c)) * scale);
    }
    write_partial(output + whole, tail_exp * scale, rest);
  }
}

template <bool kIsLog, typename E>
D2L_INLINE void softmax_grad_of_row(int64_t C, const E* grad_output, const E* output, E* grad_input) {
  using T = computed_t<E>;
  const int64_t whole = C / kLanes<T> * kLanes<T>, rest = C - whole;
  const vec_t<T> tail_gradient = read_partial(grad_output + whole, rest), tail = read_partial(output + whole, rest);
  vec_t<T> sums = kIsLog ? tail_gradient : tail_gradient * tail;
  for (int64_t c = 0; c < whole; c += kLanes<T>) {
    sums += kIsLog ? read(grad_output + c) : read(grad_output + c) * read(output + c);
  }
  const vec_t<T> sum = sum_across<T>(sums);
  const auto result = [&](vec_t<T> gradient, vec_t<T> y)
                          D2L_INLINE_LAMBDA { return kIsLog ? gradient - exp<T>(y) * sum : y * (gradient - sum); };
  for (int64_t c = 0; c < whole; c += kLanes<T>) {
    write(grad_input + c, result(read(grad_output + c), read(output + c)));
  }
  write_partial(grad_input + whole, result(tail_gradient, tail), rest);
}

template <bool kIsLog, typename E>
D2L_INLINE void forward(const SoftmaxShape& shape, int64_t begin, int64_t end, const E* input, E* output) {
  using T = computed_t<E>;
  const int64_t C = shape.C;
  if (shape.inner > 1) {
    for_blocks<T>(C, shape.inner, begin, end, [&](int64_t, int64_t rows, int64_t offset) D2L_INLINE_LAMBDA {
      softmax_of<kIsLog>(C, shape.inner, rows, input + offset, output + offset);
    });
    return;
  }
  if (C > kShortRow) {
    for (int64_t row = begin; row < end; ++row) softmax_of_row<kIsLog>(C, input + row * C, output + row * C);
    return;
  }
  T buffer[kShortRow * kLanes<T>];
  for (int64_t row = begin; row < end; row += kLanes<T>) {
    const int64_t rows = std::min<int64_t>(kLanes<T>, end - row);
    transpose_rows(C, rows, input + row * C, buffer);
    softmax_of<kIsLog, T>(C, kLanes<T>, kLanes<T>, buffer, buffer);
    transpose_back(C, rows, buffer, output + row * C);
  }
}

template <bool kIsLog, typename E>
D2L_INLINE void backward(const SoftmaxShape& shape, int64_t begin, int64_t end, const E* grad_output, const E* output,
                         E* grad_input) {
  using T = computed_t<E>;
  const int64_t C = shape.C;
  if (shape.inner > 1) {
    for_blocks<T>(C, shape.inner, begin, end, [&](int64_t, int64_t rows, int64_t offset) D2L_INLINE_LAMBDA {
      softmax_grad_of<kIsLog>(C, shape.inner, rows, grad_output + offset, output + offset, grad_input + offset);
    });
    return;
  }
  if (C > kShortRow) {
    for (int64_t row = begin; row < end; ++row) {
      softmax_grad_of_row<kIsLog>(C, grad_output + row * C, output + row * C, grad_input + row * C);
    }
    return;
  }
  T gradients[kShortRow * kLanes<T>], values[kShortRow * kLanes<T>];
  for (int64_t row = begin; row < end; row += kLanes<T>) {
    const int64_t rows = std::min<int64_t>(kLanes<T>, end - row);
    transpose_rows(C, rows, grad_output + row * C, gradients);
    transpose_rows(C, rows, output + row * C, values);
    softmax_grad_of<kIsLog, T>(C, kLanes<T>, kLanes<T>, gradients, values, gradients);
    transpose_back(C, rows, gradients, grad_input + row * C);
  }
}

}  // namespace

template <typename E>
void softmax_rows(const SoftmaxShape& shape, bool is_log, int64_t begin, int64_t end, const E* input, E* output) {
  if (is_log) {
    forward<true>(shape, begin, end, input, output);
  } else {
    forward<false>(shape, begin, end, input, output);
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

#define D2L_INSTANTIATE(E)                                                               \
  template void softmax_rows(const SoftmaxShape&, bool, int64_t, int64_t, const E*, E*); \
  template void softmax_grad_rows(const SoftmaxShape&, bool, int64_t, int64_t, const E*, const E*, E*);
D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)
#undef D2L_INSTANTIATE

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
