#include "kernels/cpu/batch_norm.h"

#include "kernels/cpu/batch_norm_partition.h"
#include "kernels/cpu/batch_norm_written.h"
#include "kernels/cpu/parallel.h"

namespace d2l::cpu {

namespace {

constexpr int64_t kElementsPerTask = 32768;  // fewer are not worth a thread

bool is_empty(const BatchNormShape& shape) { return shape.values() * shape.C == 0; }

template <typename... Maps>
bool are_dense(const Maps&... maps) {
  return ((maps.pixel == 0) && ...);
}

// ---- pieces: one part of a group ---------------------------------------------------------------------------------

// Roots and quotients are slow: they are taken once for each channel.
void set_inverse_deviations(Channels channels, const double* var, double eps, double* inverse) {
  for (int64_t c = channels.begin; c < channels.end; ++c) {
    inverse[c] = 1 / std::sqrt(var[c] + eps);
  }
}

// The factors of NormCoefficients: center, scale, shift.
template <typename T, int kCount>
void set_coefficients(Factors<T, kCount>& factors, Channels channels, const Normalization<T>& by, const double* mean,
                      const double* inverse) {
  T *centers = factors.of_channels(0), *scales = factors.of_channels(1), *shifts = factors.of_channels(2);
  for (int64_t c = channels.begin; c < channels.end; ++c) {
    const Center<T> center(mean[c]);
    const double scale = inverse[c] * (by.weight ? static_cast<double>(by.weight[c]) : 1);
    centers[c] = static_cast<T>(center.near);
    scales[c] = static_cast<T>(scale);
    shifts[c] = static_cast<T>((by.bias ? static_cast<double>(by.bias[c]) : 0) - center.rest * scale);
  }
  for (const int which : {0, 1, 2}) factors.spread(which, channels);
}

// Those of all channels, and the inverse deviations, by given statistics.
template <typename T, int kCount>
void set_coefficients(Factors<T, kCount>& factors, const BatchNormShape& shape, const Normalization<T>& by,
                      double* inverse) {
  const Channels all{0, shape.C};
  set_inverse_deviations(all, by.var, by.eps, inverse);
  set_coefficients(factors, all, by, by.mean, inverse);
}

template <typename T, int kCount>
NormCoefficients<T> coefficients(const Factors<T, kCount>& factors, int64_t group) {
  return {factors.get(0, group), factors.get(1, group), factors.get(2, group)};
}

template <typename E>
void normalize(const Partition& cut, const Factors<computed_t<E>, 3>& factors, Activation activation, int64_t group,
               int64_t part, NormMaps<const E> input, NormMaps<const E> residual, NormMaps<E> output) {
  const NormCoefficients<computed_t<E>> by = coefficients(factors, group);
  const NormRows<const E> from = cut.rows(input, group, part), more = cut.rows(residual, group, part);
  const NormRows<E> to = cut.rows(output, group, part);
  if (cut.by_columns) {
    D2L_CALL_BEST(column_normalize, cut.extent(part), by, activation, from, more, to);
  } else {
    D2L_CALL_BEST(plane_normalize, cut.extent(part), by, activation, from, more, to);
  }
}

// The mean and the squared deviations of each channel of a part.
template <typename E>
void sum_moments(const Partition& cut, int64_t group, int64_t part, NormMaps<const E> input, PartialSums& sums) {
  const NormExtent work = cut.extent(part);
  const NormRows<const E> rows = cut.rows(input, group, part);
  double *mean = sums.first(part, group), *squares = sums.second(part, group);
  const double count = static_cast<double>(work.rows);
  if (!cut.by_columns) {
    computed_t<E> center;
    D2L_CALL_BEST(plane_center, work, rows, &center);
    D2L_CALL_BEST(plane_moments, work, rows, &center, mean, squares);
    const double shift = *mean / (count * static_cast<double>(work.width));
    *squares -= *mean * shift;
    *mean = static_cast<double>(center) + shift;
    return;
  }
  ChannelArray<computed_t<E>> centers(work.width);
  ChannelArray<double> column_sums(work.width), column_squares(work.width);
  D2L_CALL_BEST(column_centers, work, rows, centers.data());
  D2L_CALL_BEST(column_moments, work, rows, centers.data(), column_sums.data(), column_squares.data());
  const double share = 1 / count;
  for (int64_t j = 0; j < work.width; ++j) {
    const double shift = column_sums[j] * share;
    column_squares[j] -= column_sums[j] * shift;
    column_sums[j] = static_cast<double>(centers[j]) + shift;  // from here on the mean
  }
  const double of_column = 1 / static_cast<double>(work.width / cut.group_channels);
  for_each_column(work.width, cut.run, cut.group_channels,
                  [&](int64_t j, int64_t c) { mean[c] += column_sums[j] * of_column; });
  for_each_column(work.width, cut.run, cut.group_channels, [&](int64_t j, int64_t c) {
    const double distance = column_sums[j] - mean[c];
    squares[c] += column_squares[j] + count * distance * distance;
  });
}

void join_moments(const Partition& cut, double total, Channels channels, PartialSums& sums, double* mean, double* var) {
  const double share = 1 / total;
  for (int64_t part = 0; part < cut.parts(); ++part) {
    const double weight = cut.values_of(part) * share;
    for (int64_t c = channels.begin; c < channels.end; ++c) mean[c] += weight * sums.first(part)[c];
  }
  for (int64_t part = 0; part < cut.parts(); ++part) {
    const double values = cut.values_of(part);
    for (int64_t c = channels.begin; c < channels.end; ++c) {
      const double distance = sums.first(part)[c] - mean[c];
      var[c] += (sums.second(part)[c] + values * distance * distance) * share;
    }
  }
  for (int64_t c = channels.begin; c < channels.end; ++c) var[c] = std::max(0.0, var[c]);
}

// Whether the gradient that went through the activation is kept, or made anew (ReLU).
template <typename E>
bool leaves_through(const Normalization<computed_t<E>>& by, const NormGradients<E>& gradients) {
  return by.activation != Activation::none && gradients.through.data != nullptr;
}

template <typename E>
bool is_masked(const Normalization<computed_t<E>>& by, const NormGradients<E>& gradients) {
  return by.activation != Activation::none && gradients.through.data == nullptr;
}

template <typename E>
NormMaps<const E> constant(NormMaps<E> maps) {
  return {maps.data, maps.pixel};
}

// sum(grad_output) and sum(grad_output * (input - center)) of each channel of a part.
template <typename E, int kCount>
void sum_gradients(const Partition& cut, const Factors<computed_t<E>, kCount>& factors,
                   const Normalization<computed_t<E>>& by, const NormGradients<E>& gradients, int64_t group,
                   int64_t part, PartialSums& sums) {
  const NormExtent work = cut.extent(part);
  const NormRows<const E> input = cut.rows(gradients.input, group, part);
  const NormRows<const E> grad_output = cut.rows(gradients.grad_output, group, part);
  const NormActivationGrad<E> before{by.activation, cut.rows(gradients.output, group, part),
                                     cut.rows(gradients.through, group, part)};
  const NormCoefficients<computed_t<E>> forward = coefficients(factors, group);
  double *sum = sums.first(part, group), *product = sums.second(part, group);
  const bool folds = cut.by_columns && work.width != cut.group_channels;
  ChannelArray<double> of_columns(folds ? 2 * work.width : 0);
  double* const column_sums = folds ? of_columns.data() : sum;
  double* const products = folds ? column_sums + work.width : product;
  if (cut.by_columns) {
    D2L_CALL_BEST(column_grad_sums, work, grad_output, input, forward, before, column_sums, products);
  } else {
    D2L_CALL_BEST(plane_grad_sums, work, grad_output, input, forward, before, sum, product);
  }
  if (!folds) return;
  for_each_column(work.width, cut.run, cut.group_channels, [&](int64_t j, int64_t c) {
    sum[c] += column_sums[j];
    product[c] += products[j];
  });
}

// grad_bias = sum(dy), grad_weight = sum(dy * (x - mean)) / deviation.
template <typename T>
void join_gradients(const Partition& cut, Channels channels, PartialSums& sums, const Normalization<T>& by,
                    const double* inverse, double* grad_weight, double* grad_bias) {
  for (int64_t part = 0; part < cut.parts(); ++part) {
    for (int64_t c = channels.begin; c < channels.end; ++c) {
      grad_bias[c] += sums.first(part)[c];
      grad_weight[c] += sums.second(part)[c];
    }
  }
  for (int64_t c = channels.begin; c < channels.end; ++c) {
    grad_weight[c] = (grad_weight[c] - Center<T>(by.mean[c]).rest * grad_bias[c]) * inverse[c];
  }
}

// dx = weight / deviation * (dy - mean(dy) - (x - mean) / deviation * mean(dy * (x - mean) / deviation))
template <typename T>
void set_slopes(Factors<T, 5>& factors, Channels channels, const BatchNormShape& shape, const Normalization<T>& by,
                const double* inverse, const double* grad_weight, const double* grad_bias) {
  const double share = 1 / static_cast<double>(shape.values());
  T *slopes = factors.of_channels(3), *offsets = factors.of_channels(4);
  for (int64_t c = channels.begin; c < channels.end; ++c) {
    const double of_channel = inverse[c];
    const double scale = of_channel * share * (by.weight ? static_cast<double>(by.weight[c]) : 1);
    const double slope = scale * of_channel * grad_weight[c];
    slopes[c] = static_cast<T>(slope);
    offsets[c] = static_cast<T>(scale * grad_bias[c] - Center<T>(by.mean[c]).rest * slope);
  }
  for (const int which : {3, 4}) factors.spread(which, channels);
}

template <typename E>
void differentiate(const Partition& cut, const Factors<computed_t<E>, 5>& factors, bool masked, bool accumulate,
                   int64_t group, int64_t part, NormMaps<const E> grad_output, NormMaps<const E> input,
                   NormMaps<E> grad_input) {
  const NormGradCoefficients<computed_t<E>> by{coefficients(factors, group), factors.get(3, group),
                                               factors.get(4, group), masked};
  const NormRows<const E> gradients = cut.rows(grad_output, group, part), inputs = cut.rows(input, group, part);
  const NormRows<E> to = cut.rows(grad_input, group, part);
  if (cut.by_columns) {
    D2L_CALL_BEST(column_input_grad, cut.extent(part), by, accumulate, gradients, inputs, to);
  } else {
    D2L_CALL_BEST(plane_input_grad, cut.extent(part), by, accumulate, gradients, inputs, to);
  }
}

// ---- all pieces ----------------------------------------------------------------------------------------------------

int64_t parts_per_task(const Partition& cut, const BatchNormShape& shape) {
  return std::max<int64_t>(1, kElementsPerTask * cut.groups * cut.parts() / (shape.values() * shape.C));
}

// Calls function(group, part) for all, in parallel.
template <typename Function>
void for_each_part(const Partition& cut, const BatchNormShape& shape, Function&& function) {
  parallel_for(0, cut.groups * cut.parts(), parts_per_task(cut, shape), [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) function(unit / cut.parts(), unit % cut.parts());
  });
}

// The same backwards: what was read last is read first, from a cache.
template <typename Function>
void for_each_part_backwards(const Partition& cut, const BatchNormShape& shape, Function&& function) {
  parallel_for(0, cut.groups * cut.parts(), parts_per_task(cut, shape), [&](int64_t begin, int64_t end) {
    for (int64_t unit = end; unit-- > begin;) function(unit / cut.parts(), unit % cut.parts());
  });
}

// sum(group, part) for all parts of a group, then finish(its channels), then apply(group, part). One group at a time
// where there are enough for all threads, or no parts to share: what was summed is then still in a cache.
template <typename Sum, typename Finish, typename Apply>
void sum_and_apply(const Partition& cut, const BatchNormShape& shape, Sum&& sum, Finish&& finish, Apply&& apply) {
  if (cut.parts() > 1 && cut.groups < 4 * max_threads()) {
    for_each_part(cut, shape, sum);
    finish(Channels{0, cut.channels});
    for_each_part_backwards(cut, shape, apply);
    return;
  }
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask / (shape.values() * cut.group_channels));
  parallel_for(0, cut.groups, grain, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      for (int64_t part = 0; part < cut.parts(); ++part) sum(group, part);
      finish(Channels{group * cut.group_channels, (group + 1) * cut.group_channels});
      for (int64_t part = cut.parts(); part-- > 0;) apply(group, part);
    }
  });
}

}  // namespace

