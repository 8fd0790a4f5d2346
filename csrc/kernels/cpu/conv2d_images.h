// Convolutions of batches of small maps with few channels, computed with the images of a batch in the lanes of a
// vector: no lane is lost to 1, 6 or 16 channels or to rows of 14 pixels, and neighbouring pixels are whole vectors.
// For T = float and double. Sums are in T; deterministic for a given number of threads.
#pragma once

#include "kernels/cpu/conv2d.h"
#include "kernels/shapes.h"

namespace d2l::cpu {

// Whether these kernels take the shape and are the fastest choice for it; all maps are dense.
bool conv2d_suits_images(const Conv2dShape& shape, int64_t element_bytes);

template <typename T>
struct ImagesForward {
  Conv2dShape shape;
  Layout input_layout, output_layout;
  const T* input;
  const T* weight;
  WeightStrides weight_strides;
  const T* bias;  // null: none
  Activation activation;
  T* output;               // null: not wanted
  T* pooled;               // averages of 2x2 windows, P / 2 x Q / 2 of them; null: not wanted
  Progress progress = {};  // of the output
};

template <typename T>
void conv2d_images(const ImagesForward<T>& problem);

// The gradients of ImagesForward.
template <typename T>
struct ImagesGradients {
  Conv2dShape shape;
  Layout input_layout, output_layout, grad_output_layout;
  const T* grad_output;  // of the averages if is_pooled, else of the activated map
  bool is_pooled;
  Activation activation;
  const T* output;  // activated; unused where the activation is none
  const T* input;   // for grad_weight
  const T* weight;  // for grad_input
  WeightStrides weight_strides;
  T* grad_input;  // each null where not wanted
  T* grad_weight;
  WeightStrides grad_weight_strides;
  T* grad_bias;
};

template <typename T>
void conv2d_images_grads(const ImagesGradients<T>& problem);

}  // namespace d2l::cpu
