// What the kernels of batch normalisation share: which thread takes which elements, and the arithmetic of one channel.
//
// A block takes a slice of the values of a few neighbouring packs of channels (NHWC), or of one channel (NCHW). Its
// threads are (packs of channels, rows); the rows of a slice are pixels of all images, or packs of pixels. Slices
// depend on the shape alone, so that results are the same on every device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/batch_norm.h"
#include "kernels/cuda/batch_norm_moments.cuh"
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

struct Work {
  int64_t C, pixels;
  int64_t rows, rows_per_slice;
  int64_t packs_per_plane;  // NCHW
  double eps, values;       // values per channel
  bool aligned;             // all maps to the size of a pack
};

// Maps as a kernel takes them.
template <typename T>
struct Maps {
  T* data;
  int64_t pixel;  // NHWC: elements from one pixel to the next; else 0
};

template <bool kNhwc, typename T>
Maps<const T> maps_of(NormInput maps, const BatchNormShape& shape) {
  return {static_cast<const T*>(maps.data), !kNhwc ? 0 : maps.pixel > 0 ? maps.pixel : shape.C};
}
template <bool kNhwc, typename T>
Maps<T> maps_of(NormOutput maps, const BatchNormShape& shape) {
  return {static_cast<T*>(maps.data), !kNhwc ? 0 : maps.pixel > 0 ? maps.pixel : shape.C};
}

// Whether packs of all of these may be loaded at once.
template <typename T, typename... Given>
bool are_aligned(const Given&... maps) {
  constexpr int64_t kPack = kPackBytes / static_cast<int64_t>(sizeof(T));
  return ((is_aligned(maps.data, kPackBytes) && maps.pixel % kPack == 0) && ...);
}

struct Grid {
  dim3 grid, block;
  int64_t slices;
};

inline int64_t max_slices(const BatchNormShape& shape, Layout layout) {
  const int64_t blocks = layout == Layout::nhwc ? ceil_div(shape.C, kChannelsPerBlock) : shape.C;
  return std::clamp<int64_t>(ceil_div(shape.values(), kValuesPerBlock), 1,
                             std::max<int64_t>(1, kMaxBlocks / std::max<int64_t>(1, blocks)));
}

inline bool is_empty(const BatchNormShape& shape) { return shape.values() == 0 || shape.C == 0; }

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
  int64_t channel;                // NHWC: the first of the pack
  int64_t offset;                 // NCHW: of the pack in elements
  int64_t image_step, pack_step;  // NCHW: `step` packs as images and packs of a plane
  int64_t place;                  // NCHW: of the pack in its plane

  // Of the channels from c on, in this block's slice.
  __device__ __forceinline__ Walk(const Work& work, int64_t c) : step(blockDim.y) {
    const int64_t begin = blockIdx.y * work.rows_per_slice;
    row = begin + threadIdx.y;
    end = begin + work.rows_per_slice < work.rows ? begin + work.rows_per_slice : work.rows;
    if (c >= work.C) end = row;
    if constexpr (kNhwc) {
      channel = c;
    } else {
      const int64_t image = row / work.packs_per_plane;
      place = row - image * work.packs_per_plane;
      offset = (image * work.C + c) * work.pixels + place * kPack;
      image_step = step / work.packs_per_plane;
      pack_step = step - image_step * work.packs_per_plane;
    }
  }

  __device__ __forceinline__ bool inside() const { return row < end; }

  // The pack in these maps.
  template <typename T>
  __device__ __forceinline__ T* in(const Maps<T>& maps) const {
    return maps.data + (kNhwc ? row * maps.pixel + channel : offset);
  }

  __device__ __forceinline__ void next(const Work& work) {
    row += step;
    if constexpr (!kNhwc) {
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

// What one channel is normalised with: (x - near) * scale + shift.
template <typename Value>
struct Coefficients {
  Value near, scale, shift;

  __device__ __forceinline__ Value operator()(Value x) const { return (x - near) * scale + shift; }
};

// Pointers of a Normalization, as kernels take them.
template <typename Value, typename Stat>
struct Parameters {
  const Stat* mean;
  const Stat* var;
  const Value* weight;
  const Value* bias;

  explicit Parameters(const Normalization& by)
      : mean(static_cast<const Stat*>(by.mean)),
        var(static_cast<const Stat*>(by.var)),
        weight(static_cast<const Value*>(by.weight)),
        bias(static_cast<const Value*>(by.bias)) {}

  __device__ __forceinline__ Coefficients<Value> of(int64_t c, double eps) const;
};

template <typename Value, typename Stat>
__device__ __forceinline__ Value inverse_deviation(Stat var, double eps) {
  return static_cast<Value>(Stat{1} / sqrt(var + static_cast<Stat>(eps)));
}

template <typename Value, typename Stat>
__device__ __forceinline__ Coefficients<Value> Parameters<Value, Stat>::of(int64_t c, double eps) const {
  const Center<Value, Stat> center(mean[c]);
  const Value scale = inverse_deviation<Value>(var[c], eps) * (weight ? weight[c] : Value{1});
  return {center.near, scale, (bias ? bias[c] : Value{0}) - center.rest * scale};
}

template <bool kNhwc, int kPack>
__device__ __forceinline__ int64_t first_channel() {
  return kNhwc ? (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kPack : blockIdx.x;
}

// gradient * activation'(x), where y = activation(x); of a ReLU, x will do. A NaN has a gradient: it is not below zero.
// The activation is the same in all threads: the branch costs nothing next to the loads.
template <typename Value>
__device__ __forceinline__ Value gradient_before(Activation activation, Value gradient, Value y) {
  switch (activation) {
    case Activation::relu:
      return y <= Value{0} ? Value{0} : gradient;
    case Activation::sigmoid:
      return gradient * (y * (Value{1} - y));
    case Activation::tanh:
      return gradient * (Value{1} - y * y);
    case Activation::none:
      break;
  }
  return gradient;
}

}  // namespace d2l::cuda::batch_norm
