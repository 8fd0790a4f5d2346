// Sums, normalisation and input gradient of batch normalisation.
//
//   mean = sum(x) / n, squares = sum((x - mean)^2)
//   sum(dy), sum(dy * (x - mean))
//   y = (x - mean) * scale + shift
//   dx = dy * scale - (x - mean) * slope - shift
//
// Bytes: each pass reads its tensors once and writes its output once; FLOPs: 2 to 5 an element, memory-bound. Threads
// share chunks of rows or planes. Vectors run over columns, or over pixels of a plane. Within a block of at most
// kBlockRows rows or kBlockPixels pixels sums are kept in T, of distances from a value that lies among the block's own,
// so that they lose nothing where the mean is much larger than the deviation; blocks are joined in double, in an order
// that depends on the shape alone.
#include "kernels/cpu/batch_norm_kernel.h"

#include "kernels/cpu/integers.h"
#include "kernels/cpu/vec.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

namespace {

constexpr int64_t kBlockRows = 32;
constexpr int64_t kBlockPixels = 2048;

template <bool kValue>
struct Bool {
  static constexpr bool value = kValue;
};

// All lanes, or the first `count`; the others read as 0.
template <bool kWhole, typename T>
D2L_INLINE vec_t<T> load_lanes(const T* from, int64_t count) {
  if constexpr (kWhole) return load(from);
  return load_partial(from, count);
}

template <bool kWhole, typename T>
D2L_INLINE void store_lanes(T* to, vec_t<T> value, int64_t count) {
  if constexpr (kWhole) {
    store(to, value);
  } else {
    store_partial(to, value, count);
  }
}

// Calls body(Bool<whole>, i, count) for the registers that cover [0, n).
template <typename T, typename Body>
D2L_INLINE void for_each_vector(int64_t n, Body&& body) {
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) body(Bool<true>{}, i, int64_t{kLanes<T>});
  if (i < n) body(Bool<false>{}, i, n - i);
}

// One value in all lanes. Loaded like data, so that the lanes behind the end of a run are 0 in both.
template <typename T>
struct Spread {
  T lanes[kLanes<T>];

  D2L_INLINE explicit Spread(T value) { store(lanes, broadcast(value)); }
  template <bool kWhole>
  D2L_INLINE vec_t<T> get(int64_t count) const {
    return load_lanes<kWhole>(lanes, count);
  }
};

template <typename T>
D2L_INLINE double sum_of_lanes(vec_t<T> value) {
  double sum = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += static_cast<double>(value[lane]);
  return sum;
}

// Joins the moments of `more` values to those of `count` (Chan, Golub and LeVeque, 1979).
struct Join {
  double weight, cross;  // of the new mean, and of the squared distance of the means

  D2L_INLINE Join(double count, double more) : weight(more / (count + more)), cross(weight * count) {}
  D2L_INLINE void operator()(double& mean, double& squares, double more_mean, double more_squares) const {
    const double distance = more_mean - mean;
    mean += distance * weight;
    squares += more_squares + distance * distance * cross;
  }
};

// kVectors registers of columns, over the rows of a block: sums of the distances from the first row.
template <int kVectors, bool kWhole, typename T>
D2L_INLINE void block_moments(const T* input, int64_t width, int64_t rows, int64_t columns, const Join& join,
                              double* mean, double* squares) {
  vec_t<T> first[kVectors], sum[kVectors] = {}, square[kVectors] = {};
  for (int v = 0; v < kVectors; ++v) first[v] = load_lanes<kWhole>(input + v * kLanes<T>, columns);
  for (int64_t row = 1; row < rows; ++row) {
    const T* from = input + row * width;
    for (int v = 0; v < kVectors; ++v) {
      const vec_t<T> distance = load_lanes<kWhole>(from + v * kLanes<T>, columns) - first[v];
      sum[v] += distance;
      square[v] += distance * distance;
    }
  }
  T firsts[kVectors * kLanes<T>], sums[kVectors * kLanes<T>], block_squares[kVectors * kLanes<T>];
  for (int v = 0; v < kVectors; ++v) {
    store(firsts + v * kLanes<T>, first[v]);
    store(sums + v * kLanes<T>, sum[v]);
    store(block_squares + v * kLanes<T>, square[v]);
  }
  const double count = static_cast<double>(rows);
  const int64_t lanes = min(columns, kVectors * kLanes<T>);
  for (int64_t i = 0; i < lanes; ++i) {
    const double shifted = static_cast<double>(sums[i]) / count;
    join(mean[i], squares[i], static_cast<double>(firsts[i]) + shifted,
         static_cast<double>(block_squares[i]) - static_cast<double>(sums[i]) * shifted);
  }
}

