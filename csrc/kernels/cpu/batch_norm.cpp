#include "kernels/cpu/batch_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/batch_norm_kernel.h"
#include "kernels/cpu/parallel.h"

namespace d2l::cpu {

namespace {

constexpr int64_t kElementsPerPart = 131072;  // joining the sums of parts must cost little
constexpr int64_t kElementsPerTask = 32768;   // fewer are not worth a thread
constexpr int64_t kNarrow = 64;               // columns: fewer make short loops
constexpr int64_t kSmall = 16;                // pixels or columns: fewer do not fill a register

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How the maps are cut into groups of channels, and these into parts, whose sums are joined in order. All of it follows
// from the shape, nothing from the number of threads.
//
// By planes, a channel is a group and a part is some of its images. By columns, all channels are one group and a part
// is some rows; column j belongs to channel j / run % C. Rows of few columns are taken `repeat` at a time, but for the
// last ones, which do not fill a wide row: they are the last part.
struct Partition {
  bool by_columns;
  int64_t channels, pixels;
  int64_t run = 1, repeat = 1, width = 1;
  int64_t groups, items, items_per_part, whole_parts, narrow_rows = 0;  // items: images, or wide rows

  Partition(const BatchNormShape& shape, Layout layout)
      : by_columns(layout == Layout::nhwc || shape.pixels < kSmall), channels(shape.C), pixels(shape.pixels) {
    if (by_columns) {
      run = layout == Layout::nchw ? pixels : 1;
      const int64_t rows = shape.values() / run, row = channels * run;
      repeat = row >= kNarrow ? 1 : row >= kSmall ? 4 : 16;
      width = row * repeat;
      groups = 1;
      items = rows / repeat;
      narrow_rows = rows % repeat;
      items_per_part = std::max<int64_t>(64, ceil_div(kElementsPerPart, width));
    } else {
      groups = channels;
      items = shape.N;
      items_per_part = ceil_div(kElementsPerPart, pixels);
    }
    whole_parts = ceil_div(items, items_per_part);
  }

  int64_t parts() const { return whole_parts + (narrow_rows > 0 ? 1 : 0); }
  bool is_narrow(int64_t part) const { return part == whole_parts; }
  int64_t items_of(int64_t part) const {
    return is_narrow(part) ? narrow_rows : std::min(items_per_part, items - part * items_per_part);
  }

  NormColumns columns(int64_t part) const { return {items_of(part), is_narrow(part) ? width / repeat : width}; }
  NormPlanes planes(int64_t part) const { return {items_of(part), pixels, channels * pixels}; }

  // Where the part begins.
  int64_t offset(int64_t group, int64_t part) const {
    const int64_t item = is_narrow(part) ? items : part * items_per_part;
    return by_columns ? item * width : (item * channels + group) * pixels;
  }
  // Values of each channel in the part.
  double values_of(int64_t part) const {
    return static_cast<double>(by_columns ? items_of(part) * columns(part).width / channels : items_of(part) * pixels);
  }
};

// The columns of each of the channels: visit(column, channel).
template <typename Visit>
void for_each_column(int64_t width, int64_t run, int64_t channels, Visit&& visit) {
  for (int64_t column = 0; column < width;) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t i = 0; i < run; ++i, ++column) visit(column, c);
    }
  }
}

// Two sums for every channel of every part.
class PartialSums {
 public:
  explicit PartialSums(const Partition& cut)
      : channels_(cut.channels), sums_(static_cast<size_t>(2 * cut.channels * cut.parts())) {}
  double* first(int64_t part) { return sums_.data() + 2 * part * channels_; }
  double* second(int64_t part) { return first(part) + channels_; }

 private:
  int64_t channels_;
  std::vector<double> sums_;
};

// kCount factors for each channel, as the kernels read them: repeated for every column.
template <typename T, int kCount>
class Factors {
 public:
  explicit Factors(const Partition& cut)
      : cut_(cut), length_(cut.by_columns ? cut.width : cut.channels), values_(static_cast<size_t>(kCount * length_)) {}

