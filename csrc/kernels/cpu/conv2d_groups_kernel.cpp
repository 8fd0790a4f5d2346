// The kernels of conv2d_groups.h.
//
// Correlation: a tile of some columns by one or more vectors of channels is summed in registers over the taps that its
// run of columns meets, so nothing in the inner loop asks about borders. A group's channels side by side in a vector of
// the source become depth vectors, one for each channel, by shuffles; a depthwise convolution needs none. Weight
// gradient: the taps of a row by some vectors are summed in registers along a run, then added to the sums of the part.
#include "kernels/cpu/conv2d_groups_kernel.h"

#include "kernels/cpu/activation.h"
#include "kernels/cpu/conv2d_groups_lanes.h"
#include "kernels/cpu/integers.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/progress_reporter.h"
#include "kernels/cpu/transpose.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

constexpr int64_t kGrain = 1 << 18;              // multiply-adds that are worth a thread
constexpr int64_t kTransposedBytes = 512 << 10;  // of the maps of a task, which are to stay in an L2 cache of 1 MB
constexpr int64_t kRowsBytes = 512 << 10;        // of rows that are computed some vectors after the other
constexpr int64_t kTapRowsBytes = 32 << 10;      // of some vectors of the rows under the taps
constexpr int64_t kFetchedBytes = 4 << 20;       // of a source whose rows are fetched ahead
constexpr int kTileColumns = kVectorBytes == 64 ? 8 : 4;
constexpr int kTileVectors = 2;  // with four columns 8 sums, which is what two multiply-adds a cycle wait for

template <typename T>
using lanes_t = decltype(vec_t<T>{} < vec_t<T>{});

// Pixels in NHWC of one image, or of some channels of it.
template <typename S>
struct Pixels {
  S* data;
  int64_t row, pixel;  // elements to the next
};

// What the vectors of a tile hold: the first of them, and the lanes that are not empty if there is one.
struct Vectors {
  int64_t first, source_lanes, result_lanes;
};

template <typename T>
Vectors vectors_from(const GroupsChannels<T>& channels, int64_t vector) {
  const int64_t groups = min(channels.groups_in_vector, channels.groups - vector * channels.groups_in_vector);
  return {vector, groups * channels.depth, groups * channels.width};
}

// Calls function(vectors, constant) with constants of kMost whole vectors of a depthwise convolution, or 1 vector.
template <int kMost, typename T, typename Function>
D2L_INLINE void for_vectors(const GroupsChannels<T>& channels, int64_t begin, int64_t end, Function&& function) {
  const int64_t whole = channels.is_depthwise() ? min(end, channels.groups / kLanes<T>) : begin;
  int64_t vector = begin;
  for (; vector + kMost <= whole; vector += kMost) {
    function(Vectors{vector, kLanes<T>, kLanes<T>}, std::integral_constant<int, kMost>{});
  }
  for (; vector < end; ++vector) function(vectors_from(channels, vector), std::integral_constant<int, 1>{});
}

template <typename T>
D2L_INLINE lanes_t<T> load_lane_numbers(const GroupsChannels<T>& channels, int64_t channel) {
  lanes_t<T> numbers;
  __builtin_memcpy(&numbers, channels.sources[channel], sizeof(numbers));
  return numbers;
}

// Calls function(taps, advance) with those of a depthwise convolution's run if its taps lie side by side, or zeros.
template <typename T, typename Function>
D2L_INLINE void visit_taps(const GroupsChannels<T>& channels, const ColumnRun& run, Function&& function) {
  constexpr std::integral_constant<int, 1> kOne{};
  constexpr std::integral_constant<int, 2> kTwo{};
  constexpr std::integral_constant<int, 3> kThree{};
  constexpr std::integral_constant<int, 4> kFour{};
  constexpr std::integral_constant<int, 5> kFive{};
  constexpr std::integral_constant<int, 7> kSeven{};
  const bool is_dense = channels.is_depthwise() && run.tap_count > 0 &&
                        run.taps[run.tap_count - 1].source - run.taps[0].source == run.tap_count - 1;
  const int64_t form = is_dense && run.advance <= 2 ? 10 * run.advance + run.tap_count : 0;
  switch (form) {
    case 11:
      return function(kOne, kOne);
    case 12:
      return function(kTwo, kOne);
    case 13:
      return function(kThree, kOne);
    case 14:
      return function(kFour, kOne);
    case 15:
      return function(kFive, kOne);
    case 17:
      return function(kSeven, kOne);
    case 23:
      return function(kThree, kTwo);
    case 25:
      return function(kFive, kTwo);
    default:
      return function(std::integral_constant<int, 0>{}, kOne);
  }
}

