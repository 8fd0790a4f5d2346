// What the launchers of conv2d.h hand to the kernels, which are compiled once per capability.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/cpu/conv2d.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/progress.h"

namespace d2l::cpu {

// One spatial axis of a convolution: `source` pixels in, `result` pixels out, for the direction that is computed.
// Stride, pad and dilation are always those of the forward convolution.
struct CorrelationAxis {
  int64_t source, result;
  int64_t taps, stride, pad, dilation;
};

// Forward convolution, or (transposed) its input gradient in gather form: every pixel of the result is a sum over taps
// and `depth` channels of the source. Elements of its map become T, and T those of the result.
template <typename T, typename From = T, typename To = From>
struct Correlation {
  bool transposed;
  int64_t images, groups;
  int64_t depth, width;  // channels of the source and of the result, in one group
  CorrelationAxis rows, columns;
  Layout source_layout, result_layout;
  int64_t source_channels, result_channels;  // of the whole maps: in NHWC, elements from a pixel to the next
  const From* source;
  const T* weight;
  int64_t weight_group, weight_depth, weight_width, weight_row, weight_column;  // element strides
  const T* bias;                                                                // null: none
  Activation activation;                                                        // of the sums
  To* result;
  Progress progress;  // forward
  // Of pairs of bfloat16 that do not lie in memory: from the first value to the second; all strides of the weight are
  // in values then, and weight_width is 1.
  int64_t weight_pair;
  // The source is bfloat16. Pairs are of rows that neighbouring taps meet, and rows of taps are half as many in the
  // weight; an odd last one is paired with zeros. Forward only.
  bool pairs_rows;
};

// Sum over images and pixels of grad_output (width channels) times the window of input (depth channels) under it.
// The axes are those of the forward convolution: source is the input, result the output. Elements E, sums in T.
template <typename T, typename E = T>
struct WeightGradient {
  int64_t images, groups;
  int64_t depth, width;
  CorrelationAxis rows, columns;
  Layout input_layout, output_layout;
  int64_t input_channels, output_channels;  // of the whole maps: in NHWC, elements from a pixel to the next
  const E* input;
  const E* grad_output;
  E* grad_weight;
  int64_t weight_group, weight_depth, weight_width, weight_row, weight_column;
};

#define D2L_CONV2D_KERNELS(capability)                       \
  namespace capability {                                     \
  template <typename T, typename E>                          \
  void correlate(const Correlation<T, E>& problem);          \
  template <typename T, typename E>                          \
  void weight_gradient(const WeightGradient<T, E>& problem); \
  }
D2L_FOR_EACH_CAPABILITY(D2L_CONV2D_KERNELS)
#undef D2L_CONV2D_KERNELS

#if defined(__x86_64__)
// Multiplies pairs of images with the machine's own instructions, where has_bfloat16_gemm().
namespace avx512_bfloat16 {
template <typename T, typename E>
void weight_gradient(const WeightGradient<T, E>& problem);
}  // namespace avx512_bfloat16
namespace amx {
template <typename T, typename E>
void weight_gradient(const WeightGradient<T, E>& problem);
void weight_gradient_in_tiles(const WeightGradient<float, BFloat16>& problem);
}  // namespace amx
#endif

}  // namespace d2l::cpu
