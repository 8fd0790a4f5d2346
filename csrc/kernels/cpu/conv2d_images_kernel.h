// What the launchers of conv2d_images.h call, once per instruction set.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/cpu/conv2d_images.h"

#define D2L_CONV2D_IMAGES_KERNELS(capability)               \
  namespace capability {                                    \
  template <typename T>                                     \
  void images_forward(const ImagesForward<T>& problem);     \
  template <typename T>                                     \
  void images_gradients(const ImagesGradients<T>& problem); \
  }

namespace d2l::cpu {
D2L_FOR_EACH_CAPABILITY(D2L_CONV2D_IMAGES_KERNELS)
}  // namespace d2l::cpu

#undef D2L_CONV2D_IMAGES_KERNELS