// ---- forward pass and input gradient -------------------------------------------------------------------------------

// Elements S of rows are E in NHWC, and T where NCHW is transposed.
template <typename E>
struct Correlator {
  using T = computed_t<E>;
  const GroupsCorrelation<E>& problem;
  const GroupsAxes& axes = problem.axes;
  const GroupsChannels<T>& channels = problem.channels;
  const int64_t vector_weights = axes.taps * channels.depth * kLanes<T>;  // elements
  static constexpr int64_t element_bytes = sizeof(E);
  const bool fetches =  // the rows of a source that does not stay in the L2 cache
      problem.source.layout == Layout::nhwc &&
      problem.images * axes.source_rows * axes.source_columns * problem.source.pixel * element_bytes >= kFetchedBytes;

  // Adds a row of taps that lie side by side: each pixel of the source is loaded once. With `fetches`, the pixels below
  // it that the next row of the result needs are on their way then.
  template <int kTaps, int kAdvance, int kColumns, int kVectors, typename S>
  D2L_INLINE void add_adjacent(const ColumnRun& run, const Pixels<const S>& source, const T* weights, bool fetches_here,
                               int64_t lanes, vec_t<T> (&sums)[kColumns][kVectors]) const {
    vec_t<T> w[kTaps][kVectors];
    for (int t = 0; t < kTaps; ++t) load_factors<S>(weights + run.taps[t].tap * kLanes<T>, vector_weights, w[t]);
    const S* from = source.data + run.taps[0].source * source.pixel;
#pragma GCC unroll 32
    for (int j = 0; j < (kColumns - 1) * kAdvance + kTaps; ++j, from += source.pixel) {
      vec_t<T> values[kVectors];
      read_vectors(from, lanes, values);
      if (fetches_here) prefetch_vectors<kVectors>(from, kAdvance * source.row);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        vec_t<T> value = values[v];
        keep_in_register(value);
#pragma GCC unroll 8
        for (int t = 0; t < kTaps; ++t) {
          const int i = (j - t) / kAdvance;
          if (j >= t && (j - t) % kAdvance == 0 && i < kColumns) sums[i][v] += value * w[t][v];
        }
      }
    }
  }

  // Adds one tap of a depthwise convolution.
  template <int kColumns, int kVectors, typename S>
  D2L_INLINE void add_tap(const S* from, int64_t step, const T* weights, int64_t lanes,
                          vec_t<T> (&sums)[kColumns][kVectors]) const {
    vec_t<T> w[kVectors], values[kVectors];
    load_factors<S>(weights, vector_weights, w);
    for (int i = 0; i < kColumns; ++i, from += step) {
      read_vectors(from, lanes, values);
      for (int v = 0; v < kVectors; ++v) sums[i][v] += values[v] * w[v];
    }
  }

  // Adds one tap of groups of several channels.
  template <int kColumns, typename S>
  D2L_INLINE void add_tap_of_groups(const S* from, int64_t step, const T* weights, int64_t lanes,
                                    vec_t<T> (&sums)[kColumns][1]) const {
    vec_t<T> values[kColumns];
    for (int i = 0; i < kColumns; ++i) values[i] = read_lanes<1>(from + i * step, lanes);
    for (int64_t j = 0; j < channels.depth; ++j) {
      const auto numbers = load_lane_numbers(channels, j);
      const vec_t<T> w = load(weights + j * kLanes<T>);
      for (int i = 0; i < kColumns; ++i) sums[i][0] += __builtin_shuffle(values[i], numbers) * w;
    }
  }

  // By way of memory: the loops over taps keep their sums in registers.
  template <int kColumns, int kVectors>
  D2L_INLINE void activate_sums(vec_t<T> (&sums)[kColumns][kVectors]) const {
    constexpr int kCount = kColumns * kVectors * kLanes<T>;
    alignas(kVectorBytes) T values[kCount];
    for (int i = 0; i < kColumns; ++i) {
      for (int v = 0; v < kVectors; ++v) store(values + (i * kVectors + v) * kLanes<T>, sums[i][v]);
    }
    activate(values, kCount, problem.activation);
    for (int i = 0; i < kColumns; ++i) {
      for (int v = 0; v < kVectors; ++v) sums[i][v] = load(values + (i * kVectors + v) * kLanes<T>);
    }
  }

  // kTaps and kAdvance are those of the run if its taps lie side by side, else kTaps is 0. `source` starts with the
  // first vector and column.
  template <int kTaps, int kAdvance, int kColumns, int kVectors, typename S>
  D2L_INLINE void tile(const Pixels<const S>& source, S* result, int64_t result_step, int64_t row, const ColumnRun& run,
                       const Vectors& vectors) const {
    vec_t<T> sums[kColumns][kVectors], bias[kVectors] = {};
    if (problem.bias != nullptr) load_factors<S>(problem.bias + vectors.first * kLanes<T>, kLanes<T>, bias);
    for (int i = 0; i < kColumns; ++i) {
      for (int v = 0; v < kVectors; ++v) sums[i][v] = bias[v];
    }
    const int64_t tap_weights = channels.depth * kLanes<T>, last = axes.row_begin[row + 1];
    for (int64_t r = axes.row_begin[row]; r < last; ++r) {
      const Pixels<const S> line{source.data + axes.row_taps[r].source * source.row, source.row, source.pixel};
      const T* const weights =
          problem.weight + vectors.first * vector_weights + axes.row_taps[r].tap * axes.taps_in_row * tap_weights;
      if constexpr (kTaps > 0) {
        add_adjacent<kTaps, kAdvance>(run, line, weights, fetches && r + kAdvance >= last, vectors.source_lanes, sums);
      } else {
        for (int64_t s = 0; s < run.tap_count; ++s) {
          const S* const from = line.data + run.taps[s].source * source.pixel;
          const T* const w = weights + run.taps[s].tap * tap_weights;
          const int64_t step = run.advance * source.pixel;
          if constexpr (kVectors == 1) {
            if (!channels.is_depthwise()) {
              add_tap_of_groups(from, step, w, vectors.source_lanes, sums);
              continue;
            }
          }
          add_tap(from, step, w, vectors.source_lanes, sums);
        }
      }
    }
    if (kIsRounded<S> && problem.activation != Activation::none) activate_sums(sums);
    for (int i = 0; i < kColumns; ++i) {
      S* const to = result + i * result_step;
      if (fetches) prefetch_vectors<kVectors>(to, axes.result_columns * problem.result.pixel);
      write_vectors(to, sums[i], vectors.result_lanes);
    }
  }

  // A row of the result, of the vectors [begin, end). `source` and `result` start with vector 0.
  template <typename S>
  void run_row(const Pixels<const S>& source, S* result, int64_t result_pixel, int64_t row, int64_t begin,
               int64_t end) const {
    const int64_t source_vector = channels.groups_in_vector * channels.depth;
    const int64_t result_vector = channels.groups_in_vector * channels.width;
    for (int64_t k = 0; k < axes.run_count; ++k) {
      const ColumnRun& run = axes.runs[k];
      const int64_t step = run.advance * source.pixel;
      visit_taps(channels, run, [&](auto taps, auto advance) D2L_INLINE_LAMBDA {
        int64_t column = 0;
        const auto take = [&](auto columns) D2L_INLINE_LAMBDA {
          const S* const from = source.data + column * step;
          S* const to = result + (run.first + column * run.step) * result_pixel;
          for_vectors<kTileVectors>(channels, begin, end, [&](const Vectors& vectors, auto count) D2L_INLINE_LAMBDA {
            tile<decltype(taps)::value, decltype(advance)::value, decltype(columns)::value, decltype(count)::value>(
                Pixels<const S>{from + vectors.first * source_vector, source.row, source.pixel},
                to + vectors.first * result_vector, run.step * result_pixel, row, run, vectors);
          });
          column += decltype(columns)::value;
        };
        while (column < run.count) {
          const int64_t left = run.count - column;
          if (left >= kTileColumns) {
            take(std::integral_constant<int, kTileColumns>{});
          } else if (left >= 4) {
            take(std::integral_constant<int, 4>{});
          } else if (left >= 2) {
            take(std::integral_constant<int, 2>{});
          } else {
            take(std::integral_constant<int, 1>{});
          }
        }
      });
    }
    if constexpr (!kIsRounded<S>) activate_row(result, result_pixel, begin, end);
  }

  void activate_row(T* result, int64_t result_pixel, int64_t begin, int64_t end) const {
    if (problem.activation == Activation::none) return;
    const int64_t result_vector = channels.groups_in_vector * channels.width;
    const int64_t count =
        min(end * channels.groups_in_vector, channels.groups) * channels.width - begin * result_vector;
    for (int64_t column = 0; column < axes.result_columns; ++column) {
      activate(result + column * result_pixel + begin * result_vector, count, problem.activation);
    }
  }

  // Rows [begin, end) of the result, counted over all images: some of them at a time, which stay in the L2 cache, and
  // of these some vectors, whose rows stay in the first cache while they are under the taps.
  void run_rows(int64_t begin, int64_t end) const {
    const int64_t source_row = axes.source_columns * problem.source.pixel;
    const int64_t result_row = axes.result_columns * problem.result.pixel;
    const int64_t together = vectors_in_cache();
    const int64_t rows = max(1, kRowsBytes / (element_bytes * (source_row + result_row)));
    ProgressReporter reporter(problem.progress, begin * axes.result_columns);
    for (int64_t first = begin, last; first < end; first = last) {
      const int64_t image = first / axes.result_rows;
      last = min(min(first + rows, end), (image + 1) * axes.result_rows);
      const Pixels<const E> source{problem.source.data + image * axes.source_rows * source_row, source_row,
                                   problem.source.pixel};
      for (int64_t vector = 0; vector < channels.vectors; vector += together) {
        for (int64_t i = first; i < last; ++i) {
          run_row(source, problem.result.data + i * result_row, problem.result.pixel, i - image * axes.result_rows,
                  vector, min(vector + together, channels.vectors));
        }
      }
      reporter.finished(last * axes.result_columns);
    }
  }

  int64_t vectors_in_cache() const {
    const int64_t rows = axes.taps / axes.taps_in_row;
    const int64_t lanes = rows * axes.source_columns * channels.depth + axes.result_columns * channels.width;
    const int64_t fitting = kTapRowsBytes / (lanes * channels.groups_in_vector * element_bytes);
    return max(1, fitting / kTileVectors) * kTileVectors;
  }

  // NCHW: the channels of the vectors [begin, end) of an image.
  void run_planes(int64_t image, int64_t begin, int64_t end) const {
    const int64_t groups_begin = begin * channels.groups_in_vector;
    const int64_t groups = min(end * channels.groups_in_vector, channels.groups) - groups_begin;
    const int64_t depth = groups * channels.depth, width = groups * channels.width;
    const int64_t source_pixels = axes.source_rows * axes.source_columns;
    const int64_t result_pixels = axes.result_rows * axes.result_columns;
    const int64_t elements = source_pixels * depth + result_pixels * width;
    T* const source = static_cast<T*>(workspace(Workspace::task, elements * static_cast<int64_t>(sizeof(T))));
    T* const result = source + source_pixels * depth;
    const int64_t first = image * channels.groups + groups_begin;
    transpose<T>(problem.source.data + first * channels.depth * source_pixels, source_pixels, depth, source_pixels,
                 source, depth);
    const Pixels<const T> pixels{source - groups_begin * channels.depth, axes.source_columns * depth, depth};
    for (int64_t row = 0; row < axes.result_rows; ++row) {
      run_row<T>(pixels, result + row * axes.result_columns * width - groups_begin * channels.width, width, row, begin,
                 end);
    }
    transpose<T>(result, width, result_pixels, width, problem.result.data + first * channels.width * result_pixels,
                 result_pixels);
  }
};

