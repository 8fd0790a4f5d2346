// torch's rule for memory formats: an output is channels_last if one of the inputs is.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/MemoryFormat.h>

#include "kernels/shapes.h"

namespace d2l {

inline at::MemoryFormat output_format(const at::Tensor& a) {
  return a.suggest_memory_format() == at::MemoryFormat::ChannelsLast ? at::MemoryFormat::ChannelsLast
                                                                     : at::MemoryFormat::Contiguous;
}

inline at::MemoryFormat output_format(const at::Tensor& a, const at::Tensor& b) {
  return output_format(a) == at::MemoryFormat::ChannelsLast ? at::MemoryFormat::ChannelsLast : output_format(b);
}

inline Layout layout_of(at::MemoryFormat format) {
  return format == at::MemoryFormat::ChannelsLast ? Layout::nhwc : Layout::nchw;
}

// A map that kernels read in NHWC, and the elements from one of its pixels to the next (see Conv2dShape): more than it
// has channels where it is a range of the channels of a wider map, which is read in place.
struct NhwcMap {
  at::Tensor tensor;
  int64_t pixel;
};

inline NhwcMap as_nhwc(const at::Tensor& map) {
  const int64_t N = map.size(0), C = map.size(1), H = map.size(2), W = map.size(3);
  const int64_t pixel = W > 1 ? map.stride(3) : H > 1 ? map.stride(2) : N > 1 ? map.stride(0) : C;
  const bool in_place = pixel >= C && (C == 1 || map.stride(1) == 1) && (H == 1 || map.stride(2) == W * pixel) &&
                        (N == 1 || map.stride(0) == H * W * pixel);
  return in_place ? NhwcMap{map, pixel} : NhwcMap{map.contiguous(at::MemoryFormat::ChannelsLast), C};
}

// The map as kernels read it in that format, and in channels_last its `pixel`.
inline at::Tensor in_format(const at::Tensor& map, at::MemoryFormat format, int64_t& pixel) {
  if (format != at::MemoryFormat::ChannelsLast) return map.contiguous(format);
  const NhwcMap found = as_nhwc(map);
  pixel = found.pixel;
  return found.tensor;
}

}  // namespace d2l