template <typename E>
void batch_norm_moments(const BatchNormShape& shape, Layout layout, NormMaps<const E> input, double* mean,
                        double* var) {
  std::fill_n(mean, shape.C, 0.0);
  std::fill_n(var, shape.C, 0.0);
  if (is_empty(shape)) return;
  const Partition cut(shape, layout, are_dense(input));
  PartialSums sums(cut);
  for_each_part(cut, shape, [&](int64_t group, int64_t part) { sum_moments(cut, group, part, input, sums); });
  join_moments(cut, static_cast<double>(shape.values()), {0, shape.C}, sums, mean, var);
}

template <typename T>
WrittenMoments<T>::WrittenMoments(const BatchNormShape& shape, Layout layout, const T* map)
    : shape_(shape), map_{map}, cut_(shape, layout, true), sums_(cut_), is_summed_(static_cast<size_t>(cut_.parts())) {}

template <typename T>
void WrittenMoments<T>::report(void* moments, int64_t begin, int64_t before, int64_t end) {
  WrittenMoments& self = *static_cast<WrittenMoments*>(moments);
  const Partition& cut = self.cut_;
  // The part that `before` lies in or begins, and those behind it.
  int64_t part = std::min(cut.whole_parts, before / std::max<int64_t>(1, cut.first_pixel(1)));
  for (; part < cut.parts() && cut.first_pixel(part + 1) <= end; ++part) {
    if (cut.first_pixel(part) >= begin && cut.first_pixel(part + 1) > before) self.sum(part);
  }
}

