#include "kernels/cpu/batch_norm.h"

#include "kernels/cpu/batch_norm_partition.h"
#include "kernels/cpu/parallel.h"

namespace d2l::cpu {

namespace {

constexpr int64_t kElementsPerTask = 32768;  // fewer are not worth a thread
constexpr int64_t kElementsPerStep = 8192;   // taken through the activation before they are summed

bool is_empty(const BatchNormShape& shape) { return shape.values() * shape.C == 0; }

template <typename... Maps>
bool are_dense(const Maps&... maps) {
  return ((maps.pixel == 0) && ...);
}

// ---- pieces: one part of a group ---------------------------------------------------------------------------------

// The factors of NormCoefficients: center, scale, shift.
template <typename T, int kCount>
void set_coefficients(Factors<T, kCount>& factors, int64_t c, const Normalization<T>& by, const double* mean,
                      const double* var) {
  const Center<T> center(mean[c]);
  const double scale = inverse_deviation(var[c], by.eps) * (by.weight ? static_cast<double>(by.weight[c]) : 1);
  const double bias = by.bias ? static_cast<double>(by.bias[c]) : 0;
  factors.set(c, 0, {center.near, scale, bias - center.rest * scale});
}

template <typename T, int kCount>
NormCoefficients<T> coefficients(const Factors<T, kCount>& factors, int64_t group) {
  return {factors.get(0, group), factors.get(1, group), factors.get(2, group)};
}

template <typename T>
void normalize(const Partition& cut, const Factors<T, 3>& factors, Activation activation, int64_t group, int64_t part,
               NormMaps<const T> input, NormMaps<const T> residual, NormMaps<T> output) {
  const NormCoefficients<T> by = coefficients(factors, group);
  const NormRows<const T> from = cut.rows(input, group, part), more = cut.rows(residual, group, part);
  const NormRows<T> to = cut.rows(output, group, part);
  if (cut.by_columns) {
    D2L_CALL_BEST(column_normalize, cut.extent(part), by, activation, from, more, to);
  } else {
    D2L_CALL_BEST(plane_normalize, cut.extent(part), by, activation, from, more, to);
  }
}

// The mean and the squared deviations of each channel of a part.
template <typename T>
void sum_moments(const Partition& cut, int64_t group, int64_t part, NormMaps<const T> input, PartialSums& sums) {
  const NormExtent work = cut.extent(part);
  const NormRows<const T> rows = cut.rows(input, group, part);
  double *mean = sums.first(part) + group, *squares = sums.second(part) + group;
  const double count = static_cast<double>(work.rows);
  if (!cut.by_columns) {
    T center;
    D2L_CALL_BEST(plane_center, work, rows, &center);
    D2L_CALL_BEST(plane_moments, work, rows, &center, mean, squares);
    const double shift = *mean / (count * static_cast<double>(work.width));
    *squares -= *mean * shift;
    *mean = static_cast<double>(center) + shift;
    return;
  }
  const auto width = static_cast<size_t>(work.width);
  std::vector<T> centers(width);
  std::vector<double> column_sums(width), column_squares(width);
  D2L_CALL_BEST(column_centers, work, rows, centers.data());
  D2L_CALL_BEST(column_moments, work, rows, centers.data(), column_sums.data(), column_squares.data());
  for (size_t j = 0; j < width; ++j) {
    const double shift = column_sums[j] / count;
    column_squares[j] -= column_sums[j] * shift;
    column_sums[j] = static_cast<double>(centers[j]) + shift;  // from here on the mean
  }
  const double columns = static_cast<double>(work.width / cut.channels);
  for_each_column(work.width, cut.run, cut.channels,
                  [&](int64_t j, int64_t c) { mean[c] += column_sums[static_cast<size_t>(j)] / columns; });
  for_each_column(work.width, cut.run, cut.channels, [&](int64_t j, int64_t c) {
    const double distance = column_sums[static_cast<size_t>(j)] - mean[c];
    squares[c] += column_squares[static_cast<size_t>(j)] + count * distance * distance;
  });
}

void join_moments(const Partition& cut, double total, int64_t c, PartialSums& sums, double* mean, double* var) {
  double mean_of_all = 0, squares = 0;
  for (int64_t part = 0; part < cut.parts(); ++part) {
    mean_of_all += cut.values_of(part) / total * sums.first(part)[c];
  }
  for (int64_t part = 0; part < cut.parts(); ++part) {
    const double distance = sums.first(part)[c] - mean_of_all;
    squares += sums.second(part)[c] + cut.values_of(part) * distance * distance;
  }
  mean[c] = mean_of_all;
  var[c] = std::max(0.0, squares / total);
}

// Whether the gradient goes through the activation before the sums are made.
template <typename T>
bool goes_by_output(const Normalization<T>& by, const NormGradients<T>& gradients) {
  return by.activation != Activation::none && gradients.output.data != nullptr;
}

template <typename T>
bool is_masked(const Normalization<T>& by, const NormGradients<T>& gradients) {
  return by.activation != Activation::none && gradients.output.data == nullptr;
}

template <typename T>
NormMaps<const T> constant(NormMaps<T> maps) {
  return {maps.data, maps.pixel};
}

template <typename T>
NormRows<T> from_row(NormRows<T> rows, int64_t row) {
  return {rows.data + row * rows.pitch, rows.pitch};
}

// sum(grad_output) and sum(grad_output * (input - center)) of each channel of a part.
template <typename T, int kCount>
void sum_gradients(const Partition& cut, const Factors<T, kCount>& factors, const Normalization<T>& by,
                   const NormGradients<T>& gradients, int64_t group, int64_t part, PartialSums& sums) {
  const NormExtent work = cut.extent(part);
  const bool by_output = goes_by_output(by, gradients), masked = is_masked(by, gradients);
  const NormRows<const T> input = cut.rows(gradients.input, group, part);
  const NormRows<const T> given = cut.rows(gradients.grad_output, group, part);
  const NormRows<const T> grad_output = by_output ? cut.rows(constant(gradients.through), group, part) : given;
  const NormCoefficients<T> coefficients_of_group = coefficients(factors, group);
  double *sum = sums.first(part) + group, *product = sums.second(part) + group;
  const bool folds = cut.by_columns && work.width != cut.channels;
  std::vector<double> of_columns(static_cast<size_t>(folds ? 2 * work.width : 0));
  double* const column_sums = folds ? of_columns.data() : sum;
  double* const products = folds ? column_sums + work.width : product;

  const int64_t step = by_output ? std::max<int64_t>(1, kElementsPerStep / work.width) : work.rows;
  for (int64_t row = 0; row < work.rows; row += step) {
    const NormExtent some{std::min(step, work.rows - row), work.width};
    if (by_output) {
      D2L_CALL_BEST(activation_grad, some, by.activation, from_row(given, row),
                    from_row(cut.rows(gradients.output, group, part), row),
                    from_row(cut.rows(gradients.through, group, part), row));
    }
    if (cut.by_columns) {
      D2L_CALL_BEST(column_grad_sums, some, from_row(grad_output, row), from_row(input, row), coefficients_of_group,
                    masked, column_sums, products);
    } else {
      D2L_CALL_BEST(plane_grad_sums, some, from_row(grad_output, row), from_row(input, row), coefficients_of_group,
                    masked, sum, product);
    }
  }
  if (!folds) return;
  for_each_column(work.width, cut.run, cut.channels, [&](int64_t j, int64_t c) {
    sum[c] += column_sums[j];
    product[c] += products[j];
  });
}

// grad_bias = sum(dy), grad_weight = sum(dy * (x - mean)) / deviation.
template <typename T>
void join_gradients(const Partition& cut, int64_t c, PartialSums& sums, const Normalization<T>& by, double* grad_weight,
                    double* grad_bias) {
  double sum = 0, product = 0;
  for (int64_t part = 0; part < cut.parts(); ++part) {
    sum += sums.first(part)[c];
    product += sums.second(part)[c];
  }
  grad_bias[c] = sum;
  grad_weight[c] = (product - Center<T>(by.mean[c]).rest * sum) * inverse_deviation(by.var[c], by.eps);
}

// dx = weight / deviation * (dy - mean(dy) - (x - mean) / deviation * mean(dy * (x - mean) / deviation))
template <typename T>
void set_slopes(Factors<T, 5>& factors, int64_t c, const BatchNormShape& shape, const Normalization<T>& by,
                const double* grad_weight, const double* grad_bias) {
  const double inverse = inverse_deviation(by.var[c], by.eps), values = static_cast<double>(shape.values());
  const double scale = inverse * (by.weight ? static_cast<double>(by.weight[c]) : 1);
  const double slope = scale * inverse * grad_weight[c] / values;
  factors.set(c, 3, {slope, scale * grad_bias[c] / values - Center<T>(by.mean[c]).rest * slope});
}

template <typename T>
void differentiate(const Partition& cut, const Factors<T, 5>& factors, bool masked, bool accumulate, int64_t group,
                   int64_t part, NormMaps<const T> grad_output, NormMaps<const T> input, NormMaps<T> grad_input) {
  const NormGradCoefficients<T> by{coefficients(factors, group), factors.get(3, group), factors.get(4, group), masked};
  const NormRows<const T> gradients = cut.rows(grad_output, group, part), inputs = cut.rows(input, group, part);
  const NormRows<T> to = cut.rows(grad_input, group, part);
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

// sum(group, part) for all parts of a group, then finish(channel) for all of its channels, then apply(group, part). One
// group at a time where there are enough for all threads: what was summed is then still in a cache.
template <typename Sum, typename Finish, typename Apply>
void sum_and_apply(const Partition& cut, const BatchNormShape& shape, Sum&& sum, Finish&& finish, Apply&& apply) {
  if (cut.groups < 4 * max_threads()) {
    for_each_part(cut, shape, sum);
    for (int64_t c = 0; c < cut.channels; ++c) finish(c);
    for_each_part_backwards(cut, shape, apply);
    return;
  }
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask / shape.values());
  parallel_for(0, cut.groups, grain, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      for (int64_t part = 0; part < cut.parts(); ++part) sum(group, part);
      for (int64_t c = group; c < group + cut.channels / cut.groups; ++c) finish(c);
      for (int64_t part = cut.parts(); part-- > 0;) apply(group, part);
    }
  });
}

}  // namespace