  void set(int64_t c, const double (&values)[kCount]) {
    for (int which = 0; which < kCount; ++which) {
      T* array = values_.data() + which * length_;
      for (int64_t begin = c * cut_.run; begin < length_; begin += cut_.channels * cut_.run) {
        std::fill_n(array + begin, cut_.run, static_cast<T>(values[which]));
      }
    }
  }
  const T* get(int which, int64_t group) const { return values_.data() + which * length_ + group; }

 private:
  const Partition& cut_;
  int64_t length_;
  std::vector<T> values_;
};

// The mean as the nearest T and what that leaves: (x - near) - rest keeps all bits that T has for x - mean.
template <typename T>
struct Center {
  double near, rest;
  explicit Center(double mean) : near(static_cast<double>(static_cast<T>(mean))), rest(mean - near) {}
};

double inverse_deviation(double var, double eps) { return 1 / std::sqrt(var + eps); }

template <typename T>
void set_normalization(Factors<T, 3>& factors, int64_t c, double mean, double var, double eps, const double* weight,
                       const double* bias) {
  const Center<T> center(mean);
  const double scale = inverse_deviation(var, eps) * (weight ? weight[c] : 1);
  factors.set(c, {center.near, scale, (bias ? bias[c] : 0) - center.rest * scale});
}

template <typename T>
void normalize(const Partition& cut, const Factors<T, 3>& factors, int64_t group, int64_t part, const T* input,
               T* output) {
  const NormCoefficients<T> by{factors.get(0, group), factors.get(1, group), factors.get(2, group)};
  const int64_t offset = cut.offset(group, part);
  if (cut.by_columns) {
    D2L_CALL_BEST(column_normalize, cut.columns(part), by, input + offset, output + offset);
  } else {
    D2L_CALL_BEST(plane_normalize, cut.planes(part), by, input + offset, output + offset);
  }
}

// The mean and the squared deviations of each channel of a part.
template <typename T>
void sum_moments(const Partition& cut, int64_t group, int64_t part, const T* input, PartialSums& sums) {
  input += cut.offset(group, part);
  double *mean = sums.first(part) + group, *squares = sums.second(part) + group;
  if (!cut.by_columns) {
    D2L_CALL_BEST(plane_moments, cut.planes(part), input, mean, squares);
    return;
  }
  const NormColumns work = cut.columns(part);
  if (work.width == cut.channels) {
    D2L_CALL_BEST(column_moments, work, input, mean, squares);
    return;
  }
  std::vector<double> of_columns(static_cast<size_t>(2 * work.width));
  double *means = of_columns.data(), *column_squares = means + work.width;
  D2L_CALL_BEST(column_moments, work, input, means, column_squares);
  const double rows = static_cast<double>(work.rows), columns = static_cast<double>(work.width / cut.channels);
  for_each_column(work.width, cut.run, cut.channels, [&](int64_t j, int64_t c) { mean[c] += means[j] / columns; });
  for_each_column(work.width, cut.run, cut.channels, [&](int64_t j, int64_t c) {
    const double distance = means[j] - mean[c];
    squares[c] += column_squares[j] + rows * distance * distance;
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
  var[c] = squares / total;
}

// sum(grad_output) and sum(grad_output * (input - center)) of each channel of a part.
template <typename T, int kCount>
void sum_gradients(const Partition& cut, const Factors<T, kCount>& factors, int64_t group, int64_t part,
                   const T* grad_output, const T* input, PartialSums& sums) {
  grad_output += cut.offset(group, part);
  input += cut.offset(group, part);
  double *sum = sums.first(part) + group, *product = sums.second(part) + group;
  const T* center = factors.get(0, group);
  if (!cut.by_columns) {
    D2L_CALL_BEST(plane_grad_sums, cut.planes(part), grad_output, input, center, sum, product);
    return;
  }
  const NormColumns work = cut.columns(part);
  if (work.width == cut.channels) {
    D2L_CALL_BEST(column_grad_sums, work, grad_output, input, center, sum, product);
    return;
  }
  std::vector<double> of_columns(static_cast<size_t>(2 * work.width));
  double *column_sums = of_columns.data(), *products = column_sums + work.width;
  D2L_CALL_BEST(column_grad_sums, work, grad_output, input, center, column_sums, products);
  for_each_column(work.width, cut.run, cut.channels, [&](int64_t j, int64_t c) {
    sum[c] += column_sums[j];
    product[c] += products[j];
  });
}

// grad_bias = sum(dy), grad_weight = sum(dy * (x - mean)) / deviation.
template <typename T>
void join_gradients(const Partition& cut, int64_t c, PartialSums& sums, double mean, double var, double eps,
                    double* grad_weight, double* grad_bias) {
  double sum = 0, product = 0;
  for (int64_t part = 0; part < cut.parts(); ++part) {
    sum += sums.first(part)[c];
    product += sums.second(part)[c];
  }
  grad_bias[c] = sum;
  grad_weight[c] = (product - Center<T>(mean).rest * sum) * inverse_deviation(var, eps);
}

// Calls function(group, part) for all, in parallel.
template <typename Function>
void for_each_part(const Partition& cut, const BatchNormShape& shape, Function&& function) {
  const int64_t units = cut.groups * cut.parts();
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask * units / (shape.values() * shape.C));
  parallel_for(0, units, grain, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) function(unit / cut.parts(), unit % cut.parts());
  });
}

