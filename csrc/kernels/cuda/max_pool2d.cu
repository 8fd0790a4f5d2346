// Maximum pooling, its gradient, and the gathers that its other derivatives are made of.
//
//   output[n,c,p,q] = max over (r,s) of input[n,c, p*stride_h + r*dilation_h - pad_h, q*stride_w + s*dilation_w -
//   pad_w]
//
// over the taps on the map; adaptive windows likewise. A NaN wins, otherwise the first maximum in row-major order does.
// Fused: the offset r * S + s of the maximum is written with it, a byte per output (none in inference; torch keeps
// eight bytes). The gradient looks, for every input, at the windows that hold it, and adds where the offset
// points back: nothing is cleared first, no atomics, sums in row-major order of the windows: deterministic.
//
// Bytes: forward reads N*C*H*W elements and writes N*C*P*Q (+ offsets); backward the reverse. Comparisons: R*S per
// output; memory-bound. Threads: one per 16 bytes of channels of an output (input, for the gradient) pixel, channels
// fastest, or one per element where channels do not fill packs and in NCHW, columns fastest there. Values are compared
// and gradients summed in float32 (float64 for float64).
#include "kernels/cuda/pool2d.h"

#include <cmath>

#include "kernels/cuda/pool2d.cuh"

namespace d2l::cuda {
namespace {

using namespace pool2d;

// In the place of an offset type: offsets are not wanted.
struct NoOffset {};

template <typename T, typename Offset, int kPack, typename Index>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    max_pool2d_kernel(Geometry<Index> shape, Index packs, const T* __restrict__ input, T* __restrict__ output,
                      Offset* __restrict__ offsets) {
  using Value = accumulate_t<T>;
  constexpr bool kWithOffsets = !std::is_same_v<Offset, NoOffset>;
  const Index C = shape.C, row_elements = shape.columns.size * C;
  const int S = static_cast<int>(shape.columns.taps);
  for (Index i = first_index<Index>(); i < packs; i += index_step<Index>()) {
    const auto [n, p, q, c] = place_of<kPack>(i, shape.rows.windows, shape.columns.windows, C);
    const Taps<Index> rows = shape.rows.taps_on_map(p), columns = shape.columns.taps_on_map(q);
    Value best[kPack];
    int place[kPack];
    for (int v = 0; v < kPack; ++v) {
      best[v] = static_cast<Value>(-INFINITY);
      place[v] = static_cast<int>(rows.tap) * S + static_cast<int>(columns.tap);
    }
    const T* row = input + (n * shape.rows.size + rows.position) * row_elements + columns.position * C + c;
    for (Index r = rows.tap; r < rows.tap_end; ++r, row += shape.rows.dilation * row_elements) {
      const T* pixel = row;
      for (Index s = columns.tap; s < columns.tap_end; ++s, pixel += shape.columns.dilation * C) {
        const Pack<T, kPack> values = load_pack<T, kPack>(pixel);
        const int offset = static_cast<int>(r) * S + static_cast<int>(s);
        for (int v = 0; v < kPack; ++v) {
          const Value value = widen(values[v]);
          if (value > best[v] || value != value) {
            best[v] = value;
            if constexpr (kWithOffsets) place[v] = offset;
          }
        }
      }
    }
    Pack<T, kPack> result;
    for (int v = 0; v < kPack; ++v) result[v] = narrow<T>(best[v]);
    store_pack(output + i * kPack, result);
    if constexpr (kWithOffsets) {
      Pack<Offset, kPack> places;
      for (int v = 0; v < kPack; ++v) places[v] = static_cast<Offset>(place[v]);
      store_pack(offsets + i * kPack, places);
    }
  }
}

template <typename T, typename Offset, int kPack, typename Index>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    max_pool2d_input_grad_kernel(Geometry<Index> shape, Index packs, const T* __restrict__ grad_output,
                                 const Offset* __restrict__ offsets, T* __restrict__ grad_input) {
  using Value = accumulate_t<T>;
  const Index P = shape.rows.windows, Q = shape.columns.windows, C = shape.C;
  const int S = static_cast<int>(shape.columns.taps);
  for (Index i = first_index<Index>(); i < packs; i += index_step<Index>()) {
    const auto [n, h, w, c] = place_of<kPack>(i, shape.rows.size, shape.columns.size, C);
    const Cover<Index> rows = shape.rows.windows_over(h), columns = shape.columns.windows_over(w);
    Value sums[kPack] = {};
    for (Index p = rows.first; p <= rows.last; ++p) {
      const Index r = shape.rows.tap_at(p, h);
      if (r < 0) continue;
      for (Index q = columns.first; q <= columns.last; ++q) {
        const Index s = shape.columns.tap_at(q, w);
        if (s < 0) continue;
        const int offset = static_cast<int>(r) * S + static_cast<int>(s);
        const Index at = ((n * P + p) * Q + q) * C + c;
        const Pack<Offset, kPack> places = load_pack<Offset, kPack>(offsets + at);
        const Pack<T, kPack> gradients = load_pack<T, kPack>(grad_output + at);
        for (int v = 0; v < kPack; ++v) {
          if (static_cast<int>(places[v]) == offset) sums[v] += widen(gradients[v]);
        }
      }
    }
    Pack<T, kPack> result;
    for (int v = 0; v < kPack; ++v) result[v] = narrow<T>(sums[v]);
    store_pack(grad_input + i * kPack, result);
  }
}

struct Source {
  int64_t h, w;
};

// The remembered place of an output element. A dilated window may lie wholly off the map; so does its place then.
template <typename Offset>
__device__ __forceinline__ Source source_of(const Geometry<int64_t>& shape, const Place<int64_t>& place,
                                            Offset offset) {
  const int S = static_cast<int>(shape.columns.taps), tap = static_cast<int>(offset);
  return {shape.rows.begin(place.row) + tap / S * shape.rows.dilation,
          shape.columns.begin(place.column) + tap % S * shape.columns.dilation};
}

template <typename T, typename Offset>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    max_pool2d_gather_kernel(Geometry<int64_t> shape, int64_t elements, const T* __restrict__ input,
                             const Offset* __restrict__ offsets, T* __restrict__ output) {
  const int64_t H = shape.rows.size, W = shape.columns.size, C = shape.C;
  for (int64_t i = first_index<int64_t>(); i < elements; i += index_step<int64_t>()) {
    const Place<int64_t> place = place_of<1>(i, shape.rows.windows, shape.columns.windows, C);
    const auto [h, w] = source_of(shape, place, offsets[i]);
    const bool on_map = h >= 0 && h < H && w >= 0 && w < W;
    output[i] = on_map ? input[((place.n * H + h) * W + w) * C + place.c] : narrow<T>(0);
  }
}

template <typename Offset>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    max_pool2d_indices_kernel(Geometry<int64_t> shape, int64_t elements, const Offset* __restrict__ offsets,
                              int64_t* __restrict__ indices) {
  for (int64_t i = first_index<int64_t>(); i < elements; i += index_step<int64_t>()) {
    const Place<int64_t> place = place_of<1>(i, shape.rows.windows, shape.columns.windows, shape.C);
    const auto [h, w] = source_of(shape, place, offsets[i]);
    indices[i] = h * shape.columns.size + w;
  }
}

// As choose_instance of pool2d.cuh; large windows, which alone need wide offsets, have one instance for all cases: in
// them few threads have much to do, and packs would leave even fewer.
template <typename T, typename Offset, typename Function>
LaunchStatus choose_instance(const Pool2dShape& shape, const T* a, const T* b, const Offset* offsets,
                             Function&& function) {
  if constexpr (std::is_same_v<Offset, int32_t>) {
    return function(TypeTag<int64_t>{}, std::integral_constant<int, 1>{});
  } else {
    constexpr size_t kPack = kPackBytes / sizeof(T);
    const bool aligned =
        is_aligned(a, kPackBytes) && is_aligned(b, kPackBytes) && is_aligned(offsets, kPack * sizeof(Offset));
    return pool2d::choose_instance<T>(shape, aligned, function);
  }
}

template <typename T, typename Offset>
LaunchStatus launch_max_pool2d(const Pool2dShape& shape, const void* input, void* output, void* offsets,
                               Stream stream) {
  const T* const from = static_cast<const T*>(input);
  T* const to = static_cast<T*>(output);
  Offset* const places = static_cast<Offset*>(offsets);
  return choose_instance(shape, from, to, places, [&](auto index, auto pack) {
    using Index = typename decltype(index)::type;
    constexpr int kPack = decltype(pack)::value;
    const int64_t packs = output_elements(shape) / kPack;
    const dim3 grid = grid_for(packs), block(kThreads);
    D2L_LAUNCH((max_pool2d_kernel<T, Offset, kPack, Index>), grid, block, 0, stream, Geometry<Index>(shape),
               static_cast<Index>(packs), from, to, places);
    return launched(grid, block);
  });
}

template <typename T, typename Offset>
LaunchStatus launch_max_pool2d_input_grad(const Pool2dShape& shape, const void* grad_output, const void* offsets,
                                          void* grad_input, Stream stream) {
  const T* const from = static_cast<const T*>(grad_output);
  T* const to = static_cast<T*>(grad_input);
  const Offset* const places = static_cast<const Offset*>(offsets);
  return choose_instance(shape, from, to, places, [&](auto index, auto pack) {
    using Index = typename decltype(index)::type;
    constexpr int kPack = decltype(pack)::value;
    const int64_t packs = input_elements(shape) / kPack;
    const dim3 grid = grid_for(packs), block(kThreads);
    D2L_LAUNCH((max_pool2d_input_grad_kernel<T, Offset, kPack, Index>), grid, block, 0, stream, Geometry<Index>(shape),
               static_cast<Index>(packs), from, places, to);
    return launched(grid, block);
  });
}

// Calls function(TypeTag<Offset>{}).
template <typename Function>
LaunchStatus with_offset_type(bool wide_offsets, Function&& function) {
  return wide_offsets ? function(TypeTag<int32_t>{}) : function(TypeTag<uint8_t>{});
}

}  // namespace

LaunchStatus max_pool2d(const Pool2dShape& shape, Layout layout, DType dtype, const void* input, void* output,
                        void* offsets, bool wide_offsets, Stream stream) {
  if (output_elements(shape) == 0) return {};
  const Pool2dShape nhwc = as_nhwc(shape, layout);
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if (offsets == nullptr) return launch_max_pool2d<T, NoOffset>(nhwc, input, output, offsets, stream);
    return with_offset_type(wide_offsets, [&](auto offset) {
      return launch_max_pool2d<T, typename decltype(offset)::type>(nhwc, input, output, offsets, stream);
    });
  });
}