// Vectors whose channels are transposed together.
template <typename T>
int64_t transposed_vectors(const GroupsAxes& axes, const GroupsChannels<T>& channels) {
  const int64_t pixels =
      axes.source_rows * axes.source_columns * channels.depth + axes.result_rows * axes.result_columns * channels.width;
  const int64_t bytes = pixels * channels.groups_in_vector * static_cast<int64_t>(sizeof(T));
  return clamp(kTransposedBytes / bytes, 1, min(kTileVectors, channels.vectors));
}

// ---- weight gradient -----------------------------------------------------------------------------------------------

// As many as leave registers for the sums of the taps of a row and four columns of grad_output.
constexpr int kGradientVectors = kVectorBytes == 64 ? 2 : 1;
constexpr int kGradientColumns = 4;

// Calls function(constant) with count, which is 1 to kMost.
template <int kMost, typename Function>
D2L_INLINE void visit_count(int64_t count, Function&& function) {
  if constexpr (kMost == 1) {
    function(std::integral_constant<int, 1>{});
  } else {
    if (count == kMost) {
      function(std::integral_constant<int, kMost>{});
    } else {
      visit_count<kMost - 1>(count, function);
    }
  }
}

template <typename E>
struct WeightGradientSums {
  using T = computed_t<E>;
  const GroupsWeightGradient<E>& problem;
  const GroupsAxes& axes = problem.axes;
  const GroupsChannels<T>& channels = problem.channels;
  const int64_t vector_sums = axes.taps * channels.depth * kLanes<T>;  // elements

