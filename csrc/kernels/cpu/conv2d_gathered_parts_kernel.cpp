// 1x1 convolutions with a stride as matrix products (see conv2d_gathered.h).
//
// Forward, the pixels of the source that the stride meets become a matrix, and its product with the weight is the
// result. The input gradient multiplies all pixels of the source and spreads the products over the result, zeros
// between them. Either matrix exists for some rows of a map at a time. Threads: such blocks of rows.
#include "kernels/cpu/cache.h"
#include "kernels/cpu/conv2d_gathered.h"
#include "kernels/cpu/conv2d_strip.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/progress_reporter.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

constexpr int64_t kBlockBytes = 512 << 10;

D2L_INLINE int64_t bytes_of(int64_t elements) { return elements * static_cast<int64_t>(sizeof(float)); }

struct Driver {
  const Correlation<float>& problem;
  int64_t rows, columns;  // of the map whose pixels are multiplied, over all images
  int64_t stride;         // of the matrix
  int64_t block;          // rows of the map in it
  bool streams;           // the spread result

  explicit Driver(const Correlation<float>& p)
      : problem(p),
        rows(p.images * (p.transposed ? p.rows.source : p.rows.result)),
        columns(p.transposed ? p.columns.source : p.columns.result) {
    constexpr int64_t kAliased = 4096 / sizeof(float);
    stride = ceil_div(p.transposed ? p.width : p.depth, kLanes<float>) * kLanes<float>;
    if (stride % kAliased == 0) stride += kLanes<float>;
    const int64_t fitting = max(1, kBlockBytes / bytes_of(columns * stride)), threads = max_threads();
    block = ceil_div(rows, ceil_div(ceil_div(rows, fitting), threads) * threads);
    const int64_t elements = p.images * p.rows.result * p.columns.result * p.result_channels;
    streams = bytes_of(elements) >= kStreamedBytes && p.width % kLanes<float> == 0 &&
              p.result_channels % kLanes<float> == 0 && reinterpret_cast<uintptr_t>(p.result) % kVectorBytes == 0;
  }

  void run() const {
    parallel_for(0, ceil_div(rows, block), 1, [&](int64_t begin, int64_t end) {
      auto* const matrix = static_cast<float*>(workspace(Workspace::pixels, bytes_of(block * columns * stride)));
      ProgressReporter reporter(problem.progress, begin * block * columns);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i * block, last = min(rows, first + block), pixels = (last - first) * columns;
        if (problem.transposed) {
          multiply(pixels, problem.source + first * columns * problem.source_channels, problem.source_channels, matrix,
                   stride);
          for (int64_t row = first; row < last; ++row) spread(row, matrix + (row - first) * columns * stride);
        } else {
          for (int64_t row = first; row < last; ++row) gather(row, matrix + (row - first) * columns * stride);
          multiply(pixels, matrix, stride, problem.result + first * columns * problem.result_channels,
                   problem.result_channels);
          reporter.finished(last * columns);
        }
      }
      if (problem.transposed && streams) finish_streaming();
      trim_workspace(Workspace::pixels);
    });
  }

  void multiply(int64_t pixels, const float* from, int64_t from_stride, float* to, int64_t to_stride) const {
    gemm(Gemm<float>{pixels, problem.width, problem.depth, from, from_stride, 1, problem.weight, problem.weight_depth,
                     problem.weight_width, problem.bias, to, to_stride, problem.activation});
  }

  // The pixels that a row of the result meets.
  void gather(int64_t row, float* to) const {
    const int64_t image = row / problem.rows.result, y = row % problem.rows.result * problem.rows.stride;
    const Map<const float> map{
        problem.source, Layout::nhwc, problem.rows.source, problem.columns.source, problem.source_channels, 0,
        problem.depth};
    const int64_t pixel = (image * map.rows + y) * map.columns;
    copy_pixels(map, map.data + pixel * map.channels, columns, problem.columns.stride, to, stride);
  }

  // To the rows of the result that begin with this row of the source.
  void spread(int64_t row, const float* from) const {
    const int64_t image = row / problem.rows.source, y = row % problem.rows.source;
    const int64_t first = y * problem.rows.stride;
    const int64_t last = y + 1 == problem.rows.source ? problem.rows.result : first + problem.rows.stride;
    const int64_t pixel = (image * problem.rows.result + first) * problem.columns.result;
    float* to = problem.result + pixel * problem.result_channels;
    for (int64_t h = first; h < last; ++h) {
      for (int64_t x = 0; x < problem.columns.result; ++x, to += problem.result_channels) {
        const int64_t column = x / problem.columns.stride;
        const bool is_product = h == first && x % problem.columns.stride == 0 && column < columns;
        write_pixel(is_product ? from + column * stride : nullptr, to);
      }
    }
  }

  // Zeros, from null.
  void write_pixel(const float* from, float* to) const {
    for (int64_t i = 0; i < problem.width; i += kLanes<float>) {
      const int64_t lanes = min(kLanes<float>, problem.width - i);
      const vec_t<float> values = from == nullptr ? vec_t<float>{} : load_partial(from + i, lanes);
      if (streams) {
        store_streaming(to + i, values);
      } else {
        store_partial(to + i, values, lanes);
      }
    }
  }
};

}  // namespace

void correlate_gathered(const Correlation<float>& problem) { Driver(problem).run(); }

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
