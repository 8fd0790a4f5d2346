// Cross-entropy of rows and its gradient, fused with softmax: the probabilities are never stored.
//
//   loss = a (lse - x_t) + s / C (W lse - sum_c w_c x_c),  a = (1 - s) w_t,  lse = log sum exp(x),  W = sum_c w_c
//   dx_c = dy ((a + s / C W) exp(x_c - lse) - a [c = t] - s / C w_c)
//
// Several rows are computed in the lanes of registers; short rows are transposed for that, long ones are taken lane by
// lane of one row. Bytes: the input twice (forward: once from memory), the gradient once; about 20 instructions an
// element.
#include "kernels/cpu/cross_entropy_kernel.h"

#include "kernels/cpu/rows.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

// Of up to kLanes rows. Lanes without a class have no weight.
template <typename T>
struct Targets {
  int64_t classes[kLanes<T>];
  T weights[kLanes<T>];
  int64_t row_out_of_range = -1;

  D2L_INLINE Targets(const CrossEntropyShape& shape, const int64_t* target, int64_t row, int64_t rows,
                     const T* weight) {
    for (int64_t r = 0; r < kLanes<T>; ++r) {
      int64_t t = r < rows ? target[row + r] : shape.ignore_index;
      const bool counts = t != shape.ignore_index && t >= 0 && t < shape.C;
      if (!counts && t != shape.ignore_index && row_out_of_range < 0) row_out_of_range = row + r;
      classes[r] = counts ? t : -1;
      weights[r] = !counts ? T(0) : weight != nullptr ? weight[t] : T(1);
    }
  }
};

template <typename T>
D2L_INLINE T weight_of(const T* weight, int64_t c) {
  return weight != nullptr ? weight[c] : T(1);
}

// Rows in lanes: element c of all of them is at `c * stride`, `lanes` of them are there.
template <typename E>
struct Lanes {
  const E* from;
  int64_t stride, lanes;

  D2L_INLINE element_vec_t<E> operator[](int64_t c) const { return read_lanes(from + c * stride, lanes); }
};

template <typename T>
struct Statistics {
  vec_t<T> max, log_sum, smooth;  // smooth: sum of w_c (x_c - max)
};

template <typename E, typename T = computed_t<E>>
D2L_INLINE Statistics<T> statistics_of(int64_t C, const Lanes<E>& x, const T* weight, bool is_smooth) {
  vec_t<T> max = x[0], sum = {}, smooth = {};
  for (int64_t c = 1; c < C; ++c) {
    const vec_t<T> value = x[c];
    max = larger<T>(value, max);
  }
  for (int64_t c = 0; c < C; ++c) {
    const vec_t<T> distance = x[c] - max;
    sum += exp<T>(distance);
    if (is_smooth) smooth += weight_of(weight, c) * distance;
  }
  return {max, log<T>(sum), smooth};
}

// The same of one long row, in lane 0.
template <typename E, typename T = computed_t<E>>
D2L_INLINE Statistics<T> statistics_of_row(int64_t C, const E* x, const T* weight, bool is_smooth) {
  const Tail<E> tail(x, C);
  const vec_t<T> max = max_of_row(x, tail);
  vec_t<T> sums = tail.only(exp<T>(tail.values - max)), smooths = {};
  for (int64_t c = 0; c < tail.begin; c += kLanes<T>) {
    const vec_t<T> distance = read(x + c) - max;
    sums += exp<T>(distance);
    if (is_smooth) smooths += weight != nullptr ? load(weight + c) * distance : distance;
  }
  T smooth = sum_across<T>(smooths)[0];
  for (int64_t c = tail.begin; is_smooth && c < C; ++c) smooth += weight_of(weight, c) * (read_one(x[c]) - max[0]);
  return {max, log<T>(sum_across<T>(sums)), broadcast<T>(smooth)};
}

// Of the classes of some rows, where those without a class have any value.
template <typename E, typename T>
D2L_INLINE void values_at(const Targets<T>& targets, int64_t rows, const E* x, int64_t class_stride, int64_t row_stride,
                          T* values) {
  for (int64_t r = 0; r < rows; ++r) {
    values[r] = read_one(x[std::max<int64_t>(targets.classes[r], 0) * class_stride + r * row_stride]);
  }
}

// Losses from statistics, with the targets' x; sums them and stores what is wanted.
template <typename E, typename T = computed_t<E>>
struct Finish {
  const CrossEntropyShape& shape;
  T total_weight;
  E* losses;
  T* statistics;
  CrossEntropySums& sums;

  D2L_INLINE void operator()(int64_t row, int64_t rows, const Targets<T>& targets, const T* at_target,
                             const Statistics<T>& found) const {
    const T smoothing = static_cast<T>(shape.label_smoothing), per_class = smoothing / static_cast<T>(shape.C);
    for (int64_t r = 0; r < rows; ++r) {
      T loss = 0;
      if (targets.classes[r] >= 0) {
        loss = (1 - smoothing) * targets.weights[r] * (found.log_sum[r] - (at_target[r] - found.max[r]));
        if (smoothing > 0) loss += per_class * (total_weight * found.log_sum[r] - found.smooth[r]);
        sums.loss += static_cast<double>(loss);
        sums.weight += static_cast<double>(targets.weights[r]);
      }
      if (losses != nullptr) losses[row + r] = rounded_one<E>(loss);
      statistics[row + r] = found.max[r];
      statistics[shape.rows() + row + r] = found.log_sum[r];
    }
    if (targets.row_out_of_range >= 0 && sums.row_out_of_range < 0) sums.row_out_of_range = targets.row_out_of_range;
  }
};

}  // namespace