template <int kVectors, bool kWhole, typename T>
D2L_INLINE void block_grad_sums(const T* grad_output, const T* input, const T* center, int64_t width, int64_t rows,
                                int64_t columns, double* sum, double* product) {
  vec_t<T> centers[kVectors], sums[kVectors] = {}, products[kVectors] = {};
  for (int v = 0; v < kVectors; ++v) centers[v] = load_lanes<kWhole>(center + v * kLanes<T>, columns);
  for (int64_t row = 0; row < rows; ++row) {
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = row * width + v * kLanes<T>;
      const vec_t<T> gradient = load_lanes<kWhole>(grad_output + at, columns);
      sums[v] += gradient;
      products[v] += gradient * (load_lanes<kWhole>(input + at, columns) - centers[v]);
    }
  }
  T block_sums[kVectors * kLanes<T>], block_products[kVectors * kLanes<T>];
  for (int v = 0; v < kVectors; ++v) {
    store(block_sums + v * kLanes<T>, sums[v]);
    store(block_products + v * kLanes<T>, products[v]);
  }
  const int64_t lanes = min(columns, kVectors * kLanes<T>);
  for (int64_t i = 0; i < lanes; ++i) {
    sum[i] += static_cast<double>(block_sums[i]);
    product[i] += static_cast<double>(block_products[i]);
  }
}

template <int kValue>
struct Vectors {
  static constexpr int value = kValue;
};

// Calls body(Vectors, Bool<whole>, column, columns) for the tiles of registers that cover the columns.
template <typename T, typename Body>
D2L_INLINE void for_each_tile(int64_t width, Body&& body) {
  constexpr int kTile = 4;
  int64_t column = 0;
  for (; column + kTile * kLanes<T> <= width; column += kTile * kLanes<T>) {
    body(Vectors<kTile>{}, Bool<true>{}, column, int64_t{kTile * kLanes<T>});
  }
  for (; column + kLanes<T> <= width; column += kLanes<T>) {
    body(Vectors<1>{}, Bool<true>{}, column, int64_t{kLanes<T>});
  }
  if (column < width) body(Vectors<1>{}, Bool<false>{}, column, width - column);
}

template <typename T>
D2L_INLINE vec_t<T> normalized(vec_t<T> x, vec_t<T> center, vec_t<T> scale, vec_t<T> shift) {
  return (x - center) * scale + shift;
}

template <typename T>
D2L_INLINE vec_t<T> differentiated(vec_t<T> dy, vec_t<T> x, vec_t<T> center, vec_t<T> scale, vec_t<T> slope,
                                   vec_t<T> shift) {
  return dy * scale - ((x - center) * slope + shift);
}

// Calls body(begin, end, from, to) for blocks of whole planes, images begin to end, or for the parts from ... to of a
// plane.
template <typename Body>
D2L_INLINE void for_each_block(const NormPlanes& work, Body&& body) {
  const int64_t images = max(1, kBlockPixels / work.pixels);
  for (int64_t begin = 0; begin < work.images; begin += images) {
    for (int64_t from = 0; from < work.pixels; from += kBlockPixels) {
      body(begin, min(begin + images, work.images), from, min(from + kBlockPixels, work.pixels));
    }
  }
}

}  // namespace

template <typename T>
void column_moments(NormColumns work, const T* input, double* mean, double* squares) {
  for (int64_t column = 0; column < work.width; ++column) mean[column] = squares[column] = 0;
  for (int64_t row = 0; row < work.rows; row += kBlockRows) {
    const int64_t rows = min(kBlockRows, work.rows - row);
    const Join join(static_cast<double>(row), static_cast<double>(rows));
    for_each_tile<T>(work.width, [&](auto vectors, auto whole, int64_t column, int64_t columns) {
      block_moments<vectors.value, whole.value>(input + row * work.width + column, work.width, rows, columns, join,
                                                mean + column, squares + column);
    });
  }
}

