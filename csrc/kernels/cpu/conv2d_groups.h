// Convolutions whose groups have few channels; depthwise ones have one. Vectors go over the channels of several groups
// of a pixel in NHWC, so that no lane is empty; NCHW maps are transposed some channels at a time. For T = float and
// double, and E, of the elements of maps, BFloat16 as well. Sums are in T, tap by tap as they lie in the source, so
// these kernels count as "direct"; results do not depend on the number of threads.
#pragma once

#include "kernels/cpu/conv2d_kernel.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

// Whether these kernels take the shape and are the fastest choice for it, unless tiles of AMX multiply bfloat16.
bool conv2d_suits_groups(const Conv2dShape& shape, int64_t element_bytes);

// From so many channels a group on such tiles are faster, where they take the shape.
constexpr int64_t kLeastGroupInTiles = 6;

inline bool has_groups_for_tiles(const Conv2dShape& shape) {
  return shape.group_c() >= kLeastGroupInTiles && shape.group_k() >= kLeastGroupInTiles;
}

template <typename T, typename E>
void conv2d_groups(const Correlation<T, E>& problem);

template <typename T, typename E>
void conv2d_groups_weight_grad(const WeightGradient<T, E>& problem);

}  // namespace d2l::cpu