  // Adds up kTaps taps that lie side by side, for columns of grad_output that are kAdvance pixels apart in the input.
  template <int kTaps, int kAdvance, int kVectors, typename S>
  D2L_INLINE void add_depthwise(const S* input, int64_t input_pixel, const S* grad_output, int64_t grad_step,
                                int64_t columns, int64_t lanes, T* sums) const {
    vec_t<T> totals[kTaps][kVectors] = {};
    const auto add = [&](auto constant, int64_t column) D2L_INLINE_LAMBDA {
      constexpr int kColumns = decltype(constant)::value;
      vec_t<T> gradients[kColumns][kVectors];
      for (int i = 0; i < kColumns; ++i) {
        for (int v = 0; v < kVectors; ++v) {
          gradients[i][v] = read_lanes<kVectors>(grad_output + (column + i) * grad_step + v * kLanes<T>, lanes);
        }
      }
      const S* from = input + column * kAdvance * input_pixel;
#pragma GCC unroll 16
      for (int j = 0; j < (kColumns - 1) * kAdvance + kTaps; ++j, from += input_pixel) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          vec_t<T> value = read_lanes<kVectors>(from + v * kLanes<T>, lanes);
          keep_in_register(value);
#pragma GCC unroll 8
          for (int t = 0; t < kTaps; ++t) {
            const int i = (j - t) / kAdvance;
            if (j >= t && (j - t) % kAdvance == 0 && i < kColumns) totals[t][v] += value * gradients[i][v];
          }
        }
      }
    };
    int64_t column = 0;
    for (; column + kGradientColumns <= columns; column += kGradientColumns) {
      add(std::integral_constant<int, kGradientColumns>{}, column);
    }
    for (; column < columns; ++column) add(std::integral_constant<int, 1>{}, column);
    for (int t = 0; t < kTaps; ++t) {
      for (int v = 0; v < kVectors; ++v) {
        T* const to = sums + v * vector_sums + t * kLanes<T>;
        store(to, load(to) + totals[t][v]);
      }
    }
  }

  template <int kDepth, typename S>
  D2L_INLINE void add_groups(const S* input, int64_t input_step, const S* grad_output, int64_t grad_step,
                             int64_t columns, const Vectors& vectors, T* sums) const {
    lanes_t<T> lanes[kDepth];
    for (int j = 0; j < kDepth; ++j) lanes[j] = load_lane_numbers(channels, j);
    vec_t<T> totals[kDepth] = {};
    for (int64_t column = 0; column < columns; ++column) {
      const vec_t<T> gradient = read_lanes<1>(grad_output + column * grad_step, vectors.result_lanes);
      const vec_t<T> values = read_lanes<1>(input + column * input_step, vectors.source_lanes);
      for (int j = 0; j < kDepth; ++j) totals[j] += __builtin_shuffle(values, lanes[j]) * gradient;
    }
    for (int j = 0; j < kDepth; ++j) store(sums + j * kLanes<T>, load(sums + j * kLanes<T>) + totals[j]);
  }

  // Adds a row of grad_output, of the vectors [begin, end), with which `input`, `grad_output` and `sums` start.
  template <typename S>
  void add_row(const Pixels<const S>& input, const S* grad_output, int64_t grad_pixel, int64_t row, int64_t begin,
               int64_t end, T* sums) const {
    const int64_t input_vector = channels.groups_in_vector * channels.depth;
    const int64_t grad_vector = channels.groups_in_vector * channels.width;
    for (int64_t k = 0; k < axes.run_count; ++k) {
      const ColumnRun& run = axes.runs[k];
      const int64_t input_step = run.advance * input.pixel, grad_step = run.step * grad_pixel;
      const S* const gradients = grad_output + run.first * grad_pixel;
      for (int64_t r = axes.row_begin[row]; r < axes.row_begin[row + 1]; ++r) {
        const S* const line = input.data + axes.row_taps[r].source * input.row;
        T* const row_sums = sums + axes.row_taps[r].tap * axes.taps_in_row * channels.depth * kLanes<T>;
        if (!channels.is_depthwise()) {
          for (int64_t vector = begin; vector < end; ++vector) {
            const int64_t offset = vector - begin;
            const Vectors vectors = vectors_from(channels, vector);
            for (int64_t s = 0; s < run.tap_count; ++s) {
              visit_count<GroupsChannels<T>::kMostDepth>(channels.depth, [&](auto depth) D2L_INLINE_LAMBDA {
                add_groups<decltype(depth)::value>(
                    line + run.taps[s].source * input.pixel + offset * input_vector, input_step,
                    gradients + offset * grad_vector, grad_step, run.count, vectors,
                    row_sums + offset * vector_sums + run.taps[s].tap * channels.depth * kLanes<T>);
              });
            }
          }
          continue;
        }
        visit_taps(channels, run, [&](auto taps, auto advance) D2L_INLINE_LAMBDA {
          constexpr int kTaps = decltype(taps)::value, kAdvance = decltype(advance)::value;
          // Taps that do not lie side by side one by one, and then the columns are as far apart as it takes.
          const int64_t pixel = kTaps > 0 ? input.pixel : input_step;
          for (int64_t s = 0; s < run.tap_count; s += max(kTaps, 1)) {
            const S* const from = line + run.taps[s].source * input.pixel;
            T* const to = row_sums + run.taps[s].tap * kLanes<T>;
            for_vectors<kGradientVectors>(channels, begin, end,
                                          [&](const Vectors& vectors, auto together) D2L_INLINE_LAMBDA {
                                            const int64_t offset = vectors.first - begin;
                                            add_depthwise<max(kTaps, 1), kAdvance, decltype(together)::value>(
                                                from + offset * kLanes<T>, pixel, gradients + offset * kLanes<T>,
                                                grad_step, run.count, vectors.source_lanes, to + offset * vector_sums);
                                          });
          }
        });
      }
    }
  }

  T* sums_of(int64_t part, int64_t vector) const {
    return problem.sums + (part * channels.vectors + vector) * vector_sums;
  }

  void clear(int64_t part, int64_t begin, int64_t end) const {
    T* const sums = sums_of(part, begin);
    for (int64_t i = 0; i < (end - begin) * vector_sums; ++i) sums[i] = 0;
  }

  void run_part_of_rows(int64_t part) const {
    const int64_t rows = problem.images * axes.result_rows;
    const int64_t input_row = axes.source_columns * problem.input.pixel;
    clear(part, 0, channels.vectors);
    for (int64_t i = part * rows / problem.parts; i < (part + 1) * rows / problem.parts; ++i) {
      const int64_t image = i / axes.result_rows;
      add_row(
          Pixels<const E>{problem.input.data + image * axes.source_rows * input_row, input_row, problem.input.pixel},
          problem.grad_output.data + i * axes.result_columns * problem.grad_output.pixel, problem.grad_output.pixel,
          i % axes.result_rows, 0, channels.vectors, sums_of(part, 0));
    }
  }

  // NCHW: a part of the images, and the channels of the vectors [begin, end).
  void run_part_of_images(int64_t part, int64_t begin, int64_t end) const {
    const int64_t groups_begin = begin * channels.groups_in_vector;
    const int64_t groups = min(end * channels.groups_in_vector, channels.groups) - groups_begin;
    const int64_t depth = groups * channels.depth, width = groups * channels.width;
    const int64_t input_pixels = axes.source_rows * axes.source_columns;
    const int64_t output_pixels = axes.result_rows * axes.result_columns;
    const int64_t elements = input_pixels * depth + output_pixels * width;
    T* const input = static_cast<T*>(workspace(Workspace::task, elements * static_cast<int64_t>(sizeof(T))));
    T* const grad_output = input + input_pixels * depth;
    clear(part, begin, end);
    for (int64_t image = part * problem.images / problem.parts; image < (part + 1) * problem.images / problem.parts;
         ++image) {
      const int64_t first = image * channels.groups + groups_begin;
      transpose<T>(problem.input.data + first * channels.depth * input_pixels, input_pixels, depth, input_pixels, input,
                   depth);
      transpose<T>(problem.grad_output.data + first * channels.width * output_pixels, output_pixels, width,
                   output_pixels, grad_output, width);
      for (int64_t row = 0; row < axes.result_rows; ++row) {
        add_row<T>({input, axes.source_columns * depth, depth}, grad_output + row * axes.result_columns * width, width,
                   row, begin, end, sums_of(part, begin));
      }
    }
  }
};