template <typename T>
void column_grad_sums(NormColumns work, const T* grad_output, const T* input, const T* center, double* sum,
                      double* product) {
  for (int64_t column = 0; column < work.width; ++column) sum[column] = product[column] = 0;
  for (int64_t row = 0; row < work.rows; row += kBlockRows) {
    const int64_t rows = min(kBlockRows, work.rows - row);
    for_each_tile<T>(work.width, [&](auto vectors, auto whole, int64_t column, int64_t columns) {
      const int64_t at = row * work.width + column;
      block_grad_sums<vectors.value, whole.value>(grad_output + at, input + at, center + column, work.width, rows,
                                                  columns, sum + column, product + column);
    });
  }
}

template <typename T>
void column_normalize(NormColumns work, NormCoefficients<T> by, const T* input, T* output) {
  for (int64_t row = 0; row < work.rows; ++row, input += work.width, output += work.width) {
    for_each_vector<T>(work.width, [&](auto whole, int64_t i, int64_t count) {
      constexpr bool kWhole = whole.value;
      store_lanes<kWhole>(
          output + i,
          normalized<T>(load_lanes<kWhole>(input + i, count), load_lanes<kWhole>(by.center + i, count),
                        load_lanes<kWhole>(by.scale + i, count), load_lanes<kWhole>(by.shift + i, count)),
          count);
    });
  }
}

template <typename T>
void column_input_grad(NormColumns work, NormGradCoefficients<T> by, const T* grad_output, const T* input,
                       T* grad_input) {
  for (int64_t row = 0; row < work.rows; ++row) {
    for_each_vector<T>(work.width, [&](auto whole, int64_t i, int64_t count) {
      constexpr bool kWhole = whole.value;
      const int64_t at = row * work.width + i;
      store_lanes<kWhole>(
          grad_input + at,
          differentiated<T>(load_lanes<kWhole>(grad_output + at, count), load_lanes<kWhole>(input + at, count),
                            load_lanes<kWhole>(by.center + i, count), load_lanes<kWhole>(by.scale + i, count),
                            load_lanes<kWhole>(by.slope + i, count), load_lanes<kWhole>(by.shift + i, count)),
          count);
    });
  }
}

// The block is read twice, the second time from the first cache: its mean is the best value to take distances from.
template <typename T>
void plane_moments(NormPlanes work, const T* input, double* mean, double* squares) {
  double seen = 0, mean_so_far = 0, squares_so_far = 0;
  for_each_block(work, [&](int64_t begin, int64_t end, int64_t from, int64_t to) {
    const double count = static_cast<double>((end - begin) * (to - from));
    vec_t<T> total = {};
    for (int64_t image = begin; image < end; ++image) {
      const T* run = input + image * work.pitch + from;
      vec_t<T> totals[4] = {};
      int64_t i = 0;
      for (; i + 4 * kLanes<T> <= to - from; i += 4 * kLanes<T>) {
        for (int v = 0; v < 4; ++v) totals[v] += load(run + i + v * kLanes<T>);
      }
      for_each_vector<T>(to - from - i, [&](auto whole, int64_t j, int64_t lanes) {
        totals[0] += load_lanes<whole.value>(run + i + j, lanes);
      });
      total += (totals[0] + totals[1]) + (totals[2] + totals[3]);
    }
    const T middle = static_cast<T>(sum_of_lanes<T>(total) / count);
    const Spread<T> center(middle);
    vec_t<T> sum[4] = {}, square[4] = {};
    for (int64_t image = begin; image < end; ++image) {
      const T* run = input + image * work.pitch + from;
      int64_t i = 0;
      for (; i + 4 * kLanes<T> <= to - from; i += 4 * kLanes<T>) {
        for (int v = 0; v < 4; ++v) {
          const vec_t<T> distance = load(run + i + v * kLanes<T>) - broadcast(middle);
          sum[v] += distance;
          square[v] += distance * distance;
        }
      }
      for_each_vector<T>(to - from - i, [&](auto whole, int64_t j, int64_t lanes) {
        const vec_t<T> distance = load_lanes<whole.value>(run + i + j, lanes) - center.template get<whole.value>(lanes);
        sum[0] += distance;
        square[0] += distance * distance;
      });
    }
    const double shifted = sum_of_lanes<T>((sum[0] + sum[1]) + (sum[2] + sum[3]));
    const double block_squares = sum_of_lanes<T>((square[0] + square[1]) + (square[2] + square[3]));
    Join(seen, count)(mean_so_far, squares_so_far, static_cast<double>(middle) + shifted / count,
                      block_squares - shifted * shifted / count);
    seen += count;
  });
  *mean = mean_so_far;
  *squares = squares_so_far;
}

