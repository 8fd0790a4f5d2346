// Sums, normalisation and input gradient of batch normalisation, with what is fused to them.
//
//   sum(x - center), sum((x - center)^2)
//   sum(dy), sum(dy * (x - center))
//   y = activation((x - center) * scale + shift + residual)
//   dx = dy * scale - (x - center) * slope - offset
//
// Bytes: each pass reads its tensors once and writes its output once; FLOPs: 2 to 6 an element, memory-bound. Threads
// share chunks of rows or planes. Vectors run over columns, or over pixels of a plane. Within a block sums are kept in
// T, of few values a lane and of distances from a center that lies among the values, so that they lose nothing where
// the mean is much larger than the deviation; blocks are added up in double, in an order that depends on the shape
// alone. Without a residual, x tells what the activation gave, so that the gradient needs no tensor but x.
#include "kernels/cpu/batch_norm_kernel.h"

#include "kernels/cpu/activation.h"
#include "kernels/cpu/integers.h"
#include "kernels/cpu/vec_element.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

namespace {

constexpr int64_t kBlockRows = 32;
constexpr int64_t kBlockPixels = 2048;
constexpr int64_t kCenterRows = 32;  // values whose mean is the center: many, that one of them may be far off
constexpr int64_t kCenterPixels = 64;
constexpr int kTile = 4;  // registers

template <bool kValue>
struct Bool {
  static constexpr bool value = kValue;
};

template <int kValue>
struct Vectors {
  static constexpr int value = kValue;
};

// All lanes, or the first `count`; the others read as 0.
template <bool kWhole, typename E>
D2L_INLINE element_vec_t<E> read_lanes(const E* from, int64_t count) {
  if constexpr (kWhole) return read(from);
  return read_partial(from, count);
}

template <bool kWhole, typename E>
D2L_INLINE void write_lanes(E* to, element_vec_t<E> value, int64_t count) {
  if constexpr (kWhole) {
    write(to, value);
  } else {
    write_partial(to, value, count);
  }
}

// One value in all lanes. Loaded like data, so that the lanes behind the end of a run are 0 in both.
template <typename T>
struct Spread {
  vec_t<T> value;
  T lanes[kLanes<T>];

  D2L_INLINE explicit Spread(T of) : value(broadcast(of)) { store(lanes, value); }
  template <bool kWhole>
  D2L_INLINE vec_t<T> get(int64_t count) const {
    if constexpr (kWhole) return value;
    return load_partial(lanes, count);
  }
};

// Calls body(Vectors, Bool<whole>, column, lanes) for the tiles of registers that cover the columns; `lanes` are those
// of the last register. What is left of a row is one tile too: sums in a single register would wait for one another.
template <typename T, typename Body>
D2L_INLINE void for_each_tile(int64_t width, Body&& body) {
  static_assert(kTile == 4);
  constexpr int64_t kAll = kLanes<T>;
  int64_t column = 0;
  for (; column + kTile * kAll <= width; column += kTile * kAll) body(Vectors<kTile>{}, Bool<true>{}, column, kAll);
  const int64_t left = (width - column) / kAll;
  if (left == 3) body(Vectors<3>{}, Bool<true>{}, column, kAll);
  if (left == 2) body(Vectors<2>{}, Bool<true>{}, column, kAll);
  if (left == 1) body(Vectors<1>{}, Bool<true>{}, column, kAll);
  column += left * kAll;
  if (column < width) body(Vectors<1>{}, Bool<false>{}, column, width - column);
}

// The lanes as doubles, a register at a time.
template <typename T>
D2L_INLINE vec_t<double> widened(const T* lanes) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return load(lanes);
  } else {
    typedef T Half __attribute__((vector_size(kVectorBytes / 2)));
    Half half;
    __builtin_memcpy(&half, lanes, sizeof(half));
    return __builtin_convertvector(half, vec_t<double>);
  }
}