LaunchStatus max_pool2d_input_grad(const Pool2dShape& shape, Layout layout, DType dtype, const void* grad_output,
                                   const void* offsets, bool wide_offsets, void* grad_input, Stream stream) {
  if (input_elements(shape) == 0) return {};
  const Pool2dShape nhwc = as_nhwc(shape, layout);
  return dispatch(dtype, [&](auto type) {
    return with_offset_type(wide_offsets, [&](auto offset) {
      return launch_max_pool2d_input_grad<typename decltype(type)::type, typename decltype(offset)::type>(
          nhwc, grad_output, offsets, grad_input, stream);
    });
  });
}

LaunchStatus max_pool2d_gather(const Pool2dShape& shape, Layout layout, DType dtype, const void* input,
                               const void* offsets, bool wide_offsets, void* output, Stream stream) {
  const int64_t elements = output_elements(shape);
  if (elements == 0) return {};
  const Pool2dShape nhwc = as_nhwc(shape, layout);
  return dispatch(dtype, [&](auto type) {
    return with_offset_type(wide_offsets, [&](auto offset) {
      using T = typename decltype(type)::type;
      using Offset = typename decltype(offset)::type;
      const dim3 grid = grid_for(elements), block(kThreads);
      D2L_LAUNCH((max_pool2d_gather_kernel<T, Offset>), grid, block, 0, stream, Geometry<int64_t>(nhwc), elements,
                 static_cast<const T*>(input), static_cast<const Offset*>(offsets), static_cast<T*>(output));
      return launched(grid, block);
    });
  });
}

LaunchStatus max_pool2d_indices(const Pool2dShape& shape, Layout layout, const void* offsets, bool wide_offsets,
                                int64_t* indices, Stream stream) {
  const int64_t elements = output_elements(shape);
  if (elements == 0) return {};
  const Pool2dShape nhwc = as_nhwc(shape, layout);
  return with_offset_type(wide_offsets, [&](auto offset) {
    using Offset = typename decltype(offset)::type;
    const dim3 grid = grid_for(elements), block(kThreads);
    D2L_LAUNCH((max_pool2d_indices_kernel<Offset>), grid, block, 0, stream, Geometry<int64_t>(nhwc), elements,
               static_cast<const Offset*>(offsets), indices);
    return launched(grid, block);
  });
}

}  // namespace d2l::cuda