// Multiply-adds of a pixel of the forward result, at most.
template <typename T>
int64_t multiply_adds(const GroupsAxes& axes, const GroupsChannels<T>& channels) {
  return channels.vectors * kLanes<T> * channels.depth * axes.taps;
}

}  // namespace

template <typename E>
void correlate_groups(const GroupsCorrelation<E>& problem) {
  const Correlator<E> correlator{problem};
  const GroupsAxes& axes = problem.axes;
  const int64_t row_cost = axes.result_columns * multiply_adds(axes, problem.channels);
  if (problem.source.layout == Layout::nhwc) {
    parallel_for(0, problem.images * axes.result_rows, max(1, kGrain / row_cost),
                 [&](int64_t begin, int64_t end) { correlator.run_rows(begin, end); });
    return;
  }
  const int64_t together = transposed_vectors(axes, problem.channels);
  const int64_t blocks = ceil_div(problem.channels.vectors, together);
  const int64_t block_cost = axes.result_rows * row_cost / blocks;
  parallel_for(0, problem.images * blocks, max(1, kGrain / max(1, block_cost)), [&](int64_t begin, int64_t end) {
    const int64_t image_pixels = axes.result_rows * axes.result_columns;
    ProgressReporter reporter(problem.progress, ceil_div(begin, blocks) * image_pixels);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % blocks * together;
      correlator.run_planes(task / blocks, first, min(first + together, problem.channels.vectors));
      reporter.finished((task + 1) / blocks * image_pixels);
    }
    trim_workspace(Workspace::task);
  });
}