// sum(group, part) for all parts of a group, then finish(channel) for all of its channels, then apply(group, part). One
// group at a time where there are enough for all threads: what was summed is then still in a cache.
template <typename Sum, typename Finish, typename Apply>
void sum_and_apply(const Partition& cut, const BatchNormShape& shape, Sum&& sum, Finish&& finish, Apply&& apply) {
  if (cut.groups < 4 * max_threads()) {
    for_each_part(cut, shape, sum);
    for (int64_t c = 0; c < cut.channels; ++c) finish(c);
    for_each_part(cut, shape, apply);
    return;
  }
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask / shape.values());
  parallel_for(0, cut.groups, grain, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      for (int64_t part = 0; part < cut.parts(); ++part) sum(group, part);
      for (int64_t c = group; c < group + cut.channels / cut.groups; ++c) finish(c);
      for (int64_t part = 0; part < cut.parts(); ++part) apply(group, part);
    }
  });
}

}  // namespace

template <typename T>
void batch_norm_train(const BatchNormShape& shape, Layout layout, double eps, const T* input, const double* weight,
                      const double* bias, T* output, double* mean, double* var) {
  std::fill_n(mean, shape.C, 0.0);
  std::fill_n(var, shape.C, 0.0);
  if (shape.values() * shape.C == 0) return;
  const Partition cut(shape, layout);
  PartialSums sums(cut);
  Factors<T, 3> factors(cut);
  sum_and_apply(
      cut, shape, [&](int64_t group, int64_t part) { sum_moments(cut, group, part, input, sums); },
      [&](int64_t c) {
        join_moments(cut, static_cast<double>(shape.values()), c, sums, mean, var);
        set_normalization(factors, c, mean[c], var[c], eps, weight, bias);
      },
      [&](int64_t group, int64_t part) { normalize(cut, factors, group, part, input, output); });
}

template <typename T>
void batch_norm_infer(const BatchNormShape& shape, Layout layout, double eps, const T* input, const double* mean,
                      const double* var, const double* weight, const double* bias, T* output) {
  if (shape.values() * shape.C == 0) return;
  const Partition cut(shape, layout);
  Factors<T, 3> factors(cut);
  for (int64_t c = 0; c < shape.C; ++c) set_normalization(factors, c, mean[c], var[c], eps, weight, bias);
  for_each_part(cut, shape, [&](int64_t group, int64_t part) { normalize(cut, factors, group, part, input, output); });
}

