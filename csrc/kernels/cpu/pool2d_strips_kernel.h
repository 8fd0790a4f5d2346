// What pool2d.cpp hands to the kernels of max_pool2d_strips_kernel.cpp and avg_pool2d_strips_kernel.cpp.
#pragma once

#include "kernels/cpu/pool2d_kernel.h"

namespace d2l::cpu {

// Windows of 3 x 3 neighbouring pixels that overlap, in NHWC: their rows are 1 or 2 apart, and at most one row of a
// window lies above the map. A unit of work is a band of one image: `band_rows` rows of items, or what is left.
struct Pool2dStrips {
  Pool2dNhwc map;
  int64_t band_rows, bands;
  int64_t stride, pad;  // of the rows
};

#define D2L_POOL2D_STRIPS_KERNELS(capability)                                                                          \
  namespace capability {                                                                                               \
  template <typename E>                                                                                                \
  void max_pool2d_strips(const Pool2dStrips& work, const E* input, E* output, uint8_t* offsets, Span units);           \
  template <typename E>                                                                                                \
  void max_pool2d_input_grad_strips(const Pool2dStrips& work, const E* grad_output, const uint8_t* offsets,            \
                                    E* grad_input, Span units);                                                        \
  template <typename E>                                                                                                \
  void avg_pool2d_strips(const Pool2dStrips& work, const WindowSizes<computed_t<E>>& sizes, const E* input, E* output, \
                         Span units);                                                                                  \
  template <typename E>                                                                                                \
  void avg_pool2d_input_grad_strips(const Pool2dStrips& work, const WindowSizes<computed_t<E>>& sizes,                 \
                                    const E* grad_output, E* grad_input, Span units);                                  \
  }

D2L_FOR_EACH_CAPABILITY(D2L_POOL2D_STRIPS_KERNELS)

#undef D2L_POOL2D_STRIPS_KERNELS

}  // namespace d2l::cpu