template <typename E>
void weight_gradient_groups(const GroupsWeightGradient<E>& problem) {
  const WeightGradientSums<E> gradient{problem};
  const GroupsAxes& axes = problem.axes;
  const int64_t cost = problem.images * axes.result_rows * axes.result_columns * multiply_adds(axes, problem.channels);
  if (problem.input.layout == Layout::nhwc) {
    parallel_for(0, problem.parts, max(1, kGrain / max(1, cost / problem.parts)), [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) gradient.run_part_of_rows(part);
    });
    return;
  }
  const int64_t together = transposed_vectors(axes, problem.channels);
  const int64_t blocks = ceil_div(problem.channels.vectors, together), tasks = problem.parts * blocks;
  parallel_for(0, tasks, max(1, kGrain / max(1, cost / tasks)), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % blocks * together;
      gradient.run_part_of_images(task / blocks, first, min(first + together, problem.channels.vectors));
    }
    trim_workspace(Workspace::task);
  });
}

#define D2L_INSTANTIATE(E)                                     \
  template void correlate_groups(const GroupsCorrelation<E>&); \
  template void weight_gradient_groups(const GroupsWeightGradient<E>&)
D2L_INSTANTIATE(float);
D2L_INSTANTIATE(double);
D2L_INSTANTIATE(BFloat16);
#undef D2L_INSTANTIATE

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
