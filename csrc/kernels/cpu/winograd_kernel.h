// What the launchers of conv2d.h hand to the Winograd kernels: 3x3 or 5x5 taps, stride 1, dilation 1, one
// group, any padding.
#pragma once

#include "kernels/cpu/conv2d_kernel.h"

namespace d2l::cpu {

// `tile` is the size of a tile of the result (for the weight gradient: of grad_output), one of kWinogradTiles of
// conv2d_algorithm.h for those taps.
#define D2L_WINOGRAD_KERNELS(capability)                                         \
  namespace capability {                                                         \
  void winograd_correlate(const Correlation<float>& problem, int tile);          \
  void winograd_weight_gradient(const WeightGradient<float>& problem, int tile); \
  }
D2L_FOR_EACH_TILED_CAPABILITY(D2L_WINOGRAD_KERNELS)
#undef D2L_WINOGRAD_KERNELS

// Whether winograd_correlate of amx multiplies in tiles (winograd_parts.h), given the positions in a transformed tile.
// Little depth leaves half of a step empty; of few tiles or result channels, splitting the other factor is most of the
// work.
inline bool winograd_suits_parts(int64_t depth, int64_t width, int64_t tiles, int64_t planes) {
  return depth > 16 && width > 32 && tiles >= 96 && tiles > 2 * planes;
}

}  // namespace d2l::cpu