template <typename T>
void WrittenMoments<T>::sum(int64_t part) {
  for (int64_t group = 0; group < cut_.groups; ++group) sum_moments(cut_, group, part, map_, sums_);
  is_summed_[static_cast<size_t>(part)] = 1;
}

template <typename T>
void WrittenMoments<T>::join(double* mean, double* var) {
  std::fill_n(mean, shape_.C, 0.0);
  std::fill_n(var, shape_.C, 0.0);
  if (is_empty(shape_)) return;
  for_each_part(cut_, shape_, [&](int64_t group, int64_t part) {
    if (is_summed_[static_cast<size_t>(part)] == 0) sum_moments(cut_, group, part, map_, sums_);
  });
  join_moments(cut_, static_cast<double>(shape_.values()), {0, shape_.C}, sums_, mean, var);
}

template class WrittenMoments<float>;
template class WrittenMoments<double>;

template <typename E>
void batch_norm_apply(const BatchNormShape& shape, Layout layout, const Normalization<computed_t<E>>& by,
                      NormMaps<const E> input, NormMaps<const E> residual, NormMaps<E> output) {
  if (is_empty(shape)) return;
  const Partition cut(shape, layout, are_dense(input, residual, output));
  Factors<computed_t<E>, 3> factors(cut);
  ChannelArray<double> inverse(shape.C);
  set_coefficients(factors, shape, by, inverse.data());
  for_each_part_backwards(cut, shape, [&](int64_t group, int64_t part) {
    normalize(cut, factors, by.activation, group, part, input, residual, output);
  });
}