template <typename E, typename T>
void cross_entropy_rows(const CrossEntropyShape& shape, int64_t begin, int64_t end, const E* input,
                        const int64_t* target, const T* weight, T total_weight, E* losses, T* statistics,
                        CrossEntropySums* sums) {
  const int64_t C = shape.C;
  const bool is_smooth = shape.label_smoothing > 0;
  const Finish<E> finish{shape, total_weight, losses, statistics, *sums};
  *sums = {0, 0, -1};
  T at_target[kLanes<T>];
  if (shape.pixels > 1) {
    for_blocks<kLanes<T>>(
        C, shape.pixels, begin, end, [&](int64_t row, int64_t rows, int64_t offset) D2L_INLINE_LAMBDA {
          const Targets<T> targets(shape, target, row, rows, weight);
          const E* const x = input + offset;
          values_at(targets, rows, x, shape.pixels, 1, at_target);
          finish(row, rows, targets, at_target, statistics_of<E>(C, {x, shape.pixels, rows}, weight, is_smooth));
        });
    return;
  }
  if (C > kShortRow) {
    for (int64_t row = begin; row < end; ++row) {
      const Targets<T> targets(shape, target, row, 1, weight);
      const E* const x = input + row * C;
      values_at(targets, 1, x, 1, C, at_target);
      finish(row, 1, targets, at_target, statistics_of_row(C, x, weight, is_smooth));
    }
    return;
  }
  T buffer[kShortRow * kLanes<T>];
  for (int64_t row = begin; row < end; row += kLanes<T>) {
    const int64_t rows = std::min<int64_t>(kLanes<T>, end - row);
    const Targets<T> targets(shape, target, row, rows, weight);
    const E* const x = input + row * C;
    values_at(targets, rows, x, 1, C, at_target);
    transpose_rows(C, rows, x, buffer);
    finish(row, rows, targets, at_target, statistics_of<T>(C, {buffer, kLanes<T>, kLanes<T>}, weight, is_smooth));
  }
}

namespace {

// What the gradients of some rows are made of: of_softmax * exp(x_c - max - log_sum) - at_target [c = t] - per_class
// w_c.
template <typename T>
struct Factors {
  T of_softmax[kLanes<T>], at_target[kLanes<T>], per_class[kLanes<T>], max[kLanes<T>], log_sum[kLanes<T>];

  template <typename E>
  D2L_INLINE Factors(const CrossEntropyShape& shape, const Targets<T>& targets, int64_t row, int64_t rows,
                     const E* grad_output, int64_t grad_stride, T scale, T total_weight, const T* statistics) {
    const T smoothing = static_cast<T>(shape.label_smoothing), each = smoothing / static_cast<T>(shape.C);
    for (int64_t r = 0; r < kLanes<T>; ++r) {
      const bool is_there = r < rows;
      const bool counts = is_there && targets.classes[r] >= 0;
      const T gradient = counts ? read_one(grad_output[(row + r) * grad_stride]) * scale : T(0);
      at_target[r] = gradient * (1 - smoothing) * targets.weights[r];
      per_class[r] = gradient * each;
      of_softmax[r] = at_target[r] + per_class[r] * total_weight;
      max[r] = is_there ? statistics[row + r] : T(0);
      log_sum[r] = is_there ? statistics[shape.rows() + row + r] : T(0);
    }
  }
};

// For rows in lanes. A row that is ignored gets zeros, whatever its values.
template <typename E, typename T = computed_t<E>>
D2L_INLINE void gradients_of(int64_t C, const Lanes<E>& x, const Factors<T>& factors, const Targets<T>& targets,
                             const T* weight, bool is_smooth, E* to) {
  const vec_t<T> max = load(factors.max), log_sum = load(factors.log_sum), of_softmax = load(factors.of_softmax);
  const vec_t<T> per_class = load(factors.per_class);
  T counts[kLanes<T>];
  for (int64_t r = 0; r < kLanes<T>; ++r) counts[r] = targets.classes[r] >= 0 ? T(1) : T(0);
  const auto ignored = load(counts) == 0;
  for (int64_t c = 0; c < C; ++c) {
    vec_t<T> result = of_softmax * exp<T>(x[c] - max - log_sum);
    if (is_smooth) result -= per_class * weight_of(weight, c);
    write_lanes(to + c * x.stride, ignored ? vec_t<T>{} : result, x.lanes);
  }
}

template <typename E, typename T = computed_t<E>>
D2L_INLINE void gradients_of_row(int64_t C, const E* x, const Factors<T>& factors, const T* weight, bool is_smooth,
                                 E* to) {
  const vec_t<T> max = broadcast<T>(factors.max[0]), log_sum = broadcast<T>(factors.log_sum[0]);
  const T of_softmax = factors.of_softmax[0], per_class = factors.per_class[0];
  const auto gradients = [&](int64_t c, auto&& get) D2L_INLINE_LAMBDA {
    vec_t<T> result = of_softmax * exp<T>(get(x + c) - max - log_sum);
    if (is_smooth) result -= weight != nullptr ? per_class * get(weight + c) : broadcast<T>(per_class);
    return result;
  };
  const int64_t whole = C / kLanes<T> * kLanes<T>, rest = C - whole;
  for (int64_t c = 0; c < whole; c += kLanes<T>) {
    write(to + c, gradients(c, [](const auto* from) D2L_INLINE_LAMBDA { return read(from); }));
  }
  if (rest == 0) return;
  const auto get = [&](const auto* from) D2L_INLINE_LAMBDA { return read_partial(from, rest); };
  write_partial(to + whole, gradients(whole, get), rest);
}

// From the gradients of some rows for their own classes, which are computed again where they have been rounded.
template <typename E, typename T>
D2L_INLINE void subtract_at_targets(const E* x, const Factors<T>& factors, const Targets<T>& targets, int64_t rows,
                                    int64_t class_stride, int64_t row_stride, bool is_smooth, E* to) {
  T values[kLanes<T>] = {};
  if constexpr (kIsRounded<E>) {
    values_at(targets, rows, x, class_stride, row_stride, values);
    const vec_t<T> distance = load(values) - load(factors.max) - load(factors.log_sum);
    vec_t<T> result = load(factors.of_softmax) * exp<T>(distance);
    if (is_smooth) result -= load(factors.per_class) * load(targets.weights);
    store(values, result);
  }
  for (int64_t r = 0; r < rows; ++r) {
    if (targets.classes[r] < 0) continue;
    E& value = to[targets.classes[r] * class_stride + r * row_stride];
    value = rounded_one<E>((kIsRounded<E> ? values[r] : read_one(value)) - factors.at_target[r]);
  }
}

}  // namespace