template <typename T>
void batch_norm_moments(const BatchNormShape& shape, Layout layout, NormMaps<const T> input, double* mean,
                        double* var) {
  std::fill_n(mean, shape.C, 0.0);
  std::fill_n(var, shape.C, 0.0);
  if (is_empty(shape)) return;
  const Partition cut(shape, layout, are_dense(input));
  PartialSums sums(cut);
  for_each_part(cut, shape, [&](int64_t group, int64_t part) { sum_moments(cut, group, part, input, sums); });
  for (int64_t c = 0; c < shape.C; ++c) {
    join_moments(cut, static_cast<double>(shape.values()), c, sums, mean, var);
  }
}

template <typename T>
void batch_norm_apply(const BatchNormShape& shape, Layout layout, const Normalization<T>& by, NormMaps<const T> input,
                      NormMaps<const T> residual, NormMaps<T> output) {
  if (is_empty(shape)) return;
  const Partition cut(shape, layout, are_dense(input, residual, output));
  Factors<T, 3> factors(cut);
  for (int64_t c = 0; c < shape.C; ++c) set_coefficients(factors, c, by, by.mean, by.var);
  for_each_part(cut, shape, [&](int64_t group, int64_t part) {
    normalize(cut, factors, by.activation, group, part, input, residual, output);
  });
}