template <typename E>
void batch_norm_train(const BatchNormShape& shape, Layout layout, const Normalization<computed_t<E>>& by,
                      NormMaps<const E> input, NormMaps<const E> residual, NormMaps<E> output, double* mean,
                      double* var) {
  std::fill_n(mean, shape.C, 0.0);
  std::fill_n(var, shape.C, 0.0);
  if (is_empty(shape)) return;
  const Partition cut(shape, layout, are_dense(input, residual, output));
  PartialSums sums(cut);
  Factors<computed_t<E>, 3> factors(cut);
  ChannelArray<double> inverse(shape.C);
  sum_and_apply(
      cut, shape, [&](int64_t group, int64_t part) { sum_moments(cut, group, part, input, sums); },
      [&](Channels channels) {
        join_moments(cut, static_cast<double>(shape.values()), channels, sums, mean, var);
        set_inverse_deviations(channels, var, by.eps, inverse.data());
        set_coefficients(factors, channels, by, mean, inverse.data());
      },
      [&](int64_t group, int64_t part) {
        normalize(cut, factors, by.activation, group, part, input, residual, output);
      });
}

template <typename E>
void batch_norm_grad_sums(const BatchNormShape& shape, Layout layout, const Normalization<computed_t<E>>& by,
                          const NormGradients<E>& gradients, double* grad_weight, double* grad_bias) {
  std::fill_n(grad_weight, shape.C, 0.0);
  std::fill_n(grad_bias, shape.C, 0.0);
  if (is_empty(shape)) return;
  const Partition cut(shape, layout,
                      are_dense(gradients.grad_output, gradients.input, gradients.output, gradients.through));
  PartialSums sums(cut);
  Factors<computed_t<E>, 3> factors(cut);
  ChannelArray<double> inverse(shape.C);
  set_coefficients(factors, shape, by, inverse.data());
  for_each_part(cut, shape,
                [&](int64_t group, int64_t part) { sum_gradients(cut, factors, by, gradients, group, part, sums); });
  join_gradients(cut, {0, shape.C}, sums, by, inverse.data(), grad_weight, grad_bias);
}