template <typename E, typename T>
void cross_entropy_grad_rows(const CrossEntropyShape& shape, int64_t begin, int64_t end, const E* grad_output,
                             int64_t grad_stride, T scale, const E* input, const int64_t* target, const T* weight,
                             T total_weight, const T* statistics, E* grad_input) {
  const int64_t C = shape.C, pixels = shape.pixels;
  const bool is_smooth = shape.label_smoothing > 0;
  const auto factors_of = [&](const Targets<T>& targets, int64_t row, int64_t rows) D2L_INLINE_LAMBDA {
    return Factors<T>(shape, targets, row, rows, grad_output, grad_stride, scale, total_weight, statistics);
  };
  if (pixels > 1) {
    for_blocks<kLanes<T>>(C, pixels, begin, end, [&](int64_t row, int64_t rows, int64_t offset) D2L_INLINE_LAMBDA {
      const Targets<T> targets(shape, target, row, rows, weight);
      const Factors<T> factors = factors_of(targets, row, rows);
      const E* const x = input + offset;
      E* const to = grad_input + offset;
      gradients_of<E>(C, {x, pixels, rows}, factors, targets, weight, is_smooth, to);
      subtract_at_targets(x, factors, targets, rows, pixels, 1, is_smooth, to);
    });
    return;
  }
  T buffer[kShortRow * kLanes<T>];
  const int64_t step = C > kShortRow ? 1 : kLanes<T>;
  for (int64_t row = begin; row < end; row += step) {
    const int64_t rows = std::min<int64_t>(step, end - row);
    const Targets<T> targets(shape, target, row, rows, weight);
    const Factors<T> factors = factors_of(targets, row, rows);
    const E* const x = input + row * C;
    E* const to = grad_input + row * C;
    if (step > 1) {
      transpose_rows(C, rows, x, buffer);
      gradients_of<T>(C, {buffer, kLanes<T>, kLanes<T>}, factors, targets, weight, is_smooth, buffer);
      subtract_at_targets<T>(buffer, factors, targets, rows, kLanes<T>, 1, is_smooth, buffer);
      transpose_back(C, rows, buffer, to);
    } else if (targets.classes[0] >= 0) {
      gradients_of_row(C, x, factors, weight, is_smooth, to);
      subtract_at_targets(x, factors, targets, rows, 1, C, is_smooth, to);
    } else {
      for (int64_t c = 0; c < C; ++c) to[c] = E{};
    }
  }
}

#define D2L_INSTANTIATE(E)                                                                                            \
  template void cross_entropy_rows(const CrossEntropyShape&, int64_t, int64_t, const E*, const int64_t*,              \
                                   const computed_t<E>*, computed_t<E>, E*, computed_t<E>*, CrossEntropySums*);       \
  template void cross_entropy_grad_rows(const CrossEntropyShape&, int64_t, int64_t, const E*, int64_t, computed_t<E>, \
                                        const E*, const int64_t*, const computed_t<E>*, computed_t<E>,                \
                                        const computed_t<E>*, E*);
D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)
#undef D2L_INSTANTIATE

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
