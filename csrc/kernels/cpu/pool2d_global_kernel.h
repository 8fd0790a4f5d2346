// What the launchers hand to the kernels of windows that are whole maps (see pool2d_global_kernel.cpp).
#pragma once

#include "kernels/cpu/pool2d_kernel.h"

namespace d2l::cpu {

// `channels` lie side by side in each of `pixels`; NCHW has one. A unit of work is that many windows: an image in NHWC,
// a plane in NCHW.
struct Pool2dGlobal {
  int64_t pixels, channels;
};

#define D2L_POOL2D_GLOBAL_KERNELS(capability)                                                                          \
  namespace capability {                                                                                               \
  template <typename E, typename Offset>                                                                               \
  void max_pool2d_global(const Pool2dGlobal& work, const E* input, E* output, Offset* offsets, Span units);            \
  template <typename E, typename Offset>                                                                               \
  void max_pool2d_input_grad_global(const Pool2dGlobal& work, const E* grad_output, const Offset* offsets,             \
                                    E* grad_input, Span units);                                                        \
  template <typename E>                                                                                                \
  void avg_pool2d_global(const Pool2dGlobal& work, computed_t<E> size, const E* input, E* output, Span units);         \
  template <typename E>                                                                                                \
  void avg_pool2d_input_grad_global(const Pool2dGlobal& work, computed_t<E> size, const E* grad_output, E* grad_input, \
                                    Span units);                                                                       \
  }

D2L_FOR_EACH_CAPABILITY(D2L_POOL2D_GLOBAL_KERNELS)

#undef D2L_POOL2D_GLOBAL_KERNELS

}  // namespace d2l::cpu
