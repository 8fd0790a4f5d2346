// Host-side decisions that follow from the shape alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/shapes.h"

namespace d2l::cuda {

// Coordinates of pixels and channels are 32-bit, with a bit to spare for the sum of two.
constexpr int64_t kCoordinateLimit = int64_t{1} << 30;

inline bool fits_coordinates(const Conv2dShape& shape) {
  const auto below = [](int64_t value) { return value < kCoordinateLimit; };
  const auto axis = [&](int64_t in, int64_t taps, int64_t out, int64_t stride, int64_t pad, int64_t dilation) {
    return below(in) && below(taps) && below(out) && below(stride) && below(pad) && below(dilation) &&
           below(out * stride) && below(taps * dilation) && below(in + pad + stride) && pad >= 0;
  };
  return axis(shape.H, shape.R, shape.P, shape.stride_h, shape.pad_top, shape.dilation_h) &&
         axis(shape.W, shape.S, shape.Q, shape.stride_w, shape.pad_left, shape.dilation_w) && below(shape.C) &&
         below(shape.K) && below(shape.R * shape.S) && below(shape.R * shape.S * shape.group_c()) &&
         below(shape.R * shape.S * shape.group_k()) && below(shape.stride_h * shape.stride_w);
}

// The x of 0 <= x < modulus with x * value = 1 (mod modulus); the two have no common divisor. (Euclid, extended.)
inline int64_t inverse_modulo(int64_t value, int64_t modulus) {
  int64_t rest = modulus, next_rest = value % modulus, factor = 0, next_factor = 1;
  while (next_rest > 0) {
    const int64_t whole = rest / next_rest;
    rest = std::exchange(next_rest, rest - whole * next_rest);
    factor = std::exchange(next_factor, factor - whole * next_factor);
  }
  return factor < 0 ? factor + modulus : factor;
}

// The depth of every slice but the last is a multiple of this, and this one of every tile's depth.
constexpr int64_t kSliceUnit = 64;

// How the depth of a weight gradient, N P Q, is cut. From the shape alone, so that the result does not depend on the
// device or on the tile in use.
struct WeightGradSlices {
  int count;
  int64_t depth;
};

inline WeightGradSlices weight_grad_slices(const Conv2dShape& shape) {
  constexpr int64_t kTile = 64;           // of the smallest tile: rows, columns
  constexpr int64_t kTargetBlocks = 512;  // a few for each multiprocessor of a large GPU
  constexpr int64_t kLeastDepth = 256;    // less is not worth a slice
  const auto ceil_div = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t depth = shape.N * shape.P * shape.Q;
  const int64_t tiles =
      shape.groups * ceil_div(shape.group_k(), kTile) * ceil_div(shape.R * shape.S * shape.group_c(), kTile);
  const int64_t wanted =
      std::clamp(kTargetBlocks / std::max<int64_t>(tiles, 1), int64_t{1}, std::max<int64_t>(depth / kLeastDepth, 1));
  const int64_t slice = std::max(kSliceUnit, ceil_div(ceil_div(depth, wanted), kSliceUnit) * kSliceUnit);
  return {static_cast<int>(std::max<int64_t>(ceil_div(depth, slice), 1)), slice};
}

}  // namespace d2l::cuda