template <bool kWhole, typename T>
D2L_INLINE void add_lanes(double* to, vec_t<T> value, int64_t count) {
  T lanes[kLanes<T>];
  store(lanes, value);
  if constexpr (kWhole) {
    for (int lane = 0; lane < kLanes<T>; lane += kLanes<double>) {
      store(to + lane, load(to + lane) + widened(lanes + lane));
    }
  } else {
    for (int64_t lane = 0; lane < count; ++lane) to[lane] += static_cast<double>(lanes[lane]);
  }
}

template <typename T>
D2L_INLINE double sum_of_lanes(vec_t<T> value) {
  T lanes[kLanes<T>];
  store(lanes, value);
  vec_t<double> wide = widened(lanes);
  for (int lane = kLanes<double>; lane < kLanes<T>; lane += kLanes<double>) wide += widened(lanes + lane);
  double sums[kLanes<double>];
  store(sums, wide);
  for (int half = kLanes<double> / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

template <Activation kActivation, typename T>
D2L_INLINE vec_t<T> activated(vec_t<T> x) {
  if constexpr (kActivation == Activation::relu) return relu<T>(x);
  if constexpr (kActivation == Activation::sigmoid) return sigmoid<T>(x);
  if constexpr (kActivation == Activation::tanh) return tanh<T>(x);
  return x;
}

// gradient * activation'(x), where y = activation(x); of a ReLU, x will do. A NaN has a gradient: it is not below zero.
template <Activation kActivation, typename T>
D2L_INLINE vec_t<T> gradient_before(vec_t<T> gradient, vec_t<T> y) {
  if constexpr (kActivation == Activation::relu) return y <= 0 ? vec_t<T>{} : gradient;
  if constexpr (kActivation == Activation::sigmoid) return gradient * (y * (1 - y));
  if constexpr (kActivation == Activation::tanh) return gradient * (1 - y * y);
  return gradient;
}

template <Activation kValue>
struct Kind {
  static constexpr Activation value = kValue;
};

// body(Kind<activation>)
template <typename Body>
D2L_INLINE void visit_activation(Activation activation, Body&& body) {
  switch (activation) {
    case Activation::none:
      return body(Kind<Activation::none>{});
    case Activation::relu:
      return body(Kind<Activation::relu>{});
    case Activation::sigmoid:
      return body(Kind<Activation::sigmoid>{});
    case Activation::tanh:
      return body(Kind<Activation::tanh>{});
  }
}

// Coefficients that are the same for all of a row, or that each column has its own of.
template <bool kSpread, typename T>
struct Coefficient {
  const T* values;
  vec_t<T> value;

  D2L_INLINE explicit Coefficient(const T* from) : values(from), value(kSpread ? broadcast(*from) : vec_t<T>{}) {}

  template <bool kWhole>
  D2L_INLINE vec_t<T> at(int64_t column, int64_t lanes) const {
    if constexpr (kSpread) return value;
    return read_lanes<kWhole>(values + column, lanes);
  }
};

template <typename T>
D2L_INLINE vec_t<T> normalized(vec_t<T> x, vec_t<T> center, vec_t<T> scale, vec_t<T> shift) {
  return (x - center) * scale + shift;
}

// Coefficients of columns are worth keeping for some rows; but rows are not left for long.
template <bool kSpread>
D2L_INLINE int64_t rows_at_once(int64_t width) {
  return kSpread ? 1 : clamp(4096 / width, 4, kBlockRows);
}

// Calls body(Vectors, Bool<whole>, row, rows, column, lanes) for tiles that cover the matrix.
template <bool kSpread, typename T, typename Body>
D2L_INLINE void for_each_block(NormExtent work, Body&& body) {
  const int64_t step = rows_at_once<kSpread>(work.width);
  for (int64_t row = 0; row < work.rows; row += step) {
    const int64_t rows = min(step, work.rows - row);
    for_each_tile<T>(work.width, [&](auto vectors, auto whole, int64_t column, int64_t lanes) {
      body(vectors, whole, row, rows, column, lanes);
    });
  }
}

template <bool kSpread, bool kResidual, Activation kActivation, typename E>
D2L_INLINE void normalize(NormExtent work, NormCoefficients<computed_t<E>> by, NormRows<const E> input,
                          NormRows<const E> residual, NormRows<E> output) {
  using T = computed_t<E>;
  const Coefficient<kSpread, T> centers(by.center), scales(by.scale), shifts(by.shift);
  for_each_block<kSpread, T>(work, [&](auto vectors, auto whole, int64_t row, int64_t rows, int64_t column,
                                       int64_t lanes) {
    constexpr bool kWhole = whole.value;
    constexpr int kVectors = vectors.value;
    vec_t<T> center[kVectors], scale[kVectors], shift[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      center[v] = centers.template at<kWhole>(column + v * kLanes<T>, lanes);
      scale[v] = scales.template at<kWhole>(column + v * kLanes<T>, lanes);
      shift[v] = shifts.template at<kWhole>(column + v * kLanes<T>, lanes);
    }
    for (int64_t r = row; r < row + rows; ++r) {
      const E* from = input.data + r * input.pitch + column;
      E* to = output.data + r * output.pitch + column;
      for (int v = 0; v < kVectors; ++v) {
        vec_t<T> value = normalized<T>(read_lanes<kWhole>(from + v * kLanes<T>, lanes), center[v], scale[v], shift[v]);
        if constexpr (kResidual) {
          value += read_lanes<kWhole>(residual.data + r * residual.pitch + column + v * kLanes<T>, lanes);
        }
        write_lanes<kWhole>(to + v * kLanes<T>, activated<kActivation, T>(value), lanes);
      }
    }
  });
}

template <bool kSpread, bool kMasked, bool kAccumulate, typename E>
D2L_INLINE void input_grad(NormExtent work, NormGradCoefficients<computed_t<E>> by, NormRows<const E> grad_output,
                           NormRows<const E> input, NormRows<E> grad_input) {
  using T = computed_t<E>;
  const Coefficient<kSpread, T> centers(by.forward.center), scales(by.forward.scale), shifts(by.forward.shift);
  const Coefficient<kSpread, T> slopes(by.slope), offsets(by.offset);
  for_each_block<kSpread, T>(
      work, [&](auto vectors, auto whole, int64_t row, int64_t rows, int64_t column, int64_t lanes) {
        constexpr bool kWhole = whole.value;
        constexpr int kVectors = vectors.value;
        vec_t<T> center[kVectors], scale[kVectors], shift[kVectors], slope[kVectors], offset[kVectors];
        for (int v = 0; v < kVectors; ++v) {
          center[v] = centers.template at<kWhole>(column + v * kLanes<T>, lanes);
          scale[v] = scales.template at<kWhole>(column + v * kLanes<T>, lanes);
          shift[v] = shifts.template at<kWhole>(column + v * kLanes<T>, lanes);
          slope[v] = slopes.template at<kWhole>(column + v * kLanes<T>, lanes);
          offset[v] = offsets.template at<kWhole>(column + v * kLanes<T>, lanes);
        }
        for (int64_t r = row; r < row + rows; ++r) {
          const E* gradients = grad_output.data + r * grad_output.pitch + column;
          const E* inputs = input.data + r * input.pitch + column;
          E* to = grad_input.data + r * grad_input.pitch + column;
          for (int v = 0; v < kVectors; ++v) {
            vec_t<T> gradient = read_lanes<kWhole>(gradients + v * kLanes<T>, lanes);
            const vec_t<T> distance = read_lanes<kWhole>(inputs + v * kLanes<T>, lanes) - center[v];
            if constexpr (kMasked)
              gradient = gradient_before<Activation::relu, T>(gradient, distance * scale[v] + shift[v]);
            vec_t<T> result = gradient * scale[v] - (distance * slope[v] + offset[v]);
            if constexpr (kAccumulate) result += read_lanes<kWhole>(to + v * kLanes<T>, lanes);
            write_lanes<kWhole>(to + v * kLanes<T>, result, lanes);
          }
        }
      });
}

template <bool kSpread, typename E>
D2L_INLINE void normalize(NormExtent work, NormCoefficients<computed_t<E>> by, Activation activation,
                          NormRows<const E> input, NormRows<const E> residual, NormRows<E> output) {
  const auto run = [&](auto has_residual) {
    visit_activation(activation, [&](auto kind) {
      normalize<kSpread, has_residual.value, kind.value>(work, by, input, residual, output);
    });
  };
  return residual.data != nullptr ? run(Bool<true>{}) : run(Bool<false>{});
}

template <bool kSpread, typename E>
D2L_INLINE void input_grad(NormExtent work, NormGradCoefficients<computed_t<E>> by, bool accumulate,
                           NormRows<const E> grad_output, NormRows<const E> input, NormRows<E> grad_input) {
  const auto run = [&](auto masked) {
    constexpr bool kMasked = masked.value;
    if (accumulate) return input_grad<kSpread, kMasked, true>(work, by, grad_output, input, grad_input);
    return input_grad<kSpread, kMasked, false>(work, by, grad_output, input, grad_input);
  };
  return by.masked ? run(Bool<true>{}) : run(Bool<false>{});
}

// How a gradient is taken through an activation before it is summed: see NormActivationGrad.
enum class Before { nothing, mask, input, output };

template <Before kBefore, Activation kActivation = Activation::none>
struct Through {
  static constexpr Before before = kBefore;
  static constexpr Activation activation = kActivation;
};

// body(Through)
template <typename E, typename Body>
D2L_INLINE void visit_before(const NormActivationGrad<E>& before, Body&& body) {
  if (before.activation == Activation::none) return body(Through<Before::nothing>{});
  if (before.through.data == nullptr) return body(Through<Before::mask>{});
  visit_activation(before.activation, [&](auto kind) {
    before.output.data != nullptr ? body(Through<Before::output, kind.value>{})
                                  : body(Through<Before::input, kind.value>{});
  });
}

// The gradient at (row, column), from grad_output there and the value that the input there is normalised to.
template <typename How, bool kWhole, typename E>
D2L_INLINE element_vec_t<E> taken_through(const NormActivationGrad<E>& before, element_vec_t<E> gradient,
                                          element_vec_t<E> value, int64_t row, int64_t column, int64_t lanes) {
  using T = computed_t<E>;
  if constexpr (How::before == Before::mask) return gradient_before<Activation::relu, T>(gradient, value);
  if constexpr (How::before == Before::input) {
    gradient = gradient_before<How::activation, T>(gradient, activated<How::activation, T>(value));
  }
  if constexpr (How::before == Before::output) {
    const E* const output = before.output.data + row * before.output.pitch + column;
    prefetch(output, kAhead<E>);
    gradient = gradient_before<How::activation, T>(gradient, read_lanes<kWhole>(output, lanes));
  }
  if constexpr (How::before == Before::input || How::before == Before::output) {
    write_lanes<kWhole>(before.through.data + row * before.through.pitch + column, gradient, lanes);
  }
  return gradient;
}

template <typename How, typename E>
D2L_INLINE void column_grad_sums(NormExtent work, NormRows<const E> grad_output, NormRows<const E> input,
                                 NormCoefficients<computed_t<E>> by, const NormActivationGrad<E>& before, double* sum,
                                 double* product) {
  using T = computed_t<E>;
  for (int64_t row = 0; row < work.rows; row += kBlockRows) {
    const int64_t rows = min(kBlockRows, work.rows - row);
    for_each_tile<T>(work.width, [&](auto vectors, auto whole, int64_t column, int64_t lanes) {
      constexpr bool kWhole = whole.value;
      constexpr int kVectors = vectors.value;
      vec_t<T> center[kVectors], scale[kVectors] = {}, shift[kVectors] = {};
      vec_t<T> sums[kVectors] = {}, products[kVectors] = {};
      for (int v = 0; v < kVectors; ++v) {
        center[v] = read_lanes<kWhole>(by.center + column + v * kLanes<T>, lanes);
        if constexpr (How::before == Before::mask || How::before == Before::input) {
          scale[v] = read_lanes<kWhole>(by.scale + column + v * kLanes<T>, lanes);
          shift[v] = read_lanes<kWhole>(by.shift + column + v * kLanes<T>, lanes);
        }
      }
      for (int64_t r = row; r < row + rows; ++r) {
        for (int v = 0; v < kVectors; ++v) {
          const int64_t at = column + v * kLanes<T>;
          const E* const gradients = grad_output.data + r * grad_output.pitch + at;
          const E* const inputs = input.data + r * input.pitch + at;
          prefetch(gradients, kAhead<E>);
          prefetch(inputs, kAhead<E>);
          const vec_t<T> distance = read_lanes<kWhole>(inputs, lanes) - center[v];
          const vec_t<T> gradient = taken_through<How, kWhole>(before, read_lanes<kWhole>(gradients, lanes),
                                                               distance * scale[v] + shift[v], r, at, lanes);
          sums[v] += gradient;
          products[v] += gradient * distance;
        }
      }
      for (int v = 0; v < kVectors; ++v) {
        add_lanes<kWhole, T>(sum + column + v * kLanes<T>, sums[v], lanes);
        add_lanes<kWhole, T>(product + column + v * kLanes<T>, products[v], lanes);
      }
    });
  }
}

// Calls body(row, column, columns) for the runs of pixels that cover the planes, and flush() when as much was summed
// as may be in T.
template <typename Body, typename Flush>
D2L_INLINE void for_each_run(NormExtent work, Body&& body, Flush&& flush) {
  int64_t summed = 0;
  for (int64_t row = 0; row < work.rows; ++row) {
    for (int64_t column = 0; column < work.width; column += kBlockPixels) {
      const int64_t columns = min(kBlockPixels, work.width - column);
      if (summed + columns > kBlockPixels) flush(), summed = 0;
      body(row, column, columns);
      summed += columns;
    }
  }
  flush();
}

template <typename How, typename E>
D2L_INLINE void plane_grad_sums(NormExtent work, NormRows<const E> grad_output, NormRows<const E> input,
                                NormCoefficients<computed_t<E>> by, const NormActivationGrad<E>& before, double* sum,
                                double* product) {
  using T = computed_t<E>;
  const vec_t<T> center = broadcast(*by.center), scale = broadcast(*by.scale), shift = broadcast(*by.shift);
  vec_t<T> sums[kTile] = {}, products[kTile] = {};
  const auto add = [&](int64_t row, int64_t from, int64_t count) {
    for_each_tile<T>(count, [&](auto vectors, auto whole, int64_t column, int64_t lanes) {
      constexpr bool kWhole = whole.value;
      constexpr int kFirst = kWhole ? 0 : kTile - 1;
      for (int v = 0; v < vectors.value; ++v) {
        const int64_t at = from + column + v * kLanes<T>;
        const E* const gradients = grad_output.data + row * grad_output.pitch + at;
        const E* const inputs = input.data + row * input.pitch + at;
        prefetch(gradients, grad_output.pitch);
        prefetch(inputs, input.pitch);
        // The lanes behind the last pixel have no gradient.
        const vec_t<T> distance = read_lanes<kWhole>(inputs, lanes) - center;
        const vec_t<T> gradient = taken_through<How, kWhole>(before, read_lanes<kWhole>(gradients, lanes),
                                                             distance * scale + shift, row, at, lanes);
        sums[kFirst + v] += gradient;
        products[kFirst + v] += gradient * distance;
      }
    });
  };
  for_each_run(work, add, [&] {
    *sum += sum_of_lanes<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
    *product += sum_of_lanes<T>((products[0] + products[1]) + (products[2] + products[3]));
    for (int v = 0; v < kTile; ++v) sums[v] = products[v] = vec_t<T>{};
  });
}

}  // namespace

template <typename E>
void column_centers(NormExtent work, NormRows<const E> input, computed_t<E>* center) {
  using T = computed_t<E>;
  const int64_t rows = min(kCenterRows, work.rows);
  const vec_t<T> share = broadcast(T(1) / static_cast<T>(rows));
  for_each_tile<T>(work.width, [&](auto vectors, auto whole, int64_t column, int64_t lanes) {
    constexpr bool kWhole = whole.value;
    constexpr int kVectors = vectors.value;
    vec_t<T> first[kVectors], sums[kVectors] = {};
    for (int v = 0; v < kVectors; ++v) first[v] = read_lanes<kWhole>(input.data + column + v * kLanes<T>, lanes);
    for (int64_t r = 1; r < rows; ++r) {
      const E* from = input.data + r * input.pitch + column;
      for (int v = 0; v < kVectors; ++v) sums[v] += read_lanes<kWhole>(from + v * kLanes<T>, lanes) - first[v];
    }
    for (int v = 0; v < kVectors; ++v) {
      write_lanes<kWhole>(center + column + v * kLanes<T>, first[v] + sums[v] * share, lanes);
    }
  });
}

template <typename E>
void column_moments(NormExtent work, NormRows<const E> input, const computed_t<E>* center, double* sum,
                    double* squares) {
  using T = computed_t<E>;
  for (int64_t row = 0; row < work.rows; row += kBlockRows) {
    const int64_t rows = min(kBlockRows, work.rows - row);
    for_each_tile<T>(work.width, [&](auto vectors, auto whole, int64_t column, int64_t lanes) {
      constexpr bool kWhole = whole.value;
      constexpr int kVectors = vectors.value;
      vec_t<T> centers[kVectors], sums[kVectors] = {}, square[kVectors] = {};
      for (int v = 0; v < kVectors; ++v) centers[v] = read_lanes<kWhole>(center + column + v * kLanes<T>, lanes);
      for (int64_t r = row; r < row + rows; ++r) {
        const E* from = input.data + r * input.pitch + column;
        for (int v = 0; v < kVectors; ++v) {
          prefetch(from + v * kLanes<T>, kAhead<E>);
          const vec_t<T> distance = read_lanes<kWhole>(from + v * kLanes<T>, lanes) - centers[v];
          sums[v] += distance;
          square[v] += distance * distance;
        }
      }
      for (int v = 0; v < kVectors; ++v) {
        add_lanes<kWhole, T>(sum + column + v * kLanes<T>, sums[v], lanes);
        add_lanes<kWhole, T>(squares + column + v * kLanes<T>, square[v], lanes);
      }
    });
  }
}

template <typename E>
void column_grad_sums(NormExtent work, NormRows<const E> grad_output, NormRows<const E> input,
                      NormCoefficients<computed_t<E>> by, NormActivationGrad<E> before, double* sum, double* product) {
  visit_before(before,
               [&](auto how) { column_grad_sums<decltype(how)>(work, grad_output, input, by, before, sum, product); });
}

template <typename E>
void column_normalize(NormExtent work, NormCoefficients<computed_t<E>> by, Activation activation,
                      NormRows<const E> input, NormRows<const E> residual, NormRows<E> output) {
  normalize<false>(work, by, activation, input, residual, output);
}

template <typename E>
void column_input_grad(NormExtent work, NormGradCoefficients<computed_t<E>> by, bool accumulate,
                       NormRows<const E> grad_output, NormRows<const E> input, NormRows<E> grad_input) {
  input_grad<false>(work, by, accumulate, grad_output, input, grad_input);
}

template <typename E>
void plane_center(NormExtent work, NormRows<const E> input, computed_t<E>* center) {
  using T = computed_t<E>;
  const Spread<T> first(read_one(*input.data));
  vec_t<T> sums = {};
  int64_t count = 0;
  for (int64_t row = 0; row < work.rows && count < kCenterPixels; ++row) {
    const int64_t columns = min(work.width, kCenterPixels);
    for_each_tile<T>(columns, [&](auto vectors, auto whole, int64_t column, int64_t lanes) {
      constexpr bool kWhole = whole.value;
      for (int v = 0; v < vectors.value; ++v) {
        const E* from = input.data + row * input.pitch + column + v * kLanes<T>;
        sums += read_lanes<kWhole>(from, lanes) - first.template get<kWhole>(lanes);
      }
    });
    count += columns;
  }
  *center =
      static_cast<T>(static_cast<double>(read_one(*input.data)) + sum_of_lanes<T>(sums) / static_cast<double>(count));
}

template <typename E>
void plane_moments(NormExtent work, NormRows<const E> input, const computed_t<E>* center, double* sum,
                   double* squares) {
  using T = computed_t<E>;
  const Spread<T> centers(*center);
  vec_t<T> sums[kTile] = {}, square[kTile] = {};
  const auto add = [&](int64_t row, int64_t from, int64_t count) {
    for_each_tile<T>(count, [&](auto vectors, auto whole, int64_t column, int64_t lanes) {
      constexpr bool kWhole = whole.value;
      constexpr int kFirst = kWhole ? 0 : kTile - 1;
      const E* inputs = input.data + row * input.pitch + from + column;
      for (int v = 0; v < vectors.value; ++v) {
        prefetch(inputs + v * kLanes<T>, input.pitch);
        const vec_t<T> distance =
            read_lanes<kWhole>(inputs + v * kLanes<T>, lanes) - centers.template get<kWhole>(lanes);
        sums[kFirst + v] += distance;
        square[kFirst + v] += distance * distance;
      }
    });
  };
  for_each_run(work, add, [&] {
    *sum += sum_of_lanes<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
    *squares += sum_of_lanes<T>((square[0] + square[1]) + (square[2] + square[3]));
    for (int v = 0; v < kTile; ++v) sums[v] = square[v] = vec_t<T>{};
  });
}

template <typename E>
void plane_grad_sums(NormExtent work, NormRows<const E> grad_output, NormRows<const E> input,
                     NormCoefficients<computed_t<E>> by, NormActivationGrad<E> before, double* sum, double* product) {
  visit_before(before,
               [&](auto how) { plane_grad_sums<decltype(how)>(work, grad_output, input, by, before, sum, product); });
}

template <typename E>
void plane_normalize(NormExtent work, NormCoefficients<computed_t<E>> by, Activation activation,
                     NormRows<const E> input, NormRows<const E> residual, NormRows<E> output) {
  normalize<true>(work, by, activation, input, residual, output);
}

template <typename E>
void plane_input_grad(NormExtent work, NormGradCoefficients<computed_t<E>> by, bool accumulate,
                      NormRows<const E> grad_output, NormRows<const E> input, NormRows<E> grad_input) {
  input_grad<true>(work, by, accumulate, grad_output, input, grad_input);
}

#define D2L_INSTANTIATE(E)                                                                                          \
  template void column_centers(NormExtent, NormRows<const E>, computed_t<E>*);                                      \
  template void column_moments(NormExtent, NormRows<const E>, const computed_t<E>*, double*, double*);              \
  template void column_grad_sums(NormExtent, NormRows<const E>, NormRows<const E>, NormCoefficients<computed_t<E>>, \
                                 NormActivationGrad<E>, double*, double*);                                          \
  template void column_normalize(NormExtent, NormCoefficients<computed_t<E>>, Activation, NormRows<const E>,        \
                                 NormRows<const E>, NormRows<E>);                                                   \
  template void column_input_grad(NormExtent, NormGradCoefficients<computed_t<E>>, bool, NormRows<const E>,         \
                                  NormRows<const E>, NormRows<E>);                                                  \
  template void plane_center(NormExtent, NormRows<const E>, computed_t<E>*);                                        \
  template void plane_moments(NormExtent, NormRows<const E>, const computed_t<E>*, double*, double*);               \
  template void plane_grad_sums(NormExtent, NormRows<const E>, NormRows<const E>, NormCoefficients<computed_t<E>>,  \
                                NormActivationGrad<E>, double*, double*);                                           \
  template void plane_normalize(NormExtent, NormCoefficients<computed_t<E>>, Activation, NormRows<const E>,         \
                                NormRows<const E>, NormRows<E>);                                                    \
  template void plane_input_grad(NormExtent, NormGradCoefficients<computed_t<E>>, bool, NormRows<const E>,          \
                                 NormRows<const E>, NormRows<E>)

D2L_INSTANTIATE(float);
D2L_INSTANTIATE(double);
D2L_INSTANTIATE(BFloat16);

#undef D2L_INSTANTIATE

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