template <typename T>
void plane_grad_sums(NormPlanes work, const T* grad_output, const T* input, const T* center, double* sum,
                     double* product) {
  double sum_so_far = 0, product_so_far = 0;
  const Spread<T> centers(*center);
  for_each_block(work, [&](int64_t begin, int64_t end, int64_t from, int64_t to) {
    vec_t<T> sums[4] = {}, products[4] = {};
    for (int64_t image = begin; image < end; ++image) {
      const T* gradients = grad_output + image * work.pitch + from;
      const T* inputs = input + image * work.pitch + from;
      int64_t i = 0;
      for (; i + 4 * kLanes<T> <= to - from; i += 4 * kLanes<T>) {
        for (int v = 0; v < 4; ++v) {
          const vec_t<T> gradient = load(gradients + i + v * kLanes<T>);
          sums[v] += gradient;
          products[v] += gradient * (load(inputs + i + v * kLanes<T>) - broadcast(*center));
        }
      }
      for_each_vector<T>(to - from - i, [&](auto whole, int64_t j, int64_t lanes) {
        const vec_t<T> gradient = load_lanes<whole.value>(gradients + i + j, lanes);
        sums[0] += gradient;
        products[0] +=
            gradient * (load_lanes<whole.value>(inputs + i + j, lanes) - centers.template get<whole.value>(lanes));
      });
    }
    sum_so_far += sum_of_lanes<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
    product_so_far += sum_of_lanes<T>((products[0] + products[1]) + (products[2] + products[3]));
  });
  *sum = sum_so_far;
  *product = product_so_far;
}

template <typename T>
void plane_normalize(NormPlanes work, NormCoefficients<T> by, const T* input, T* output) {
  const vec_t<T> center = broadcast(*by.center), scale = broadcast(*by.scale), shift = broadcast(*by.shift);
  for (int64_t image = 0; image < work.images; ++image, input += work.pitch, output += work.pitch) {
    for_each_vector<T>(work.pixels, [&](auto whole, int64_t i, int64_t count) {
      constexpr bool kWhole = whole.value;
      store_lanes<kWhole>(output + i, normalized<T>(load_lanes<kWhole>(input + i, count), center, scale, shift), count);
    });
  }
}

template <typename T>
void plane_input_grad(NormPlanes work, NormGradCoefficients<T> by, const T* grad_output, const T* input,
                      T* grad_input) {
  const vec_t<T> center = broadcast(*by.center), scale = broadcast(*by.scale);
  const vec_t<T> slope = broadcast(*by.slope), shift = broadcast(*by.shift);
  for (int64_t image = 0; image < work.images; ++image) {
    for_each_vector<T>(work.pixels, [&](auto whole, int64_t i, int64_t count) {
      constexpr bool kWhole = whole.value;
      const int64_t at = image * work.pitch + i;
      store_lanes<kWhole>(grad_input + at,
                          differentiated<T>(load_lanes<kWhole>(grad_output + at, count),
                                            load_lanes<kWhole>(input + at, count), center, scale, slope, shift),
                          count);
    });
  }
}

#define D2L_INSTANTIATE(T)                                                                       \
  template void column_moments(NormColumns, const T*, double*, double*);                         \
  template void column_grad_sums(NormColumns, const T*, const T*, const T*, double*, double*);   \
  template void column_normalize(NormColumns, NormCoefficients<T>, const T*, T*);                \
  template void column_input_grad(NormColumns, NormGradCoefficients<T>, const T*, const T*, T*); \
  template void plane_moments(NormPlanes, const T*, double*, double*);                           \
  template void plane_grad_sums(NormPlanes, const T*, const T*, const T*, double*, double*);     \
  template void plane_normalize(NormPlanes, NormCoefficients<T>, const T*, T*);                  \
  template void plane_input_grad(NormPlanes, NormGradCoefficients<T>, const T*, const T*, T*)

D2L_INSTANTIATE(float);
D2L_INSTANTIATE(double);

#undef D2L_INSTANTIATE

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