template <typename T>
void batch_norm_train(const BatchNormShape& shape, Layout layout, const Normalization<T>& by, NormMaps<const T> input,
                      NormMaps<const T> residual, NormMaps<T> output, double* mean, double* var) {
  std::fill_n(mean, shape.C, 0.0);
  std::fill_n(var, shape.C, 0.0);
  if (is_empty(shape)) return;
  const Partition cut(shape, layout, are_dense(input, residual, output));
  PartialSums sums(cut);
  Factors<T, 3> factors(cut);
  sum_and_apply(
      cut, shape, [&](int64_t group, int64_t part) { sum_moments(cut, group, part, input, sums); },
      [&](int64_t c) {
        join_moments(cut, static_cast<double>(shape.values()), c, sums, mean, var);
        set_coefficients(factors, c, by, mean, var);
      },
      [&](int64_t group, int64_t part) {
        normalize(cut, factors, by.activation, group, part, input, residual, output);
      });
}

template <typename T>
void batch_norm_grad_sums(const BatchNormShape& shape, Layout layout, const Normalization<T>& by,
                          const NormGradients<T>& gradients, double* grad_weight, double* grad_bias) {
  std::fill_n(grad_weight, shape.C, 0.0);
  std::fill_n(grad_bias, shape.C, 0.0);
  if (is_empty(shape)) return;
  const Partition cut(shape, layout,
                      are_dense(gradients.grad_output, gradients.input, gradients.output, gradients.through));
  PartialSums sums(cut);
  Factors<T, 3> factors(cut);
  for (int64_t c = 0; c < shape.C; ++c) set_coefficients(factors, c, by, by.mean, by.var);
  for_each_part(cut, shape,
                [&](int64_t group, int64_t part) { sum_gradients(cut, factors, by, gradients, group, part, sums); });
  for (int64_t c = 0; c < shape.C; ++c) join_gradients(cut, c, sums, by, grad_weight, grad_bias);
}

