// What the launchers hand to the kernels of windows that lie side by side (see pool2d_tiles_kernel.cpp).
#pragma once

#include "kernels/cpu/pool2d_kernel.h"

namespace d2l::cpu {

// rows x columns windows of R x S pixels each; what they leave at the bottom and on the right belongs to none. NCHW has
// one channel. A unit of work is one row of windows, the last one cut short by `windows` where tables make it several.
struct Pool2dTiles {
  int64_t rows, columns;
  int64_t source_rows, source_columns;
  int64_t R, S;
  int64_t channels;
  int64_t units, windows;  // in all of the tensor; windows times channels
  // Null, or for rows of the input in registers: the first window (times channels, plus channel) that each register
  // reads, and for each lane where its window is from there on, and which tap s of it the lane is. Padded to whole
  // registers.
  const int64_t* first;
  const uint8_t* sources;
  const uint8_t* taps;
};

// The same windows for the forward pass. Where pixels have few channels `block` windows of a row, in one row or two,
// fill a register, and their pixels two: `near` and `far` many elements of one row of pixels, or a row each of both.
// For each tap s and each lane, padded to a whole register: where its pixel is. Null where vectors run over channels,
// which is for windows of 2 x 2 pixels.
struct Pool2dTileBlocks {
  int64_t rows, columns;
  int64_t source_rows, source_columns;
  int64_t R, S;
  int64_t channels, block, rows_per_block;
  int64_t near, far;
  const uint8_t* places;
};

#define D2L_POOL2D_TILES_KERNELS(capability)                                                                         \
  namespace capability {                                                                                             \
  template <typename E, typename Offset>                                                                             \
  void max_pool2d_input_grad_tiles(const Pool2dTiles& work, const E* grad_output, const Offset* offsets,             \
                                   E* grad_input, Span units);                                                       \
  template <typename E>                                                                                              \
  void avg_pool2d_input_grad_tiles(const Pool2dTiles& work, computed_t<E> size, const E* grad_output, E* grad_input, \
                                   Span units);                                                                      \
  template <typename E, typename Offset>                                                                             \
  void max_pool2d_tiles(const Pool2dTileBlocks& work, const E* input, E* output, Offset* offsets, Span units);       \
  template <typename E>                                                                                              \
  void avg_pool2d_tiles(const Pool2dTileBlocks& work, computed_t<E> size, const E* input, E* output, Span units);    \
  }

D2L_FOR_EACH_CAPABILITY(D2L_POOL2D_TILES_KERNELS)

#undef D2L_POOL2D_TILES_KERNELS

}  // namespace d2l::cpu