template <typename E>
void batch_norm_input_grad(const BatchNormShape& shape, Layout layout, const Normalization<computed_t<E>>& by,
                           NormMaps<const E> grad_output, NormMaps<const E> input, const double* grad_weight,
                           const double* grad_bias, bool accumulate, NormMaps<E> grad_input) {
  if (is_empty(shape)) return;
  const Partition cut(shape, layout, are_dense(grad_output, input, grad_input));
  Factors<computed_t<E>, 5> factors(cut);
  ChannelArray<double> inverse(shape.C);
  set_coefficients(factors, shape, by, inverse.data());
  set_slopes(factors, {0, shape.C}, shape, by, inverse.data(), grad_weight, grad_bias);
  const bool masked = by.activation != Activation::none;
  for_each_part_backwards(cut, shape, [&](int64_t group, int64_t part) {
    differentiate(cut, factors, masked, accumulate, group, part, grad_output, input, grad_input);
  });
}

template <typename E>
void batch_norm_train_grad(const BatchNormShape& shape, Layout layout, const Normalization<computed_t<E>>& by,
                           const NormGradients<E>& gradients, NormMaps<E> grad_input, double* grad_weight,
                           double* grad_bias) {
  std::fill_n(grad_weight, shape.C, 0.0);
  std::fill_n(grad_bias, shape.C, 0.0);
  if (is_empty(shape)) return;
  const Partition cut(
      shape, layout,
      are_dense(gradients.grad_output, gradients.input, gradients.output, gradients.through, grad_input));
  PartialSums sums(cut);
  Factors<computed_t<E>, 5> factors(cut);
  ChannelArray<double> inverse(shape.C);
  set_coefficients(factors, shape, by, inverse.data());
  const auto grad_output = leaves_through(by, gradients) ? constant(gradients.through) : gradients.grad_output;
  sum_and_apply(
      cut, shape, [&](int64_t group, int64_t part) { sum_gradients(cut, factors, by, gradients, group, part, sums); },
      [&](Channels channels) {
        join_gradients(cut, channels, sums, by, inverse.data(), grad_weight, grad_bias);
        set_slopes(factors, channels, shape, by, inverse.data(), grad_weight, grad_bias);
      },
      [&](int64_t group, int64_t part) {
        differentiate(cut, factors, is_masked(by, gradients), false, group, part, grad_output, gradients.input,
                      grad_input);
      });
}

#define D2L_INSTANTIATE(E)                                                                                      \
  template void batch_norm_moments(const BatchNormShape&, Layout, NormMaps<const E>, double*, double*);         \
  template void batch_norm_apply(const BatchNormShape&, Layout, const Normalization<computed_t<E>>&,            \
                                 NormMaps<const E>, NormMaps<const E>, NormMaps<E>);                            \
  template void batch_norm_train(const BatchNormShape&, Layout, const Normalization<computed_t<E>>&,            \
                                 NormMaps<const E>, NormMaps<const E>, NormMaps<E>, double*, double*);          \
  template void batch_norm_grad_sums(const BatchNormShape&, Layout, const Normalization<computed_t<E>>&,        \
                                     const NormGradients<E>&, double*, double*);                                \
  template void batch_norm_input_grad(const BatchNormShape&, Layout, const Normalization<computed_t<E>>&,       \
                                      NormMaps<const E>, NormMaps<const E>, const double*, const double*, bool, \
                                      NormMaps<E>);                                                             \
  template void batch_norm_train_grad(const BatchNormShape&, Layout, const Normalization<computed_t<E>>&,       \
                                      const NormGradients<E>&, NormMaps<E>, double*, double*)

D2L_INSTANTIATE(float);
D2L_INSTANTIATE(double);
D2L_INSTANTIATE(BFloat16);

#undef D2L_INSTANTIATE

}  // namespace d2l::cpu
