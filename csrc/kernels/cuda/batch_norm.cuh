// What the kernels of batch normalisation share: which thread takes which elements, and the arithmetic of one channel.
//
// A block takes a slice of the values of a few neighbouring packs of channels (NHWC), or of one channel (NCHW). Its
// threads are (packs of channels, rows); the rows of a slice are pixels of all images, or packs of pixels. Slices
// depend on the shape alone, so that results are the same on every device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common.cuh"

namespace d2l::cuda::batch_norm {

constexpr int kThreads = 256;
// Blocks on a multiprocessor. Without a number ptxas spills registers to reach more than the memory pipes need.
constexpr int kMinBlocks = 2;
constexpr int kPackBytes = 16;
constexpr int kMaxColumns = 32;
// Enough blocks for the largest devices, few enough that joining their sums costs little.
constexpr int64_t kMaxBlocks = 1024;
constexpr int64_t kValuesPerBlock = 256;    // of a channel, at least
constexpr int64_t kChannelsPerBlock = 128;  // NHWC, at most about as many

// The type of statistics and of the sums of a block.
template <typename T>
struct Statistic {
  using type = double;
};
template <>
struct Statistic<__nv_bfloat16> {
  using type = float;
};
template <>
struct Statistic<__half> {
  using type = float;
};
template <typename T>
using statistic_t = typename Statistic<T>::type;

struct Work {
  int64_t C, pixels;
  int64_t rows, rows_per_slice;
  int64_t packs_per_plane;  // NCHW
  double eps, values;       // values per channel
  bool aligned;             // all maps to the size of a pack
};

struct Grid {
  dim3 grid, block;
  int64_t slices;
};

inline int64_t max_slices(const BatchNormShape& shape, Layout layout) {
  const int64_t blocks = layout == Layout::nhwc ? ceil_div(shape.C, kChannelsPerBlock) : shape.C;
  return std::clamp<int64_t>(ceil_div(shape.values(), kValuesPerBlock), 1,
                             std::max<int64_t>(1, kMaxBlocks / std::max<int64_t>(1, blocks)));
}

template <bool kNhwc, int kPack>
Work work_of(const BatchNormShape& shape, double eps, bool aligned) {
  const int64_t rows = kNhwc ? shape.values() : shape.values() / kPack;
  const int64_t slices = max_slices(shape, kNhwc ? Layout::nhwc : Layout::nchw);
  Work work{};
  work.C = shape.C;
  work.pixels = shape.pixels;
  work.rows = rows;
  work.rows_per_slice = ceil_div(rows, slices);
  work.packs_per_plane = shape.pixels / kPack;
  work.eps = eps;
  work.values = static_cast<double>(shape.values());
  work.aligned = aligned;
  return work;
}

template <bool kNhwc, int kPack>
Grid grid_of(const Work& work) {
  unsigned columns = 1;
  const int64_t packs = kNhwc ? work.C / kPack : work.C;
  while (kNhwc && columns < kMaxColumns && columns < packs) columns *= 2;
  const int64_t slices = ceil_div(work.rows, work.rows_per_slice);
  return {dim3(static_cast<unsigned>(ceil_div<int64_t>(packs, columns)), static_cast<unsigned>(slices)),
          dim3(columns, kThreads / columns), slices};
}

// Calls function(std::bool_constant<kNhwc>{}, std::integral_constant<int, kPack>{}): packs of 16 bytes where they fill
// a row, or a plane. Addresses have no say in it: sums have one order.
template <typename T, typename Function>
LaunchStatus choose_instance(const BatchNormShape& shape, Layout layout, Function&& function) {
  constexpr int kPack = kPackBytes / static_cast<int>(sizeof(T));
  const auto choose_pack = [&](auto nhwc, int64_t run) {
    return run % kPack == 0 ? function(nhwc, std::integral_constant<int, kPack>{})
                            : function(nhwc, std::integral_constant<int, 1>{});
  };
  return layout == Layout::nhwc ? choose_pack(std::true_type{}, shape.C) : choose_pack(std::false_type{}, shape.pixels);
}

template <int kPack, typename T>
__device__ __forceinline__ Pack<T, kPack> load_from(const T* from, bool aligned) {
  if (aligned) return load_pack<T, kPack>(from);
  Pack<T, kPack> pack;
  for (int v = 0; v < kPack; ++v) pack[v] = from[v];
  return pack;
}

template <int kPack, typename T>
__device__ __forceinline__ void store_to(T* to, const Pack<T, kPack>& pack, bool aligned) {
  if (aligned) return store_pack(to, pack);
  for (int v = 0; v < kPack; ++v) to[v] = pack[v];
}

// The packs of one thread, one after the other.
template <bool kNhwc, int kPack>
struct Walk {
  int64_t row, end, step;
  int64_t offset;                 // of the pack in elements
  int64_t image_step, pack_step;  // NCHW: `step` packs as images and packs of a plane
  int64_t place;                  // NCHW: of the pack in its plane

  // Of the channels from c on, in this block's slice.
  __device__ __forceinline__ Walk(const Work& work, int64_t c) : step(blockDim.y) {
    const int64_t begin = blockIdx.y * work.rows_per_slice;
    row = begin + threadIdx.y;
    end = begin + work.rows_per_slice < work.rows ? begin + work.rows_per_slice : work.rows;
    if (c >= work.C) end = row;
    if constexpr (kNhwc) {
      offset = row * work.C + c;
    } else {
      const int64_t image = row / work.packs_per_plane;
      place = row - image * work.packs_per_plane;
      offset = (image * work.C + c) * work.pixels + place * kPack;
      image_step = step / work.packs_per_plane;
      pack_step = step - image_step * work.packs_per_plane;
    }
  }

  __device__ __forceinline__ bool inside() const { return row < end; }

  __device__ __forceinline__ void next(const Work& work) {
    row += step;
    if constexpr (kNhwc) {
      offset += step * work.C;
    } else {
      const bool wraps = place + pack_step >= work.packs_per_plane;
      place += wraps ? pack_step - work.packs_per_plane : pack_step;
      // From the end of a plane to the next image lie the other channels: C - 1 planes.
      offset += image_step * work.C * work.pixels + pack_step * kPack + (wraps ? (work.C - 1) * work.pixels : 0);
    }
  }
};

// The mean as the nearest value of the type that maps are computed in, and what that leaves: (x - near) - rest keeps
// all bits that there are of x - mean.
template <typename Value, typename Stat>
struct Center {
  Value near;
  Value rest;
  __device__ __forceinline__ explicit Center(Stat mean)
      : near(static_cast<Value>(mean)), rest(static_cast<Value>(mean - static_cast<Stat>(near))) {}
};

template <typename Value, typename Stat>
__device__ __forceinline__ Value inverse_deviation(Stat var, double eps) {
  return static_cast<Value>(Stat{1} / sqrt(var + static_cast<Stat>(eps)));
}

}  // namespace d2l::cuda::batch_norm