// dx = weight / deviation * (dy - mean(dy) - (x - mean) / deviation * mean(dy * (x - mean) / deviation))
template <typename T>
void batch_norm_train_grad(const BatchNormShape& shape, Layout layout, double eps, const T* grad_output, const T* input,
                           const double* weight, const double* mean, const double* var, T* grad_input,
                           double* grad_weight, double* grad_bias) {
  std::fill_n(grad_weight, shape.C, 0.0);
  std::fill_n(grad_bias, shape.C, 0.0);
  if (shape.values() * shape.C == 0) return;
  const Partition cut(shape, layout);
  PartialSums sums(cut);
  Factors<T, 4> factors(cut);
  for (int64_t c = 0; c < shape.C; ++c) factors.set(c, {Center<T>(mean[c]).near, 0, 0, 0});
  sum_and_apply(
      cut, shape,
      [&](int64_t group, int64_t part) { sum_gradients(cut, factors, group, part, grad_output, input, sums); },
      [&](int64_t c) {
        join_gradients<T>(cut, c, sums, mean[c], var[c], eps, grad_weight, grad_bias);
        const Center<T> center(mean[c]);
        const double inverse = inverse_deviation(var[c], eps), values = static_cast<double>(shape.values());
        const double scale = inverse * (weight ? weight[c] : 1), slope = scale * inverse * grad_weight[c] / values;
        factors.set(c, {center.near, scale, slope, scale * grad_bias[c] / values - center.rest * slope});
      },
      [&](int64_t group, int64_t part) {
        const NormGradCoefficients<T> by{factors.get(0, group), factors.get(1, group), factors.get(2, group),
                                         factors.get(3, group)};
        const int64_t offset = cut.offset(group, part);
        if (cut.by_columns) {
          D2L_CALL_BEST(column_input_grad, cut.columns(part), by, grad_output + offset, input + offset,
                        grad_input + offset);
        } else {
          D2L_CALL_BEST(plane_input_grad, cut.planes(part), by, grad_output + offset, input + offset,
                        grad_input + offset);
        }
      });
}

template <typename T>
void batch_norm_weight_grad(const BatchNormShape& shape, Layout layout, double eps, const T* grad_output,
                            const T* input, const double* mean, const double* var, double* grad_weight,
                            double* grad_bias) {
  std::fill_n(grad_weight, shape.C, 0.0);
  std::fill_n(grad_bias, shape.C, 0.0);
  if (shape.values() * shape.C == 0) return;
  const Partition cut(shape, layout);
  PartialSums sums(cut);
  Factors<T, 1> centers(cut);
  for (int64_t c = 0; c < shape.C; ++c) centers.set(c, {Center<T>(mean[c]).near});
  for_each_part(cut, shape, [&](int64_t group, int64_t part) {
    sum_gradients(cut, centers, group, part, grad_output, input, sums);
  });
  for (int64_t c = 0; c < shape.C; ++c) {
    join_gradients<T>(cut, c, sums, mean[c], var[c], eps, grad_weight, grad_bias);
  }
}

#define D2L_INSTANTIATE(T)                                                                                          \
  template void batch_norm_train(const BatchNormShape&, Layout, double, const T*, const double*, const double*, T*, \
                                 double*, double*);                                                                 \
  template void batch_norm_infer(const BatchNormShape&, Layout, double, const T*, const double*, const double*,     \
                                 const double*, const double*, T*);                                                 \
  template void batch_norm_train_grad(const BatchNormShape&, Layout, double, const T*, const T*, const double*,     \
                                      const double*, const double*, T*, double*, double*);                          \
  template void batch_norm_weight_grad(const BatchNormShape&, Layout, double, const T*, const T*, const double*,    \
                                       const double*, double*, double*)

D2L_INSTANTIATE(float);
D2L_INSTANTIATE(double);

#undef D2L_INSTANTIATE

}  // namespace d2l::cpu
