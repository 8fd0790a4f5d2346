// Average pooling and its gradient.
//
//   output[n,c,p,q] = (sum over the taps on the map of input[n,c,h,w]) / divisor(p,q)
//   grad_input[n,c,h,w] = sum over the windows (p,q) that hold (h,w) of grad_output[n,c,p,q] / divisor(p,q)
//
// divisor: divisor_override if there is one; else the taps on the map, and with count_include_pad those on the padding
// too. The gradient is gathered: nothing is cleared first, no atomics, sums in row-major order: deterministic.
//
// Bytes: each tensor once. FLOPs: R*S per output, memory-bound. Threads: one per 16 bytes of channels of an output
// (input, for the gradient) pixel, channels fastest, or one per element where channels do not fill packs and in NCHW,
// columns fastest there. Sums are float32 (float64 for float64), rounded once.
#include "kernels/cuda/pool2d.cuh"
#include "kernels/cuda/pool2d.h"

namespace d2l::cuda {
namespace {

using namespace pool2d;

template <typename Index>
struct AvgGeometry : Geometry<Index> {
  bool count_include_pad;
  int64_t divisor_override;

  explicit AvgGeometry(const Pool2dShape& shape)
      : Geometry<Index>(shape), count_include_pad(shape.count_include_pad), divisor_override(shape.divisor_override) {}

  // Taps of one window along one axis that its divisor counts.
  __device__ __forceinline__ Index counted(const Axis<Index>& axis, Index window) const {
    if (count_include_pad) return axis.taps_with_padding(window);
    const Taps<Index> taps = axis.taps_on_map(window);
    return taps.tap_end - taps.tap;
  }

  template <typename Value>
  __device__ __forceinline__ Value divisor(Index counted_rows, Index counted_columns) const {
    return divisor_override != 0 ? static_cast<Value>(divisor_override)
                                 : static_cast<Value>(counted_rows) * static_cast<Value>(counted_columns);
  }
};

template <typename T, int kPack, typename Index>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    avg_pool2d_kernel(AvgGeometry<Index> shape, Index packs, const T* __restrict__ input, T* __restrict__ output) {
  using Value = accumulate_t<T>;
  const Index C = shape.C, row_elements = shape.columns.size * C;
  for (Index i = first_index<Index>(); i < packs; i += index_step<Index>()) {
    const auto [n, p, q, c] = place_of<kPack>(i, shape.rows.windows, shape.columns.windows, C);
    const Taps<Index> rows = shape.rows.taps_on_map(p), columns = shape.columns.taps_on_map(q);
    Value sums[kPack] = {};
    const T* row = input + (n * shape.rows.size + rows.position) * row_elements + columns.position * C + c;
    for (Index r = rows.tap; r < rows.tap_end; ++r, row += shape.rows.dilation * row_elements) {
      const T* pixel = row;
      for (Index s = columns.tap; s < columns.tap_end; ++s, pixel += shape.columns.dilation * C) {
        const Pack<T, kPack> values = load_pack<T, kPack>(pixel);
        for (int v = 0; v < kPack; ++v) sums[v] += widen(values[v]);
      }
    }
    const bool empty = rows.tap == rows.tap_end || columns.tap == columns.tap_end;  // all padding: 0, not 0 / 0
    const Value by =
        empty ? Value{1} : shape.template divisor<Value>(shape.counted(shape.rows, p), shape.counted(shape.columns, q));
    Pack<T, kPack> result;
    for (int v = 0; v < kPack; ++v) result[v] = narrow<T>(sums[v] / by);
    store_pack(output + i * kPack, result);
  }
}

template <typename T, int kPack, typename Index>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    avg_pool2d_input_grad_kernel(AvgGeometry<Index> shape, Index packs, const T* __restrict__ grad_output,
                                 T* __restrict__ grad_input) {
  using Value = accumulate_t<T>;
  const Index P = shape.rows.windows, Q = shape.columns.windows, C = shape.C;
  for (Index i = first_index<Index>(); i < packs; i += index_step<Index>()) {
    const auto [n, h, w, c] = place_of<kPack>(i, shape.rows.size, shape.columns.size, C);
    const Cover<Index> rows = shape.rows.windows_over(h), columns = shape.columns.windows_over(w);
    Value sums[kPack] = {};
    for (Index p = rows.first; p <= rows.last; ++p) {
      if (shape.rows.tap_at(p, h) < 0) continue;
      const Index counted_rows = shape.counted(shape.rows, p);
      for (Index q = columns.first; q <= columns.last; ++q) {
        if (shape.columns.tap_at(q, w) < 0) continue;
        const Value by = shape.template divisor<Value>(counted_rows, shape.counted(shape.columns, q));
        const Pack<T, kPack> gradients = load_pack<T, kPack>(grad_output + ((n * P + p) * Q + q) * C + c);
        for (int v = 0; v < kPack; ++v) sums[v] += widen(gradients[v]) / by;
      }
    }
    Pack<T, kPack> result;
    for (int v = 0; v < kPack; ++v) result[v] = narrow<T>(sums[v]);
    store_pack(grad_input + i * kPack, result);
  }
}

}  // namespace

LaunchStatus avg_pool2d(const Pool2dShape& shape, Layout layout, DType dtype, const void* input, void* output,
                        Stream stream) {
  if (output_elements(shape) == 0) return {};
  const Pool2dShape nhwc = as_nhwc(shape, layout);
  const bool aligned = is_aligned(input, kPackBytes) && is_aligned(output, kPackBytes);
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return choose_instance<T>(nhwc, aligned, [&](auto index, auto pack) {
      using Index = typename decltype(index)::type;
      constexpr int kPack = decltype(pack)::value;
      const int64_t packs = output_elements(nhwc) / kPack;
      const dim3 grid = grid_for(packs), block(kThreads);
      D2L_LAUNCH((avg_pool2d_kernel<T, kPack, Index>), grid, block, 0, stream, AvgGeometry<Index>(nhwc),
                 static_cast<Index>(packs), static_cast<const T*>(input), static_cast<T*>(output));
      return launched(grid, block);
    });
  });
}

LaunchStatus avg_pool2d_input_grad(const Pool2dShape& shape, Layout layout, DType dtype, const void* grad_output,
                                   void* grad_input, Stream stream) {
  if (input_elements(shape) == 0) return {};
  const Pool2dShape nhwc = as_nhwc(shape, layout);
  const bool aligned = is_aligned(grad_output, kPackBytes) && is_aligned(grad_input, kPackBytes);
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return choose_instance<T>(nhwc, aligned, [&](auto index, auto pack) {
      using Index = typename decltype(index)::type;
      constexpr int kPack = decltype(pack)::value;
      const int64_t packs = input_elements(nhwc) / kPack;
      const dim3 grid = grid_for(packs), block(kThreads);
      D2L_LAUNCH((avg_pool2d_input_grad_kernel<T, kPack, Index>), grid, block, 0, stream, AvgGeometry<Index>(nhwc),
                 static_cast<Index>(packs), static_cast<const T*>(grad_output), static_cast<T*>(grad_input));
      return launched(grid, block);
    });
  });
}

}  // namespace d2l::cuda