template <typename T>
void batch_norm_input_grad(const BatchNormShape& shape, Layout layout, const Normalization<T>& by,
                           NormMaps<const T> grad_output, NormMaps<const T> input, const double* grad_weight,
                           const double* grad_bias, bool accumulate, NormMaps<T> grad_input) {
  if (is_empty(shape)) return;
  const Partition cut(shape, layout, are_dense(grad_output, input, grad_input));
  Factors<T, 5> factors(cut);
  for (int64_t c = 0; c < shape.C; ++c) {
    set_coefficients(factors, c, by, by.mean, by.var);
    set_slopes(factors, c, shape, by, grad_weight, grad_bias);
  }
  const bool masked = by.activation != Activation::none;
  for_each_part_backwards(cut, shape, [&](int64_t group, int64_t part) {
    differentiate(cut, factors, masked, accumulate, group, part, grad_output, input, grad_input);
  });
}

template <typename T>
void batch_norm_train_grad(const BatchNormShape& shape, Layout layout, const Normalization<T>& by,
                           const NormGradients<T>& gradients, NormMaps<T> grad_input, double* grad_weight,
                           double* grad_bias) {
  std::fill_n(grad_weight, shape.C, 0.0);
  std::fill_n(grad_bias, shape.C, 0.0);
  if (is_empty(shape)) return;
  const Partition cut(
      shape, layout,
      are_dense(gradients.grad_output, gradients.input, gradients.output, gradients.through, grad_input));
  PartialSums sums(cut);
  Factors<T, 5> factors(cut);
  for (int64_t c = 0; c < shape.C; ++c) set_coefficients(factors, c, by, by.mean, by.var);
  const auto grad_output = goes_by_output(by, gradients) ? constant(gradients.through) : gradients.grad_output;
  sum_and_apply(
      cut, shape, [&](int64_t group, int64_t part) { sum_gradients(cut, factors, by, gradients, group, part, sums); },
      [&](int64_t c) {
        join_gradients(cut, c, sums, by, grad_weight, grad_bias);
        set_slopes(factors, c, shape, by, grad_weight, grad_bias);
      },
      [&](int64_t group, int64_t part) {
        differentiate(cut, factors, is_masked(by, gradients), false, group, part, grad_output, gradients.input,
                      grad_input);
      });
}

#define D2L_INSTANTIATE(T)                                                                                             \
  template void batch_norm_moments(const BatchNormShape&, Layout, NormMaps<const T>, double*, double*);                \
  template void batch_norm_apply(const BatchNormShape&, Layout, const Normalization<T>&, NormMaps<const T>,            \
                                 NormMaps<const T>, NormMaps<T>);                                                      \
  template void batch_norm_train(const BatchNormShape&, Layout, const Normalization<T>&, NormMaps<const T>,            \
                                 NormMaps<const T>, NormMaps<T>, double*, double*);                                    \
  template void batch_norm_grad_sums(const BatchNormShape&, Layout, const Normalization<T>&, const NormGradients<T>&,  \
                                     double*, double*);                                                                \
  template void batch_norm_input_grad(const BatchNormShape&, Layout, const Normalization<T>&, NormMaps<const T>,       \
                                      NormMaps<const T>, const double*, const double*, bool, NormMaps<T>);             \
  template void batch_norm_train_grad(const BatchNormShape&, Layout, const Normalization<T>&, const NormGradients<T>&, \
                                      NormMaps<T>, double*, double*)

D2L_INSTANTIATE(float);
D2L_INSTANTIATE(double);

#undef D2L_INSTANTIATE

}  // namespace d2l::cpu
