// Plain descriptions of the work of one kernel call. No torch, no CUDA: host code, kernels and C++ tests all include
// this.
//
// Sizes have one name each, here and everywhere else:
//   N images, C input channels, H x W input map, K output channels, R x S kernel, P x Q output map.
// Strides, paddings and dilations are in pixels; offsets into tensors are int64_t because numel may pass 2^31.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define D2L_HOST_DEVICE __host__ __device__
#else
#define D2L_HOST_DEVICE
#endif

namespace d2l {

// Order of the axes in memory, outermost first. Tensors handed to kernels are dense in one of these.
enum class Layout { nchw, nhwc };

// What is applied to each element of a result: max(x, 0), 1 / (1 + exp(-x)), tanh(x). Their derivatives follow from it.
enum class Activation { none, relu, sigmoid, tanh };

// Cross-correlation: output[n,k,p,q] = bias[k] + sum_{c,r,s} weight[k,c,r,s]
//   * input[n, c', p*stride_h + r*dilation_h - pad_top, q*stride_w + s*dilation_w - pad_left]
// where c runs over the C/groups channels of k's group, c' = (k / (K/groups)) * (C/groups) + c, and the input is zero
// outside its map. Bottom and right padding are implied by P and Q.
// A map in NHWC may be a range of the channels of a wider one (of a concatenation): its pixels then lie further apart
// than its channels are many.
struct Conv2dShape {
  int64_t N, C, H, W;
  int64_t K, R, S;
  int64_t P, Q;
  int64_t stride_h, stride_w;
  int64_t pad_top, pad_left;
  int64_t dilation_h, dilation_w;
  int64_t groups;
  int64_t input_pixel = 0, output_pixel = 0;  // NHWC: elements from a pixel to the next; 0: as many as channels

  D2L_HOST_DEVICE int64_t input_pixel_stride() const { return input_pixel > 0 ? input_pixel : C; }
  D2L_HOST_DEVICE int64_t output_pixel_stride() const { return output_pixel > 0 ? output_pixel : K; }
  D2L_HOST_DEVICE int64_t group_c() const { return C / groups; }
  D2L_HOST_DEVICE int64_t group_k() const { return K / groups; }
};

// A run of input rows (or columns) under one output row (or column): begin, begin + step, ... below end. It may reach
// outside the map by the padding; `begin` is where the kernel's first tap lies.
struct Window {
  int64_t begin, end, step;
};

// Pooling: output[n,c,p,q] is the maximum or the average of the input under the window rows(p) x columns(q).
// R x S bounds the size of every window (exact, unless adaptive). A maximum's place is remembered as its offset
// r * S + s inside the window, where r and s count taps from Window::begin, padding included.
struct Pool2dShape {
  int64_t N, C, H, W;
  int64_t R, S;
  int64_t P, Q;
  int64_t stride_h, stride_w;
  int64_t pad_h, pad_w;
  int64_t dilation_h, dilation_w;
  bool adaptive;             // windows split the map as evenly as they can; stride, pad and dilation are unused
  bool count_include_pad;    // average: the divisor counts the taps that fall on padding
  int64_t divisor_override;  // average: 0, or the divisor to use in every window

  D2L_HOST_DEVICE Window rows(int64_t p) const {
    return adaptive ? adaptive_window(p, H, P) : window(p, stride_h, pad_h, dilation_h, R);
  }
  D2L_HOST_DEVICE Window columns(int64_t q) const {
    return adaptive ? adaptive_window(q, W, Q) : window(q, stride_w, pad_w, dilation_w, S);
  }

 private:
  D2L_HOST_DEVICE static Window window(int64_t i, int64_t stride, int64_t pad, int64_t dilation, int64_t taps) {
    const int64_t begin = i * stride - pad;
    return {begin, begin + dilation * (taps - 1) + 1, dilation};
  }
  D2L_HOST_DEVICE static Window adaptive_window(int64_t i, int64_t size, int64_t windows) {
    return {i * size / windows, ((i + 1) * size + windows - 1) / windows, 1};
  }
};

// Batch normalisation: output[n,c,i] = (input[n,c,i] - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c], where i
// runs over the pixels of a map of any rank. In training, mean and var (the mean squared deviation) are those of the
// values of the channel: of all images and pixels.
struct BatchNormShape {
  int64_t N, C, pixels;

  D2L_HOST_DEVICE int64_t values() const { return N * pixels; }
};

// The gradient of a bias that was added to each channel of maps (of any rank, i runs over the pixels):
// grad_bias[c] = sum_{n,i} grad_pre[n,c,i], with grad_pre = grad_output * the derivative of the activation after it.
struct BiasGradShape {
  int64_t N, C, pixels;
};

// Softmax over the middle axis: output[n,c,i] = exp(input[n,c,i]) / sum_c exp(input[n,c,i]). `inner` elements lie
// between neighbours along that axis.
struct SoftmaxShape {
  int64_t outer, C, inner;

  D2L_HOST_DEVICE int64_t rows() const { return outer * inner; }
};

// Cross-entropy of maps (N, C, pixels) and class indices t (N, pixels), with s = label_smoothing and weights w (or 1):
//   loss[n,i] = -sum_c q_c log softmax(input)[n,c,i],  q_c = (1 - s) w_t [c = t] + s / C w_c,
// and 0 where the target is ignore_index. What is ignored has no weight in a mean; otherwise it is w_t.
struct CrossEntropyShape {
  int64_t N, C, pixels;
  int64_t ignore_index;
  double label_smoothing;

  D2L_HOST_DEVICE int64_t rows() const { return N * pixels; }
};

// How the losses of elements become one.
enum class Reduction { none, mean, sum };

// One of the tensors of a concatenation: dense rows of `row_bytes` bytes.
struct ConcatPiece {
  const void* data;
  int64_t row_bytes;
};

}  // namespace d2l
